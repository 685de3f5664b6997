"""Recall, precision, F1 and AUC of each class, and confusions, against scikit-learn."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score
from tiny_suite import TINY, tiny_suite

from transferbench.measurements import Measurements
from transferbench.report.parts import Drawing, Listing, Scope
from transferbench_plugins.diagnostics.mistakes.per_class import PER_CLASS

RNG = np.random.default_rng(0)
LABELS = RNG.choice(4, 200, p=[0.7, 0.2, 0.07, 0.03])
LOGITS = (RNG.normal(size=(200, 4)) + 2 * np.eye(4)[LABELS]).astype(np.float32)
LOGITS[:, 3] -= 20  # never predicted


def subject(logits=LOGITS, labels=LABELS):
    return SimpleNamespace(logits=logits, labels=labels)


def measured(*trials, **params):
    rows = PER_CLASS.measure(PER_CLASS.parse(params), trials, SimpleNamespace(seed=0))
    return {(m.metric, *m.coordinates.values()): m for m in rows}


def test_every_class_equals_scikit_learn():
    got, predicted = measured(subject()), LOGITS.argmax(1)
    scores = precision_recall_fscore_support(LABELS, predicted, zero_division=np.nan)
    probability = softmax(LOGITS.astype(np.float64), axis=1)
    for k, (precision, recall, f1, n) in enumerate(zip(*scores, strict=True)):
        m = got["recall", k]
        assert (m.value, m.n) == (pytest.approx(recall), n)
        exact = stats.binomtest(round(recall * n), int(n)).proportion_ci(0.95, "exact")
        assert (m.low, m.high) == pytest.approx((exact.low, exact.high))
        assert got["f1", k].value == pytest.approx(f1)
        area = got["class_auc", k]
        assert area.value == pytest.approx(roc_auc_score(k == LABELS, probability[:, k]))
        assert area.low < area.value < area.high
        if k < 3:
            assert got["precision", k].value == pytest.approx(precision)
    assert (got["precision", 3].value, got["precision", 3].flag) == (None, "never predicted")
    confusion = [[got["confusion", k, j].value for j in range(4)] for k in range(4)]
    np.testing.assert_array_equal(confusion, confusion_matrix(LABELS, predicted))


def test_a_class_without_images_has_no_recall():
    got = measured(subject(LOGITS[LABELS < 2], LABELS[LABELS < 2]))
    assert (got["recall", 3].value, got["recall", 3].flag) == (None, "no test image of this class")
    assert got["f1", 3].flag == "no test image of this class; never predicted"
    assert got["class_auc", 3].value is None


def test_labels_are_classes_without_a_confusion_matrix():
    labels = (RNG.random((80, 2)) < 0.3).astype(np.float32)
    logits = (RNG.normal(size=(80, 2)) + labels).astype(np.float32)
    got = measured(subject(logits, labels))
    scores = precision_recall_fscore_support(labels, logits > 0)
    for k in range(2):
        values = [got[metric, k].value for metric in ("precision", "recall", "f1")]
        assert values == pytest.approx([column[k] for column in scores[:3]])
    assert not [key for key in got if key[0] == "confusion"]


def test_a_large_task_has_no_confusion_matrix():
    assert not [key for key in measured(subject(), largest_confusion=3) if key[0] == "confusion"]


@pytest.mark.parametrize("scores", [None, LOGITS])
def test_all_but_the_auc_is_recomputed_from_predictions(scores):
    # Two of the classes have no image and are never predicted.
    logits = np.pad(LOGITS, ((0, 0), (0, 2)), constant_values=-99)
    trial = SimpleNamespace(labels=LABELS, predicted=LOGITS.argmax(1), scores=scores, classes=6)
    got = measured(subject(logits))
    again = {(m.metric, *m.coordinates.values()): m
             for m in PER_CLASS.recompute(PER_CLASS.parse({}), [trial])}  # fmt: skip
    assert {key for key in got if key[0] != "class_auc"} == again.keys()
    assert again.items() <= got.items()


def rows():
    for arm, shift in (("P-T", 0.0), ("RI-T", 3.0)):
        for replicate in range(2):
            logits = LOGITS + shift * np.random.default_rng(replicate).normal(size=LOGITS.shape)
            for m in measured(subject(logits)).values():
                yield m.model_dump(exclude={"coordinates"}) | m.coordinates | {
                    "entry": "net", "target": "handwriting", "perturbation": "none",
                    "initialization": arm, "replicate": replicate, "diagnostic": "classes",
                    "other_initialization": None, "other_replicate": None,
                }  # fmt: skip


def test_the_report_has_a_table_of_classes_and_the_confusion_matrices():
    suite = tiny_suite(diagnostics=TINY["diagnostics"] | {"classes": {"name": "per-class"}})
    names = {"handwriting": ("ant", "bee", "cat", "dog")}
    measurements = Measurements(pd.DataFrame(list(rows())))
    scope = Scope(suite, "net", measurements, frozenset({"per-class"}), names)
    table, drawing, confused = PER_CLASS.report.build(scope).blocks
    assert isinstance(table, Listing)
    assert [line[0].text for line in table.table.rows] == ["ant", "bee", "cat", "dog"]
    assert list(table.table.head[1:5]) == ["recall, P-T", "precision, P-T", "F1, P-T", "AUC, P-T"]
    for line in table.table.rows:
        for cell in line[1:]:
            bounds = re.match(r"\[(.*), (.*)\]", cell.detail)
            assert bounds is None or 0 <= float(bounds[1]) <= float(bounds[2]) <= 100
    assert isinstance(drawing, Drawing)
    (heats,) = drawing.figure.rows
    assert [heat.title for heat in heats] == ["handwriting: P-T", "handwriting: RI-T"]
    assert heats[0].y_ticks == ["dog", "cat", "bee", "ant"]
    expected = confusion_matrix(LABELS, LOGITS.argmax(1), normalize="true")
    shares = heats[0].values  # noqa: PD011  # of a Heat
    np.testing.assert_allclose(shares[::-1], expected)
    arm, true_class, predicted, share = (cell.text for cell in confused.table.rows[0])
    assert (arm, true_class) == ("P-T", "dog")
    assert (predicted, float(share)) == ("ant", pytest.approx(100 * expected[3].max(), abs=0.1))
