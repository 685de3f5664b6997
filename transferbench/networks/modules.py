"""A network and its declared modules: partition, building, state dicts and penultimate features.

Shape letters: N images, C channels, H height, W width, D features, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from transferbench.errors import DataError, PluginError, TransferbenchError, listing
from transferbench.specs import HEAD, BackboneSpec, RateFactor

__all__ = [
    "FeatureRecorder",
    "Partition",
    "StateDict",
    "body_in_eval",
    "body_names",
    "body_state",
    "build_network",
    "clone_state",
    "eval_mode",
    "features_and_logits",
    "freeze_body",
    "load_state",
    "normalises_by_batch",
    "optimizer_groups",
    "partition",
    "seeded",
]

Partition = Mapping[str, Sequence[str]]
"""The names of the parameters and buffers of each module, modules from input to output."""
StateDict = Mapping[str, Tensor]
"""Parameters and buffers by name."""

LISTED = 6
"""Names in an error message."""


# --- partition --------------------------------------------------------------------------------


def partition(spec: BackboneSpec, net: nn.Module) -> dict[str, tuple[str, ...]]:
    """The names of parameters and buffers of each module of ``net``, from input to output.

    Raises: ``PluginError`` unless every name belongs to exactly one module, every prefix matches
    and the last module is HEAD.
    """
    declared = {module: tuple(prefixes) for module, prefixes in spec.modules(net).items()}
    names = list(net.state_dict())
    owners = {
        name: [m for m, prefixes in declared.items() for p in prefixes if _matches(name, p)]
        for name in names
    }
    prefixes = [prefix for group in declared.values() for prefix in group]
    problems = {
        "no module owns": [name for name in names if not owners[name]],
        "several modules own": [name for name in names if len(owners[name]) > 1],
        "nothing in the network matches": [
            prefix for prefix in prefixes if not any(_matches(name, prefix) for name in names)
        ],
        "no parameter or buffer belongs to": [m for m in declared if not declared[m]],
    }
    for problem, culprits in problems.items():
        if culprits:
            raise PluginError(
                f"backbone {spec.name!r}: {problem} {listing(culprits, LISTED)}; modules() must"
                " name every parameter and buffer exactly once"
            )
    if not declared or list(declared)[-1] != HEAD:
        raise PluginError(
            f"backbone {spec.name!r}: the last module must be {HEAD!r}, the layer that a new"
            f" target replaces, but modules() gives {', '.join(declared) or 'none'}; put it"
            " last"
        )
    return {module: tuple(n for n in names if owners[n] == [module]) for module in declared}


def _matches(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


# --- building ---------------------------------------------------------------------------------


def build_network(
    spec: BackboneSpec,
    params: Any,
    *,
    num_classes: int,
    in_chans: int,
    image_size: int,
    init_seed: int,
    head_seed: int,
) -> nn.Module:
    """A new network on the CPU: body initialized from ``init_seed``, head from ``head_seed``.

    The head comes from a second build, so that the backbone's own initialization applies to it.
    The states of the global generators, CUDA's included, do not change.

    Raises: ``PluginError`` with the backbone and the reason where it cannot be built, or does not
    map images of this shape to (N, num_classes).
    """

    def build(seed: int) -> nn.Module:
        with seeded(seed):
            return spec.build(params, num_classes, in_chans, image_size)

    setting = f"{num_classes} classes, {in_chans} channel(s), {image_size} px"
    with _plugin_errors(spec, f"cannot be built for {setting}"):
        net = build(init_seed)
    failure = f"fails on its first images ({setting})"
    # In eval mode the check does not update batch statistics.
    with _plugin_errors(spec, failure), seeded(init_seed), torch.no_grad(), eval_mode(net):
        shape = tuple(net(torch.zeros(2, in_chans, image_size, image_size)).shape)
    if shape != (2, num_classes):
        raise PluginError(
            f"backbone {spec.name!r}: 2 images must give logits of shape (2, {num_classes}), not"
            f" {shape}; its builder must honour num_classes"
        )
    head = partition(spec, net)[HEAD]
    load_state(net, build(head_seed).state_dict(), head)
    return net


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A block in which torch's CPU generator starts from ``seed``; restored afterwards."""
    # torch.manual_seed would also reseed all CUDA devices, which are not used here.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _plugin_errors(spec: BackboneSpec, failure: str) -> Iterator[None]:
    try:
        yield
    except TransferbenchError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(
            f"backbone {spec.name!r} {failure}: {reason}; choose another image size or other"
            " parameters, or repair the backbone"
        ) from error


