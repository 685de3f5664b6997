"""The promises of a perturbation: each image alone, its input untouched, its severity true.

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

from transferbench.conformance.checks import Broken, Once
from transferbench.conformance.isolation import offline, untouched_randomness
from transferbench.data.gather import RunMap
from transferbench.registry.discovery import cause
from transferbench.specs import ImageShape, Params, PerturbationSpec

__all__ = ["CHECKS", "PerturbationCase"]

SIDES = (16, 32, 8, 64, 96, 224)
"""Sides to look for one that the parameters fit, the most usual one first."""
MISFITS: tuple[ImageShape, ...] = ((1, 1, 1), (5, 7, 3), (7, 9, 1), (12, 20, 3), (33, 33, 3))
"""Shapes that many perturbations cannot work on; those that can must."""
STEPS = (0, 0.1, 0.25, 0.5, 0.75, 1, 2, 3, 4, 5, 8, 16)
"""Values of a numeric parameter among which a ladder of severities is looked for."""
COUNT = 8
MANY = 32
"""Images that a distance is a mean over: with few, their edges decide."""
SEEDS = (3, 4, 5)
CLOSE = 2e-5
"""Two orders of float32 sums: images in other batches may differ by so much."""
FALL = 0.25
"""Single steps of a ladder may lie so far below the furthest one before them."""


class PerturbationCase:
    """A perturbation with its parameters, at the shapes that they fit."""

    def __init__(self, spec: PerturbationSpec, params: Any) -> None:
        self.spec = spec
        self.params = params
        self.shapes = Once(self._shapes, told_by="it-fits-some-images")
        self.results = Once(self._results, told_by="shape-type-and-range-are-kept")

    def _shapes(self) -> list[ImageShape]:
        shapes = []
        for channels in (1, 3):
            fitting = ((side, side, channels) for side in SIDES)
            shapes += [next((one for one in fitting if self.fits(one)), None)]
        found = [shape for shape in shapes if shape is not None]
        if not found:
            side = SIDES[0]
            raise Broken(
                f"check refuses grey and colour images of {', '.join(map(str, sorted(SIDES)))} px "
                f"({self.spec.check(self.params, (side, side, 3))})",
                "give tiny parameters that fit one of these sizes",
            )
        return found

    def fits(self, shape: ImageShape, params: Any = None) -> bool:
        """Whether ``check`` lets these parameters through at this shape."""
        return not self.spec.check(self.params if params is None else params, shape)

    def _results(self) -> dict[ImageShape, Tensor]:
        return {shape: self.apply(self.images(shape)) for shape in self.shapes()}

    def images(self, shape: ImageShape, count: int = COUNT) -> Tensor:
        """Smooth images with edges, float32 (N, C, H, W), as the stage of this plugin sees them.

        The edges stand elsewhere in each image: a grid may favour a place.
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
        places = torch.randint(max(height, width), (count, 2), generator=_generator(3)).tolist()
        images *= torch.stack([shade.roll(place, (0, 1)) for place in places])[:, None]
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

    def index(
        self, shape: ImageShape, ids: np.ndarray, seed: int = SEEDS[0], params: Any = None
    ) -> np.ndarray:
        """The map, if it is one. Shapes: int32 (M, V). Raises: ``SkipTest``, ``Broken``."""
        if self.spec.index is None:
            raise SkipTest("it gives build, not index")
        found = self.spec.index(self.params if params is None else params, shape, seed, ids)
        _check_map(found, len(ids), math.prod(shape))
        return found

    @cached_property
    def ladders(self) -> list[tuple[ImageShape, str, list[tuple[float, Params]]]]:
        """For each shape and parameter that severity depends on: severities and settings, sorted.

        Values are tried for one parameter at a time, the others as they are.
        """
        found = []
        for shape, field in product(self.shapes(), self.spec.params.model_fields):
            steps: dict[float, Params] = {}
            for params in self._settings(field, shape):
                steps.setdefault(float(self.spec.severity(params, shape)), params)
            if len(steps) > 1:
                found.append((shape, field, sorted(steps.items(), key=lambda step: step[0])))
        return found

    def _settings(self, field: str, shape: ImageShape) -> Iterator[Params]:
        given = self.params.model_dump()
        for value in _values(self.spec.params.model_fields[field].annotation, shape):
            if self.spec.accepts({**given, field: value}):
                params = self.spec.parse({**given, field: value})
                if self.fits(shape, params):
                    yield params


