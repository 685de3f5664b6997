"""A finished run made by hand: real plan, store and run folder, invented networks."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from safetensors.numpy import save_file
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score, jaccard_score

from transferbench.claims import judge
from transferbench.identity import derive_seed
from transferbench.leaderboard import BoardTable, boards
from transferbench.measurements import Measurements
from transferbench.plan import DatasetFacts, Entry, Job, Plan, make_plan
from transferbench.records import Measurement, Record, read_records, write_records
from transferbench.registry import Registry, load_registry
from transferbench.runner.collect import collect
from transferbench.runner.datasets import DataReport
from transferbench.runner.options import Options
from transferbench.runner.planning import Planned
from transferbench.runner.request import RequestedEntry
from transferbench.runner.write import write_results
from transferbench.specs import Weights
from transferbench.submission import Declaration, pack
from transferbench.submission.bundle import content_digests, submission_id
from transferbench.submission.certificate import Certificate, Repeated, chosen_trials
from transferbench.submission.diagnoses import PackedTrial
from transferbench.submission.labels import labels_digest
from transferbench.suite import Suite
from transferbench_plugins.diagnostics.mistakes.agreement import AgreementParams
from transferbench_plugins.diagnostics.mistakes.agreement import recompute as recompute_agreement
from transferbench_plugins.diagnostics.training.learning_curve import LEARNING_CURVE

N = 120
CLASSES, MARKS = 5, 3

PLUGIN = textwrap.dedent(
    '''
    """Specs that a plan needs, and nothing that computes."""
    from transferbench import specs
    from transferbench.hookspecs import hookimpl
    from transferbench.records import Measurement

    ABOUT = {"version": 1, "summary": "made by hand", "source": "a test", "license": "MIT"}


    SIZE = ABOUT | {"version": 1}


    class BlurParams(specs.Params):
        strength: int = 0


    def never(*args):
        raise AssertionError("a plan builds nothing")


    @hookimpl
    def transferbench_datasets():
        made = {"load": never, "classes": never, "channels": 1, "grouping": "none"}
        return [
            specs.DatasetSpec(name="made-digits", **made, **ABOUT),
            specs.DatasetSpec(name="made-letters", **made, **ABOUT),
            specs.DatasetSpec(
                name="made-marks", task="multi-label", metric="auc", **made, **ABOUT
            ),
        ]


    @hookimpl
    def transferbench_perturbations():
        return [
            specs.PerturbationSpec(
                name="made-blur", params=BlurParams, index=never,
                severity=lambda params, shape: float(params.strength), **ABOUT,
            )
        ]


    @hookimpl
    def transferbench_backbones():
        return [
            specs.BackboneSpec(name=name, build=never, modules=never, head=never, **ABOUT)
            for name in ("made-good", "made-fair", "made-poor")
        ]


    @hookimpl
    def transferbench_initializations():
        return [
            specs.InitializationSpec(name="made-random", initialize=never, **ABOUT),
            specs.InitializationSpec(
                name="made-pretrained", initialize=never, needs={"source_weights"}, **ABOUT
            ),
            specs.InitializationSpec(
                name="made-statistics", params=BlurParams, initialize=never,
                needs={"source_weights", "images"}, **ABOUT,
            ),
        ]


    def recompute(params, trials):
        (trial,) = trials
        yield Measurement(metric="size", value=len(trial.labels), unit="items", n=len(trial.items))


    @hookimpl
    def transferbench_diagnostics():
        return [
            specs.DiagnosticSpec(
                name="made-size", measure=never, recompute=recompute, subjects="one", **SIZE
            )
        ]
    '''
)

RECIPE = {"optimizer": "sgd", "learning_rate": 0.1, "epochs": 2, "batch_size": 8}
GAIN = {"title": "speed gain", "diagnostic": "speed", "metric": "speed", "of": "gain"}
SUITE: dict[str, Any] = {
    "name": "handmade",
    "version": "1.0",
    "summary": "Invented numbers.",
    "backbones": ["made-good"],
    "image": {"size": 8, "channels": 1, "mean": [0.5], "std": [0.5]},
    "sources": {"source": {"dataset": {"name": "made-letters"}, "recipe": "P"}},
    "targets": {
        "digits": {"dataset": {"name": "made-digits"}},
        "marks": {"dataset": {"name": "made-marks"}},
        "shuffled": {"dataset": {"name": "made-digits"}, "shuffle_labels": True},
    },
    "perturbations": {
        "none": {"name": "made-blur"},
        "blur-2": {"name": "made-blur", "params": {"strength": 2}},
        "blur-9": {"name": "made-blur", "params": {"strength": 9}},
    },
    "recipes": {"P": RECIPE, "P-T": RECIPE | {"tuned_over": 6}, "RI-T": RECIPE},
    "initializations": {
        "P-T": {"name": "made-pretrained", "recipe": "P-T"},
        "RI-T": {"name": "made-random", "recipe": "RI-T"},
    },
    "replicates": 3,
    "trials": [
        {"targets": ["digits", "marks"]},
        {"targets": ["shuffled"], "perturbations": ["none"]},
    ],
    "diagnostics": {
        "speed": {
            "name": "speed",
            "on": {"targets": ["digits", "marks"], "perturbations": ["none", "blur-9"]},
        },
        "curve": {"name": "learning-curve", "on": {"targets": ["digits"]}},
        "size": {"name": "made-size", "on": {"targets": ["digits"], "perturbations": ["none"]}},
        "mistakes": {
            "name": "agreement",
            "pairs": [{"a": "P-T", "b": "RI-T", "replicates": "same"}],
            "on": {"targets": ["digits"], "perturbations": ["none"]},
        },
    },
    "claims": {
        "helps": {
            "statement": "Pre-training helps.",
            "terms": [
                {"diagnostic": "trial", "metric": "test_metric", "initialization": "P-T",
                 "target": "digits", "perturbation": "none"},
                {"diagnostic": "trial", "metric": "test_metric", "initialization": "RI-T",
                 "target": "digits", "perturbation": "none", "weight": -1.0},
            ],
            "relation": "above",
        },
    },
    "scoring": {
        "initialization": "P-T",
        "baseline": "RI-T",
        "perturbation": "none",
        "chance": {"digits": 0.2, "marks": 0.5},
        "reference": {"digits": 0.9, "marks": 0.95},
        "columns": [
            {**GAIN, "key": "speed_gain", "help": "speed of P-T minus RI-T, a fraction"},
            {**GAIN, "key": "severe_speed_gain", "under": "most-severe", "help": "speed gain"},
        ],
    },
}  # fmt: skip

ARM_SKILL = {"P-T": 1.0, "half": 0.8}
"""How much of a backbone's skill an arm keeps; others, as RI-T, 0.6."""
ARM_SPEED = {
    "P-T": (0.8, 0.79, 0.78),
    "RI-T": (0.702, 0.688, 0.68),
    "half": (0.74, 0.72, 0.71),
    "bare": (0.71, 0.69, 0.65),
}
"""The speed of an arm in each replicate."""

