"""What a submission scored, in the formats of other places.

``hf-eval-results``: a file for ``.eval_results/`` of a model's repository on the Hugging Face Hub
(https://huggingface.co/docs/hub/eval-results). ``every-eval-ever``: a record of schema 0.2.1 of
Every Eval Ever (https://github.com/evaleval/every_eval_ever). ``badge``: a picture for a README.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from html import escape
from importlib.metadata import version
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from transferbench.errors import SubmissionError
from transferbench.leaderboard.build import judged_board
from transferbench.leaderboard.scores import Candidate
from transferbench.leaderboard.table import BoardTable, Row
from transferbench.registry import Registry
from transferbench.submission import CheckReport
from transferbench.submission.withdrawal import withdrawals_beside
from transferbench.suite import TRIAL

__all__ = ["FORMATS", "Destination", "exported"]

FORMATS = ("hf-eval-results", "every-eval-ever", "badge")
SCHEMA_VERSION = "0.2.1"
"""Of Every Eval Ever."""
CONFIDENCE = 0.95


class Destination(NamedTuple):
    """Where a result goes, which a submission does not say.

    ``model``: the model's id on the Hub, or any other. ``benchmark``: the id of the Hub's dataset
    that is registered as the benchmark. ``url``: a page with the result.
    """

    model: str | None = None
    benchmark: str | None = None
    url: str | None = None


class _Result(NamedTuple):
    """The score of one row of a board; ``arm``: of one that ranks initializations.

    ``covers``: what its interval is over; ``n``: how many, source networks where there are several.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    covers: str
    arm: str | None


def exported(report: CheckReport, registry: Registry, form: str, destination: Destination) -> str:
    """The text of the file in one of FORMATS.

    Raises: ``SubmissionError`` where the submission is refused, is of no known suite, was withdrawn
    or lacks its score; or where the format needs more of the destination.
    """
    if not (report.ok and report.is_of_known_suite):
        raise SubmissionError(
            f"{report.path} is refused, or of no known suite; see 'transferbench submission check'"
        )
    head = report.content.submission
    if withdrawal := withdrawals_beside(report.path.absolute().parents[2]).get(head.id):
        raise SubmissionError(f"{report.path} was withdrawn {withdrawal.text}")
    table, competition = judged_board(head.board, [report], registry, {})
    if competition is None or not table.rows:
        raise SubmissionError(f"{report.path} has no score: {table.unranked[0].why}")
    (candidate,) = competition.candidates
    results = [_result(row, candidate) for row in table.rows]
    if form == "hf-eval-results":
        return _hugging_face(report, results, destination)
    if form == "every-eval-ever":
        return _every_eval_ever(report, candidate, results, destination)
    if form == "badge":
        return _badge(table, results)
    raise SubmissionError(f"there is no format {form!r}, only {', '.join(FORMATS)}")


def _result(row: Row, candidate: Candidate) -> _Result:
    value, low, high = (_number(cell) for cell in row.cells["score"])
    n, covers = row.cells["replicates"][0], str(row.cells["covers"][0])
    if value is None or not isinstance(n, int):
        raise SubmissionError("its score has no value")
    arm = str(row.cells["initialization"][0]) if "initialization" in row.cells else None
    scoring = candidate.suite.scoring
    networks = candidate.networks(TRIAL, scoring.metric, arm or scoring.initialization)
    if networks == 1:
        return _Result(value, low, high, n, f"{n} {covers}", arm)
    return _Result(value, low, high, networks, covers, arm)


def _number(cell: object) -> float | None:
    return float(cell) if isinstance(cell, int | float) else None


def _hugging_face(report: CheckReport, results: list[_Result], destination: Destination) -> str:
    """YAML: a list of results."""
    if destination.benchmark is None:
        raise SubmissionError(
            "a result on the Hub belongs to a dataset that is registered there as a benchmark: "
            "give its id with --benchmark OWNER/NAME"
        )
    head = report.content.submission
    source = {"source": {"url": destination.url, "name": f"transferbench {head.suite}"}}
    entries = [
        {
            "dataset": {
                "id": destination.benchmark,
                "task_id": _task(head.board, result),
            },
            "value": result.value,
            **(source if destination.url else {}),
            "notes": f"{_interval(result)}; {report.trust}; submission {head.id[:10]}",
        }
        for result in results
    ]
    stream = io.StringIO()
    writer = YAML()
    writer.default_flow_style = False
    writer.width = 4096
    writer.dump(entries, stream)
    return stream.getvalue()