def _values(annotation: Any, shape: ImageShape) -> Sequence[Any]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return () if annotation in {str, bool} else (*STEPS, max(shape))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _gathered(images: Tensor, index: np.ndarray) -> Tensor:
    """Value j of the result, flattened HWC, is value ``index[j]``. Shapes: (N, C, H, W) kept."""
    count, channels, height, width = images.shape
    values = images.permute(0, 2, 3, 1).reshape(count, -1)
    wanted = torch.from_numpy(index.astype(np.int64)).to(images.device).expand(count, -1)
    moved = values.gather(1, wanted).view(count, height, width, channels)
    return moved.permute(0, 3, 1, 2).contiguous()


def _check_map(found: Any, count: int, values: int) -> None:
    kind, shape = str(getattr(found, "dtype", type(found).__name__)), np.shape(found)
    if kind != "int32" or len(shape) != 2 or shape[0] not in {1, count} or shape[1] != values:
        raise Broken(
            f"index gave {kind} {shape} for {count} images of {values} values",
            f"give int32 (1, {values}), one map for all images, or ({count}, {values})",
        )
    if found.min() < 0 or found.max() >= values:
        raise Broken(f"index points to {found.min()}..{found.max()}",
                     f"stay within the image: 0..{values - 1}")  # fmt: skip


