"""What a trial itself reports of a training that is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from transferbench.engine.jobs import Engine, trial_measurements
from transferbench.engine.resources import Machine, Workbench
from transferbench.errors import PluginError
from transferbench.plan import Job, Work
from transferbench.records import Measurement
from transferbench.registry import load_registry
from transferbench.store import Store
from transferbench.training import MEASURED, Task, Trained

DIVERGED = "the outputs are not finite: diverged"
METRICS = ("test_metric", "train_metric", "best_test_metric")


def row(epoch: int, metric: float | None, loss: float | None) -> dict[str, float | None]:
    """A row of the history with the same metric and loss on every split."""
    values = {name: metric if name.endswith("_metric") else loss for name in MEASURED}
    return {"epoch": epoch, **values}


def reported(
    *history: dict[str, float | None], best: int | None = None, **task: Any
) -> dict[str, Measurement]:
    """Metric -> measurement of a trial with 40 training and 50 test images."""
    given: dict[str, Any] = {"kind": "multi-class", "metric": "accuracy"} | task
    learned = Task(classes=3, train=None, test=None, validation=None, **given)  # type: ignore[arg-type]  # no images are needed
    found = trial_measurements(Trained(list(history), {}, best), learned, 40, 50)
    return {m.metric: m for m in found}


def test_a_share_of_images_has_wilsons_interval() -> None:
    found = reported(row(0, 0.3, 1.0), row(2, 0.6, 0.5))
    for name, n in (("test_metric", 50), ("train_metric", 40), ("best_test_metric", 50)):
        expected = stats.binomtest(round(0.6 * n), n).proportion_ci(0.95, method="wilson")
        m = found[name]
        assert (m.value, m.n, m.interval, m.flag) == (0.6, n, "wilson-95", None)
        assert (m.low, m.high) == pytest.approx(tuple(expected))
    assert (found["best_epoch"].value, found["n_train"].value) == (2, 40)


@pytest.mark.parametrize("metric", ["accuracy", "auc"])
def test_the_metric_of_several_labels_an_image_counts_no_images(metric: str) -> None:
    found = reported(row(1, 0.6, 0.5), kind="multi-label", metric=metric)
    for name in METRICS:
        m = found[name]
        assert (m.value, m.low, m.high, m.interval) == (0.6, None, None, None)


def test_a_training_that_diverged_reports_no_number_of_its_last_healthy_epoch() -> None:
    history = [row(0, 0.5, 1.0), row(1, 0.8, 0.5), row(2, None, None)]
    found = reported(*history, kind="multi-label", metric="auc")
    for name in (*METRICS, "test_loss", "train_loss"):
        assert (found[name].value, found[name].flag) == (None, DIVERGED)
    kept = reported(*history, best=1, kind="multi-label", metric="auc")
    assert (kept["best_test_metric"].value, kept["best_test_metric"].flag) == (0.8, None)
    assert (kept["best_epoch"].value, kept["test_metric"].value) == (1, None)


def test_an_accuracy_of_outputs_that_are_not_finite_keeps_its_value_and_says_so() -> None:
    found = reported(row(0, 0.3, 1.0), row(1, 0.2, None), best=0)
    for name in ("test_metric", "train_metric"):
        assert (found[name].value, found[name].flag) == (0.2, DIVERGED)
    assert (found["best_test_metric"].value, found["best_test_metric"].flag) == (0.3, None)


def test_a_metric_that_the_images_do_not_define_did_not_diverge() -> None:
    found = reported(row(1, None, 0.5), kind="multi-label", metric="auc")
    for name in METRICS:
        assert (found[name].value, found[name].flag) == (None, "not defined on these images")
    assert found["test_loss"].flag is None


def test_another_version_of_a_perturbation_than_planned_is_refused(tmp_path: Path) -> None:
    bench = Workbench(load_registry(), Store(tmp_path), Machine(tmp_path, tmp_path, None, "cpu"))
    robustness = bench.registry.diagnostic("robustness")
    used = {
        "name": robustness.name,
        "version": robustness.version,
        "params": robustness.tiny,
        "perturbations": [{"name": "identity", "version": 99}],
    }
    payload = {"diagnostic": used, "subjects": ["0" * 64], "seed": 0}
    job = Job("1" * 64, "diagnosis", payload, (), "robustness of a trial", Work(0, 0))
    with pytest.raises(PluginError, match=r"'identity' is version 1 here.*version 99; plan again"):
        Engine(bench).run(job)
