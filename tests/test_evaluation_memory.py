"""An evaluation takes as many images at once as memory holds."""

import pytest
import torch
from tiny_suite import tiny_suite
from training_groups import Layers, Network, training_of

from transferbench.engine import jobs
from transferbench.engine.jobs import start_engine
from transferbench.engine.resources import Machine
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.training import model_outputs
from transferbench.training.evaluation_batch import LEAST, MOST, SHARE, evaluation_batch


class Small(Layers):
    """A network for which memory runs out with more than ``limit`` images in evaluation."""

    limit = 2

    def __init__(self, seed):
        super().__init__(seed)
        self.sizes = []

    def forward(self, images):
        if not self.training:
            self.sizes.append(len(images))
            if len(images) > self.limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images)


def evaluated(network):
    training = training_of(0, {"network": network})
    return training, training.train(data_seed=1, augmentation_seed=2)


def test_an_evaluation_out_of_memory_goes_on_with_fewer_images():
    training, result = evaluated(Small)
    _, expected = evaluated(Layers)
    for row, expected_row in zip(result.history, expected.history, strict=True):
        assert row == pytest.approx(expected_row, abs=1e-6)
    # Once of 6 and of 3 images; from there on one at a time.
    assert [size for size in training.net.sizes if size > 1] == [6, 3]
    assert training.execution.evaluation_batch == 1


def test_outputs_out_of_memory_are_computed_of_fewer_images():
    training = training_of(0, {"network": Small})
    training.net.eval()
    pipeline = training.data.test.pipeline
    outputs = model_outputs(training.net, training.net.head, pipeline, training.execution)
    training.net.limit = 100
    expected = model_outputs(training.net, training.net.head, pipeline, training.execution)
    for name, values in expected.items():
        torch.testing.assert_close(outputs[name], values)


def test_an_image_that_does_not_fit_raises(monkeypatch):
    monkeypatch.setattr(Small, "limit", 0)
    with pytest.raises(torch.OutOfMemoryError):
        evaluated(Small)


# --- on a card ------------------------------------------------------------------------------------


def batch_of(memory_bytes, network=Network):
    net = network(0).train()
    images = training_of(0, "plain").data.train.pipeline.batch(torch.arange(2))
    return evaluation_batch(net, images, memory_bytes), net


def test_a_larger_card_takes_larger_batches_of_a_small_network():
    """Its largest layer is a convolution of 3 x 8 x 8 to 4 x 6 x 6 numbers of 4 bytes."""
    largest = 4 * (3 * 8 * 8 + 4 * 6 * 6)
    sizes = [batch_of(SHARE * largest * images)[0] for images in (1, 999, 1000, 4100, 10**6)]
    assert sizes == [LEAST, LEAST, 2 * LEAST, 8 * LEAST, MOST]


def test_to_try_a_network_changes_nothing_of_it():
    class DrawsInEvaluation(Network):
        def forward(self, x):
            return super().forward(x) + torch.rand(()) * 0

    before = torch.get_rng_state()
    _, net = batch_of(10**9, DrawsInEvaluation)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in net.modules())
    expected = DrawsInEvaluation(0).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_a_job_records_the_batch_that_its_card_had_memory_for(tmp_path, monkeypatch):
    """Of the whole card, so that another job beside it changes no bit."""
    planned = plan_suite(tiny_suite(), Options(out=tmp_path / "run", device="cpu"))
    job = next(job for job in planned.plan.jobs.values() if job.kind == "pretrain")
    store, facts, histories = planned.store, [], []
    for memory in (None, 10**12):
        monkeypatch.setattr(jobs, "card_bytes", lambda _, memory=memory: memory)
        start_engine(Machine(store.root, store.datasets, None, "cpu"))(job)
        artefact = store.artefact(job.id)
        facts.append(artefact.facts.get("evaluation_batch"))
        histories.append(artefact.json("history.json"))
        store.remove(job.id)
    assert facts == [None, MOST]
    for row, expected in zip(*histories, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)
