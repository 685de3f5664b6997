"""The built-in backbones."""

from __future__ import annotations

from transferbench.hookspecs import hookimpl
from transferbench.specs import BackboneSpec
from transferbench_plugins.backbones.fixup import (
    FIXUP_RESNET8,
    FIXUP_RESNET14,
    FIXUP_RESNET20,
    FIXUP_RESNET50,
)
from transferbench_plugins.backbones.timm_models import TIMM

__all__ = ["transferbench_backbones"]


@hookimpl
def transferbench_backbones() -> list[BackboneSpec]:
    """All built-in backbones."""
    return [FIXUP_RESNET8, FIXUP_RESNET14, FIXUP_RESNET20, FIXUP_RESNET50, TIMM]