SKILL = {"made-good": 3.0, "made-fair": 2.9, "made-poor": 1.0}
FACTS = {
    "source:source": DatasetFacts("a" * 64, CLASSES, "multi-class", "accuracy", 500, N),
    "source:other": DatasetFacts("d" * 64, CLASSES, "multi-class", "accuracy", 500, N),
    "target:digits": DatasetFacts("b" * 64, CLASSES, "multi-class", "accuracy", 500, N),
    "target:marks": DatasetFacts("c" * 64, MARKS, "multi-label", "auc", 500, N),
    "target:shuffled": DatasetFacts("b" * 64, CLASSES, "multi-class", "accuracy", 500, N),
}


class PlainStore:
    """A store as far as a run's folder reads it; it waits for no disk and checks nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.datasets = root / "datasets"

    def open(self, job: str) -> PlainArtefact | None:
        return self.artefact(job) if (self.root / job).is_dir() else None

    def damage(self, job: str) -> str:  # noqa: ARG002  # as the store has it
        return ""

    def artefact(self, job: str) -> PlainArtefact:
        return PlainArtefact(self.root / job)


class PlainArtefact:
    """A folder of files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = {"host": "a-secret-name", "device": "cpu"}

    def path(self, name: str) -> Path:
        return self.folder / name

    def json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text())


def handmade_registry(folder: Path) -> Registry:
    """The real registry with the plugin above, as a loose file."""
    file = folder / "made.py"
    file.write_text(PLUGIN)
    return load_registry([file])


def entry_of(name: str, weights: str | None = None) -> Entry:
    """A made-up backbone with the suite's weights, or with external ones."""
    external = weights and Weights(
        tag=weights, origin="afar", license="CC-BY-4.0", pretrained_on="everything"
    )
    backbone = {"name": name, "version": 1, "params": {}}
    label = f"{name}+{weights}" if weights else name
    return Entry(label, backbone, "MIT", "a test", external or None)


