"""A plugin of each kind that passes all checks, and the message of a check that fails."""

from __future__ import annotations

import copy
import math
from typing import Annotated
from unittest import SkipTest

import numpy as np
import pytest
from pydantic import Field

from transferbench import reporting
from transferbench.conformance import checks_of
from transferbench.errors import ConformanceError
from transferbench.records import Measurement
from transferbench.specs import (
    BackboneSpec,
    DatasetSpec,
    DatasetSplit,
    DiagnosticSpec,
    InitializationSpec,
    Params,
    PerturbationSpec,
    ReportPart,
)

ABOUT = {"version": 1, "summary": "a test's own", "source": "this test", "license": "CC0-1.0"}


def altered(spec, **changes):
    """``spec`` with fields replaced, under the name of a bad plugin."""
    return type(spec)(**{**dict(spec), "name": f"bad-{spec.name}", **changes})


def failure(spec, check, *, then="; ", **options):
    """The message of this check: plugin, property, what was observed, advice."""
    [failing] = [candidate for candidate in checks_of(spec, **options) if candidate.name == check]
    # A check that is skipped would skip the test of it.
    with pytest.raises((ConformanceError, SkipTest)) as caught:
        failing()
    assert caught.type is ConformanceError, caught.value
    message = str(caught.value)
    assert message.startswith(f"{failing.kind} {spec.name!r}: {check}: ")
    observed, _, advice = message.rpartition(then)
    assert observed
    assert advice
    return message


def names_of(checks):
    return {check.__name__.removeprefix("check_").replace("_", "-") for check in checks}


# --- a dataset --------------------------------------------------------------------------------

CLASSES = ("dark", "bright", "striped")


def split(name, image_size, *, labels=None, channels=1):
    """Images unique to the split, labels in turn, groups of two images."""
    count, offset = {"train": (12, 0), "test": (6, 100)}[name]
    draws = np.random.default_rng(offset)
    images = draws.integers(0, 256, (count, image_size, image_size, channels), dtype=np.uint8)
    if labels is None:
        labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    return DatasetSplit(images, labels, offset + np.arange(count) // 2)


DATASET = DatasetSpec(
    name="good-data",
    **ABOUT,
    load=lambda params, name, root, image_size: split(name, image_size),
    classes=lambda params, root: CLASSES,
    channels=1,
    grouping="pair",
)


# --- perturbations ----------------------------------------------------------------------------


class Strength(Params):
    strength: Annotated[float, Field(ge=0, le=1)]


def fade(params, image_shape, seed):
    return lambda images, image_ids: images * (1 - params.strength)


FADE = PerturbationSpec(
    name="good-fade",
    **ABOUT,
    params=Strength,
    tiny={"strength": 0.5},
    build=fade,
    stage="pixels",
    severity=lambda params, image_shape: params.strength,
)


def noise(params, image_shape, seed):
    """Noise drawn for each image from the seed and its id."""

    def apply(images, image_ids):
        import torch

        drawn = [np.random.default_rng([seed, i]).standard_normal(image.shape)
                 for i, image in zip(image_ids.tolist(), images, strict=True)]  # fmt: skip
        return images + params.strength * torch.from_numpy(np.stack(drawn)).float()

    return apply


NOISE = altered(FADE, name="good-noise", build=noise, stage="normalised")


def flipped(params, image_shape, seed, image_ids):
    """The mirrored image."""
    indices = np.arange(np.prod(image_shape), dtype=np.int32).reshape(image_shape)
    return indices[:, ::-1].reshape(1, -1).copy()


def flipped_runs(params, image_shape, seed, image_ids):
    height, width, _ = image_shape
    indices = np.arange(height * width, dtype=np.int32).reshape(height, width)
    return indices[:, ::-1].reshape(1, -1).copy()


FLIP = PerturbationSpec(
    name="good-flip",
    **ABOUT,
    index=flipped,
    runs=flipped_runs,
    severity=lambda params, image_shape: 1.0,
    check=lambda params, image_shape: None if image_shape[1] > 1 else "one column has no other",
)


# --- a backbone -------------------------------------------------------------------------------


def body(in_chans):
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(in_chans, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    )


def build(params, num_classes, in_chans, image_size):
    from torch import nn

    net = nn.Sequential()
    net.add_module("body", body(in_chans))
    net.add_module("head", nn.Linear(16, num_classes))
    return net


BACKBONE = BackboneSpec(
    name="good-net",
    **ABOUT,
    build=build,
    modules=lambda net: {"body": ["body"], "head": ["head"]},
    head=lambda net: net.get_submodule("head"),
)


# --- initializations --------------------------------------------------------------------------


def redraw(params, net, context):
    """The source's body with a little noise."""
    import torch

    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name in context.source_state:
                tensor.copy_(context.source_state[name])
                if tensor.is_floating_point():
                    draw = torch.rand(tensor.shape, generator=context.generator)
                    tensor.add_(0.01 * draw)


INITIALIZATION = InitializationSpec(
    name="good-start", **ABOUT, initialize=redraw, needs=frozenset({"source_weights"})
)


# --- diagnostics ------------------------------------------------------------------------------


def same_answers(params, subjects, context):
    a, b = (subject.logits.argmax(1) for subject in subjects[:2])
    yield Measurement(metric="same", value=float((a == b).mean()), unit="fraction", n=len(a))


def same_predictions(params, trials):
    a, b = (trial.predicted for trial in trials[:2])
    yield Measurement(metric="same", value=float((a == b).mean()), unit="fraction", n=len(a))


def same_part(scope):
    return scope.part_by_view("Equal predictions", draw_same)


def draw_same(scope, view):
    pairs = [
        reporting.profile(condition.name, rows, scope.pairs(rows), "perturbation")
        for condition, rows in scope.conditions(view.rows)
    ]
    yield view.drawing(reporting.PanelFigure("equal predictions", [pairs]), "Equal predictions.")


DIAGNOSTIC = DiagnosticSpec(
    name="good-measure",
    **ABOUT,
    measure=same_answers,
    recompute=same_predictions,
    report=ReportPart(build=same_part, metrics=frozenset({"same"})),
    subjects="pair",
    needs=frozenset({"logits"}),
    identical={"same": 1.0},
    symmetric=frozenset({"same"}),
)


def weight_norm(params, subjects, context):
    (subject,) = subjects
    net = copy.deepcopy(subject.network())
    squares = (float(weight.detach().double().square().sum()) for weight in net.parameters())
    value = sum(squares) ** 0.5
    if math.isfinite(value):
        yield Measurement(metric="norm", value=value, unit="l2", n=1)
    else:
        yield Measurement(metric="norm", unit="l2", n=1, flag="not finite: diverged")


NORM = DiagnosticSpec(name="good-norm", **ABOUT, measure=weight_norm, subjects="one")

GOOD = (DATASET, FADE, NOISE, FLIP, BACKBONE, INITIALIZATION, DIAGNOSTIC, NORM)
