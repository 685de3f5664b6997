"""Comparisons of tensors and state dicts that the checks of several kinds share."""

from __future__ import annotations

from torch import Tensor

from transferbench.networks.modules import StateDict

__all__ = ["differing", "distance", "not_finite"]


def distance(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference of two tensors of one shape."""
    return float((a - b).abs().max())


def differing(a: StateDict, b: StateDict) -> list[str]:
    """The names that are in one state alone, or whose tensors are not bitwise equal."""
    return [
        name for name in a.keys() | b.keys()
        if name not in a or name not in b or not a[name].cpu().equal(b[name].cpu())
    ]  # fmt: skip


def not_finite(state: StateDict) -> list[str]:
    """The names of floating tensors with values that are infinite or NaN."""
    return [
        name for name, tensor in state.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]  # fmt: skip
