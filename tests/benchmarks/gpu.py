"""What training on a card reaches, beside the loops of others: a table with the card's name.

Usage: ``python tests/benchmarks/gpu.py RESULTS.json RESULTS.md``; some two minutes on a card.

Small networks: steps of one network a second, all of a group added, against the eager loop with
default kernels. Large ones: images a second against a bare loop on one resident batch, in the way
of timm's training script, with and without ``torch.compile``.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tabulate import tabulate
from torch import nn
from torch.nn import functional

from transferbench.engine.kernels import choose_kernels, driver_version
from transferbench.registry import load_registry
from transferbench.suite import Recipe
from transferbench.training import Execution, Training, random_task, set_train_mode
from transferbench.training.graph import CudaGraph
from transferbench.training.group import Group

CUDA = torch.device("cuda")
SMALL = ("timm/test_resnet", "fixup-resnet14")
SMALL_STEPS, SMALL_BATCH, SMALL_SIDE, SMALL_CLASSES = 600, 20, 16, 10
GROUP = 8
LARGE = ("timm/resnet50", "fixup-resnet50")
LARGE_BATCH, LARGE_SIDE, LARGE_CLASSES, LARGE_STEPS = 256, 224, 1000, 30

Row = dict[str, str | float]


def kernels(*, fast: bool) -> None:
    torch.use_deterministic_algorithms(mode=False)
    choose_kernels("cuda", fast=fast)


def network(name: str, side: int, classes: int, channels: int = 3) -> nn.Module:
    spec, params = load_registry().resolve_backbone(name)
    torch.manual_seed(0)
    net: nn.Module = spec.build(spec.parse(params), classes, channels, side)
    return net.to(CUDA, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form


def small_training(name: str, seed: int) -> Training:
    data = random_task(SMALL_BATCH * 50, (SMALL_SIDE, SMALL_SIDE, 3), SMALL_CLASSES, CUDA)
    recipe = Recipe.model_validate({
        "optimizer": "adamw", "learning_rate": 1e-3 * (1 + seed), "batch_size": SMALL_BATCH,
        "epochs": SMALL_STEPS // 50, "evaluate_train": "last", "evaluate_test": "last",
    })  # fmt: skip
    net = network(name, SMALL_SIDE, SMALL_CLASSES)
    return Training(net, data, recipe, Execution(CUDA, captured=True), evaluated=())


def seconds_of(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def in_group(name: str, count: int) -> float:
    """Steps a second of all together, with the capture and its checks."""
    trainings = [small_training(name, seed) for seed in range(count)]
    graph = partial(CudaGraph, CUDA, torch.cuda.graph_pool_handle())
    group = Group(CUDA, count, graph, print)
    works = [training.loop(seed, seed) for seed, training in enumerate(trainings)]
    return count * SMALL_STEPS / seconds_of(lambda: group.run(works))


def eagerly(name: str) -> float:
    training, generator = small_training(name, 0), torch.Generator().manual_seed(0)
    set_train_mode(training.net, None)
    steps = 60

    def run(count: int = steps) -> None:
        for _ in range(count):
            training.step(torch.arange(SMALL_BATCH), generator)

    run(5)
    return steps / seconds_of(run)


def small() -> list[Row]:
    rows: list[Row] = []
    for name in SMALL:
        kernels(fast=True)
        base = eagerly(name)
        rows.append(row(name, "eager, default kernels", base, "steps/s", base))
        kernels(fast=False)
        rows.append(row(name, "eager, deterministic", eagerly(name), "steps/s", base))
        for count in (1, GROUP):
            what = f"graph of {count}, deterministic"
            rows.append(row(name, what, in_group(name, count), "steps/s", base))
    return rows


def row(network_name: str, what: str, value: float, unit: str, base: float) -> Row:
    return {"network": network_name, "what": what, "value": round(value, 1), "unit": unit,
            "times": round(value / base, 2)}  # fmt: skip


def bare_loop(name: str, *, compiled: bool) -> float:
    """One batch that stays on the card, as a training script without its data."""
    net = network(name, LARGE_SIDE, LARGE_CLASSES).train()
    forward = torch.compile(net) if compiled else net
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    images = torch.randn(LARGE_BATCH, 3, LARGE_SIDE, LARGE_SIDE, device=CUDA)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.arange(LARGE_BATCH, device=CUDA) % LARGE_CLASSES

    def run(steps: int = LARGE_STEPS) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16):
                logits = forward(images)
            functional.cross_entropy(logits.float(), targets).backward()
            optimizer.step()

    run(5)
    return LARGE_BATCH * LARGE_STEPS / seconds_of(run)


def our_loop(name: str, *, compiled: bool) -> float:
    data = random_task(LARGE_BATCH * 4, (LARGE_SIDE, LARGE_SIDE, 3), LARGE_CLASSES, CUDA)
    recipe = Recipe.model_validate({
        "optimizer": "adamw", "learning_rate": 1e-3, "batch_size": LARGE_BATCH, "epochs": 1,
        "precision": "bf16",
    })  # fmt: skip
    net = network(name, LARGE_SIDE, LARGE_CLASSES)
    training = Training(net, data, recipe, Execution(CUDA, compile=compiled))
    set_train_mode(net, None)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(LARGE_BATCH * 4).split(LARGE_BATCH)

    def run(steps: int = LARGE_STEPS) -> None:
        for step in range(steps):
            training.step(order[step % len(order)], generator)

    run(5)
    return LARGE_BATCH * LARGE_STEPS / seconds_of(run)


def large() -> list[Row]:
    rows: list[Row] = []
    for name in LARGE:
        for fast in (True, False):
            kernels(fast=fast)
            kind = "fast kernels" if fast else "deterministic"
            for compiled in (False, True):
                how = f"{kind}, {'compiled' if compiled else 'eager'}"
                base = bare_loop(name, compiled=compiled)
                rows.append(row(name, f"bare loop, {how}", base, "images/s", base))
                ours = our_loop(name, compiled=compiled)
                rows.append(row(name, f"ours, {how}", ours, "images/s", base))
    return rows


def main(results: str, table: str) -> None:
    card = f"{torch.cuda.get_device_name()}, driver {driver_version()}, torch {torch.__version__}"
    measured: list[Row] = []
    for part in (small, large):
        measured += part()
        # After each part: a limit on the time must not cost what was measured.
        Path(results).write_text(json.dumps({"card": card, "rows": measured}, indent=1))
        text = tabulate(measured, headers="keys", tablefmt="github")
        Path(table).write_text(f"# Training on {card}\n\n{text}\n")
        print(text, flush=True)  # noqa: T201  # a script


if __name__ == "__main__":
    main(*sys.argv[1:])