TrialOutputs: TypeAlias = Callable[[Job, Any], tuple[np.ndarray, np.ndarray]]
"""The labels and logits of a trial, from its job and its cell."""


def make_run(
    folder: Path,
    registry: Registry,
    entries: tuple[Entry, ...] = (entry_of("made-good"),),
    suite: Suite | None = None,
    changed: tuple[str, ...] = (),
    outputs: TrialOutputs | None = None,
) -> PlainStore:
    """Write ``folder/run`` as the runner does; returns the store its numbers came from."""
    outputs = outputs or trial_outputs
    suite = suite or Suite.model_validate(SUITE)
    store = PlainStore(folder / "store")
    plan = make_plan(suite, entries, registry, FACTS)
    trained: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    cells = {cell.job: cell for cell in plan.cells}
    for job in plan.jobs.values():
        artefact = store.root / job.id
        artefact.mkdir(parents=True)
        if job.kind == "diagnosis":
            measured = _diagnosis(job, plan, trained)
        else:
            labels, logits = outputs(job, cells[job.id]) if job.kind == "trial" else _source()
            trained[job.id] = labels, logits
            measured = _trial(labels, logits)
            tensors = {"logits": logits, "labels": labels, "items": np.arange(0, 3 * N, 3)}
            save_file(tensors, artefact / "outputs.safetensors")
            (artefact / "trial.json").write_text('{"parameters": 12345}')
        dumped = [measurement.model_dump(mode="json") for measurement in measured]
        (artefact / "measurements.json").write_text(json.dumps(dumped))
    write_run(folder / "run", plan, registry, store, changed)
    return store


class BuiltBoards(NamedTuple):
    """Packed submissions, and the folder of the boards built from them."""

    registry: Registry
    submissions: Path
    out: Path


def submit(
    folder: Path,
    registry: Registry,
    submissions: Path,
    entries: Sequence[Entry] = (entry_of("made-good"),),
    suite: Mapping[str, Any] = SUITE,
    declaration: Declaration = Declaration(),  # noqa: B008  # frozen
    outputs: TrialOutputs | None = None,
) -> list[Path]:
    """Run ``entries`` in ``folder`` and pack each; the suite is a known one of the boards."""
    parsed = Suite.model_validate(suite)
    publish(parsed, submissions)
    store = make_run(folder, registry, tuple(entries), parsed, outputs=outputs)
    return [
        pack(folder / "run", store, entry.name, submissions, declaration, registry)
        for entry in entries
    ]


def publish(suite: Suite, submissions: Path) -> None:
    """Make ``suite`` one that boards of these submissions may be of."""
    file = submissions.parent / "suites" / f"{suite.id}.yaml"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(suite.model_dump(mode="json")))
        pin_labels(file.parent, suite.board)


def pin_labels(folder: Path, board: str) -> None:
    """Pin the labels of the invented targets."""
    items = np.arange(0, 3 * N, 3)
    with (folder / "TEST_LABELS").open("a") as stream:
        for target in ("digits", "marks", "shuffled"):
            labels = _labels(multi_label=target == "marks")
            data = FACTS[f"target:{target}"].fingerprint
            stream.write(f"{board} {target} {data} {labels_digest(items, labels)}\n")
    with (folder / "OVERLAPS").open("a") as stream:
        for target in ("digits", "marks", "shuffled"):
            for source in ("source", "other"):
                data = (FACTS[f"{kind}"].fingerprint
                        for kind in (f"target:{target}", f"source:{source}"))  # fmt: skip
                stream.write(f"{board} {target} {' '.join(data)} no\n")


def copied_submissions(submissions: Path, to: Path) -> Path:
    """A copy of submissions with their suites beside them."""
    shutil.copytree(submissions.parent / "suites", to.parent / "suites", dirs_exist_ok=True)
    return Path(shutil.copytree(submissions, to))


