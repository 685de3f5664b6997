"""One forward pass in which each layer's weights are set by the output they give on real images.

A hook on a layer is not called where a block computes functionally (Fixup's do), so the calls of
the convolutions and linear maps themselves are watched: a layer is seen when its weight reaches
one of them, as it is or times a factor. Layers are adjusted in the order of their first call, each
on what the adjusted layers before it give: one pass does what the papers do layer by layer.

The pass is in eval mode: it draws nothing and leaves batch statistics as they are, so that a
freshly built BatchNorm is the identity in it.

Shape letters: N images, C channels, H height, W width, F filters (outputs), M values of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from transferbench.errors import PluginError, listing
from transferbench.networks.modules import body_names
from transferbench.specs import InitializationContext

__all__ = ["LayerCall", "adjust_layers", "body_layers", "target_images"]

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
CALLS = frozenset({torch.conv1d, torch.conv2d, torch.conv3d, F.linear})
PRODUCTS = frozenset({"mul", "__mul__", "__rmul__", "multiply"})
NAMED_IN_MESSAGES = 6


class LayerCall(NamedTuple):
    """The first call of a layer in the pass.

    ``weights``: the layer's weight and, where the network multiplied it by a factor, the product.
    ``call``: computes the output with the weights as they now are.
    """

    name: str
    layer: nn.Module
    weights: tuple[Tensor, ...]
    call: Callable[[], Tensor]

    def filters(self) -> Tensor:
        """The output by filters: (F, M), M the images times the places of one."""
        axis = -1 if isinstance(self.layer, nn.Linear) else 1
        return self.call().movedim(axis, 0).flatten(1)

    def scale(self, factor_F: Tensor) -> None:
        """Multiply the filters by factors (F,), or all by one."""
        for weight in self.weights:
            weight.mul_(factor_F.reshape(-1, *[1] * (weight.ndim - 1)))


Adjust = Callable[[LayerCall], None]


def target_images(plugin: str, context: InitializationContext) -> Tensor:
    """The batch of target images. Raises: ``PluginError`` where there is none."""
    if context.images is None or not len(context.images):
        raise PluginError(
            f"initialization {plugin!r} looks at target images and was given none; run it in a"
            " suite, which gives a batch of the training images, or put one in the context"
        )
    return context.images


def body_layers(net: nn.Module, context: InitializationContext) -> dict[str, nn.Module]:
    """The convolutions and linear layers outside the head, in the order of the modules."""
    layers: Mapping[str, nn.Module] = dict(net.named_modules())
    owners = [name.removesuffix(".weight") for name in body_names(context.modules)]
    return {name: layers[name] for name in owners if isinstance(layers.get(name), LAYERS)}


def adjust_layers(
    plugin: str, net: nn.Module, context: InitializationContext, adjust: Adjust
) -> None:
    """Pass the target images through ``net``, adjusting each layer of the body on its way.

    Raises: ``PluginError`` naming the layers whose output the pass does not show.
    """
    images = target_images(plugin, context)
    watch = _Watch(body_layers(net, context), adjust)
    training = net.training
    net.eval()
    with torch.no_grad(), watch:
        net(images)
    net.train(training)
    if unseen := watch.unseen():
        raise PluginError(
            f"initialization {plugin!r} sees no output of {listing(unseen, NAMED_IN_MESSAGES)}:"
            " in a forward pass their weights reach no convolution or linear map as they are or"
            " times a factor; choose another backbone, or an initialization that looks at no images"
        )


class _Watch(TorchFunctionMode):
    """Sees every call of torch inside a ``with`` block."""

    def __init__(self, layers: Mapping[str, nn.Module], adjust: Adjust) -> None:
        super().__init__()
        self._layers = dict(layers)
        self._adjust = adjust
        # By identity of the tensor; the weights are held, so that no other takes the identity.
        self._weights: dict[int, tuple[str, tuple[Tensor, ...]]] = {
            id(weight): (name, (weight,))
            for name, layer in layers.items()
            for weight in [layer.get_parameter("weight")]
        }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func in CALLS:
            self._called(func, args, given)
        result = func(*args, **given)
        if getattr(func, "__name__", "") in PRODUCTS:
            self._multiplied(args, result)
        return result

    def _multiplied(self, factors: tuple[Any, ...], product: Tensor) -> None:
        for factor in factors:
            if id(factor) in self._weights and product.shape == factor.shape:
                name, weights = self._weights[id(factor)]
                self._weights[id(product)] = (name, (*weights, product))

    def _called(
        self, func: Callable[..., Tensor], args: tuple[Any, ...], given: dict[str, Any]
    ) -> None:
        weight = args[1] if len(args) > 1 else given["weight"]
        name, weights = self._weights.get(id(weight), ("", ()))
        if (layer := self._layers.pop(name, None)) is not None:
            self._adjust(LayerCall(name, layer, weights, lambda: func(*args, **given)))

    def unseen(self) -> list[str]:
        """The layers that no call was given the weight of."""
        return list(self._layers)
