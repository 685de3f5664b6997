"""The suites that boards are of: those of the package, and those of a folder beside the boards.

A submission says which suite it is of; what counts as that suite is decided here, by its digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from transferbench.errors import SuiteError
from transferbench.suite.loading import BUNDLED, bundled_suites, load_suite
from transferbench.suite.minors import changed_between
from transferbench.suite.preregistration import REGISTER
from transferbench.suite.schema import Suite

TEST_LABELS = "TEST_LABELS"
"""The file of the digests of test labels, in the package and in a folder of suites."""
OVERLAPS = "OVERLAPS"
"""The file of what targets have in common with sources, in both places."""
PILOT_ARMS = "PILOT_ARMS"
"""The file of what the pilots of bundled suites measured of each arm, in the package."""

__all__ = ["KnownSuites", "pilot_arms", "suites_beside"]


class KnownSuites:
    """The suites of the package, those in the files of ``folder``, and ``others``.

    Files are called ``name@MAJOR.MINOR.yaml``.
    """

    def __init__(self, folder: Path | None = None, others: Iterable[Suite] = ()) -> None:
        self.folder = folder
        self._others = tuple(others)
        self._boards: dict[str, Mapping[str, Suite]] = {}
        self._labels: dict[tuple[str, ...], str] | None = None
        self._overlaps: dict[tuple[str, ...], str] | None = None

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
            self._labels = dict(self._lines(TEST_LABELS, 4))
        return {data: digest for (of, label, data), digest in self._labels.items()
                if (of, label) == (board, target)}  # fmt: skip

    def overlaps(self, board: str, target: str) -> Mapping[tuple[str, str], str]:
        """Whether a target's images or groups are among the training images of a source.

        By the fingerprints of the data of the target and of the source. Raises: as ``labels``.
        """
        if self._overlaps is None:
            self._overlaps = dict(self._lines(OVERLAPS, 5))
        return {(data[0], data[1]): answer for (of, label, *data), answer in self._overlaps.items()
                if (of, label) == (board, target)}  # fmt: skip

    def _lines(self, name: str, words: int) -> Iterator[tuple[tuple[str, ...], str]]:
        """The lines of a file in the package and in the folder: all words but the last, and it."""
        for folder in filter(None, (BUNDLED, self.folder)):
            if (path := folder / name).exists():
                yield from _pins(path, words)

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


@cache
def pilot_arms() -> Mapping[tuple[str, ...], tuple[tuple[float, ...], tuple[float, ...]]]:
    """Board, claim and draw of a pilot -> the means of the claim's terms, and their deviations.

    Of suites that were registered before a pilot said so itself.
    """
    return {
        tuple(key): (_numbers(means), _numbers(deviations))
        for (*key, means), deviations in _pins(BUNDLED / PILOT_ARMS, 5)
    }


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def _pins(path: Path, words: int) -> Iterator[tuple[tuple[str, ...], str]]:
    """Lines that begin with ``#`` are comments."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            *key, value = line.split()
            if len(key) != words - 1:
                raise SuiteError(f"{path}:{number}: {line[:60]!r} has not {words} words")
            yield tuple(key), value


def _loaded(path: Path) -> Suite:
    return _parsed(path, path.stat().st_mtime_ns)


@cache
def _parsed(path: Path, changed_ns: int) -> Suite:
    """A suite's file is parsed once: it takes up to a second."""
    del changed_ns
    return load_suite(str(path))
