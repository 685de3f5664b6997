"""Which arms of a suite cannot start from external weights."""

from __future__ import annotations

from transferbench.registry import Registry, blamed
from transferbench.specs import Weights
from transferbench.suite import InitializationUse, Suite

__all__ = ["left_out_arms"]


def left_out_arms(suite: Suite, weights: Weights | None, registry: Registry) -> dict[str, str]:
    """The arms that an entry with ``weights`` goes without, each with what it needs instead.

    External weights are one final state, and stand for the source of the scored arm alone. That
    arm is never left out: what it cannot start from is an error of the plan.
    Raises: ``UnknownNameError`` where the plugin of an arm is not installed.
    """
    if weights is None:
        return {}
    scored = suite.scoring.initialization
    missing = {
        label: _missing(use, suite.initializations[scored].source, registry)
        for label, use in suite.initializations.items()
        if label != scored
    }
    return {label: why for label, why in missing.items() if why is not None}


def _missing(use: InitializationUse, source: str, registry: Registry) -> str | None:
    """What an arm needs that external weights, used instead of ``source``, do not have."""
    spec = registry.initialization(use.name)
    if "source_weights" not in spec.needs:
        return None
    if use.source != source:
        return f"needs weights of the suite's {use.source}"
    with blamed(f"initialization {spec.name!r}"):
        checkpoint = spec.checkpoint(spec.parse(use.params))
    return None if checkpoint is None else f"needs checkpoint {checkpoint} of the suite's {source}"
