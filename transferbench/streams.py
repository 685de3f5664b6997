"""Standard output and error that never stop the work: what cannot be written is dropped.

A character that the encoding of a stream lacks is replaced, and the first error of a write (a
reader that left, a full disk, a terminal that is gone) is kept for whoever ends the program.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["guarded_streams", "lost_output", "one_line", "open_closed_descriptors", "printable"]

SUBSTITUTES = {
    "\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{EM DASH}": "--", "\N{MULTIPLICATION SIGN}": "x",
    "\N{PLUS-MINUS SIGN}": "+-", "\N{MIDDLE DOT}": "|", "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{RIGHTWARDS ARROW}": "->", "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
}  # fmt: skip
"""What stands for a character in an encoding that lacks it; others become backslash escapes."""
READABLE = "transferbench-readable"
CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
"""Characters that steer a terminal, and those that turn the order of text around."""


class _Channel(io.FileIO):
    """The bytes of a standard stream; after an error, ``error``, they are dropped."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.error: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what fits at once, or drop everything."""
        try:
            while self.error is None:
                written = super().write(data)
                if written is not None:
                    return written
                # Another program made the pipe or terminal that both write to non-blocking.
                select.select([], [self], [])
        except OSError as error:
            self.error = error
        return memoryview(data).nbytes


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Make the standard streams of this process such streams inside the block."""
    open_closed_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _guarded(sys.stdout, 1), _guarded(sys.stderr, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def lost_output() -> str | None:
    """Why part of the standard output is lost, if it is; a reader that had enough is no reason."""
    sys.stdout.flush()
    channel = _channel(sys.stdout)
    error = channel.error if isinstance(channel, _Channel) else None
    return None if error is None or isinstance(error, BrokenPipeError) else str(error.strerror)


def printable(text: str) -> str:
    """``text`` without characters that steer a terminal, which may come with any file's content."""
    return CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(text: str) -> str:
    """``text`` with a question mark for each character that is not printed, as a line break."""
    return "".join(char if char.isprintable() else "?" for char in text)


def open_closed_descriptors() -> None:
    """Open the null device in place of standard streams that are closed.

    The next files to be opened would take their numbers, and whatever prints would write to them.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _guarded(stream: TextIO | None, descriptor: int) -> TextIO:
    """``stream``, which is None where it was closed, guarded; one that somebody replaced stays."""
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(_Channel(descriptor)), encoding="utf-8")
    if type(_channel(stream)) is not io.FileIO or not isinstance(stream, io.TextIOWrapper):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Channel(stream.fileno())),
        encoding=stream.encoding,
        errors=READABLE,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _channel(stream: TextIO) -> object:
    """What takes the bytes of a stream; without a buffer under ``python -u``."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def _substitute(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler of codecs: a readable substitute, or an escape; names of files stay."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # a byte of a file's name that is not text
        return character.encode("ascii", "surrogateescape"), error.start + 1
    text = SUBSTITUTES.get(character) or character.encode("ascii", "backslashreplace").decode()
    return text, error.start + 1


codecs.register_error(READABLE, _substitute)
