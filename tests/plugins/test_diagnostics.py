"""The built-in diagnostics on histories and logits with known results."""

from __future__ import annotations

import numpy as np
import pytest
from fake_subject import FakeSubject
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats
from sklearn.metrics import cohen_kappa_score, jaccard_score, log_loss, roc_auc_score

from transferbench.errors import SuiteError
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext
from transferbench.statistics import replicate_mean
from transferbench_plugins.diagnostics import transferbench_diagnostics
from transferbench_plugins.diagnostics.mistakes.agreement import AGREEMENT
from transferbench_plugins.diagnostics.training.learning_curve import LEARNING_CURVE
from transferbench_plugins.diagnostics.training.relative_drop import RELATIVE_DROP
from transferbench_plugins.diagnostics.training.speed import SPEED

CONTEXT = DiagnosticContext(device=None, generator=None, seed=3)


def history(test, train=None):
    """One row per epoch, from 0."""
    train = test if train is None else train
    return tuple(
        {"epoch": epoch, "test_metric": a, "train_metric": b}
        for epoch, (a, b) in enumerate(zip(test, train, strict=True))
    )


def one_hot(predictions, classes=4):
    return np.eye(classes, dtype=np.float32)[np.asarray(predictions).astype(np.int64)]


def measure(spec, *nets, **params):
    """Measurements by metric, or by (metric, *coordinates)."""
    measured = list(spec.measure(spec.parse(params), nets, CONTEXT))
    keyed = {(m.metric, *m.coordinates.values()): m for m in measured}
    assert len(keyed) == len(measured)
    return {key[0] if len(key) == 1 else key: m for key, m in keyed.items()}


def test_the_list_of_diagnostics_is_sorted_and_these_need_no_forward_pass():
    specs = transferbench_diagnostics()
    assert [spec.name for spec in specs] == sorted(spec.name for spec in specs)
    assert {"agreement", "learning-curve", "relative-drop", "speed"} <= {s.name for s in specs}
    for spec in (AGREEMENT, LEARNING_CURVE, RELATIVE_DROP, SPEED):
        assert spec.accepts(spec.tiny)
        assert spec.cost(spec.parse({})) == 0


# --- learning curve ---------------------------------------------------------------------------

CURVE = (0.1, None, 0.5, None, 0.7)
TRAIN = (0.1, 0.4, 0.6, 0.8, 0.9)


def test_a_curve_has_the_evaluated_points():
    got = measure(LEARNING_CURVE, FakeSubject(history=history(CURVE, TRAIN)))
    assert [key[1] for key in got if key[0] == "test_metric"] == [0, 2, 4]
    assert [m.value for key, m in got.items() if key[0] == "train_metric"] == list(TRAIN)
    point = got["test_metric", 2]
    expected = stats.binomtest(50, 100).proportion_ci(0.95, method="exact")
    assert (point.value, point.n, point.unit) == (0.5, 100, "fraction")
    assert (point.low, point.high) == pytest.approx((expected.low, expected.high))
    assert point.interval == "exact-95"
    assert point.coordinates == {"epoch": 2}


def test_an_area_under_roc_has_no_exact_interval():
    net = FakeSubject(task="multi-label", metric="auc", history=history([0.5, 0.7]))
    assert measure(LEARNING_CURVE, net)["test_metric", 1].interval is None


def test_the_area_is_the_mean_height_of_the_curve():
    area = measure(LEARNING_CURVE, FakeSubject(history=history(CURVE, TRAIN)))["area"]
    assert area.value == pytest.approx(np.trapezoid([0.1, 0.5, 0.7], [0, 2, 4]) / 4)
    assert (area.n, area.flag) == (100, None)
    uneven = measure(LEARNING_CURVE, FakeSubject(history=history([0.1, 0.6, None, None, 0.7])))[
        "area"
    ]
    assert uneven.value == pytest.approx(np.trapezoid([0.1, 0.6, 0.7], [0, 1, 4]) / 4)


