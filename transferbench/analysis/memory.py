"""Memory that is free where a diagnostic computes."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from transferbench.errors import DeviceError

__all__ = ["free_bytes", "refuse_beyond_memory"]

MEMINFO = Path("/proc/meminfo")


def free_bytes(device: torch.device) -> int | None:
    """The free memory of ``device``; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if not MEMINFO.exists():
        return None
    available = re.search(r"MemAvailable:\s+(\d+) kB", MEMINFO.read_text(encoding="ascii"))
    return int(available[1]) * 1024 if available else None


def refuse_beyond_memory(needed_bytes: float, device: torch.device, what: str, advice: str) -> None:
    """Refuse what would take more memory than is free, before the system ends the process.

    Raises: ``DeviceError`` with both sizes.
    """
    free = free_bytes(device)
    if free is not None and needed_bytes > free:
        raise DeviceError(
            f"{what} take {needed_bytes / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free on "
            f"{device}; {advice}"
        )
