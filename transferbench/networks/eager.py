"""Optimizers that never meet torch's compiler, whose import takes as long as a small training.

To keep methods of its optimizers from being compiled, torch imports ``torch._dynamo`` with the
first optimizer of a process (torch/_compile.py, torch/optim/optimizer.py, as of 2.14): 1.5 s.
"""

from __future__ import annotations

from inspect import unwrap
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer

__all__ = ["eager"]

OptimizerT = TypeVar("OptimizerT", bound=Optimizer)


def eager(optimizer: type[OptimizerT]) -> type[OptimizerT]:
    """The optimizer with the same updates, bit for bit; not for ``torch.compile``.

    Its methods are torch's own without their decorators, of which ``step`` needs one.
    """
    methods = {name: unwrap(getattr(optimizer, name)) for name in ("add_param_group", "zero_grad")}
    methods["step"] = torch.no_grad()(unwrap(optimizer.step))
    bare: Any = type(optimizer.__name__, (optimizer,), methods)
    return bare  # type: ignore[no-any-return]  # mypy knows no class that is made when it runs
