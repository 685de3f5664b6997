"""What the data of a run are: classes, images, groups, balance and copies of each split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from transferbench.data.cache import PreparedDataset
from transferbench.data.decoded import PreparedSplit
from transferbench.data.duplicates import repeated_images
from transferbench.plan.resolve import ResolvedSuite
from transferbench.specs import DatasetSpec, Frozen

__all__ = ["DataCard", "SplitCard", "card_sentence", "card_table", "data_cards"]

CARD_HEAD = ("split", "images", "groups", "smallest", "largest", "imbalance", "copies")


class SplitCard(Frozen):
    """One split: ``counts`` of images for each class, or of positives for each label.

    ``copies``: images that are equal pixel by pixel to an earlier one of the split. ``unknown``:
    labels of images that are not known.
    """

    images: int
    groups: int
    counts: tuple[int, ...]
    copies: int
    unknown: int = 0


class DataCard(Frozen):
    """One dataset as it was prepared.

    ``pictured``: whether its images may be in a report.
    """

    dataset: str
    summary: str
    source: str
    license: str
    grouping: str
    task: str
    classes: tuple[str, ...]
    splits: dict[str, SplitCard]
    pictured: bool = True


def data_cards(
    resolved: ResolvedSuite, datasets: Mapping[str, PreparedDataset]
) -> dict[str, DataCard]:
    """The card of each dataset of a suite, by its label; one of several labels is there once."""
    cards: dict[str, DataCard] = {}
    labels: dict[str, list[str]] = {}
    for label, dataset in datasets.items():
        labels.setdefault(dataset.fingerprint, []).append(label)
    for named in labels.values():
        cards[", ".join(named)] = _card(resolved.datasets[named[0]].spec, datasets[named[0]])
    return cards


def _card(spec: DatasetSpec, dataset: PreparedDataset) -> DataCard:
    count = len(dataset.classes)
    splits = {name: _split_card(split, count) for name, split in dataset.splits.items()}
    return DataCard(
        dataset=spec.name, summary=spec.summary, source=spec.source, license=spec.license,
        grouping=spec.grouping, task=dataset.task, classes=dataset.classes, splits=splits,
        pictured=spec.pictured,
    )  # fmt: skip


def _split_card(split: PreparedSplit, classes: int) -> SplitCard:
    labels = split.labels
    if labels.ndim == 1:
        counts, unknown = np.bincount(labels, minlength=classes), 0
    else:
        counts, unknown = (labels > 0.5).sum(axis=0), int(np.isnan(labels).sum())
    copies = repeated_images(split.digests, split.images.shape[1:])
    return SplitCard(
        images=len(labels), groups=len(np.unique(split.groups)), counts=tuple(counts.tolist()),
        copies=copies, unknown=unknown,
    )  # fmt: skip


def card_table(card: DataCard) -> tuple[list[str], list[list[str]]]:
    """A card as a table: its head, and a row for each split."""
    has_unknown = any(split.unknown for split in card.splits.values())
    head = [*CARD_HEAD, *(["unknown"] if has_unknown else [])]
    rows = []
    for name, split in card.splits.items():
        smallest, largest = (pick(range(len(split.counts)), key=split.counts.__getitem__)
                             for pick in (min, max))  # fmt: skip
        low, high = split.counts[smallest], split.counts[largest]
        rows.append([
            name, f"{split.images:,}", f"{split.groups:,}",
            f"{card.classes[smallest]}: {low:,}", f"{card.classes[largest]}: {high:,}",
            f"{high / low:.3g}" if low else "one is empty", f"{split.copies:,}",
            *([f"{split.unknown:,}"] if has_unknown else []),
        ])  # fmt: skip
    return head, rows


def card_sentence(card: DataCard) -> str:
    """What the dataset is, in a line."""
    kind = "classes" if card.task == "multi-class" else "labels, of which an image may have several"
    return f"{len(card.classes)} {kind}; a group is one {card.grouping}"
