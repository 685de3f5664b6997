"""A virtual environment that shares the packages of this one, and installs offline."""

import os
import subprocess
import sysconfig
import venv


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


def install(python, *words, folder):
    """``pip install`` without network access."""
    offline = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    done = call(python, "-m", "pip", "install", *offline, *words, folder=folder)
    assert done.returncode == 0, done.stderr
