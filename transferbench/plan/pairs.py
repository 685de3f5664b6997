"""Which replicates of two arms are measured as a pair, and which one serves them as a reference.

With several source networks, replicate k starts from network k % networks.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["paired_replicates", "reference_of"]


def paired_replicates(
    kind: Literal["same", "different", "next"],
    n_a: int,
    n_b: int,
    *,
    ordered: bool,
    networks: int = 1,
) -> list[tuple[int, int]]:
    """The pairs of replicates of two arms that have ``n_a`` and ``n_b`` of them.

    ``ordered``: the arms differ, so that (i, j) and (j, i) are two pairs. ``networks``: the two of
    a pair belong to the same one of so many, and each has equally many replicates.
    """
    n = min(n_a, n_b)
    if kind == "same":
        return [(k, k) for k in range(n)]
    if kind == "next":
        return [(k, (k + networks) % n) for k in range(n if n > networks else 0)]
    return [
        (i, j)
        for i in range(n_a)
        for j in range(i % networks, n_b, networks)
        if i < j or (ordered and i != j)
    ]


def reference_of(i: int, j: int, n: int, networks: int = 1) -> int | None:
    """The next of ``n`` replicates, cyclically, that is neither i nor j; None without one.

    One of the same network as j, where it has a third replicate.
    """
    others = [k % n for k in range(j + 1, j + 1 + n) if k % n not in {i, j}]
    own = [k for k in others if k % networks == j % networks]
    return next(iter([*own, *others]), None)
