"""The checks of a perturbation: images are independent, inputs untouched, severities true.

The plugin's own builders are called, not the fast paths of the engine.

Shape letters: N images, H height, W width, C channels, M maps (1 or N), V = H*W*C, R runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product
from typing import Any, Literal, get_args, get_origin
from unittest import SkipTest

import numpy as np
import torch
from torch import Tensor

from transferbench.conformance import cases
from transferbench.conformance.cases import Case, is_number_from_0, refuse_gap
from transferbench.conformance.checks import Violation, defined_in, shared
from transferbench.conformance.isolation import Observation
from transferbench.data.gather import RunMap
from transferbench.registry.discovery import cause
from transferbench.specs import ImageShape, Params, PerturbationSpec

__all__ = ["CASE", "CHECKS", "PerturbationCase"]

SIDES = (16, 32, 8, 64, 96, 224)
"""Image sides tried until one fits the parameters, the most usual first."""
MISFITS: tuple[ImageShape, ...] = ((1, 1, 1), (5, 7, 3), (7, 9, 1), (12, 20, 3), (33, 33, 3))
"""Shapes that many perturbations refuse; one that accepts them must work on them."""
STEPS = (0, 0.1, 0.25, 0.5, 0.75, 1, 2, 3, 4, 5, 8, 16)
"""Values of a numeric parameter that are tried for a ladder of severities."""
COUNT = 8
MANY = 32
"""Images that a distance is averaged over: with fewer, their edges dominate."""
SEEDS = (3, 4, 5)
CLOSE = 2e-5
"""Tolerance where only the order of float32 sums differs, as for images in other batches."""
FALL = 0.25
"""Tolerated relative drop of a step of a ladder below the largest distance before it."""


class PerturbationCase(Case[PerturbationSpec]):
    """A perturbation with its parameters, at the shapes that they fit."""

    draw_advice = "draw from a generator made from the seed"
    network_advice = "ship what it needs with the plugin"

    @shared(reported_by="it-fits-some-images")
    def shapes(self) -> list[ImageShape]:
        """The smallest grey and the smallest colour images that fit."""
        shapes: list[ImageShape] = []
        for channels in (1, 3):
            square = ((side, side, channels) for side in SIDES)
            shapes += [shape for shape in square if not self.refusal(shape)][:1]
        if not shapes:
            side = SIDES[0]
            raise Violation(
                f"check refuses grey and colour images of {', '.join(map(str, sorted(SIDES)))} px "
                f"({self.refusal((side, side, 3))})",
                "give tiny parameters that fit one of these sizes",
            )
        return shapes

    @shared(reported_by="shape-type-and-range-are-kept")
    def results(self) -> dict[ImageShape, Tensor]:
        """The perturbed images of each shape."""
        return {shape: self.apply(self.images(shape)) for shape in self.shapes}

    @shared(reported_by="no-network-is-used")
    def again(self) -> Observation[dict[ImageShape, Tensor]]:
        """The images perturbed once more."""
        batches = {shape: self.images(shape) for shape in self.results}
        return self.observed(
            lambda: {shape: self.apply(images) for shape, images in batches.items()}
        )

    def refusal(self, shape: ImageShape, params: Any = None) -> str | None:
        """What ``check`` returns for these parameters at this shape."""
        return self.spec.check(self.params if params is None else params, shape)

    def images(self, shape: ImageShape, count: int = COUNT) -> Tensor:
        """Smooth images with edges, float32 (N, C, H, W), scaled as at the plugin's stage.

        The edges are at other positions in each image: a grid may favour some positions.
        """
        height, width, channels = shape
        noise = torch.rand((count, channels, height, width), generator=_generator(1))
        smooth = torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1)
        row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        slopes = torch.rand((count, channels, 2, 1, 1), generator=_generator(2))
        slope = (slopes[:, :, 0] * row / height + slopes[:, :, 1] * column / width) / 2
        images = (0.5 * smooth + 0.5 * slope).clamp(0, 1)
        shade = torch.ones(height, width)
        shade[: height // 3, : width // 3] = 0.3
        offsets = torch.randint(max(height, width), (count, 2), generator=_generator(3)).tolist()
        images *= torch.stack([shade.roll(offset, (0, 1)) for offset in offsets])[:, None]
        return images if self.spec.stage == "pixels" else (images - 0.4) / 0.2

    def apply(
        self,
        images: Tensor,
        ids: Sequence[int] | None = None,
        *,
        seed: int = SEEDS[0],
        params: Any = None,
    ) -> Tensor:
        """The perturbed images, by the plugin's own builder. Shapes: (N, C, H, W) to the same."""
        params = self.params if params is None else params
        count, channels, height, width = images.shape
        shape = (height, width, channels)
        image_ids = np.arange(count) if ids is None else np.asarray(ids, dtype=np.int64)
        if self.spec.build is not None:
            result: Tensor = self.spec.build(params, shape, seed)(images, image_ids)
            return result
        return _gathered(images, self.index(shape, image_ids, seed, params))

    def mean_distance(self, shape: ImageShape, params: Any) -> float:
        """The distance to the clean images: root mean square over images, values and seeds."""
        images = self.images(shape, MANY)
        moved = [self.apply(images, seed=seed, params=params) - images for seed in SEEDS]
        return float(torch.stack(moved).square().mean().sqrt())

    def index(
        self, shape: ImageShape, ids: np.ndarray, seed: int = SEEDS[0], params: Any = None
    ) -> np.ndarray:
        """The map, if it is one. Shapes: int32 (M, V). Raises: ``SkipTest``, ``Violation``."""
        if self.spec.index is None:
            raise SkipTest("it declares build, not index")
        index = self.spec.index(self.params if params is None else params, shape, seed, ids)
        _check_map(index, len(ids), math.prod(shape))
        return index

    @cached_property
    def ladders(self) -> list[tuple[ImageShape, str, list[tuple[float, Params]]]]:
        """For each shape and parameter that severity depends on: severities and settings, sorted.

        Values are tried for one parameter at a time, the others keep theirs.
        """
        ladders = []
        for shape, field in product(self.shapes, self.spec.params.model_fields):
            steps: dict[float, Params] = {}
            for params in self._settings(field, shape):
                steps.setdefault(float(self.spec.severity(params, shape)), params)
            if len(steps) > 1:
                ladders.append((shape, field, sorted(steps.items(), key=lambda step: step[0])))
        return ladders

    def _settings(self, field: str, shape: ImageShape) -> Iterator[Params]:
        for value in _values(self.spec.params.model_fields[field].annotation, shape):
            setting = {**self.params.model_dump(), field: value}
            if self.spec.accepts(setting):
                params = self.spec.parse(setting)
                if not self.refusal(shape, params):
                    yield params


