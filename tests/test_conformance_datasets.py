"""A bad plugin for each check of a dataset."""

import contextlib
import hashlib
import itertools
import re
import socket

import numpy as np
import pytest
from command_line import cli, mistake
from conforming import CLASSES, DATASET, altered, failure, names_of, split
from noise_pictures import noise_pictures

from transferbench.conformance import check_plugin
from transferbench.conformance.datasets import CHECKS
from transferbench.errors import DataError
from transferbench.specs import DataFile, DatasetSplit

COUNTER = itertools.count()


def changed(**fields):
    """The good loader with arrays of both splits replaced by the functions' results."""

    def load(params, name, root, image_size):
        data = split(name, image_size)
        return data._replace(**{field: of(getattr(data, field)) for field, of in fields.items()})

    return {"load": load}


def unsorted(params, name, root, image_size):
    data = split(name, image_size)
    turn = next(COUNTER)
    return data._replace(images=np.roll(data.images, turn, axis=0))


def with_leak(params, name, root, image_size):
    data = split(name, image_size)
    if name == "test":
        data.images[4] = split("train", image_size).images[7]
    return data


def from_the_network(params, name, root, image_size):
    with contextlib.suppress(OSError):  # a silent fallback
        socket.create_connection(("192.0.2.1", 80), timeout=0.001)
    return split(name, image_size)


def set_for_all(params, name, root, image_size):
    np.seterr(all="ignore")
    return split(name, image_size)


def globally_drawn(params, name, root, image_size):
    np.random.rand()  # noqa: NPY002  # what is forbidden
    return split(name, image_size)


def printing(params, name, root, image_size):
    print("hello")  # noqa: T201  # what is caught
    return split(name, image_size)


def one_size(params, name, root, image_size):
    return split(name, 16)


def late_classes(params, root):
    return (*CLASSES, "never seen")


def late_test(params, name, root, image_size):
    data = split(name, image_size)
    return data._replace(labels=data.labels % 2) if name == "test" else data


def file(path="a.bin", content=b"abc"):
    return DataFile(path=path, sha256=hashlib.sha256(content).hexdigest(),
                    size_bytes=len(content), origin="https://example.org")  # fmt: skip


def without_notes(params, root):
    raise DataError("its table lacks line 3; add it")


