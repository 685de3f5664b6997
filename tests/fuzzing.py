"""Mutants in a process with limits: how each ends, and that none hangs or takes the memory.

``python fuzzing.py FOLDER KINDS COUNT SECONDS`` tries the mutants of each kind one after another
and writes a line of JSON before and after each: the parent knows which of them never came back.
"""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import mutations
import torch
from command_line import SMALL, cli, environment, suite_file
from PIL import Image

from transferbench.registry import load_registry
from transferbench.runner.cost import peak_memory_bytes

__all__ = [
    "HANG_SECONDS", "KINDS", "MEMORY_BYTES", "RESULTS", "HangError", "MutantResult", "hang",
    "limit_memory", "outcomes",
]  # fmt: skip

HANG_SECONDS = 20
MEMORY_BYTES = 2**31
RESULTS = "outcomes.jsonl"
BACKBONE = "fixup-resnet8"

Commands = list[tuple[Any, ...]]


class MutantResult(NamedTuple):
    """How a mutant ended: the exit code of its last command (None: it never came back).

    ``text``: what was printed, or the traceback. ``peak_bytes``: the most memory so far.
    """

    kind: str
    seed: int
    code: int | None = None
    text: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0


# --- kinds ------------------------------------------------------------------------------------


def suite_mutant(seed: int, folder: Path) -> Commands:
    """A suite to plan, in a folder that has the decoded data of the others."""
    path = folder / "mutant.yaml"
    path.write_bytes(mutations.mutated_suite(seed))
    return [("plan", path, "--out", folder / "runs" / "plan")]


def run_folder_mutant(seed: int, folder: Path) -> Commands:
    """A damaged run for one of the commands that read it, or to be run again."""
    original, run = folder / "runs" / "original", folder / "runs" / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(original, run)
    mutations.mutated_run_folder(seed, run)
    commands: Commands = [
        ("compare", run, original), ("export", run, folder / "table.csv"), ("report", run),
        ("submission", "pack", run, "--out", folder / "packed"),
        ("run", folder / "suite.yaml", "--out", run, "--jobs", 1),
    ]  # fmt: skip
    return [("status", run), commands[seed % len(commands)]]


def weights_mutant(seed: int, folder: Path) -> Commands:
    """A file of weights to get ready for the suite."""
    shutil.rmtree(folder / "weights", ignore_errors=True)
    (folder / "weights").mkdir()
    path = mutations.mutated_weights(seed, _weights(), folder / "weights")
    return [("prepare", folder / "suite.yaml", "--backbone", BACKBONE, "--weights", path,
             "--out", folder / "runs" / "prepared")]  # fmt: skip


@cache
def _weights() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spec = load_registry().backbone(BACKBONE)
        return spec.build(spec.parse({}), 10, 1, 8).state_dict()  # type: ignore[no-any-return]


def images_mutant(seed: int, folder: Path) -> Commands:
    """A folder of pictures to decode."""
    images = folder / "image-folder"
    shutil.rmtree(images, ignore_errors=True)
    for number, split in enumerate(("train", "test")):
        for label, name in enumerate(("a", "b")):
            for item in range(4):
                path = images / split / name / f"person{item}_{item}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (9, 8), (item, label, number + 1)).save(path)
    mutations.mutated_images(seed, images)
    return [("prepare", folder / "pictures.yaml", "--data-root", folder,
             "--out", folder / "runs" / "pictures")]  # fmt: skip


KINDS: dict[str, Callable[[int, Path], Commands]] = {
    "suites": suite_mutant,
    "run-folders": run_folder_mutant,
    "weights": weights_mutant,
    "images": images_mutant,
}
"""What can be mutated -> the commands that meet the mutant of a seed."""


# --- the parent -------------------------------------------------------------------------------


def outcomes(
    folder: Path, kinds: Iterable[str], count: int, script: str = __file__
) -> list[MutantResult]:
    """How ``count`` mutants of each kind ended; ``script`` tries them."""
    path = folder / RESULTS
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", script, folder, ",".join(kinds), str(count)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=environment(),
    )  # fmt: skip
    end, size = "", -1
    while child.poll() is None:
        try:
            _, end = child.communicate(timeout=4 * HANG_SECONDS)
        except subprocess.TimeoutExpired:
            if size == (size := path.stat().st_size if path.exists() else 0):
                child.kill()
                end = f"no answer for {4 * HANG_SECONDS} s"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    results = [MutantResult(**json.loads(line)) for line in lines]
    last = {(outcome.kind, outcome.seed): outcome for outcome in results}
    assert last, end
    return [o if o.code is not None else o._replace(text=end) for o in last.values()]


# --- the child --------------------------------------------------------------------------------


class HangError(BaseException):
    """No command may catch it."""


def hang(*_: object) -> None:
    raise HangError


def _tried(kind: str, seed: int, folder: Path) -> MutantResult:
    began = time.perf_counter()
    code, text = 0, ""
    try:
        signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
        for command in KINDS[kind](seed, folder):
            said = cli(*command)
            code, text = said.code, f"{' '.join(map(str, command))}\n{said.err}"
            if code not in {0, 1, 2} or (code == 2 and "error: " not in text):
                break
    except HangError:
        code, text = -1, f"it took more than {HANG_SECONDS} s\n{traceback.format_exc()}"
    except Exception:  # noqa: BLE001  # a traceback is what is looked for
        code, text = -1, traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    peak = peak_memory_bytes()
    text = text if len(text) < 4000 else f"{text[:1000]} ... {text[-3000:]}"
    return MutantResult(kind, seed, code, text, time.perf_counter() - began, peak)


def limit_memory() -> None:
    """Beside what is mapped now, which is more than is in memory."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux
        mapped = int(status.read_text().partition("VmData:")[2].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (mapped + MEMORY_BYTES, mapped + MEMORY_BYTES))


def main(folder: Path, kinds: Sequence[str], count: int) -> None:
    """Try ``count`` mutants of each kind."""
    pictures = {"name": "image-folder", "params": {"train": "train", "test": "test"}}
    target = SMALL["targets"]["handwriting"] | {"dataset": pictures, "labels_per_class": 2}
    suite_file(folder, SMALL, targets={"handwriting": target}).rename(folder / "pictures.yaml")
    suite = suite_file(folder, SMALL)
    # What it imports and decodes is there for all mutants.
    said = cli("run", suite, "--out", folder / "runs" / "original", "--jobs", 1)
    assert said.code == 0, said
    write_results(folder, kinds, count, _tried)


def write_results(
    folder: Path,
    kinds: Sequence[str],
    count: int,
    tried: Callable[[str, int, Path], MutantResult],
) -> None:
    """Write what became of the mutants of each kind, with the memory limited from now on.

    Before each stands a line that says that it has begun, for one that ends the process.
    """
    limit_memory()
    signal.signal(signal.SIGALRM, hang)
    with (folder / RESULTS).open("w", encoding="utf-8") as results:
        for kind in kinds:
            for seed in range(count):
                results.write(f"{json.dumps(MutantResult(kind, seed)._asdict())}\n")
                results.flush()
                results.write(f"{json.dumps(tried(kind, seed, folder)._asdict())}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]))
