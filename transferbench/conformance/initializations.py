"""The checks of an initialization: its draws, its needs, and what it touches.

It is called on each network of ``fixtures.NETWORKS`` as by the engine. It may refuse some of them
with a ``TransferbenchError``, but not all.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple
from unittest import SkipTest

import torch
from torch import Tensor, nn

from transferbench.conformance import cases
from transferbench.conformance.cases import Case, Observation, differing, not_finite
from transferbench.conformance.checks import Violation, defined_in, listed, refuse_any, shared
from transferbench.conformance.draws import draws_recorded
from transferbench.conformance.fixtures import CLASSES, NETWORKS, SIZE
from transferbench.errors import TransferbenchError
from transferbench.networks.modules import body_state, build_network, clone_state, partition
from transferbench.specs import HEAD, InitializationContext, InitializationSpec, NoParams

__all__ = ["CASE", "CHECKS"]

COUNT = 24
SEEDS = (0, 1)
NEEDS = {"source_weights": "the source's weights", "images": "the images"}


class TargetNetwork(NamedTuple):
    """A network and the context of its initialization."""

    net: nn.Module
    context: InitializationContext


class InitializationCase(Case[InitializationSpec]):
    """An initialization with its parameters, and the networks that it takes."""

    draw_advice = "draw from context.generator"
    network_advice = "read context.source_state"

    @shared(reported_by="it-starts-some-network")
    def started(self) -> dict[str, TargetNetwork]:
        """The initialized networks by description."""
        started, refusals = {}, []
        for network in NETWORKS:
            try:
                started[network] = self.initialized(self.target(network))
            except TransferbenchError as error:
                refusals.append(f"{network}: {error}")
        if not started:
            raise Violation(
                f"it refuses every network ({' | '.join(refusals)})",
                "take one of them, or declare in needs what it lacks",
            )
        return started

    @shared(reported_by="no-network-is-used")
    def again(self) -> Observation[dict[str, TargetNetwork]]:
        """The same networks, initialized once more."""
        targets = {network: self.target(network) for network in self.started}
        return self.observed(
            lambda: {network: self.initialized(target) for network, target in targets.items()}
        )

    def target(
        self, network: str, *, other: str | None = None, seed: int = SEEDS[0]
    ) -> TargetNetwork:
        """A fresh network and its context; ``other``: what it needs and is of another draw."""
        net, needs = copy.deepcopy(_network(network, 1)), self.spec.needs
        modules = partition(NETWORKS[network], net)
        source = body_state(_source(network, 3 if other == "source_weights" else 2), modules)
        return TargetNetwork(net, InitializationContext(
            source if "source_weights" in needs else None,
            modules,
            torch.Generator().manual_seed(seed),
            _images(int(other == "images")) if "images" in needs else None,
        ))  # fmt: skip

    def with_fresh(self) -> Iterator[tuple[str, TargetNetwork, TargetNetwork]]:
        """The description of each network, the network as initialized, and a fresh one."""
        for network, started in self.started.items():
            yield network, started, self.target(network)

    def initialized(self, target: TargetNetwork) -> TargetNetwork:
        """The target after the plugin set its weights."""
        self.spec.initialize(self.params, target.net, target.context)
        return target


@cache
def _network(network: str, seed: int) -> nn.Module:
    return build_network(NETWORKS[network], NoParams(), num_classes=len(CLASSES), in_chans=1,
                         image_size=SIZE, init_seed=seed, head_seed=seed)  # fmt: skip


def _source(network: str, seed: int) -> dict[str, Tensor]:
    """A state as after a training: no zeros, no identity norms, nonzero means."""
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


# --- the checks -------------------------------------------------------------------------------


def check_it_starts_some_network(case: InitializationCase) -> None:
    """With the context of the engine, limited to its ``needs``, it sets a network's weights.

    A network that it cannot start it refuses with a ``TransferbenchError``.
    """
    _ = case.started


def check_the_same_seed_gives_the_same_weights(case: InitializationCase) -> None:
    """Bitwise, on every network."""
    for network, started in case.started.items():
        again = case.again.result[network]
        if different := differing(started.net.state_dict(), again.net.state_dict()):
            raise Violation(
                f"two calls with one seed give other {listed(different)} in {network}",
                "draw from context.generator alone",
            )


def check_another_seed_gives_other_draws(case: InitializationCase) -> None:
    """No generator that it draws from is in the same state for two seeds of ``context.generator``.

    All replicates would share the draw. Draws of torch are seen, and those of
    ``numpy.random.default_rng`` called by this name; those of numpy's other generators, of
    ``random.Random`` and of compiled code are not.
    """
    drawn = False
    for network in case.started:
        states = []
        for seed in SEEDS:
            target = case.target(network, seed=seed)
            with draws_recorded() as calls:
                case.initialized(target)
            states.append(calls)
        if fixed := states[0].keys() & states[1].keys():
            call = min(states[0][state] for state in fixed)
            raise Violation(
                f"{call} draws the same numbers for seeds {SEEDS} of the context in {network}",
                "draw from context.generator, or seed another generator with a draw from it",
            )
        drawn = drawn or bool(calls)
    if not drawn:
        raise SkipTest("nothing is drawn")


def check_weights_are_finite(case: InitializationCase) -> None:
    """Every tensor, and the logits of a first pass."""
    for network, started in case.started.items():
        refuse_any(not_finite(started.net.state_dict()), f"of {network} are not finite",
                   "guard divisions by a deviation of zero")  # fmt: skip
        with torch.no_grad():
            logits = copy.deepcopy(started.net).eval()(_images(0))
        if not bool(logits.isfinite().all()):
            raise Violation(f"{network} gives logits that are not finite",
                            "look at the scale of the weights")  # fmt: skip


def check_it_touches_what_it_declares(case: InitializationCase) -> None:
    """It changes exactly what ``touches`` declares: nothing, the body, or the head too."""
    changed: set[str] = set()
    for _, started, fresh in case.with_fresh():
        head = fresh.context.modules[HEAD]
        names = differing(started.net.state_dict(), fresh.net.state_dict())
        changed |= {"head" if name in head else "body" for name in names}
    covered = {"nothing": [], "body": ["body"], "everything": ["body", "head"]}
    if sorted(changed) != covered[case.spec.touches]:
        parts = " and ".join(f"the {part}" for part in sorted(changed)) or "nothing"
        fitting = [name for name, parts in covered.items() if parts == sorted(changed)]
        raise Violation(
            f"touches is {case.spec.touches!r}, and it changes {parts}",
            f"declare touches={fitting[0]!r}, or leave the rest alone" if fitting
            else "leave the head alone, which is drawn afresh",
        )  # fmt: skip


def check_names_and_shapes_are_kept(case: InitializationCase) -> None:
    """Weights are set in place: the same names, shapes, types and trainable parameters."""
    for network, started, fresh in case.with_fresh():
        changed = {name for name, _ in _structure(started.net) ^ _structure(fresh.net)}
        refuse_any(changed, f"of {network} have another shape, type or requires_grad",
                   "copy into the existing tensors: parameter.copy_(...)")  # fmt: skip
        if started.net.training != fresh.net.training:
            raise Violation(f"{network} is left in another mode", "restore train or eval mode")


def _structure(net: nn.Module) -> set[tuple[str, Any]]:
    return {
        (name, (tensor.shape, tensor.dtype, tensor.requires_grad))
        for name, tensor in net.state_dict(keep_vars=True).items()
    }


def check_what_is_given_is_left_untouched(case: InitializationCase) -> None:
    """The source's weights and the images belong to other jobs as well."""
    for _, started, fresh in case.with_fresh():
        used = started.context
        if differing(used.source_state or {}, fresh.context.source_state or {}):
            raise Violation("the source's weights were changed", "work on copies of source_state")
        if used.images is not None and not torch.equal(used.images, _images(0)):
            raise Violation("the images were changed", "work on a copy of context.images")


