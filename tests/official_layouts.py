"""Tiny pictures in the layouts that datasets are published in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from transferbench.data.cache import StoredForm, prepare
from transferbench.data.items import decoded_split
from transferbench.errors import DataError

_seeds = itertools.count()


def noise(size=(8, 8), mode="RGB"):
    """A picture unlike all others of this process."""
    shape = (*size[::-1], len(mode)) if len(mode) > 1 else size[::-1]
    pixels = np.random.default_rng(next(_seeds)).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels)


def draw(path, **options):
    """Write a picture of noise, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(**options).save(path, format="JPEG" if path.suffix == ".JPEG" else None)


def loaded(spec, root, which="train", /, **params):
    """A split at 8 px, decoded as ``prepare`` does."""
    parsed = spec.parse(params)
    return decoded_split(spec.with_params(parsed), parsed, which, root, 8)


def labels_by_group(spec, root, which="train", /, **params):
    """Group -> label, of pictures that are each a group."""
    content = loaded(spec, root, which, **params)
    return dict(zip(content.groups.tolist(), content.labels.tolist(), strict=True))


def prepared(spec, data_root, tmp_path, **params):
    """The dataset through the cache, where all its promises are checked."""
    form = StoredForm(8, 3)
    return prepare(spec, params, form, cache=tmp_path / "cache", data_root=data_root)


def refused(spec, data_root, tmp_path, **params):
    """The message of preparing data that cannot be."""
    with pytest.raises(DataError) as caught:
        prepared(spec, data_root, tmp_path, **params)
    return str(caught.value)
