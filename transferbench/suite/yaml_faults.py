"""What a parser of YAML says is wrong, as a sentence with the line where the mistake is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from ruamel.yaml import YAML
from ruamel.yaml.docinfo import DocInfo
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import Event
from ruamel.yaml.tokens import ScalarToken, Token

__all__ = ["YamlFaultError", "parsed_events"]

NO_COLON = "a ':' and a space are missing after the key"


class YamlFaultError(Exception):
    """Text that is no YAML; ``line``: of the mistake, from 1."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


def parsed_events(text: str) -> Iterator[Event]:
    """The events of YAML 1.2. Raises: ``YamlFaultError``, and what ruamel.yaml lets through."""
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        raise _fault(error, text) from error


def _token_before(text: str, problem: int) -> Token | None:
    """The last token that begins before the character ``problem``."""
    loader, last = YAML(typ="safe", pure=True), None
    loader.get_constructor_parser(text)
    loader.doc_infos.append(DocInfo())  # of which a directive sets the version
    with suppress(MarkedYAMLError):
        while loader.scanner.check_token():
            token = loader.scanner.get_token()
            if token.start_mark.index >= problem:
                return last
            last = token
    waiting = [token for token in loader.scanner.tokens if token.start_mark.index < problem]
    return waiting[-1] if waiting else last


def _fault(error: MarkedYAMLError, text: str) -> YamlFaultError:
    problem, context = error.problem or "", error.context or ""
    mark = error.problem_mark or error.context_mark
    here = mark.line if mark else 0
    before, lines = _token_before(text, mark.index if mark else 0), text.splitlines()
    begins = error.context_mark.line if error.context_mark else here
    match problem.split(", but ")[0]:
        case "could not find expected ':'":
            reason, here = NO_COLON, begins
        case "mapping values are not allowed here":
            reason, here = _unexpected_colon(here, lines, before)
        case "expected ',' or ']'" | "expected ',' or '}'" as expected:
            reason, here = _not_closed(expected, problem, here, begins, before)
        case "found unexpected end of stream" | "found unexpected document separator":
            reason, here = "the quote that begins here is not closed", begins
        case "expected <block end>":
            reason, here = _unexpected_value(here, lines, before)
        case "sequence entries are not allowed here":
            reason = "a list cannot begin here; give each '- ' a line of its own, below the key"
        case "found character '\\t' that cannot start any token":
            reason = "a tab cannot indent a line; use spaces"
        case str(other) if other.endswith("that cannot start any token"):
            reason = f"{other.split()[2]} cannot begin a text; put it in quotes"
        case _:
            reason = ", ".join(filter(None, (context, problem)))
    return YamlFaultError(reason, here + 1)


def _lines_of(token: Token | None, here: int) -> tuple[int, int]:
    """The first and the last line of a token; both ``here`` where there is none."""
    return (token.start_mark.line, token.end_mark.line) if token else (here, here)


def _unexpected_colon(here: int, lines: list[str], before: Token | None) -> tuple[str, int]:
    """A ``:`` after what cannot be a key, such as a text of several lines."""
    first, last = _lines_of(before, here)
    if not first < last == here:
        return "a second ':' in one line; put the text that holds it in quotes", here
    if before and not lines[first][: before.start_mark.column].strip(" -"):
        return NO_COLON, first
    return (
        f"this goes on with the text of line {first + 1}: indent it like its neighbours, or "
        "put the whole text in quotes"
    ), here


def _unexpected_value(here: int, lines: list[str], before: Token | None) -> tuple[str, int]:
    """A value where a mapping or a list should go on."""
    first, last = _lines_of(before, here)
    if isinstance(before, ScalarToken) and first < here:
        if not before.plain and last == here:
            return f"the quote that begins here is closed only in line {here + 1}", first
        # A comment ends a text that would else go on in the next line.
        if before.plain and not lines[first][: before.start_mark.column].strip():
            return NO_COLON, first
    return (
        "this does not fit the lines before it; look at its indentation, and for a '-' or a quote "
        "that is missing"
    ), here


def _not_closed(
    expected: str, problem: str, here: int, begins: int, before: Token | None
) -> tuple[str, int]:
    """A list in brackets or a mapping in braces without its comma or its end."""
    missing = expected.removeprefix("expected ")
    if "<stream end>" in problem:
        bracket = "[" if "]" in expected else "{"
        return f"the {bracket} that begins here is not closed", begins
    first, last = _lines_of(before, here)
    if first < here:
        # A text without quotes goes on in the next line; another value ends in its own.
        return f"{missing} is missing at the end of the line", first if last == here else last
    return f"{missing} is missing", here
