"""What a card reaches beside the loops and packages of others: a table with the card's name.

Usage: ``python tests/benchmarks/gpu.py FOLDER [card|tiny]``; some three minutes on a card.

Written to ``FOLDER`` after each row: ``benchmarks.json`` and ``benchmarks.md``. What cannot be
measured has a row with the reason. ``tiny`` takes seconds on a CPU and tells nothing but that the
script runs.
"""

import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from gpu_peers import features, images
from gpu_rows import CARD, TINY, BenchmarkScale, MeasuredRow, skipped
from gpu_training import large_network, small_network
from tabulate import tabulate

from transferbench.engine.kernels import driver_version
from transferbench.training.compiling import keep_compiled_in

SCALES = {"card": CARD, "tiny": TINY}


def rows(scale: BenchmarkScale, folder: Path) -> Iterator[MeasuredRow]:
    """The most important first: what comes last is lost where the time is over."""
    parts = [
        *(partial(small_network, name) for name in scale.small),
        *(partial(large_network, name, folder) for name in scale.large),
        features,
        images,
    ]
    for part in parts:
        try:
            yield from part(scale)
        except Exception as error:  # noqa: BLE001  # a row of the table: the other parts go on
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            yield skipped("", f"the rest of part {parts.index(part) + 1}", reason)


def main(folder: str, name: str = "card") -> None:
    scale, out = SCALES[name], Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    keep_compiled_in(out / "compiled")
    card = scale.device
    if card == "cuda":
        card = f"{torch.cuda.get_device_name()}, driver {driver_version()}"
    title, began = f"{card}, torch {torch.__version__}", time.perf_counter()
    written: list[dict[str, object]] = []
    for row in rows(scale, out):
        written.append({**row._asdict(), "at_seconds": round(time.perf_counter() - began, 1)})
        content = json.dumps({"card": title, "rows": written}, indent=1)
        (out / "benchmarks.json").write_text(content)
        text = tabulate(written, headers="keys", tablefmt="github")
        (out / "benchmarks.md").write_text(f"# Training and images on {title}\n\n{text}\n")
        print(row, flush=True)  # noqa: T201  # a script


if __name__ == "__main__":
    main(*sys.argv[1:])
