"""Pictures of test images as networks see them: whole, and under each perturbation of a suite."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError, field_validator

from transferbench.errors import TransferbenchError
from transferbench.files import read_bounded_json, write_json
from transferbench.plan import Plan
from transferbench.registry.guard import only_plugins_run
from transferbench.runner.folder import PICTURES
from transferbench.runner.planning import Planned
from transferbench.specs import Frozen

if TYPE_CHECKING:
    from transferbench.engine.resources import Machine

__all__ = ["Sheet", "read_sheets", "write_sheets"]

IMAGES = 8
LARGEST_SIDE = 96
"""Pixels of an image on a sheet; larger ones are reduced."""
LOSSLESS_SIDE = 48
"""Up to it a sheet is a PNG, in which single pixels can be told."""
GAP = 1
MOST_SHEETS = 64
MAX_BYTES = 2**25
DATA = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+=*")


class Sheet(Frozen):
    """A row of images of a target under one perturbation, as the address of its content."""

    target: str
    perturbation: str
    images: int
    size: int
    data: str

    @field_validator("data")
    @classmethod
    def _is_a_picture(cls, data: str) -> str:
        if not DATA.fullmatch(data):
            raise ValueError("must be a PNG or JPEG in base64")
        return data


@only_plugins_run()
def write_sheets(planned: Planned, machine: Machine) -> None:
    """Write the sheets of a run beside its results; one that a plugin does not give is left out."""
    from transferbench.engine.resources import WorkerResources

    resources = WorkerResources(planned.registry, planned.store, machine)
    sheets = []
    for target, perturbation, payload in _trials(planned.plan, _pictured(planned)):
        try:
            images = resources.test_examples(payload, IMAGES)
        except TransferbenchError:  # the jobs that need it tell
            continue
        sheets.append(
            Sheet(target=target, perturbation=perturbation, images=len(images),
                  size=images.shape[1], data=_encoded(images))
        )  # fmt: skip
    write_json(planned.folder / PICTURES, sheets)


def read_sheets(folder: Path) -> tuple[Sheet, ...]:
    """The sheets of a run; none where there is no file of them that can be read."""
    try:
        content = read_bounded_json(folder / PICTURES, MAX_BYTES)
        return TypeAdapter(tuple[Sheet, ...]).validate_python(tuple(content or ()))
    except (ValidationError, TypeError):
        return ()


def _pictured(planned: Planned) -> set[str]:
    """The targets whose images may be in a report."""
    return {
        label.partition(":")[2]
        for labels, card in planned.data.cards.items()
        for label in labels.split(", ")
        if card.pictured and label.startswith("target:")
    }


def _trials(plan: Plan, targets: set[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The first trial of each target under each perturbation, in the order of the suite."""
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in plan.cells:
        if cell.target in targets:
            first.setdefault((cell.target, cell.perturbation), plan.jobs[cell.job].payload)
    order = list(plan.suite.perturbations)
    ordered = sorted(first, key=lambda key: (key[0], order.index(key[1])))
    yield from ((*key, first[key]) for key in ordered[:MOST_SHEETS])


def _encoded(images: np.ndarray) -> str:
    """The images side by side. Shapes: uint8 (N, H, W, C)."""
    from PIL import Image

    lossless = images.shape[1] <= LOSSLESS_SIDE
    pictures = [Image.fromarray(image if image.shape[2] == 3 else image[..., 0])
                for image in images]  # fmt: skip
    for picture in pictures:
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    side = pictures[0].width
    sheet = Image.new("RGB", (len(pictures) * (side + GAP) - GAP, side), "white")
    for position, picture in enumerate(pictures):
        sheet.paste(picture, (position * (side + GAP), 0))
    content = io.BytesIO()
    kind = "PNG" if lossless else "JPEG"
    sheet.save(content, kind, **({} if lossless else {"quality": 85}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
