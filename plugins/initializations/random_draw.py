"""Random initializations by the backbone: one per replicate, a second one, or shared by all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from transferbench.specs import InitializationContext, InitializationSpec

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["RANDOM", "SAME_RANDOM", "SECOND_RANDOM"]

SOURCE = "Neyshabur, Sedghi, Zhang, NeurIPS 2020, https://arxiv.org/abs/2008.11687"


def _keep(params: Any, net: Module, context: InitializationContext) -> None:
    """Keep the weights that the builder has drawn."""


def _random_spec(
    name: str, summary: str, draw: Literal["replicate", "shared", "second"], source: str = SOURCE
) -> InitializationSpec:
    return InitializationSpec(
        name=name,
        version=1,
        summary=summary,
        source=source,
        license="Apache-2.0",
        initialize=_keep,
        touches="nothing",
        draw=draw,
    )


RANDOM = _random_spec(
    "random",
    "RI: the backbone's own random initialization, another draw for each replicate",
    "replicate",
)

SAME_RANDOM = _random_spec(
    "same-random",
    "One random draw of the body that all replicates share: the control for shared starts",
    "shared",
    f"{SOURCE}, figure 16",
)

SECOND_RANDOM = _random_spec(
    "second-random", "RI again, from a second draw: the null difference to RI", "second"
)