def test_an_area_over_part_of_the_epochs_is_flagged():
    rows = history([None, 0.2, 0.4, None], [0.1, 0.2, 0.4, 0.5])
    area = measure(LEARNING_CURVE, FakeSubject(history=rows))["area"]
    assert (area.value, area.flag) == (pytest.approx(0.3), "over epochs 1 to 2 of 0 to 3")


def test_one_point_has_no_area():
    area = measure(LEARNING_CURVE, FakeSubject(history=history([None, 0.4])))["area"]
    assert (area.value, area.flag) == (None, "an area needs two evaluated epochs, found 1")


def test_the_peak_is_the_first_best_epoch():
    got = measure(LEARNING_CURVE, FakeSubject(history=history([0.1, 0.8, 0.8, 0.5])))
    assert (got["best"].value, got["best_epoch"].value) == (0.8, 1.0)
    assert got["best_epoch"].unit == "epochs"


def test_thresholds_are_interpolated_between_evaluated_epochs():
    net = FakeSubject(history=history(CURVE, TRAIN))
    got = measure(LEARNING_CURVE, net, thresholds=[0.05, 0.3, 0.5, 0.6, 0.71])
    times = {key[1]: m.value for key, m in got.items() if key[0] == "epochs_to_threshold"}
    assert times == {0.05: 0, 0.3: pytest.approx(1), 0.5: 2, 0.6: pytest.approx(3), 0.71: None}
    assert got["epochs_to_threshold", 0.71].flag == "not reached"
    assert got["epochs_to_threshold", 0.3].unit == "epochs"


def test_a_threshold_is_timed_at_its_first_crossing():
    got = measure(
        LEARNING_CURVE, FakeSubject(history=history([0.0, 0.8, 0.2, 0.9])), thresholds=[0.4]
    )
    assert got["epochs_to_threshold", 0.4].value == pytest.approx(0.5)


def test_a_curve_without_a_test_metric_is_flagged_in_each_measurement():
    got = measure(
        LEARNING_CURVE, FakeSubject(history=history([None, None], [0.1, 0.2])), thresholds=[0.5]
    )
    for key in ("best", "best_epoch", ("epochs_to_threshold", 0.5)):
        assert got[key].flag == "the test metric was not evaluated"
    assert got["area"].flag == "an area needs two evaluated epochs, found 0"


DIVERGED = "diverged: nothing finite from epoch 3 on"


def test_a_curve_that_ends_without_finite_values_is_flagged():
    net = FakeSubject(history=history([0.2, 0.6, 0.4, None, None]))
    got = measure(LEARNING_CURVE, net, thresholds=[0.3])
    for metric in ("test_metric", "train_metric"):
        assert [key[1] for key in got if key[0] == metric] == [0, 1, 2, 4]
        assert (got[metric, 2].value, got[metric, 2].flag) == (0.4, None)
        assert (got[metric, 4].value, got[metric, 4].flag) == (None, DIVERGED)
    area = got["area"]
    assert area.value == pytest.approx(0.45)
    assert area.flag == f"over epochs 0 to 2 of 0 to 4; {DIVERGED}"
    assert (got["best"].value, got["best"].flag) == (0.6, None)
    assert got["epochs_to_threshold", 0.3].value == pytest.approx(0.25)


def test_a_curve_without_finite_values_is_flagged_as_diverged_not_as_unevaluated():
    got = measure(LEARNING_CURVE, FakeSubject(history=history([None, None])), thresholds=[0.5])
    diverged = "diverged: nothing finite from epoch 0 on"
    for key in ("best", "best_epoch", ("epochs_to_threshold", 0.5)):
        assert (got[key].value, got[key].flag) == (None, diverged)
    assert got["area"].flag == f"an area needs two evaluated epochs, found 0; {diverged}"


def test_an_area_over_non_finite_epochs_is_flagged():
    area = measure(LEARNING_CURVE, FakeSubject(history=history([0.1, None, None, 0.4])))["area"]
    assert (area.value, area.flag) == (pytest.approx(0.25), "nothing finite at epochs 1, 2")


