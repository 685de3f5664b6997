"""The data of a run in its report: a card of each dataset, and what networks see of its images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from transferbench.report.tables import Cell, Table
from transferbench.runner.contact_sheet import Sheet
from transferbench.runner.data_card import DataCard, card_sentence, card_table

__all__ = ["DataSection", "data_sections"]

MOST_CLASSES = 30
"""Of which the images of each are listed."""


class DataSection(NamedTuple):
    """What the page shows of one dataset; ``sheets``: of each of its targets."""

    title: str
    text: str
    origin: str
    splits: Table
    classes: Table | None
    sheets: list[Sheet]
    not_pictured: bool


def data_sections(cards: Mapping[str, DataCard], sheets: Sequence[Sheet]) -> Iterator[DataSection]:
    """A section for each card."""
    for labels, card in cards.items():
        targets = [label.removeprefix("target:") for label in labels.split(", ")]
        yield DataSection(
            title=f"{labels}: {card.dataset}",
            text=f"{card.summary}. {card_sentence(card)}.",
            origin=f"Licence: {card.license}. Source: {card.source}.",
            splits=_splits(card),
            classes=_classes(card) if len(card.classes) <= MOST_CLASSES else None,
            sheets=[sheet for sheet in sheets if sheet.target in targets],
            not_pictured=not card.pictured,
        )


def _splits(card: DataCard) -> Table:
    unit = "images" if card.task == "multi-class" else "positives"
    head, lines = card_table(card)
    rows = [
        [Cell(text, kind="label" if position in {0, 3, 4} else "number")
         for position, text in enumerate(line)]
        for line in lines
    ]  # fmt: skip
    note = (
        f"Smallest and largest: the class with the fewest and with the most {unit}; imbalance: "
        "their ratio. Copies: images equal pixel by pixel to an earlier one of the split."
    )
    if "unknown" in head:
        note += " Unknown: labels of images that are not known; they count nowhere."
    return Table(head, rows, note)


def _classes(card: DataCard) -> Table:
    head = ["class" if card.task == "multi-class" else "label", *card.splits]
    rows = [
        [Cell(name), *(Cell(f"{split.counts[position]:,}", kind="number")
                       for split in card.splits.values())]
        for position, name in enumerate(card.classes)
    ]  # fmt: skip
    return Table(head, rows)
