"""The classes of ImageNet's flat validation pictures, in the forms of lists that are around."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transferbench.data.folders import listed, printable
from transferbench.data.picture_formats import picture_endings
from transferbench.errors import DataError

__all__ = ["synset_list"]

NAME = "imagenet"


def synset_list(
    root: Path, val_list: str, meta_list: str | None, folder: Path, synsets: Sequence[str]
) -> tuple[list[str], list[int]]:
    """The names of the validation pictures, and their classes as indices into ``synsets``.

    A line of ``val_list`` has a name and a class, or a class alone, for the pictures in the order
    of their names. A class is a synset, an index that counts ``synsets`` from 0, or, with
    ``meta_list``, a number of the challenge that counts the lines of that file from 1.

    Raises: ``DataError`` where a line is none of these.
    """
    lines = [line.split() for line in _lines(root / val_list)]
    named = {len(line) for line in lines}
    if named not in ({1}, {2}):
        raise DataError(
            f"dataset {NAME!r}: lines of {val_list} must have a class, or a picture and a class"
        )
    values = [line[-1] for line in lines]
    labels = _indices(root, val_list, meta_list, values, synsets)
    if named == {2}:
        return [line[0] for line in lines], labels
    endings = picture_endings()
    names = [e.name for e in listed(str(folder)) if Path(e.name).suffix.lower() in endings]
    if len(names) != len(labels):
        raise DataError(
            f"dataset {NAME!r}: {val_list} has {len(labels)} classes, and {printable(str(folder))} "
            f"{len(names)} pictures: one class a picture, in the order of their names"
        )
    return names, labels


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise DataError(
            f"dataset {NAME!r}: {printable(str(path))} cannot be read ({reason})"
        ) from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"dataset {NAME!r}: {printable(str(path))} is empty")
    return lines


def _indices(
    root: Path, val_list: str, meta_list: str | None, values: Sequence[str], synsets: Sequence[str]
) -> list[int]:
    index = {synset: position for position, synset in enumerate(synsets)}
    if all(value in index for value in values):
        return [index[value] for value in values]
    if not all(value.isascii() and value.isdigit() for value in values):
        value = next(value for value in values if value not in index)
        raise DataError(
            f"dataset {NAME!r}: {val_list} has the class {value!r}, which is no folder of the "
            "training pictures and no number"
        )
    numbers = [int(value) for value in values]
    if meta_list is not None:
        return _challenge_numbers(root, val_list, meta_list, numbers, index)
    if min(numbers) == 0 and max(numbers) < len(synsets):
        return numbers
    if len(_lines(root / val_list)[0].split()) == 2 and max(numbers) < len(synsets):
        return numbers
    raise DataError(
        f"dataset {NAME!r}: {val_list} has numbers from {min(numbers)} to {max(numbers)}: those of "
        "ILSVRC2012_validation_ground_truth.txt count the challenge's own order; give meta_list, "
        "its synsets in that order, one a line (from meta.mat or map_clsloc.txt)"
    )


def _challenge_numbers(
    root: Path, val_list: str, meta_list: str, numbers: Sequence[int], index: dict[str, int]
) -> list[int]:
    """From numbers that count the lines of ``meta_list`` from 1."""
    order = [line.split()[0] for line in _lines(root / meta_list)]
    if absent := [synset for synset in order if synset not in index]:
        raise DataError(
            f"dataset {NAME!r}: {meta_list} names {absent[0]!r}, which is no folder of the "
            "training pictures: give one synset a line"
        )
    if min(numbers) < 1 or max(numbers) > len(order):
        raise DataError(
            f"dataset {NAME!r}: {val_list} has numbers from {min(numbers)} to {max(numbers)}, and "
            f"{meta_list} has {len(order)} lines, which count from 1"
        )
    return [index[order[number - 1]] for number in numbers]
