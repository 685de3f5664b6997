"""The checks of a perturbation: images are independent, inputs untouched, severities true.

The plugin's own builders are called, not the fast paths of the engine.

Shape letters: N images, H height, W width, C channels, M maps (1 or N), V = H*W*C, R runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, Literal, get_args, get_origin
from unittest import SkipTest

import numpy as np
import torch
from torch import Tensor

from transferbench.conformance import cases
from transferbench.conformance.cases import Case, Observation, is_number_from_0, refuse_gap
from transferbench.conformance.checks import Violation, defined_in, shared
from transferbench.data.gather import RunMap
from transferbench.registry.blame import cause
from transferbench.specs import ImageShape, PerturbationSpec

__all__ = ["CASE", "CHECKS"]

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
    def settings(self) -> list[ShapedParams]:
        """The parameters at the first grey and the first colour images that they fit."""
        settings: list[ShapedParams] = []
        for channels in (1, 3):
            tried = [ShapedParams(self.spec, self.params, (side, side, channels)) for side in SIDES]
            settings += [setting for setting in tried if not setting.refusal][:1]
        if not settings:
            raise Violation(
                f"check refuses grey and colour images of {', '.join(map(str, sorted(SIDES)))} px "
                f"({tried[0].refusal})",
                "give tiny parameters that fit one of these sizes",
            )
        return settings

    @shared(reported_by="shape-type-and-range-are-kept")
    def results(self) -> dict[ShapedParams, Tensor]:
        """The perturbed images."""
        return {setting: setting.apply(setting.images()) for setting in self.settings}

    @shared(reported_by="no-network-is-used")
    def again(self) -> Observation[dict[ShapedParams, Tensor]]:
        """The images perturbed once more."""
        batches = {setting: setting.images() for setting in self.results}
        return self.observed(
            lambda: {setting: setting.apply(images) for setting, images in batches.items()}
        )

    @cached_property
    def ladders(self) -> list[tuple[str, list[ShapedParams]]]:
        """For each setting and parameter that severity depends on: settings by severity.

        Values are tried for one parameter at a time, the others keep theirs.
        """
        ladders = []
        for setting, field in product(self.settings, self.spec.params.model_fields):
            steps: dict[float, ShapedParams] = {}
            for variant in setting.variants(field):
                steps.setdefault(variant.severity, variant)
            if len(steps) > 1:
                ladders.append((field, [steps[severity] for severity in sorted(steps)]))
        return ladders


@dataclass(frozen=True, eq=False)
class ShapedParams:
    """The parameters of a perturbation at one shape of images."""

    spec: PerturbationSpec
    params: Any
    shape: ImageShape

    @property
    def refusal(self) -> str | None:
        """The result of ``check``."""
        return self.spec.check(self.params, self.shape)

    @property
    def severity(self) -> float:
        """The severity as a number."""
        return float(self.spec.severity(self.params, self.shape))

    def variants(self, field: str) -> Iterator[ShapedParams]:
        """This setting with usual values of one parameter, as far as they fit."""
        annotation = self.spec.params.model_fields[field].annotation
        values: Sequence[Any] = () if annotation in {str, bool} else (*STEPS, max(self.shape))
        if get_origin(annotation) is Literal:
            values = get_args(annotation)
        for value in values:
            params = {**self.params.model_dump(), field: value}
            if self.spec.accepts(params):
                variant = replace(self, params=self.spec.parse(params))
                if not variant.refusal:
                    yield variant

    def images(self, count: int = COUNT) -> Tensor:
        """Smooth images with edges, float32 (N, C, H, W), scaled as at the plugin's stage.

        The edges are at other positions in each image: a grid may favour some positions.
        """
        height, width, channels = self.shape
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
        self, images: Tensor, ids: Sequence[int] | None = None, seed: int = SEEDS[0]
    ) -> Tensor:
        """The perturbed images, by the plugin's own builder. Shapes: (N, C, H, W) to the same."""
        image_ids = np.arange(len(images)) if ids is None else np.asarray(ids, dtype=np.int64)
        if self.spec.build is not None:
            result: Tensor = self.spec.build(self.params, self.shape, seed)(images, image_ids)
            return result
        values = images.permute(0, 2, 3, 1)
        index = torch.from_numpy(self.index(image_ids, seed).astype(np.int64))
        sources = index.to(images.device).expand(len(images), -1)
        moved = values.flatten(1).gather(1, sources).view(values.shape)
        return moved.permute(0, 3, 1, 2).contiguous()

    def index(self, ids: np.ndarray, seed: int = SEEDS[0]) -> np.ndarray:
        """The map, if it is one: value j of the result, flattened HWC, is value ``index[m, j]``.

        Shapes: int32 (M, V). Raises: ``SkipTest``, ``Violation``.
        """
        if self.spec.index is None:
            raise SkipTest("it declares build, not index")
        index: Any = self.spec.index(self.params, self.shape, seed, ids)
        count, values = len(ids), math.prod(self.shape)
        form, shape = str(getattr(index, "dtype", type(index).__name__)), np.shape(index)
        if form != "int32" or shape not in {(1, values), (count, values)}:
            raise Violation(
                f"index returned {form} {shape} for {count} images of {values} values",
                f"return int32 (1, {values}), one map for all images, or ({count}, {values})",
            )
        if index.min() < 0 or index.max() >= values:
            raise Violation(f"index points to {index.min()}..{index.max()}",
                            f"stay within the image: 0..{values - 1}")  # fmt: skip
        return np.asarray(index)

    def mean_distance(self) -> float:
        """The distance to the clean images: root mean square over images, values and seeds."""
        images = self.images(MANY)
        moved = [self.apply(images, seed=seed) - images for seed in SEEDS]
        return float(torch.stack(moved).square().mean().sqrt())


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the checks -------------------------------------------------------------------------------


