"""The one lookup over a table of measurements, against pandas and by hand."""

import numpy as np
import pandas as pd
import pytest

from transferbench.measurements import (
    ALONE,
    Measurements,
    Network,
    frame_of,
    mean_of,
)
from transferbench.records import Record

ARMS = ("P-T", "RI-T")


def record(value, **fields):
    base = {
        "suite": "tiny@1.0", "entry": "net", "target": "near", "perturbation": "none",
        "initialization": "P-T", "replicate": 0, "diagnostic": "trial", "diagnostic_version": 1,
        "metric": "test_metric", "unit": "fraction", "n": 100, "job": "j", "subjects": ("j",),
    }  # fmt: skip
    return Record(value=value, flag=None if value is not None else "lost", **base | fields)


def grid():
    """Every arm, epoch, module and replicate once, in an order drawn at random."""
    rng = np.random.default_rng(0)
    records = [
        record(
            rng.normal(),
            metric=metric,
            initialization=arm,
            replicate=k,
            coordinates={"epoch": epoch, "module": module},
        )
        for metric in ("loss", "drop") for arm in ARMS for k in range(3)
        for epoch in (0, 1, 2.5) for module in ("stem", "head", 7)
    ]  # fmt: skip
    return [records[i] for i in rng.permutation(len(records))]


def pair(value, first, second, **fields):
    return record(
        value, replicate=first, other_replicate=second, other_initialization="P-T", **fields
    )


@pytest.fixture(scope="module")
def measurements():
    return Measurements.of_records([*grid(), record(0.5), record(None, replicate=1)])


@pytest.fixture(scope="module")
def frame():
    return frame_of([*grid(), record(0.5), record(None, replicate=1)])


@pytest.mark.parametrize(
    "labels",
    [
        {"metric": "loss"},
        {"diagnostic": "trial", "metric": "loss", "epoch": 2.5},
        {"diagnostic": "trial", "metric": "drop", "module": 7, "initialization": "RI-T"},
        {"epoch": 1, "module": "stem"},
        {"module": "absent"},
        {"diagnostic": "absent", "metric": "loss"},
    ],
)
def test_selected_are_the_rows_that_pandas_selects(measurements, frame, labels):
    rows = frame
    for name, label in labels.items():
        rows = rows[rows[name] == label]
    selection = measurements.select(**labels)
    assert len(selection) == len(rows)
    np.testing.assert_array_equal(selection.to_numpy(), rows["value"].to_numpy())
    pd.testing.assert_frame_equal(selection.frame, rows)


def test_several_labels_and_none(measurements):
    assert len(measurements.select(epoch=(0, 2.5), module={"stem"})) == 2 * 2 * 3 * 2
    assert measurements.select(epoch=[None, 0]).distinct("epoch") == [0]
    assert measurements.select(module=None).to_numpy()[0] == 0.5
    assert len(measurements.select(module=None)) == len(measurements.without_coordinates()) == 2


def test_a_column_that_no_row_has_selects_nothing_but_its_absence(measurements):
    assert len(measurements.select(block=8)) == 0
    assert len(measurements.select(block=None)) == len(measurements)
    assert measurements.distinct("block") == []
    assert measurements.select(metric="loss").by_group("block").keys() == {(None,)}


def test_a_table_without_rows_has_no_values():
    for empty in (Measurements(pd.DataFrame()), Measurements.of_records([])):
        assert empty.select(diagnostic="trial", metric="test_metric").by_replicate() == {}
        assert empty.by_pair() == empty.by_network() == empty.groups("entry") == {}


def test_groups_come_in_the_order_of_appearance_with_their_rows(measurements, frame):
    groups = measurements.select(metric=("loss", "drop")).groups("metric", "module")
    rows = frame[frame["metric"].isin(["loss", "drop"])]
    expected = {key: part["value"].tolist()
                for key, part in rows.groupby(["metric", "module"], sort=False)}  # fmt: skip
    assert list(groups) == list(expected)
    assert {key: part.to_numpy().tolist() for key, part in groups.items()} == expected