def test_a_threshold_is_a_fraction():
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        LEARNING_CURVE.parse({"thresholds": [50]})


# --- speed ------------------------------------------------------------------------------------


def test_speed_is_the_mean_train_metric_without_the_initial_state():
    net = FakeSubject(history=history(CURVE, TRAIN))
    speed = measure(SPEED, net)["speed"]
    assert speed.value == pytest.approx(np.mean(TRAIN[1:]))
    assert (speed.n, speed.unit, speed.flag) == (4, "fraction", None)
    whole = measure(SPEED, net, include_initial=True)["speed"]
    assert (whole.value, whole.n) == (pytest.approx(np.mean(TRAIN)), 5)


def test_epochs_that_were_not_evaluated_are_interpolated_and_flagged():
    train = (0.0, None, 0.4, None, 0.8)
    speed = measure(SPEED, FakeSubject(history=history(train, train)))["speed"]
    assert speed.value == pytest.approx(np.mean([0.2, 0.4, 0.6, 0.8]))
    assert speed.flag == "train metric of 2 of 4 epochs, the rest interpolated"


def test_speed_without_an_evaluated_epoch_is_undefined():
    for rows in (history([0.5], [0.5]), history([0.5, 0.6], [0.5, None])):
        speed = measure(SPEED, FakeSubject(history=rows))["speed"]
        assert speed.value is None
        assert speed.flag == "the train metric was evaluated after no epoch that counts"


def test_speed_does_not_extrapolate_the_last_finite_epoch():
    net = FakeSubject(history=history([0.2, 0.6, 0.4, None, None]))
    speed = measure(SPEED, net)["speed"]
    assert (speed.value, speed.n, speed.flag) == (None, 4, DIVERGED)
    rows = history([0.2, 0.6, 0.4], [0.2, 0.6, None])
    speed = measure(SPEED, FakeSubject(history=rows))["speed"]
    assert (speed.value, speed.flag) == (None, "the train metric has no value after epoch 1")


def test_speed_over_a_non_finite_epoch_is_flagged():
    speed = measure(SPEED, FakeSubject(history=history([0.2, 0.6, None, 0.8])))["speed"]
    assert speed.value == pytest.approx(0.7)
    assert speed.flag == "train metric of 2 of 3 epochs, the rest interpolated"


# --- relative drop ----------------------------------------------------------------------------

LABELS = np.repeat(np.arange(4), 50)
RNG = np.random.default_rng(0)


def answers(wrong_at):
    predictions = LABELS.copy()
    predictions[wrong_at] = (predictions[wrong_at] + 1) % 4
    return one_hot(predictions)


def trained(logits, train=(0.3, 0.9), **fields):
    return FakeSubject(labels=LABELS, logits=logits, history=history([0.3, 0.5], train), **fields)


A = trained(answers(np.arange(0, 50)), (0.2, 0.9))
B = trained(answers(np.arange(30, 130)), (0.2, 0.7))


def test_the_drop_is_raw_relative_and_corrected_for_chance():
    got = measure(RELATIVE_DROP, A, B)
    assert got["gain"].value == pytest.approx(0.75 - 0.5)
    assert got["relative_drop"].value == pytest.approx(100 * 0.25 / 0.75)
    assert got["corrected_drop"].value == pytest.approx(100 * 0.25 / 0.5)
    assert got["speed_gain"].value == pytest.approx(0.2)
    assert (got["train_metric_a"].value, got["train_metric_b"].value) == (0.9, 0.7)
    assert [got[m].unit for m in ("gain", "relative_drop", "corrected_drop", "speed_gain")] == [
        "fraction",
        "percent",
        "percent",
        "fraction",
    ]
    assert {m.flag for m in got.values()} == {None}
    assert got["gain"].n == 200