def check_it_fits_some_images(case: PerturbationCase) -> None:
    """``check`` accepts grey or colour images of a usual size."""
    _ = case.settings
    if not case.spec.applies_to:
        raise Violation("applies_to is empty", "name train-and-test, test-only or both")


def check_shape_type_and_range_are_kept(case: PerturbationCase) -> None:
    """float32 (N, C, H, W) in and out, finite; within [0, 1] where the stage is pixels."""
    for setting, result in case.results.items():
        images = setting.images()
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
    for setting, ids in product(case.settings, ([0, 5, 2], [7])):
        index = setting.index(np.asarray(ids))
        if not bool((np.sort(index, axis=1) == np.arange(index.shape[1])).all()):
            raise Violation(
                "the map takes some values twice and leaves others out",
                "return a permutation, or declare build instead of index",
            )


def check_runs_say_what_the_index_says(case: PerturbationCase) -> None:
    """``runs`` and ``index`` describe the same map; runs are of equal length."""
    if case.spec.runs is None:
        raise SkipTest("it declares no runs")
    for setting in case.settings:
        ids = np.arange(3)
        index, values = setting.index(ids), math.prod(setting.shape)
        runs = np.asarray(case.spec.runs(case.params, setting.shape, SEEDS[0], ids))
        if runs.dtype != np.int32 or runs.ndim != 2 or values % max(1, runs.shape[1]):
            raise Violation(f"runs are {runs.dtype} {runs.shape}",
                            f"return int32 (M, R) with an R that divides {values}")  # fmt: skip
        if not np.array_equal(RunMap(runs, values // runs.shape[1]).values(), index):
            raise Violation("runs and index move values to different places",
                            "make index from runs, or drop runs")  # fmt: skip


def check_the_input_is_left_untouched(case: PerturbationCase) -> None:
    """The batch belongs to the caller, who may reuse it."""
    for setting in case.settings:
        images = setting.images()
        setting.apply(images)
        refuse_gap(images, setting.images(), "the batch was changed,",
                   "clone it first, or leave out the underscore of an in-place call")  # fmt: skip


def check_an_image_does_not_depend_on_its_batch(case: PerturbationCase) -> None:
    """The result for an image depends on its id, not on the batch or the order."""
    batches = {"alone and in a batch": [2], "in two orders of one batch": [5, 0, 7, 2, 1, 6, 3, 4]}
    for (setting, result), (contexts, ids) in product(case.results.items(), batches.items()):
        refuse_gap(setting.apply(setting.images()[ids], ids), result[ids],
                   f"an image {contexts} differs",
                   "use nothing but the image, its id in image_ids and the seed",
                   within=CLOSE)  # fmt: skip


def check_the_same_seed_gives_the_same_images(case: PerturbationCase) -> None:
    """Built twice, applied twice: the same values."""
    for setting, result in case.results.items():
        refuse_gap(
            case.again.result[setting], result, "two calls with one seed differ",
            "draw from a generator that is made from the seed, and the ids, in each call",
        )  # fmt: skip


def check_another_seed_gives_other_draws(case: PerturbationCase) -> None:
    """Where results depend on the ids of images, they depend on the seed too."""
    drawn = False
    for setting in case.results:
        copies = setting.images()[:1].repeat(COUNT, 1, 1, 1)
        first, *others = [setting.apply(copies, seed=seed) for seed in SEEDS]
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
    for setting in case.settings:
        severity = case.spec.severity(case.params, setting.shape)
        if not is_number_from_0(severity):
            raise Violation(
                f"severity is {severity!r}",
                "return a finite float: 0 is the identity, larger is stronger",
            )


def check_severity_0_is_the_identity(case: PerturbationCase) -> None:
    """Bitwise: trials under severity 0 are taken from the unperturbed ones."""
    for setting in _settings_of(case, zero=True):
        images = setting.images()
        refuse_gap(setting.apply(images), images,
                   f"{setting.params!r} has severity 0 and changes images",
                   "return the values as they are, or give it a severity above 0")  # fmt: skip


def check_a_severity_above_0_changes_images(case: PerturbationCase) -> None:
    """A setting that changes nothing would be published as harmless."""
    for setting in _settings_of(case, zero=False):
        if setting.mean_distance() == 0:
            raise Violation(
                f"{setting.params!r} has severity {setting.severity:.3g} and changes nothing on "
                f"images of {setting.shape}",
                "give it severity 0, or let check refuse it",
            )


def _settings_of(case: PerturbationCase, *, zero: bool) -> list[ShapedParams]:
    """The settings of the case and of its ladders. Raises: ``SkipTest`` where there are none."""
    settings = [*case.settings, *(step for _, steps in case.ladders for step in steps)]
    chosen = [setting for setting in settings if (setting.severity == 0) == zero]
    if not chosen:
        raise SkipTest(f"no setting of {'severity 0' if zero else 'a severity above 0'} was found")
    return chosen


def check_images_move_further_as_severity_grows(case: PerturbationCase) -> None:
    """The distance to the clean images does not fall by more than a quarter at any step."""
    if not case.spec.severity_is_distance:
        raise SkipTest("it declares that its severity orders no distance (severity_is_distance)")
    if not case.ladders:
        raise SkipTest("no two severities were found among usual values of its parameters")
    for field, steps in case.ladders:
        furthest = 0.0
        for step in steps:
            distance = step.mean_distance()
            if distance < (1 - FALL) * furthest:
                raise Violation(
                    f"at {field}={getattr(step.params, field)!r}, severity {step.severity:.3g}, "
                    f"images are {distance:.3g} away from the clean ones, and {furthest:.3g} at a "
                    "lower one",
                    "reverse severity, or declare severity_is_distance=False and say why",
                )
            furthest = max(furthest, distance)


def check_what_does_not_fit_is_refused_in_words(case: PerturbationCase) -> None:
    """At any shape ``check`` returns a sentence, or the perturbation works."""
    for shape in MISFITS:
        setting = replace(case.settings[0], shape=shape)
        if (refusal := setting.refusal) is None:
            _works_at(setting)
        elif not (isinstance(refusal, str) and refusal.strip()):
            raise Violation(f"check returned {refusal!r} at {shape}", "return a sentence, or None")


def _works_at(setting: ShapedParams) -> None:
    height, width, channels = shape = setting.shape
    try:
        form = tuple(setting.apply(setting.images(2)).shape)
    except Exception as error:
        raise Violation(
            f"check accepts images of {shape}, which then fail: {cause(error)}",
            "let check(params, image_shape) refuse them in a sentence",
        ) from error
    if form != (2, channels, height, width):
        raise Violation(f"check accepts images of {shape}, and the result is of {form}",
                        "let check refuse them")  # fmt: skip


def check_cpu_and_cuda_agree(case: PerturbationCase) -> None:
    """The same images on either device, to float32 rounding."""
    if not torch.cuda.is_available():
        raise SkipTest("there is no CUDA device here")
    for setting, result in case.results.items():
        on_cuda = setting.apply(setting.images().cuda())
        if on_cuda.device.type != "cuda":
            raise Violation("images on CUDA came back on the CPU", "compute where the images are")
        scale = max(1.0, float(result.abs().max()))
        refuse_gap(on_cuda.cpu(), result, "CPU and CUDA differ",
                   "draw on the CPU and copy the draws to the device",
                   within=5 * CLOSE * scale)  # fmt: skip


CASE = PerturbationCase
CHECKS = (*defined_in(__name__), *cases.CHECKS)
