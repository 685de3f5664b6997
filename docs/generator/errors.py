"""The page of exit codes, errors, job statuses and options."""

from __future__ import annotations

import inspect
from dataclasses import fields

from generator.markdown import code, prose, table
from transferbench import errors
from transferbench.runner.options import RunOptions

__all__ = ["EXIT_CODES", "page"]

EXIT_CODES = {
    0: "done",
    1: "some jobs of a run failed, a check failed, or `doctor` found a plugin that is broken",
    2: "a user error, or output that could not be printed: a message without a traceback",
    130: "interrupted (Ctrl-C, `SIGTERM`, `SIGHUP`); finished jobs are kept, and the same command "
    "continues. While Python starts or ends, the process dies of the signal without a word, which "
    "a shell shows as 130, 143 or 129",
}

HEAD = """# Errors and exit codes

## Exit codes

{codes}
Anything else is a bug in transferbench and shows its traceback. A reader that leaves, as in
`transferbench run quickstart | head -1`, changes neither the work nor the exit code.

## Errors

In Python they are exceptions of `transferbench.errors`. A message states the problem and what to
do, such as `no backbone named 'resnet5'; did you mean 'resnet50'?`.

```text
{tree}
```

{errors}
## Job statuses

A job that fails does not stop the others. Its status and its traceback are kept in the store, and
it is never served as a result; jobs that need it are `skipped`. `transferbench status RUN` shows
them.

| status | meaning |
| --- | --- |
| `ok` | done, its artefacts are in the store with their sha256 |
| `failed` | it raised an error |
| `timeout` | it took longer than `--time-limit` |
| `oom` | memory ran out; a smaller `--micro-batch` may help |
| `skipped` | a job that it needs did not finish |

## Environment variables

| variable | meaning |
| --- | --- |
| `TRANSFERBENCH_PLUGINS` | plugin files to load, separated as in `PATH` |
| `TRANSFERBENCH_DATA` | folder of the datasets' files, as `--data-root`; read in Python too |
| `TRANSFERBENCH_WEIGHTS` | folders with packages of weights, separated as in `PATH` |
| `TRANSFERBENCH_TRACEBACK` | set to `1`: what a plugin raises is shown with its traceback |

## Options in Python

The keyword arguments of `transferbench.run`; `transferbench.plan_run` takes all but `progress`:

{options}
"""


def page() -> str:
    """The page."""
    return HEAD.format(
        codes=table(["code", "meaning"], [(str(code), text) for code, text in EXIT_CODES.items()]),
        tree=_tree(),
        errors=table(["error", ""], map(_error, _classes())),
        options=_options(),
    )


def _tree() -> str:
    return (errors.__doc__ or "").partition("\n\n")[2].strip()


def _classes() -> list[type]:
    named = (getattr(errors, name) for name in errors.__all__)
    return [error for error in named if inspect.isclass(error)]


def _error(cls: type) -> tuple[str, str]:
    return code(cls.__name__), prose((inspect.getdoc(cls) or "").partition("\n\n")[0])


def _options() -> str:
    rows = [
        (code(field.name), code(str(field.type)), code(repr(field.default)),
         prose(field.metadata["text"]))
        for field in fields(RunOptions)
    ]  # fmt: skip
    return table(["argument", "type", "default", ""], rows)
