"""Suites are registered before their results, once a MAJOR, and the register only grows."""

import re
import shutil
import subprocess

import pytest
from command_line import cli, mistake, suite_file
from documentation import ROOT
from register_history import REGISTER as FILE
from register_history import History, violations
from tiny_suite import TINY

from transferbench.errors import SuiteError
from transferbench.suite import Suite
from transferbench.suite.loading import bundled_suites, load_suite, suite_path
from transferbench.suite.preregistration import read_register

BEFORE_THE_REGISTER = {
    "characters@1", "characters@2", "initializations@1", "null-pair@1", "quickstart@1",
}  # fmt: skip
DRAFTS: set[str] = set()
"""Bundled suites that are not registered yet, and have no results."""
WITHOUT_A_BOARD = {"photos@1"}
"""Bundled suites on pictures of one's own, whose results compare with no one else's."""

DIGEST = Suite.model_validate(TINY).digest
LINE = f"2026-11-28 tiny@1.0 {DIGEST}\n"


@pytest.fixture
def register(tmp_path):
    def write(text):
        path = tmp_path / "PREREGISTERED"
        path.write_text(text)
        return path

    return write


# --- the command ------------------------------------------------------------------------------


def test_validate_says_when_a_suite_was_registered(tmp_path, register):
    suite = suite_file(tmp_path, TINY)
    said = cli("validate", suite, "--register", register(f"# a comment\n\n{LINE}"))
    assert said.out == (f"tiny@1.0 is valid\ndigest: {DIGEST}\npreregistered: 2026-11-28\n")


def test_validate_says_that_a_suite_is_not_registered(tmp_path, register):
    path = register(LINE.replace("tiny@1.0", "other@1.0"))
    said = cli("validate", suite_file(tmp_path, TINY), "--register", path)
    assert said.code == 0
    assert said.out.endswith(f"\nnot preregistered: {path} has no tiny@1\n")


@pytest.mark.parametrize(
    "change", [{"replicates": 5}, {"version": "1.1"}, {"summary": "Other words."}]
)
def test_a_change_of_a_registered_suite_is_refused(tmp_path, register, change):
    suite = suite_file(tmp_path, TINY | change)
    message = mistake("validate", suite, "--register", register(LINE))
    version = change.get("version", "1.0")
    assert message.startswith(f"error: tiny@{version} with digest ")
    assert message.endswith(
        f" is not what was preregistered on 2026-11-28: tiny@1.0 with digest {DIGEST[:12]}; a "
        "change needs a new MAJOR\n"
    )


@pytest.mark.parametrize("version", ["3.0", "3.1"])
def test_a_file_that_calls_itself_a_bundled_suite_is_refused_without_a_register(
    tmp_path, monkeypatch, version
):
    monkeypatch.chdir(tmp_path)
    bundled = suite_path("quickstart@3").read_text(encoding="utf-8")
    copy = tmp_path / "mine.yaml"
    copy.write_text(bundled, encoding="utf-8")
    assert cli("validate", copy).code == 0
    changed = re.sub(r"(?m)^    threshold: 0\.06$", "    threshold: 0.2", bundled)
    assert changed != bundled
    copy.write_text(re.sub(r"(?m)^version: .*$", f'version: "{version}"', changed), "utf-8")
    for command in (["validate"], ["plan"], ["run", "--out", tmp_path / "out"]):
        message = mistake(command[0], copy, *command[1:])
        assert f"quickstart@{version}" in message
        assert ("calls itself" in message) == (version == "3.0")
    assert not (tmp_path / "out").exists()


def test_the_next_major_is_another_suite(tmp_path, register):
    suite = suite_file(tmp_path, TINY | {"version": "2.0", "replicates": 5})
    assert "no tiny@2" in cli("validate", suite, "--register", register(LINE)).out


def test_without_a_register_validate_says_nothing_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = cli("validate", suite_file(tmp_path, TINY))
    assert said.out == f"tiny@1.0 is valid\ndigest: {DIGEST}\n"


def test_the_register_of_the_working_directory_is_used(tmp_path, monkeypatch, register):
    folder = tmp_path / "leaderboard" / "suites"
    folder.mkdir(parents=True)
    shutil.copy(register(LINE), folder / "PREREGISTERED")
    monkeypatch.chdir(tmp_path)
    assert "preregistered: 2026-11-28" in cli("validate", suite_file(tmp_path, TINY)).out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-28 tiny@1.0\n", ":1: '2026-11-28 tiny@1.0' is not a registration; write YEAR-"),
        (LINE.replace("11-28", "11-31"), ":1: '2026-11-31 tiny@1.0"),
        (LINE.replace("tiny@1.0", "tiny@1"), "is not a registration"),
        (LINE.replace(DIGEST, DIGEST[:40]), "is not a registration"),
        (LINE + LINE.replace("1.0", "1.1"), ":2: tiny@1 is registered already, in the line of 202"),
        (LINE + LINE.replace("tiny@1.0", "x@1.0").replace("11-28", "11-27"), ":2: 2026-11-27 is "),
    ],
)
def test_a_mistake_in_the_register_is_named(register, text, expected):
    with pytest.raises(SuiteError) as caught:
        read_register(register(text))
    assert expected in str(caught.value)


