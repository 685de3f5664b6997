"""The line between two networks in weight space, and the images to evaluate its points on.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from transferbench.analysis.landscape import (
    Criterion,
    Examples,
    Precision,
    evaluate_states,
    has_batch_statistics,
    lerp_state,
)
from transferbench.errors import SuiteError
from transferbench.metrics import Evaluation
from transferbench.networks.modules import StateDict
from transferbench.specs import DiagnosticContext, Subject
from transferbench_plugins.diagnostics.landscape._line_params import LineParams

__all__ = ["Curve", "NetworkLine", "incompatibility", "line_between"]

Curve = list[dict[str, Evaluation]]
"""Loss and metric at each point, by split."""


class NetworkLine(NamedTuple):
    """The states ``a`` and ``b``, heads included, on the device of ``net``, which can load both.

    ``calibration``: training images (N, C, H, W), in random order, from which batch statistics are
    recomputed.
    """

    net: nn.Module
    a: StateDict
    b: StateDict
    splits: Mapping[str, Examples]
    calibration: Tensor
    criterion: Criterion
    precision: Precision

    def evaluate(self, states: Iterable[StateDict]) -> Curve:
        """Loss and metric of each state on each split, with recomputed batch statistics."""
        return evaluate_states(
            self.net,
            states,
            self.splits,
            self.criterion,
            calibration=self.calibration if has_batch_statistics(self.net) else None,
            precision=self.precision,
        )

    def interpolate(self, weights: Sequence[float]) -> Curve:
        """The curve at ``(1 - weight) * a + weight * b``."""
        return self.evaluate(lerp_state(self.a, self.b, weight) for weight in weights)


def incompatibility(subjects: Sequence[Subject], params: LineParams) -> str | None:
    """Why the endpoints cannot be interpolated, or None."""
    a, b = (s.state(which) for s, which in zip(subjects, params.endpoints, strict=True))
    for name, tensor in a.items():
        if name not in b:
            return f"no line between these networks: only one of them has {name}"
        if tensor.shape != b[name].shape:
            return (
                f"no line between these networks: {name} is {tuple(tensor.shape)} in one and "
                f"{tuple(b[name].shape)} in the other"
            )
    return None


def line_between(
    subjects: Sequence[Subject],
    params: LineParams,
    splits: Sequence[str],
    context: DiagnosticContext,
) -> NetworkLine:
    """The line from the first subject to the second, which are compatible.

    If the trials were trained on different images, ``train`` holds those of both, so that neither
    end is favoured.
    Raises: ``SuiteError`` naming the two jobs that were not tested on the same images.
    """
    a, b = subjects
    first, second = params.endpoints
    train = _union(_examples(a, "train"), _examples(b, "train"))
    examples = {"train": train, "test": _shared_test(a, b)}
    calibration = _subset(train, params.calibration, context.generator).images
    return NetworkLine(
        a.network(first),
        _copy(a.state(first), context.device),
        _copy(b.state(second), context.device),
        {split: _limited(examples[split], params.limit, context.generator) for split in splits},
        calibration,
        Criterion(a.task, a.metric),
        params.precision,
    )


def _copy(state: StateDict, device: torch.device) -> dict[str, Tensor]:
    """``state`` on ``device``, sharing no memory with a network that is overwritten."""
    return {name: tensor.to(device, copy=True) for name, tensor in state.items()}


def _examples(subject: Subject, split: str) -> Examples:
    return Examples(subject.images(split), subject.targets(split))


def _equal(a: Examples, b: Examples) -> bool:
    # An unknown label (NaN) is the same as another one.
    targets = (torch.nan_to_num(each.targets, nan=-1) for each in (a, b))
    return torch.equal(*targets) and torch.equal(a.images, b.images)


def _union(a: Examples, b: Examples) -> Examples:
    if _equal(a, b):
        return a
    return Examples(torch.cat([a.images, b.images]), torch.cat([a.targets, b.targets]))


def _shared_test(a: Subject, b: Subject) -> Examples:
    examples = _examples(a, "test")
    if not _equal(examples, _examples(b, "test")):
        raise SuiteError(
            f"jobs {a.job} and {b.job} were tested on different images; compare trials of one "
            "target and one perturbation, and if the perturbation is resampled for each "
            "replicate, trials of the same replicate"
        )
    return examples


def _limited(examples: Examples, limit: int | None, generator: Generator) -> Examples:
    if limit is None or limit >= len(examples.targets):
        return examples
    return _subset(examples, limit, generator)


def _subset(examples: Examples, count: int, generator: Generator) -> Examples:
    """A random subset in random order: datasets may be sorted by class."""
    order = torch.randperm(len(examples.targets), generator=generator, device=generator.device)
    indices = order[:count].to(examples.targets.device)
    # index_select does not preserve the memory format; networks are channels_last.
    images = examples.images.index_select(0, indices).contiguous(memory_format=torch.channels_last)
    return Examples(images, examples.targets[indices])
