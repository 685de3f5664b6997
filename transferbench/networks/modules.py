"""A network and its declared modules: partition, building, state dicts and penultimate features.

Shape letters: N images, C channels, H height, W width, D features, K classes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from textwrap import shorten
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from transferbench.errors import DataError, PluginError, TransferbenchError, listing
from transferbench.networks.fitting import ImageRequest, advice_for
from transferbench.networks.sharing import refuse_computed_weights, refuse_shared_weights
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
    "head_layers",
    "load_state",
    "normalises_by_batch",
    "optimizer_groups",
    "partition",
    "refuse_untrainable",
    "seeded",
]

Partition = Mapping[str, Sequence[str]]
"""The names of the parameters and buffers of each module, modules from input to output."""
StateDict = Mapping[str, Tensor]
"""Parameters and buffers by name."""

LISTED = 6
"""Names in an error message."""
_ADVICE: dict[tuple[Any, ...], str] = {}
"""The advice of this process for each network that failed."""
MAX_REASON = 200
"""Characters of another library's error in ours."""


# --- partition --------------------------------------------------------------------------------


def partition(spec: BackboneSpec, net: nn.Module) -> dict[str, tuple[str, ...]]:
    """The names of parameters and buffers of each module of ``net``, from input to output.

    Raises: ``PluginError`` unless every name belongs to exactly one module, every prefix matches,
    the last module is HEAD and no two modules share a tensor.
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
    modules = {module: tuple(n for n in names if owners[n] == [module]) for module in declared}
    refuse_shared_weights(spec, net, modules)
    return modules


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

    Raises: ``PluginError`` with the backbone and the reason where it cannot be built, cannot be
    trained, or does not map images of this shape to (N, num_classes).
    """
    request = ImageRequest(num_classes, in_chans, image_size)
    with _plugin_errors(spec, params, request, f"cannot be built for {request}"):
        net = _build(spec, params, request, init_seed)
    refuse_untrainable(spec, net)
    names = list(net.state_dict())
    with _plugin_errors(spec, params, request, f"fails on its first images ({request})"):
        shape = _logits_shape(net, request, init_seed)
    if shape != (2, num_classes):
        raise PluginError(
            f"backbone {spec.name!r}: 2 images must give logits of shape (2, {num_classes}), not"
            f" {shape}; its builder must honour num_classes"
        )
    if changed := sorted(set(names) ^ set(net.state_dict())):
        raise PluginError(
            f"backbone {spec.name!r}: its first forward pass adds or removes"
            f" {listing(changed, LISTED)}; register every weight in build"
        )
    modules = partition(spec, net)
    with seeded(init_seed), eval_mode(net):
        refuse_computed_weights(spec, net, modules)
    load_state(net, _build(spec, params, request, head_seed).state_dict(), modules[HEAD])
    return net


def _build(spec: BackboneSpec, params: Any, request: ImageRequest, seed: int) -> nn.Module:
    with seeded(seed):
        return spec.build(params, *request)


def _logits_shape(net: nn.Module, request: ImageRequest, seed: int) -> tuple[int, ...]:
    """The shape of the output for two images."""
    images = torch.zeros(2, request.in_chans, request.image_size, request.image_size)
    # In eval mode the check does not update batch statistics.
    with seeded(seed), torch.no_grad(), eval_mode(net):
        return tuple(net(images).shape)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A block in which torch's CPU generator starts from ``seed``; restored afterwards."""
    # torch.manual_seed would also reseed all CUDA devices, which are not used here.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _plugin_errors(
    spec: BackboneSpec, params: Any, request: ImageRequest, failure: str
) -> Iterator[None]:
    try:
        yield
    except TransferbenchError:
        raise
    except Exception as error:
        advice = _advice(spec, params, request, error)
        name = f"{spec.name}/{getattr(params, spec.member)}" if spec.member else spec.name
        reason = shorten(f"{type(error).__name__}: {error}", MAX_REASON)
        raise PluginError(f"backbone {name!r} {failure}: {reason}; {advice}") from error


def _advice(spec: BackboneSpec, params: Any, request: ImageRequest, error: Exception) -> str:
    """What to change; looked for once where all jobs of a backbone fail alike."""
    key = spec.name, spec.version, repr(params), request, repr(error)
    if key not in _ADVICE:
        _ADVICE[key] = advice_for(partial(_attempt, spec, params), request, error)
    return _ADVICE[key]


