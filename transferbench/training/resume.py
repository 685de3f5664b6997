"""A training that is not finished, kept in a file: weights, optimizer, generators, position.

It is written every few minutes, and where the process is told to end; a restart goes on from it
bit for bit. A file that cannot be read, or is of another training, is as none.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from transferbench.errors import StoreError, is_out_of_memory
from transferbench.files import atomic_path
from transferbench.identity import file_digest
from transferbench.interrupts import end_if_requested, ending_requested
from transferbench.store.disk import remove
from transferbench.training.generators import GeneratorStates
from transferbench.training.progress import Progress

if TYPE_CHECKING:
    from transferbench.training.loop import Training

__all__ = ["COMPILED", "KEPT", "Unfinished"]

KEPT, COMPILED = "training.pt", "compiled"
"""The file of a training, and one that is beside it where its network is compiled."""

FORMAT = 1
DIGEST_BYTES, BLOCK_BYTES = 32, 2**20
"""Of the sha256 behind the content, since torch does not check the sums in its files."""


class Unfinished:
    """Where a training is kept until it has ended.

    ``key``: of what must be the same for the bits to be. ``seconds``: between two writes.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._key, self._seconds, self._clock = path, key, seconds, clock
        self._written = clock()
        self._went_on = False

    def visit(self, training: Training, progress: Progress) -> None:
        """Between two steps: write where it is time, and end where this process is to end."""
        requested = ending_requested()
        due = requested or self._clock() - self._written >= self._seconds
        if shards := training.stepping.shards:
            # Each has a part of what is written.
            (due,) = shards.agreed([due])
        if due:
            self._write(training, progress)
            self._written = self._clock()
        if requested:
            end_if_requested()

    def load(self, training: Training) -> Progress | None:
        """Put ``training`` where it was when it was written, if it was."""
        for left in self._path.parent.glob(f".{self._path.stem}.*"):
            remove(left)  # by a process that was killed as it wrote
        try:
            if not _is_intact(self._path):
                return None
            content = torch.load(self._path, weights_only=True, map_location="cpu")
        except Exception as error:
            if is_out_of_memory(error):
                raise  # or it would be written over
            return None
        if not isinstance(content, dict) or content.get("key") != [FORMAT, self._key]:
            return None
        self._went_on = True
        _restore(training, content)
        return _progress_of(content["progress"])

    def forget(self) -> None:
        """Remove what this attempt went on from, where it got no further: it may be the cause."""
        if self._went_on:
            remove(self._path)

    def _write(self, training: Training, progress: Progress) -> None:
        content = {
            "key": [FORMAT, self._key],
            "progress": {
                **vars(progress),
                "order": progress.order.get_state(),
                "augmentation": progress.augmentation.get_state(),
            },
            **_state_of(training),
        }
        if training.execution.processes.rank:
            return
        # A full disk, which torch tells by an error of its own, costs the way back alone.
        with suppress(StoreError, RuntimeError):
            with atomic_path(self._path) as partial:
                torch.save(content, partial)
                sha256 = bytes.fromhex(file_digest(partial))
                with partial.open("ab") as file:
                    file.write(sha256)
            self._went_on = False


def _is_intact(path: Path) -> bool:
    """Whether a file ends with the digest of what is before."""
    sha256, size = hashlib.sha256(), path.stat().st_size - DIGEST_BYTES
    with path.open("rb") as file:
        for start in range(0, size, BLOCK_BYTES):
            sha256.update(file.read(min(BLOCK_BYTES, size - start)))
        return file.read() == sha256.digest()


def _state_of(training: Training) -> dict[str, Any]:
    stepping = training.stepping
    net, optimizer, shards = stepping.net, stepping.optimizer, stepping.shards
    # In the order of parameters, which an optimizer's own state names by number.
    parts, gathered = _parts(training), shards.gathered if shards else _itself
    moments = [
        {name: gathered(each, value) for name, value in optimizer.state.get(part, {}).items()}
        for each, part in parts.items()
    ]
    states = GeneratorStates.now()
    name, words, *rest = states.numpy
    return {
        "parameters": [gathered(each, part).detach() for each, part in parts.items()],
        # Those too that are in no state dict.
        "buffers": dict(net.named_buffers()),
        "moments": moments,
        "scaler": stepping.scaler.state_dict(),
        "python": states.python,
        "numpy": [name, torch.from_numpy(words.astype(np.int64)), *rest],
        "torch": states.torch,
        "cuda": states.cuda,
    }


def _parts(training: Training) -> Mapping[nn.Parameter, Tensor]:
    """Of each parameter what the optimizer of this process changes."""
    shards = training.stepping.shards
    return shards.parts if shards else {each: each for each in training.stepping.net.parameters()}


def _itself(_: nn.Parameter, value: Any) -> Any:
    return value


def _restore(training: Training, content: Mapping[str, Any]) -> None:
    stepping = training.stepping
    net, optimizer, shards = stepping.net, stepping.optimizer, stepping.shards
    parts, part_of = _parts(training), shards.part if shards else _itself
    with torch.no_grad():
        for (parameter, part), value in zip(parts.items(), content["parameters"], strict=True):
            part.copy_(part_of(parameter, value))
        for name, buffer in net.named_buffers():
            buffer.copy_(content["buffers"][name])
    for (parameter, part), moments in zip(parts.items(), content["moments"], strict=True):
        if moments:
            optimizer.state[part] = {
                name: value if value is None else _like(part_of(parameter, value), part)
                for name, value in moments.items()
            }
    if content["scaler"]:
        stepping.scaler.load_state_dict(content["scaler"])
    name, words, *rest = content["numpy"]
    numpy_state = (name, words.numpy().astype(np.uint32), *rest)
    python = content["python"]
    GeneratorStates(
        (python[0], tuple(python[1]), python[2]), numpy_state, content["torch"], content["cuda"]
    ).restore()


def _like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A moment where its parameter is, in its layout; the count of steps is a scalar."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter).copy_(value)


def _progress_of(content: Mapping[str, Any]) -> Progress:
    generators = {}
    for name in ("order", "augmentation"):
        generators[name] = torch.Generator()
        generators[name].set_state(content[name])
    return Progress(**{**content, **generators})
