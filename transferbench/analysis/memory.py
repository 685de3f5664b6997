"""Memory that is free where a diagnostic computes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from transferbench.errors import DeviceError

__all__ = ["card_bytes", "free_bytes", "refuse_beyond_memory"]

MEMINFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
FILES = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
    ),
}  # fmt: skip
"""Controllers in OWN_GROUPS, of versions 2 and 1 -> folder, limit, usage and cached files."""


def card_bytes(device: torch.device) -> int | None:
    """The memory of a card, whatever of it is free; None on the CPU."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def free_bytes(device: torch.device) -> int | None:
    """The free memory of ``device``; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if not MEMINFO.exists():
        return None
    available = re.search(r"MemAvailable:\s+(\d+) kB", MEMINFO.read_text(encoding="ascii"))
    free = [int(available[1]) * 1024] if available else []
    return min([*free, *_free_of_groups()], default=None)


def _free_of_groups() -> Iterator[int]:
    """What the control groups around this process (containers, jobs of a cluster) leave it."""
    with suppress(OSError, ValueError):
        for line in OWN_GROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, own = line.split(":", 2)
            if controllers in FILES:
                folder, limit, used, cached = FILES[controllers]
                # In a container the own group may be the outermost that is visible.
                for group in (GROUPS / folder / own.strip("/"), GROUPS / folder):
                    if (group / limit).exists():
                        yield from _free_of_group(group, limit, used, cached)


def _free_of_group(group: Path, limit: str, used: str, cached: str) -> Iterator[int]:
    """Up to its limit; files that are cached make room."""
    most = (group / limit).read_text(encoding="ascii").strip()
    if most != "max":
        parts = dict(map(str.split, (group / "memory.stat").read_text("ascii").splitlines()))
        yield int(most) - int((group / used).read_text(encoding="ascii")) + int(parts[cached])


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
