"""Which member of which family a name without its family may mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from transferbench.errors import nearest

__all__ = ["is_nearly", "likest_member"]

# The likeness of names that differ in a letter, in an ending, and of a name with its beginning.
NEARLY_SAME, ALIKE, BEGINNING = 0.85, 0.75, 0.8
LONG_ENOUGH = 3
"""Letters of a beginning that tells something."""


def is_nearly(name: str, names: Sequence[str]) -> bool:
    """Whether one of ``names`` is ``name`` but for a letter or so."""
    return _likeness(name, nearest(name, names) or "") > NEARLY_SAME


def likest_member(name: str, families: Mapping[str, Sequence[str]], names: Sequence[str]) -> str:
    """FAMILY/MEMBER that is more like ``name`` than any of ``names`` is; "" where none is.

    Of members that begin with ``name`` the shortest, such as resnet18 for resnet.
    """
    candidates = {"": max(ALIKE, _likeness(name, nearest(name, names) or ""))}
    name = name.partition(".")[0].lower()  # without the tag of weights
    for family, of_family in families.items():
        members = {member.lower(): member for member in of_family}
        longer = [member for member in members
                  if len(name) >= LONG_ENOUGH and member.startswith(name)]  # fmt: skip
        close = min(longer, key=len, default=None) or nearest(name, members)
        if close:
            likeness = max(_likeness(name, close), BEGINNING if longer else 0)
            candidates[f"{family}/{members[close]}"] = likeness
    return max(candidates, key=lambda candidate: candidates[candidate])


def _likeness(name: str, other: str) -> float:
    return SequenceMatcher(None, name, other).ratio()
