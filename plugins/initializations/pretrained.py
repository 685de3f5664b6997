"""The pre-trained initialization: the source network's body with a new head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transferbench.specs import InitializationContext, InitializationSpec
from transferbench_plugins.initializations._statistics_params import SourceParams, checkpoint_of

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["PRETRAINED"]


def _initialize(params: SourceParams, net: Module, context: InitializationContext) -> None:
    from transferbench_plugins.initializations._source_weights import copy_source

    copy_source("pretrained", net, context, params.checkpoint)


PRETRAINED = InitializationSpec(
    name="pretrained",
    version=1,
    summary="P: the source network's body with a new head, all of it trained",
    source="Neyshabur, Sedghi, Zhang, NeurIPS 2020, https://arxiv.org/abs/2008.11687",
    license="Apache-2.0",
    params=SourceParams,
    initialize=_initialize,
    needs=frozenset({"source_weights"}),
    touches="body",
    checkpoint=checkpoint_of,
)
