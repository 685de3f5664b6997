"""The trials of a plan that end in the same network as another one."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from safetensors.numpy import load_file

from transferbench.claims import EqualTrials, TrialKey, equal_trials
from transferbench.records import Record
from transferbench.store import Artefact
from transferbench.suite import TRIAL

__all__ = ["equal_outputs", "logits_digest"]

COMPARED = ("test_metric", "test_loss")
"""Equal networks have equal values of these, so that few outputs need to be read."""


def logits_digest(logits: np.ndarray) -> str:
    """The sha256 of the bytes of a network's logits."""
    return hashlib.sha256(np.ascontiguousarray(logits).tobytes()).hexdigest()


def equal_outputs(
    records: Iterable[Record], finished: Mapping[str, Artefact]
) -> dict[str, EqualTrials]:
    """For each entry the trials whose logits are those of another one on the target.

    Raises: ``CorruptArtefactError`` where the outputs of a trial are not what was written.
    """
    values: dict[tuple[str, TrialKey, str], dict[str, float | None]] = defaultdict(dict)
    for record in records:
        if record.diagnostic == TRIAL and record.metric in COMPARED and not record.coordinates:
            key = (record.target, record.perturbation, record.initialization, record.replicate)
            values[record.entry, key, record.job][record.metric] = record.value
    alike: dict[tuple[str, str, float | None, float | None], list[tuple[TrialKey, str]]]
    alike = defaultdict(list)
    for (entry, key, job), measured in values.items():
        metric, loss = (measured.get(name) for name in COMPARED)
        if metric is not None:
            alike[entry, key[0], metric, loss].append((key, job))
    digests: dict[str, dict[TrialKey, str]] = defaultdict(dict)
    for (entry, *_), trials in alike.items():
        for key, job in trials if len(trials) > 1 else ():
            outputs = load_file(finished[job].path("outputs.safetensors"))
            digests[entry][key] = logits_digest(outputs["logits"])
    return {entry: equal_trials(outputs) for entry, outputs in digests.items()}
