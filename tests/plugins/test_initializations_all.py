"""What every built-in initialization promises, whatever it computes."""

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
    one, two = initialize(name, kind), initialize(name, kind)
    head = one.modules["head"]
    assert same(one.after, two.after)
    assert same(one.before, one.after, head)
    changed = not same(one.before, one.after)
    assert changed == (SPECS[name].touches == "body") == (name not in AS_BUILT)
    assert all(bool(torch.isfinite(values).all()) for values in one.after.values())


@pytest.mark.parametrize("name", sorted(set(SPECS) - COPIES - AS_BUILT))
def test_another_seed_gives_other_weights(name: str) -> None:
    kind = "timm/test_vit"
    assert not same(initialize(name, kind, seed=0).after, initialize(name, kind, seed=1).after)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_nothing_else_is_drawn_from_or_written_to(name: str, kind: str) -> None:
    net = network(kind, 1)
    images = IMAGES.clone()
    trainable = [parameter.requires_grad for parameter in net.parameters()]
    source = initialize("pretrained", kind).source
    kept = {key: values.clone() for key, values in source.items()}
    draws = (torch.get_rng_state(), repr(np.random.get_state()), random.getstate())  # noqa: NPY002  # the global one
    initialize(name, kind, net=net, source=source, images=images)
    assert torch.equal(torch.get_rng_state(), draws[0])
    assert (repr(np.random.get_state()), random.getstate()) == draws[1:]  # noqa: NPY002  # as above
    assert torch.equal(images, IMAGES)
    assert same(source, kept)
    assert net.training
    assert [parameter.requires_grad for parameter in net.parameters()] == trainable


def test_each_declares_what_it_needs() -> None:
    assert {name for name in SPECS if "images" in SPECS[name].needs} == OF_IMAGES
    assert {name for name in SPECS if "source_weights" in SPECS[name].needs} == OF_SOURCE


@pytest.mark.parametrize("name", sorted(OF_SOURCE))
def test_without_a_source_it_says_what_to_do(name: str) -> None:
    message = (
        f"initialization '{name}' needs the source network's weights and was given none;"
        " name a source in the suite, or weights that the backbone can load"
    )
    with pytest.raises(PluginError) as raised:
        initialize(name, without="source")
    assert str(raised.value) == message
    with pytest.raises(PluginError, match="source network's weights of epoch 3 and was given none"):
        initialize(name, without="source", checkpoint=3)


@pytest.mark.parametrize("name", sorted(OF_SOURCE))
def test_each_starts_from_the_checkpoint_it_names(name: str) -> None:
    spec = SPECS[name]
    assert spec.checkpoint(spec.parse({})) is None
    assert spec.checkpoint(spec.parse({"checkpoint": 0})) == 0


@pytest.mark.parametrize("name", sorted(OF_IMAGES))
@pytest.mark.parametrize("images", [None, IMAGES[:0]])
def test_without_images_it_says_what_to_do(name: str, images: torch.Tensor | None) -> None:
    given = {"without": "images"} if images is None else {"images": images}
    with pytest.raises(PluginError, match="looks at target images and was given none; run it in a"):
        initialize(name, **given)


@pytest.mark.parametrize("name", sorted(set(SPECS) - OF_SOURCE - {"mimetic"}))
def test_what_needs_no_source_uses_none(name: str) -> None:
    assert same(initialize(name).after, initialize(name, without="source").after)


@pytest.mark.parametrize("name", sorted(OF_SOURCE))
def test_a_source_of_another_shape_is_named(name: str) -> None:
    source = initialize("pretrained").source | {"conv1.weight": torch.ones(2, 1, 3, 3)}
    with pytest.raises(DataError, match=r"conv1\.weight is \(2, 1, 3, 3\) where the network has"):
        initialize(name, source=source)


def test_all_are_offered_with_their_statistic_and_origin() -> None:
    offered = load_registry((), {})
    for name, spec in SPECS.items():
        assert offered.initialization(name) == spec
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
    """Every arm that suits a convolutional network, trained at 8 px."""
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
def test_every_initialization_trains_in_a_suite(name, trials):
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