def _values(annotation: Any, shape: ImageShape) -> Sequence[Any]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return () if annotation in {str, bool} else (*STEPS, max(shape))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _gathered(images: Tensor, index: np.ndarray) -> Tensor:
    """Value j of the result, flattened HWC, is value ``index[j]``. Shapes: (N, C, H, W) kept."""
    values = images.permute(0, 2, 3, 1)
    sources = torch.from_numpy(index.astype(np.int64)).to(images.device).expand(len(images), -1)
    moved = values.flatten(1).gather(1, sources).view(values.shape)
    return moved.permute(0, 3, 1, 2).contiguous()


def _check_map(index: Any, count: int, values: int) -> None:
    kind, shape = str(getattr(index, "dtype", type(index).__name__)), np.shape(index)
    if kind != "int32" or len(shape) != 2 or shape[0] not in {1, count} or shape[1] != values:
        raise Violation(
            f"index returned {kind} {shape} for {count} images of {values} values",
            f"return int32 (1, {values}), one map for all images, or ({count}, {values})",
        )
    if index.min() < 0 or index.max() >= values:
        raise Violation(f"index points to {index.min()}..{index.max()}",
                        f"stay within the image: 0..{values - 1}")  # fmt: skip


# --- the checks -------------------------------------------------------------------------------


def check_it_fits_some_images(case: PerturbationCase) -> None:
    """``check`` accepts grey or colour images of a usual size."""
    _ = case.shapes
    if not case.spec.applies_to:
        raise Violation("applies_to is empty", "name train-and-test, test-only or both")


