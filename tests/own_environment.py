"""A virtual environment that shares the packages of this one, and installs offline."""

import json
import os
import subprocess
import sysconfig
import venv
from pathlib import Path

from command_line import Said

COMMANDS = """
import json, sys
from command_line import cli
print(json.dumps([cli(*words) for words in json.loads(sys.argv[1])]))
"""


def own_python(folder):
    """The Python of a new environment in ``folder``."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # addsitedir also processes .pth files, so that editable installs are importable.
    (site / "shared.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    )
    return folder / "bin" / "python"


def call(python, *words, folder, **more):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PIP_CONFIG_FILE": os.devnull} | more
    environment.pop("PIP_FIND_LINKS", None)
    return subprocess.run(
        [str(python), *map(str, words)], cwd=folder, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


def commands(python, *calls, folder):
    """What each call of the command line said, all in one process."""
    here = {"folder": folder, "PYTHONPATH": str(Path(__file__).parent)}
    words = [[str(word) for word in call_words] for call_words in calls]
    done = call(python, "-c", COMMANDS, json.dumps(words), **here)
    assert done.returncode == 0, done.stderr
    return [Said(*output) for output in json.loads(done.stdout)]


def install(python, *words, folder):
    """``pip install`` without network access."""
    offline = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    done = call(python, "-m", "pip", "install", *offline, *words, folder=folder)
    assert done.returncode == 0, done.stderr
