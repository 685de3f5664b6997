"""Random initializations by the backbone: one per replicate, a second one, or shared by all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transferbench.specs import InitializationContext, InitializationSpec

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["RANDOM", "SAME_RANDOM", "SECOND_RANDOM"]

SOURCE = "Neyshabur, Sedghi, Zhang, NeurIPS 2020, https://arxiv.org/abs/2008.11687"


def _keep(params: Any, net: Module, context: InitializationContext) -> None:
    """Keep the weights that the builder has drawn."""


RANDOM = InitializationSpec(
    name="random",
    version=1,
    summary="RI: the backbone's own random initialization, another draw for each replicate",
    source=SOURCE,
    license="Apache-2.0",
    initialize=_keep,
    touches="nothing",
)

SAME_RANDOM = InitializationSpec(
    name="same-random",
    version=1,
    summary="One random draw of the body that all replicates share: the control for shared starts",
    source=f"{SOURCE}, figure 16",
    license="Apache-2.0",
    initialize=_keep,
    touches="nothing",
    draw="shared",
)

SECOND_RANDOM = InitializationSpec(
    name="second-random",
    version=1,
    summary="RI again, from a second draw: the null difference to RI",
    source=SOURCE,
    license="Apache-2.0",
    initialize=_keep,
    touches="nothing",
    draw="second",
)
