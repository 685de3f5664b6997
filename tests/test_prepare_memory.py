"""Preparing pictures takes memory for some of them at a time, and goes on where it was killed."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from memory import growth_bytes
from PIL import Image
from test_datacache import make_spec

from transferbench.data.cache import StoredForm, prepare
from transferbench.specs import DatasetItems

COUNT, SIDE = 6000, 256
PER_PICTURE = 75_000
"""20,000 pictures would take 1.5 GB, decoded they are 3.9 GB."""


def picture(position):
    pixels = np.random.default_rng(position).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((SIDE, SIDE)).save(stream, "JPEG", quality=60)
    return stream.getvalue()


def spec_of(read=picture):
    def items(params, split, root):  # noqa: ARG001  # the protocol
        count, first = (COUNT, 0) if split == "train" else (60, COUNT)
        groups = np.array([f"{split}-{position}" for position in range(count)])
        return DatasetItems(np.arange(count) % 3, groups, lambda i: read(first + i))

    return make_spec(items=items, channels=3)


def prepared(folder, read=picture):
    return prepare(spec_of(read), {}, StoredForm(SIDE, 3), cache=folder, data_root=None)


def decode_until_killed(folder):
    prepared(folder)


@pytest.mark.slow
def test_memory_is_bounded_per_picture_and_a_killed_process_is_gone_on_with(tmp_path):
    first = multiprocessing.get_context("fork").Process(
        target=decode_until_killed, args=(tmp_path,)
    )
    first.start()
    digests = tmp_path / "unfinished"
    while not (marks := list(digests.glob("*/train.digests"))) or not marks[0].stat().st_size:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    before = marks[0].stat().st_size // 16
    assert 0 < before < COUNT
    read = []

    def noted(position):
        read.append(position)
        return picture(position)

    assert growth_bytes(lambda: prepared(tmp_path, noted)) < COUNT * PER_PICTURE
    assert min(read) >= before
    assert len(read) == COUNT + 60 - before
    split = prepared(tmp_path).splits["train"]
    image = np.asarray(Image.open(io.BytesIO(picture(7))).convert("RGB"))
    assert np.array_equal(split.images[7], image)