def test_values_by_replicate_are_means_over_what_else_varies(measurements, frame):
    rows = frame[(frame["metric"] == "loss") & (frame["initialization"] == "P-T")]
    expected = rows.groupby("replicate")["value"].mean().to_dict()
    selection = measurements.select(diagnostic="trial", metric="loss", initialization="P-T")
    assert selection.by_replicate() == pytest.approx(expected)
    assert selection.by_pair() == pytest.approx({(k, ALONE): v for k, v in expected.items()})


def test_values_by_group_and_pair_leave_out_missing_ones():
    rows = Measurements.of_records([
        pair(1.0, 0, 1, coordinates={"module": "stem"}),
        pair(3.0, 0, 1, coordinates={"module": "stem"}),
        pair(None, 1, 2, coordinates={"module": "stem"}),
        pair(5.0, 0, 2, coordinates={"module": "head"}),
        record(7.0),
    ])  # fmt: skip
    assert rows.by_group("module", "other_initialization") == {
        ("stem", "P-T"): {(0, 1): 2.0},
        ("head", "P-T"): {(0, 2): 5.0},
        (None, None): {(0, ALONE): 7.0},
    }
    np.testing.assert_array_equal(rows.replicates[-1], [0, np.nan])


def test_many_columns_with_many_labels_do_not_run_together():
    labels = {f"c{i}": np.arange(3000) * (i + 1) % 3000 for i in range(8)}
    rows = Measurements(pd.DataFrame({**labels, "value": 1.0, "replicate": 0}))
    assert rows.group_codes(*labels).tolist() == list(range(3000))


def test_values_by_network_refuse_two_of_one_replicate():
    same = [record(0.5), record(0.7), record(0.9, initialization="RI-T", replicate=4)]
    assert Measurements.of_records(same[1:]).by_network() == {
        Network("net", "P-T"): {0: 0.7},
        Network("net", "RI-T"): {4: 0.9},
    }
    message = "P-T of net has 2 values of test_metric in replicate 0, which differ in no label"
    with pytest.raises(ValueError, match=message):
        Measurements.of_records(same).by_network()


def test_either_of_two_selections_has_each_row_once(measurements):
    first, second = measurements.select(epoch=0), measurements.select(module="stem")
    both = first | second
    assert len(both) == len(first) + len(second) - len(first.select(module="stem"))
    assert both.to_numpy().tolist() == [
        value
        for value, epoch, module in zip(
            measurements.to_numpy(),
            measurements.labels("epoch"),
            measurements.labels("module"),
            strict=True,
        )
        if epoch == 0 or module == "stem"
    ]


def test_selections_of_two_tables_are_not_joined(measurements):
    other = Measurements.of_records([record(0.5)])
    with pytest.raises(ValueError, match="rows of two tables have no common order"):
        _ = measurements | other


def test_only_shared_replicates_are_averaged():
    series = [{0: 1.0, 2: 3.0, 1: 5.0}, {1: 1.0, 0: 3.0, 3: 9.0}]
    assert mean_of(series) == {0: 2.0, 1: 3.0}
    assert mean_of([]) == {}


@pytest.mark.parametrize(
    ("starts", "expected", "first"),
    [
        ({0: None, 1: None}, 1, [0]),
        ({5: 2, 0: 0, 1: 1, 2: 2, 3: 0, 4: 1}, 3, [0, 1, 2]),
        ({0: 0, 1: 1, 2: 2}, 3, [0, 1, 2]),
        ({0: 0, 5: 2}, 3, [0, 5]),
        ({0: 0, 4: 1, 2: 2, 3: 0}, 3, [0, 4, 2]),
        ({1: 1, 4: 1, 5: None}, 3, [1, 5]),
    ],
)
def test_the_networks_that_replicates_start_from(starts, expected, first):
    rows = Measurements.of_records(
        record(0.5, replicate=k, network=network) for k, network in starts.items()
    )
    assert (rows.networks, rows.first_replicates) == (expected, first)


def test_a_table_has_a_column_of_networks_where_there_are_several():
    assert "network" not in frame_of([record(0.5)])
    assert frame_of([record(0.5, network=2)]).network.tolist() == [2]
