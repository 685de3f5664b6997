"""Properties common to all built-in initializations."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from initialized_networks import IMAGES, KINDS, SPECS, initialize, network, same
from tiny_suite import TINY, tiny_suite

from transferbench.api import run
from transferbench.errors import DataError, PluginError
from transferbench.registry import load_registry

COPIES = {"pretrained", "random-label", "first-k"}
AS_BUILT = {"random", "same-random", "second-random"}
OF_IMAGES = {"data-aligned", "data-dependent", "lsuv"}
OF_SOURCE = {
    "bootstrap", "data-aligned", "first-k", "mean-var", "pretrained", "random-label",
    "spectrum-matched", "top-directions", "weight-shuffle",
}  # fmt: skip


def fits(name: str, kind: str) -> bool:
    return name != "mimetic" or kind == "timm/test_vit"


CASES = [(name, kind) for name in sorted(SPECS) for kind in KINDS if fits(name, kind)]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_equal_seeds_give_equal_weights_and_only_the_body_changes(name: str, kind: str) -> None:
    first, second = initialize(name, kind), initialize(name, kind)
    head = first.modules["head"]
    assert same(first.after, second.after)
    assert same(first.before, first.after, head)
    changed = not same(first.before, first.after)
    assert changed == (SPECS[name].touches == "body") == (name not in AS_BUILT)
    assert all(bool(torch.isfinite(values).all()) for values in first.after.values())


@pytest.mark.parametrize("name", sorted(set(SPECS) - COPIES - AS_BUILT))
def test_another_seed_gives_other_weights(name: str) -> None:
    kind = "timm/test_vit"
    assert not same(initialize(name, kind, seed=0).after, initialize(name, kind, seed=1).after)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_global_generators_and_inputs_are_unchanged(name: str, kind: str) -> None:
    net = network(kind, 1)
    images = IMAGES.clone()
    trainable = [parameter.requires_grad for parameter in net.parameters()]
    source = initialize("pretrained", kind).source
    original = {key: values.clone() for key, values in source.items()}
    states = (torch.get_rng_state(), repr(np.random.get_state()), random.getstate())  # noqa: NPY002  # the global one
    initialize(name, kind, net=net, source=source, images=images)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (repr(np.random.get_state()), random.getstate()) == states[1:]  # noqa: NPY002  # as above
    assert torch.equal(images, IMAGES)
    assert same(source, original)
    assert net.training
    assert [parameter.requires_grad for parameter in net.parameters()] == trainable


def test_specs_declare_what_they_need() -> None:
    assert {name for name in SPECS if "images" in SPECS[name].needs} == OF_IMAGES
    assert {name for name in SPECS if "source_weights" in SPECS[name].needs} == OF_SOURCE


@pytest.mark.parametrize("name", sorted(OF_SOURCE))
def test_a_missing_source_is_an_error(name: str) -> None:
    message = (
        f"initialization '{name}' needs the source network's weights, and the context has none;"
        " name a source in the suite, or weights that the backbone can load"
    )
    with pytest.raises(PluginError) as raised:
        initialize(name, without="source")
    assert str(raised.value) == message
    message = "source network's weights of epoch 3, and the context has none"
    with pytest.raises(PluginError, match=message):
        initialize(name, without="source", checkpoint=3)


@pytest.mark.parametrize("name", sorted(OF_SOURCE))
def test_specs_declare_their_checkpoint(name: str) -> None:
    spec = SPECS[name]
    assert spec.checkpoint(spec.parse({})) is None
    assert spec.checkpoint(spec.parse({"checkpoint": 0})) == 0


@pytest.mark.parametrize("name", sorted(OF_IMAGES))
@pytest.mark.parametrize("images", [None, IMAGES[:0]])
def test_missing_images_are_an_error(name: str, images: torch.Tensor | None) -> None:
    options = {"without": "images"} if images is None else {"images": images}
    message = "needs target images, and the context has none; run it in a suite"
    with pytest.raises(PluginError, match=message):
        initialize(name, **options)


@pytest.mark.parametrize("name", sorted(set(SPECS) - OF_SOURCE - {"mimetic"}))
def test_initializations_that_need_no_source_use_none(name: str) -> None:
    assert same(initialize(name).after, initialize(name, without="source").after)


@pytest.mark.parametrize("name", sorted(OF_SOURCE))
def test_a_source_of_another_shape_is_an_error(name: str) -> None:
    source = initialize("pretrained").source | {"conv1.weight": torch.ones(2, 1, 3, 3)}
    with pytest.raises(DataError, match=r"conv1\.weight is \(2, 1, 3, 3\) where the network has"):
        initialize(name, source=source)


def test_all_are_registered_with_summary_and_source() -> None:
    registry = load_registry((), {})
    for name, spec in SPECS.items():
        assert registry.initialization(name) == spec
        assert "https://arxiv.org/abs/" in spec.source
        assert len(spec.summary) <= 85


# --- in a suite -------------------------------------------------------------------------------

SMALL = {
    "replicates": 1,
    "perturbations": {"none": {"name": "identity"}},
    "diagnostics": {},
    "claims": {},
}
ARMS = {name: {"name": name, "recipe": "short"} for name in sorted(set(SPECS) - {"mimetic"})}


def finished(out, **changes):
    done = run(tiny_suite(**SMALL, **changes), out=out, jobs=1, device="cpu")
    assert not done.failed
    table = done.measurements
    return table[(table.diagnostic == "trial") & (table.metric == "train_loss")]


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """All arms for convolutional networks, trained at 8 px."""
    ordinary = TINY["sources"]["source"]
    arms = ARMS | {
        "P-T": {"name": "pretrained", "recipe": "short"},
        "RI-T": {"name": "random", "recipe": "short"},
        "random-label": {"name": "random-label", "recipe": "short", "source": "shuffled"},
    }
    sources = {"source": ordinary, "shuffled": ordinary | {"shuffle_labels": True}}
    out = tmp_path_factory.mktemp("initializations") / "run"
    return finished(out, initializations=arms, sources=sources)


@pytest.mark.parametrize("name", sorted(ARMS))
def test_all_initializations_train_in_a_suite(name, trials):
    (loss,) = trials[trials.initialization == name].value
    assert np.isfinite(loss)


def test_shuffled_source_labels_reach_the_random_label_arm(trials):
    values = trials.set_index("initialization").value
    assert values["random-label"] != values["pretrained"]
    assert values["pretrained"] == values["P-T"]


def test_mimetic_trains_in_a_suite_of_transformers(tmp_path):
    image = TINY["image"] | {"size": 16}
    arms = TINY["initializations"] | {"mimetic": {"name": "mimetic", "recipe": "short"}}
    table = finished(
        tmp_path / "run", image=image, backbones=["timm/test_vit"], initializations=arms
    )
    assert np.isfinite(table[table.initialization == "mimetic"].value).all()
