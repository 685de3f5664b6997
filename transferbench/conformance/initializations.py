"""The promises of an initialization: its draws, its needs, and what it touches.

It is tried on each network of ``stand_ins``, as the engine would call it; one that it refuses in
words (a ``TransferbenchError``) does not count, as long as there is one that it takes.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, NamedTuple
from unittest import SkipTest

import torch
from torch import Tensor, nn

from transferbench.conformance.checks import Broken, Once
from transferbench.conformance.fixtures import CLASSES, NETWORKS, SIZE
from transferbench.conformance.isolation import offline, settings_kept, untouched_randomness
from transferbench.errors import TransferbenchError
from transferbench.networks.modules import (
    StateDict,
    body_names,
    body_state,
    build_network,
    clone_state,
    partition,
)
from transferbench.specs import HEAD, InitializationContext, InitializationSpec, NoParams

__all__ = ["CHECKS", "InitializationCase"]

COUNT = 24


class Given(NamedTuple):
    """A network before its initialization, and what the engine would give beside it."""

    net: nn.Module
    context: InitializationContext


class Started(NamedTuple):
    """A network after its initialization, its state before, and what was given."""

    net: nn.Module
    before: dict[str, Tensor]
    context: InitializationContext

    @property
    def changed(self) -> set[str]:
        """The names of what is not as it was."""
        after = self.net.state_dict()
        return {name for name in self.before if not torch.equal(self.before[name], after[name])}


class InitializationCase:
    """An initialization with its parameters, and the networks that it takes."""

    def __init__(self, spec: InitializationSpec, params: Any) -> None:
        self.spec = spec
        self.params = params
        self.started = Once(self._started, told_by="it-starts-some-network")

    def _started(self) -> dict[str, Started]:
        found, refused = {}, []
        for network in NETWORKS:
            try:
                found[network] = self.start(network)
            except TransferbenchError as error:
                refused.append(f"{network}: {error}")
        if not found:
            raise Broken(
                f"it refuses every network ({' | '.join(refused)})",
                "take one of them, or declare in needs what it lacks",
            )
        return found

    def given(self, network: str, *, seed: int = 0, other: int = 0) -> Given:
        """A fresh network and its context; ``other`` counts other sources and images."""
        net = copy.deepcopy(_network(network, 1))
        modules = partition(NETWORKS[network], net)
        source = images = None
        if "source_weights" in self.spec.needs:
            source = body_state(_source(network, 2 + other), modules)
        if "images" in self.spec.needs:
            images = _images(other)
        generator = torch.Generator().manual_seed(seed)
        return Given(net, InitializationContext(source, modules, generator, images))

    def start(self, network: str, **chosen: int) -> Started:
        """The network after its initialization. ``chosen`` as in ``given``."""
        return self.run(self.given(network, **chosen))

    def run(self, given: Given) -> Started:
        """What is given, initialized."""
        before = clone_state(given.net)
        self.spec.initialize(self.params, given.net, given.context)
        return Started(given.net, before, given.context)


@cache
def _network(network: str, seed: int) -> nn.Module:
    return build_network(NETWORKS[network], NoParams(), num_classes=len(CLASSES), in_chans=1,
                         image_size=SIZE, init_seed=seed, head_seed=seed)  # fmt: skip


def _source(network: str, seed: int) -> dict[str, Tensor]:
    """A state as after a training: no zeros, no identity norms, off-centre."""
    draws = torch.Generator().manual_seed(seed)
    state = clone_state(_network(network, 2))
    for name, values in state.items():
        if values.is_floating_point():
            values.add_(0.1 * torch.randn(values.shape, generator=draws) + 0.02)
        if name.endswith("running_var"):
            values.abs_().add_(0.5)
        if name.endswith("num_batches_tracked"):
            values.fill_(7)
    return state


def _images(seed: int) -> Tensor:
    """A normalised batch whose neighbouring pixels correlate, (N, 1, H, W)."""
    draws = torch.Generator().manual_seed(seed + 11)
    return torch.randn(COUNT, 1, SIZE, SIZE, generator=draws).cumsum(3) / 3


def _first(case: InitializationCase) -> str:
    return next(iter(case.started()))


# --- the checks -------------------------------------------------------------------------------


def check_it_starts_some_network(case: InitializationCase) -> None:
    """It takes what the engine gives, nothing beyond its ``needs``, and sets a network's weights.

    What it cannot start it refuses in words.
    """
    case.started.told()


def check_the_same_seed_gives_the_same_weights(case: InitializationCase) -> None:
    """Bit for bit, on every network."""
    for network, first in case.started().items():
        one, two = first.net.state_dict(), case.start(network).net.state_dict()
        if different := [name for name in one if not torch.equal(one[name], two[name])]:
            raise Broken(
                f"two calls with one seed give other {', '.join(different[:3])} in {network}",
                "draw from context.generator alone",
            )


def check_weights_are_finite(case: InitializationCase) -> None:
    """Every tensor, and the logits of a first pass."""
    for network, started in case.started().items():
        wild = [name for name, tensor in started.net.state_dict().items()
                if tensor.is_floating_point() and not bool(tensor.isfinite().all())]  # fmt: skip
        if wild:
            raise Broken(f"{', '.join(wild[:3])} of {network} are not finite",
                         "guard divisions by a deviation of zero")  # fmt: skip
        with torch.no_grad():
            logits = copy.deepcopy(started.net).eval()(_images(0))
        if not bool(logits.isfinite().all()):
            raise Broken(f"{network} gives logits that are not finite",
                         "look at the scale of the weights")  # fmt: skip


def check_it_touches_what_it_declares(case: InitializationCase) -> None:
    """``touches``: nothing, the body alone, or the head too; no less and no more."""
    parts: set[str] = set()
    for started in case.started().values():
        body, head = set(body_names(started.context.modules)), set(started.context.modules[HEAD])
        parts |= {"body"} if started.changed & body else set()
        parts |= {"head"} if started.changed & head else set()
    wanted = {"nothing": set(), "body": {"body"}, "everything": {"body", "head"}}
    if parts != wanted[case.spec.touches]:
        names = {frozenset(of): name for name, of in wanted.items()}
        truth = names.get(frozenset(parts))
        raise Broken(
            f"touches is {case.spec.touches!r}, and it changes {_parts(parts)}",
            f"declare touches={truth!r}, or leave the rest alone" if truth
            else "leave the head alone, which is drawn afresh",
        )  # fmt: skip


def _parts(parts: set[str]) -> str:
    return " and ".join(f"the {part}" for part in sorted(parts)) or "nothing"


def check_names_and_shapes_are_kept(case: InitializationCase) -> None:
    """Weights are set in place: the same names, shapes, types and trainable parameters."""
    for network, started in case.started().items():
        fresh = case.given(network).net
        if (found := _structure(started.net)) != (wanted := _structure(fresh)):
            where = sorted(name for name in found.keys() | wanted.keys()
                           if found.get(name) != wanted.get(name))  # fmt: skip
            raise Broken(
                f"{', '.join(where[:3])} of {network} have another shape, type or requires_grad",
                "copy into the tensors that are there: parameter.copy_(...)",
            )
        if started.net.training != fresh.training:
            raise Broken(f"{network} is left in another mode", "give train or eval mode back")


def _structure(net: nn.Module) -> dict[str, Any]:
    trainable = {name: parameter.requires_grad for name, parameter in net.named_parameters()}
    return {
        name: (tuple(tensor.shape), tensor.dtype, trainable.get(name))
        for name, tensor in net.state_dict().items()
    }


def check_what_is_given_is_left_untouched(case: InitializationCase) -> None:
    """The source's weights and the images belong to other jobs as well."""
    for network in case.started():
        given = case.given(network)
        state, images = given.context.source_state, given.context.images
        kept = None if state is None else {name: one.clone() for name, one in state.items()}
        seen = None if images is None else images.clone()
        case.run(given)
        if state is not None and kept is not None and not _equal(state, kept):
            raise Broken("the source's weights were changed", "work on copies of source_state")
        if images is not None and seen is not None and not torch.equal(images, seen):
            raise Broken("the images were changed", "work on a copy of context.images")


