"""Entries of each source tensor redrawn independently: mean-var and bootstrap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transferbench_plugins.initializations._source_specs import redrawing_spec

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["BOOTSTRAP", "MEAN_VAR", "normal_like"]


def normal_like(values: Tensor, generator: Generator) -> Tensor:
    """Independent draws from N(mean, variance) of ``values``, of the same shape.

    Error: mean and variance are equal in expectation; with n elements the standard error of the
    mean is std / sqrt(n).
    """
    import torch

    noise = torch.randn(values.shape, generator=generator, dtype=values.dtype)
    return values.mean() + values.std(correction=0) * noise


def _resampled(values: Tensor, generator: Generator) -> Tensor:
    """The entries of ``values``, drawn with replacement."""
    import torch

    return values.flatten()[torch.randint(values.numel(), (values.numel(),), generator=generator)]


MEAN_VAR = redrawing_spec(
    "mean-var",
    "Keeps each tensor's mean and variance: entries drawn from N(mean, variance) of P's",
    "Raghu et al., Transfusion, NeurIPS 2019, https://arxiv.org/abs/1902.07208",
    lambda values, params, generator: normal_like(values, generator),
)

BOOTSTRAP = redrawing_spec(
    "bootstrap",
    "Keeps each tensor's distribution of entries: drawn from P's own, with replacement",
    "Matsoukas et al., CVPR 2022, https://arxiv.org/abs/2203.01825 (released code)",
    lambda values, params, generator: _resampled(values, generator),
)
