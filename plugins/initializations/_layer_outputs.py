"""Adjustment of each layer's weights to its output on target images, in one forward pass.

Hooks on a layer are not called where a block computes functionally (Fixup's blocks do), so the
calls of convolutions and linear maps are intercepted: a layer is found when its weight, or a
product of it with a factor, is an argument. Layers are adjusted in the order of their first call,
on the outputs of the adjusted layers before: one pass replaces the layer by layer passes of the
papers.

The pass is in eval mode, without randomness and with unchanged batch statistics, so that a newly
built BatchNorm is the identity.

Shape letters: N images, C channels, H height, W width, F filters (outputs), M values per filter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # the usual name
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode

from transferbench.errors import PluginError, listing
from transferbench.networks.modules import body_names, eval_mode
from transferbench.specs import InitializationContext

__all__ = ["LayerCall", "adjust_layers", "body_layers", "target_images"]

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
CALLS = frozenset({torch.conv1d, torch.conv2d, torch.conv3d, F.linear})
PRODUCTS = frozenset({"mul", "__mul__", "__rmul__", "multiply"})
LISTED = 6


class LayerCall(NamedTuple):
    """The first call of a layer in the pass.

    ``weights``: the layer's weight and, where the network multiplies it by a factor, the product.
    ``call``: computes the output with the current weights.
    """

    name: str
    layer: nn.Module
    weights: tuple[Tensor, ...]
    call: Callable[[], Tensor]

    def filters(self) -> Tensor:
        """The output by filters: (F, M), over images and positions."""
        axis = -1 if isinstance(self.layer, nn.Linear) else 1
        return self.call().movedim(axis, 0).flatten(1)

    def scale(self, factor_F: Tensor) -> None:
        """Multiply the filters by factors (F,), or all by a scalar."""
        for weight in self.weights:
            weight.mul_(factor_F.reshape(-1, *[1] * (weight.ndim - 1)))


Adjust = Callable[[LayerCall], None]


def target_images(plugin: str, context: InitializationContext) -> Tensor:
    """The batch of target images. Raises: ``PluginError`` where there is none."""
    if context.images is None or not len(context.images):
        raise PluginError(
            f"initialization {plugin!r} needs target images, and the context has none; run it in a"
            " suite, which provides a batch of the training images, or put one in the context"
        )
    return context.images


def body_layers(net: nn.Module, context: InitializationContext) -> dict[str, nn.Module]:
    """The convolutions and linear layers outside the head, modules in order."""
    layers: Mapping[str, nn.Module] = dict(net.named_modules())
    owners = [name.removesuffix(".weight") for name in body_names(context.modules)]
    return {name: layers[name] for name in owners if isinstance(layers.get(name), LAYERS)}


def adjust_layers(
    plugin: str,
    net: nn.Module,
    context: InitializationContext,
    draw: Callable[[Tensor, Generator], object],
    adjust: Adjust,
) -> None:
    """Draw the weights of the body's layers, set their biases to 0, then adjust each layer.

    ``draw`` fills a weight in place. ``adjust`` is called at the first call of each layer in a
    forward pass of the target images.

    Raises: ``PluginError`` without images, or with the layers whose calls are not found.
    """
    images, layers = target_images(plugin, context), body_layers(net, context)
    interceptor = _LayerInterceptor(layers, adjust)
    with torch.no_grad():
        for layer in layers.values():
            draw(layer.get_parameter("weight"), context.generator)
            if layer.bias is not None:
                layer.get_parameter("bias").zero_()
        with eval_mode(net), interceptor:
            net(images)
    if interceptor.missing:
        missing = listing(list(interceptor.missing), LISTED)
        raise PluginError(
            f"initialization {plugin!r} finds no output of {missing}: in a forward pass no"
            " convolution or linear map uses their weights, directly or times a factor; choose"
            " another backbone, or an initialization without target images"
        )


class _LayerInterceptor(TorchFunctionMode):
    """Calls ``adjust`` before the first call of each layer inside the block.

    ``missing``: the layers that were not called yet, by name.
    """

    def __init__(self, layers: Mapping[str, nn.Module], adjust: Adjust) -> None:
        super().__init__()
        self.missing = dict(layers)
        self._adjust = adjust
        # By id of the tensor; the weights are stored too, so that no id is reused.
        self._weights: dict[int, tuple[str, tuple[Tensor, ...]]] = {}
        for name, layer in layers.items():
            weight = layer.get_parameter("weight")
            if id(weight) in self._weights:  # shared with a layer before
                del self.missing[name]
            self._weights.setdefault(id(weight), (name, (weight,)))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func in CALLS:
            self._adjust_layer(func, args, named)
        result = func(*args, **named)
        if getattr(func, "__name__", "") in PRODUCTS:
            self._add_product(args, result)
        return result

    def _add_product(self, factors: tuple[Any, ...], product: Tensor) -> None:
        for factor in factors:
            if id(factor) in self._weights and product.shape == factor.shape:
                name, weights = self._weights[id(factor)]
                self._weights[id(product)] = (name, (*weights, product))

    def _adjust_layer(
        self, func: Callable[..., Tensor], args: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        weight = args[1] if len(args) > 1 else named["weight"]
        name, weights = self._weights.get(id(weight), ("", ()))
        if (layer := self.missing.pop(name, None)) is not None:
            self._adjust(LayerCall(name, layer, weights, lambda: func(*args, **named)))
