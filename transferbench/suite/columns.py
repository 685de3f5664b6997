"""Columns of a suite's board: its own, or those listed for suites published before."""

from __future__ import annotations

from importlib import resources

from ruamel.yaml import YAML

from transferbench.suite.schema import BoardColumn, Suite

__all__ = ["columns_of"]


def columns_of(suite: Suite) -> tuple[BoardColumn, ...]:
    """The measurements that the board of ``suite`` shows beside the score."""
    return suite.scoring.columns or _published().get(suite.board, ())


def _published() -> dict[str, tuple[BoardColumn, ...]]:
    """Board -> columns, for suites published before ``scoring.columns`` existed."""
    text = resources.files(__package__).joinpath("columns.yaml").read_text(encoding="utf-8")
    return {
        board: tuple(BoardColumn.model_validate(column) for column in columns)
        for board, columns in YAML(typ="safe").load(text).items()
    }
