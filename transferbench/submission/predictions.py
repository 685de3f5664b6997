"""Predictions of trials on their test subsets: a table from which the metrics are recomputed.

Shape letters: N test images, K classes, L labels of a multi-label task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from transferbench.errors import SubmissionError
from transferbench.metrics import needs_scores, predict, score, weighted_score
from transferbench.runner.equal_outputs import logits_digest
from transferbench.specs import Metric
from transferbench.submission.limits import Caps, opened_table

__all__ = [
    "Predictions",
    "read_outputs",
    "read_predictions",
    "recompute_metric",
    "write_predictions",
]

# Accuracies need the predicted class only; a ranking metric needs the exact scores.
SCHEMA = pa.schema(
    [
        ("job", pa.dictionary(pa.int32(), pa.string())),
        ("item", pa.int64()),
        ("label", pa.int32()),
        ("prediction", pa.int32()),
        ("labels", pa.list_(pa.int8())),
        ("scores", pa.list_(pa.float32())),
    ]
)

FORMS = (("label", "prediction"), ("label", "scores"), ("labels", "scores"))
"""The columns that a trial fills: of predicted classes, of their scores, of those of labels."""

UNKNOWN = -1
"""The label of a multi-label task that is not known, in the table."""

MAX_ROWS = 10_000_000
MAX_VALUES = 60_000_000
"""Of all columns, those of lists counted one by one; each takes up to 16 bytes while it is read."""
MAX_TRIALS = 50_000
MAX_NAMES_BYTES = 2**24
"""Of the names of trials, which are 64 characters each."""


class Predictions(NamedTuple):
    """The predictions of a trial on its fixed, ordered test subset.

    items: int64 (N,), positions in the test split.
    labels: int32 (N,) class indices, or int8 (N, L) of 0 and 1; float32 (N, L) with NaN where some
    are unknown, which the table writes as -1.
    outputs: int32 (N,) predicted classes, or float32 scores: (N, L) for the latter labels, (N, K)
    of the classes where the metric ranks images by them.
    """

    items: np.ndarray
    labels: np.ndarray
    outputs: np.ndarray

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels."""
        return self.labels.ndim == 2


def read_outputs(path: Path, metric: Metric) -> tuple[Predictions, str]:
    """The predictions of a trial's ``outputs.safetensors`` and the sha256 of its logits.

    With the scores that ``metric`` is computed from.
    Raises: ``SubmissionError`` where arrays are missing or do not belong together.
    """
    arrays = load_file(path)
    if missing := {"logits", "labels", "items"} - set(arrays):
        raise SubmissionError(f"{path} holds no {', '.join(sorted(missing))}; run the trial again")
    logits, labels, items = arrays["logits"], arrays["labels"], arrays["items"]
    if not len(logits) == len(labels) == len(items):
        raise SubmissionError(
            f"{path}: {len(logits)} logits, {len(labels)} labels and {len(items)} items do not"
            " belong together; run the trial again"
        )
    if labels.ndim == 2:
        if not np.isnan(labels).any():
            labels = labels.astype(np.int8)
        predictions = Predictions(items, labels, logits.astype(np.float32))
    else:
        ranked = needs_scores(metric)
        outputs = logits.astype(np.float32) if ranked else predict(logits, labels).astype(np.int32)
        predictions = Predictions(items, labels.astype(np.int32), outputs)
    return predictions, logits_digest(logits)


def write_predictions(trials: Mapping[str, Predictions], path: Path) -> None:
    """Write the predictions of every trial, by job id, as one parquet table."""
    tables = [_table(job, trial) for job, trial in sorted(trials.items())]
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    with path.open("wb") as stream:  # pyarrow refuses paths that are not UTF-8
        pq.write_table(table.unify_dictionaries(), stream, compression="zstd")


def _table(job: str, trial: Predictions) -> pa.Table:
    count = len(trial.items)
    empty = {name: pa.nulls(count, SCHEMA.field(name).type) for name in SCHEMA.names}
    codes = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([job]))
    columns = empty | {"job": codes, "item": pa.array(trial.items)}
    labels = trial.labels
    if labels.dtype == np.float32:
        labels = np.nan_to_num(labels, nan=UNKNOWN).astype(np.int8)
    for name, values in zip(_columns(trial), (labels, trial.outputs), strict=True):
        columns[name] = pa.array(values) if values.ndim == 1 else _lists(values)
    return pa.table(columns, schema=SCHEMA)


