"""Which kernels a worker computes with, and the machine as a fact of a job."""

from __future__ import annotations

import os
import platform
import re
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["choose_kernels", "driver_version", "machine_facts"]

CUBLAS_WORKSPACE = ":4096:8"
"""Of a fixed size: with others the sums of cuBLAS are not reproducible (its documentation)."""


def choose_kernels(device: str, *, fast: bool) -> None:
    """Let this process compute with deterministic kernels on a card, or with the fastest.

    Call it before the card is first used. On the CPU kernels are deterministic as they are.
    """
    if not device.startswith("cuda"):
        return
    torch.backends.cudnn.benchmark = fast
    torch.backends.cudnn.deterministic = not fast
    if fast:
        return
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = CUBLAS_WORKSPACE
    # Operations that have no deterministic kernel warn, and are told by what they change.
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    # Only reads of memory that nobody has written would need it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module


def machine_facts(device: torch.device, started: float) -> dict[str, str | float]:
    """The machine and the duration of a job: published beside it, never part of an id."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": device.type,
        "device_name": name,
        "host": platform.node(),
        "wall_seconds": round(time.perf_counter() - started, 3),
        **_packages(),
        **(_card(device) if device.type == "cuda" else {}),
    }


def driver_version() -> str:
    """The version of NVIDIA's driver; "" where it cannot be told."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return ""
    match = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", text)
    return match[1] if match else ""


@cache
def _card(device: torch.device) -> dict[str, str]:
    capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
    return {
        "compute_capability": capability,
        "driver": driver_version(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]  # torch leaves it untyped
        "kernels": "deterministic" if torch.backends.cudnn.deterministic else "fast",
    }


@cache
def _packages() -> dict[str, str]:
    # Cached: reading the metadata takes as long as a small diagnosis.
    return {package: version(package) for package in ("torch", "timm", "numpy")}
