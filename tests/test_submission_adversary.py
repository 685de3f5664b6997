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

from transferbench.registry import Registry, load_registry
from transferbench.submission import check
from transferbench.submission.predictions import read_predictions, write_predictions
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
