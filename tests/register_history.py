"""What the history of a repository says of its register of suites: it only grew, and came first.

``python tests/register_history.py`` checks the repository that it stands in.
"""

import subprocess
import sys
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

    def is_before(self, first, second):
        command = ["git", "-C", str(self.root), "merge-base", "--is-ancestor", first, second]
        return first != second and subprocess.run(command, check=False).returncode == 0


def boards(text):
    """``name@MAJOR`` of each registration."""
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {line[1].partition(".")[0] for line in lines}


def violations(root):
    """What the history of the repository at ``root`` breaks, in words."""
    history = History(root)
    first = {}
    for commit, *parents in history.commits_of(REGISTER):
        text = history.text(commit, REGISTER)
        before = [history.text(parent, REGISTER) for parent in parents]
        if not all(text.startswith(earlier) for earlier in before):
            yield f"{commit[:12]} changes lines of {REGISTER}, to which lines are only appended"
        for board in boards(text) - boards("".join(before)):
            first.setdefault(board, commit)
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
