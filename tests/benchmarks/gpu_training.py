"""Training on a card: small networks in graphs, large ones beside bare loops.

Small networks: steps of one network a second, all of a group added, against the eager loop with
default kernels. Large ones: images a second against a bare loop on one resident batch, in the way
of timm's training script, with and without ``torch.compile``; from the disk; and in evaluation.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from gpu_rows import BenchmarkScale, MeasuredRow, compared, kernels, measured, seconds_of, skipped
from torch import nn
from torch.nn import functional

from transferbench.data.pipeline import ImagePipeline
from transferbench.data.streaming import StreamedImages
from transferbench.registry import load_registry
from transferbench.suite import Recipe
from transferbench.training import (
    DataSplit,
    Execution,
    TaskData,
    Training,
    evaluate,
    random_task,
    set_train_mode,
)
from transferbench.training.compiling import pays
from transferbench.training.graph import graphs_of
from transferbench.training.group import Group

SMALL_BATCH, SMALL_SIDE, SMALL_CLASSES, STEPS_AN_EPOCH = 20, 16, 10, 50
SMALL_GOALS = {"timm/test_resnet": 22.0, "fixup-resnet14": 18.0}
"""Times the eager loop with default kernels, in groups with deterministic ones."""
LARGE_GOALS: dict[str, dict[bool, float | None]] = {
    "timm/resnet50": {False: 4600.0, True: 5200.0},
    "fixup-resnet50": {False: 6500.0},
}
"""Images a second on an H100, by whether kernels are the fastest ones."""
EVALUATION_GOALS = {"timm/resnet50": 15_000.0}
OF_BARE, OF_RESIDENT = 0.95, 0.97
BATCHES = 4


def network(name: str, side: int, classes: int, device: torch.device) -> nn.Module:
    spec, params = load_registry().resolve_backbone(name)
    torch.manual_seed(0)
    net: nn.Module = spec.build(spec.parse(params), classes, 3, side)
    return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form


# --- small networks -------------------------------------------------------------------------------


def small_network(name: str, scale: BenchmarkScale) -> Iterator[MeasuredRow]:
    kernels(scale, fast=True)
    base = measured(name, "eager, default kernels", _eagerly(name, scale), "steps/s")
    yield base
    kernels(scale, fast=False)
    for count in (scale.group, 1):
        what = f"graph of {count}, deterministic"
        row = measured(name, what, _in_group(name, count, scale), "steps/s")
        yield compared(row, base, SMALL_GOALS.get(name) if count > 1 else None)
    eager = measured(name, "eager, deterministic", _eagerly(name, scale), "steps/s")
    yield compared(eager, base)


def _small_training(name: str, seed: int, scale: BenchmarkScale) -> Training:
    device = torch.device(scale.device)
    steps = min(STEPS_AN_EPOCH, scale.small_steps)
    data = random_task(SMALL_BATCH * steps, (SMALL_SIDE, SMALL_SIDE, 3), SMALL_CLASSES, device)
    recipe = Recipe.model_validate({
        "optimizer": "adamw", "learning_rate": 1e-3 * (1 + seed), "batch_size": SMALL_BATCH,
        "epochs": scale.small_steps // steps, "evaluate_train": "last", "evaluate_test": "last",
    })  # fmt: skip
    net = network(name, SMALL_SIDE, SMALL_CLASSES, device)
    return Training(net, data, recipe, Execution(device, captured=True), evaluated=())


def _in_group(name: str, count: int, scale: BenchmarkScale) -> float:
    """Steps a second of all together, with the capture and its checks."""
    device = torch.device(scale.device)
    trainings = [_small_training(name, seed, scale) for seed in range(count)]
    group: Group[object] = Group(device, count, graphs_of(device), print)
    works = [training.loop(seed, seed) for seed, training in enumerate(trainings)]
    seconds = seconds_of(lambda: _refuse_errors(group, works), scale)
    return count * scale.small_steps / seconds


def _refuse_errors(group: Group[object], works: list) -> None:
    for ended in group.run(works):
        if ended.error:
            raise ended.error


def _eagerly(name: str, scale: BenchmarkScale) -> float:
    training, generator = _small_training(name, 0, scale), torch.Generator().manual_seed(0)
    set_train_mode(training.net, None)
    steps = max(scale.small_steps // 10, 1)

    def run(count: int) -> None:
        for _ in range(count):
            training.step(torch.arange(SMALL_BATCH), generator)

    run(min(steps, 5))
    return steps / seconds_of(partial(run, steps), scale)


# --- large networks -------------------------------------------------------------------------------


def large_network(name: str, folder: Path, scale: BenchmarkScale) -> Iterator[MeasuredRow]:
    compiled = pays(scale.device, _recipe(scale), 10**6, scale.large_side)
    goals = LARGE_GOALS.get(name, {False: None})
    for fast, goal in goals.items():
        kernels(scale, fast=fast)
        how = f"{'fast' if fast else 'deterministic'}, {'compiled' if compiled else 'eager'}"
        yield from _beside_a_bare_loop(name, how, scale, goal, compiled=compiled)
    kernels(scale, fast=False)
    yield from _evaluated_and_streamed(name, folder, scale, compiled=compiled)
    if scale.compiles:
        yield from _beside_a_bare_loop(name, "deterministic, eager", scale, compiled=False)
    else:
        yield skipped(name, "loops with torch.compile", "compiling takes minutes on a CPU")


def _beside_a_bare_loop(
    name: str, how: str, scale: BenchmarkScale, goal: float | None = None, *, compiled: bool
) -> Iterator[MeasuredRow]:
    """Compiled where a run without a flag would be, or not."""
    speed = _bare_loop(name, scale, compiled=compiled)
    bare = measured(name, f"bare loop, {how}", speed, "images/s")
    yield bare
    net = network(name, scale.large_side, scale.large_classes, torch.device(scale.device))
    training = _training(net, _resident(scale), scale, compiled=compiled)
    ours = measured(name, f"ours, {how}", _our_loop(training, scale), "images/s", goal)
    yield compared(ours, bare, OF_BARE)


def _evaluated_and_streamed(
    name: str, folder: Path, scale: BenchmarkScale, *, compiled: bool
) -> Iterator[MeasuredRow]:
    """Evaluation, and training from the disk beside the same from the device."""
    net = network(name, scale.large_side, scale.large_classes, torch.device(scale.device))
    training = _training(net, _resident(scale), scale, compiled=compiled)
    speed = _evaluation(training, scale, compiled=compiled)
    yield measured(name, "evaluation", speed, "images/s", EVALUATION_GOALS.get(name))
    resident = measured(name, "from the device", _our_loop(training, scale), "images/s")
    yield resident
    streamed = _training(net, _on_disk(scale, folder), scale, compiled=compiled)
    row = measured(name, "from the disk", _our_loop(streamed, scale), "images/s")
    yield compared(row, resident, OF_RESIDENT)


def _recipe(scale: BenchmarkScale) -> Recipe:
    return Recipe.model_validate({
        "optimizer": "adamw", "learning_rate": 1e-3, "batch_size": scale.large_batch, "epochs": 1,
        "precision": "bf16",
    })  # fmt: skip


@cache
def _resident(scale: BenchmarkScale) -> TaskData:
    side, count = scale.large_side, max(scale.evaluated, scale.large_batch * BATCHES)
    return random_task(count, (side, side, 3), scale.large_classes, torch.device(scale.device))


def _on_disk(scale: BenchmarkScale, folder: Path) -> TaskData:
    """Images of a memory-mapped file, as of a dataset that does not fit."""
    side, count, device = scale.large_side, scale.large_batch * BATCHES, torch.device(scale.device)
    path = folder / "images.npy"
    drawn = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    np.save(path, drawn)
    stored = np.load(path, mmap_mode="r")
    images = StreamedImages(
        lambda at: np.array(stored[at]), np.arange(count), drawn.shape[1:], device
    )
    labels = (torch.arange(count) % scale.large_classes).to(device)
    split = DataSplit(ImagePipeline(images, [0.5] * 3, [0.5] * 3), labels)
    return TaskData("multi-class", "accuracy", scale.large_classes, split, split, None)


def _training(net: nn.Module, data: TaskData, scale: BenchmarkScale, *, compiled: bool) -> Training:
    execution = Execution(torch.device(scale.device), compile=compiled)
    return Training(net, data, _recipe(scale), execution)


def _our_loop(training: Training, scale: BenchmarkScale) -> float:
    set_train_mode(training.net, None)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(scale.large_batch * BATCHES).split(scale.large_batch)

    def run(steps: int) -> None:
        batches = [order[step % len(order)] for step in range(steps)]
        training.data.train.pipeline.announce(batches)
        for indices in batches:
            training.step(indices, generator)

    return _images_a_second(run, scale)


def _bare_loop(name: str, scale: BenchmarkScale, *, compiled: bool) -> float:
    """One batch that stays on the device, as a training script without its data."""
    device, batch, side = torch.device(scale.device), scale.large_batch, scale.large_side
    net = network(name, side, scale.large_classes, device).train()
    forward = torch.compile(net, dynamic=False) if compiled else net
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    images = torch.randn(batch, 3, side, side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.arange(batch, device=device) % scale.large_classes

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(scale.device, torch.bfloat16):
                logits = forward(images)
            functional.cross_entropy(logits.float(), targets).backward()
            optimizer.step()

    return _images_a_second(run, scale)


def _images_a_second(run: Callable[[int], None], scale: BenchmarkScale) -> float:
    run(min(scale.large_steps, 5))
    return (
        scale.large_batch * scale.large_steps / seconds_of(partial(run, scale.large_steps), scale)
    )


def _evaluation(training: Training, scale: BenchmarkScale, *, compiled: bool) -> float:
    """Images a second, as after an epoch: the batches of an evaluation of whole images."""
    network_form = training.stepping.network if compiled else None
    work = partial(evaluate, training.net, training.data.test, training.data, training.execution,
                   "bf16", compiled=network_form)  # fmt: skip
    work()
    return len(training.data.test.pipeline) / seconds_of(work, scale)