BAD = {
    "a loader that prints": (
        {"load": printing},
        "nothing-is-printed",
        "it printed 'hello'; take the print out, or use logging",
    ),
    "no test split": (
        {"splits": ("train",)},
        "every-split-is-loaded",
        "declares the splits train, without test; every dataset has train and test",
    ),
    "a tuple for a split": (
        {"load": lambda params, name, root, image_size: tuple(split(name, image_size))},
        "every-split-is-loaded",
        "load('train') returned tuple; return transferbench.specs.DatasetSplit",
    ),
    "a loader that raises": (
        {"load": lambda params, name, root, image_size: {}[name]},
        "every-split-is-loaded",
        "it raised KeyError: 'train' (test_conformance_datasets.py:",
    ),
    "floating images": (
        changed(images=lambda images: images / np.float32(255)),
        "images-are-uint8-of-the-declared-channels",
        "split 'train' has images of float32 (12, 16, 16, 1); give uint8 (N, 16, 16, 1)",
    ),
    "three channels declared as one": (
        changed(images=lambda images: images.repeat(3, axis=3)),
        "images-are-uint8-of-the-declared-channels",
        "(12, 16, 16, 3); give uint8 (N, 16, 16, 1), or declare other channels",
    ),
    "one size for all requests": (
        {"load": one_size},
        "the-image-size-is-honoured",
        "was requested at 24 px and has shape (12, 16, 16, 1); resize to image_size",
    ),
    "a decoder that fails in silence": (
        changed(images=np.zeros_like),
        "images-differ-from-each-other",
        "all 12 images of split 'train' are equal; look at what the decoder reads",
    ),
    "too few labels": (
        changed(labels=lambda labels: labels[:-1]),
        "arrays-of-a-split-are-of-one-length",
        "split 'train' has 12 images, 11 labels, 12 groups; give one of each for every image",
    ),
    "groups of floats": (
        changed(groups=lambda groups: groups / 2),
        "arrays-of-a-split-are-of-one-length",
        "the groups of split 'train' are float64 (12,); give one string or integer an image",
    ),
    "labels of another type": (
        changed(labels=lambda labels: labels.astype(np.int32)),
        "labels-are-in-the-range-of-the-classes",
        "the labels of split 'train' are int32 (12,); a multi-class task has int64 (N,) labels",
    ),
    "labels from 1": (
        changed(labels=lambda labels: labels + 1),
        "labels-are-in-the-range-of-the-classes",
        "split 'train' has the label 3; 3 classes allow 0 to 2",
    ),
    "labels of one column for several classes": (
        {
            **changed(labels=lambda labels: (labels[:, None] > 0).astype(np.float32)),
            "task": "multi-label",
        },
        "labels-are-in-the-range-of-the-classes",
        "are float32 (12, 1); a multi-label task has float32 (N, 3) labels",
    ),
    "a class without images": (
        {"classes": late_classes},
        "every-class-is-learnable",
        "no training image is of class never seen; drop the class, or put images of it into train",
    ),
    "a class without test images": (
        {"load": late_test},
        "every-class-is-learnable",
        "no test image is of class striped; drop the class, or put images of it into test",
    ),
    "notes that find a mistake": (
        {"notes": without_notes},
        "a-run-can-prepare-it",
        "its table lacks line 3; add it",
    ),
    "one class": (
        {"classes": lambda params, root: ("only",), **changed(labels=np.zeros_like)},
        "every-class-is-learnable",
        "it has 1 class(es); a task needs something to tell apart",
    ),
    "two classes of one name": (
        {"classes": lambda params, root: ("cat", "dog", "cat")},
        "classes-are-named-once",
        "two classes are called cat; give each its own name",
    ),
    "a list of numbers for classes": (
        {"classes": lambda params, root: [0, 1, 2]},
        "classes-are-named-once",
        "classes() returned [0, 1, 2]; give a tuple of names",
    ),
    "a leak under another name": (
        {"load": with_leak},
        "no-image-is-in-two-splits",
        (
            "splits 'train' and 'test' share 1 image(s) pixel by pixel, such as number 7 of "
            "'train' and number 4 of 'test'; keep one of each"
        ),
    ),
    "a group on both sides": (
        changed(groups=lambda groups: groups % 100),
        "no-group-is-in-two-splits",
        "share 3 group(s) by pair, such as '0'; split by groups, not by images",
    ),
    "another order each time": (
        {"load": unsorted},
        "the-same-call-gives-the-same-pixels",
        "two loads of split 'train' gave other images; sort what is listed",
    ),
    "a download in load": (
        {"load": from_the_network},
        "a-second-load-needs-no-network",
        "loading it again tried to reach ('192.0.2.1', 80) on the network; read from root",
    ),
    "numpy's global generator": (
        {"load": globally_drawn},
        "global-randomness-is-untouched",
        "the global generator of numpy.random was moved; draw from numpy.random.default_rng",
    ),
    "an errstate that is not restored": (
        {"load": set_for_all},
        "what-everybody-shares-is-kept",
        "numpy.geterr() went from {",
    ),
    "a file outside the root": (
        {"files": (file("../a.bin"),), "needs_root": True},
        "files-are-as-declared",
        "declares the file '../a.bin'; give paths below the root",
    ),
    "a file declared twice": (
        {"files": (file(), file()), "needs_root": True},
        "files-are-as-declared",
        "declares one file twice; declare each file once",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_each_bad_dataset_is_caught_with_advice(bad):
    changes, check, words = BAD[bad]
    assert words in failure(altered(DATASET, **changes), check)


def test_every_check_fails_for_a_bad_plugin():
    assert {check for _, check, _ in BAD.values()} == names_of(CHECKS)


def test_a_file_of_other_content_is_caught_with_its_origin(tmp_path):
    spec = altered(DATASET, files=(file(),), needs_root=True)
    folder = tmp_path / spec.name
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"abd")
    message = failure(spec, "files-are-as-declared", then=": ", data_root=tmp_path)
    assert "is not the declared content" in message
    assert "get it again from https://example.org" in message


def test_a_dataset_without_its_files_is_skipped_with_advice():
    spec = altered(DATASET, files=(file(),), needs_root=True)
    results = {result.check: result for result in check_plugin(spec)}
    assert results["every-split-is-loaded"].status == "skipped"
    assert "no data root was given: get them from" in results["every-split-is-loaded"].message


def test_a_declared_share_is_skipped_with_its_reason():
    leaking = altered(DATASET, load=with_leak, shared_between_splits="found by its readers")
    results = {result.check: result for result in check_plugin(leaking)}
    for check in ("no-image-is-in-two-splits", "no-group-is-in-two-splits"):
        assert results[check].status == "skipped"
        assert results[check].message.endswith("is published so: found by its readers")


def assert_conforms(spec):
    results = check_plugin(spec)
    assert "no-image-is-in-two-splits" in {result.check for result in results}
    assert [result for result in results if not result.ok] == []


def test_blank_images_may_be_in_two_splits():
    def load(params, name, root, image_size):
        data = split(name, image_size)
        data.images[0] = 255
        return data

    assert_conforms(altered(DATASET, load=load))


def test_several_labels_an_image_conform():
    def load(params, name, root, image_size):
        data = split(name, image_size)
        return DatasetSplit(data.images, np.eye(3, dtype=np.float32)[data.labels], data.groups)

    assert_conforms(altered(DATASET, load=load, task="multi-label", metric="auc"))


# --- the command --------------------------------------------------------------------------------


def test_a_data_root_that_was_named_and_is_not_there_is_a_mistake(tmp_path):
    check = ("plugin", "check", "image-folder", "--data-root")
    message = mistake(*check, tmp_path / "nowhere")
    assert message == (
        f"error: there is no folder {tmp_path / 'nowhere'}, which was named as the data root\n"
    )
    message = mistake("plugin", "check", "fashion-mnist", "--data-root", tmp_path)
    assert f"there is no folder {tmp_path / 'fashion-mnist'}" in message


def test_a_folder_is_refused_as_a_run_refuses_it_and_the_parameters_are_said(tmp_path):
    """The hash of its name puts the one picture of class d into training: none is left to test."""
    root = noise_pictures(tmp_path, {".": 12}, "a")
    one = noise_pictures(tmp_path / "more", {".": 1}, "cd", size=9) / "image-folder" / "d"
    one.rename(root / "image-folder" / "d")
    said = cli("plugin", "check", "image-folder", "--data-root", root)
    assert said.code == 1
    (failed,) = re.findall(r"^failed: (.*)", said.out, re.MULTILINE)
    assert failed == (
        "dataset 'image-folder': a-run-can-prepare-it: dataset 'image-folder': with test_share 0.2 "
        "no picture of class 'd' is in the split 'test': add pictures, choose another share, or "
        "put the test pictures into a folder of their own"
    )
    assert (
        "parameters of image-folder: train='.', test=None, test_share=0.2, group=None (its tiny "
        "ones; --param sets others)\n"
    ) in said.out
    said = cli("plugin", "check", "image-folder", "--data-root", root, "--param", "test_share=0.5")
    assert "parameters of image-folder: train='.', test=None, test_share=0.5, group=None\n" in (
        said.out
    )
