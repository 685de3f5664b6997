"""Weight transfusion: the first modules from the source, the rest random or from statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from transferbench.errors import PluginError
from transferbench.specs import HEAD, InitializationContext
from transferbench_plugins.initializations._source_specs import SourceParams, source_spec
from transferbench_plugins.initializations.entries import normal_like

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["FIRST_K"]


class FirstKParams(SourceParams):
    """``modules``: how many of the backbone's modules, from the input, are copied from the source.

    ``rest``: the other modules. ``random``: the backbone's random initialization (Raghu et al.
    2019). ``mean-var``: N(mean, variance) of the source's tensors with norm layers at the identity,
    which is WT-ST-n of Matsoukas et al. 2022.
    """

    modules: Annotated[int, Field(ge=0)] = 1
    rest: Literal["random", "mean-var"] = "random"


def _initialize(params: FirstKParams, net: Module, context: InitializationContext) -> None:
    from transferbench_plugins.initializations._source_weights import copy_source, redraw

    body = [name for name in context.modules if name != HEAD]
    if params.modules > len(body):
        raise PluginError(
            f"initialization 'first-k' copies the first {params.modules} modules, and this backbone"
            f" has {len(body)} before its head ({', '.join(body)}); choose a smaller number, or"
            " 'pretrained' for all of them"
        )
    first = [name for module in body[: params.modules] for name in context.modules[module]]
    rest = [name for module in body[params.modules :] for name in context.modules[module]]
    copied = first if params.rest == "random" else first + rest
    copy_source("first-k", net, context, params.checkpoint, copied)
    if params.rest == "mean-var":
        redraw(net, rest, "identity", lambda _, values: normal_like(values, context.generator))


FIRST_K = source_spec(
    "first-k",
    "Keeps P's first modules; of the rest nothing, or each tensor's mean and variance",
    "Raghu et al., NeurIPS 2019, https://arxiv.org/abs/1902.07208 (transfusion);"
    " Matsoukas et al., CVPR 2022, https://arxiv.org/abs/2203.01825 (WT-ST-n)",
    _initialize,
    FirstKParams,
)