def certify(folder: Path, by: str, **changes: Any) -> Path:
    """A certificate of one trial of the submission in ``folder``, as if trained again."""
    head = json.loads((folder / "submission.json").read_text())
    rows = {row.job: row for row in read_records(folder / "records.jsonl.gz")
            if (row.diagnostic, row.metric) == ("trial", "test_metric")}  # fmt: skip
    row = rows[chosen_trials(rows, 1, seed=1)[0]]
    trial = Repeated(
        job=row.job, target=row.target, perturbation=row.perturbation,
        initialization=row.initialization, replicate=row.replicate, submitted=row.value,
        again=row.value, equal_predictions=1.0, same_bits=False,
    )  # fmt: skip
    facts = {"submission": head["id"], "suite": head["suite"], "entry": head["entry"]["name"],
             "suite_digest": head["suite_digest"], "by": by, "date": "2026-11-28", "seed": 1,
             "tolerance": 0.03, "trials": (trial,), "environment": {}} | changes  # fmt: skip
    certificate = Certificate(**facts)
    path = folder.parents[2].parent / "certificates" / head["id"] / f"{certificate.id[:16]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(certificate.model_dump_json())
    return path


def only_board(submissions: Path, registry: Registry) -> BoardTable:
    (board,) = boards(submissions, registry)
    return board


def recorded_values(
    submissions: Path, entry: str, metric: str, arm: str, perturbation: str = "none"
) -> np.ndarray:
    """(target, replicate) values of digits and marks, straight from the records."""
    (path,) = submissions.glob(f"*/{entry}/*/records.jsonl.gz")
    by_cell = {
        (r.target, r.replicate): r.value
        for r in read_records(path)
        if (r.metric, r.initialization, r.perturbation) == (metric, arm, perturbation)
    }
    return np.array([[by_cell[target, k] for k in range(3)] for target in ("digits", "marks")])


def write_run(
    run: Path, plan: Plan, registry: Registry, store: PlainStore, changed: tuple[str, ...] = ()
) -> None:
    """The run's folder, from what the store holds."""
    run.mkdir(parents=True)
    requested = tuple(
        RequestedEntry(
            entry, entry.name, "suite", registry.origin("backbone", entry.backbone["name"])
        )
        for entry in plan.entries
    )
    data = DataReport(("target:digits: a note",), dict.fromkeys(plan.suite.targets, "no"))
    planned = Planned(plan, registry, Options(), changed, requested, run, store, data=data)
    collected = collect(plan, store)
    measurements = Measurements.of_records(collected.records)
    verdicts = {
        entry.name: judge(
            plan.suite,
            measurements,
            entry.name,
            plan.left_out[entry.name],
            plan.single_source[entry.name],
            collected.equal.get(entry.name),
            plan.unmeasured[entry.name],
        )
        for entry in plan.entries
    }
    write_results(planned, collected, verdicts)


def _origin(entry: Entry, registry: Registry) -> str:
    return registry.origin("backbone", entry.backbone["name"])


def edit_records(folder: Path, change: Callable[[list[Record]], list[Record]]) -> None:
    """Of a submission, or of a run."""
    packed, plain = folder / "records.jsonl.gz", folder / "records.jsonl"
    path = packed if packed.exists() else plain
    write_records(change(list(read_records(path))), path)
    if path == plain:  # and as a run that never measured the rest
        described = json.loads((folder / "run.json").read_text())
        for job in described["jobs"]:
            job["records"] = None
        (folder / "run.json").write_text(json.dumps(described))


def sealed(folder: Path) -> Path:
    """Give changed content new digests, a new id and a new folder, as a forger would."""
    path = folder / "submission.json"
    head = json.loads(path.read_text())
    head["files"] = content_digests(folder)
    head["id"] = submission_id(head)
    path.write_text(json.dumps(head))
    return folder.rename(folder.with_name(head["id"]))


def _labels(multi_label: bool) -> np.ndarray:
    rng = np.random.default_rng(7)
    if multi_label:
        return (rng.random((N, MARKS)) < 0.4).astype(np.float32)
    return rng.integers(0, CLASSES, N)


