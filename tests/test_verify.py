"""``transferbench verify`` reads everything, heals what it can bit for bit, and names the rest."""

from __future__ import annotations

import json
import random
import re
import shutil

import numpy as np
import pytest
from command_line import SMALL, artefacts, cli, mistake
from damage import HARMS, dangle, flip, make_folder, remove, rewrite
from noise_pictures import noise_pictures
from PIL import Image
from tiny_suite import TINY

import transferbench
from transferbench.identity import digest, file_digest
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.runner.run import run_plan
from transferbench.runner.schedule import SilentWatcher
from transferbench.store import Store
from transferbench.suite import Suite

FOUR_TRIALS = TINY | {"perturbations": {"none": {"name": "identity"}}}


def run(folder, suite=FOUR_TRIALS, **options):
    planned = plan_suite(
        Suite.model_validate(suite), Options(out=folder / "run", jobs=1, device="cpu", **options)
    )
    run_plan(planned, SilentWatcher())


def verify(folder, **options):
    return transferbench.verify(folder / "store", device="cpu", jobs=1, progress=False, **options)


def records(folder):
    return (folder / "run" / "records.jsonl").read_bytes()


def digests(folder):
    """The sha256 of every file of every artefact, but for the manifests with their times."""
    return {
        path.relative_to(folder): file_digest(path)
        for path in (folder / "store" / "jobs").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def flip_anywhere(path, draw):
    """Another value for one byte, anywhere in a file."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= draw.randrange(1, 256)
    path.write_bytes(content)


def check_healed(folder, sound, verification, artefact):
    """An artefact was healed, and nothing else was touched."""
    assert verification.ok, verification
    assert [repair.outcome for repair in verification.repairs] == ["repaired"]
    assert digests(folder) == digests(sound)
    assert artefact.exists()
    shutil.rmtree(folder / "store" / "corrupt", ignore_errors=True)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    run(folder)
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "copy")


@pytest.fixture
def alone(folder):
    """A store without its run beside it."""
    shutil.move(folder / "run", folder / "elsewhere" / "run")
    return folder


def artefact_of(folder, kind, number=0):
    of_kind = [path for path in artefacts(folder / "store")
               if json.loads((path / "manifest.json").read_text())["kind"] == kind]  # fmt: skip
    return of_kind[number]


# --- nothing is wrong -----------------------------------------------------------------------------


def test_a_sound_store_is_read_and_left_alone(folder, sound):
    before = {path: path.stat().st_mtime_ns for path in (folder / "store" / "jobs").rglob("*")}
    verification = verify(folder)
    assert verification.ok
    assert verification.repairs == verification.notes == ()
    assert verification.artefacts == len(artefacts(sound / "store")) == 17
    assert verification.files == len(digests(sound))
    assert verification.size_bytes == sum((sound / path).stat().st_size for path in digests(sound))
    assert {path: path.stat().st_mtime_ns
            for path in (folder / "store" / "jobs").rglob("*")} == before  # fmt: skip
    assert {(thing.name.split(" (")[0], thing.status) for thing in verification.outside} == {
        ("dataset glyphs at 8 px", "as it was"), ("dataset digits at 8 px", "as it was"),
    }  # fmt: skip


def test_the_command_says_what_was_read(folder):
    said = cli("verify", folder / "store", "--device", "cpu")
    assert said.code == 0
    assert "17 artefacts in" in said.out
    assert "damaged: none" in said.out
    assert "  as it was: dataset digits at 8 px (" in said.out
    described = json.loads(cli("verify", folder / "store", "--json").out)
    assert (described["ok"], described["artefacts"], described["repairs"]) == (True, 17, [])


# --- healing --------------------------------------------------------------------------------------


def test_a_byte_of_every_file_at_once(folder, sound):
    draw = random.Random(1)
    files = [path for path in (folder / "store").rglob("*") if path.is_file()]
    for path in files:
        if "leases" not in path.parts and path.stat().st_size:
            flip_anywhere(path, draw)
    verification = verify(folder)
    assert len(verification.repairs) == 17 + 2
    # Where a file and its digest in the manifest are damaged, nothing proves that it is the same.
    doubt = "; its manifest was damaged, and they may have been, too"
    assert all(repair.outcome == "repaired" or doubt in repair.detail
               for repair in verification.repairs)  # fmt: skip
    assert digests(folder) == digests(sound)
    assert verify(folder).repairs == ()
    run(folder)
    assert records(folder) == records(sound)


@pytest.mark.parametrize("kind", ["trial", "diagnosis"])
def test_a_byte_of_each_file_one_after_another(folder, sound, kind):
    draw = random.Random(kind)
    artefact = artefact_of(folder, kind)
    for name in sorted(path.name for path in artefact.iterdir()):
        flip_anywhere(artefact / name, draw)
        check_healed(folder, sound, verify(folder), artefact)


@pytest.mark.slow
def test_a_byte_of_every_file_one_after_another(folder, sound):
    """100 files of 5.5 MB; a minute on one core."""
    draw = random.Random(2)
    files = sorted(path for path in (folder / "store").rglob("*.*") if path.is_file())
    assert len(files) == 100
    for path in files:
        flip_anywhere(path, draw)
        check_healed(folder, sound, verify(folder), path)
        if "datasets" in path.parts:
            assert path.read_bytes() == (sound / path.relative_to(folder)).read_bytes()
    run(folder)
    assert records(folder) == records(sound)


def test_whatever_befell_an_artefact(folder, sound):
    """Each artefact in another way, and one is gone as a whole."""
    harmed = artefacts(folder / "store")
    for number, artefact in enumerate(harmed[:-1]):
        names = sorted(path.name for path in artefact.iterdir())
        HARMS[number % len(HARMS)](artefact / names[number % len(names)])
    remove(harmed[-1])
    verification = verify(folder)
    assert verification.ok, verification
    assert len(verification.repairs) == len(harmed)
    gone = next(each for each in verification.repairs if each.fault.startswith("it is gone"))
    assert gone.fault.endswith("run says that it finished")
    assert gone.detail == "nothing was left to compare it with"
    assert digests(folder).items() >= digests(sound).items()


def test_the_command_says_what_it_healed(folder):
    artefact = artefact_of(folder, "trial")
    rows = json.loads(cli("status", folder / "run", "--json").out)
    (title,) = (row["label"] for row in rows if row["job"] == artefact.name)
    flip(artefact / "outputs.safetensors")
    said = cli("verify", folder / "store", "--device", "cpu", "--jobs", 1)
    assert said.code == 0
    assert "damaged: 1 repaired" in said.out
    assert f"{title}: outputs.safetensors does not have the sha256 of its manifest" in said.out
    assert "note: 1 artefact(s) were set aside in" in said.err
    assert "done " in said.err


def test_a_store_without_its_runs_heals_from_the_payloads_in_it(alone, sound):
    for artefact in artefacts(alone / "store"):
        flip(artefact / "measurements.json" if (artefact / "measurements.json").exists()
             else artefact / "trial.json")  # fmt: skip
    verification = verify(alone)
    assert verification.ok, verification
    assert len(verification.repairs) == 17
    assert digests(alone) == digests(sound)


def test_what_no_payload_tells_is_lost_unless_its_run_is_named(alone, sound):
    artefact = artefact_of(alone, "trial")
    flip(artefact / "payload.json")
    verification = verify(alone)
    assert not verification.ok
    (repair,) = verification.repairs
    assert (repair.title, repair.outcome) == (f"job {artefact.name[:12]}", "lost")
    assert repair.detail.startswith("nothing tells how it was computed: run its suite again, or ")
    assert repair.detail.endswith("name the run's folder with --run")
    assert not artefact.exists()
    (again,) = verify(alone, runs=[alone / "elsewhere" / "run"]).repairs
    assert again.fault == "it was set aside before, and not computed again"
    assert again.outcome == "repaired"
    assert digests(alone) == digests(sound)


def test_what_needs_something_lost_is_lost(alone):
    source = artefact_of(alone, "pretrain")
    flip(source / "payload.json")
    trials = [artefact_of(alone, "trial", number) for number in range(4)]
    for trial in trials:
        flip(trial / "outputs.safetensors")
    outcomes = {repair.title: (repair.outcome, repair.detail)
                for repair in verify(alone).repairs}  # fmt: skip
    assert sorted(outcome for outcome, _ in outcomes.values()) == ["lost"] * 3 + ["repaired"] * 2
    details = {detail for _, detail in outcomes.values() if detail.startswith("needs")}
    reason = "nothing tells how it was computed: run its suite again, or name the run's folder"
    assert details == {f"needs job {source.name[:12]}: {reason} with --run"}


def test_decoded_images_are_decoded_again(folder, sound):
    for images in (folder / "store" / "datasets").rglob("*.images.npy"):
        flip(images)
    verification = verify(folder)
    assert verification.ok
    assert {repair.title[:14] for repair in verification.repairs} == {"decoded images"}
    assert {repair.outcome for repair in verification.repairs} == {"repaired"}
    assert verify(folder).repairs == ()
    run(folder)
    assert records(folder) == records(sound)


def test_decoded_images_that_no_job_needs_are_moved_away(folder):
    spare = folder / "store" / "datasets" / ("0" * 64)
    shutil.copytree(next((folder / "store" / "datasets").glob("?" * 64)), spare)
    flip(spare / "manifest.json")
    verification = verify(folder)
    assert verification.ok
    (repair,) = verification.repairs
    assert (repair.outcome, repair.detail) == (
        "removed", "a run that needs them decodes them again",
    )  # fmt: skip
    assert not spare.exists()


def test_decoded_images_of_an_older_format_are_told_and_left(folder):
    older = folder / "store" / "datasets" / ("0" * 64)
    shutil.copytree(next((folder / "store" / "datasets").glob("?" * 64)), older)
    manifest = json.loads((older / "manifest.json").read_text())["manifest"]
    del manifest["format"], manifest["dataset"]
    sealed = {"manifest": manifest, "sha256": digest(manifest)}
    (older / "manifest.json").write_text(json.dumps(sealed))
    verification = verify(folder)
    assert verification.ok
    assert verification.repairs == ()
    (note,) = verification.notes
    assert note.startswith("1 folder(s) of decoded images have an older format, and are prepared")
    assert note.endswith("again when needed; remove freely: 000000000000")
    assert older.exists()


def test_foreign_files_are_named_and_left(folder):
    (folder / "store" / "jobs" / "notes.txt").write_text("mine")
    (artefacts(folder / "store")[0].parent / "backup").mkdir()
    (note,) = verify(folder).notes
    assert note.startswith("these are not artefacts, and were left alone: ")
    assert "notes.txt" in note
    assert "backup" in note


def test_an_artefact_with_a_broken_link_in_its_place(folder, sound):
    dangle(artefacts(folder / "store")[3])
    assert verify(folder).ok
    assert digests(folder) == digests(sound)


# --- another machine ------------------------------------------------------------------------------


def test_what_another_machine_computed_is_not_recomputed_and_told(folder, sound):
    artefact = artefact_of(folder, "trial")
    rewrite(artefact, device="cuda", device_name="NVIDIA H100")
    flip(artefact / "outputs.safetensors")
    said = cli("verify", folder / "store", "--device", "cpu", "--jobs", 1)
    assert said.code == 1
    assert "damaged: 1 not recomputed" in said.out
    assert (
        "(it was computed with device cuda (here cpu), device_name NVIDIA H100 (here " in said.out
    )
    assert "so that its bits may differ: verify it there, or here with --recompute)" in said.out
    assert not artefact.exists()
    said = cli("verify", folder / "store", "--device", "cpu", "--jobs", 1, "--recompute")
    assert said.code == 0
    assert "it was set aside before, and not computed again" in said.out
    assert digests(folder) == digests(sound)


def test_other_bits_are_told_with_what_was_measured_on_the_earlier_ones(folder):
    artefact = artefact_of(folder, "trial")
    measured = artefact / "measurements.json"
    measured.write_text(measured.read_text().replace("fraction", "percents"))
    rewrite(artefact, torch="1.0")
    flip(artefact / "trial.json")
    verification = verify(folder, recompute=True)
    assert not verification.ok
    (repair,) = verification.repairs
    assert repair.outcome == "other bits"
    expected = r"measurements.json; it was computed with torch 1.0 \(now \S+\); measured on the"
    assert re.match(expected + " earlier bits: curve of ", repair.detail)
    assert verify(folder).ok


def test_other_bits_behind_a_damaged_manifest_are_told(folder):
    artefact = artefact_of(folder, "trial")
    measured = artefact / "measurements.json"
    measured.write_text(measured.read_text().replace("fraction", "percents"))
    make_folder(artefact / "manifest.json")
    (repair,) = verify(folder).repairs
    assert repair.outcome == "other bits"
    doubt = "measurements.json; its manifest was damaged, and they may have been, too"
    assert repair.detail.startswith(doubt)


# --- what cannot be verified ----------------------------------------------------------------------


def test_a_plugin_that_is_another_or_gone_is_told(folder, tmp_path):
    plugin = tmp_path / "mine.py"
    source = """
from transferbench import hookimpl
from transferbench.records import Measurement
from transferbench.specs import DiagnosticSpec

def measure(params, subjects, context):
    yield Measurement(metric="m", value=1.0, unit="u", n=1)

@hookimpl
def transferbench_diagnostics():
    return [DiagnosticSpec(name="mine", version=1, summary="s", source="s", license="l",
                           measure=measure, subjects="one")]
"""
    plugin.write_text(source)
    suite = SMALL | {"diagnostics": {"mine": {"name": "mine"}}}
    run(folder, suite, plugins=[plugin])
    mine = [path for path in artefacts(folder / "store")
            if '"metric":"m"' in (path / "measurements.json").read_text()]  # fmt: skip
    flip(mine[0] / "measurements.json")
    (repair,) = verify(folder).repairs
    assert (repair.outcome, repair.fault) == (
        "lost", "measurements.json does not have the sha256 of its manifest",
    )  # fmt: skip
    assert "no diagnostic named 'mine'" in repair.detail
    plugin.write_text(source.replace("version=1", "version=2"))
    (repair,) = verify(folder, plugins=[plugin]).repairs
    assert "'mine' is version 2 here, but the job was planned with version 1" in repair.detail
    plugin.write_text(source)
    (repair,) = verify(folder, plugins=[plugin]).repairs
    assert repair.outcome == "repaired"


def test_a_folder_that_is_no_store_is_refused(folder, tmp_path):
    message = mistake("verify", folder / "run")
    assert f"run is the folder of a run, not a store; its store is {folder}/run/../store" in message
    message = mistake("verify", tmp_path / "nothing")
    assert "nothing is not a store: it has no folder 'jobs'; give the folder of --store" in message
    assert not (tmp_path / "nothing").exists()
    message = mistake("verify", folder / "store", "--run", tmp_path)
    assert "is not a run's folder: it has no run.json that can be read" in message


# --- outside the store ----------------------------------------------------------------------------


def test_data_sets_are_named_and_compared_where_they_can_be_reached(tmp_path):
    data = noise_pictures(tmp_path / "data", {"train": 8, "test": 4}, "ab")
    target = TINY["targets"]["handwriting"] | {"dataset": {"name": "image-folder"}}
    suite = SMALL | {"targets": {"handwriting": target | {"labels_per_class": 3}}}
    run(tmp_path, suite, data_root=data)
    (thing,) = [each for each in verify(tmp_path).outside if "image-folder" in each.name]
    assert thing.status == "not here"
    assert "pass --data-root FOLDER" in thing.detail
    assert thing.detail.endswith("the decoded images in the store are sound")
    verification = verify(tmp_path, data_root=data)
    assert {each.status for each in verification.outside} == {"as it was"}
    picture = data / "image-folder" / "train" / "a" / "0.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture)
    verification = verify(tmp_path, data_root=data)
    assert not verification.ok
    (thing,) = [each for each in verification.outside if "image-folder" in each.name]
    assert thing.status == "other content"
    assert thing.detail.startswith("its fingerprint is ")
    shutil.rmtree(tmp_path / "store" / "datasets")
    (thing,) = [each for each in verify(tmp_path).outside if "image-folder" in each.name]
    assert thing.detail.endswith("nor are decoded images")


def test_a_store_of_nothing_needs_nothing(tmp_path):
    Store(tmp_path / "store").prepare()
    said = cli("verify", tmp_path / "store")
    assert said.code == 0
    assert "0 artefacts in" in said.out
    assert "nothing outside the store is needed" in said.out
