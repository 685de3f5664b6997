"""The suites that boards are of: those of the package, and those of a folder beside the boards.

A submission says which suite it is of; what counts as that suite is decided here, by its digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeAlias

from transferbench.errors import SuiteError
from transferbench.suite.loading import BUNDLED, bundled_suites, load_suite
from transferbench.suite.minors import changed_between
from transferbench.suite.preregistration import REGISTER
from transferbench.suite.schema import Suite

TEST_LABELS = "TEST_LABELS"
"""The file of the digests of test labels, in the package and in a folder of suites."""
Pinned: TypeAlias = tuple[str, str, str]
"""Board, target and fingerprint of the data."""

__all__ = ["KnownSuites", "suites_beside"]


class KnownSuites:
    """The suites of the package, those in the files of ``folder``, and ``others``.

    Files are called ``name@MAJOR.MINOR.yaml``.
    """

    def __init__(self, folder: Path | None = None, others: Iterable[Suite] = ()) -> None:
        self.folder = folder
        self._others = tuple(others)
        self._boards: dict[str, Mapping[str, Suite]] = {}
        self._labels: dict[Pinned, str] | None = None

    def of(self, board: str) -> Mapping[str, Suite]:
        """The MINORs of ``name@MAJOR`` by their id; none where nothing has that name.

        Raises: ``SuiteError`` where two suites have one id, a file has another suite than its name
        says, or a MINOR changes what an earlier one says.
        """
        if board not in self._boards:
            self._boards[board] = self._read(board)
        return self._boards[board]

    def labels(self, board: str, target: str) -> Mapping[str, str]:
        """The digests of the test labels of a target, by the fingerprint of the decoded data.

        Raises: ``SuiteError`` where a line is none.
        """
        if self._labels is None:
            files = [BUNDLED / TEST_LABELS, *([self.folder / TEST_LABELS] if self.folder else [])]
            self._labels = dict(pin for path in files if path.exists() for pin in _pins(path))
        return {data: digest for (of, label, data), digest in self._labels.items()
                if (of, label) == (board, target)}  # fmt: skip

    def _read(self, board: str) -> Mapping[str, Suite]:
        suites = [suite for suite in self._others if suite.board == board]
        if path := bundled_suites().get(board):
            suites.append(_loaded(path))
        suites += self._from_files(board)
        by_id: dict[str, Suite] = {}
        for suite in suites:
            if by_id.setdefault(suite.id, suite).digest != suite.digest:
                raise SuiteError(
                    f"two suites call themselves {suite.id}: one has digest {suite.digest[:12]}, "
                    f"the other {by_id[suite.id].digest[:12]}; give one another version"
                )
        if changes := list(changed_between(by_id.values())):
            raise SuiteError("\n".join(changes))
        return by_id

    def _from_files(self, board: str) -> list[Suite]:
        """Those of the folder. A name of a board has no character that a pattern reads."""
        suites = []
        for path in sorted(self.folder.glob("*.yaml")) if self.folder else ():
            if path.stem.partition(".")[0] != board:
                continue
            suite = _loaded(path)
            if suite.id != path.stem:
                raise SuiteError(f"{path} is the suite {suite.id}: call the file {suite.id}.yaml")
            suites.append(suite)
        return suites


def suites_beside(submissions: Path, others: Iterable[Suite] = ()) -> KnownSuites:
    """The suites of the boards of a folder of submissions."""
    return KnownSuites(submissions.parent / REGISTER.parent.name, others)


def _pins(path: Path) -> Iterator[tuple[Pinned, str]]:
    """Lines that begin with ``#`` are comments."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            match line.split():
                case board, target, data, digest:
                    yield (board, target, data), digest
                case _:
                    raise SuiteError(
                        f"{path}:{number}: {line[:60]!r} pins no labels; write "
                        "name@MAJOR TARGET FINGERPRINT DIGEST"
                    )


def _loaded(path: Path) -> Suite:
    return _parsed(path, path.stat().st_mtime_ns)


@cache
def _parsed(path: Path, changed_ns: int) -> Suite:
    """A suite's file is parsed once: it takes up to a second."""
    del changed_ns
    return load_suite(str(path))