def trial_outputs(job: Job, cell: Any) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are better for pre-trained networks and worse under perturbation."""
    rng = np.random.default_rng(derive_seed("handmade", {"job": job.id}))
    multi_label = job.payload["dataset"]["task"] == "multi-label"
    labels = _labels(multi_label)
    skill = SKILL[job.payload["backbone"]["name"]] * ARM_SKILL.get(cell.initialization, 0.6)
    skill *= {"none": 1.0, "blur-2": 0.7, "blur-9": 0.3}[cell.perturbation]
    skill *= 0.0 if job.payload["shuffle_labels"] else 1.0
    signal = labels if multi_label else np.eye(CLASSES)[labels]
    return labels, (signal * skill + rng.normal(size=signal.shape)).astype(np.float32)


def _source() -> tuple[np.ndarray, np.ndarray]:
    labels = _labels(multi_label=False)
    return labels, np.eye(CLASSES, dtype=np.float32)[labels]


def _trial(labels: np.ndarray, logits: np.ndarray) -> list[Measurement]:
    value: float | None = None
    if not np.isfinite(logits).all():
        pass
    elif labels.ndim == 1:
        value = float((labels == logits.argmax(axis=1)).mean())
    else:
        value = float(np.mean([_auc(labels[:, k] > 0, logits[:, k]) for k in range(MARKS)]))
    return [
        _share("test_metric", value, labels),
        Measurement(metric="test_loss", value=None, unit="nats", n=N, flag="not computed"),
        _share("train_metric", 1.0, labels),
        Measurement(metric="train_loss", value=None, unit="nats", n=N, flag="not computed"),
        _share("best_test_metric", value, labels),
        Measurement(metric="best_epoch", value=2.0, unit="epochs", n=1),
        Measurement(metric="n_train", value=float(N), unit="images", n=1),
    ]


def _share(metric: str, value: float | None, labels: np.ndarray) -> Measurement:
    """With the interval of an accuracy, by scipy."""
    if value is None:
        return Measurement(metric=metric, value=None, unit="fraction", n=N, flag="NaN")
    bounds = {}
    if labels.ndim == 1:
        low, high = _exact(round(value * N))
        bounds = {"low": low, "high": high, "interval": "exact-95"}
    return Measurement(metric=metric, value=value, unit="fraction", n=N, **bounds)


@cache
def _exact(right: int) -> tuple[float, float]:
    interval = binomtest(right, N).proportion_ci(method="exact")
    return interval.low, interval.high


def _auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """The share of (positive, negative) pairs in the right order, counted pair by pair."""
    differences = scores[positive][:, None] - scores[~positive][None, :]
    return float((differences > 0).mean() + (differences == 0).mean() / 2)


def _diagnosis(
    job: Job, plan: Plan, trained: dict[str, tuple[np.ndarray, np.ndarray]]
) -> list[Measurement]:
    name = job.payload["diagnostic"]["name"]
    if name == "made-size":
        return [Measurement(metric="size", value=N, unit="items", n=N)]
    if name in {"speed", "learning-curve"}:
        cell = next(m.a for m in plan.measured if m.job == job.id)
        value = ARM_SPEED[cell.initialization][cell.replicate]
        if name == "speed":
            return [Measurement(metric="speed", value=value, unit="fraction", n=2)]
        return [*_points(value), *(_curve(job, trained, value))]
    wrong = [labels != logits.argmax(axis=1)
             for labels, logits in (trained[s] for s in job.payload["subjects"])]  # fmt: skip
    kappa = cohen_kappa_score(*wrong)
    own = [
        Measurement(metric="kappa", value=kappa, unit="kappa", n=N),
        Measurement(metric="error_jaccard", value=jaccard_score(*wrong), unit="fraction",
                    n=int((wrong[0] | wrong[1]).sum())),
    ]  # fmt: skip
    others = recompute_agreement(AgreementParams(), packed(job, trained))
    return [
        *own,
        *(m for m in others if m.metric not in {"kappa", "error_jaccard"}),
        Measurement(metric="error_share", value=0.5, unit="fraction", n=9,
                    coordinates={"class": 1}),
    ]  # fmt: skip


def _points(value: float) -> list[Measurement]:
    """The train metric after both epochs, whose mean is ``value``."""
    return [
        Measurement(metric="train_metric", value=at_epoch, unit="fraction", n=1,
                    coordinates={"epoch": epoch})
        for epoch, at_epoch in ((1, 2 * value - 1), (2, 1.0))
    ]  # fmt: skip


def _curve(job: Job, trained: dict[str, Any], value: float) -> list[Measurement]:
    """The summaries of a curve without test points."""
    history = ({"epoch": 1, "train_metric": 2 * value - 1}, {"epoch": 2, "train_metric": 1.0})
    return list(LEARNING_CURVE.recompute(LEARNING_CURVE.parse(job.payload["diagnostic"]["params"]),
                                         packed(job, trained, history)))  # fmt: skip


def packed(job: Job, trained: dict[str, Any], history: Any = None) -> list[PackedTrial]:
    """The subjects of a job as a submission holds them."""
    return [
        PackedTrial(subject, "multi-class", "accuracy", CLASSES, history, np.arange(0, 3 * N, 3),
                    labels, logits.argmax(axis=1))
        for subject, (labels, logits) in ((s, trained[s]) for s in job.payload["subjects"])
    ]  # fmt: skip
