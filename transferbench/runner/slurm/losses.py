"""Jobs whose chunk is gone: they are told as lost, unless their artefact was published before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from transferbench.runner.slurm.control import ArrayControl, own_states
from transferbench.runner.slurm.ledger import Entry, Ledger
from transferbench.store import Store

__all__ = ["element_of", "gone_writers", "write_losses"]


def element_of(writer: str) -> str:
    """The element of an array, such as 23_1, of a writer such as 23_1.0."""
    return writer.rpartition(".")[0]


def gone_writers(
    control: ArrayControl, session: Path, writers: Collection[str]
) -> Mapping[str, str]:
    """Of the chunks of a session those that are gone, each with how.

    Slurm may have begun its element again.
    """
    states = own_states(control, session, {element_of(writer) for writer in writers})
    gone = {}
    for writer in writers:
        element, _, restarts = writer.rpartition(".")
        state = states.get(element)
        if state and (not state.is_alive or state.restarts > int(restarts)):
            how = f"ended ({state.detail})" if not state.is_alive else "was begun again by Slurm"
            gone[writer] = f"its chunk {element} {how}"
    return gone


def write_losses(
    ledger: Ledger, store: Store, names: Iterable[str], why_gone: Callable[[str], str | None]
) -> int:
    """Tell of the jobs of ``names`` whose holders are gone; returns of how many.

    ``why_gone``: how the end of a writer is told; None where it lives.
    """
    lost = 0
    for name in names:
        holder = ledger.holder(name)
        unnamed = "its claim has no writer" if ledger.is_nobodys(name) else None
        if why := why_gone(holder) if holder else unnamed:
            round_ = ledger.rounds[name]
            if store.is_done(name):
                ledger.write(Entry(name, round_, "ok"))
            else:
                ledger.write(Entry(name, round_, "lost", why))
                lost += 1
    return lost