def test_the_printed_row_of_the_paper_follows_from_its_accuracies():
    for a, b, printed in ((64.5, 50.5, 22), (73.2, 44.3, 40), (76.9, 44.7, 42)):
        labels = np.zeros(1000, dtype=np.int64)
        nets = [
            FakeSubject(
                labels=labels, logits=one_hot(np.arange(1000) >= 10 * x, 2), history=A.history
            )
            for x in (a, b)
        ]
        assert measure(RELATIVE_DROP, *nets)["relative_drop"].value == pytest.approx(printed, abs=1)


def test_the_drop_varies_with_the_items_in_pairs():
    got = measure(RELATIVE_DROP, A, B)
    right = np.stack([(net.logits.argmax(1) == LABELS) for net in (A, B)]).astype(float)
    draws = RNG.integers(0, 200, (4000, 200))
    a, b = right[0][draws].mean(1), right[1][draws].mean(1)
    drops = {"gain": a - b, "relative_drop": 100 * (a - b) / a}
    drops["corrected_drop"] = 100 * (a - b) / (a - A.chance)
    for metric, values in drops.items():
        low, high = np.quantile(values, [0.025, 0.975])
        tolerance = 0.15 * (high - low)
        assert (got[metric].low, got[metric].high) == pytest.approx((low, high), abs=tolerance)
        kind = "t" if metric == "gain" else "fieller"
        assert got[metric].interval == f"items-{kind}-95"


def test_a_network_has_no_drop_to_itself():
    got = measure(RELATIVE_DROP, A, A)
    for metric in ("gain", "relative_drop", "corrected_drop"):
        assert (got[metric].value, got[metric].low) == (0, None)


def test_a_network_that_did_not_train_is_flagged_in_each_measurement():
    stuck = trained(answers(np.arange(60, 200)), (0.2, 0.28))
    assert {m.flag for m in measure(RELATIVE_DROP, A, stuck).values()} == {
        "b did not train",
        None,
    }
    got = measure(RELATIVE_DROP, A, stuck)
    assert got["train_metric_a"].flag is None
    assert [key for key, m in got.items() if m.flag] == [
        "gain",
        "relative_drop",
        "corrected_drop",
        "speed_gain",
        "train_metric_b",
    ]
    both = measure(RELATIVE_DROP, stuck, stuck)
    assert both["gain"].flag == "a did not train; b did not train"
    assert measure(RELATIVE_DROP, A, stuck, margin=0.01)["gain"].flag is None


def test_a_network_at_chance_did_not_train_by_any_margin():
    stuck = trained(answers(np.arange(50, 200)), (0.25, 0.25))
    assert measure(RELATIVE_DROP, A, stuck, margin=0)["gain"].flag == "b did not train"


def test_a_drop_without_a_train_metric_is_flagged():
    unknown = trained(B.logits, (None, None))
    got = measure(RELATIVE_DROP, A, unknown)
    reason = "whether b trained is not known: its train metric has no value at the end"
    assert got["gain"].flag == reason
    assert (got["train_metric_b"].value, got["train_metric_b"].flag) == (None, reason)
    assert got["speed_gain"].flag == (
        f"b: the train metric was evaluated after no epoch that counts; {reason}"
    )


def test_a_relative_drop_from_zero_is_undefined():
    got = measure(RELATIVE_DROP, trained(answers(np.arange(200))), B)
    assert got["gain"].value == pytest.approx(-0.5)
    assert got["relative_drop"].flag == "a has no score to lose"
    assert got["corrected_drop"].flag == "a is not above chance"


def multi_label(seed, strength):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(150, 3))
    return FakeSubject(
        task="multi-label",
        metric="auc",
        chance=0.5,
        labels=MULTI,
        logits=(strength * (MULTI - 0.5) + noise).astype(np.float32),
        history=history([0.5, 0.7], [0.5, 0.8]),
    )


MULTI = (np.random.default_rng(1).random((150, 3)) < 0.4).astype(np.float32)
MULTI_A, MULTI_B = multi_label(5, 2.0), multi_label(6, 1.0)


