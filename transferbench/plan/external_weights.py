"""Which arms of a suite cannot start from external weights."""

from __future__ import annotations

from collections.abc import Mapping

from transferbench.plan.resolve import ResolvedArm, resolve_arm
from transferbench.registry import Registry
from transferbench.specs import Weights
from transferbench.suite import Suite

__all__ = ["left_out_arms", "unstartable_arms"]


def left_out_arms(suite: Suite, weights: Weights | None, registry: Registry) -> dict[str, str]:
    """The arms that an entry with ``weights`` goes without, each with what it needs instead.

    Raises: ``UnknownNameError`` where the plugin of an arm is not installed.
    """
    if weights is None:
        return {}
    scored = suite.scoring.initialization
    uses = {label: use for label, use in suite.initializations.items() if label != scored}
    return unstartable_arms(
        suite, {label: resolve_arm(use, registry) for label, use in uses.items()}
    )


def unstartable_arms(suite: Suite, arms: Mapping[str, ResolvedArm]) -> dict[str, str]:
    """Those of ``arms`` that external weights cannot start, each with what it needs instead.

    External weights are one final state, and stand for the source of the scored arm alone. That
    arm is never left out: what it cannot start from is an error of the plan.
    """
    scored = suite.scoring.initialization
    source = suite.initializations[scored].source
    needs: dict[str, str] = {}
    for label, arm in arms.items():
        if label == scored or not arm.needs_source:
            continue
        own = suite.initializations[label].source
        if own != source:
            needs[label] = f"needs weights of the suite's {own}"
        elif arm.checkpoint is not None:
            needs[label] = f"needs checkpoint {arm.checkpoint} of the suite's {source}"
    return needs
