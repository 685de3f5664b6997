"""The lines that pin the test labels and the overlaps of a suite, from its datasets."""

from __future__ import annotations

from pathlib import Path

from transferbench.plan.resolve import resolve_suite
from transferbench.registry import Registry
from transferbench.runner.datasets import overlap_pairs, prepare_datasets, tested_images
from transferbench.runner.options import Options
from transferbench.store import Store
from transferbench.submission.labels import labels_digest
from transferbench.suite.loading import load_suite

__all__ = ["label_pins", "overlap_pins"]


def label_pins(suite: str, store: Path, data_root: Path | None, registry: Registry) -> list[str]:
    """The lines of ``TEST_LABELS`` for a suite; the data of its targets is decoded into ``store``.

    Raises: ``SuiteError``, ``DataError``.
    """
    resolved = resolve_suite(load_suite(suite, registry), registry)
    targets = {name: data for name, data in resolved.datasets.items() if name.startswith("target:")}
    resolved = resolved._replace(datasets=targets)
    datasets = prepare_datasets(resolved, Store(store), Options(data_root=data_root), registry)
    return [
        f"{resolved.suite.board} {target} {data} {labels_digest(items, labels)}"
        for target, data, items, labels in tested_images(resolved.suite, datasets)
    ]


def overlap_pins(suite: str, store: Path, data_root: Path | None, registry: Registry) -> list[str]:
    """The lines of ``OVERLAPS`` for a suite; its datasets are decoded into ``store``.

    Raises: ``SuiteError``, ``DataError``.
    """
    resolved = resolve_suite(load_suite(suite, registry), registry)
    datasets = prepare_datasets(resolved, Store(store), Options(data_root=data_root), registry)
    lines = (" ".join((resolved.suite.board, *pair)) for pair in overlap_pairs(resolved, datasets))
    return list(dict.fromkeys(lines))
