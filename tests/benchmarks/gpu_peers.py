"""CKA and image processing on a card beside packages of equal function."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import ModuleType

import numpy as np
import torch
from debiased_cka import debiased_cka
from gpu_rows import BenchmarkScale, MeasuredRow, compared, measured, seconds_of, skipped
from test_similarity_bench import named, reference
from torch import Tensor

from transferbench.data.gather import Gather
from transferbench.data.perturbation import compile_perturbation
from transferbench.data.pipeline import ImagePipeline
from transferbench.suite import Augmentation
from transferbench_plugins.perturbations.shuffles.block_shuffle import BLOCK_SHUFFLE

SAMPLE = 1024
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _package(name: str) -> ModuleType | None:
    with suppress(ImportError):
        return importlib.import_module(name)
    return None


def _a_second(work: Callable[[], object], scale: BenchmarkScale) -> float:
    work()
    seconds = sorted(seconds_of(work, scale) for _ in range(scale.rounds))
    return 1 / seconds[len(seconds) // 2]


# --- CKA ------------------------------------------------------------------------------------------


def features(scale: BenchmarkScale) -> Iterator[MeasuredRow]:
    """CKA of all pairs of layers of two networks, in float32."""
    count = min(SAMPLE, 64 * scale.features)
    a, b = (_layers(scale, count, seed) for seed in (1, 2))
    name = f"CKA, {scale.layers} x {scale.layers} layers"
    exact = reference([(a, b)])
    what = named("ours", debiased_cka(a, b), exact)
    ours = measured(name, what, _a_second(lambda: debiased_cka(a, b), scale), "1/s")
    package = _package("cka")
    if package is None:
        yield ours
        yield skipped(name, "pytorch-cka", "which is not installed")
        return
    work = partial(package.cka_from_features, a, b)
    peer = measured(name, named("pytorch-cka", work(), exact), _a_second(work, scale), "1/s")
    yield compared(ours, peer)
    yield peer


def _layers(scale: BenchmarkScale, count: int, seed: int) -> list[Tensor]:
    """Layers with a shared component, and a mean as large as their standard deviation."""
    shape, common = (count, scale.features), torch.Generator().manual_seed(99)
    shared, draw = torch.randn(shape, generator=common), torch.Generator().manual_seed(seed)
    layers = (1 + 0.3 * shared + torch.randn(shape, generator=draw) for _ in range(scale.layers))
    return [layer.to(scale.device) for layer in layers]


# --- images ---------------------------------------------------------------------------------------


def images(scale: BenchmarkScale) -> Iterator[MeasuredRow]:
    """Crop, flip and normalise, and a block shuffle with permutations drawn afresh."""
    side, draw = scale.large_side, np.random.default_rng(0)
    stored = draw.integers(0, 256, (scale.images, side, side, 3), dtype=np.uint8)
    pixels = torch.from_numpy(stored).to(scale.device)
    package = _package("kornia.augmentation")
    floats = pixels.permute(0, 3, 1, 2).float().div(255).contiguous()
    yield from _against(
        "crop, flip, normalise", _augmented(pixels), package and _by_kornia(package, floats), scale
    )
    jigsaw = package and partial(package.RandomJigsaw(grid=(4, 4), p=1.0), floats)
    yield from _against("block shuffle, 4 x 4 blocks", _shuffled(pixels), jigsaw, scale)


def _against(
    name: str, ours: Callable[[], object], peer: Callable[[], object] | None, scale: BenchmarkScale
) -> Iterator[MeasuredRow]:
    row = measured(name, "ours", scale.images * _a_second(ours, scale), "images/s")
    if peer is None:
        yield row
        yield skipped(name, "kornia", "which is not installed")
        return
    theirs = measured(name, "kornia", scale.images * _a_second(peer, scale), "images/s")
    yield compared(row, theirs)
    yield theirs


def _augmented(pixels: Tensor) -> Callable[[], object]:
    augmentation = Augmentation(random_resized_crop=(0.08, 1.0), flip=True)
    pipeline = ImagePipeline(pixels, MEAN, STD, augmentation=augmentation)
    generator, indices = torch.Generator().manual_seed(0), torch.arange(len(pixels))
    return lambda: pipeline.batch(indices, generator)


def _by_kornia(package: ModuleType, floats: Tensor) -> Callable[[], object]:
    side = floats.shape[-1]
    chain = package.AugmentationSequential(
        package.RandomResizedCrop((side, side), scale=(0.08, 1.0)),
        package.RandomHorizontalFlip(),
        package.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )
    return lambda: chain(floats)


def _shuffled(pixels: Tensor) -> Callable[[], object]:
    count, side = pixels.shape[:2]
    params = BLOCK_SHUFFLE.parse({"block": side // 4, "mode": "per-image"})
    per_image = compile_perturbation(BLOCK_SHUFFLE, params, (side, side, 3), 0).per_image
    flat = pixels.flatten(1)
    batches = iter(range(0, 10**9, count))

    def run() -> None:
        first = next(batches)
        Gather(per_image(np.arange(first, first + count)), pixels.device)(flat)

    return run
