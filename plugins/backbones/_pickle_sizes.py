"""How much memory the pickle of a checkpoint would take, read off without running it.

The unpickler of torch calls nothing that could do harm, but some that make objects of any size
(``bytearray``, storages), and others that copy what they get, as often as the pickle says.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

__all__ = ["refused_call"]

PICKLES = 5
"""How many stand one after another in a file of the older format, before its tensors."""

OF_ANY_SIZE = re.compile(r"\w*(bytearray|Tensor|Storage|_rebuild_device_tensor_from_\w+)")
"""The names of those that take sizes."""
COPIES = frozenset({"Counter", "OrderedDict", "Size", "encode", "set"})
CALLS_ITS_ARGUMENT = "_rebuild_from_type_v2"


class _Name(str):
    """The name of a class or function, whose module the versions of Python differ in."""

    __slots__ = ()


class _Sized:
    """A text or a container, by the number of its parts."""

    def __init__(self, size: int = 0) -> None:
        self.size = size


def refused_call(stream: IO[bytes], size_bytes: int) -> str | None:
    """What the pickles of a stream of ``size_bytes`` call that could take more memory than that."""
    copied = 0
    with suppress(Exception):  # the unpickler says what is broken, at the same opcode
        for _ in range(PICKLES):
            for function, arguments in _calls(stream):
                if OF_ANY_SIZE.fullmatch(function):
                    return f"{function}, which makes objects of any size"
                if function in COPIES:
                    copied += sum(map(_size, arguments))
                if copied > size_bytes:
                    return f"{function} again and again with large contents"
    return None


def _size(value: Any) -> int:
    return len(value) if isinstance(value, tuple) else getattr(value, "size", 0)


def _calls(stream: IO[bytes]) -> Iterator[tuple[_Name, tuple[Any, ...]]]:
    """The functions and classes that a pickle calls, with their arguments."""
    stack, marks, memo = list[Any](), list[int](), dict[int, Any]()
    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if "PUT" in name:
            memo[argument] = stack[-1]
        elif "GET" in name:
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "GLOBAL":
            stack.append(_Name(argument.partition(" ")[2]))
        elif name in {"REDUCE", "NEWOBJ"}:
            arguments, function = stack.pop(), stack.pop()
            yield from _called(function, arguments)
            stack.append(_Sized())
        else:
            before = opcode.stack_before
            marked = pickletools.markobject in before
            start = marks.pop() if marked else len(stack) - len(before)
            parts = stack[start:]
            del stack[start:]
            _apply(stack, opcode, argument, parts)


def _called(function: Any, arguments: Any) -> Iterator[tuple[_Name, tuple[Any, ...]]]:
    if isinstance(function, _Name):
        yield function, arguments if isinstance(arguments, tuple) else ()
        if function == CALLS_ITS_ARGUMENT:
            yield from _called(arguments[0], arguments[2])


def _apply(stack: list[Any], opcode: Any, argument: Any, parts: list[Any]) -> None:
    """Push what an opcode leaves of ``parts``, which it has taken from the stack."""
    if opcode.name in {"APPENDS", "SETITEMS"}:
        stack[-1].size += len(parts)
    elif opcode.name in {"APPEND", "SETITEM"}:
        parts[0].size += 1
        stack.append(parts[0])
    elif "TUPLE" in opcode.name:
        stack.append(tuple(parts))
    else:
        size = len(argument) if isinstance(argument, (str, bytes)) else 0
        stack += [_Sized(size) for _ in opcode.stack_after]
