"""The data of a plan: decoded, compared with each other, and with what the plan selects of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transferbench.data.cache import PreparedDataset, prepare, stored_form
from transferbench.data.decoded import PreparedSplit
from transferbench.data.duplicates import Common, common_images, common_keys, copied_images
from transferbench.data.perceptual import NEAR_BITS, near_duplicates
from transferbench.data.splits import planned_training, select_test
from transferbench.errors import DataError, SelectionError, SuiteError, listing
from transferbench.identity import digest
from transferbench.metrics import chance_level
from transferbench.plan import DatasetFacts, Job, Plan
from transferbench.plan.resolve import ResolvedDataset, ResolvedSuite
from transferbench.records import Overlap
from transferbench.registry import Registry
from transferbench.runner.data_card import DataCard, data_cards
from transferbench.runner.messages import said_where_slow
from transferbench.runner.options import Options
from transferbench.store import Store
from transferbench.suite import Suite, Target
from transferbench.suite.bounds import DISTINCT

__all__ = [
    "DataReport",
    "count_copies",
    "facts_of",
    "overlap_pairs",
    "prepare_datasets",
    "refuse_impossible",
    "refuse_unknown_labels",
    "report_on",
    "tested_images",
]

ROUNDED = 1e-3
LISTED = 5
"""Classes and labels that a note names."""


class DataReport(NamedTuple):
    """What users should know of the data of a suite.

    ``notes``: sentences, each with the label of its data. ``overlap``: target -> ``yes`` where its
    images, or groups of its test images, are among the training images of a source, else ``no``.
    ``chance``: target -> the metric of the best constant prediction on its test images, of the
    targets whose chance level the suite leaves to the data. ``classes``: target -> the names of its
    classes or labels. ``cards``: what each dataset is made of.
    """

    notes: tuple[str, ...] = ()
    overlap: Mapping[str, Overlap] = {}
    chance: Mapping[str, float] = {}
    classes: Mapping[str, Sequence[str]] = {}
    cards: Mapping[str, DataCard] = {}


def prepare_datasets(
    resolved: ResolvedSuite, store: Store, options: Options, registry: Registry
) -> dict[str, PreparedDataset]:
    """The decoded datasets by label. Raises: ``DataError`` with all that are missing."""
    prepared: dict[str, PreparedDataset] = {}
    datasets: dict[str, PreparedDataset] = {}
    missing: list[str] = []
    data_root = None if options.data_root is None else Path(options.data_root)
    store.repair("datasets")
    for label, (identity, spec, params) in resolved.datasets.items():
        form = stored_form(resolved.suite.image_of(label).model_dump())
        key = digest([identity, form])
        doing = f"the images of {label} ({spec.name}) are prepared at {form.side} px, once"
        try:
            with said_where_slow(doing):
                datasets[label] = prepared[key] = prepared.get(key) or prepare(
                    spec, params, form, cache=store.datasets, data_root=data_root,
                    code=registry.file_code("dataset", spec.name),
                )  # fmt: skip
        except DataError as error:
            missing.append(f"{label}: {error}")
    if missing:
        raise DataError("\n".join(missing))
    return datasets


def facts_of(
    resolved: ResolvedSuite, datasets: Mapping[str, PreparedDataset], copies: Mapping[str, int]
) -> dict[str, DatasetFacts]:
    """What a plan needs to know of the datasets; ``copies``: as ``count_copies``."""
    return {
        label: DatasetFacts(
            dataset.fingerprint, len(dataset.classes), dataset.task, dataset.metric,
            len(dataset.splits["train"].labels), len(dataset.splits["test"].labels),
            resolved.datasets[label].spec.reads_users_folder and copies[dataset.fingerprint] > 0,
        )
        for label, dataset in datasets.items()
    }  # fmt: skip


def count_copies(datasets: Iterable[PreparedDataset]) -> dict[str, int]:
    """How many training images are equal to one of another group, by the data's fingerprint."""
    splits = {dataset.fingerprint: dataset.splits["train"] for dataset in datasets}
    return {
        fingerprint: int(copied_images(train.groups, train.digests, train.images.shape[1:]).sum())
        for fingerprint, train in splits.items()
    }


# --- selections -------------------------------------------------------------------------------


