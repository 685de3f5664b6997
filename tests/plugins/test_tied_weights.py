"""A weight that one module holds under two names is measured as the weight that it is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from fake_subject import FakeSubject, both_splits, moved
from initialized_networks import initialize
from torch import Tensor, nn

from transferbench.networks.modules import clone_state
from transferbench.specs import BackboneSpec, DiagnosticContext
from transferbench_plugins.diagnostics import transferbench_diagnostics

DIAGNOSTICS = {spec.name: spec for spec in transferbench_diagnostics()}
MEASURED = {
    "barrier": {"points": 3},
    "basin": {},
    "criticality": {"alphas": 3, "sigmas": [0.1, 0.3], "draws": 2},
    "distance": {},
    "re-randomisation": {},
    "rewinding": {},
}


class Twice(nn.Module):
    """A layer that is applied twice, under one name or under two."""

    def __init__(self, *, names: int) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 5)
        self.first = nn.Linear(5, 5)
        self.second = self.first if names == 2 else None
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.stem, self.first, self.second or self.first):
            x = torch.tanh(layer(x.flatten(1)))
        return self.head(x)


def built(state: Mapping[str, Tensor], names: int) -> nn.Module:
    net = Twice(names=names)
    if names == 2:
        twins = {name.replace("first", "second"): value for name, value in state.items()}
        state = {**twins, **state}
    net.load_state_dict(state)
    return net.eval()


def trial(names: int, seed: int) -> FakeSubject:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        init = clone_state(Twice(names=1))
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(24, 1, 2, 3, generator=generator)
    labels = torch.randint(3, (24,), generator=generator)
    states = {"init": init, "final": moved(init, 0.5, seed=seed), "best": moved(init, 0.3, seed)}

    def fresh(draw: int) -> nn.Module:
        return built(moved(init, 0.2, draw), names)

    modules = {
        "stem": ["stem.weight", "stem.bias"],
        "block": [],
        "head": ["head.weight", "head.bias"],
    }
    modules["block"] = [n for n in fresh(0).state_dict() if n.startswith(("first", "second"))]
    networks = {which: built(state, names) for which, state in states.items()}
    history = ({"epoch": 0, "validation_metric": 0.1}, {"epoch": 2, "validation_metric": 0.5})
    return FakeSubject(
        networks, modules, both_splits(images, labels), job=f"{seed}", history=history, build=fresh
    )


@pytest.mark.parametrize("name", MEASURED)
def test_the_name_of_a_weight_does_not_matter(name: str) -> None:
    spec = DIAGNOSTICS[name]
    params = spec.parse(MEASURED[name])

    def measured(names: int) -> list[tuple[object, ...]]:
        subjects = [trial(names, seed) for seed in ((1,) if spec.subjects == "one" else (1, 2))]
        context = DiagnosticContext(torch.device("cpu"), torch.Generator().manual_seed(0), 0)
        values = spec.measure(params, subjects, context)
        return [(m.metric, *m.coordinates.values(), m.value, m.n, m.flag) for m in values]

    assert measured(names=2) == measured(names=1)


def twice(names: int) -> BackboneSpec:
    middle = {1: ["first"], 2: ["first", "second"]}[names]
    return BackboneSpec(
        name=f"twice-{names}", version=1, summary="for tests", source="here", license="CC0-1.0",
        build=lambda *_: Twice(names=names), head=lambda net: net.get_submodule("head"),
        modules=lambda net: {"stem": ["stem"], "block": middle, "head": ["head"]},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["bootstrap", "mean-var", "spectrum-matched", "weight-shuffle"])
def test_a_weight_is_redrawn_once(name: str) -> None:
    images = torch.randn(24, 1, 2, 3, generator=torch.Generator().manual_seed(3))
    by_one_name, by_two_names = (network_after(name, names, images) for names in (1, 2))
    body = [key for key in by_one_name if not key.startswith("head")]
    assert all(torch.equal(by_two_names[key], by_one_name[key]) for key in body)


def test_layers_that_share_a_weight_are_scaled_once() -> None:
    images = torch.randn(24, 1, 2, 3, generator=torch.Generator().manual_seed(3))
    state = network_after("lsuv", 2, images, tie=True)
    assert torch.equal(state["first.weight"], state["second.weight"])


def network_after(name: str, names: int, images: Tensor, *, tie: bool = False) -> dict[str, Tensor]:
    net = built(clone_state(Twice(names=1)), names)
    if tie:
        net.second = nn.Linear(5, 5)
        net.second.weight = net.first.weight
    generator = torch.Generator().manual_seed(5)
    source = {
        key: torch.randn(value.shape, generator=generator)
        for key, value in clone_state(Twice(names=1)).items()
        if not key.startswith("head")
    }
    if names == 2:
        source |= {key.replace("first", "second"): value for key, value in source.items()}
    result = initialize(name, twice(names), net=net, source=source, images=images)
    return result.after
