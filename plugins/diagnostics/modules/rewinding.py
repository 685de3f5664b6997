"""Module rewinding: what a network loses when one module goes back to where it started.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Figure 5; re-initialization robustness of Zhang,
Bengio, Singer 2019, arXiv 1902.01996.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from transferbench.errors import StoreError
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, Subject
from transferbench_plugins.diagnostics.modules._module_swaps import cost_of, measurements, swapped

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["REWINDING", "RewindingParams"]

Checkpoint = Literal["init", "best"] | Annotated[int, Field(ge=0)]


class RewindingParams(Params):
    """``to``: the states that modules go back to: ``init``, ``best`` or a kept epoch.

    ``limit``: how many of the test images (None: all).
    """

    to: Annotated[tuple[Checkpoint, ...], Field(min_length=1)] = ("init",)
    limit: Annotated[int, Field(ge=1)] | None = None


def measure(
    params: RewindingParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """Metric, loss and drop on test images with each module rewound and nothing trained again.

    For a fine-tuned network the body's ``init`` is P and the head's is its random draw. Parameters
    and buffers of a module go back together, and batch statistics are recomputed from train images,
    of ``none`` too. ``module`` is ``none`` for the final network and ``all`` for the one that is
    rewound to. drop = metric of ``none`` - metric; mean_body_drop and worst_body_drop are over the
    modules outside the head.
    Units: fraction; nats for the loss.
    Error: Wilson over test images for a multi-class accuracy; a drop has none of its own.
    Raises: ``StoreError`` for an epoch that was not kept.
    """
    del context  # nothing is drawn
    (subject,) = subjects
    states: dict[str | int, Mapping[str, Tensor]] = {to: _kept(subject, to) for to in params.to}
    n = len(subject.targets("test", params.limit))
    yield from measurements(swapped(subject, states, params.limit), "to", subject, n)


def _kept(subject: Subject, to: str | int) -> Mapping[str, Tensor]:
    if isinstance(to, int) and to not in subject.epochs:
        kept = ", ".join(map(str, subject.epochs)) or "none"
        raise StoreError(
            f"rewinding to epoch {to}: the trial kept no such state (its epochs: {kept}); rewind to"
            " 'init', or keep the epoch when the trial is trained"
        )
    return subject.state(to)


REWINDING = DiagnosticSpec(
    name="rewinding",
    version=2,
    summary="Metric and loss with each module back at its initial (or a kept) state",
    source="Neyshabur et al. 2020, arXiv 2008.11687, Figure 5; Zhang et al. 2019, arXiv 1902.01996",
    license="Apache-2.0",
    params=RewindingParams,
    tiny={"limit": 8},
    measure=measure,
    subjects="one",
    needs=frozenset({"init_state", "images"}),
    cost=lambda params: cost_of(len(params.to)),
    limit=lambda params: params.limit,
)