def refuse_impossible(
    plan: Plan, datasets: Mapping[str, PreparedDataset], jobs: Iterable[Job]
) -> None:
    """Raises: ``DataError`` with all selections of ``jobs`` that the data do not allow.

    Where seeds select differently, that with the fewest images is told: what mends it mends all.
    """
    by_fingerprint = {dataset.fingerprint: dataset for dataset in datasets.values()}
    target_of = {cell.job: f"targets.{cell.target}" for cell in (*plan.tuned, *plan.cells)}
    faults: defaultdict[tuple[str, str], list[SelectionError]] = defaultdict(list)
    for fingerprint, trainings in _selections(jobs, by_fingerprint).items():
        dataset = by_fingerprint[fingerprint]
        for job in trainings:
            selection = job.payload["selection"]
            try:
                planned_training(dataset.splits["train"], selection, dataset.classes)
            except SelectionError as error:
                keys = (f"sources.{name}" for name, source in plan.suite.sources.items()
                        if datasets[f"source:{name}"].fingerprint == fingerprint
                        and source.validation == selection["validation"])  # fmt: skip
                faults[target_of.get(job.id) or next(keys), error.field].append(error)
    if faults:
        raise DataError("\n".join(_told(key, field, errors)
                                  for (key, field), errors in faults.items()))  # fmt: skip


def _told(key: str, field: str, errors: Sequence[SelectionError]) -> str:
    """The worst of ``errors`` of one field, with the setting that mends all."""
    worst = min(errors, key=lambda error: error.value if isinstance(error.value, int) else 0)
    return f"{key}: {worst} (--set {key}.{field}={worst.value})"


def refuse_unknown_labels(
    plan: Plan, datasets: Mapping[str, PreparedDataset], registry: Registry
) -> None:
    """Raises: ``SuiteError`` with all diagnostics that are not made for labels that are unknown."""
    unknown = {
        dataset.fingerprint
        for dataset in datasets.values()
        if any(np.isnan(split.labels).any() for split in dataset.splits.values())
    }
    faults: dict[str, None] = {}
    for cell in plan.measured if unknown else ():
        payload = plan.jobs[cell.job].payload
        name = payload["diagnostic"]["name"]
        subjects = (plan.jobs[job].payload["dataset"]["fingerprint"] for job in payload["subjects"])
        if unknown.intersection(subjects) and not registry.diagnostic(name).unknown_labels:
            faults[
                f"target:{cell.a.target}: some of its labels are unknown, and diagnostic {name!r} "
                "does not say that it leaves them out (DiagnosticSpec.unknown_labels); choose "
                "another policy than ignore, or leave the diagnostic out"
            ] = None
    if faults:
        raise SuiteError("\n".join(faults))


def _selections(
    jobs: Iterable[Job], by_fingerprint: Mapping[str, PreparedDataset]
) -> dict[str, list[Job]]:
    """By the fingerprint of their data, trainings of which each selects another number of images.

    Where each image is its own group, the seed decides which images are held out, not how many.
    """
    trainings: defaultdict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        if "dataset" in job.payload:
            trainings[job.payload["dataset"]["fingerprint"]].append(job)
    selections = {}
    for fingerprint, jobs_of in trainings.items():
        groups = by_fingerprint[fingerprint].splits["train"].groups
        alone = len(set(groups.tolist())) == len(groups) and not any(
            "copies" in job.payload["selection"] for job in jobs_of
        )
        same = {"seed": None} if alone else {}
        distinct = {digest({**job.payload["selection"], **same}): job for job in reversed(jobs_of)}
        selections[fingerprint] = list(distinct.values())[::-1]
    return selections


# --- notes ------------------------------------------------------------------------------------


