"""Packing an entry, and the check that catches every way of changing what was packed."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import handmade_run
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade_run import (
    SUITE,
    PlainStore,
    edit_records,
    entry_of,
    handmade_registry,
    make_run,
    publish,
    sealed,
    trial_outputs,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import save_file
from sklearn.metrics import accuracy_score, cohen_kappa_score, jaccard_score, roc_auc_score

from transferbench.claims import judge_by_jackknife
from transferbench.errors import SubmissionError
from transferbench.identity import digest, file_digest
from transferbench.measurements import Measurements
from transferbench.plan.jobs import Job, Work
from transferbench.records import Record, read_records
from transferbench.registry import Registry, load_registry
from transferbench.submission import CheckReport, Declaration, check, pack, predictions
from transferbench.submission import verdicts as verdicts_module
from transferbench.submission.bundle import (
    MAX_BYTES,
    OPTIONAL,
    EntryFacts,
    Problem,
    read_bundle,
    slug,
)
from transferbench.submission.check import _check
from transferbench.submission.diagnoses import (
    PackedTrial,
    check_diagnoses_follow_from_trials,
    packed_trials,
    recompute_diagnoses,
)
from transferbench.submission.integrity import (
    _another_name,
    check_every_cell_is_there_once,
    check_plan_can_be_made_again,
    planned_again,
)
from transferbench.submission.predictions import (
    Predictions,
    read_outputs,
    read_predictions,
    recompute_metric,
    write_predictions,
)
from transferbench.submission.verdicts import check_verdicts_follow_from_records
from transferbench.suite import Axis, Suite
from transferbench_plugins.diagnostics.mistakes.agreement import AgreementParams
from transferbench_plugins.diagnostics.mistakes.agreement import recompute as recompute_agreement

DIAGNOSES = "diagnoses follow from their trials"

FILES = set(MAX_BYTES) - OPTIONAL
"""Of a submission whose suite has no images."""


class PackedRun(NamedTuple):
    """One finished run, and its packed entry."""

    folder: Path
    registry: Registry
    store: PlainStore
    packed: Path


@pytest.fixture(scope="module")
def packed_run(tmp_path_factory: pytest.TempPathFactory) -> PackedRun:
    folder = tmp_path_factory.mktemp("made")
    registry = handmade_registry(folder)
    store = make_run(folder, registry)
    out = folder / "submissions"
    publish(Suite.model_validate(SUITE), out)
    return PackedRun(folder, registry, store, pack_it(folder, store, out, registry))


def pack_it(folder: Path, store: PlainStore, out: Path, registry: Registry) -> Path:
    return pack(folder / "run", store, "made-good", out, Declaration(), registry)


@pytest.fixture
def copied(packed_run: PackedRun, tmp_path: Path) -> Path:
    """The packed submission in its own place, to be tampered with."""
    shutil.copytree(packed_run.folder / "suites", tmp_path / "suites")
    folder = tmp_path.joinpath("submissions", *packed_run.packed.parts[-3:])
    shutil.copytree(packed_run.packed, folder)
    return folder


def failed(report: CheckReport) -> dict[str, str]:
    return {c.name: " ".join(c.why) for c in report.checks if c.status == "failed"}


def warned(report: CheckReport) -> dict[str, str]:
    return {c.name: " ".join(c.why) for c in report.checks if c.status == "warning"}


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_predictions(
    folder: Path, change: Callable[[dict[str, Predictions]], dict[str, Predictions]]
) -> None:
    path = folder / "predictions.parquet"
    write_predictions(change(read_predictions(path)), path)


def cell(records: list[Record], **fields: Any) -> Record:
    labels = {"metric": "test_metric", "target": "digits", "perturbation": "none"} | fields
    labels = {"initialization": "P-T", "replicate": 0} | labels
    return next(r for r in records if all(getattr(r, k) == v for k, v in labels.items()))


# --- packing ----------------------------------------------------------------------------------


def test_a_packed_entry_is_accepted_and_recomputed(packed_run: PackedRun) -> None:
    report = check(packed_run.packed, packed_run.registry)
    assert not failed(report), str(report)
    assert not warned(report)
    assert report.ok
    assert report.trust == "recomputed"
    assert str(report).endswith("accepted, recomputed")
    assert re.search(r"values: \d+% recomputed, \d+% derived, \d+% reported of", str(report))


def test_labels_that_nobody_pinned_are_only_reported(copied: Path, packed_run: PackedRun) -> None:
    pins = copied.parents[3] / "suites" / "TEST_LABELS"
    lines = pins.read_text().splitlines(keepends=True)
    pins.write_text("".join(line for line in lines if " marks " not in line))
    report = check(copied, packed_run.registry)
    assert (report.ok, report.trust) == (True, "reported")
    assert warned(report)["labels are those of the dataset"].startswith("the labels of marks are n")


@pytest.mark.parametrize("shift", [0, 1])
def test_labels_that_are_changed_everywhere_are_not_those_of_the_dataset(
    packed_run: PackedRun, copied: Path, shift: int
) -> None:
    """The truth of some images, or of all, with every prediction, so that all else follows."""

    def relabel(trials: dict[str, Predictions]) -> dict[str, Predictions]:
        for job, trial in trials.items():
            if not trial.multi_label:
                change = np.ones(len(trial.labels), bool) if shift else trial.items < 60
                labels = (trial.labels + change.astype(np.int32)) % handmade_run.CLASSES
                outputs = (trial.outputs + change.astype(np.int32)) % handmade_run.CLASSES
                trials[job] = trial._replace(labels=labels, outputs=outputs)
        return trials

    edit_predictions(copied, relabel)
    problems = failed(check(sealed(copied), packed_run.registry))
    assert (
        "the labels of digits are not those of its dataset"
        in (problems["labels are those of the dataset"])
    )
    assert "metrics follow from predictions" not in problems


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("items", lambda items: items - 10**6, "items that are no positions"),
        ("items", lambda items: items + 10**12, "items that are no positions"),
        ("labels", lambda labels: labels + 10**8, "labels that are none of its 5 classes"),
        ("outputs", lambda outputs: outputs + 10**8, "labels that are none of its 5 classes"),
    ],
)
def test_items_and_classes_are_those_of_a_dataset(
    packed_run: PackedRun, copied: Path, name: str, change: Callable[[Any], Any], why: str
) -> None:
    job = cell(list(read_records(copied / "records.jsonl.gz"))).job

    def edit(trials: dict[str, Predictions]) -> dict[str, Predictions]:
        trials[job] = trials[job]._replace(**{name: change(getattr(trials[job], name))})
        return trials

    edit_predictions(copied, edit)
    assert why in failed(check(sealed(copied), packed_run.registry))["labels are classes"]


@pytest.mark.parametrize(
    ("metric", "change", "why"),
    [
        ("test_loss", {"value": -5.0, "flag": None}, "is -5.0, below 0"),
        ("test_loss", {"n": 10**15}, "is of 1000000000000000 items, not of 120"),
        ("train_metric", {"unit": "percent"}, "is in 'percent', not in 'fraction'"),
        ("train_metric", {"low": 0.0, "high": 1.0}, "has the interval 0.0 to 1.0, and its value"),
        ("best_test_metric", {"value": 0.123}, "is 0.123, no share of 120 images"),
        ("best_epoch", {"value": 7.0}, "is 7.0, which is none of 2 epochs"),
        ("best_epoch", {"metric": "other"}, "best_epoch of P-T on digits, none is missing"),
        ("n_train", {"value": 121.0}, "train_metric of P-T on digits, none is of 120 items, not"),
    ],
)
def test_what_a_trial_measures_is_whole_and_possible(
    packed_run: PackedRun, copied: Path, metric: str, change: dict[str, Any], why: str
) -> None:
    def edit(rows: list[Record]) -> list[Record]:
        at = rows.index(cell(rows, metric=metric, diagnostic="trial"))
        rows[at] = rows[at].model_copy(update=change)
        return rows

    edit_records(copied, edit)
    assert why in failed(check(sealed(copied), packed_run.registry))["trials are whole"]


def test_a_measurement_that_follows_and_is_left_out_is_found(
    packed_run: PackedRun, copied: Path
) -> None:
    edit_records(copied, lambda rows: [r for r in rows if (r.metric, r.replicate) != ("area", 1)])
    problems = failed(check(sealed(copied), packed_run.registry))[DIAGNOSES]
    assert re.match(r"area of job \w+ is missing", problems)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("effect", 123.0),
        ("low", 122.0),
        ("high", 124.0),
        ("n", 500),
        ("unit", "=cmd|' /C calc'!A0"),
        ("threshold", -1.0),
        ("statement", "Anything."),
        ("source", "elsewhere"),
        ("reason", "because"),
        ("flags", ["fine"]),
        ("covers", "everything"),
        ("interval", "exact"),
        ("control", True),
        ("relation", "below"),
    ],
)
def test_every_field_of_a_verdict_follows(
    packed_run: PackedRun, copied: Path, field: str, value: Any
) -> None:
    edit_json(copied / "claims.json", lambda rows: rows[0].update({field: value}))
    problems = list(check_verdicts_follow_from_records(read_bundle(copied), packed_run.registry))
    assert f"claim 'helps' has {field} " in problems[0].why
    assert not problems[0].warning


def test_the_folder_names_board_entry_and_id(packed_run: PackedRun) -> None:
    head = json.loads((packed_run.packed / "submission.json").read_text())
    assert packed_run.packed.parts[-3:] == ("handmade@1", "made-good", head["id"])
    assert slug("timm/resnet10t+a1_in1k") == "timm+resnet10t+a1_in1k"
    assert slug("../..") not in {"..", "../.."}


def test_the_id_is_the_digest_of_the_content(packed_run: PackedRun) -> None:
    head = json.loads((packed_run.packed / "submission.json").read_text())
    claimed = head.pop("id")
    assert digest(head) == claimed
    others = {name for name in FILES if name != "submission.json"}
    assert head["files"] == {name: file_digest(packed_run.packed / name) for name in others}


def test_packing_again_gives_the_same_folder(packed_run: PackedRun, tmp_path: Path) -> None:
    first = pack_it(packed_run.folder, packed_run.store, tmp_path, packed_run.registry)
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    assert pack_it(packed_run.folder, packed_run.store, tmp_path, packed_run.registry) == first
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    assert first.name == packed_run.packed.name


def test_a_packed_folder_that_was_changed_is_not_packed_over(
    packed_run: PackedRun, tmp_path: Path
) -> None:
    first = pack_it(packed_run.folder, packed_run.store, tmp_path, packed_run.registry)
    (first / "claims.json").write_text("[]")
    with pytest.raises(SubmissionError, match=r"was changed after it was packed.*remove"):
        pack_it(packed_run.folder, packed_run.store, tmp_path, packed_run.registry)
    assert (first / "claims.json").read_text() == "[]"


def test_only_the_entry_is_packed_and_no_host_or_store(packed_run: PackedRun) -> None:
    names = FILES - {"predictions.parquet", "records.jsonl.gz"}
    records = gzip.decompress((packed_run.packed / "records.jsonl.gz").read_bytes()).decode()
    text = records + "".join((packed_run.packed / name).read_text() for name in names)
    assert "a-secret-name" not in text
    assert str(packed_run.folder) not in text
    assert {r.entry for r in read_records(packed_run.packed / "records.jsonl.gz")} == {"made-good"}


def test_the_head_says_where_everything_came_from(packed_run: PackedRun) -> None:
    head = json.loads((packed_run.packed / "submission.json").read_text())
    assert head["plugins"]["perturbation:made-blur"] == "made.py"
    assert head["plugins"]["diagnostic:agreement"].startswith("transferbench")
    assert head["severities"] == {"none": 0.0, "blur-2": 2.0, "blur-9": 9.0}
    assert head["entry"]["parameters"] == 12345
    assert head["trust"] == "reported"
    assert head["declaration"] == {
        "submitter": None,
        "license": "MIT",
        "overlap": {"digits": "no", "marks": "no", "shuffled": "no"},
    }


def test_external_weights_leave_overlap_unknown_unless_declared(
    packed_run: PackedRun, tmp_path: Path
) -> None:
    store = make_run(tmp_path, packed_run.registry, (entry_of("made-good", "web"),))
    declared = Declaration(submitter="A. Person", overlap={"digits": "yes"})
    name = "made-good+web"
    folder = pack(tmp_path / "run", store, name, tmp_path / "out", declared, packed_run.registry)
    problems = json.loads((folder / "submission.json").read_text())["declaration"]
    assert problems["overlap"] == {"digits": "yes", "marks": "unknown", "shuffled": "unknown"}
    assert problems["license"] == "CC-BY-4.0"
    report = check(folder, packed_run.registry)
    assert not failed(report), str(report)
    assert "overlap is unknown for marks, shuffled" in str(report)


def test_overlap_is_unknown_where_the_run_did_not_compute_it(
    packed_run: PackedRun, tmp_path: Path
) -> None:
    """As in runs of earlier versions, but for a target whose data set is a source."""
    suite = json.loads(json.dumps(SUITE))
    suite["sources"]["source"]["dataset"] = {"name": "made-digits"}
    store = make_run(tmp_path, packed_run.registry, suite=Suite.model_validate(suite))
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    del described["data"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(described))
    folder = pack_it(tmp_path, store, tmp_path / "out", packed_run.registry)
    problems = json.loads((folder / "submission.json").read_text())["declaration"]
    assert problems["overlap"] == {"digits": "yes", "marks": "unknown", "shuffled": "yes"}


def test_overlap_that_the_run_computed_cannot_be_denied(
    packed_run: PackedRun, tmp_path: Path
) -> None:
    store = make_run(tmp_path, packed_run.registry)
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    described["data"]["overlap"]["marks"] = "yes"
    (tmp_path / "run" / "run.json").write_text(json.dumps(described))
    run = (tmp_path / "run", store, "made-good", tmp_path / "out")
    with pytest.raises(SubmissionError, match=r"overlap declared: marks=no, but the run compared"):
        pack(*run, Declaration(overlap={"marks": "no"}), packed_run.registry)
    folder = pack(*run, Declaration(overlap={"digits": "unknown"}), packed_run.registry)
    problems = json.loads((folder / "submission.json").read_text())["declaration"]
    assert problems["overlap"] == {"digits": "unknown", "marks": "yes", "shuffled": "no"}


def test_a_changed_suite_is_refused(packed_run: PackedRun, tmp_path: Path) -> None:
    store = make_run(tmp_path, packed_run.registry, changed=("recipes.P-T.epochs=3",))
    with pytest.raises(SubmissionError, match=r"recipes\.P-T\.epochs=3.*without --set"):
        pack_it(tmp_path, store, tmp_path / "out", packed_run.registry)
    assert not (tmp_path / "out").exists()


def test_an_unknown_entry_is_refused_with_the_nearest(
    packed_run: PackedRun, tmp_path: Path
) -> None:
    with pytest.raises(SubmissionError, match=r"no entry named 'made-goood'.*'made-good'"):
        pack(
            packed_run.folder / "run",
            packed_run.store,
            "made-goood",
            tmp_path,
            Declaration(),
            packed_run.registry,
        )


def test_an_unknown_target_of_the_declaration_is_refused(
    packed_run: PackedRun, tmp_path: Path
) -> None:
    declared = Declaration(overlap={"digit": "no"})
    with pytest.raises(SubmissionError, match=r"no target named 'digit'; did you mean 'digits'"):
        pack(
            packed_run.folder / "run",
            packed_run.store,
            "made-good",
            tmp_path,
            declared,
            packed_run.registry,
        )
    assert not list(tmp_path.iterdir())


def test_failed_jobs_are_listed(packed_run: PackedRun, tmp_path: Path) -> None:
    run = shutil.copytree(packed_run.folder / "run", tmp_path / "run")

    def fail(value: Any) -> None:
        next(job for job in value["jobs"] if job["kind"] == "trial")["status"] = "oom"

    edit_json(run / "run.json", fail)
    with pytest.raises(
        SubmissionError, match=r"(?s)not complete.*run the suite again.*: oom"
    ) as info:
        pack(
            run, packed_run.store, "made-good", tmp_path / "out", Declaration(), packed_run.registry
        )
    assert "trial" in str(info.value)


def test_missing_cells_are_listed(packed_run: PackedRun, tmp_path: Path) -> None:
    run = shutil.copytree(packed_run.folder / "run", tmp_path / "run")
    edit_records(run, lambda rows: [r for r in rows if (r.target, r.replicate) != ("marks", 2)])
    with pytest.raises(SubmissionError, match=r"P-T on marks, none, replicate 2: missing"):
        pack(
            run, packed_run.store, "made-good", tmp_path / "out", Declaration(), packed_run.registry
        )


def test_records_that_are_not_those_of_the_store_are_not_packed(
    packed_run: PackedRun, tmp_path: Path
) -> None:
    run = shutil.copytree(packed_run.folder / "run", tmp_path / "run")
    lines = (run / "records.jsonl").read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if '"metric":"kappa"' in line)
    record = json.loads(lines[at]) | {"value": 0.25}
    lines[at] = json.dumps(record) + "\n"
    (run / "records.jsonl").write_text("".join(lines))
    why = (
        rf"were changed: of job {record['job'][:12]} they are not what the store .* holds; run the"
    )
    with pytest.raises(SubmissionError, match=why):
        pack(run, packed_run.store, "made-good", tmp_path / "s", Declaration(), packed_run.registry)
    assert not (tmp_path / "s").exists()


def test_a_folder_that_is_no_run_is_refused(packed_run: PackedRun, tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=r"is not a run: it has no run\.json"):
        pack(
            tmp_path,
            packed_run.store,
            "made-good",
            tmp_path / "out",
            Declaration(),
            packed_run.registry,
        )
    (tmp_path / "run.json").write_text('{"entries": []}')
    with pytest.raises(SubmissionError, match=r"run\.json: suite: .*run the suite again"):
        pack(
            tmp_path,
            packed_run.store,
            "made-good",
            tmp_path / "out",
            Declaration(),
            packed_run.registry,
        )


def test_a_failure_while_packing_leaves_nothing(packed_run: PackedRun, tmp_path: Path) -> None:
    class Broken(PlainStore):
        def artefact(self, job: str) -> Any:
            raise OSError(job)

    with pytest.raises(OSError, match=r"[0-9a-f]{64}"):
        pack_it(
            packed_run.folder, Broken(packed_run.store.root), tmp_path / "out", packed_run.registry
        )
    assert not list(tmp_path.glob("out/*"))


# --- tampering --------------------------------------------------------------------------------


def test_a_folder_without_a_submission_is_no_submission(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=r"is not a submission: it has no submission\.json"):
        check(tmp_path)


@pytest.mark.parametrize("name", sorted(FILES))
def test_one_changed_byte_in_any_file_is_found(
    packed_run: PackedRun, copied: Path, name: str
) -> None:
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    report = check(copied, packed_run.registry)
    assert not report.ok
    assert report.trust == "reported"


@pytest.mark.parametrize("name", sorted(FILES - {"submission.json"}))
def test_a_missing_file_is_found(packed_run: PackedRun, copied: Path, name: str) -> None:
    (copied / name).unlink()
    problems = failed(check(copied, packed_run.registry))
    assert problems == {"the files are those of a submission": f"{name} is missing"}


def test_an_added_file_is_found(packed_run: PackedRun, copied: Path) -> None:
    (copied / "run.py").write_text("print()")
    assert "run.py does not belong" in str(check(copied, packed_run.registry))


@pytest.mark.parametrize("name", ["records.jsonl.gz", "submission.json"])
def test_a_link_is_refused_unread(
    packed_run: PackedRun, copied: Path, tmp_path: Path, name: str
) -> None:
    shutil.move(copied / name, tmp_path / "elsewhere")
    (copied / name).symlink_to(tmp_path / "elsewhere")
    problems = failed(check(copied, packed_run.registry))
    assert problems == {"the files are those of a submission": f"{name} is not a plain file"}


def test_a_linked_folder_is_refused(packed_run: PackedRun, copied: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(copied)
    assert "the folder is a link" in str(check(tmp_path / "link", packed_run.registry))


def test_an_oversized_file_is_refused_unread(packed_run: PackedRun, copied: Path) -> None:
    with (copied / "environment.json").open("r+b") as stream:
        stream.truncate(MAX_BYTES["environment.json"] + 1)
    assert "environment.json has 1048577 bytes, more than" in str(
        check(copied, packed_run.registry)
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "not a JSON file"),
        ('{"a": 1, "a": 2}', "duplicate key"),
        ('{"a": NaN}', "NaN is not JSON"),
        ("[]", "not a JSON object"),
    ],
)
def test_odd_json_is_refused(packed_run: PackedRun, copied: Path, text: str, why: str) -> None:
    (copied / "environment.json").write_text(text)
    report = check(copied, packed_run.registry)
    assert why in failed(report)["every file can be read"]


def test_a_reason_names_no_folder_of_this_machine(packed_run: PackedRun, copied: Path) -> None:
    (copied / "records.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))
    why = failed(check(copied, packed_run.registry))["every file can be read"]
    assert why.startswith("records.jsonl.gz:1 is not a record")


def as_version_1(folder: Path) -> Path:
    """The submission as packed before records were compressed, in the folder of its own id."""
    compressed = folder / "records.jsonl.gz"
    (folder / "records.jsonl").write_bytes(gzip.decompress(compressed.read_bytes()))
    compressed.unlink()
    edit_json(folder / "submission.json", lambda head: head.update(schema_version=1))
    return handmade_run.sealed(folder)


def test_plain_records_of_version_1_are_read(packed_run: PackedRun, copied: Path) -> None:
    old = as_version_1(copied)
    report = check(old, packed_run.registry)
    assert report.ok, str(report)
    assert read_bundle(old).records == read_bundle(packed_run.packed).records


def test_another_form_of_records_than_the_version_says_is_refused(
    packed_run: PackedRun, copied: Path
) -> None:
    old = as_version_1(copied)
    edit_json(old / "submission.json", lambda head: head.update(schema_version=2))
    why = failed(check(handmade_run.sealed(old), packed_run.registry))["every file can be read"]
    assert why == "schema version 2 has records.jsonl.gz, not records.jsonl"


def test_records_of_both_forms_are_refused(packed_run: PackedRun, copied: Path) -> None:
    (copied / "records.jsonl").write_text("")
    assert "records.jsonl does not belong" in str(check(copied, packed_run.registry))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{}", "cannot be decompressed: Error -3"),
        (gzip.compress(b"{}")[:-9], "cannot be decompressed: it ends too early"),
        (gzip.compress(b"{}")[:10] + b"\xff" * 20, "cannot be decompressed: Error -3"),
        (gzip.compress(b"") * 2, "cannot be decompressed: something stands behind its end"),
        (gzip.compress(b" " * 2_000_000), "holds more than 1000000 bytes of text"),
        (gzip.compress(b"\n" * 2_000_000), "holds more than 1000000 bytes of text"),
        (gzip.compress(b"\n" * 2000), ":1 is not a record"),
    ],
    ids=[
        "plain text",
        "cut off",
        "no deflate stream",
        "two members",
        "one long line",
        "many empty lines",
        "empty lines",
    ],
)
def test_what_is_no_compressed_text_of_records_is_refused(
    packed_run: PackedRun, copied: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, why: str
) -> None:
    monkeypatch.setattr("transferbench.submission.bundle.MAX_RECORD_BYTES", 1_000_000)
    (copied / "records.jsonl.gz").write_bytes(content)
    assert why in failed(check(copied, packed_run.registry))["every file can be read"]


def test_more_text_than_can_be_read_is_not_packed(
    packed_run: PackedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By its module's name: the package's attribute is the function.
    monkeypatch.setattr(sys.modules[pack.__module__], "MAX_RECORD_BYTES", 1000)
    with pytest.raises(SubmissionError, match=r"the text of records\.jsonl\.gz would have \d+ byt"):
        pack_it(packed_run.folder, packed_run.store, tmp_path, packed_run.registry)


def test_a_flipped_prediction_is_found(packed_run: PackedRun, copied: Path) -> None:
    def flip(trials: dict[str, Predictions]) -> dict[str, Predictions]:
        job = next(job for job, trial in trials.items() if not trial.multi_label)
        trials[job].outputs[3] = (trials[job].outputs[3] + 1) % handmade_run.CLASSES
        return trials

    edit_predictions(copied, lambda trials: flip(writable(trials)))
    assert set(failed(check(copied, packed_run.registry))) >= {
        "content is untouched",
        "metrics follow from predictions",
    }
    problems = failed(check(sealed(copied), packed_run.registry))
    assert "but its predictions give" in problems.pop("metrics follow from predictions")
    assert not problems


def writable(trials: dict[str, Predictions]) -> dict[str, Predictions]:
    return {job: Predictions(*map(np.copy, trial)) for job, trial in trials.items()}


def test_a_changed_score_of_a_multi_label_trial_is_found(
    packed_run: PackedRun, copied: Path
) -> None:
    def change(trials: dict[str, Predictions]) -> dict[str, Predictions]:
        trial = next(trial for trial in trials.values() if trial.multi_label)
        trial.outputs[:, 0] *= -1
        return trials

    edit_predictions(copied, lambda trials: change(writable(trials)))
    assert set(failed(check(sealed(copied), packed_run.registry))) == {
        "metrics follow from predictions"
    }


def test_a_changed_label_is_found(packed_run: PackedRun, copied: Path) -> None:
    """A forger who makes the truth what was predicted, and the metric one."""
    job = cell(list(read_records(copied / "records.jsonl.gz"))).job

    def relabel(trials: dict[str, Predictions]) -> dict[str, Predictions]:
        trials[job] = trials[job]._replace(labels=trials[job].outputs)
        return trials

    edit_predictions(copied, relabel)
    problems = failed(check(sealed(copied), packed_run.registry))
    assert "has other test images than others" in problems["predictions belong together"]


def test_predictions_that_are_left_out_are_found(packed_run: PackedRun, copied: Path) -> None:
    job = cell(list(read_records(copied / "records.jsonl.gz"))).job
    edit_predictions(copied, lambda trials: {k: v for k, v in trials.items() if k != job})
    problems = failed(check(sealed(copied), packed_run.registry))["predictions belong together"]
    assert f"trial {job[:12]} has no predictions" in problems
    assert "the logits' digests are not of the trials that have predictions" in problems


def test_predictions_of_no_planned_trial_are_found(packed_run: PackedRun, copied: Path) -> None:
    def add(trials: dict[str, Predictions]) -> dict[str, Predictions]:
        return {**trials, "0" * 64: next(iter(trials.values()))}

    edit_predictions(copied, add)
    problems = failed(check(sealed(copied), packed_run.registry))["predictions belong together"]
    assert "there are predictions of 000000000000, which is not a planned trial" in problems


def test_an_image_that_is_predicted_twice_is_found(packed_run: PackedRun, copied: Path) -> None:
    job = cell(list(read_records(copied / "records.jsonl.gz"))).job

    def repeat(trials: dict[str, Predictions]) -> dict[str, Predictions]:
        trials[job].items[1] = trials[job].items[0]
        return trials

    edit_predictions(copied, lambda trials: repeat(writable(trials)))
    problems = failed(check(sealed(copied), packed_run.registry))["predictions belong together"]
    assert f"trial {job[:12]} has an image twice" in problems


def test_a_raised_value_is_found(packed_run: PackedRun, copied: Path) -> None:
    def raise_it(rows: list[Record]) -> list[Record]:
        at = rows.index(cell(rows))
        better = {"value": rows[at].value + 1 / handmade_run.N, "low": 0.0, "high": 1.0}
        rows[at] = rows[at].model_copy(update=better)
        return rows

    edit_records(copied, raise_it)
    problems = failed(check(sealed(copied), packed_run.registry))
    assert "metrics follow from predictions" in problems
    allowed = {
        "metrics follow from predictions",
        "verdicts follow from records",
        "trials are whole",
    }
    assert set(problems) <= allowed
    assert "test_metric of P-T on digits, none" in problems["metrics follow from predictions"]


@pytest.mark.parametrize("metric", ["kappa", "error_jaccard"])
def test_a_changed_agreement_is_found(packed_run: PackedRun, copied: Path, metric: str) -> None:
    def change(rows: list[Record]) -> list[Record]:
        return [
            r.model_copy(update={"value": 0.99}) if r.metric == metric and not r.coordinates else r
            for r in rows
        ]

    edit_records(copied, change)
    problems = failed(check(sealed(copied), packed_run.registry))
    assert set(problems) == {DIAGNOSES}
    assert (
        f"{metric} of P-T and RI-T on digits, none is 0.99, but its trials" in problems[DIAGNOSES]
    )


def test_a_changed_speed_is_found_where_the_history_is_recorded(
    packed_run: PackedRun, copied: Path
) -> None:
    edit_records(
        copied, lambda rows: [raised(row) if row.metric == "speed" else row for row in rows]
    )
    problems = failed(check(sealed(copied), packed_run.registry))[DIAGNOSES]
    assert "speed of P-T on digits, none is 0.99, but its trials give 0.8" in problems
    assert "on marks" not in problems


def raised(row: Record) -> Record:
    return row.model_copy(update={"value": 0.99})


def test_a_history_that_is_recorded_twice_is_none(copied: Path) -> None:
    def change(rows: list[Record]) -> list[Record]:
        points = [row for row in rows if row.coordinates.get("epoch") == 2]
        assert points
        return [*rows, *(raised(row).model_copy(update={"diagnostic": "other"}) for row in points)]

    edit_records(copied, change)
    trials = packed_trials(read_bundle(copied)).values()
    assert {trial.history for trial in trials} == {None}


def test_classes_are_counted_before_a_plugin_counts_on_them(copied: Path) -> None:
    def change(plan: Any) -> None:
        for job in plan["jobs"]:
            if job["kind"] == "trial":
                job["payload"]["dataset"]["classes"] = 10**9

    edit_json(copied / "plan.json", change)
    with pytest.raises(SubmissionError, match="has more than 100000 classes"):
        packed_trials(read_bundle(copied))


def test_an_epoch_beyond_any_training_is_no_history(copied: Path) -> None:
    def change(rows: list[Record]) -> list[Record]:
        far = {"coordinates": {"epoch": 10**12}}
        return [row.model_copy(update=far) if row.coordinates.get("epoch") == 2 else row
                for row in rows]  # fmt: skip

    edit_records(copied, change)
    assert {t.history for t in packed_trials(read_bundle(copied)).values()} == {None}


def test_a_plugin_recomputes_its_own_values(packed_run: PackedRun, copied: Path) -> None:
    def change(rows: list[Record]) -> list[Record]:
        return [
            row.model_copy(update={"n": 7} if row.replicate else {"value": 7.0})
            if row.metric == "size" else row
            for row in rows
        ]  # fmt: skip

    edit_records(copied, change)
    problems = failed(check(sealed(copied), packed_run.registry))[DIAGNOSES]
    assert "size of P-T on digits, none is 7.0, but its trials give 120" in problems
    assert "size of P-T on digits, none is of 7 items, but its trials have 120" in problems


def test_what_a_plugin_recomputes_from_is_read_only(copied: Path) -> None:
    trials = packed_trials(read_bundle(copied)).values()
    for trial in trials:
        assert not any(a.flags.writeable for a in (trial.items, trial.labels, trial.outputs))
    histories = [trial.history for trial in trials if trial.history]
    assert histories
    for history in histories:
        assert isinstance(history, tuple)
        assert all(isinstance(row, MappingProxyType) for row in history)


@pytest.mark.parametrize(
    ("old", "new", "status", "expected"),
    [
        ('"made-size"', '"made-length"', "warning",
         "made-size version 1 is not installed here: its values are only reported"),
        ('SIZE = ABOUT | {"version": 1}', 'SIZE = ABOUT | {"version": 2}', "warning",
         "made-size version 1 is not installed here"),
        ("(trial,) = trials", "raise KeyError(params)", "failed",
         "recompute of diagnostic 'made-size' failed: KeyError"),
    ],
)  # fmt: skip
def test_what_a_plugin_cannot_recompute_is_named(
    copied: Path, tmp_path_factory: pytest.TempPathFactory, old: str, new: str, status: str,
    expected: str,
) -> None:  # fmt: skip
    file = tmp_path_factory.mktemp("other") / "made.py"
    assert old in handmade_run.PLUGIN
    file.write_text(handmade_run.PLUGIN.replace(old, new))
    report = check(copied, load_registry([file]))
    (diagnoses,) = [check for check in report.checks if check.name == DIAGNOSES]
    assert (diagnoses.status, report.ok) == (status, status == "warning")
    assert expected in diagnoses.why[0]
    if status == "warning":
        assert report.trust == "recomputed"


def test_a_deleted_cell_is_found(packed_run: PackedRun, copied: Path) -> None:
    """The records, the job and the predictions of one trial are gone, everything sealed anew."""
    lost = cell(list(read_records(copied / "records.jsonl.gz")), target="marks", replicate=1).job
    edit_records(copied, lambda rows: [r for r in rows if lost not in {r.job, *r.subjects}])

    def drop(plan: Any) -> None:
        plan["jobs"] = [j for j in plan["jobs"] if lost not in {j["id"], *j["requires"]}]

    edit_json(copied / "plan.json", drop)
    edit_predictions(copied, lambda trials: {k: v for k, v in trials.items() if k != lost})
    edit_json(copied / "submission.json", lambda head: head["outputs"].pop(lost))
    problems = failed(check(sealed(copied), packed_run.registry))
    assert "P-T on marks, none, replicate 1 is missing" in problems["every cell is there once"]
    assert "which is not in the plan" in problems["plan can be made again"]


def test_a_deleted_diagnosis_is_found(packed_run: PackedRun, copied: Path) -> None:
    rows = list(read_records(copied / "records.jsonl.gz"))
    lost = next(r.job for r in rows if r.metric == "kappa")
    edit_records(copied, lambda rows: [r for r in rows if r.job != lost])

    def drop(plan: Any) -> None:
        plan["jobs"] = [job for job in plan["jobs"] if job["id"] != lost]

    edit_json(copied / "plan.json", drop)
    problems = failed(check(sealed(copied), packed_run.registry))
    assert "mistakes of P-T on digits, none, replicate" in problems["plan can be made again"]


def test_deleted_records_of_a_planned_job_are_found(packed_run: PackedRun, copied: Path) -> None:
    edit_records(copied, lambda rows: [r for r in rows if r.diagnostic != "mistakes"])
    problems = failed(check(sealed(copied), packed_run.registry))
    assert "has no records" in problems["every cell is there once"]
    assert "replicate 0 is missing (job " in problems["plan can be made again"]


def test_records_of_a_cell_that_the_suite_does_not_measure_are_found(
    packed_run: PackedRun, copied: Path
) -> None:
    def add(rows: list[Record]) -> list[Record]:
        row = next(row for row in rows if row.diagnostic == "mistakes")
        return [*rows, row.model_copy(update={"replicate": 9})]

    edit_records(copied, add)
    problems = failed(check(sealed(copied), packed_run.registry))["plan can be made again"]
    assert "replicate 9 is not required (job " in problems


def test_a_job_that_is_planned_twice_is_found(packed_run: PackedRun, copied: Path) -> None:
    edit_json(copied / "plan.json", lambda plan: plan["jobs"].append(plan["jobs"][0]))
    problems = failed(check(sealed(copied), packed_run.registry))["job ids follow from payloads"]
    assert "is planned 2 times" in problems


def test_a_job_that_the_suite_does_not_require_is_found(
    packed_run: PackedRun, copied: Path
) -> None:
    def add(plan: Any) -> None:
        job = next(job for job in plan["jobs"] if job["kind"] == "diagnosis")
        payload = job["payload"] | {"seed": 12345}
        added = digest({"kind": "diagnosis", "payload": payload})
        plan["jobs"].append(job | {"payload": payload, "id": added})

    edit_json(copied / "plan.json", add)
    problems = failed(check(sealed(copied), packed_run.registry))["plan can be made again"]
    assert "is not required by the suite" in problems


def test_a_duplicated_cell_is_found(packed_run: PackedRun, copied: Path) -> None:
    edit_records(copied, lambda rows: [*rows, cell(rows)])
    problems = failed(check(sealed(copied), packed_run.registry))
    assert (
        "P-T on digits, none, replicate 0 is recorded 2 times"
        in problems["every cell is there once"]
    )


def test_two_cells_that_trade_places_are_found(packed_run: PackedRun, copied: Path) -> None:
    def swap(rows: list[Record]) -> list[Record]:
        arms = {"P-T": "RI-T", "RI-T": "P-T"}
        return [
            r.model_copy(update={"initialization": arms[r.initialization]})
            if r.diagnostic == "trial"
            else r
            for r in rows
        ]

    edit_records(copied, swap)
    problems = failed(check(sealed(copied), packed_run.registry))
    assert re.search(
        r"trial of P-T on digits, \S+, replicate \d is not required \(job ",
        problems["plan can be made again"],
    )


@pytest.mark.parametrize(
    ("labels", "update", "why"),
    [
        ({"diagnostic": "trial"}, {"other_replicate": 10**6}, "0 is of half a pair"),
        ({"diagnostic": "trial"}, {"other_initialization": "RI-T"}, "0 is of half a pair"),
        ({"diagnostic": "trial"}, {"other_initialization": "RI-T", "other_replicate": 1},
         "0 is of half a pair"),
        ({"metric": "speed"}, {"other_replicate": 1}, "0 is of half a pair"),
        ({"metric": "kappa"}, {"other_replicate": None}, "0 is of half a pair"),
        ({"diagnostic": "trial"}, {"other_replicate": 10**6}, ", replicate 1000000)"),
        ({"diagnostic": "trial"}, {"network": 1}, "0 is not required (job "),
        ({"metric": "speed"}, {"network": 0}, "0 is not required (job "),
        ({"metric": "kappa"}, {"other_replicate": 1}, "0 is not required (job "),
        ({"metric": "kappa"}, {"other_initialization": "P-T"}, "0 is not required (job "),
    ],
)  # fmt: skip
def test_what_selects_a_record_follows_from_the_plan(
    packed_run: PackedRun, labels: dict[str, Any], update: dict[str, Any], why: str
) -> None:
    """A row of another pair or network would be averaged over elsewhere, or nowhere."""
    bundle, registry = read_bundle(packed_run.packed), packed_run.registry
    meant = cell(list(bundle.records), **{"metric": "test_metric"} | labels)
    forged = bundle._replace(records=tuple(
        row.model_copy(update=update) if row == meant else row for row in bundle.records
    ))  # fmt: skip
    problems = [*check_every_cell_is_there_once(forged, registry),
                *check_plan_can_be_made_again(forged, registry)]  # fmt: skip
    assert any(why in problem.why and not problem.warning for problem in problems)


@pytest.mark.parametrize(
    ("metric", "coordinates", "why"),
    [
        ("speed", {"x": 1}, "speed of P-T on digits, none, x 1 is not what its trials give"),
        ("size", {"epoch": 1}, "size of P-T on digits, none, epoch 1 is not what its trials give"),
        ("error_share", {"class": 1.0}, "error_share of P-T on digits, none, replicate 0 is recor"),
        ("error_share", {"class": 2}, None),  # of a metric that is only reported
    ],
)
def test_a_record_beside_those_that_follow_is_found(
    packed_run: PackedRun, metric: str, coordinates: dict[str, Any], why: str | None
) -> None:
    bundle, registry = read_bundle(packed_run.packed), packed_run.registry
    meant = cell(list(bundle.records), metric=metric)
    extra = meant.model_copy(update={"coordinates": coordinates})
    forged = bundle._replace(records=(*bundle.records, extra))
    problems = [
        *check_every_cell_is_there_once(forged, registry),
        *check_diagnoses_follow_from_trials(forged, recompute_diagnoses(forged, registry)),
    ]
    assert [problem.why[: len(why or "")] for problem in problems] == ([why] if why else [])


@pytest.mark.parametrize(
    "update",
    [
        {"flag": "\x1b[2J"},
        {"flag": "a\u202eb"},
        {"flag": "a\nb"},
        {"flag": "a" * 301},
        {"metric": "a\x00b"},
        {"coordinates": {"class\u2066": 1}},
        {"coordinates": {"class": "\u2029"}},
    ],
)
def test_what_a_record_says_is_a_visible_line(
    packed_run: PackedRun, update: dict[str, Any]
) -> None:
    bundle = read_bundle(packed_run.packed)
    extra = cell(list(bundle.records), metric="error_share").model_copy(update=update)
    forged = bundle._replace(records=(*bundle.records, extra))
    (problem,) = (
        each for each in check_every_cell_is_there_once(forged, packed_run.registry)
        if "no line of visible characters" in each.why
    )  # fmt: skip
    assert problem.why.isprintable()


def test_no_number_of_warnings_hides_a_failure() -> None:
    problems = [*[Problem("w", warning=True)] * 2000, Problem("\x1b[2J" + "a" * 9000)]
    (*listed, more) = (each := _check("any", lambda: iter(problems))).why
    assert each.status == "failed"
    assert listed[0] == r"\x1b[2J" + "a" * 1996
    assert more == "and 996 more"


def test_a_record_of_another_entry_is_found(packed_run: PackedRun, copied: Path) -> None:
    def add(rows: list[Record]) -> list[Record]:
        return [*rows, rows[0].model_copy(update={"entry": "other", "metric": "made_up"})]

    edit_records(copied, add)
    problems = failed(check(sealed(copied), packed_run.registry))
    assert "a record is of other on handmade@1.0" in problems["every cell is there once"]


def test_an_edited_payload_is_found(packed_run: PackedRun, copied: Path) -> None:
    def edit(plan: Any) -> None:
        job = next(job for job in plan["jobs"] if job["kind"] == "trial")
        job["payload"]["recipe"]["epochs"] = 200

    edit_json(copied / "plan.json", edit)
    problems = failed(check(sealed(copied), packed_run.registry))
    assert (
        "has an id that is not the hash of its payload" in problems["job ids follow from payloads"]
    )


def test_an_edited_payload_with_its_right_id_is_found(packed_run: PackedRun, copied: Path) -> None:
    """Every id is made to fit a longer training; the suite still asks for the shorter one."""
    ids: dict[str, str] = {}

    def edit(plan: Any) -> None:
        for kind in ("trial", "diagnosis"):
            for job in plan["jobs"]:
                if job["kind"] != kind:
                    continue
                if kind == "trial":
                    job["payload"]["recipe"]["epochs"] = 200
                else:
                    job["payload"]["subjects"] = [ids[s] for s in job["payload"]["subjects"]]
                job["requires"] = [ids.get(need, need) for need in job["requires"]]
                new = digest({"kind": kind, "payload": job["payload"]})
                ids[job["id"]] = job["id"] = new

    def rename(rows: list[Record]) -> list[Record]:
        return [
            r.model_copy(update={"job": ids[r.job], "subjects": tuple(ids[s] for s in r.subjects)})
            for r in rows
        ]

    old = [job["id"] for job in json.loads((copied / "plan.json").read_text())["jobs"]]

    def edit_and_note(plan: Any) -> None:
        edit(plan)
        ids.update(
            {a: job["id"] for a, job in zip(old, plan["jobs"], strict=True) if a != job["id"]}
        )

    edit_json(copied / "plan.json", edit_and_note)
    edit_records(copied, rename)
    edit_predictions(copied, lambda trials: {ids[job]: t for job, t in trials.items()})

    def rename_outputs(head: Any) -> None:
        head["outputs"] = {ids[job]: value for job, value in head["outputs"].items()}

    edit_json(copied / "submission.json", rename_outputs)
    problems = failed(check(sealed(copied), packed_run.registry))
    assert set(problems) == {"plan can be made again"}
    assert "which is not in the plan" in problems["plan can be made again"]


def test_an_edited_suite_is_found(packed_run: PackedRun, copied: Path) -> None:
    def edit(plan: Any) -> None:
        plan["suite"]["scoring"]["reference"]["digits"] = 0.5

    edit_json(copied / "plan.json", edit)
    assert "the suite of the plan has digest" in str(check(sealed(copied), packed_run.registry))


def test_a_suite_that_borrows_a_bundled_name_is_found(
    packed_run: PackedRun, tmp_path: Path
) -> None:
    suite = Suite.model_validate(SUITE | {"name": "quickstart"})
    store = make_run(tmp_path, packed_run.registry, suite=suite)
    folder = pack_it(tmp_path, store, tmp_path / "out", packed_run.registry)
    problems = failed(check(folder, packed_run.registry))
    assert "quickstart@1.0 was changed" in problems["suite is the published one"]


def test_a_renamed_folder_is_told(packed_run: PackedRun, copied: Path) -> None:
    moved = copied.rename(copied.with_name("0" * 64))
    assert "the folder is not handmade@1/made-good/" in str(check(moved, packed_run.registry))


def test_an_edited_verdict_is_found(packed_run: PackedRun, copied: Path) -> None:
    edit_json(copied / "claims.json", lambda rows: rows[0].update(verdict="contradicted"))
    problems = failed(check(sealed(copied), packed_run.registry))
    assert "is undecided, not contradicted" in problems["verdicts follow from records"]


@pytest.mark.parametrize(("field", "value"), [("p_reproduced", 1e-7), ("family", "C9")])
def test_an_edited_p_value_or_family_is_found(
    packed_run: PackedRun, copied: Path, field: str, value: str | float
) -> None:
    edit_json(copied / "claims.json", lambda rows: rows[0].update({field: value}))
    problems = failed(check(sealed(copied), packed_run.registry))["verdicts follow from records"]
    assert f"claim 'helps' has {field} {value}, and its records give" in problems


def test_a_verdict_that_is_left_out_is_found(packed_run: PackedRun, copied: Path) -> None:
    edit_json(copied / "claims.json", lambda rows: rows.pop(0))
    problems = failed(check(sealed(copied), packed_run.registry))["verdicts follow from records"]
    assert "is only in the suite" in problems


def test_a_verdict_that_was_judged_by_a_former_interval_is_a_warning(
    packed_run: PackedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = SUITE["claims"]["helps"]
    share = claim | {"relative_to": claim["terms"][:1]}
    suite = Suite.model_validate(SUITE | {"claims": {"helps": claim, "share": share}})
    store = make_run(tmp_path, packed_run.registry, suite=suite)
    folder = pack_it(tmp_path, store, tmp_path / "out", packed_run.registry)
    rows = json.loads((folder / "claims.json").read_text())
    assert [row["interval"] for row in rows] == ["ranged-t-95", "ranged-fieller-95"]

    def problems(claim: int, verdict: str, interval: str) -> list[Problem]:
        former = {"p_reproduced": None, "p_contradicted": None, "covers": ""}
        edited = [row | former | {"verdict": verdict, "interval": interval} for row in rows[claim:]]
        (folder / "claims.json").write_text(json.dumps(rows[:claim] + edited))
        bundle = read_bundle(folder)
        return list(check_verdicts_follow_from_records(bundle, packed_run.registry))

    assert not problems(1, "undecided", "jackknife-95")[0].warning  # a board without such verdicts
    monkeypatch.setattr(verdicts_module, "FORMER_BOARDS", {"handmade@1"})
    assert problems(1, "undecided", "jackknife-95") == [
        Problem(
            "claim 'share' was judged undecided by jackknife-95, whose numbers are only reported;"
            " by ranged-fieller-95 it is undecided",
            warning=True,
        )
    ]
    assert [each.warning for each in problems(1, "reproduced", "jackknife-95")] == [True]
    for claim, interval in ((1, "ranged-fieller-95"), (1, "student-t-95"), (0, "student-t-95")):
        forged = problems(claim, "contradicted", interval)[0]
        assert f"is {rows[claim]['verdict']}, not contradicted" in forged.why
        assert not forged.warning


def test_a_former_verdict_is_judged_by_the_method_of_its_day(
    packed_run: PackedRun, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = read_bundle(copied)
    measurements, entry = Measurements.of_records(bundle.records), bundle.submission.entry.name
    former = judge_by_jackknife(bundle.plan.suite, measurements, entry)
    assert {verdict.interval for verdict in former} == {"jackknife-95"}
    fields = ("interval", "low", "high", "p_reproduced", "p_contradicted", "verdict", "reason")
    rows = json.loads((copied / "claims.json").read_text())
    rows = [
        row | {field: getattr(verdict, field) for field in fields}
        for row, verdict in zip(rows, former, strict=True)
    ]
    (copied / "claims.json").write_text(json.dumps(rows))

    def problems() -> list[Problem]:
        return list(check_verdicts_follow_from_records(read_bundle(copied), packed_run.registry))

    assert any("has interval jackknife-95" in problem.why for problem in problems())
    monkeypatch.setattr(verdicts_module, "BY_JACKKNIFE", {"handmade@1"})
    assert [problem for problem in problems() if not problem.warning] == []
    rows[0]["low"] += 0.01
    (copied / "claims.json").write_text(json.dumps(rows))
    assert any("has low" in problem.why for problem in problems())


def test_an_edited_severity_is_found(packed_run: PackedRun, copied: Path) -> None:
    edit_json(copied / "submission.json", lambda head: head["severities"].update(none=99.0))
    assert (
        "severities of its perturbations are not"
        in failed(check(sealed(copied), packed_run.registry))["plan can be made again"]
    )


@pytest.mark.parametrize(
    "text", ["a\u202eb", "a\u2066b", "a\u2028b", "a\x9bb", "a\x1bb", "a\uffffb", "\ufeffa"]
)
def test_texts_have_no_invisible_signs(text: str) -> None:
    weights = {"tag": "x", "origin": "x", "license": "x", "pretrained_on": text}
    facts = {"name": "x", "backbone": {}, "license": "x", "source": "x", "weights": weights}
    with pytest.raises(ValidationError, match="should match pattern"):
        Declaration(submitter=text)
    with pytest.raises(ValidationError, match="should match pattern"):
        EntryFacts.model_validate(facts)


@pytest.mark.parametrize(
    ("update", "why"),
    [
        ({"parameters": 10**300}, "less than 9007199254740992"),
        ({"weights": {"tag": "x" * 301}}, "at most 300 characters"),
        ({"weights": {"tag": "x", "sha256": "\x1b[2J"}}, "should match pattern"),
    ],
)
def test_facts_of_an_entry_have_limits(update: dict[str, Any], why: str) -> None:
    facts = {"name": "x", "backbone": {}, "license": "x", "source": "x"}
    about = {"origin": "x", "license": "x", "pretrained_on": "x"}
    if "weights" in update:
        update = {"weights": about | update["weights"]}
    with pytest.raises(ValidationError, match=why):
        EntryFacts.model_validate(facts | update)


@pytest.mark.parametrize("name", ["Zo\u00eb", "\u0645\u062d\u0645\u062f", "\u674e \U0001f600"])
def test_names_of_every_alphabet_are_texts(name: str) -> None:
    assert Declaration(submitter=name).submitter == name


def test_a_missing_declaration_is_found(packed_run: PackedRun, copied: Path) -> None:
    def edit(head: Any) -> None:
        head["declaration"] = {"license": None, "overlap": {"digits": "no", "letters": "no"}}

    edit_json(copied / "submission.json", edit)
    problems = failed(check(sealed(copied), packed_run.registry))[
        "licence and overlap are declared"
    ]
    assert "licence of the weights is not declared" in problems
    assert "overlap of the pre-training with marks is not declared" in problems
    assert "letters, which is not a target" in problems


# --- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"metric": "other", "value": 1.5}, "is 1.5 fraction, outside its range -1 to 1"),
        ({"diagnostic": "speed", "metric": "speed", "value": -0.5}, "outside its range 0 to 1"),
        ({"metric": "other", "low": 0.9, "high": 1.0, "interval": "x"}, "outside its interval"),
        ({"metric": "other", "n": 0}, "is of no items"),
        ({"metric": "other", "unit": "nats", "value": 1e300}, "its range -1e+40 to 1e+40"),
    ],
)
def test_impossible_numbers_are_found(
    packed_run: PackedRun, copied: Path, change: dict[str, Any], why: str
) -> None:
    def edit(rows: list[Record]) -> list[Record]:
        at = rows.index(cell(rows, metric="train_metric"))
        rows[at] = rows[at].model_copy(update={"value": 0.5} | change)
        return rows

    edit_records(copied, edit)
    assert why in failed(check(sealed(copied), packed_run.registry))["numbers are possible"]


def _copy_outputs(copied: Path, first: str, second: str) -> None:
    def edit(head: Any) -> None:
        head["outputs"][second] = head["outputs"][first]

    edit_json(copied / "submission.json", edit)


def test_equal_replicates_fail_and_equal_perturbations_warn(
    packed_run: PackedRun, copied: Path
) -> None:
    rows = list(read_records(copied / "records.jsonl.gz"))
    _copy_outputs(copied, cell(rows).job, cell(rows, perturbation="blur-2").job)
    folder = sealed(copied)
    report = check(folder, packed_run.registry)
    assert "equal outputs on digits: P-T" in warned(report)["settings did something"]
    _copy_outputs(folder, cell(rows).job, cell(rows, replicate=1).job)
    assert "settings did something" in failed(check(sealed(folder), packed_run.registry))


def test_an_arm_equal_to_its_baseline_fails(packed_run: PackedRun, copied: Path) -> None:
    rows = list(read_records(copied / "records.jsonl.gz"))
    _copy_outputs(copied, cell(rows).job, cell(rows, initialization="RI-T").job)
    problems = failed(check(sealed(copied), packed_run.registry))["settings did something"]
    assert "a setting between them did nothing" in problems


def test_learning_from_shuffled_labels_is_told(packed_run: PackedRun, tmp_path: Path) -> None:
    def learned(job: Any, cell: Any) -> Any:
        return trial_outputs(job._replace(payload=job.payload | {"shuffle_labels": False}), cell)

    store = make_run(tmp_path, packed_run.registry, outputs=learned)
    folder = pack_it(tmp_path, store, tmp_path / "out", packed_run.registry)
    problems = warned(check(folder, packed_run.registry))["controls are at chance"]
    assert "P-T on shuffled (shuffled labels), none is above chance" in problems


def test_a_plugin_that_is_not_installed_is_named(
    copied: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other") / "made.py"
    other.write_text(handmade_run.PLUGIN.replace('"made-blur"', '"made-fog"'))
    report = check(copied, load_registry([other]))
    assert report.ok
    assert "no perturbation named 'made-blur'" in warned(report)["plan can be made again"]


def test_a_newer_plugin_is_named_rather_than_blamed(
    copied: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("newer") / "made.py"
    other.write_text(handmade_run.PLUGIN.replace('"version": 1', '"version": 2'))
    report = check(copied, load_registry([other]))
    assert report.ok
    assert "made-blur version 1" in warned(report)["plan can be made again"]


@pytest.mark.parametrize(
    ("name", "backbone", "accepted"),
    [
        ("made-good", {"name": "made-good"}, True),
        ("made-good", {"name": "made-poor"}, False),
        ("made-good", {"params": {"width": 9}}, False),
        ("made-good", {"params": {"width": 9}, "version": 2}, True),
        ("made-good", {"name": "not-installed"}, False),
        ("not-installed", {"name": "not-installed"}, True),
        ("not-installed/big", {"name": "not-installed", "params": {"member": "big"}}, True),
        ("not-installed/big", {"name": "not-installed", "params": {"member": "small"}}, False),
    ],
)
def test_an_entry_is_called_by_its_backbone(
    packed_run: PackedRun, name: str, backbone: dict[str, Any], accepted: bool
) -> None:
    bundle = read_bundle(packed_run.packed)
    own = bundle.submission.entry
    entry = own.model_copy(update={"name": name, "backbone": own.backbone | backbone})
    forged = bundle._replace(submission=bundle.submission.model_copy(update={"entry": entry}))
    problems = list(_another_name(forged, packed_run.registry))
    assert all(problem.warning for problem in problems) is accepted
    is_compared = entry.backbone["version"] == 1 and entry.backbone["name"] != "not-installed"
    assert any(problem.warning for problem in problems) is not is_compared


def test_what_external_weights_must_be_measured_by_is_required(packed_run: PackedRun) -> None:
    bundle, registry = read_bundle(packed_run.packed), packed_run.registry
    plan = planned_again(bundle, registry)
    job = Job("0" * 64, "weights", {}, (), "weights of made-good", Work(0, 0))
    more = replace(plan, jobs=plan.jobs | {job.id: job})
    problems = list(check_plan_can_be_made_again(bundle, registry, lambda: more))
    why = "the suite requires: weights of made-good, which is not in the plan"
    assert problems == [Problem(why)]


def test_a_claim_is_not_judged_at_any_number_of_values(packed_run: PackedRun) -> None:
    bundle = read_bundle(packed_run.packed)
    claim = bundle.plan.suite.claims["helps"].model_copy(
        update={"each": Axis(coordinates=("module",))}
    )
    suite = bundle.plan.suite.model_copy(update={"claims": {"helps": claim}})
    own = cell(list(bundle.records), metric="error_share")
    crowd = (own.model_copy(update={"coordinates": {"module": k}}) for k in range(1001))
    forged = bundle._replace(plan=bundle.plan.model_copy(update={"suite": suite}),
                             records=(*bundle.records, *crowd))  # fmt: skip
    (problem,) = check_verdicts_follow_from_records(forged, packed_run.registry)
    assert problem.why == "records have more than 1000 values of module, of which a claim is"


@given(st.data())
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_content_makes_the_check_raise(
    packed_run: PackedRun, tmp_path: Path, data: st.DataObject
) -> None:
    folder = tmp_path / "fuzzed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(packed_run.packed, folder)
    path = folder / data.draw(st.sampled_from(sorted(FILES)))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(at, min(len(content), at + 40)))
    path.write_bytes(content[:at] + data.draw(st.binary(max_size=20)) + content[stop:])
    check(folder, packed_run.registry)


@pytest.mark.parametrize(
    "value", [None, [], {}, "x", -1, 1e300, [[]], {"id": 3}, [None], [{"id": "0" * 64}]]
)
@pytest.mark.parametrize("name", ["submission.json", "plan.json", "claims.json"])
def test_json_of_any_shape_is_refused_without_a_crash(
    packed_run: PackedRun, copied: Path, name: str, value: Any
) -> None:
    (copied / name).write_text(json.dumps(value))
    assert not check(copied, packed_run.registry).ok


# --- predictions ------------------------------------------------------------------------------


def _predictions(seed: int, *, multi_label: bool = False) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(0).integers(0, 4, 300, dtype=np.int32)
    if not multi_label:
        wrong = rng.random(300) < 0.4
        return Predictions(np.arange(300), labels, np.where(wrong, (labels + 1) % 4, labels))
    marks = (np.random.default_rng(0).random((300, 3)) < 0.3).astype(np.int8)
    scores = np.round(marks + rng.normal(size=marks.shape), 1).astype(np.float32)
    return Predictions(np.arange(300), marks, scores)


def test_metrics_equal_those_of_scikit_learn() -> None:
    trial = _predictions(1)
    assert recompute_metric("accuracy", trial) == accuracy_score(trial.labels, trial.outputs)
    marks = _predictions(2, multi_label=True)
    expected = roc_auc_score(marks.labels, marks.outputs, average="macro")
    assert recompute_metric("auc", marks) == pytest.approx(expected, abs=1e-12)


def agreement(*pair: Predictions) -> dict[str, float | None]:
    trials = [PackedTrial("job", "multi-class", "accuracy", 10, None, *trial) for trial in pair]
    return {m.metric: m.value for m in recompute_agreement(AgreementParams(), trials)}


def test_agreement_equals_that_of_scikit_learn() -> None:
    first, second = _predictions(1), _predictions(2)
    wrong = first.labels != first.outputs, second.labels != second.outputs
    values = agreement(first, second)
    assert values["kappa"] == pytest.approx(cohen_kappa_score(*wrong), abs=1e-12)
    assert values["error_jaccard"] == pytest.approx(jaccard_score(*wrong), abs=1e-12)
    assert values["agreement"] == accuracy_score(first.outputs, second.outputs)
    perfect = first._replace(outputs=first.labels)
    values = agreement(perfect, perfect)
    assert (values["agreement"], values["kappa"], values["error_jaccard"]) == (1.0, None, None)


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    trials = {"b": _predictions(1), "a": _predictions(2, multi_label=True)}
    write_predictions(trials, tmp_path / "p.parquet")
    values = read_predictions(tmp_path / "p.parquet")
    assert list(values) == ["a", "b"]
    for job, trial in trials.items():
        for read, written in zip(values[job], trial, strict=True):
            np.testing.assert_array_equal(read, written)
            assert read.dtype == written.dtype


def test_no_predictions_are_read_back_as_none(tmp_path: Path) -> None:
    write_predictions({}, tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet") == {}


def test_another_table_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"job": ["x"]}), tmp_path / "p.parquet")
    with pytest.raises(SubmissionError, match="its columns are"):
        read_predictions(tmp_path / "p.parquet")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("job", "a row has no job or no item"),
        ("item", "a row has no job or no item"),
        ("prediction", "a trial mixes classes and lists of labels, or leaves some out"),
    ],
)
def test_a_table_with_an_empty_cell_is_refused(tmp_path: Path, column: str, message: str) -> None:
    path = tmp_path / "p.parquet"
    write_predictions({"a": _predictions(1)}, path)
    table = pq.read_table(path)
    cells = [None, *table.column(column).to_pylist()[1:]]
    position, field = table.schema.get_field_index(column), table.schema.field(column)
    pq.write_table(table.set_column(position, field, pa.array(cells).cast(field.type)), path)
    with pytest.raises(SubmissionError, match=message):
        read_predictions(path)


def test_a_table_beyond_the_caps_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_predictions({"a": _predictions(1)}, tmp_path / "p.parquet")
    monkeypatch.setattr(predictions, "MAX_ROWS", 299)
    with pytest.raises(SubmissionError, match=r"300 rows of 1800 values are more than is acce"):
        read_predictions(tmp_path / "p.parquet")


def test_outputs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "outputs.safetensors"
    arrays = {"logits": np.zeros((3, 2), np.float32), "labels": np.zeros(2, np.int64)}
    save_file(arrays, path)
    with pytest.raises(SubmissionError, match=r"holds no items; run the trial again"):
        read_outputs(path, "accuracy")
    save_file(arrays | {"items": np.arange(3)}, path)
    with pytest.raises(SubmissionError, match=r"3 logits, 2 labels and 3 items do not belong"):
        read_outputs(path, "accuracy")


def test_neither_module_imports_torch() -> None:
    code = "import sys, transferbench.submission, transferbench.leaderboard\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # our own code
