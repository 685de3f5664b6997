"""An adversary who changes one value of a real submission and seals it again, from a seed."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade_run import sealed

from transferbench.plan import plan_resolved
from transferbench.plan.resolve import resolve_suite
from transferbench.plan.tuning import BEST_METRIC, TRAINED
from transferbench.records import Record, read_records, write_records
from transferbench.registry import Registry, load_registry
from transferbench.submission import check, integrity
from transferbench.submission.bundle import read_bundle
from transferbench.submission.predictions import read_predictions, write_predictions
from transferbench.suite import TUNING, Suite
from transferbench.suite.published import KnownSuites

LEADERBOARD = Path(__file__).parents[1] / "leaderboard"
(HONEST,) = LEADERBOARD.glob("submissions/quickstart@2/fixup-resnet8/*")
SUITES = KnownSuites(LEADERBOARD / "suites")
REPORTED_FACTS = {"parameters"}
"""Facts of an entry that the column of reported values names."""

Change = Callable[[Path, random.Random], str | None]
"""Changes a submission in place; returns the value if it is only reported, None if it follows."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def _other(value: Any, draw: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + draw.choice((1, 7, 10**6, -1))
    if isinstance(value, float):
        return draw.choice((value + 0.01, value * 2 + 0.001, -value - 0.01, 123.0, value - 0.002))
    return draw.choice(("other", "=1+1", "<b>", "reproduced"))


def record_value(folder: Path, draw: random.Random) -> str | None:
    path = folder / "records.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    at = draw.randrange(len(lines))
    row = json.loads(lines[at])
    field = draw.choice([name for name in ("value", "value", "n", "unit") if name in row])
    row[field] = _other(row[field], draw)
    lines[at] = json.dumps(row)
    path.write_bytes(gzip.compress("\n".join(lines).encode() + b"\n"))
    return f"{row['diagnostic']} {row['metric']}" if field in {"value", "n"} else None


def verdict_field(folder: Path, draw: random.Random) -> None:
    path = folder / "claims.json"
    verdicts = json.loads(path.read_text())
    verdict = draw.choice(verdicts)
    field = draw.choice([name for name, value in verdict.items() if value not in (None, [], "")])
    verdict[field] = {
        "verdict": draw.choice([v for v in ("reproduced", "contradicted", "undecided")
                                if v != verdict["verdict"]]),
        "relation": "within",
        "flags": ["fine"],
    }.get(field) or _other(verdict[field], draw)  # fmt: skip
    path.write_text(json.dumps(verdicts))


def predicted_class(folder: Path, draw: random.Random) -> None:
    """One right answer is wrong, or one that was wrong is right."""
    path = folder / "predictions.parquet"
    trials = read_predictions(path)
    job = draw.choice(sorted(trials))
    outputs, labels = np.copy(trials[job].outputs), trials[job].labels
    at = draw.randrange(len(outputs))
    outputs[at] = labels[at] if outputs[at] != labels[at] else (labels[at] + 1) % 10
    write_predictions({**trials, job: trials[job]._replace(outputs=outputs)}, path)


def true_label(folder: Path, draw: random.Random) -> None:
    _edit(folder, draw, "labels", lambda value: (value + 1) % 10)


def test_item(folder: Path, draw: random.Random) -> None:
    _edit(folder, draw, "items", lambda value: value + 10_000)


test_item.__test__ = False  # type: ignore[attr-defined]  # a change, not a test


def _edit(folder: Path, draw: random.Random, name: str, change: Callable[[Any], Any]) -> None:
    path = folder / "predictions.parquet"
    trials = read_predictions(path)
    job = draw.choice(sorted(trials))
    array = np.copy(getattr(trials[job], name))
    at = draw.randrange(len(array))
    array[at] = change(array[at])
    write_predictions({**trials, job: trials[job]._replace(**{name: array})}, path)


def head_field(folder: Path, draw: random.Random) -> str | None:
    path = folder / "submission.json"
    head = json.loads(path.read_text())
    kind = draw.choice(("parameters", "severity", "suite", "outputs"))
    if kind == "parameters":
        head["entry"]["parameters"] += draw.choice((1, 10**6))
    elif kind == "severity":
        label = draw.choice(sorted(head["severities"]))
        head["severities"][label] += 1.0
    elif kind == "suite":
        head["suite"] = "quickstart@2.7"
    else:  # two networks that are said to be equal
        first, second = draw.sample(sorted(head["outputs"]), 2)
        head["outputs"][first] = head["outputs"][second]
    path.write_text(json.dumps(head))
    return kind if kind in REPORTED_FACTS else None


def plan_field(folder: Path, draw: random.Random) -> None:
    path = folder / "plan.json"
    plan = json.loads(path.read_text())
    scoring = plan["suite"]["scoring"]
    table = draw.choice(("chance", "reference"))
    label = draw.choice(sorted(scoring[table]))
    scoring[table][label] = round(draw.random(), 3)
    path.write_text(json.dumps(plan))


CHANGES: tuple[Change, ...] = (
    record_value, record_value, record_value, verdict_field, verdict_field, predicted_class,
    true_label, test_item, head_field, plan_field,
)  # fmt: skip