def report_on(
    resolved: ResolvedSuite, datasets: Mapping[str, PreparedDataset], copies: Mapping[str, int]
) -> DataReport:
    """What users should know of the datasets; ``copies``: as ``count_copies``."""
    labels_of: defaultdict[str, list[str]] = defaultdict(list)
    overlap: dict[str, Overlap] = {}
    for label, dataset in datasets.items():
        for note in _own_notes(resolved.datasets[label], dataset, copies[dataset.fingerprint]):
            labels_of[note].append(label)
    for name, target in resolved.suite.targets.items():
        label = f"target:{name}"
        shared = list(_overlap_notes(label, resolved, datasets))
        overlap[name] = "yes" if shared else "no"
        chance = _chance_notes(resolved.suite, name, datasets[label])
        near = _near_notes(resolved.suite, name, datasets)
        for note in (*_selection_notes(target, datasets[label], name), *chance, *shared, *near):
            labels_of[note].append(label)
    notes = (f"{', '.join(labels)}: {note}" for note, labels in labels_of.items())
    classes = {name: datasets[f"target:{name}"].classes for name in resolved.suite.targets}
    return DataReport(
        tuple(notes), overlap, _chance_levels(resolved.suite, datasets), classes,
        data_cards(resolved, datasets),
    )  # fmt: skip


