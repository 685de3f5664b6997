"""The jobs of a plan and what they fill: cells of the suite's grid, and diagnoses of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from transferbench.identity import digest
from transferbench.specs import Preprocessing, Weights
from transferbench.suite import TRIAL, TUNING, Suite

__all__ = [
    "ENGINE_VERSION",
    "NOT_MEASURED",
    "DatasetFacts",
    "DiagnosisCell",
    "Entry",
    "Job",
    "JobKind",
    "Plan",
    "TrialCell",
    "Work",
    "job_id",
]

ENGINE_VERSION = 1
"""Part of every id: bumped when the same payload would give other numbers."""

JobKind = Literal["pretrain", "weights", "tuning", "trial", "diagnosis"]

NOT_MEASURED: frozenset[JobKind] = frozenset({"pretrain", "weights"})
"""The kinds of jobs that give a source network: they have no records."""


class DatasetFacts(NamedTuple):
    """What a plan needs to know of a decoded dataset.

    ``joins_copies``: groups of its training images that have an equal image are held out together.
    """

    fingerprint: str
    classes: int
    task: str
    metric: str
    train_size: int
    test_size: int
    joins_copies: bool = False


@dataclass(frozen=True)
class Entry:
    """What a suite compares: a backbone with its weights (None: pre-trained by the suite)."""

    name: str
    backbone: dict[str, Any]
    license: str
    source: str
    weights: Weights | None = None
    preprocessing: Preprocessing | None = None


class Work(NamedTuple):
    """How much a job computes, in images: forward and backward, and forward alone."""

    trained: float
    evaluated: float


class Job(NamedTuple):
    """One node of the plan. ``payload`` is all that can move its numbers; its hash is ``id``."""

    id: str
    kind: JobKind
    payload: dict[str, Any]
    requires: tuple[str, ...]
    title: str
    work: Work


class TrialCell(NamedTuple):
    """A cell of the suite's grid, and the trial that fills it."""

    job: str
    entry: str
    target: str
    perturbation: str
    initialization: str
    replicate: int

    @property
    def axes(self) -> dict[str, Any]:
        """The coordinates of the cell, as records name them."""
        return {name: value for name, value in self._asdict().items() if name != "job"}

    @property
    def arm_key(self) -> tuple[str, str, str, str]:
        """What the replicates of the cell have in common."""
        return self.entry, self.target, self.perturbation, self.initialization


class DiagnosisCell(NamedTuple):
    """A diagnosis of one cell, or of two, under its label in the suite.

    ``network``: which of several source networks its trials start from.
    """

    job: str
    diagnostic: str
    a: TrialCell
    b: TrialCell | None
    network: int | None = None

    @property
    def axes(self) -> dict[str, Any]:
        """The coordinates of ``a``, the label, the network, and the arm and replicate of ``b``."""
        axes = self.a.axes | {"diagnostic": self.diagnostic, "network": self.network}
        if self.b:
            axes["other_initialization"] = self.b.initialization
            axes["other_replicate"] = self.b.replicate
        return axes


@dataclass
class Plan:
    """The graph of jobs; shared work is in it once, however many cells need it.

    ``left_out``: for each entry the arms that it goes without, each with what it needs instead.
    ``unmeasured``: for each entry the diagnoses of its source network that are not made, and why.
    ``networks``: for each entry the arms whose replicates start from several networks, and how
    many; the source network is one of them. ``single_source``: those whose replicates all
    start from one.
    ``tuned``: the trainings that learning rates are chosen from, by entry, target and arm.
    """

    suite: Suite
    entries: tuple[Entry, ...]
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unmeasured: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    single_source: Mapping[str, frozenset[str]] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    tuned: list[TrialCell] = field(default_factory=list)
    cells: list[TrialCell] = field(default_factory=list)
    measured: list[DiagnosisCell] = field(default_factory=list)

    def of_kind(self, kind: JobKind) -> list[Job]:
        """The jobs of one kind, in the order they were planned."""
        return [job for job in self.jobs.values() if job.kind == kind]

    def measurements(self) -> list[DiagnosisCell]:
        """What has records: tuning, the trials themselves, then the diagnoses."""
        trainings = [
            DiagnosisCell(
                cell.job, label, cell, None,
                self.network_of(cell.entry, [cell.initialization], cell.replicate),
            )
            for label, cells in ((TUNING, self.tuned), (TRIAL, self.cells))
            for cell in cells
        ]  # fmt: skip
        return trainings + self.measured

    def jobs_of(self, entry: str) -> set[str]:
        """The ids of the jobs of an entry, with those that they require."""
        ids = {cell.job for cell in (*self.tuned, *self.cells) if cell.entry == entry}
        ids |= {diagnosis.job for diagnosis in self.measured if diagnosis.a.entry == entry}
        return ids | {need for job in ids for need in self.jobs[job].requires}

    def networks_of(self, entry: str, arms: Iterable[str]) -> int:
        """From how many networks replicates of ``arms`` start: k from network k % their number."""
        several = self.networks.get(entry, {})
        return max((several.get(arm, 1) for arm in arms), default=1)

    def network_of(self, entry: str, arms: Iterable[str], replicate: int) -> int | None:
        """Which of several networks a replicate of ``arms`` starts from; None without several."""
        networks = self.networks_of(entry, arms)
        return replicate % networks if networks > 1 else None


def job_id(kind: str, payload: Mapping[str, Any]) -> str:
    """The id of a job: the sha256 of the canonical JSON of its kind and payload."""
    return digest({"kind": kind, "payload": dict(payload)})
