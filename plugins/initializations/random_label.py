"""The random-label initialization: the body of a source network trained on shuffled labels.

The suite declares such a source, and the arm names it::

    sources:
      shuffled: {dataset: {name: glyphs}, recipe: pretrain, shuffle_labels: true}
    initializations:
      RL-T: {name: random-label, source: shuffled, recipe: P-T}

The weights are copied as by ``pretrained``; the separate name distinguishes the arms in reports.
An initialization does not know what its source was trained on: with an ordinary source, or
external weights, this equals ``pretrained``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transferbench.specs import InitializationContext, InitializationSpec
from transferbench_plugins.initializations._statistics_params import SourceParams, checkpoint_of

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["RANDOM_LABEL"]


def _initialize(params: SourceParams, net: Module, context: InitializationContext) -> None:
    from transferbench_plugins.initializations._source_weights import copy_source

    copy_source("random-label", net, context, params.checkpoint)


RANDOM_LABEL = InitializationSpec(
    name="random-label",
    version=1,
    summary="Keeps all weights of a source trained on shuffled labels, which its arm must name",
    source="Maennel et al., NeurIPS 2020, https://arxiv.org/abs/2006.10455",
    license="Apache-2.0",
    params=SourceParams,
    initialize=_initialize,
    needs=frozenset({"source_weights"}),
    touches="body",
    checkpoint=checkpoint_of,
)
