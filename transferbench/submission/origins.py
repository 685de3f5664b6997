"""Where each value of a submission comes from: which follow from something else in it.

``recomputed``: it follows from the predictions alone, and was computed again from them.
``derived``: it follows from other values that are recorded, such as the history of a training, and
was computed again from these. ``reported``: the submitter's word; nothing here tells it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

from transferbench.plan.tuning import RATE
from transferbench.records import Record
from transferbench.submission.bundle import Bundle
from transferbench.submission.diagnoses import Recomputation
from transferbench.suite import TRIAL, Claim

__all__ = ["ORIGINS", "Origin", "Origins", "origins_of"]

Origin: TypeAlias = Literal["recomputed", "derived", "reported"]
ORIGINS: tuple[Origin, ...] = ("recomputed", "derived", "reported")
"""The most certain first."""
OF_TRIALS: Mapping[str, Origin] = {"test_metric": "recomputed", RATE: "derived"}
"""Of what the trials themselves measure; all else is reported."""


class Origins(NamedTuple):
    """Of the values of a submission: how many there are of each origin, and that of each quantity.

    ``quantities``: (diagnostic, metric) -> the least certain origin of its values.
    """

    counts: Mapping[Origin, int]
    quantities: Mapping[tuple[str, str], Origin]

    def of(self, diagnostic: str, metric: str) -> Origin:
        """The origin of a quantity; what the submission does not hold is reported."""
        return self.quantities.get((diagnostic, metric), "reported")

    def of_claim(self, claim: Claim) -> Origin:
        """The least certain origin of the quantities that a claim is on."""
        return _least_certain(self.of(term.diagnostic, term.metric) for term in claim.all_terms)

    @property
    def text(self) -> str:
        """The share of each origin: ``41% recomputed, 12% derived, 47% reported of 2,317``."""
        total = sum(self.counts.values())
        shares = [f"{self.counts[origin] / total:.0%} {origin}"
                  for origin in ORIGINS if self.counts.get(origin)]  # fmt: skip
        return f"{', '.join(shares)} of {total:,}" if total else "no values"


def origins_of(bundle: Bundle, recomputation: Recomputation) -> Origins:
    """The origins of the values of a submission that passed its check."""
    counts: Counter[Origin] = Counter()
    quantities: dict[tuple[str, str], Origin] = {}
    for record in bundle.records:
        origin = _origin(record, recomputation)
        counts[origin] += 1
        quantity = (record.diagnostic, record.metric)
        quantities[quantity] = _least_certain([quantities.get(quantity, "recomputed"), origin])
    return Origins(counts, quantities)


def _origin(record: Record, recomputation: Recomputation) -> Origin:
    if record.diagnostic == TRIAL:
        return OF_TRIALS.get(record.metric, "reported")
    values = recomputation.by_job.get(record.job)
    if values is None or (key := record.key) not in values.all:
        return "reported"
    return "recomputed" if key in values.of_predictions else "derived"


def _least_certain(origins: Iterable[Origin]) -> Origin:
    return max(origins, key=ORIGINS.index, default="reported")