def test_a_drop_of_auc_equals_scikit_learns_and_is_resampled_by_item():
    got = measure(RELATIVE_DROP, MULTI_A, MULTI_B, resamples=1000)
    a, b = (roc_auc_score(MULTI, net.logits) for net in (MULTI_A, MULTI_B))
    assert got["relative_drop"].value == pytest.approx(100 * (a - b) / a)
    assert got["corrected_drop"].value == pytest.approx(100 * (a - b) / (a - 0.5))
    draws = RNG.integers(0, 150, (200, 150))
    gains = [
        roc_auc_score(MULTI[d], MULTI_A.logits[d]) - roc_auc_score(MULTI[d], MULTI_B.logits[d])
        for d in draws
    ]
    low, high = np.quantile(gains, [0.025, 0.975])
    assert (got["gain"].low, got["gain"].high) == pytest.approx(
        (low, high), abs=0.25 * (high - low)
    )


def test_a_network_that_diverged_has_no_auc_to_drop():
    diverged = multi_label(5, 2.0)
    diverged.logits = np.full_like(diverged.logits, np.nan)
    got = measure(RELATIVE_DROP, diverged, MULTI_B, resamples=100)
    assert got["gain"].flag == "the metric is not defined on these items"


def test_a_diverged_network_does_not_keep_the_metrics_of_earlier_epochs():
    rows = history([0.3, 0.5, 0.6, None], [0.3, 0.8, 0.9, None])
    diverged = FakeSubject(labels=LABELS, logits=np.full_like(A.logits, np.nan), history=rows)
    got = measure(RELATIVE_DROP, A, diverged)
    flag = f"b {DIVERGED}"
    assert (got["gain"].value, got["gain"].flag) == (pytest.approx(0.5), flag)
    assert (got["train_metric_b"].value, got["train_metric_b"].flag) == (None, flag)
    assert (got["speed_gain"].value, got["speed_gain"].flag) == (None, flag)
    assert (got["train_metric_a"].value, got["train_metric_a"].flag) == (0.9, None)


@pytest.mark.parametrize("spec", [RELATIVE_DROP, AGREEMENT])
def test_networks_tested_on_different_items_are_not_compared(spec):
    other = FakeSubject(job="other", labels=LABELS[::-1], logits=A.logits, history=A.history)
    with pytest.raises(SuiteError, match="jobs job and other were tested on different items"):
        measure(spec, A, other)


# --- agreement --------------------------------------------------------------------------------


def random_net(seed, errors=0.3, size=300, classes=4):
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(99).integers(0, classes, size)
    predictions = np.where(rng.random(size) < errors, rng.integers(0, classes, size), labels)
    return FakeSubject(labels=labels, logits=one_hot(predictions, classes))


def test_agreement_equals_scikit_learns():
    a, b = random_net(0), random_net(1, 0.5)
    got = measure(AGREEMENT, a, b)
    wrong_a, wrong_b = (net.logits.argmax(1) != net.labels for net in (a, b))
    same = a.logits.argmax(1) == b.logits.argmax(1)
    both = wrong_a & wrong_b
    assert got["kappa"].value == pytest.approx(cohen_kappa_score(wrong_a, wrong_b))
    assert got["error_jaccard"].value == pytest.approx(jaccard_score(wrong_a, wrong_b))
    assert got["agreement"].value == pytest.approx(same.mean())
    assert got["agreement_given_both_wrong"].value == pytest.approx(same[both].mean())
    assert got["n_common"].value == both.sum()
    assert got["uncommon_a"].value == (wrong_a & ~wrong_b).sum()
    assert got["uncommon_b"].value == (wrong_b & ~wrong_a).sum()
    sizes = {metric: m.n for metric, m in got.items()}
    assert sizes.pop("error_jaccard") == (wrong_a | wrong_b).sum()
    assert sizes.pop("agreement_given_both_wrong") == both.sum()
    assert set(sizes.values()) == {300}