def _task(board: str, result: _Result) -> str:
    name = board.replace("@", "-")
    return f"{name}-{result.arm}" if result.arm else name


def _interval(result: _Result) -> str:
    if result.low is None or result.high is None:
        return f"score {result.value:.3f} of {result.covers}"
    return (
        f"score {result.value:.3f} [{result.low:.3f}, {result.high:.3f}], 95% over {result.covers}"
    )


def _every_eval_ever(
    report: CheckReport, candidate: Candidate, results: list[_Result], destination: Destination
) -> str:
    head, suite = candidate.head, candidate.suite
    entry, now = head.entry.label, str(int(time.time()))
    if candidate.score_ends is None:
        metric = suite.scoring.metric
        raise SubmissionError(
            f"every-eval-ever asks for the least and the largest score, and {metric} has no range; "
            "choose another format"
        )
    low, high = candidate.score_ends
    config = {
        "evaluation_description": suite.summary, "lower_is_better": False,
        "score_type": "continuous", "min_score": low, "max_score": high,
        "additional_details": {"0": "chance", "1": "the suite's reference"},
    }  # fmt: skip
    data = [use.dataset.name for use in suite.targets.values()]
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": f"{head.suite}/{destination.model or entry}/{now}",
        "retrieved_timestamp": now,
        "source_metadata": {
            "source_name": f"transferbench {head.suite}",
            "source_type": "evaluation_run",
            "source_organization_name": head.declaration.submitter or "unknown",
            "evaluator_relationship": "other",
            "additional_details": {"submission": head.id, "suite_digest": head.suite_digest,
                                   "trust": report.trust},
        },
        "eval_library": {"name": "transferbench", "version": version("transferbench")},
        "model_info": {
            "name": entry, "id": destination.model or entry,
            "additional_details": {"backbone": json.dumps(head.entry.backbone, sort_keys=True),
                                   "license": head.declaration.license or "unknown"},
        },
        "evaluation_results": [
            {
                "evaluation_name": _task(head.board, result),
                "source_data": _source(", ".join(dict.fromkeys(data)), destination),
                "metric_config": config,
                "score_details": {"score": result.value, **_uncertainty(result)},
            }
            for result in results
        ],
    }  # fmt: skip
    return f"{json.dumps(record, indent=2, sort_keys=True)}\n"


def _source(name: str, destination: Destination) -> dict[str, Any]:
    if destination.url:
        return {"dataset_name": name, "source_type": "url", "url": [destination.url]}
    return {"dataset_name": name, "source_type": "other"}


def _uncertainty(result: _Result) -> Mapping[str, Any]:
    if result.low is None or result.high is None:
        return {}
    interval = {"lower": result.low, "upper": result.high, "confidence_level": CONFIDENCE,
                "method": f"over {result.covers}"}  # fmt: skip
    return {"uncertainty": {"confidence_interval": interval, "num_samples": result.n}}


def _badge(table: BoardTable, results: list[_Result]) -> str:
    """A static SVG; its width follows from the number of characters."""
    best = max(results, key=lambda result: result.value)
    left = f"transferbench {table.board}"
    right = f"{best.arm}: {best.value:.2f}" if best.arm else f"score {best.value:.2f}"
    # 7 px for a character of Verdana at 11 px, on average.
    widths = [7 * len(text) + 10 for text in (left, right)]
    total, texts = sum(widths), [escape(text) for text in (left, right)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="20" role="img" '
        f'aria-label="{texts[0]}: {texts[1]}"><title>{texts[0]}: {texts[1]}</title>'
        f'<rect width="{widths[0]}" height="20" fill="#444"/>'
        f'<rect x="{widths[0]}" width="{widths[1]}" height="20" fill="#05577a"/>'
        '<g fill="#fff" font-family="Verdana,Geneva,sans-serif" font-size="11" '
        'text-anchor="middle">'
        f'<text x="{widths[0] / 2:g}" y="14">{texts[0]}</text>'
        f'<text x="{widths[0] + widths[1] / 2:g}" y="14">{texts[1]}</text></g></svg>\n'
    )
