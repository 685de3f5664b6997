"""Artefacts that were damaged and computed again: whether they have the bits of before."""

from __future__ import annotations

import re
import stat
from collections.abc import Container, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transferbench.errors import listing
from transferbench.identity import file_digest
from transferbench.plan import Job
from transferbench.registry import codes_in
from transferbench.runner.messages import say
from transferbench.store import MANIFEST, PAYLOAD, Manifest, Store

__all__ = ["different_origin", "digests_in", "measured_on", "other_bits", "say_other_bits"]

MACHINE = ("device", "device_name", "torch")
"""The facts of a job that decide its bits."""
LISTED = 5


def different_origin(before: Manifest, facts: Mapping[str, Any], now: str) -> str:
    """Which other kind of machine or code computed an artefact than ``facts`` say; "" for the same.

    ``now``: what ``facts`` are of, in a word.
    """
    codes, here = codes_in(before.facts), codes_in(facts)
    then = [f"{name} {value} ({now} {facts[name]})" for name in MACHINE
            if (value := before.facts.get(name, facts.get(name))) != facts.get(name)]  # fmt: skip
    then += dict.fromkeys(
        f"{code} ({now} {here[plugin]})" for plugin, code in codes.items()
        if plugin in here and here[plugin].sha256 != code.sha256
    )  # fmt: skip
    return f"it was computed with {', '.join(then)}" if then else ""


def other_bits(before: Manifest | None, left: set[str], new: Manifest) -> str:
    """The files that are not as before, and what computed them then and now; "" where none is.

    ``before``: the former manifest, None where it was damaged. ``left``: as ``digests_in``.
    """
    digests = {name: facts.sha256 for name, facts in new.files.items()}
    # The id of the job is the digest of its payload, which older versions did not write.
    names = before.files if before else digests.keys() - {PAYLOAD}
    differing = ", ".join(sorted(name for name in names if digests.get(name) not in left))
    if not differing:
        return ""
    if before is None:
        return f"{differing}; its manifest was damaged, and they may have been, too"
    same = ", ".join(f"{name} {new.facts.get(name)}" for name in MACHINE)
    return (
        f"{differing}; {different_origin(before, new.facts, 'now') or f'then and now with {same}'}"
    )


def digests_in(folder: Path) -> set[str]:
    """The digests of an artefact that was set aside: those in its manifest, and of its files.

    A damaged file still has its digest in the manifest, and most of a damaged manifest is sound.
    """
    digests: set[str] = set()
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(OSError):
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            if path.name == MANIFEST:
                recorded = re.findall(rb'"sha256":"([0-9a-f]{64})"', path.read_bytes())
                digests |= {digest.decode() for digest in recorded}
            else:
                digests.add(file_digest(path))
    return digests


def measured_on(job: str, jobs: Mapping[str, Job], done: Container[str]) -> str:
    """The jobs ``done`` that were computed from the earlier bits of ``job``, as a clause."""
    titles = [each.title for each in jobs.values() if job in each.requires and each.id in done]
    return f"; measured on the earlier bits: {listing(titles, LISTED, '; ')}" if titles else ""


def say_other_bits(store: Store, jobs: Mapping[str, Job], job: str, done: Container[str]) -> None:
    """Say where a job that was just computed differs from its artefact that was set aside last."""
    aside = store.last_aside(job)
    new = store.manifest(job) if aside else None
    if aside is None or new is None or not (left := digests_in(aside)):
        return
    if differing := other_bits(store.manifest(job, aside), left, new):
        say(f"other bits: {jobs[job].title}: {differing}{measured_on(job, jobs, done)}")