def check_shape_type_and_range_are_kept(case: PerturbationCase) -> None:
    """float32 (N, C, H, W) in and out, finite; within [0, 1] where the stage is pixels."""
    for shape, result in case.results.items():
        images = case.images(shape)
        if not isinstance(result, Tensor):
            raise Violation(f"it returned {type(result).__name__} for a batch", "return a tensor")
        if result.shape != images.shape or result.dtype != images.dtype:
            raise Violation(
                f"{images.dtype} {tuple(images.shape)} became {result.dtype} {tuple(result.shape)}",
                "return the shape and the type of the input",
            )
        if not bool(result.isfinite().all()):
            raise Violation("it returned values that are not finite", "guard divisions by zero")
        low, high = float(result.min()), float(result.max())
        if case.spec.stage == "pixels" and (low < 0 or high > 1):
            raise Violation(f"pixels went to {low:.3g}..{high:.3g}", "clamp the result to [0, 1]")


def check_the_map_is_a_permutation(case: PerturbationCase) -> None:
    """``index`` uses every value of the image exactly once, for a batch and for one image."""
    for shape, ids in product(case.shapes, ([0, 5, 2], [7])):
        index = case.index(shape, np.asarray(ids))
        if not bool((np.sort(index, axis=1) == np.arange(index.shape[1])).all()):
            raise Violation(
                "the map takes some values twice and leaves others out",
                "return a permutation, or declare build instead of index",
            )


