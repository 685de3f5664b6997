"""The pictures in class folders: which files are taken, which are left out and why."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from transferbench.data.folders import is_folder, listed, printable, walk
from transferbench.data.picture_formats import picture_endings, unread_endings
from transferbench.errors import DataError, listing

__all__ = ["ClassFolders", "class_names", "composed", "name_differences", "survey"]

SYSTEM_NAMES = frozenset({
    "$RECYCLE.BIN", "@eaDir", "Icon\r", "System Volume Information", "Thumbs.db", "__MACOSX",
    "desktop.ini", "lost+found",
})  # fmt: skip
"""What systems leave in folders; some hold thumbnails."""

UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Categories of Unicode: control characters, bytes that are not UTF-8, ends of lines."""

INVISIBLE = "Cf"
"""The category of characters that have no width, such as U+200B, or turn the direction."""

LISTED = 10
NEXT_LINE = "\n  "
LONGEST_ENDING = 12


class ClassFolders(NamedTuple):
    """What a folder of class folders holds.

    ``pictures``: for each class, in the order of their names, its files, sorted. ``ignored``: how
    many other files there are, by the reason to leave them out.
    """

    name: str
    pictures: dict[str, list[Path]]
    ignored: Counter[str]

    def __str__(self) -> str:
        count = sum(map(len, self.pictures.values()))
        text = f"{self.name!r} has {count} pictures in {len(self.pictures)} classes"
        return f"{text}; {_counted(self.ignored)}"


def _counted(ignored: Counter[str]) -> str:
    by_count = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))
    reasons = [f"{count} {reason}" for reason, count in by_count if count]
    total = ignored.total()
    return f"{total or 'no'} other file{'s' * (total != 1)}" + (
        f": {listing(reasons, LISTED)}" if reasons else ""
    )


# --- names ------------------------------------------------------------------------------------


def class_names(root: Path, name: str) -> tuple[str, ...]:
    """The names of the class folders in ``root / name``, sorted.

    Raises: ``DataError`` where there are none, or some that cannot be read or told apart.
    """
    folder = root / name
    if not folder.is_dir():
        raise DataError(f"dataset 'image-folder': there is no folder {printable(str(folder))}")
    names = [entry.name for entry in listed(str(folder)) if is_folder(entry)]
    names = [name for name in names if not _is_hidden(name)]
    if not names:
        raise DataError(
            f"dataset 'image-folder': expected class folders in {printable(str(folder))}, found "
            "none"
        )
    if all((folder / f"{name}_train.txt").is_file() for name in names):
        raise DataError(
            f"dataset 'image-folder': {printable(str(folder))} has DomainNet's domains with their "
            "lists, and no class folders: use the dataset domainnet"
        )
    if faults := list(_name_faults(names)):
        raise DataError(
            f"dataset 'image-folder': in {name!r} {listing(faults, LISTED, '; ')}: rename the "
            "folders"
        )
    return tuple(names)


def composed(name: str) -> str:
    """The name in the form in which equal characters have equal codes."""
    return unicodedata.normalize("NFC", name)


def _name_faults(names: Sequence[str]) -> Iterator[str]:
    alike = defaultdict(list)
    for name in names:
        visible = "".join(c for c in composed(name) if unicodedata.category(c) != INVISIBLE).strip()
        alike[visible].append(name)
        if not visible:
            yield f"a class is called {name!a}, which shows nothing"
        elif not UNPRINTABLE.isdisjoint(map(unicodedata.category, name)):
            yield f"the name of class {name!a} has characters that cannot be printed"
    for same in alike.values():
        if len(same) > 1:
            yield f"{len(same)} classes look the same: {', '.join(map(ascii, same))}"


