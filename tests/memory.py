"""How much memory a call takes."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from transferbench.runner.cost import peak_memory_bytes


def growth_bytes(call: Callable[[], object]) -> int:
    """The most memory that this process used during the call, beyond what it used before."""
    with suppress(OSError):  # where it cannot be reset: beyond the most that it ever used
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory_bytes()
    call()
    return peak_memory_bytes() - before