def tested_images(
    suite: Suite, datasets: Mapping[str, PreparedDataset]
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Of each target its label, the fingerprint of its data, and its test items and labels.

    Shapes: items int64 (N,); labels int32 (N,), or (N, L) of 0, 1 and -1 for unknown.
    """
    for name, target in suite.targets.items():
        dataset = datasets[f"target:{name}"]
        test = dataset.splits["test"]
        items = _tested(target, test)
        labels = np.nan_to_num(test.labels[items].astype(np.float64), nan=-1)
        yield name, dataset.fingerprint, items, labels.astype(np.int32)


def _tested(target: Target, test: PreparedSplit) -> np.ndarray:
    """The positions of the images that a target's trials are tested on."""
    return select_test(test.labels, target.test_limit, test.fingerprint, target.stratify)


def _tested_labels(target: Target, test: PreparedSplit) -> np.ndarray:
    labels: np.ndarray = test.labels[_tested(target, test)]
    return labels


def _chance_levels(suite: Suite, datasets: Mapping[str, PreparedDataset]) -> dict[str, float]:
    """The chance levels that the data tell. Raises: ``DataError`` for one that is the reference."""
    levels = {}
    for name, level in suite.scoring.chance.items():
        if level == "data":
            target, dataset = suite.targets[name], datasets[f"target:{name}"]
            test = dataset.splits["test"]
            labels = _tested_labels(target, test)
            levels[name] = chance_level(target.metric or dataset.metric, labels)
            if abs(levels[name] - suite.scoring.reference[name]) < DISTINCT:
                raise DataError(
                    f"target:{name}: its reference {suite.scoring.reference[name]:g} is the metric "
                    "at chance level on its test images, so that no score can be computed; give "
                    f"the metric of a good network (--set scoring.reference.{name}=VALUE)"
                )
    return levels


def _own_notes(resolved: ResolvedDataset, dataset: PreparedDataset, copies: int) -> Iterator[str]:
    yield from dataset.notes
    spec = resolved.spec
    for shared in dataset.shared:
        reason = f" ({spec.shared_between_splits})" if shared.images or shared.keys else ""
        yield f"dataset {spec.name!r}: {shared.text(spec.grouping)}{reason}"
    if copies:
        total = len(dataset.splits["train"].labels)
        held_out = ("are held out for validation together" if spec.reads_users_folder else
                    "may be held out for validation one without the other")  # fmt: skip
        yield (f"dataset {spec.name!r}: {copies} of {total} training images are equal pixel by "
               f"pixel to one of another group; they {held_out}")  # fmt: skip
    if spec.reads_users_folder and dataset.task == "multi-class":
        for name, split in dataset.splits.items():
            alike = copied_images(split.labels, split.digests, split.images.shape[1:])
            if alike.any():
                yield (f"dataset {spec.name!r}: {alike.sum()} of {len(alike)} images of the split "
                       f"{name!r} are equal pixel by pixel to one of another class")  # fmt: skip


def _selection_notes(target: Target, dataset: PreparedDataset, name: str) -> Iterator[str]:
    """Classes and labels that the test subset cannot judge."""
    test = dataset.splits["test"]
    labels = _tested_labels(target, test)
    count = len(dataset.classes)
    if labels.ndim == 1:
        absent = np.bincount(labels, minlength=count) == 0
        problem = f"lack {{}} of the {{}} classes: {{}}; raise targets.{name}.test_limit"
    elif (target.metric or dataset.metric) == "auc":
        absent = ~(labels > 0.5).any(axis=0) | ~(labels < 0.5).any(axis=0)
        problem = "are all alike in {} of the {} labels, which its metric leaves out: {}"
    else:
        return
    if names := [dataset.classes[index] for index in np.flatnonzero(absent)]:
        listed = listing(names, LISTED)
        yield f"its {len(labels)} test images {problem.format(len(names), count, listed)}"


def _chance_notes(suite: Suite, name: str, dataset: PreparedDataset) -> Iterator[str]:
    """Chance that guessing exceeds, as where a target's dataset was replaced."""
    count, metric = len(dataset.classes), suite.targets[name].metric or dataset.metric
    chance = suite.scoring.chance_of(name)
    counted = suite.scoring.metric in {"test_metric", "best_test_metric"}
    accuracy = dataset.task == "multi-class" and metric in {"accuracy", "balanced-accuracy"}
    if chance is not None and counted and accuracy and chance < 1 / count - ROUNDED:
        yield (f"scoring.chance is {chance:g}, and guessing among its {count} classes gives "
               f"{1 / count:.3g}: the scores are too high; give that, or data "
               f"(--set scoring.chance.{name}=data)")  # fmt: skip


def _overlap_notes(
    target: str, resolved: ResolvedSuite, datasets: Mapping[str, PreparedDataset]
) -> Iterator[str]:
    """What a target has in common with the training images of the sources."""
    splits, plugin = datasets[target].splits, resolved.datasets[target].spec
    sources: dict[str, str] = {}
    for label, dataset in datasets.items():
        if label.startswith("source:"):
            sources.setdefault(dataset.fingerprint, label)
    for label in sources.values():
        train = datasets[label].splits["train"]
        for name in ("test", "train"):
            split = splits[name]
            images, _ = common_images(split.digests, train.digests, split.images.shape[1:])
            if images.total:
                yield (
                    f"{images.total} of its {len(split.labels)} {name} images are also training "
                    f"images of {label}, pixel by pixel, such as number {images.here} "
                    f"({split.groups[images.here]}), which is number {images.there} "
                    f"({train.groups[images.there]}) there"
                )
        if resolved.datasets[label].spec.name == plugin.name:
            keys = _named_keys(splits["test"].groups, train.groups)
            if keys.total:
                yield (
                    f"{keys.total} group(s) of its test images by {plugin.grouping} are among the "
                    f"training images of {label}, such as {splits['test'].groups[keys.here]}"
                )


def _near_notes(suite: Suite, name: str, datasets: Mapping[str, PreparedDataset]) -> Iterator[str]:
    """How many of a target's test images have a near duplicate among a source's images."""
    test = datasets[f"target:{name}"].splits["test"]
    tested = _tested(suite.targets[name], test)
    hashes, digests = test.perceptual_hashes()[tested], test.digests[tested]
    sources = {data.fingerprint: label for label, data in datasets.items()
               if label.startswith("source:")}  # fmt: skip
    for label in sources.values():
        train = datasets[label].splits["train"]
        others = hashes[~np.isin(digests, train.digests)]
        near, compared = near_duplicates(others, train.perceptual_hashes())
        if near:
            yield (
                f"{near} of {compared} of its test images that are not equal to any have a near "
                f"duplicate among the training images of {label}: perceptual hashes differ in at "
                f"most {NEAR_BITS} of 64 bits"
            )


def overlap_pairs(
    resolved: ResolvedSuite, datasets: Mapping[str, PreparedDataset]
) -> Iterator[tuple[str, str, str, Overlap]]:
    """Of each target and source the target's label, the fingerprints of both, and the overlap."""
    sources = {name: data for name, data in datasets.items() if name.startswith("source:")}
    for name in resolved.suite.targets:
        label = f"target:{name}"
        for source, data in sources.items():
            pair = {label: datasets[label], source: data}
            shared = any(_overlap_notes(label, resolved, pair))
            own = datasets[label].fingerprint
            yield name, own, data.fingerprint, "yes" if shared else "no"


def _named_keys(keys: np.ndarray, others: np.ndarray) -> Common:
    """The keys that two datasets share: names alone, since an integer may be a position."""
    return common_keys(keys, others) if keys.dtype.kind == others.dtype.kind == "U" else Common(0)