def _columns(trial: Predictions) -> tuple[str, str]:
    """The columns of the labels and of the outputs."""
    return (
        "labels" if trial.labels.ndim == 2 else "label",
        "scores" if trial.outputs.ndim == 2 else "prediction",
    )


def _lists(values_NL: np.ndarray) -> pa.ListArray:
    count, width = values_NL.shape
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * width)
    return pa.ListArray.from_arrays(offsets, pa.array(values_NL.ravel()))


def read_predictions(path: Path) -> dict[str, Predictions]:
    """The predictions of every trial, by job id, in the order of the file.

    Raises: ``SubmissionError`` for another schema, a table beyond the caps, or ragged lists.
    """
    with path.open("rb") as stream:
        caps = Caps(MAX_ROWS, MAX_VALUES, MAX_NAMES_BYTES, "job", "trials")
        file = opened_table(stream, SCHEMA, caps)
        names = file.read(["job"], use_threads=False).column("job").combine_chunks().dictionary
        if len(names) > MAX_TRIALS:
            raise SubmissionError(f"it holds {len(names)} trials, more than {MAX_TRIALS}")
        # A thread that is started where memory is bounded would end the process.
        return dict(_trials(file.read(use_threads=False)))


def _trials(table: pa.Table) -> Iterator[tuple[str, Predictions]]:
    jobs = table.column("job").combine_chunks()
    if jobs.null_count or table.column("item").null_count:
        raise SubmissionError("a row has no job or no item")
    names = jobs.dictionary.to_pylist()
    codes = jobs.indices.to_numpy()
    bounds = [*np.flatnonzero(np.diff(codes, prepend=-1)).tolist(), len(codes)]
    if len(bounds) != len(set(codes.tolist())) + 1 or len(names) != len(set(names)):
        raise SubmissionError("the rows of a job do not stand together")
    for start, stop in pairwise(bounds):
        yield names[codes[start]], _trial(table.slice(start, stop - start))


def _trial(table: pa.Table) -> Predictions:
    items = table.column("item").to_numpy()
    used = [name for name in SCHEMA.names[2:] if table.column(name).null_count == 0]
    unused = [name for name in SCHEMA.names[2:] if name not in used]
    if tuple(used) not in FORMS or any(
        table.column(name).null_count < len(table) for name in unused
    ):
        raise SubmissionError("a trial mixes classes and lists of labels, or leaves some out")
    labels, outputs = (_array(table.column(name)) for name in used)
    if labels.shape != outputs.shape and labels.ndim == outputs.ndim:
        raise SubmissionError("labels and predictions of a trial have different shapes")
    if labels.ndim == 2:
        labels = _with_unknown(labels)
    return Predictions(items, labels, outputs)


def _with_unknown(labels: np.ndarray) -> np.ndarray:
    """Labels int8 (N, L), as float32 with NaN where some are unknown."""
    if not np.isin(labels, (0, 1, UNKNOWN)).all():
        raise SubmissionError(f"labels are 0, 1, or {UNKNOWN} for an unknown one; one is another")
    if not (unknown := labels == UNKNOWN).any():
        return labels
    return np.where(unknown, np.float32(np.nan), labels.astype(np.float32))


def _array(column: pa.ChunkedArray) -> np.ndarray:
    """Shapes: (N,), or (N, L) of a column of lists."""
    if not pa.types.is_list(column.type):
        return np.asarray(column.to_numpy())
    lists = column.combine_chunks()
    widths = np.unique(lists.value_lengths().to_numpy())
    values = lists.flatten()
    if len(widths) != 1 or values.null_count:
        raise SubmissionError("the lists of one trial have different lengths or holes")
    return np.asarray(values.to_numpy()).reshape(len(lists), int(widths[0]))


def recompute_metric(metric: Metric, trial: Predictions) -> float | None:
    """The test metric of a trial; None where it is undefined.

    Units: fraction. Error: exact, up to the rounding of the sum over labels.
    """
    if trial.outputs.ndim == 2:
        return score(metric, trial.outputs, trial.labels)
    if needs_scores(metric):
        return None
    once = np.ones((1, len(trial.labels)))
    value = float(weighted_score(metric, trial.outputs, trial.labels, once)[0])
    return None if np.isnan(value) else value