def test_kappa_of_many_items_has_its_asymptotic_interval():
    counts = np.array([6000, 900, 300, 800])  # both right, a alone wrong, b alone wrong, both wrong
    errors_N2 = np.repeat([[0, 0], [1, 0], [0, 1], [1, 1]], counts, axis=0)
    labels = np.zeros(len(errors_N2), dtype=int)
    a, b = (FakeSubject(labels=labels, logits=one_hot(column)) for column in errors_N2.T)
    kappa = measure(AGREEMENT, a, b)["kappa"]
    assert kappa.value == pytest.approx(cohen_kappa_score(*errors_N2.T))
    # Fleiss, Cohen, Everitt 1969, Equation 13.
    p = (counts / counts.sum())[[0, 1, 2, 3]].reshape(2, 2)
    rows, columns, k = p.sum(axis=1), p.sum(axis=0), kappa.value
    expected = rows @ columns
    diagonal = sum(p[i, i] * (1 - (rows[i] + columns[i]) * (1 - k)) ** 2 for i in range(2))
    off = (1 - k) ** 2 * sum(p[i, 1 - i] * (columns[i] + rows[1 - i]) ** 2 for i in range(2))
    variance = diagonal + off - (k - expected * (1 - k)) ** 2
    half = 1.96 * (variance / len(errors_N2)) ** 0.5 / (1 - expected)
    assert kappa.interval == "kappa-exact-95"
    assert (kappa.high - k, k - kappa.low) == pytest.approx((half, half), rel=0.05)


def test_a_pair_without_common_errors_or_with_none_but_these_is_not_certain():
    apart, alike = np.repeat([0, 1, 2], [90, 5, 5]), np.repeat([0, 1], [90, 10])
    labels = np.zeros(100, dtype=int)
    first, second = (apart == 1).astype(int), (apart == 2).astype(int)
    got = measure(
        AGREEMENT, *(FakeSubject(labels=labels, logits=one_hot(x)) for x in (first, second))
    )
    assert got["n_common"].value == 0
    assert got["n_common"].high == pytest.approx(100 * stats.beta.ppf(0.975, 1, 100))
    assert got["error_jaccard"].high == pytest.approx(stats.beta.ppf(0.975, 1, 10))
    assert got["kappa"].low < got["kappa"].value < 0 < got["kappa"].high
    same = FakeSubject(labels=labels, logits=one_hot(alike))
    got = measure(AGREEMENT, same, same)
    assert got["agreement"].low == pytest.approx(0.025 ** (1 / 100))
    assert (got["kappa"].value, got["kappa"].high) == (1, 1)
    assert got["kappa"].low < 0.9
    assert all(m.low < m.high for m in got.values())


def test_independent_errors_have_zero_kappa_at_any_accuracy():
    for errors in (0.1, 0.5, 0.9):
        got = measure(AGREEMENT, random_net(0, errors, 5000), random_net(1, errors, 5000))
        assert got["kappa"].low <= 0.02
        assert got["kappa"].high >= -0.02
        assert abs(got["kappa"].value) < 0.05


def test_a_pair_of_perfect_networks_has_no_errors_to_compare():
    perfect = random_net(0, errors=0.0)
    got = measure(AGREEMENT, perfect, perfect)
    assert got["kappa"].value is None
    assert got["kappa"].flag == "both are right everywhere, or wrong everywhere"
    assert got["error_jaccard"].flag == "neither errs"
    assert got["agreement_given_both_wrong"].flag == "no common errors"
    assert (got["agreement"].value, got["n_common"].value) == (1, 0)


def test_one_perfect_network_shares_no_error():
    got = measure(AGREEMENT, random_net(0, errors=0.0), random_net(1))
    assert (got["kappa"].value, got["error_jaccard"].value) == (pytest.approx(0), 0)


