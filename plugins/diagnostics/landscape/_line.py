"""Two networks as the ends of a line through the space of weights, and the data to judge points.

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
)
from transferbench.errors import SuiteError
from transferbench.metrics import Evaluation
from transferbench.specs import DiagnosticContext, Subject
from transferbench_plugins.diagnostics.landscape._line_params import LineParams

__all__ = ["Line", "line_between", "misfit"]

State = Mapping[str, Tensor]


class Line(NamedTuple):
    """The states ``a`` and ``b``, whole, on the device of ``net``, which can hold either.

    ``pool``: training images (N, C, H, W) in random order, from which statistics are recomputed.
    """

    net: nn.Module
    a: State
    b: State
    splits: Mapping[str, Examples]
    pool: Tensor
    criterion: Criterion
    precision: Precision

    def evaluate(self, states: Iterable[State]) -> list[dict[str, Evaluation]]:
        """Loss and metric of each state on each split, batch statistics recomputed."""
        return evaluate_states(
            self.net,
            states,
            self.splits,
            self.criterion,
            calibration=self.pool if has_batch_statistics(self.net) else None,
            precision=self.precision,
        )


def misfit(a: State, b: State) -> str | None:
    """Why no line joins these weights, in words; None where one does."""
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
) -> Line:
    """The line from the first subject to the second; ``misfit`` found nothing.

    ``train`` holds the training images of both, where they were drawn apart: each network has
    learnt its own, and neither end may be favoured.
    Raises: ``SuiteError`` naming the two jobs that were not tested on the same images.
    """
    a, b = subjects
    first, second = params.endpoints
    train = _joined(_examples(a, "train"), _examples(b, "train"))
    found = {"train": train, "test": _shared_test(a, b)}
    pool = _subset(train, params.calibration, context.generator).images
    return Line(
        a.network(first),
        _copied(a.state(first), context.device),
        _copied(b.state(second), context.device),
        {split: _limited(found[split], params.limit, context.generator) for split in splits},
        pool,
        Criterion(a.task, a.metric),
        params.precision,
    )


def _copied(state: State, device: torch.device) -> dict[str, Tensor]:
    """``state`` on ``device``, sharing nothing with a network that points are written into."""
    return {name: tensor.to(device, copy=True) for name, tensor in state.items()}


def _examples(subject: Subject, split: str) -> Examples:
    return Examples(subject.images(split), subject.targets(split))


def _equal(one: Examples, other: Examples) -> bool:
    return torch.equal(one.targets, other.targets) and torch.equal(one.images, other.images)


def _joined(one: Examples, other: Examples) -> Examples:
    if _equal(one, other):
        return one
    return Examples(torch.cat([one.images, other.images]), torch.cat([one.targets, other.targets]))


def _shared_test(a: Subject, b: Subject) -> Examples:
    one = _examples(a, "test")
    if not _equal(one, _examples(b, "test")):
        raise SuiteError(
            f"jobs {a.job} and {b.job} were tested on different images; compare trials of one "
            "target and one perturbation, and under a perturbation that is drawn anew for each "
            "replicate only trials of the same replicate"
        )
    return one


def _limited(examples: Examples, limit: int | None, generator: Generator) -> Examples:
    if limit is None or limit >= len(examples.targets):
        return examples
    return _subset(examples, limit, generator)


def _subset(examples: Examples, count: int, generator: Generator) -> Examples:
    """So many examples in random order: datasets may come sorted by class."""
    order = torch.randperm(len(examples.targets), generator=generator, device=generator.device)
    chosen = order[:count].to(examples.targets.device)
    # index_select gives a fresh layout; networks are channels_last.
    images = examples.images.index_select(0, chosen).contiguous(memory_format=torch.channels_last)
    return Examples(images, examples.targets[chosen])
