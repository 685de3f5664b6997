"""The training loop against float64 numpy, PyTorch's own schedules and plain formulas."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from transferbench.data.pipeline import ImagePipeline
from transferbench.errors import SuiteError
from transferbench.networks.eager import eager
from transferbench.specs import RateFactor
from transferbench.suite import Recipe, Schedule
from transferbench.training import (
    DataSplit,
    Execution,
    TaskData,
    Training,
    evaluate,
    evaluated_epochs,
    learning_rate_factor,
    model_outputs,
    random_task,
)

CPU = Execution(torch.device("cpu"))


class Linear(nn.Module):
    """Softmax regression on pixels, whose training is simple to write in numpy."""

    def __init__(self, classes=3, size=4, *, norm=False):
        super().__init__()
        self.body = nn.BatchNorm2d(1) if norm else nn.Identity()
        self.head = nn.Linear(size * size, classes)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


def recipe_of(**changes):
    fields = {"optimizer": "sgd", "learning_rate": 0.1, "epochs": 2, "batch_size": 8} | changes
    return Recipe.model_validate(fields)


def split_of(n, seed=0, classes=3, task="multi-class", labels=None):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 4, 4, 1), dtype=np.uint8)
    if labels is None:
        labels = rng.integers(0, classes, n)
        if task == "multi-label":
            labels = rng.integers(0, 2, (n, classes)).astype(np.float32)
    return DataSplit(
        ImagePipeline(torch.from_numpy(images), [0.5], [0.5]), torch.from_numpy(labels)
    )


def data_of(n=32, task="multi-class", validation=None, train=None):
    metric = "accuracy" if task == "multi-class" else "auc"
    train = train or split_of(n, task=task)
    return TaskData(task, metric, 3, train, split_of(20, seed=1, task=task), validation)


def net_of(seed=0, **kwargs):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Linear(**kwargs)


def trained(data, recipe, execution=CPU, net=None, **seeds):
    net = net or net_of()
    training = Training(net, data, recipe, execution)
    return training.train(**{"data_seed": 1, "augmentation_seed": 2} | seeds), net


def pixels(split):
    indices = torch.arange(len(split.pipeline))
    return split.pipeline.batch(indices, None).flatten(1).double().numpy()


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_sgd_with_momentum_decay_smoothing_and_cosine_equals_float64_numpy():
    recipe = recipe_of(
        batch_size=32, epochs=5, momentum=0.9, weight_decay=0.01, label_smoothing=0.1,
        schedule={"name": "cosine", "warmup_epochs": 1},
    )  # fmt: skip
    data = data_of(32)
    net = net_of()
    W, b = (p.detach().double().numpy().copy() for p in (net.head.weight, net.head.bias))
    x, y = pixels(data.train), np.eye(3)[data.train.labels.numpy()] * 0.9 + 0.1 / 3
    vW, vb = np.zeros_like(W), np.zeros_like(b)
    for step in range(5):
        factor = 1.0 if step == 0 else 0.5 * (1 + np.cos(np.pi * (step - 1) / 4))
        error = (softmax(x @ W.T + b) - y) / len(x)
        vW = 0.9 * vW + error.T @ x + 0.01 * W
        vb = 0.9 * vb + error.sum(axis=0) + 0.01 * b
        W, b = W - 0.1 * factor * vW, b - 0.1 * factor * vb
    trained(data, recipe, net=net)
    np.testing.assert_allclose(net.head.weight.detach().numpy(), W, atol=1e-6)
    np.testing.assert_allclose(net.head.bias.detach().numpy(), b, atol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "fields"),
    [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {"betas": (0.8, 0.99)})],
)
def test_an_optimizer_without_the_compiler_takes_the_same_steps(monkeypatch, optimizer, fields):
    def steps(kind):
        torch.default_generator.manual_seed(0)  # torch.manual_seed meets the compiler, too
        net = nn.Linear(5, 3)
        trained = kind(net.parameters(), lr=0.1, weight_decay=0.1, fused=True, **fields)
        schedule = torch.optim.lr_scheduler.LambdaLR(trained, lambda step: 0.9**step)
        for _ in range(5):
            trained.zero_grad()
            net(torch.randn(4, 5)).square().mean().backward()
            trained.step()
            schedule.step()
        return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])

    with monkeypatch.context() as refused:
        refused.setitem(sys.modules, "torch._dynamo", None)  # an import of it is an error
        ours = steps(eager(optimizer))
        with pytest.raises(ImportError):
            steps(optimizer)
    assert torch.equal(ours, steps(optimizer))
    assert torch.is_grad_enabled()


def test_loss_and_metric_of_the_history_equal_numpy():
    data = data_of(32)
    result, net = trained(data, recipe_of(evaluate_test="every"))
    x, y = pixels(data.test), data.test.labels.numpy()
    z = x @ net.head.weight.detach().double().numpy().T + net.head.bias.detach().double().numpy()
    row = result.history[-1]
    assert row["epoch"] == 2
    assert row["test_metric"] == np.mean(z.argmax(axis=1) == y)
    assert row["test_loss"] == pytest.approx(-np.log(softmax(z)[np.arange(20), y]).mean(), 1e-5)
    assert row["validation_metric"] is None


def test_multi_label_training_lowers_the_binary_cross_entropy():
    data = data_of(32, task="multi-label")
    result, net = trained(data, recipe_of(epochs=20, evaluate_test="every"))
    x, y = pixels(data.test), data.test.labels.numpy()
    z = x @ net.head.weight.detach().double().numpy().T + net.head.bias.detach().double().numpy()
    expected = (np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0) - z * y).mean()
    assert result.history[-1]["test_loss"] == pytest.approx(expected, 1e-5)
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_schedules_equal_those_of_pytorch(schedule):
    milestones = (2, 3) if schedule == "step" else ()
    recipe = recipe_of(epochs=4, schedule=Schedule(name=schedule, milestones=milestones))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = {
        "constant": torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0),
        "cosine": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20),
        "step": torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 15]),
    }[schedule]
    for step in range(20):
        assert learning_rate_factor(recipe, step, 5) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


def test_warm_up_is_linear():
    recipe = recipe_of(epochs=4, schedule={"name": "constant", "warmup_epochs": 2})
    factors = [learning_rate_factor(recipe, step, 5) for step in range(12)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10:] == [1.0, 1.0]


def test_micro_batches_accumulate_to_the_same_gradient():
    data = data_of(32)
    full, _ = trained(data, recipe_of())
    micro, _ = trained(data, recipe_of(), Execution(torch.device("cpu"), micro_batch=3))
    for name, tensor in full.states["final"].items():
        torch.testing.assert_close(micro.states["final"][name], tensor, rtol=1e-5, atol=1e-6)


def test_equal_seeds_give_equal_bits_and_another_data_seed_other_weights():
    data = data_of(32)
    first, second, other = (
        trained(data, recipe_of(), data_seed=seed)[0].states["final"]["head.weight"]
        for seed in (1, 1, 5)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_training_does_not_change_the_global_generator():
    before = torch.random.get_rng_state()
    trained(data_of(32), recipe_of(mixup=0.7, augmentation={"flip": True, "shift": 1}))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("schedule", "epochs", "expected"),
    [
        ("every", 3, {0, 1, 2, 3}),
        ("last", 3, {3}),
        ("sparse", 30, {0, 1, 2, 5, 10, 20, 30}),
        ("sparse", 1, {0, 1}),
    ],
)
def test_evaluated_epochs(schedule, epochs, expected):
    assert evaluated_epochs(schedule, epochs) == expected


def test_an_epoch_without_evaluation_has_no_row():
    recipe = recipe_of(epochs=4, evaluate_train="last", evaluate_test="last")
    result, _ = trained(data_of(32), recipe)
    assert [row["epoch"] for row in result.history] == [4]


def test_best_is_the_earliest_epoch_of_the_highest_validation_metric():
    validation = split_of(40, seed=3)
    recipe = recipe_of(epochs=6, learning_rate=1.0, evaluate_test="every")
    result, net = trained(data_of(32, validation=validation), recipe)
    metrics = [row["validation_metric"] for row in result.history]
    assert result.best_epoch == int(np.argmax(metrics))
    net.load_state_dict(result.states["best"])
    assert evaluate(net, validation, data_of(32), CPU).metric == max(metrics)


def test_a_diverged_network_is_not_the_best():
    """Its outputs have the accuracy of the first class, here of all validation images."""
    validation = split_of(40, labels=np.zeros(40, dtype=np.int64))
    recipe = recipe_of(learning_rate=1e38, epochs=4, evaluate_test="every")
    result, _ = trained(data_of(32, validation=validation), recipe)
    assert result.history[-1]["validation_metric"] == 1.0
    assert result.history[result.best_epoch]["validation_loss"] is not None
    assert all(tensor.isfinite().all() for tensor in result.states["best"].values())
    recipe = recipe.model_copy(update={"evaluate_test": "last"})
    result, _ = trained(data_of(32, validation=validation), recipe)
    assert result.best_epoch is None
    assert result.states["best"] is result.states["final"]


def test_without_validation_best_is_final():
    result, _ = trained(data_of(32), recipe_of())
    assert result.best_epoch is None
    assert torch.equal(result.states["best"]["head.weight"], result.states["final"]["head.weight"])


def test_checkpoints_are_the_states_after_their_epochs():
    training = Training(net_of(), data_of(32), recipe_of(epochs=3), CPU)
    states = training.train(data_seed=1, augmentation_seed=2, checkpoints=[0, 3]).states
    assert torch.equal(states["epoch-0"]["head.weight"], states["init"]["head.weight"])
    assert torch.equal(states["epoch-3"]["head.weight"], states["final"]["head.weight"])


def test_rate_factors_scale_the_steps_of_matching_parameters():
    data, recipe = data_of(32), recipe_of(batch_size=32, epochs=1)
    moves = []
    for factors in ([], [RateFactor(pattern="bias", factor=0.1)]):
        net = net_of()
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        Training(net, data, recipe, CPU, factors).train(data_seed=1, augmentation_seed=2)
        moves.append({name: p.detach() - before[name] for name, p in net.named_parameters()})
    torch.testing.assert_close(moves[1]["head.bias"], 0.1 * moves[0]["head.bias"],
                               rtol=1e-4, atol=1e-7)  # fmt: skip
    torch.testing.assert_close(moves[1]["head.weight"], moves[0]["head.weight"])


def test_with_only_head_the_body_and_its_batch_statistics_are_fixed():
    net = net_of(norm=True)
    for parameter in net.body.parameters():
        parameter.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    Training(net, data_of(32), recipe_of(), CPU, only_head=net.head).train(
        data_seed=1, augmentation_seed=2
    )
    after = net.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}


def test_evaluation_does_not_change_mode_and_statistics():
    net = net_of(norm=True).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    evaluate(net, split_of(20), data_of(32), CPU)
    assert net.training
    assert net.body.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_diverged_training_has_no_loss():
    result, _ = trained(data_of(32), recipe_of(learning_rate=1e38, epochs=4))
    row = result.history[-1]
    assert row["train_loss"] is None
    assert 0 <= row["train_metric"] <= 1


def test_an_evaluated_epoch_has_a_row_also_after_divergence():
    recipe = recipe_of(learning_rate=1e38, epochs=6, evaluate_train="sparse", evaluate_test="last")
    result, _ = trained(data_of(32, task="multi-label"), recipe)
    assert [row["epoch"] for row in result.history] == [0, 1, 2, 5, 6]
    assert result.history[0]["train_metric"] is not None
    measured = {row["epoch"]: set(row.values()) - {row["epoch"]} for row in result.history}
    assert measured[5] == measured[6] == {None}


def test_mixup_trains_towards_the_mixed_targets():
    labels = np.zeros(32, dtype=np.int64)
    data = data_of(train=split_of(32, labels=labels))
    result, _ = trained(data, recipe_of(mixup=0.7, epochs=30))
    assert result.history[-1]["train_metric"] == 1.0


def test_a_dataset_smaller_than_a_batch_is_a_single_batch():
    result, _ = trained(data_of(5), recipe_of(epochs=3))
    assert not torch.equal(
        result.states["init"]["head.weight"], result.states["final"]["head.weight"]
    )


def test_model_outputs_are_logits_and_features_in_order():
    split, net = split_of(20), net_of()
    execution = Execution(torch.device("cpu"), evaluation_batch=7)
    outputs = model_outputs(net, net.head, split.pipeline, execution)
    torch.testing.assert_close(outputs["features"].double(), torch.from_numpy(pixels(split)))
    torch.testing.assert_close(net.head(outputs["features"]), outputs["logits"])


@pytest.mark.parametrize("precision", ["bf16"])
def test_lower_precision_reaches_the_same_loss(precision):
    data = data_of(64)
    exact, _ = trained(data, recipe_of(epochs=10))
    low, _ = trained(data, recipe_of(epochs=10, precision=precision))
    assert low.history[-1]["train_loss"] == pytest.approx(exact.history[-1]["train_loss"], rel=0.05)


def test_a_batch_of_one_image_is_refused_where_a_layer_has_no_statistics_of_it():
    net = net_of(norm=True)
    net.body = nn.Sequential(nn.AvgPool2d(4), nn.BatchNorm2d(1), nn.Upsample(4))
    before, generator = net.state_dict(), torch.get_rng_state()
    expected = (
        r"batches of one image cannot train Linear: it normalises by statistics of its batch "
        r"\(BatchNorm\), and one of its layers has none \(Expected more than 1 value per .*; "
        "give the recipe a batch_size of at least 2, or the target more training images"
    )
    for recipe, n in ((recipe_of(batch_size=1), 32), (recipe_of(), 1)):
        with pytest.raises(SuiteError, match=expected):
            Training(net, data_of(train=split_of(n)), recipe, CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_batch_of_one_image_is_taken_where_only_the_head_is_trained():
    net = net_of(norm=True)
    net.body = nn.Sequential(nn.AvgPool2d(4), nn.BatchNorm2d(1), nn.Upsample(4))
    net.body.requires_grad_(requires_grad=False)
    training = Training(net, data_of(8), recipe_of(batch_size=1), CPU, only_head=net.head)
    training.train(data_seed=0, augmentation_seed=0)


def test_a_batch_of_one_image_is_taken_where_every_layer_has_statistics_of_it():
    training = Training(net_of(norm=True), data_of(8), recipe_of(batch_size=1), CPU)
    training.train(data_seed=0, augmentation_seed=0)


def test_a_random_task_has_labels_of_its_kind():
    classes = random_task(6, (4, 4, 1), 3, torch.device("cpu"))
    several = random_task(6, (4, 4, 3), 3, torch.device("cpu"), "multi-label")
    assert classes.train.labels.shape == (6,)
    assert set(several.train.labels.flatten().tolist()) == {0.0, 1.0}
    assert several.metric == "auc"
    assert several.train.pipeline.batch(torch.arange(2)).shape == (2, 3, 4, 4)