def check_the_network_shares_no_memory(case: InitializationCase) -> None:
    """Training the network must not move the source's weights."""
    for network, started in case.started.items():
        source = started.context.source_state or {}
        theirs = {tensor.untyped_storage().data_ptr() for tensor in source.values()}
        aliases = [name for name, tensor in started.net.state_dict().items()
                   if tensor.untyped_storage().data_ptr() in theirs]  # fmt: skip
        refuse_any(aliases, f"of {network} are the source's own tensors",
                   "copy the values: parameter.copy_(...)")  # fmt: skip


def check_what_it_needs_moves_its_weights(case: InitializationCase) -> None:
    """Another source, or other images, lead to other weights: what ``needs`` declares is used."""
    if not case.spec.needs:
        raise SkipTest("it needs nothing")
    for need in sorted(case.spec.needs):
        if any(_moved_by(case, need, network) for network in case.started):
            continue
        if case.params != case.spec.parse(case.spec.tiny):  # needs are declared for any parameters
            raise SkipTest(f"with these parameters its weights do not depend on {NEEDS[need]}")
        raise Violation(
            f"it declares needs={sorted(case.spec.needs)}, and its weights do not depend on "
            f"{NEEDS[need]}",
            "declare only what it reads: a run prepares all that is declared",
        )


def _moved_by(case: InitializationCase, need: str, network: str) -> bool:
    other = case.initialized(case.target(network, other=need))
    return bool(differing(case.started[network].net.state_dict(), other.net.state_dict()))


def check_the_checkpoint_is_an_epoch(case: InitializationCase) -> None:
    """``checkpoint(params)`` is None or an epoch of the source that it needs."""
    checkpoint = case.spec.checkpoint(case.params)
    if checkpoint is None:
        return
    if isinstance(checkpoint, bool) or not isinstance(checkpoint, int) or checkpoint < 0:
        raise Violation(f"checkpoint returned {checkpoint!r}", "return an epoch from 0, or None")
    if "source_weights" not in case.spec.needs:
        raise Violation(f"it asks for checkpoint {checkpoint} and needs no source",
                        "declare needs={'source_weights'}")  # fmt: skip


CASE = InitializationCase
CHECKS = (*defined_in(__name__), *cases.CHECKS)
