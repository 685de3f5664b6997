"""What the history of a repository says of its register of suites: it only grew, and came first.

``python tests/register_history.py`` checks the repository that it stands in.
"""

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

REGISTER = "leaderboard/suites/PREREGISTERED"
RESULTS = "leaderboard/submissions"


class History:
    """The commits of a git repository."""

    def __init__(self, root):
        self.root = root

    def git(self, *words, check=True):
        done = subprocess.run(
            ["git", "-C", str(self.root), *words],  # noqa: S607  # the git of the user
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"git {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout if not done.returncode else ""

    def is_complete(self):
        """Whether there are commits, and none is left out by a shallow clone."""
        shallow = self.git("rev-parse", "--is-shallow-repository", check=False).strip()
        return shallow == "false" and bool(self.git("rev-parse", "-q", "--verify", "HEAD"))

    def commits_of(self, path, *options):
        """The commits that changed ``path``, each after those that it builds on."""
        lines = self.git("log", "--full-history", "--topo-order", "--reverse", "--format=%H %P",
                         *options, "--", path)  # fmt: skip
        return [line.split() for line in lines.splitlines()]

    def text(self, commit, path):
        return self.git("show", f"{commit}:{path}", check=False)

    def day_of(self, commit):
        """The day on which a commit was written, in UTC."""
        seconds = int(self.git("show", "-s", "--format=%at", commit))
        return datetime.fromtimestamp(seconds, UTC).date()

    def is_before(self, first, second):
        command = ["git", "-C", str(self.root), "merge-base", "--is-ancestor", first, second]
        return first != second and subprocess.run(command, check=False).returncode == 0


def boards(text):
    """``name@MAJOR`` of each registration, and its date."""
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {line[1].partition(".")[0]: date.fromisoformat(line[0]) for line in lines}


def violations(root):
    """What the history of the repository at ``root`` breaks, in words."""
    history = History(root)
    first = {}
    for commit, *parents in history.commits_of(REGISTER):
        text = history.text(commit, REGISTER)
        before = [history.text(parent, REGISTER) for parent in parents]
        if not all(text.startswith(earlier) for earlier in before):
            yield f"{commit[:12]} changes lines of {REGISTER}, to which lines are only appended"
        dates = boards(text)
        for board in dates.keys() - boards("".join(before)).keys():
            first.setdefault(board, commit)
            # A day more or less: dates of the register have no time zone.
            if abs((dates[board] - history.day_of(commit)).days) > 1:
                yield f"{commit[:12]} dates {board} {dates[board]}: {history.day_of(commit)} it is"
    head = history.text("HEAD", REGISTER)
    file = root / REGISTER
    if not (file.read_text(encoding="utf-8") if file.exists() else "").startswith(head):
        yield f"lines of {REGISTER} are changed and not committed"
    for board, registered in sorted(first.items()):
        for commit, *_ in history.commits_of(f"{RESULTS}/{board}", "--diff-filter=A"):
            if not history.is_before(registered, commit):
                yield (
                    f"{commit[:12]} adds results of {board}, and its registration, "
                    f"{registered[:12]}, is not before it"
                )


if __name__ == "__main__":
    repository = Path(__file__).parents[1]
    if not History(repository).is_complete():
        sys.exit("the history is not here: clone the repository with all commits")
    broken = list(violations(repository))
    print("\n".join(broken) or "the register only grew, and came before the results")  # noqa: T201  # its output
    sys.exit(bool(broken))