def test_the_same_seed_gives_the_same_intervals():
    rng = np.random.default_rng(5)
    labels = (rng.random((80, 3)) < 0.5).astype(np.float32)
    nets = [
        FakeSubject(task="multi-label", labels=labels, logits=labels + rng.normal(-0.5, 1, (80, 3)))
        for _ in range(2)
    ]
    first = list(AGREEMENT.measure(AGREEMENT.parse({}), nets, CONTEXT))
    again = list(AGREEMENT.measure(AGREEMENT.parse({}), nets, CONTEXT))
    other = list(AGREEMENT.measure(AGREEMENT.parse({}), nets, CONTEXT._replace(seed=4)))
    assert first == again
    assert [m.value for m in first] == [m.value for m in other]
    assert first != other


predicted = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=40
)


@given(predicted)
@settings(max_examples=60, deadline=None)
def test_agreement_is_bounded_and_symmetric(items):
    labels, first, second = (np.array(column) for column in zip(*items, strict=True))
    a = FakeSubject(labels=labels, logits=one_hot(first, 3))
    b = FakeSubject(labels=labels, logits=one_hot(second, 3))
    got, swapped = measure(AGREEMENT, a, b, resamples=100), measure(AGREEMENT, b, a, resamples=100)
    for metric in ("error_jaccard", "agreement", "agreement_given_both_wrong", "kappa", "n_common"):
        expected = got[metric].value
        assert swapped[metric].value == (expected if expected is None else pytest.approx(expected))
    assert got["uncommon_a"].value == swapped["uncommon_b"].value
    for metric in ("error_jaccard", "agreement", "agreement_given_both_wrong"):
        assert got[metric].value is None or 0 <= got[metric].value <= 1
    assert got["kappa"].value is None or -1 <= got["kappa"].value <= 1
    total = sum(got[metric].value for metric in ("n_common", "uncommon_a", "uncommon_b"))
    assert total == ((first != labels) | (second != labels)).sum()


@given(predicted)
@settings(max_examples=40, deadline=None)
def test_a_network_agrees_with_itself(items):
    labels, first, _ = (np.array(column) for column in zip(*items, strict=True))
    net = FakeSubject(labels=labels, logits=one_hot(first, 3))
    got = measure(AGREEMENT, net, net, resamples=100)
    assert got["agreement"].value == 1
    assert got["uncommon_a"].value == got["uncommon_b"].value == 0
    for metric in ("error_jaccard", "agreement_given_both_wrong", "kappa"):
        assert got[metric].value in {1, None}


def test_labels_are_compared_separately_and_on_average():
    got = measure(AGREEMENT, MULTI_A, MULTI_B)
    kappas, jaccards = [], []
    for k in range(3):
        wrong = [(net.logits[:, k] > 0) != (MULTI[:, k] > 0.5) for net in (MULTI_A, MULTI_B)]
        kappas.append(cohen_kappa_score(*wrong))
        jaccards.append(jaccard_score(*wrong))
        assert got["kappa", k].value == pytest.approx(kappas[-1])
        assert got["kappa", k].coordinates == {"label": k}
    assert got["kappa"].value == pytest.approx(np.mean(kappas))
    assert got["error_jaccard"].value == pytest.approx(np.mean(jaccards))
    assert got["kappa"].low < got["kappa"].value < got["kappa"].high
    wrong_any = [((net.logits > 0) != (MULTI > 0.5)) for net in (MULTI_A, MULTI_B)]
    assert got["error_jaccard"].n == (wrong_any[0] | wrong_any[1]).any(axis=1).sum()
    assert got["kappa"].n == 150
    # The mean of three labels has a narrower interval than each of them.
    widths = [got["kappa", k].high - got["kappa", k].low for k in range(3)]
    assert got["kappa"].high - got["kappa"].low < min(widths)