# --- states -----------------------------------------------------------------------------------


def clone_state(net: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers: detached, contiguous, on the CPU."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in net.state_dict().items()
    }


def body_names(modules: Partition) -> list[str]:
    """The names of all parameters and buffers outside the head, modules in order."""
    return [name for module, names in modules.items() if module != HEAD for name in names]


def body_state(state: StateDict, modules: Partition) -> dict[str, Tensor]:
    """The part of ``state`` outside the head."""
    return {name: state[name] for name in body_names(modules)}


def load_state(net: nn.Module, state: StateDict, names: Iterable[str] | None = None) -> None:
    """Copy ``state`` into ``net`` in place, keeping device, dtype and memory format.

    ``names``: the tensors to copy (None: all).

    Raises: ``DataError`` with the tensors that are missing, unexpected or of another shape.
    """
    own = net.state_dict()
    selected = list(own) if names is None else list(names)
    _check_state(own, state, selected)
    with torch.no_grad():
        for name in selected:
            own[name].copy_(state[name])


def _check_state(own: StateDict, state: StateDict, selected: list[str]) -> None:
    shapes = {name: (own[name].shape, state[name].shape) for name in selected if name in state}
    problems = {
        "missing": [name for name in selected if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            f"{name} is {tuple(shape)} where the network has {tuple(expected)}"
            for name, (expected, shape) in shapes.items()
            if shape != expected
        ],
    }
    if any(problems.values()):
        reasons = [f"{kind}: {listing(names, LISTED)}" for kind, names in problems.items() if names]
        raise DataError(
            f"these weights do not fit the network ({'; '.join(reasons)}); give weights of the"
            " same backbone, parameters, channels and image size"
        )


# --- training a part --------------------------------------------------------------------------


def optimizer_groups(
    net: nn.Module, rate_factors: Sequence[RateFactor], learning_rate: float
) -> list[dict[str, Any]]:
    """The trainable parameters in groups of equal learning rate, for a torch optimizer.

    The factor is that of the first pattern that matches a parameter's name, else 1.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_factor(name, rate_factors), []).append(parameter)
    return [
        {"params": parameters, "lr": learning_rate * factor}
        for factor, parameters in groups.items()
    ]


def _factor(name: str, rate_factors: Sequence[RateFactor]) -> float:
    return next((rate.factor for rate in rate_factors if re.search(rate.pattern, name)), 1.0)


def freeze_body(net: nn.Module, modules: Partition) -> None:
    """Exclude all parameters outside the head from training."""
    frozen = set(body_names(modules))
    for name, parameter in net.named_parameters():
        if name in frozen:
            parameter.requires_grad = False


def body_in_eval(net: nn.Module, head: nn.Module) -> None:
    """Put all but the head in eval mode: batch statistics and features do not change."""
    net.eval()
    head.train()


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; each submodule's mode is restored afterwards."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def normalises_by_batch(net: nn.Module) -> bool:
    """Whether the output for an image in training mode depends on the rest of its batch."""
    return any(isinstance(module, _BatchNorm) for module in net.modules())


# --- features ---------------------------------------------------------------------------------


class FeatureRecorder:
    """Records the penultimate features, the head's input, inside a ``with`` block.

    Shapes: ``features`` is (N, D), the head's input flattened from dimension 1.
    """

    def __init__(self, head: nn.Module) -> None:
        self._head = head
        self._input: Tensor | None = None

    def __enter__(self) -> Self:
        self._handle = self._head.register_forward_pre_hook(self._record)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _record(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._input = inputs[0]

    @property
    def features(self) -> Tensor:
        """The features of the last forward pass.

        Raises: ``PluginError`` where no forward pass has called the head.
        """
        if self._input is None:
            raise PluginError(
                f"the head, {type(self._head).__name__}, was not called in a forward pass; the"
                " backbone's head(net) must give the layer that makes the logits"
            )
        return self._input.flatten(1)


def features_and_logits(net: nn.Module, head: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """One forward pass: ((N, D) features, (N, K) logits) of (N, C, H, W) images."""
    with FeatureRecorder(head) as recorder:
        logits: Tensor = net(images)
        return recorder.features, logits