def _far(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


# --- the checks -------------------------------------------------------------------------------


def check_it_fits_some_images(case: PerturbationCase) -> None:
    """``check`` lets grey or colour images of a usual size through."""
    case.shapes.told()
    if not case.spec.applies_to:
        raise Broken("applies_to is empty", "say train-and-test, test-only or both")


def check_shape_type_and_range_are_kept(case: PerturbationCase) -> None:
    """float32 (N, C, H, W) in and out, finite; within [0, 1] where the stage is pixels."""
    case.shapes()
    for shape, result in case.results.told().items():
        images = case.images(shape)
        if not isinstance(result, Tensor):
            raise Broken(f"it gave {type(result).__name__} for a batch", "return a tensor")
        if result.shape != images.shape or result.dtype != images.dtype:
            raise Broken(
                f"{images.dtype} {tuple(images.shape)} became {result.dtype} {tuple(result.shape)}",
                "give back the shape and the type that came in",
            )
        if not bool(result.isfinite().all()):
            raise Broken("it gave values that are not finite", "guard the division that made them")
        low, high = float(result.min()), float(result.max())
        if case.spec.stage == "pixels" and (low < 0 or high > 1):
            raise Broken(f"pixels went to {low:.3g}..{high:.3g}", "clamp the result to [0, 1]")


def check_the_map_is_a_permutation(case: PerturbationCase) -> None:
    """Every value of the image goes to one place: for maps of a batch and of one image."""
    for shape, ids in product(case.shapes(), ([0, 5, 2], [7])):
        index = case.index(shape, np.asarray(ids))
        if not bool((np.sort(index, axis=1) == np.arange(index.shape[1])).all()):
            raise Broken(
                "the map takes some values twice and leaves others out",
                "give a permutation, or give build instead of index",
            )


def check_runs_say_what_the_index_says(case: PerturbationCase) -> None:
    """``runs`` is ``index`` told in pieces of equal length."""
    if case.spec.runs is None:
        raise SkipTest("it gives no runs")
    for shape in case.shapes():
        ids = np.arange(3)
        index, values = case.index(shape, ids), math.prod(shape)
        runs = np.asarray(case.spec.runs(case.params, shape, SEEDS[0], ids))
        if runs.dtype != np.int32 or runs.ndim != 2 or values % max(1, runs.shape[1]):
            raise Broken(f"runs are {runs.dtype} {runs.shape}",
                         f"give int32 (M, R) with an R that divides {values}")  # fmt: skip
        told = RunMap(runs, values // runs.shape[1]).values()
        if told.shape != index.shape or not np.array_equal(told, index):
            raise Broken("runs and index move values to different places",
                         "make index from runs, or drop runs")  # fmt: skip


def check_the_input_is_left_untouched(case: PerturbationCase) -> None:
    """The batch belongs to the caller, who may use it again."""
    for shape in case.shapes():
        images = case.images(shape)
        before = images.clone()
        case.apply(images)
        if not torch.equal(images, before):
            raise Broken(
                f"the batch was changed, by up to {_far(images, before):.3g}",
                "clone it first, or leave out the underscore of an in-place call",
            )


def check_an_image_does_not_depend_on_its_batch(case: PerturbationCase) -> None:
    """Image i with its id gives the same alone, in any batch and in any order."""
    for shape, result in case.results().items():
        images, order = case.images(shape), [5, 0, 7, 2, 1, 6, 3, 4]
        alone = case.apply(images[2:3], [2])
        permuted = case.apply(images[order], order)
        for found, wanted, how in (
            (alone, result[2:3], "alone and in a batch"),
            (permuted, result[order], "in two orders of one batch"),
        ):
            if (far := _far(found, wanted)) > CLOSE:
                raise Broken(
                    f"an image differs by up to {far:.3g} {how}",
                    "use nothing but the image, its id in image_ids and the seed",
                )


def check_the_same_seed_gives_the_same_images(case: PerturbationCase) -> None:
    """Built twice, applied twice: the same values."""
    for shape, result in case.results().items():
        if (far := _far(case.apply(case.images(shape)), result)) > 0:
            raise Broken(
                f"two calls with one seed differ by up to {far:.3g}",
                "draw from a generator that is made from the seed, and the ids, in each call",
            )


def check_another_seed_gives_other_draws(case: PerturbationCase) -> None:
    """Where equal images come out different, by their ids, the seed has its say as well."""
    drawn = False
    for shape in case.results():
        image = case.images(shape)[:1].repeat(COUNT, 1, 1, 1)
        first, *others = [case.apply(image, seed=seed) for seed in SEEDS]
        by_seed = any(_far(other, first) > 0 for other in others)
        by_id = _far(first, first[:1].expand_as(first)) > CLOSE
        if by_id and not by_seed:
            raise Broken(
                f"images are drawn by their ids, but seeds {SEEDS} all give the same",
                "mix the seed into what is drawn",
            )
        drawn = drawn or by_seed or by_id
    if not drawn:
        raise SkipTest("nothing is drawn")


def check_global_randomness_is_untouched(case: PerturbationCase) -> None:
    """All draws come from the seed."""
    for shape in case.shapes():
        with untouched_randomness("draw from a generator made from the seed"):
            case.apply(case.images(shape))


def check_no_network_is_used(case: PerturbationCase) -> None:
    """A perturbation is computed."""
    with offline() as asked:
        case.apply(case.images(case.shapes()[0]))
    if asked:
        raise Broken(f"it asked the network for {asked[0]}", "ship what it needs with the plugin")


def check_severity_is_a_number_from_0(case: PerturbationCase) -> None:
    """Suites and figures order settings by it."""
    for shape in case.shapes():
        severity = case.spec.severity(case.params, shape)
        if isinstance(severity, bool) or not isinstance(severity, (int, float)):
            raise Broken(f"severity is {severity!r}", "return a float")
        if not (math.isfinite(severity) and severity >= 0):
            raise Broken(f"severity is {severity}", "0 is the identity, larger is stronger")


def check_severity_0_is_the_identity(case: PerturbationCase) -> None:
    """Bit for bit: trials under severity 0 are taken from the unperturbed ones."""
    seen = False
    for shape, params in _settings_of(case, zero=True):
        seen, images = True, case.images(shape)
        if (far := _far(case.apply(images, params=params), images)) > 0:
            raise Broken(
                f"{params!r} has severity 0 and changes images by up to {far:.3g}",
                "return the values as they are, or give it a severity above 0",
            )
    if not seen:
        raise SkipTest("no setting of severity 0 was found")


def check_a_severity_above_0_changes_images(case: PerturbationCase) -> None:
    """A setting that changes nothing would be published as one that does no harm."""
    seen = False
    for shape, params in _settings_of(case, zero=False):
        seen = True
        if _distance(case, shape, params) == 0:
            raise Broken(
                f"{params!r} has severity {case.spec.severity(params, shape):.3g} and changes "
                f"nothing on images of {shape}",
                "give it severity 0, or let check refuse it",
            )
    if not seen:
        raise SkipTest("no setting of a severity above 0 was found")


def _settings_of(case: PerturbationCase, *, zero: bool) -> Iterator[tuple[ImageShape, Any]]:
    for shape in case.shapes():
        if (case.spec.severity(case.params, shape) == 0) == zero:
            yield shape, case.params
    for shape, _, steps in case.ladders:
        for severity, params in steps:
            if (severity == 0) == zero:
                yield shape, params


def check_images_move_further_as_severity_grows(case: PerturbationCase) -> None:
    """The distance to the clean images does not fall, save by a quarter at single steps."""
    if not case.spec.severity_is_distance:
        raise SkipTest("it declares that its severity orders no distance (severity_is_distance)")
    if not case.ladders:
        raise SkipTest("no two severities were found among usual values of its parameters")
    for shape, field, steps in case.ladders:
        furthest = 0.0
        for severity, params in steps:
            distance = _distance(case, shape, params)
            if distance < (1 - FALL) * furthest:
                raise Broken(
                    f"at {field}={getattr(params, field)!r}, severity {severity:.3g}, images are "
                    f"{distance:.3g} away from the clean ones, and {furthest:.3g} at a lower one",
                    "turn severity round, or declare severity_is_distance=False and say why",
                )
            furthest = max(furthest, distance)


def _distance(case: PerturbationCase, shape: ImageShape, params: Any) -> float:
    """Root mean square over images, values and seeds."""
    images = case.images(shape, MANY)
    moved = [case.apply(images, seed=seed, params=params) - images for seed in SEEDS]
    return float(torch.stack(moved).square().mean().sqrt())


def check_what_does_not_fit_is_refused_in_words(case: PerturbationCase) -> None:
    """At any shape ``check`` gives a sentence, or the perturbation works."""
    case.shapes()
    for shape in MISFITS:
        told = case.spec.check(case.params, shape)
        if told is not None and not (isinstance(told, str) and told.strip()):
            raise Broken(f"check gave {told!r} at {shape}", "return a sentence, or None")
        if not told:
            _works_at(case, shape)


def _works_at(case: PerturbationCase, shape: ImageShape) -> None:
    try:
        result = case.apply(case.images(shape, 2))
    except Exception as error:
        raise Broken(
            f"check lets images of {shape} through, which then fail: {cause(error)}",
            "let check(params, image_shape) refuse them in a sentence",
        ) from error
    if tuple(result.shape) != (2, shape[2], *shape[:2]):
        raise Broken(f"check lets images of {shape} through, which come out as "
                     f"{tuple(result.shape)}",
                     "let check refuse them")  # fmt: skip


def check_cpu_and_cuda_agree(case: PerturbationCase) -> None:
    """The same images on either device, to what float32 allows."""
    if not torch.cuda.is_available():
        raise SkipTest("there is no CUDA device here")
    for shape, result in case.results().items():
        found = case.apply(case.images(shape).cuda())
        if found.device.type != "cuda":
            raise Broken("images on CUDA came back on the CPU", "compute where the images are")
        scale = max(1.0, float(result.abs().max()))
        if (far := _far(found.cpu(), result)) > 5 * CLOSE * scale:
            raise Broken(f"CPU and CUDA differ by up to {far:.3g}",
                         "draw on the CPU and copy the draws to the device")  # fmt: skip


CHECKS = (
    check_it_fits_some_images,
    check_shape_type_and_range_are_kept,
    check_the_map_is_a_permutation,
    check_runs_say_what_the_index_says,
    check_the_input_is_left_untouched,
    check_an_image_does_not_depend_on_its_batch,
    check_the_same_seed_gives_the_same_images,
    check_another_seed_gives_other_draws,
    check_global_randomness_is_untouched,
    check_no_network_is_used,
    check_severity_is_a_number_from_0,
    check_severity_0_is_the_identity,
    check_a_severity_above_0_changes_images,
    check_images_move_further_as_severity_grows,
    check_what_does_not_fit_is_refused_in_words,
    check_cpu_and_cuda_agree,
)