def test_a_label_without_errors_is_left_out_of_the_mean_and_flagged():
    a, b = multi_label(5, 2.0), multi_label(6, 1.0)
    for net in (a, b):
        net.logits = net.logits.copy()
        net.logits[:, 1] = MULTI[:, 1] - 0.5
    got = measure(AGREEMENT, a, b)
    assert got["kappa", 1].value is None
    expected = (got["kappa", 0].value + got["kappa", 2].value) / 2
    assert got["kappa"].value == pytest.approx(expected)
    assert got["kappa"].flag == "1 of 3 labels do not define it"
    assert got["agreement"].flag is None


# --- the entropy of references ----------------------------------------------------------------


def softmax(logits):
    powers = np.exp(np.asarray(logits, dtype=np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def test_without_references_there_is_no_entropy():
    assert "reference_entropy" not in {m.metric for m in measure(AGREEMENT, A, B).values()}


def test_reference_entropy_is_the_entropy_of_the_mean_prediction_on_each_set():
    a, b = random_net(0), random_net(1)
    rng = np.random.default_rng(8)
    references = [
        FakeSubject(labels=a.labels, logits=rng.normal(size=(300, 4)).astype(np.float32))
        for _ in range(2)
    ]
    got = measure(AGREEMENT, a, b, *references)
    entropy = stats.entropy(np.mean([softmax(net.logits) for net in references], axis=0), axis=1)
    wrong_a, wrong_b = (net.logits.argmax(1) != net.labels for net in (a, b))
    sets = {
        "all": np.ones(300, dtype=bool),
        "common": wrong_a & wrong_b,
        "uncommon_a": wrong_a & ~wrong_b,
        "uncommon_b": wrong_b & ~wrong_a,
    }
    for name, members in sets.items():
        measured = got["reference_entropy", name]
        assert measured.value == pytest.approx(entropy[members].mean(), rel=1e-9)
        assert measured.n == members.sum()
        assert (measured.unit, measured.coordinates) == ("nats", {"set": name})
        same = replicate_mean(dict(enumerate(entropy[members])), ends=(0, np.log(4)))
        assert (measured.low, measured.high) == pytest.approx((same.low, same.high))


def test_an_empty_set_has_no_entropy():
    got = measure(AGREEMENT, A, A, B)["reference_entropy", "uncommon_a"]
    assert (got.value, got.n, got.flag) == (None, 0, "no such items")


def test_confident_references_have_zero_entropy_and_large_logits_do_not_overflow():
    certain = trained(1e4 * (2 * answers(np.arange(0)) - 1))
    assert measure(AGREEMENT, A, B, certain)["reference_entropy", "all"].value == 0


def test_a_diverged_reference_is_flagged():
    diverged = trained(np.full((200, 4), np.nan, dtype=np.float32))
    got = measure(AGREEMENT, A, B, diverged)["reference_entropy", "all"]
    assert (got.value, got.flag) == (None, "the logits of a reference are not finite")


def test_reference_entropy_of_multi_label_tasks_is_per_label_and_averaged():
    reference = multi_label(9, 1.0)
    got = measure(AGREEMENT, MULTI_A, MULTI_B, reference)
    p = 1 / (1 + np.exp(-reference.logits.astype(np.float64)))
    for k in range(3):
        # The entropy of p is the log loss of p under labels drawn from p.
        weights = np.stack([1 - p[:, k], p[:, k]], axis=1).ravel()
        expected = log_loss(np.tile([0, 1], 150), np.repeat(p[:, k], 2), sample_weight=weights)
        assert got["reference_entropy", "all", k].value == pytest.approx(expected)
    mean = np.mean([got["reference_entropy", "common", k].value for k in range(3)])
    assert got["reference_entropy", "common"].value == pytest.approx(mean)


def test_measurements_are_valid():
    for spec, nets in (
        (AGREEMENT, (A, B, A)),
        (LEARNING_CURVE, (A,)),
        (RELATIVE_DROP, (A, B)),
        (SPEED, (A,)),
    ):
        measured = list(spec.measure(spec.parse(spec.tiny), nets, CONTEXT))
        assert measured == [Measurement.model_validate(m.model_dump()) for m in measured]
