"""Keys that a regular expression matches in the names of files, within a time limit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from transferbench.data.folders import printable
from transferbench.errors import DataError

__all__ = ["group_keys", "one_group", "refuse_classes_as_groups"]

SEARCH = """
import json, re, sys
pattern, names = json.load(sys.stdin)
matches = map(re.compile(pattern).search, names)
json.dump([match and match[1] for match in matches], sys.stdout)
"""

LIMIT_SECONDS = 10.0
NAMES_PER_SECOND = 10_000
"""A tenth of what an ordinary pattern manages: the limit grows with the number of names."""


def one_group(pattern: str) -> str:
    """``pattern`` itself. Raises: ``ValueError`` where it is no expression with a group."""
    try:
        groups = re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{pattern!r} is not a regular expression: {reason}") from error
    if groups < 1:
        raise ValueError(f"{pattern!r} needs a group (...) that matches the grouping key")
    return pattern


def group_keys(pattern: str, paths: Sequence[Path]) -> list[str]:
    """What the first group of ``pattern`` matches in the name of each file, composed (NFC).

    Another process searches: some patterns take for ever, and only a process can be stopped.

    Raises: ``DataError`` where a name has no key, or when the time is over.
    """
    seconds = LIMIT_SECONDS + len(paths) / NAMES_PER_SECOND
    try:
        search = subprocess.run(  # noqa: S603  # this interpreter, and a script of ours
            [sys.executable, "-I", "-S", "-c", SEARCH],
            input=json.dumps([pattern, [path.name for path in paths]]),
            capture_output=True, text=True, timeout=seconds, check=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"dataset 'image-folder': the group pattern {pattern!r} was not through {len(paths)} "
            f"names after {seconds:.0f} s: some repeats inside repeats never end, write it "
            "without them"
        ) from error
    keys: list[str | None] = json.loads(search.stdout)
    for path, key in zip(paths, keys, strict=True):
        if key is None:
            raise DataError(
                f"dataset 'image-folder': the group pattern {pattern!r} matches no key in the "
                f"name of {printable(str(path))}: change the pattern or the name"
            )
    return [unicodedata.normalize("NFC", key) for key in keys if key is not None]


def refuse_classes_as_groups(
    pattern: str, paths: Sequence[Path], labels: Sequence[int], keys: Sequence[str]
) -> None:
    """Raise ``DataError`` where each class is one group: no class could be in two splits.

    The key is then the name of the class, or what all its files have in common.
    """
    of_class: dict[int, set[str]] = defaultdict(set)
    first: dict[int, str] = {}
    for path, label, key in zip(paths, labels, keys, strict=True):
        of_class[label].add(key)
        first.setdefault(label, f"{key!r} of {printable(path.name)}")
    single = all(len(groups) == 1 for groups in of_class.values())
    if single and len(paths) > len(of_class) > 1:
        raise DataError(
            f"dataset 'image-folder': the group pattern {pattern!r} makes one group of each class, "
            f"so that no class can be divided: it gives {' and '.join([*first.values()][:2])}; let "
            "it match what tells the groups of a class apart, or leave it out"
        )
