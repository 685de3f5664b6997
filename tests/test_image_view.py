"""Images that diagnostics get batch by batch give the numbers of a tensor of all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from command_line import SMALL, cli, suite_file
from torch import nn

from transferbench.analysis.landscape import Criterion, Examples, evaluate_states, recalibrate
from transferbench.data.image_view import ImageView
from transferbench.data.pipeline import ImagePipeline
from transferbench.engine import finished_trial
from transferbench.networks.prefix_cache import PrefixCache
from transferbench_plugins.diagnostics._images import compute_logits, image_digest
from transferbench_plugins.diagnostics.landscape import _line

N = 37
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8))


class Noted:
    """A pipeline, and the numbers of images that were made at once."""

    def __init__(self):
        self.pipeline = ImagePipeline(PIXELS, [0.5] * 3, [0.2, 0.3, 0.4])
        self.sizes = []

    def __call__(self, indices):
        self.sizes.append(len(indices))
        return self.pipeline.batch(indices)


@pytest.fixture
def noted():
    return Noted()


@pytest.fixture
def view(noted):
    return ImageView([(noted, torch.arange(N))])


@pytest.fixture
def whole(noted):
    return noted.pipeline.batch(torch.arange(N))


def test_it_has_the_shape_and_the_batches_of_the_tensor(view, whole, noted):
    assert (view.shape, len(view), view.dtype, view.device, view.ndim) == (
        whole.shape, len(whole), whole.dtype, whole.device, whole.ndim
    )  # fmt: skip
    for split in (
        lambda images: torch.split(images, 10),
        lambda images: torch.split(images, [30, 7]),
        lambda images: images.split(5),
        lambda images: torch.tensor_split(images, 4),
        lambda images: images.tensor_split(3),
    ):
        batches, expected = list(split(view)), list(split(whole))
        assert len(batches) == len(expected)
        for batch, other in zip(batches, expected, strict=True):
            assert batch.equal(other)
            assert batch.stride() == other.stride()
    assert max(noted.sizes) == 30
    assert len(view.split(10)) == 4
    assert view.split(10)[-1].equal(whole[30:])
    assert [len(batch) for batch in view.split(10)[1:]] == [10, 10, 7]


def test_slices_and_indices_are_tensors(view, whole, noted):
    indices = torch.tensor([5, 0, 36, 5])
    assert view[:3].equal(whole[:3])
    assert view[2:30:7].equal(whole[2:30:7])
    assert view[indices].equal(whole[indices])
    assert view.index_select(0, indices).contiguous().equal(whole[indices])
    assert len(view[:0]) == 0
    assert max(noted.sizes) == 4


def test_several_are_one_after_another(view, whole, noted):
    other = ImageView([(noted, torch.arange(10, 20))])
    joined, expected = torch.cat([view, other]), torch.cat([whole, whole[10:20]])
    assert isinstance(joined, ImageView)
    order = torch.randperm(len(expected), generator=torch.Generator().manual_seed(0))
    assert joined[order].equal(expected[order])
    assert all(a.equal(b) for a, b in zip(joined.split(9), expected.split(9), strict=True))
    assert max(noted.sizes) <= N


def test_equality_is_told_by_batches(view, whole):
    assert torch.equal(view, whole)
    assert torch.equal(whole, view)
    assert torch.equal(view, view)
    assert not torch.equal(view, whole + 1)
    assert not torch.equal(view, whole[:5])


def test_any_other_use_is_that_of_the_tensor(view, whole):
    net = nn.Conv2d(3, 2, 3)
    assert net(view).equal(net(whole))
    assert torch.mean(view).equal(whole.mean())
    assert view.mean().equal(whole.mean())
    with pytest.raises(AttributeError):
        view.nothing_of_this_name()


def net_with_norm():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return nn.Sequential(body, head).eval()


def test_diagnostics_have_equal_numbers(view, whole, noted):
    assert image_digest(view) == image_digest(whole)
    net, targets = net_with_norm(), torch.arange(N) % 3
    assert np.array_equal(compute_logits(net, view, 7), compute_logits(net, whole, 7))
    states, criterion = [net.state_dict()], Criterion("multi-class", "accuracy")
    values = [
        evaluate_states(net, states, {"all": Examples(images, targets)}, criterion,
                        calibration=images, batch_size=8)
        for images in (view, whole)
    ]  # fmt: skip
    assert values[0] == values[1]
    statistics = []
    for images in (view, whole):
        fresh = net_with_norm()
        recalibrate(fresh, images, batch_size=8)
        statistics.append(fresh[0][1].running_var)
    assert statistics[0].equal(statistics[1])
    inputs = []
    for images in (view, whole):
        with PrefixCache(net, images, 8).inputs_of(["1.2.weight"]) as at_head:
            inputs.append(at_head)
    assert inputs[0].equal(inputs[1])
    subsets = [_line._subset(Examples(images, targets), 11, torch.Generator().manual_seed(1))
               for images in (view, whole)]  # fmt: skip
    assert subsets[0].images.equal(subsets[1].images)
    assert max(noted.sizes) <= N


@pytest.mark.slow
def test_a_run_whose_diagnoses_make_batches_has_the_same_records(tmp_path, monkeypatch):
    diagnostics = {
        "cka": {"name": "cka", "pairs": [{"a": "P-T", "b": "RI-T", "replicates": "same"}]},
        "barrier": {"name": "barrier", "pairs": [{"a": "P-T", "b": "RI-T", "replicates": "same"}]},
        "criticality": {"name": "criticality",
                        "params": {"alphas": 2, "sigmas": [0.1], "draws": 1}},
        "rewinding": {"name": "rewinding"},
        "robustness": {"name": "robustness", "params": {
            "perturbations": [{"name": "gaussian-noise", "settings": [{"severity": 1}]}]}},
        "shape": {"name": "shape-bias", "params": {"block": 2}},
    }  # fmt: skip
    records = []
    for name in ("whole", "batches"):
        if name == "batches":
            monkeypatch.setattr(finished_trial, "WHOLE_BYTES", 0)
        suite = suite_file(tmp_path / name, SMALL, diagnostics=diagnostics, claims={})
        said = cli("run", suite, "--out", tmp_path / name / "run", "--jobs", 1)
        assert said.code == 0, said.err
        records.append((tmp_path / name / "run" / "records.jsonl").read_text())
    assert records[0] == records[1]