def name_differences(folders: Mapping[str, Sequence[str]]) -> list[str]:
    """The class names that only one of at most two folders has, each in words.

    Names are compared as they are read, not by the codes of their characters.
    """
    if len(folders) < 2:
        return []
    (first, names), (second, others) = (
        (folder, set(map(composed, names))) for folder, names in folders.items()
    )
    rest = defaultdict(list)
    for name in sorted(others - names):
        rest[_letters(name)].append(name)
    parts = []
    for name in sorted(names - others):
        if twins := rest[_letters(name)]:
            parts.append(f"{name!a} in {first!r} is {twins.pop()!a} in {second!r}")
        else:
            parts.append(f"{name!r} in {first!r} only")
    return parts + [f"{name!r} in {second!r} only" for twins in rest.values() for name in twins]


def _letters(name: str) -> str:
    """What is left of a name without case, spaces and punctuation."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(filter(str.isalnum, folded)) or name


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_NAMES


# --- files ------------------------------------------------------------------------------------


def survey(root: Path, name: str) -> ClassFolders:
    """What is in the class folders of ``root / name``; links to folders are followed.

    Raises: ``DataError`` where a picture is no file or would count twice, or a class is empty.
    """
    folder = root / name
    content = ClassFolders(name, {label: [] for label in class_names(root, name)}, Counter())
    named_as_pictures, faults = list[Path](), list[str]()
    for entry, entered in walk(folder):
        path = Path(entry.path)
        parts = path.parts[len(folder.parts) :]
        if any(map(_is_hidden, parts)):
            content.ignored["hidden"] += not entered
        elif entered:
            if path.suffix.lower() in picture_endings():
                named_as_pictures.append(path)
        elif fault := None if entry.is_file(follow_symlinks=False) else _fault(path):
            faults.append(f"{printable(str(path))} {fault}")
        elif reason := _reason_to_ignore(path, len(parts)):
            content.ignored[reason] += 1
        else:
            content.pictures[parts[0]].append(path)
    faults += _without_pictures(content, named_as_pictures)
    if faults:
        raise DataError(f"dataset 'image-folder': {listing(faults, LISTED, NEXT_LINE)}")
    for files in content.pictures.values():
        files.sort()
    return content


def _fault(path: Path) -> str | None:
    """Why a link, a pipe or the like is no picture; None for a link to a file."""
    named_as_picture = path.suffix.lower() in picture_endings()
    try:
        if path.is_dir():
            target = printable(str(path.resolve()))
            return f"leads to {target}, whose pictures would count twice: remove the link"
        if path.is_file():
            return None
        leads_nowhere = path.is_symlink() and not path.exists()
    except OSError as error:
        return f"cannot be read ({error.strerror}): make it readable, or remove it"
    if leads_nowhere and (named_as_picture or not path.suffix):
        target = printable(str(path.readlink()))
        return f"is a link to {target}, where nothing is: restore that, or remove the link"
    return "is not a file but a pipe, a socket or a device: remove it" if named_as_picture else None


def _reason_to_ignore(path: Path, depth: int) -> str | None:
    """Why a file is not taken for a picture; ``depth`` 1 is beside the class folders."""
    if depth == 1:
        return "outside the class folders"
    ending = path.suffix.lower()
    if ending in picture_endings():
        return None
    if not ending:
        return "without an ending"
    if len(ending) > LONGEST_ENDING or not ending.isprintable():
        return "of other endings"
    reason = unread_endings().get(ending)
    return f"{ending} ({reason})" if reason else ending


def _without_pictures(content: ClassFolders, named_as_pictures: Sequence[Path]) -> Iterator[str]:
    """Folders that should hold pictures, and have none."""
    for folder in named_as_pictures:
        if not any(folder in path.parents for path in chain(*content.pictures.values())):
            yield f"{printable(str(folder))} is a folder without pictures, not a picture: remove it"
    for label, files in content.pictures.items():
        if not files:
            yield (
                f"class {label!r} has no picture in {content.name!r} ({_counted(content.ignored)}"
                "): add pictures, or remove its folder"
            )
