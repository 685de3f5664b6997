"""The measurements of a trial itself, from a history of known values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from transferbench.engine.jobs import Engine, trial_measurements
from transferbench.engine.resources import Machine, WorkerResources
from transferbench.errors import PluginError, StoreError
from transferbench.plan import Job, Work
from transferbench.records import Measurement
from transferbench.registry import load_registry
from transferbench.store import Store
from transferbench.suite import TRIAL_METRICS
from transferbench.training import HISTORY_VALUES, DataSplit, TaskData, TrainingResult

DIVERGED = "the outputs are not finite: diverged"
METRICS = ("test_metric", "train_metric", "best_test_metric")


def row(epoch: int, metric: float | None, loss: float | None) -> dict[str, float | None]:
    """A row of the history with the same metric and loss on all splits."""
    values = {name: metric if name.endswith("_metric") else loss for name in HISTORY_VALUES}
    return {"epoch": epoch, **values}


def measured(
    *history: dict[str, float | None], best: int | None = None, **task: Any
) -> dict[str, Measurement]:
    """Metric -> measurement of a trial with 40 training and 50 test images."""
    fields: dict[str, Any] = {"task": "multi-class", "metric": "accuracy"} | task
    train, test = (DataSplit(range(n), None) for n in (40, 50))  # type: ignore[arg-type]  # only sizes are needed
    data = TaskData(classes=3, train=train, test=test, validation=None, **fields)
    return {m.metric: m for m in trial_measurements(TrainingResult(list(history), {}, best), data)}


def test_a_suite_knows_the_metrics_of_its_trials() -> None:
    assert tuple(measured(row(1, 0.6, 0.5))) == TRIAL_METRICS


def test_a_fraction_of_images_has_an_exact_interval() -> None:
    measurements = measured(row(0, 0.3, 1.0), row(2, 0.6, 0.5))
    for name, n in (("test_metric", 50), ("train_metric", 40), ("best_test_metric", 50)):
        expected = stats.binomtest(round(0.6 * n), n).proportion_ci(0.95, method="exact")
        m = measurements[name]
        assert (m.value, m.n, m.interval, m.flag) == (0.6, n, "exact-95", None)
        assert (m.low, m.high) == pytest.approx(tuple(expected))
    assert (measurements["best_epoch"].value, measurements["n_train"].value) == (2, 40)


@pytest.mark.parametrize("metric", ["accuracy", "auc"])
def test_a_multi_label_metric_has_no_interval_over_images(metric: str) -> None:
    measurements = measured(row(1, 0.6, 0.5), task="multi-label", metric=metric)
    for name in METRICS:
        m = measurements[name]
        assert (m.value, m.low, m.high, m.interval) == (0.6, None, None, None)


def test_a_diverged_training_does_not_report_an_earlier_epoch() -> None:
    history = [row(0, 0.5, 1.0), row(1, 0.8, 0.5), row(2, None, None)]
    last = measured(*history, task="multi-label", metric="auc")
    for name in (*METRICS, "test_loss", "train_loss"):
        assert (last[name].value, last[name].flag) == (None, DIVERGED)
    best = measured(*history, best=1, task="multi-label", metric="auc")
    assert (best["best_test_metric"].value, best["best_test_metric"].flag) == (0.8, None)
    assert (best["best_epoch"].value, best["test_metric"].value) == (1, None)


def test_an_accuracy_of_outputs_that_are_not_finite_has_a_value_and_a_flag() -> None:
    measurements = measured(row(0, 0.3, 1.0), row(1, 0.2, None), best=0)
    for name in ("test_metric", "train_metric"):
        assert (measurements[name].value, measurements[name].flag) == (0.2, DIVERGED)
    best = measurements["best_test_metric"]
    assert (best.value, best.flag) == (0.3, None)


def test_an_undefined_metric_is_not_flagged_as_divergence() -> None:
    measurements = measured(row(1, None, 0.5), task="multi-label", metric="auc")
    for name in METRICS:
        m = measurements[name]
        assert (m.value, m.flag) == (None, "not defined on these images")
    assert measurements["test_loss"].flag is None


def test_a_checkpoint_that_the_pre_training_lacks_is_named_with_those_it_has(
    tmp_path: Path,
) -> None:
    store, source = Store(tmp_path), "0" * 64
    store.prepare()
    with store.writing(source, "pretrain") as draft:
        for name in ("epoch-1.safetensors", "epoch-3.safetensors", "final.safetensors"):
            draft.path(name).write_bytes(b"")
    resources = WorkerResources(load_registry(), store, Machine(tmp_path, tmp_path, None, "cpu"))
    payload = {"initialization": {"source": source, "checkpoint": 2}}
    with pytest.raises(StoreError) as caught:
        Engine(resources)._source_state(payload)
    assert str(caught.value) == (
        "the pre-training kept no checkpoint 'epoch-2' (it has: epoch-1.safetensors, "
        "epoch-3.safetensors); add the epoch to the source's checkpoints"
    )


def test_a_perturbation_with_another_version_than_planned_is_refused(tmp_path: Path) -> None:
    store, subject = Store(tmp_path), "0" * 64
    store.prepare()
    with store.writing(subject, "trial") as draft:
        draft.write_json("history.json", {})
    resources = WorkerResources(load_registry(), store, Machine(tmp_path, tmp_path, None, "cpu"))
    robustness = resources.registry.diagnostic("robustness")
    planned = {
        "name": robustness.name,
        "version": robustness.version,
        "params": robustness.tiny,
        "perturbations": [{"name": "identity", "version": 99}],
    }
    payload = {"diagnostic": planned, "subjects": [subject], "seed": 0}
    job = Job("1" * 64, "diagnosis", payload, (), "robustness of a trial", Work(0, 0))
    with pytest.raises(PluginError, match=r"'identity' is version 1 here.*version 99; plan again"):
        Engine(resources)(job)