def check_runs_say_what_the_index_says(case: PerturbationCase) -> None:
    """``runs`` and ``index`` describe the same map; runs are of equal length."""
    if case.spec.runs is None:
        raise SkipTest("it declares no runs")
    for shape in case.shapes:
        ids = np.arange(3)
        index, values = case.index(shape, ids), math.prod(shape)
        runs = np.asarray(case.spec.runs(case.params, shape, SEEDS[0], ids))
        if runs.dtype != np.int32 or runs.ndim != 2 or values % max(1, runs.shape[1]):
            raise Violation(f"runs are {runs.dtype} {runs.shape}",
                            f"return int32 (M, R) with an R that divides {values}")  # fmt: skip
        expanded = RunMap(runs, values // runs.shape[1]).values()
        if expanded.shape != index.shape or not np.array_equal(expanded, index):
            raise Violation("runs and index move values to different places",
                            "make index from runs, or drop runs")  # fmt: skip


def check_the_input_is_left_untouched(case: PerturbationCase) -> None:
    """The batch belongs to the caller, who may reuse it."""
    for shape in case.shapes:
        images = case.images(shape)
        case.apply(images)
        refuse_gap(images, case.images(shape), "the batch was changed,",
                   "clone it first, or leave out the underscore of an in-place call")  # fmt: skip


def check_an_image_does_not_depend_on_its_batch(case: PerturbationCase) -> None:
    """The result for an image depends on its id, not on the batch or the order."""
    batches = {"alone and in a batch": [2], "in two orders of one batch": [5, 0, 7, 2, 1, 6, 3, 4]}
    for (shape, result), (contexts, ids) in product(case.results.items(), batches.items()):
        refuse_gap(case.apply(case.images(shape)[ids], ids), result[ids],
                   f"an image {contexts} differs",
                   "use nothing but the image, its id in image_ids and the seed",
                   within=CLOSE)  # fmt: skip


def check_the_same_seed_gives_the_same_images(case: PerturbationCase) -> None:
    """Built twice, applied twice: the same values."""
    for shape, result in case.results.items():
        refuse_gap(
            case.again.result[shape], result, "two calls with one seed differ",
            "draw from a generator that is made from the seed, and the ids, in each call",
        )  # fmt: skip


def check_another_seed_gives_other_draws(case: PerturbationCase) -> None:
    """Where results depend on the ids of images, they depend on the seed too."""
    drawn = False
    for shape in case.results:
        image = case.images(shape)[:1].repeat(COUNT, 1, 1, 1)
        first, *others = [case.apply(image, seed=seed) for seed in SEEDS]
        by_seed = not all(torch.equal(other, first) for other in others)
        by_id = not torch.allclose(first, first[:1], rtol=0, atol=CLOSE)
        if by_id and not by_seed:
            raise Violation(
                f"draws depend on the ids of images, but are the same for seeds {SEEDS}",
                "make the generator from both the seed and the id",
            )
        drawn = drawn or by_seed or by_id
    if not drawn:
        raise SkipTest("nothing is drawn")


def check_severity_is_a_number_from_0(case: PerturbationCase) -> None:
    """Suites and figures order settings by it."""
    for shape in case.shapes:
        severity = case.spec.severity(case.params, shape)
        if not is_number_from_0(severity):
            raise Violation(
                f"severity is {severity!r}",
                "return a finite float: 0 is the identity, larger is stronger",
            )


def check_severity_0_is_the_identity(case: PerturbationCase) -> None:
    """Bitwise: trials under severity 0 are taken from the unperturbed ones."""
    for shape, params in _settings_of(case, zero=True):
        images = case.images(shape)
        refuse_gap(case.apply(images, params=params), images,
                   f"{params!r} has severity 0 and changes images",
                   "return the values as they are, or give it a severity above 0")  # fmt: skip


def check_a_severity_above_0_changes_images(case: PerturbationCase) -> None:
    """A setting that changes nothing would be published as harmless."""
    for shape, params in _settings_of(case, zero=False):
        if case.mean_distance(shape, params) == 0:
            raise Violation(
                f"{params!r} has severity {case.spec.severity(params, shape):.3g} and changes "
                f"nothing on images of {shape}",
                "give it severity 0, or let check refuse it",
            )


def _settings_of(case: PerturbationCase, *, zero: bool) -> list[tuple[ImageShape, Any]]:
    """The parameters of the case and of its ladders. Raises: ``SkipTest`` where there are none."""
    settings = [(shape, case.params) for shape in case.shapes]
    settings += [(shape, params) for shape, _, steps in case.ladders for _, params in steps]
    chosen = [(shape, params) for shape, params in settings
              if (case.spec.severity(params, shape) == 0) == zero]  # fmt: skip
    if not chosen:
        raise SkipTest(f"no setting of {'severity 0' if zero else 'a severity above 0'} was found")
    return chosen


def check_images_move_further_as_severity_grows(case: PerturbationCase) -> None:
    """The distance to the clean images does not fall by more than a quarter at any step."""
    if not case.spec.severity_is_distance:
        raise SkipTest("it declares that its severity orders no distance (severity_is_distance)")
    if not case.ladders:
        raise SkipTest("no two severities were found among usual values of its parameters")
    for shape, field, steps in case.ladders:
        furthest = 0.0
        for severity, params in steps:
            moved = case.mean_distance(shape, params)
            if moved < (1 - FALL) * furthest:
                raise Violation(
                    f"at {field}={getattr(params, field)!r}, severity {severity:.3g}, images are "
                    f"{moved:.3g} away from the clean ones, and {furthest:.3g} at a lower one",
                    "reverse severity, or declare severity_is_distance=False and say why",
                )
            furthest = max(furthest, moved)


def check_what_does_not_fit_is_refused_in_words(case: PerturbationCase) -> None:
    """At any shape ``check`` returns a sentence, or the perturbation works."""
    _ = case.shapes
    for shape in MISFITS:
        refusal = case.refusal(shape)
        if refusal is not None and not (isinstance(refusal, str) and refusal.strip()):
            raise Violation(f"check returned {refusal!r} at {shape}", "return a sentence, or None")
        if refusal is None:
            _works_at(case, shape)


def _works_at(case: PerturbationCase, shape: ImageShape) -> None:
    try:
        form = tuple(case.apply(case.images(shape, 2)).shape)
    except Exception as error:
        raise Violation(
            f"check accepts images of {shape}, which then fail: {cause(error)}",
            "let check(params, image_shape) refuse them in a sentence",
        ) from error
    if form != (2, shape[2], *shape[:2]):
        raise Violation(f"check accepts images of {shape}, and the result is of {form}",
                        "let check refuse them")  # fmt: skip


def check_cpu_and_cuda_agree(case: PerturbationCase) -> None:
    """The same images on either device, to float32 rounding."""
    if not torch.cuda.is_available():
        raise SkipTest("there is no CUDA device here")
    for shape, result in case.results.items():
        on_cuda = case.apply(case.images(shape).cuda())
        if on_cuda.device.type != "cuda":
            raise Violation("images on CUDA came back on the CPU", "compute where the images are")
        scale = max(1.0, float(result.abs().max()))
        refuse_gap(on_cuda.cpu(), result, "CPU and CUDA differ",
                   "draw on the CPU and copy the draws to the device",
                   within=5 * CLOSE * scale)  # fmt: skip


CASE = PerturbationCase
CHECKS = (
    *defined_in(__name__),
    cases.check_global_randomness_is_untouched,
    cases.check_no_network_is_used,
)
