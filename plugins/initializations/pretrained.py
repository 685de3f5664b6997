"""The pre-trained initialization: the source network's body, under a fresh head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from transferbench.errors import PluginError
from transferbench.specs import InitializationContext, InitializationSpec, Params

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["PRETRAINED"]


class PretrainedParams(Params):
    """``checkpoint``: the pre-training epoch to start from (None: the last one)."""

    checkpoint: Annotated[int, Field(ge=0)] | None = None


def _initialize(params: PretrainedParams, net: Module, context: InitializationContext) -> None:
    from transferbench.networks.modules import body_names, load_state

    if context.source_state is None:
        which = "" if params.checkpoint is None else f" of epoch {params.checkpoint}"
        raise PluginError(
            f"initialization 'pretrained' needs the source network's weights{which} and was given"
            " none; name a source in the suite, or weights that the backbone can load"
        )
    load_state(net, context.source_state, body_names(context.modules))


def _checkpoint(params: PretrainedParams) -> int | None:
    return params.checkpoint


PRETRAINED = InitializationSpec(
    name="pretrained",
    version=1,
    summary="P: the source network's body, all of it trained on; the head stays fresh",
    source="Neyshabur, Sedghi, Zhang, NeurIPS 2020, https://arxiv.org/abs/2008.11687",
    license="Apache-2.0",
    params=PretrainedParams,
    initialize=_initialize,
    needs=frozenset({"source_weights"}),
    touches="body",
    checkpoint=_checkpoint,
)
