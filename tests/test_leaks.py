"""A target whose images were trained on before is told by the run, the check and the board.

The source of one suite has pictures of one target, the same people as another's, and pictures of a
third that were compressed again; a fourth has nothing to do with it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from command_line import SMALL, Said, cli, mistake, suite_file
from handmade_run import sealed
from PIL import Image, ImageFilter

from transferbench.leaderboard import BoardTable, boards
from transferbench.submission import CheckReport, check
from transferbench.submission.bundle import content_digests
from transferbench.submission.images import ImageSet, differing, read_images, write_images

LEAKING = {
    "copied": "19 of its 20 test images are in the pre-training",
    "same-people": (
        "0 of its 20 test images are in the pre-training, and other images of 10 of their groups"
    ),
}
TARGETS = (*LEAKING, "compressed", "clean")


def pictures(folder: Path, people: range, seed: int) -> None:
    """Two smooth pictures of each person, one in each class."""
    draw = np.random.default_rng(seed)
    for person in people:
        for name in "ab":
            values = draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            path = folder / name / f"person{person}_{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).resize((32, 32), Image.Resampling.BICUBIC).save(path)


def data(root: Path) -> Path:
    """The folders of pictures: of the source and of four targets."""
    folder = root / "image-folder"
    for number, name in enumerate(("source", *TARGETS)):
        first = 100 * number
        pictures(folder / name / "train", range(first, first + 12), number)
        tests = range(900, 910) if name == "same-people" else range(first + 50, first + 60)
        pictures(folder / name / "test", tests, 50 + number)
    pictures(
        folder / "source" / "train", range(900, 910), 9
    )  # whom same-people has other pictures of
    copied = sorted((folder / "copied" / "test").glob("*/*"))
    for path in copied[1:]:
        shutil.copy(path, folder / "source" / "train" / path.parent.name / f"copy-of-{path.name}")
    for path in (folder / "compressed" / "test").glob("*/*"):
        brighter = Image.open(path).filter(ImageFilter.SMOOTH).point(lambda value: 20 + value * 0.9)
        to = folder / "source" / "train" / path.parent.name / f"like-{path.stem}.jpg"
        brighter.save(to, quality=80)
    return root


def of_folder(name: str) -> dict[str, Any]:
    group = (
        {"group": r"^(?:copy-of-|like-)?([a-z]+\d+)_"} if name in {"source", "same-people"} else {}
    )
    return {"name": "image-folder",
            "params": {"train": f"{name}/train", "test": f"{name}/test"} | group}  # fmt: skip


def suite() -> dict[str, Any]:
    targets = {name: {"dataset": of_folder(name), "validation": 0.0} for name in TARGETS}
    source = {"dataset": of_folder("source"), "recipe": "short"}
    short = SMALL["recipes"]["short"] | {"epochs": 1}
    claim = SMALL["claims"]["faster"]
    terms = [term | {"target": "clean"} for term in claim["terms"]]
    return SMALL | {
        "name": "leaks", "image": SMALL["image"] | {"size": 32},
        "sources": {"source": source}, "targets": targets, "recipes": {"short": short},
        "claims": {"faster": claim | {"terms": terms}},
        "scoring": SMALL["scoring"] | {"chance": dict.fromkeys(TARGETS, 0.5),
                                       "reference": dict.fromkeys(TARGETS, 0.9)},
    }  # fmt: skip


class Leaks(NamedTuple):
    """A run, what it said, and the folder of its submission, with nothing pinned beside it."""

    said: Said
    run: Path
    packed: Path


@pytest.fixture(scope="module")
def leaks(tmp_path_factory: pytest.TempPathFactory) -> Leaks:
    folder = tmp_path_factory.mktemp("leaks")
    file, run = suite_file(folder, suite()), folder / "runs" / "run"
    said = cli("run", file, "--out", run, "--jobs", 1, "--data-root", data(folder / "data"))
    assert said.code == 0, said
    known = folder / "suites" / "leaks@1.0.yaml"
    known.parent.mkdir()
    shutil.copy(file, known)
    packed = cli("submission", "pack", run, "--out", folder / "submissions")
    assert packed.code == 0, packed
    return Leaks(said, run, Path(packed.out.strip()))


def forged(packed: Path, folder: Path, overlap: str, *, drop: bool = False) -> Path:
    """The submission with another declared overlap with each target, sealed again."""
    shutil.copytree(packed.parents[3] / "suites", folder / "suites")
    copy = folder / "submissions" / "leaks@1" / packed.parent.name / packed.name
    shutil.copytree(packed, copy)
    head = json.loads((copy / "submission.json").read_text())
    head["declaration"]["overlap"] = dict.fromkeys(TARGETS, overlap)
    (copy / "submission.json").write_text(json.dumps(head))
    if drop:
        (copy / "images.parquet").unlink()
    return sealed(copy)


def overlap_check(report: CheckReport) -> tuple[str, str]:
    (own,) = (each for each in report.checks if each.name == "overlap is computed")
    return own.status, " ".join(own.why)


def only_board(packed: Path) -> BoardTable:
    (board,) = boards(packed.parents[2])
    return board


def test_the_run_tells_each_leak(leaks: Leaks) -> None:
    said = " ".join((leaks.said.out + leaks.said.err).split())
    assert "target:copied: 19 of its 20 test images are also training images of source" in said
    assert "target:same-people: 10 group(s) of its test images by" in said
    assert (
        "target:compressed: 20 of 20 of its test images that are not equal to any have a near"
        in said
    )
    data = json.loads((leaks.run / "run.json").read_text())["data"]
    assert not any("clean" in note and "training images of" in note for note in data["notes"])
    assert data["overlap"] == {
        "copied": "yes",
        "same-people": "yes",
        "compressed": "no",
        "clean": "no",
    }


def test_the_check_tells_each_leak(leaks: Leaks) -> None:
    report = check(leaks.packed)
    assert report.ok, report
    status, why = overlap_check(report)
    assert status == "warning"
    for target, text in LEAKING.items():
        assert f"{target}: {text}" in why
    assert {name: shared.leaks for name, shared in report.shared.items()} == {
        "copied": True, "same-people": True, "compressed": False, "clean": False,
    }  # fmt: skip
    assert str(report).splitlines()[-2] == (
        "test images with a near duplicate in the pre-training: 0 of 20 of clean, 20 of 20 of "
        "compressed, 0 of 1 of copied, 0 of 20 of same-people"
    )


@pytest.mark.parametrize("word", ["no", "unknown"])
def test_a_leak_that_is_denied_is_refused(leaks: Leaks, tmp_path: Path, word: str) -> None:
    report = check(forged(leaks.packed, tmp_path, word))
    status, why = overlap_check(report)
    assert (report.ok, status) == (False, "failed")
    for target, text in LEAKING.items():
        assert f"{target}: {text}; its overlap is declared {word}" in why
    assert "clean: " not in why


def test_without_its_digests_a_denied_leak_counts_as_unknown(leaks: Leaks, tmp_path: Path) -> None:
    packed = forged(leaks.packed, tmp_path, "no", drop=True)
    assert check(packed).ok
    (row,) = only_board(packed).rows
    assert row.cells["overlap"] == ("unknown",)


def test_the_board_tells_each_leak(leaks: Leaks) -> None:
    board = only_board(leaks.packed)
    (row,) = board.rows
    assert row.cells["overlap"] == ("unknown: clean, compressed; yes: copied, same-people",)
    flags = " ".join(board.flags)
    for target, text in LEAKING.items():
        assert f"fixup-resnet8, {target}: {text}." in flags
    assert "20 of 20 of compressed" in flags


@pytest.mark.parametrize("edit", ["other data", "other items", "unordered", "empty"])
def test_digests_of_other_images_are_refused(leaks: Leaks, tmp_path: Path, edit: str) -> None:
    packed = forged(leaks.packed, tmp_path, "yes")
    path = packed / "images.parquet"
    sets = dict(read_images(path))
    name = next(key for key in sets if key[1])
    own = sets[name]
    if edit == "other data":
        sets["0" * 64, True] = sets.pop(name)
    elif edit == "empty":
        path.write_bytes(b"")
    else:
        items = own.items + 1000 if edit == "other items" else own.items[::-1]
        sets[name] = ImageSet(items, *own[1:])
    if edit != "empty":
        write_images(sets, path)
    report = check(sealed(packed))
    expected = {
        "other data": "images of '000000000000', which no job tests on",
        "other items": "test images of",
        "unordered": "the items of a dataset are not in order",
        "empty": "images.parquet: Parquet file size is 0 bytes",
    }
    assert not report.ok
    assert expected[edit] in str(report)


def test_packing_again_gives_the_same_digests(leaks: Leaks, tmp_path: Path) -> None:
    sets = read_images(leaks.packed / "images.parquet")
    write_images(sets, tmp_path / "images.parquet")
    assert (tmp_path / "images.parquet").read_bytes() == (
        leaks.packed / "images.parquet").read_bytes()  # fmt: skip
    assert "images.parquet" in content_digests(leaks.packed)


def test_two_submissions_that_hold_other_images_of_one_dataset_are_told(leaks: Leaks) -> None:
    sets = read_images(leaks.packed / "images.parquet")
    name, own = next(iter(sets.items()))
    assert differing(sets, sets) == []
    other = dict(sets) | {name: own._replace(images=own.images + np.uint64(1))}
    assert differing(sets, other) == [name[0]]
    part = ImageSet(*(None if array is None else array[::2] for array in own))  # type: ignore[arg-type]
    assert differing(sets, dict(sets) | {name: part}) == []


def test_invented_digests_deceive_no_board_and_no_reproduction(
    leaks: Leaks, tmp_path: Path
) -> None:
    packed = forged(leaks.packed, tmp_path, "no")
    path = packed / "images.parquet"
    invented = {
        name: own._replace(images=own.images ^ np.uint64(name[1]), groups=None)
        for name, own in read_images(path).items()
    }
    write_images(invented, path)
    packed = sealed(packed)
    assert check(packed).ok
    (row,) = only_board(packed).rows
    assert row.cells["overlap"] == ("unknown",)
    message = mistake("submission", "reproduce", packed, "--by", "another",
                      "--out", tmp_path / "certificates", "--store", leaks.run.parent / "store",
                      "--data-root", leaks.run.parents[1] / "data")  # fmt: skip
    assert "what the submission says of overlap is not so; nothing is certified" in message


def test_the_page_shows_what_is_said(leaks: Leaks) -> None:
    """docs/how-to/leaks.md, line by line."""
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "leaks.md").read_text()
    notes = json.loads((leaks.run / "run.json").read_text())["data"]["notes"]
    lines = {*notes, *str(check(leaks.packed)).splitlines()}
    outputs = [part.partition("```")[0] for part in page.split("```text\n")[1:]]
    assert len(outputs) == 2
    assert [line for output in outputs for line in output.splitlines() if line not in lines] == []