def test_a_register_that_is_not_there_or_not_text_is_an_error(tmp_path):
    path = tmp_path / "PREREGISTERED"
    with pytest.raises(SuiteError, match=r"cannot read the register of suites .*: No such file"):
        read_register(path)
    path.write_bytes(b"\xff")
    with pytest.raises(SuiteError, match="it is not UTF-8"):
        read_register(path)


# --- the register of the repository -----------------------------------------------------------


def test_bundled_suites_are_the_registered_ones_or_from_before_the_register():
    registered = read_register(ROOT / FILE)
    bundled = set(bundled_suites())
    assert set(registered) <= bundled
    assert bundled - set(registered) == (BEFORE_THE_REGISTER & bundled) | DRAFTS | WITHOUT_A_BOARD
    for board, entry in registered.items():
        suite = load_suite(board)
        assert (suite.id, suite.digest) == (entry.suite, entry.digest)


def test_every_board_is_of_a_registered_suite_or_from_before_the_register():
    results = {path.name for path in (ROOT / "leaderboard" / "submissions").iterdir()}
    assert results <= BEFORE_THE_REGISTER | set(read_register(ROOT / FILE))


# --- its history ------------------------------------------------------------------------------


def has_git():
    return shutil.which("git") is not None


def test_the_register_of_the_repository_only_grew_and_came_before_the_results():
    if not (has_git() and (ROOT / ".git").exists() and History(ROOT).is_complete()):
        pytest.skip("the history of the repository is not here")
    assert list(violations(ROOT)) == []


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository, and a function that commits files with the text that they get."""
    if not has_git():
        pytest.skip("git is not installed")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_DATE", "2026-11-28T12:00:00+0000")
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")

    def git(*words):
        words = ["git", "-C", tmp_path, *words]
        subprocess.run(words, check=True, capture_output=True)

    def commit(**files):
        for path, text in files.items():
            file = tmp_path / paths[path]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        git("add", ".")
        git("commit", "-q", "-m", "x")

    paths = {"register": FILE, "result": "leaderboard/submissions/tiny@1/a/b/submission.json",
             "other": "README.md"}  # fmt: skip
    git("init", "-q", "-b", "main")
    commit.git, commit.root = git, tmp_path
    return commit


def test_a_register_that_grows_before_results_breaks_nothing(repository):
    repository(register="# suites\n")
    repository(register=f"# suites\n{LINE}")
    repository(result="1")
    repository(register=f"# suites\n{LINE}{LINE.replace('tiny', 'other')}")
    repository(result="2")
    assert History(repository.root).is_complete()
    assert list(violations(repository.root)) == []


@pytest.mark.parametrize("text", ["", LINE.replace("28", "27"), f"# new\n{LINE}"])
def test_a_line_that_is_changed_or_taken_out_is_found(repository, text):
    repository(register=LINE)
    repository(register=text)
    (broken,) = violations(repository.root)
    assert broken.endswith(f"changes lines of {FILE}, to which lines are only appended")


def test_a_line_that_is_taken_out_and_put_back_is_found(repository):
    repository(register=LINE)
    repository(register="")
    repository(register=LINE)
    assert len(list(violations(repository.root))) == 1


@pytest.mark.parametrize(("day", "count"), [("26", 1), ("27", 0), ("29", 0), ("30", 1)])
def test_a_registration_with_the_date_of_another_day_is_found(repository, day, count):
    repository(register=LINE.replace("11-28", f"11-{day}"))
    broken = list(violations(repository.root))
    assert len(broken) == count
    assert all(f" dates tiny@1 2026-11-{day}: 2026-11-28 it is" in line for line in broken)


def test_results_in_the_commit_of_the_registration_or_before_it_are_found(repository):
    repository(register=LINE, result="1")
    (broken,) = violations(repository.root)
    assert " adds results of tiny@1, and its registration, " in broken


def test_results_before_the_registration_are_found(repository):
    repository(result="1")
    repository(register=LINE)
    assert len(list(violations(repository.root))) == 1


def test_results_of_a_branch_that_lacks_the_registration_are_found(repository):
    repository(other="1")
    repository.git("checkout", "-q", "-b", "side")
    repository(result="1")
    repository.git("checkout", "-q", "main")
    repository(register=LINE)
    repository.git("merge", "-q", "side", "-m", "merged")
    assert len(list(violations(repository.root))) == 1


def test_a_merge_of_two_registrations_breaks_nothing_where_it_appends(repository):
    repository(register=LINE)
    repository.git("checkout", "-q", "-b", "side")
    repository(other="1")
    repository.git("checkout", "-q", "main")
    repository(register=LINE + LINE.replace("tiny", "other"))
    repository.git("merge", "-q", "side", "-m", "merged")
    assert list(violations(repository.root)) == []


def test_a_change_that_is_not_committed_is_found(repository):
    repository(register=LINE)
    (repository.root / FILE).write_text("")
    assert list(violations(repository.root)) == [f"lines of {FILE} are changed and not committed"]


def test_a_shallow_clone_is_not_a_history(repository, tmp_path):
    repository(other="1")
    repository(register=LINE)
    clone = tmp_path / "clone"
    repository.git("clone", "-q", "--depth", "1", f"file://{tmp_path}", str(clone))
    assert not History(clone).is_complete()
    assert not History(tmp_path / "nothing").is_complete()
