"""The workflow that checks submissions of pull requests: what it may do; its steps, run here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from command_line import command
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
WORKFLOW = YAML(typ="safe").load((ROOT / ".github" / "workflows" / "submissions.yml").read_text())
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["check"]["steps"]
PATH = Path("leaderboard/submissions/quickstart@2/fixup-resnet8")
(PUBLISHED,) = (ROOT / PATH).iterdir()
BASH, GIT = (shutil.which(name) or "" for name in ("bash", "git"))
needs_both = pytest.mark.skipif(not (BASH and GIT), reason="needs bash and git")


def test_a_stranger_gets_nothing_that_writes() -> None:
    assert set(WORKFLOW["on"]) == {"pull_request"}  # and not pull_request_target
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in WORKFLOW["jobs"].values())
    text = (ROOT / ".github" / "workflows" / "submissions.yml").read_text()
    assert "secrets." not in text
    assert all(step["with"]["persist-credentials"] is False
               for step in STEPS if "checkout" in step.get("uses", ""))  # fmt: skip


def test_the_code_is_of_the_base_and_no_text_of_a_stranger_is_part_of_a_script() -> None:
    trusted, pull = (step["with"] for step in STEPS if "checkout" in step.get("uses", ""))
    assert (trusted["path"], pull["path"]) == ("trusted", "pull")
    assert "base.sha" in trusted["ref"]
    assert all("${{" not in step.get("run", "") for step in STEPS)
    (install,) = (step["run"] for step in STEPS if "pip install" in step.get("run", ""))
    assert "./trusted" in install


class Runner(NamedTuple):
    """A folder as a job has it: the repository of a request, on a base commit."""

    folder: Path
    base: str

    @property
    def pull(self) -> Path:
        return self.folder / "pull"

    def step(self, name: str) -> subprocess.CompletedProcess[str]:
        (script,) = (step["run"] for step in STEPS if step.get("name", "").startswith(name))
        environment = os.environ | {
            "BASE": self.base, "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
        }  # fmt: skip
        return subprocess.run([BASH, "-c", script], cwd=self.folder, env=environment, text=True,
                              capture_output=True, check=False)  # fmt: skip

    def commit(self) -> None:
        git(self.pull, "add", "-A")
        git(self.pull, "commit", "-qm", "change")


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run([GIT, "-C", str(folder), *who, *arguments], check=True, text=True,
                          capture_output=True).stdout.strip()  # fmt: skip


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    if not (BASH and GIT):
        pytest.skip("needs bash and git")
    pull = tmp_path / "pull"
    (pull / "leaderboard" / "suites").mkdir(parents=True)
    git(pull.parent, "init", "-q", "pull")
    (pull / "README.md").write_text("before")
    certificate = pull / "leaderboard" / "certificates" / ("0" * 64) / f"{'1' * 16}.json"
    certificate.parent.mkdir(parents=True)
    certificate.write_text("{}")
    git(pull, "add", "-A")
    git(pull, "commit", "-qm", "base")
    program = tmp_path / "bin" / "transferbench"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in command()) + ' "$@"\n')
    program.chmod(0o755)
    return Runner(tmp_path, git(pull, "rev-parse", "HEAD"))


def test_a_submission_is_checked_and_its_row_shown(runner: Runner) -> None:
    shutil.copytree(PUBLISHED, runner.pull / PATH / PUBLISHED.name)
    runner.commit()
    assert runner.step("Only whole").returncode == 0
    assert (runner.folder / "folders.txt").read_text() == f"{PATH / PUBLISHED.name}\n"
    said = runner.step("Check")
    assert said.returncode == 0, said
    assert "accepted, recomputed" in said.stdout
    said = runner.step("The boards")
    assert said.returncode == 0, said
    summary = (runner.folder / "summary.md").read_text()
    assert "accepted, recomputed" in summary
    assert "| fixup-resnet8" in summary


def test_changes_that_cannot_be_listed_fail_the_check(runner: Runner) -> None:
    shutil.copytree(PUBLISHED, runner.pull / PATH / PUBLISHED.name)
    runner.commit()
    assert runner._replace(base="0" * 40).step("Only whole").returncode != 0


def test_a_bad_submission_fails_the_check(runner: Runner) -> None:
    folder = runner.pull / PATH / PUBLISHED.name
    shutil.copytree(PUBLISHED, folder)
    (folder / "claims.json").write_text("```\n# [x](javascript:1)")
    runner.commit()
    assert runner.step("Only whole").returncode == 0
    said = runner.step("Check")
    assert said.returncode == 1
    assert "refused" in said.stdout
    assert (runner.folder / "summary.md").read_text().count("```") == 2


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (f"leaderboard/certificates/{'0' * 64}/{'1' * 16}.json", "what stands is never changed"),
        ("leaderboard/suites/quickstart@2.1.yaml", "what stands is never changed"),
        (f"{PATH}/notes.txt", "what stands is never changed"),
        (f"{PATH}/{'a' * 64}/$(touch x)\n.json", "what stands is never changed"),
        ("leaderboard/quickstart@2/board.md", "take it out of the request"),
        ("leaderboard/submissions/Quick@2/a/b", "what stands is never changed"),
    ],
)
def test_other_changes_are_refused(runner: Runner, path: str, text: str) -> None:
    file = runner.pull / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("changed")
    runner.commit()
    said = runner.step("Only whole")
    assert said.returncode == 1
    assert text in said.stdout
    assert "\n" not in said.stdout.strip()
    assert not (runner.folder / "x").exists()


def test_a_deleted_certificate_is_refused_and_code_is_not_its_business(runner: Runner) -> None:
    (runner.pull / "README.md").write_text("after")
    runner.commit()
    assert runner.step("Only whole").returncode == 0
    shutil.rmtree(runner.pull / "leaderboard" / "certificates")
    runner.commit()
    assert "(D): what stands is never changed" in runner.step("Only whole").stdout


@needs_both
def test_scripts_are_bash() -> None:
    for step in STEPS:
        if "run" in step:
            subprocess.run([BASH, "-n", "-c", step["run"]], check=True)
