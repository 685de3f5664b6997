"""Equal predictions: trials under two settings that end in the same network.

A setting that did nothing makes every comparison with it exactly 0, which an interval takes for
certainty. So a claim on two such settings is undecided.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

from transferbench.claims.terms import Sample

__all__ = ["EQUAL_PREDICTIONS", "EqualTrials", "TrialKey", "equal_trials", "equality_of"]

EQUAL_PREDICTIONS = "equal predictions"
"""The flag of a claim that compares such trials."""
NAMED = 3

TrialKey: TypeAlias = tuple[str, str, str, int]
"""Target, perturbation, arm and replicate."""
Setting: TypeAlias = tuple[str, str, str]
EqualTrials: TypeAlias = Mapping[TrialKey, str]
"""The trials of an entry that have the same outputs as another one -> what these have in common."""


def equal_trials(outputs: Mapping[TrialKey, str]) -> EqualTrials:
    """The trials whose outputs another trial on the same target has, too.

    ``outputs``: digests of the logits on the test images.
    """
    counts = Counter((key[0], digest) for key, digest in outputs.items())
    return {key: digest for key, digest in outputs.items() if counts[key[0], digest] > 1}


def equality_of(
    samples: Iterable[Sample], replicates: Sequence[int], equal: EqualTrials
) -> tuple[list[str], list[str]]:
    """What makes a claim undecided, and what is only remarkable about it.

    Undecided: two settings that are equal in every replicate that counts, or two replicates of one
    setting. Settings that are equal in some replicates (the draw of a shuffle may be the identity)
    are remarkable.
    """
    keys = _keys(samples) & equal.keys() if equal else set()
    settled = list(_equal_replicates(keys, equal))
    notes = []
    for (first, second), shared in _equal_settings(keys, equal).items():
        text = f"{_words(first)} and {_words(second)} predict the same on {first[0]}"
        if shared.issuperset(replicates):
            settled.append(
                f"{EQUAL_PREDICTIONS}: {text}, so that a setting between them did nothing"
            )
        elif some := shared.intersection(replicates):
            notes.append(f"{text} in {len(some)} of {len(replicates)} replicates")
    return settled[:NAMED], notes[:NAMED]


def _keys(samples: Iterable[Sample]) -> set[TrialKey]:
    """The trials behind the values of a claim."""
    keys: set[TrialKey] = set()
    for sample in samples:
        columns = ("target", "perturbation", "initialization", "replicate",
                   "other_initialization", "other_replicate")  # fmt: skip
        for target, perturbation, arm, k, other, other_k in sample.rows.valued().groups(*columns):
            keys.add((target, perturbation, arm, int(k)))
            if other is not None and other_k is not None:
                keys.add((target, perturbation, other, int(other_k)))
    return keys


def _equal_replicates(keys: Collection[TrialKey], equal: EqualTrials) -> Iterator[str]:
    groups: dict[tuple[Setting, str], list[int]] = defaultdict(list)
    for target, perturbation, arm, k in sorted(keys):
        groups[(target, perturbation, arm), equal[target, perturbation, arm, k]].append(k)
    for (setting, _), members in groups.items():
        if len(members) > 1:
            names = " and ".join(map(str, members[:NAMED]))
            yield (
                f"{EQUAL_PREDICTIONS}: replicates {names} of {_words(setting)} on {setting[0]} are "
                "the same network"
            )


def _equal_settings(
    keys: Collection[TrialKey], equal: EqualTrials
) -> dict[tuple[Setting, Setting], set[int]]:
    """The replicates in which two settings have the same outputs."""
    groups: dict[tuple[int, str], list[Setting]] = defaultdict(list)
    for target, perturbation, arm, k in sorted(keys):
        digest = equal[target, perturbation, arm, k]
        groups[k, f"{target} {digest}"].append((target, perturbation, arm))
    shared: dict[tuple[Setting, Setting], set[int]] = defaultdict(set)
    for (k, _), settings in groups.items():
        for pair in combinations(settings, 2):
            shared[pair].add(k)
    return shared


def _words(setting: Setting) -> str:
    _, perturbation, arm = setting
    return f"{arm} under {perturbation}"
