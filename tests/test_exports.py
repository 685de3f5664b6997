"""Scores of submissions in the formats of other places, and how to cite the project."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from command_line import cli, mistake
from handmade_run import SUITE, handmade_registry, submit
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from transferbench.leaderboard.exports import FORMATS, Destination, exported
from transferbench.submission import check

ROOT = Path(__file__).parents[1]
(ENTRY,) = ROOT.glob("leaderboard/submissions/quickstart@3/fixup-resnet8/*")
(ARMS,) = ROOT.glob("leaderboard/submissions/initializations@1/fixup-resnet14/*")

TEXT, NUMBER = {"type": "string"}, {"type": "number"}
DETAILS = {"type": "object", "additionalProperties": TEXT}


def an_object(required: dict[str, Any], optional: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": sorted(required),
        "properties": required | optional,
        **more,
    }


EVERY_EVAL_EVER = an_object(
    {
        "schema_version": {"const": "0.2.1"},
        "evaluation_id": TEXT,
        "retrieved_timestamp": {"type": "string", "pattern": "^[0-9]+$"},
        "source_metadata": an_object(
            {
                "source_type": {"enum": ["documentation", "evaluation_run"]},
                "source_organization_name": TEXT,
                "evaluator_relationship": {
                    "enum": ["first_party", "third_party", "collaborative", "other"]
                },
            },
            {"source_name": TEXT, "additional_details": DETAILS},
        ),
        "model_info": an_object({"name": TEXT, "id": TEXT}, {"additional_details": DETAILS}),
        "eval_library": an_object({"name": TEXT, "version": TEXT}, {}),
        "evaluation_results": {
            "type": "array",
            "items": an_object(
                {
                    "evaluation_name": TEXT,
                    "source_data": {
                        "oneOf": [
                            an_object({"dataset_name": TEXT, "source_type": {"const": "other"}},
                                      {}),
                            an_object(
                                {"dataset_name": TEXT, "source_type": {"const": "url"},
                                 "url": {"type": "array", "items": TEXT, "minItems": 1}}, {},
                            ),
                        ]
                    },
                    "metric_config": an_object(
                        {"lower_is_better": {"type": "boolean"}, "min_score": NUMBER,
                         "max_score": NUMBER, "score_type": {"const": "continuous"}},
                        {"evaluation_description": TEXT, "additional_details": DETAILS},
                    ),
                    "score_details": an_object(
                        {"score": NUMBER},
                        {
                            "uncertainty": an_object(
                                {}, {
                                    "confidence_interval": an_object(
                                        {"lower": NUMBER, "upper": NUMBER},
                                        {"confidence_level": NUMBER | {"minimum": 0, "maximum": 1},
                                         "method": TEXT},
                                    ),
                                    "num_samples": {"type": "integer"},
                                },
                            )
                        },
                    ),
                },
                {},
            ),
        },
    },
    {},
    additionalProperties=False,
)  # fmt: skip
"""What version 0.2.1 of that schema demands of the fields that we write, in our own words."""


def score_of(entry: str) -> tuple[float, float, float]:
    board = json.loads((ROOT / "leaderboard" / "quickstart@3" / "board.json").read_text())
    (row,) = (row for row in board["rows"] if row["entry"] == entry)
    return row["score"], row["score_low"], row["score_high"]


def test_every_eval_ever_is_of_its_schema() -> None:
    said = cli("submission", "export", ENTRY, "--format", "every-eval-ever", "--model", "me/net",
               "--url", "https://example.org/board")  # fmt: skip
    record = json.loads(said.out)
    assert [error.message for error in Draft7Validator(EVERY_EVAL_EVER).iter_errors(record)] == []
    assert record["model_info"]["id"] == "me/net"
    (result,) = record["evaluation_results"]
    assert result["evaluation_name"] == "quickstart-3"
    score, low, high = score_of("fixup-resnet8")
    assert result["score_details"]["score"] == pytest.approx(score)
    uncertainty = result["score_details"]["uncertainty"]
    interval = uncertainty["confidence_interval"]
    assert (interval["lower"], interval["upper"]) == pytest.approx((low, high))
    assert interval["method"] == "over 5 source networks x 2 replicates"
    assert uncertainty["num_samples"] == 5
    config = result["metric_config"]
    assert config["min_score"] < 0 <= low <= high <= config["max_score"]


def test_the_least_score_follows_from_a_chance_level_that_the_data_tell(tmp_path: Path) -> None:
    registry = handmade_registry(tmp_path)
    scoring = SUITE["scoring"] | {"chance": {"digits": "data", "marks": 0.5}}
    suite = SUITE | {"scoring": scoring}
    (folder,) = submit(tmp_path / "a", registry, tmp_path / "s", suite=suite)
    report = check(folder, registry)
    text = exported(report, registry, "every-eval-ever", Destination())
    config = json.loads(text)["evaluation_results"][0]["metric_config"]
    (labels,) = {tuple(trial.labels) for trial in report.content.predictions.values()
                 if not trial.multi_label}  # fmt: skip
    chance = np.bincount(labels).max() / len(labels)
    ends = [((end - chance) / (0.9 - chance) + (end - 0.5) / (0.95 - 0.5)) / 2 for end in (0, 1)]
    assert [config["min_score"], config["max_score"]] == pytest.approx(ends)


def test_hugging_face_has_a_result_for_each_arm() -> None:
    said = cli("submission", "export", ARMS, "--format", "hf-eval-results", "--benchmark",
               "me/initializations", "--url", "https://example.org/board")  # fmt: skip
    results = YAML(typ="safe").load(said.out)
    assert len(results) > 2
    for result in results:
        assert set(result) == {"dataset", "value", "source", "notes"}
        assert result["dataset"]["id"] == "me/initializations"
        assert result["dataset"]["task_id"].startswith("initializations-1-")
        assert result["source"] == {"url": "https://example.org/board",
                                    "name": "transferbench initializations@1.0"}  # fmt: skip
        assert isinstance(result["value"], float)
        assert re.fullmatch(r"score .* \d+ replicates(, given P)?; recomputed; submission "
                            "e80dbc5af4", result["notes"])  # fmt: skip
    assert len({result["dataset"]["task_id"] for result in results}) == len(results)


def test_the_hub_needs_a_benchmark() -> None:
    message = mistake("submission", "export", ENTRY, "--format", "hf-eval-results")
    assert "give its id with --benchmark OWNER/NAME" in message


def test_a_badge_is_a_picture_of_the_score() -> None:
    said = cli("submission", "export", ENTRY, "--format", "badge")
    picture = ET.fromstring(said.out)  # noqa: S314  # our own text
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["transferbench quickstart@3", f"score {score_of('fixup-resnet8')[0]:.2f}"]


def test_another_format_is_told() -> None:
    message = mistake("submission", "export", ENTRY, "--format", "pdf")
    assert f"there is no format 'pdf', only {', '.join(FORMATS)}" in message


def test_the_citation_is_of_its_format_and_version() -> None:
    """Against the guide of the Citation File Format, 1.2.0: the fields that are required."""
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["title"] == project["name"]
    assert str(citation["version"]) == project["version"]
    assert citation["license"] == project["license"]
    assert citation["message"]
    assert all(set(author) <= {"name", "family-names", "given-names", "orcid", "website"}
               for author in citation["authors"])  # fmt: skip
    known = {"cff-version", "type", "title", "version", "license", "message", "authors", "abstract",
             "keywords", "references"}  # fmt: skip
    assert set(citation) <= known
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= set(reference)