def _equal(a: StateDict, b: StateDict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def check_the_network_shares_no_memory(case: InitializationCase) -> None:
    """Training the network must not move the source's weights."""
    for network, started in case.started().items():
        given = started.context.source_state or {}
        theirs = {tensor.untyped_storage().data_ptr() for tensor in given.values()}
        shared = [name for name, tensor in started.net.state_dict().items()
                  if tensor.untyped_storage().data_ptr() in theirs]  # fmt: skip
        if shared:
            raise Broken(f"{', '.join(shared[:3])} of {network} are the source's own tensors",
                         "copy the values: parameter.copy_(...)")  # fmt: skip


def check_what_it_needs_moves_its_weights(case: InitializationCase) -> None:
    """With another source and other images it gives other weights, or it does not need them."""
    if not case.spec.needs:
        raise SkipTest("it needs nothing")
    for network, started in case.started().items():
        other = case.start(network, other=1).net.state_dict()
        if not _equal(started.net.state_dict(), other):
            return
    raise Broken(
        f"it declares needs={set(case.spec.needs)}, and gives the same weights whatever they are",
        "declare what it reads: a run prepares all that is declared",
    )


def check_global_randomness_is_untouched(case: InitializationCase) -> None:
    """All draws come from the context's generator."""
    for network in case.started():
        given = case.given(network)
        with untouched_randomness("draw from context.generator"):
            case.run(given)


def check_no_network_is_used(case: InitializationCase) -> None:
    """The source's weights come in the context."""
    given = case.given(_first(case))
    with offline() as asked:
        case.run(given)
    if asked:
        raise Broken(f"it asked the network for {asked[0]}", "read context.source_state")


def check_settings_of_torch_are_kept(case: InitializationCase) -> None:
    """Default type, gradient mode, threads and determinism belong to the whole process."""
    given = case.given(_first(case))
    with settings_kept():
        case.run(given)


def check_the_checkpoint_is_an_epoch(case: InitializationCase) -> None:
    """``checkpoint(params)`` is None or an epoch of the source that it needs."""
    checkpoint = case.spec.checkpoint(case.params)
    if checkpoint is None:
        return
    if isinstance(checkpoint, bool) or not isinstance(checkpoint, int) or checkpoint < 0:
        raise Broken(f"checkpoint gave {checkpoint!r}", "return an epoch from 0, or None")
    if "source_weights" not in case.spec.needs:
        raise Broken(f"it asks for checkpoint {checkpoint} and needs no source",
                     "declare needs={'source_weights'}")  # fmt: skip


CHECKS = (
    check_it_starts_some_network,
    check_the_same_seed_gives_the_same_weights,
    check_weights_are_finite,
    check_it_touches_what_it_declares,
    check_names_and_shapes_are_kept,
    check_what_is_given_is_left_untouched,
    check_the_network_shares_no_memory,
    check_what_it_needs_moves_its_weights,
    check_global_randomness_is_untouched,
    check_no_network_is_used,
    check_settings_of_torch_are_kept,
    check_the_checkpoint_is_an_epoch,
)
