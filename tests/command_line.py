"""The command line as a user meets it: in this process, or as a process of its own."""

import io
import os
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML
from tiny_suite import TINY

from transferbench.cli import main

SMALL = TINY | {
    "perturbations": {"none": {"name": "identity"}},
    "replicates": 1,
    "diagnostics": {"speed": {"name": "speed"}},
}
"""The tiny suite with one trial an arm."""


class Said(NamedTuple):
    code: int
    out: str
    err: str


def cli(*arguments) -> Said:
    """``transferbench ARGUMENTS``; what is not a user's mistake is raised, as it would be shown."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["transferbench", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as leaving:
        return Said(leaving.code or 0, out.getvalue(), err.getvalue())
    finally:
        sys.argv = before
    raise AssertionError("the command line always says how it ended")


def mistake(*arguments) -> str:
    """The message of a command that the user got wrong: exit code 2, and nothing but a message."""
    said = cli(*arguments)
    assert said.code == 2, said
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err


def command(*arguments) -> list[str]:
    """The same as a command for ``subprocess``."""
    # A test run in the background of a shell ignores interrupts, and so would its children.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from transferbench.cli import main; main()"
    )
    return [sys.executable, "-c", code, *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"} | more


def suite_file(folder: Path, suite=TINY, **changes) -> Path:
    """``suite`` with top-level fields replaced, as a YAML file."""
    path = folder / "suite.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        YAML().dump(deepcopy(suite | changes), stream)
    return path


def artefacts(store: Path) -> list[Path]:
    """The finished jobs in a store."""
    return sorted((store / "jobs").glob("*/*"))


@contextmanager
def files_no_larger_than(size_bytes):
    """No file may grow beyond a size: the system's own way to refuse a write."""
    import resource  # Unix alone has it

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
