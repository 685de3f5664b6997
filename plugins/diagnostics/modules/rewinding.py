"""Module rewinding: loss of performance when one module is reset to its initial weights.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Figure 5; re-initialization robustness of Zhang,
Bengio, Singer 2019, arXiv 1902.01996.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from transferbench.errors import StoreError
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, Subject
from transferbench_plugins.diagnostics.modules._module_swaps import (
    StateKey,
    forward_passes,
    measure_swaps,
)
from transferbench_plugins.diagnostics.modules._swaps_report import SWAP_PART

if TYPE_CHECKING:
    from transferbench.networks.modules import StateDict

__all__ = ["REWINDING", "RewindingParams"]

Checkpoint = Literal["init", "best"] | Annotated[int, Field(ge=0)]


class RewindingParams(Params):
    """``to``: states to rewind modules to: ``init``, ``best`` or a stored epoch.

    ``limit``: test images (None: all).
    """

    to: Annotated[tuple[Checkpoint, ...], Field(min_length=1)] = ("init",)
    limit: Annotated[int, Field(ge=1)] | None = None


def measure(
    params: RewindingParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """Metric, loss and drop on test images with each module rewound, without further training.

    For a fine-tuned network ``init`` is P in the body and the random initialization of the head.
    Parameters and buffers of a module are rewound together; batch statistics are recomputed from
    train images, for ``none`` too. ``module`` is ``none`` for the final network and ``all`` for the
    complete state ``to``. drop = metric of ``none`` - metric; mean_body_drop and worst_body_drop
    are over the modules outside the head.
    Units: fraction; nats for the loss.
    Error: Wilson over test images for a multi-class accuracy; none for drops.
    Raises: ``StoreError`` for an epoch that was not stored.
    """
    del context  # no randomness
    (subject,) = subjects
    states: dict[StateKey, StateDict] = {to: _state(subject, to) for to in params.to}
    yield from measure_swaps(subject, states, params.limit, "to")


def _state(subject: Subject, to: StateKey) -> StateDict:
    if isinstance(to, int) and to not in subject.epochs:
        stored = ", ".join(map(str, subject.epochs)) or "none"
        raise StoreError(
            f"cannot rewind to epoch {to}: the trial stored no such state (stored epochs: {stored})"
            "; rewind to 'init', or store that epoch during training"
        )
    return subject.state(to)


REWINDING = DiagnosticSpec(
    name="rewinding",
    version=2,
    summary="Metric and loss with each module rewound to its initial (or a stored) state",
    source="Neyshabur et al. 2020, arXiv 2008.11687, Figure 5; Zhang et al. 2019, arXiv 1902.01996",
    license="Apache-2.0",
    params=RewindingParams,
    tiny={"limit": 8},
    measure=measure,
    subjects="one",
    needs=frozenset({"init_state", "images"}),
    cost=lambda params: forward_passes(len(params.to)),
    limit=lambda params: params.limit,
    report=SWAP_PART,
)
