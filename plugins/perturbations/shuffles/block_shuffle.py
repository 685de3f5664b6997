"""Block shuffle: a random permutation of square blocks; pixels inside a block do not move.

The paper's perturbation: one permutation for all images, in training and test. Output block j
(row-major) is input block ``perm[j]``. ``per-image`` draws a permutation for each image (Zhang and
Zhu 2019): a different, harder task.

Shape letters: M maps (1 or one per image), B blocks per image, b side of a block.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from transferbench.specs import ImageShape, Params, PerturbationSpec
from transferbench_plugins.perturbations._image_random import STEP, mixed

__all__ = ["BLOCK_SHUFFLE", "BlockShuffleParams"]


class BlockShuffleParams(Params):
    """The side of a block in pixels, and whether each image has its own permutation."""

    block: Annotated[int, Field(ge=1)]
    mode: Literal["fixed", "per-image"] = "fixed"


def _permutations(seed: int, image_ids: np.ndarray, blocks: int) -> np.ndarray:
    """A permutation per image, from (seed, id): its blocks in the order of their hashes.

    The lowest bits of a hash are replaced by the block's index. Hashes are then distinct, so that
    all sorting algorithms agree, and the sorted hashes contain the permutation.

    Shapes: int64 (M, B).
    """
    stream = mixed(np.asarray([seed], dtype=np.int64) + STEP)
    image = mixed(stream + image_ids.astype(np.int64) * STEP)
    indices = np.arange(blocks, dtype=np.int64)
    low = (1 << (blocks - 1).bit_length()) - 1
    hashes = mixed(image[:, None] + indices * STEP)
    keys = np.sort(((hashes & ~low) | indices).view(np.uint64), axis=1)
    return keys.view(np.int64) & low


def _runs(
    params: BlockShuffleParams, image_shape: ImageShape, seed: int, image_ids: np.ndarray
) -> np.ndarray:
    """The map in runs of b * C values: the rows of a block.

    Shapes: int32 (M, H * W / b).
    """
    block, height, width = params.block, image_shape[0], image_shape[1]
    down, across = height // block, width // block
    if params.mode == "fixed":
        random = np.random.RandomState(seed)  # as in the released code
        permutations = random.permutation(down * across)[None]
    else:
        permutations = _permutations(seed, image_ids, down * across)
    blocks = permutations.astype(np.int32).reshape(-1, down, 1, across)
    first_rows = blocks // across * (block * across) + blocks % across
    # Consecutive rows of a block are ``across`` runs apart.
    runs = first_rows + np.arange(block, dtype=np.int32)[:, None] * np.int32(across)
    return runs.reshape(len(permutations), -1)


def _index(
    params: BlockShuffleParams, image_shape: ImageShape, seed: int, image_ids: np.ndarray
) -> np.ndarray:
    runs = _runs(params, image_shape, seed, image_ids)
    length = params.block * image_shape[2]
    values = runs[:, :, None] * np.int32(length) + np.arange(length, dtype=np.int32)
    return values.reshape(len(runs), -1)


def _check(params: BlockShuffleParams, image_shape: ImageShape) -> str | None:
    side = math.gcd(image_shape[0], image_shape[1])
    if side % params.block == 0:
        return None
    divisors = ", ".join(str(n) for n in range(1, side + 1) if side % n == 0)
    return f"block {params.block} does not divide the side {side}; choose one of {divisors}"


BLOCK_SHUFFLE = PerturbationSpec(
    name="block-shuffle",
    version=1,
    summary="random permutation of square blocks, by default one for all images",
    source="Neyshabur, Sedghi, Zhang 2020, section 3.1: released code, RandomBlockShuffle",
    license="Apache-2.0",
    params=BlockShuffleParams,
    tiny={"block": 2},
    index=_index,
    runs=_runs,
    stage="normalised",
    check=_check,
    # As released, after normalisation; a permutation of whole pixels commutes with it.
    severity=lambda params, image_shape: 1 - params.block / max(image_shape[:2]),
)