def _attempt(
    spec: BackboneSpec, params: Any, request: ImageRequest, device: str
) -> Exception | None:
    """The error of building a network and of its first images, or None."""
    try:
        with warnings.catch_warnings(), torch.device(device):
            warnings.simplefilter("ignore")
            shape = _logits_shape(_build(spec, params, request, 0), request, 0)
    except Exception as error:  # noqa: BLE001  # a plugin's; its text is compared and never shown
        return error
    return None if shape == (2, request.num_classes) else ValueError(f"logits of {shape}")


def refuse_untrainable(spec: BackboneSpec, net: nn.Module) -> None:
    """Refuse tensors that the optimizer, or arithmetic of weights, cannot work on.

    Raises: ``PluginError`` with their names and what to register instead.
    """
    tensors = net.state_dict(keep_vars=True)
    weights = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, nn.Parameter)}
    problems = {
        "are not tensors; keep them out of the state dict": [
            name for name, tensor in tensors.items() if not isinstance(tensor, Tensor)
        ],
        "have no shape before the first forward pass; give layers their sizes in build": [
            name for name, tensor in tensors.items() if is_lazy(tensor)
        ],
        "are parameters that cannot be trained (not real numbers); register complex weights as"
        " their real and imaginary parts, and integers as buffers": [
            f"{name} ({weight.dtype})"
            for name, weight in weights.items()
            if not weight.is_floating_point()
        ],
    }
    for problem, culprits in problems.items():
        if culprits:
            raise PluginError(f"backbone {spec.name!r}: {listing(culprits, LISTED)} {problem}")


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


def load_state(
    net: nn.Module,
    state: StateDict,
    names: Iterable[str] | None = None,
    origin: str = "these weights",
) -> None:
    """Copy ``state`` into ``net`` in place, keeping device, dtype and memory format.

    ``names``: the tensors to copy (None: all). A weight with several names takes the value of the
    first of them. ``origin``: what an error calls the weights.

    Raises: ``DataError`` with the tensors that are missing, unexpected or of another shape.
    """
    own = net.state_dict()
    selected = list(own) if names is None else list(names)
    _check_state(own, state, selected, origin)
    copied = set[int]()
    with torch.no_grad():
        for name in selected:
            tensor = own[name]
            if not (address := tensor.data_ptr()) or address not in copied:
                copied.add(address)
                tensor.copy_(state[name])


def _check_state(own: StateDict, state: StateDict, selected: list[str], origin: str) -> None:
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
            f"{origin} do not fit the network ({'; '.join(reasons)}); give weights of the"
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


def head_layers(head: nn.Module) -> list[nn.Module]:
    """The layers of ``head``: itself, or those of an ``nn.ModuleList``, which is never called."""
    if not isinstance(head, nn.ModuleList):
        return [head]
    return [layer for part in head for layer in head_layers(part)]


class FeatureRecorder:
    """Records the penultimate features, the head's input, inside a ``with`` block.

    Shapes: ``features`` is (N, D), the head's input flattened from dimension 1. The inputs of
    several layers are concatenated in their order; layers that read one tensor share it.
    """

    def __init__(self, head: nn.Module) -> None:
        self._layers = head_layers(head)
        self._inputs: dict[int, Tensor] = {}

    def __enter__(self) -> Self:
        self._handles = [
            layer.register_forward_pre_hook(partial(self._record, index))
            for index, layer in enumerate(self._layers)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _record(self, index: int, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._inputs[index] = inputs[0]

    @property
    def features(self) -> Tensor:
        """The features of the last forward pass.

        Raises: ``PluginError`` where no forward pass has called the head, or not all of it.
        """
        for index, layer in enumerate(self._layers):
            if index not in self._inputs:
                raise PluginError(
                    f"the head, {type(layer).__name__}, was not called in a forward pass; the"
                    " backbone's head(net) must give the layer that makes the logits"
                )
        # By identity: a layer that reads what another reads adds no feature.
        distinct = {id(features): features for _, features in sorted(self._inputs.items())}
        flat = [features.flatten(1) for features in distinct.values()]
        return flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)


def features_and_logits(net: nn.Module, head: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """One forward pass: ((N, D) features, (N, K) logits) of (N, C, H, W) images."""
    with FeatureRecorder(head) as recorder:
        logits: Tensor = net(images)
        return recorder.features, logits