def refused_or_reported(seed: int, folder: Path, registry: Registry) -> str:
    """How one change ends: ``refused``, ``reported``, or what is wrong."""
    target = folder.joinpath("submissions", *HONEST.parts[-3:])
    shutil.copytree(HONEST, target)
    draw = random.Random(seed)  # equal for equal seeds
    reported = draw.choice(CHANGES)(target, draw)
    report = check(sealed(target), registry, SUITES)
    shutil.rmtree(folder / "submissions")
    if not report.ok:
        return "refused"
    assert report.origins is not None
    if reported in REPORTED_FACTS:
        return "reported"
    if reported is not None and report.origins.of(*reported.split(" ")) == "reported":
        return "reported"
    return f"seed {seed}: {reported} is accepted as if it followed"


def replanned(
    folder: Path,
    registry: Registry,
    suite: dict[str, Any],
    engine: int,
    facts: dict[str, Any],
) -> None:
    """Another plan of the same suite, with its ids in every file, as of a run of it."""
    bundle = read_bundle(folder)
    before = integrity.planned_again(bundle, registry)
    own = {label: each._replace(**facts)
           for label, each in integrity._facts_of_datasets(bundle).items()}  # fmt: skip
    other = Suite.model_validate(bundle.plan.suite.model_dump(mode="json") | suite)
    resolved = resolve_suite(other, registry, own)
    after = plan_resolved(resolved, before.entries, own, engine)
    ids = dict(zip(before.jobs, after.jobs, strict=True))
    plan = json.loads((folder / "plan.json").read_text())
    fields = ("id", "kind", "payload", "requires")
    plan["jobs"] = [{name: getattr(job, name) for name in fields} for job in after.jobs.values()]
    (folder / "plan.json").write_text(json.dumps(plan))
    rows = [row.model_copy(update={
        "job": ids[row.job], "subjects": tuple(ids[job] for job in row.subjects),
        "diagnostic_version": row.diagnostic_version if row.job != row.subjects[0] else engine,
    }) for row in bundle.records]  # fmt: skip
    write_records(rows, folder / "records.jsonl.gz")
    trials = {ids[job]: trial for job, trial in bundle.predictions.items()}
    write_predictions(trials, folder / "predictions.parquet")
    head = json.loads((folder / "submission.json").read_text())
    head["outputs"] = {ids[job]: sha for job, sha in head["outputs"].items()}
    (folder / "submission.json").write_text(json.dumps(head))


def _of_more_epochs() -> dict[str, Any]:
    suite = read_bundle(HONEST).plan.suite
    recipes = suite.model_dump(mode="json")["recipes"]
    source = next(iter(suite.sources.values())).recipe
    return {"recipes": recipes | {source: recipes[source] | {"epochs": 300}}}


@pytest.mark.parametrize(
    ("epochs", "engine", "facts", "accepted"),
    [
        (False, 1, {}, True),
        (False, 99, {}, True),  # another version, and nothing else
        (True, 1, {}, False),
        (True, 99, {}, False),
        (False, 1, {"metric": "balanced-accuracy"}, False),
        (False, 1, {"joins_copies": True}, False),
    ],
)
def test_a_plan_of_something_else_is_refused(
    tmp_path: Path,
    registry: Registry,
    epochs: bool,
    engine: int,
    facts: dict[str, Any],
    accepted: bool,
) -> None:
    target = tmp_path.joinpath("submissions", *HONEST.parts[-3:])
    shutil.copytree(HONEST, target)
    replanned(target, registry, _of_more_epochs() if epochs else {}, engine, facts)
    report = check(sealed(target), registry, SUITES)
    failed = [each.name for each in report.checks if each.status == "failed"]
    assert ("plan can be made again" not in failed) is accepted
    assert report.ok is accepted


def _tuned(row: Record, metric: str) -> bool:
    return (row.diagnostic, row.metric) == (TUNING, metric)


@pytest.mark.parametrize(
    ("is_meant", "update", "why"),
    [
        (lambda row: _tuned(row, TRAINED), {"value": 1e308, "unit": "1"}, "not 0 to 1.09951e+12"),
        (lambda row: _tuned(row, TRAINED), {"value": -1e9}, "not 0 to 1.09951e+12 images"),
        (lambda row: _tuned(row, BEST_METRIC), {"unit": "1"}, "not 0 to 1 fraction"),
        (lambda row: _tuned(row, TRAINED), {"metric": "cost"}, "is not what tuning measures"),
        (lambda row: row.metric == "n_train", {"value": 400.0}, "not 1 to 200 images"),
        (lambda row: row.metric == "n_train", {"value": 0.5}, "not 1 to 200 images"),
        (lambda row: row.diagnostic == "agreement", {"diagnostic_version": 7}, "another version"),
    ],
)  # fmt: skip
def test_what_a_record_says_beside_its_value_follows(
    tmp_path: Path,
    registry: Registry,
    is_meant: Callable[[Record], bool],
    update: dict[str, Any],
    why: str,
) -> None:
    target = tmp_path.joinpath("submissions", *HONEST.parts[-3:])
    shutil.copytree(HONEST, target)
    path = target / "records.jsonl.gz"
    rows = [row.model_copy(update=update) if is_meant(row) else row for row in read_records(path)]
    write_records(rows, path)
    assert why in str(check(sealed(target), registry, SUITES))


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_value_is_refused_or_reported(
    tmp_path: Path, registry: Registry, seed: int
) -> None:
    assert refused_or_reported(seed, tmp_path, registry) in {"refused", "reported"}


@pytest.mark.slow
def test_of_200_changes_none_passes_as_recomputed(tmp_path: Path, registry: Registry) -> None:
    ends = [refused_or_reported(seed, tmp_path, registry) for seed in range(200)]
    assert set(ends) <= {"refused", "reported"}, [end for end in ends if end.startswith("seed")]
    assert ends.count("refused") > 100
