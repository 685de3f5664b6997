"""The versions of packages that numbers are computed with, compared between two machines."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from transferbench.errors import ExecutorError

__all__ = ["differing_versions", "package_versions"]

PACKAGES = ("transferbench", "torch", "torchvision", "timm", "numpy", "scipy", "safetensors")


def package_versions() -> dict[str, str]:
    """Python and the packages that compute; "none" where one is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def differing_versions(planned: Mapping[str, str], *, accept: bool) -> str:
    """What is of another version here than where the run was planned; "" where nothing is.

    Raises: ``ExecutorError`` where something is, unless ``accept``.
    """
    if not planned:
        return ""
    here = package_versions()
    differing = [f"{name} {here.get(name, 'none')} instead of {planned[name]}"
                 for name in planned if here.get(name) != planned[name]]  # fmt: skip
    text = ", ".join(differing)
    if differing and not accept:
        raise ExecutorError(
            f"the node {platform.node()} has {text}, and might compute other numbers: install the "
            "same versions there, or accept and record them with --accept-versions"
        )
    return text
