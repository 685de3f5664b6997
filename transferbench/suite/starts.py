"""From how many networks the replicates of an arm start: those of its source, or shared draws."""

from __future__ import annotations

from transferbench.specs import InitializationSpec
from transferbench.suite.schema import InitializationUse, Suite

__all__ = ["networks_behind"]


def networks_behind(suite: Suite, use: InitializationUse, spec: InitializationSpec) -> int:
    """The networks of which replicate k of an arm starts from number k, cyclically.

    1 where all replicates start from one network, or each from a random draw of its own. A random
    draw that replicates share is shared by those of one source network, so that the control for a
    shared start shares it exactly as far as the pre-trained arm does.
    """
    if spec.draw == "shared":
        return suite.networks
    if "source_weights" in spec.needs and use.source in suite.sources:
        return suite.sources[use.source].networks
    return 1
