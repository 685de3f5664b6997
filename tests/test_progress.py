"""What a run says line by line without a terminal."""

import io

import pytest
from rich.console import Console

from transferbench.plan import Job, Work
from transferbench.runner import progress
from transferbench.runner.executors import Outcome

OK = Outcome("job", "ok", "", "", 1.0)


def job(name, kind="trial"):
    return Job(name, kind, {}, (), f"{kind} {name}", Work(10, 10))


def lines_of(jobs, monkeypatch, quiet_seconds):
    monkeypatch.setattr(progress, "QUIET_SECONDS", quiet_seconds)
    text = io.StringIO()
    console = Console(file=text, force_terminal=False, width=200)
    with progress.Display(console) as display:
        display.planned({each.id: each for each in jobs}, done=())
        for each in jobs:
            display.started(each)
            display.finished(each, OK)
    first, *lines = text.getvalue().splitlines()
    assert first == f"{len(jobs)} jobs: 0 already done, {len(jobs)} to run"
    return lines


def test_every_training_has_a_line_with_what_is_left(monkeypatch):
    lines = lines_of([job("a"), job("b")], monkeypatch, quiet_seconds=60)
    assert [line.split(" in ")[0] for line in lines] == ["done trial a", "done trial b"]
    assert "0 running, 1 left" in lines[0]


@pytest.mark.parametrize(("quiet_seconds", "expected"), [(60, 0), (0, 3)])
def test_diagnoses_have_a_line_now_and_then(monkeypatch, quiet_seconds, expected):
    jobs = [job(name, "diagnosis") for name in "abc"]
    assert len(lines_of(jobs, monkeypatch, quiet_seconds)) == expected


@pytest.mark.parametrize("text", ["[/] [red]x[/red] [link=a]", "\\[a\\\\", "a\x1b[31mb"])
def test_square_brackets_of_names_and_messages_are_no_markup(text):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=False, width=200)
    job = Job("a", "trial", {}, (), f"P {text}", Work(10, 10))
    with progress.Display(console) as display:
        display.planned({"a": job}, done=())
        display.finished(job, OK)
        display.finished(job, Outcome("a", "failed", f"message {text}", "", 1.0))
    _, done, failed = stream.getvalue().splitlines()
    printed = text.replace("\x1b", "\\x1b")
    assert done.startswith(f"done P {printed} in ")
    assert failed == f"failed P {printed}: message {printed}"
