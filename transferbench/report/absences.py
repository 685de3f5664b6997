"""Why a run lacks what its suite names: external weights, arms left out, jobs that did not end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from transferbench.suite import SOURCE

__all__ = ["NONE_ABSENT", "Absences"]

UNFINISHED = "see the jobs"
UNPLANNED = "every job finished, and none of them was to measure it"


class Absences(NamedTuple):
    """What an entry goes without.

    ``left_out``: arms that its external weights cannot start, and what they need. ``unmeasured``:
    labels of diagnoses of the source network that these weights do not allow, and why.
    ``finished``: whether every job of the run is known to have ended well.
    """

    left_out: Mapping[str, str] = {}
    unmeasured: Mapping[str, str] = {}
    finished: bool = False

    def explained(self, labels: Sequence[str], members: Iterable[Sequence[str]]) -> str:
        """The reasons why diagnoses ``labels`` were not made of ``members``, each some arms."""
        reasons: dict[str, list[str]] = {}
        for arms in members:
            reasons.setdefault(self._reason(labels, arms), []).append(" & ".join(arms))
        if len(reasons) == 1:
            return f"{', '.join(*reasons.values())}; {', '.join(reasons)}"
        return ", ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())

    def reason(self, labels: Sequence[str], members: Sequence[Sequence[str]]) -> str:
        """The reasons why nothing at all was measured of ``labels``."""
        reasons = dict.fromkeys(self._reason(labels, arms) for arms in members)
        return "; ".join(reasons) or (UNPLANNED if self.finished else UNFINISHED)

    def _reason(self, labels: Sequence[str], arms: Sequence[str]) -> str:
        if SOURCE in arms:
            for label in labels:
                if label in self.unmeasured:
                    return f"it {self.unmeasured[label]}"
        for arm in arms:
            if arm in self.left_out:
                return f"{arm} {self.left_out[arm]}, which external weights cannot give"
        return UNPLANNED if self.finished else UNFINISHED


NONE_ABSENT = Absences()
