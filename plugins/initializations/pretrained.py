"""The source network's body, copied, with a new head: pretrained and random-label.

The source of ``random-label`` was trained on shuffled labels. The suite declares such a source, and
the arm names it::

    sources:
      shuffled: {dataset: {name: glyphs}, recipe: pretrain, shuffle_labels: true}
    initializations:
      RL-T: {name: random-label, source: shuffled, recipe: P-T}

The separate name distinguishes the arms in reports. An initialization does not know what its source
was trained on: with an ordinary source, or external weights, this equals ``pretrained``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transferbench.specs import InitializationContext, InitializationSpec
from transferbench_plugins.initializations._source_specs import SourceParams, source_spec

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["PRETRAINED", "RANDOM_LABEL"]


def _copying_spec(name: str, summary: str, source: str) -> InitializationSpec:
    def initialize(params: SourceParams, net: Module, context: InitializationContext) -> None:
        from transferbench_plugins.initializations._source_weights import copy_source

        copy_source(name, net, context, params.checkpoint)

    return source_spec(name, summary, source, initialize)


PRETRAINED = _copying_spec(
    "pretrained",
    "P: the source network's body with a new head, all of it trained",
    "Neyshabur, Sedghi, Zhang, NeurIPS 2020, https://arxiv.org/abs/2008.11687",
)

RANDOM_LABEL = _copying_spec(
    "random-label",
    "Keeps all weights of a source trained on shuffled labels, which its arm must name",
    "Maennel et al., NeurIPS 2020, https://arxiv.org/abs/2006.10455",
)
