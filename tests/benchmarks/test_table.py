"""The table of benchmark results: ratios, goals and ranges over runs."""

import pytest
from racing import Peer, result
from table import judged, notes, page


def nothing():
    pass


@pytest.mark.parametrize(
    ("peer", "ratio", "goal", "met"),
    [
        (Peer("a", nothing, faster=2), "2.00x faster", ">= 2x", "yes"),
        (Peer("a", nothing, faster=2.5), "2.00x faster", ">= 2.5x", "**no**"),
        (Peer("a", nothing, within=0.5), "0.50x its time", "<= 0.5x", "yes"),
        (Peer("a", nothing, within=0.4), "0.50x its time", "<= 0.4x", "**no**"),
        (Peer("a", nothing), "0.50x its time", "", ""),
    ],
)
def test_a_goal_is_judged_by_the_median_ratio_of_the_rounds(peer, ratio, goal, met):
    # Rounds of 2x, 2x and (an outlier) 50x; the ratio of the medians would be 4x.
    race = result(peer, [1.0, 2.0, 0.1], [2.0, 4.0, 5.0])
    assert race["peer_seconds"] == 4.0
    assert judged([race]) == (ratio, "", goal, met)


@pytest.mark.parametrize(
    ("goal", "met"), [(1.5, "yes"), (2.5, "in 2 of 3"), (3.5, "in 1 of 3"), (4.5, "**no**")]
)
def test_several_runs_have_a_range_and_may_meet_a_goal_in_part(goal, met):
    peer = Peer("a", nothing, faster=goal)
    races = [result(peer, [1.0], [times]) for times in (4.0, 2.0, 3.0)]
    assert judged(races) == ("3.00x faster", "2.00-4.00", f">= {goal}x", met)


def test_a_goal_on_time_is_met_by_the_runs_below_it():
    peer = Peer("a", nothing, within=0.3)
    races = [result(peer, [1.0], [times]) for times in (4.0, 2.0, 5.0)]
    assert judged(races) == ("0.25x its time", "0.20-0.50", "<= 0.3x", "in 2 of 3")


def test_the_page_has_a_row_per_comparison_and_describes_the_machine():
    race = result(Peer("copy", nothing, within=1.3), [0.001], [0.001])
    benchmark = {
        "group": "B1 shuffle",
        "name": "test_block[8]",
        "extra_info": {"seconds": 0.0012, "clock": "process_time", "races": [race]},
    }
    machine = {
        "cpu": {"brand_raw": "A CPU", "count": 2},
        "threads": 1,
        "load": 0.25,
        "python_version": "3.11",
        "packages": {"torch": "2.6"},
    }
    lines = page([{"machine_info": machine, "benchmarks": [benchmark]}]).splitlines()
    assert "- CPU: A CPU, 2 cores; 1 thread used" in lines
    assert "- Python 3.11, torch 2.6" in lines
    assert any(line.startswith("- Load average 0.2:") for line in lines)
    cells = [cell.strip() for cell in lines[-1].strip("|").split("|")]
    assert cells[:4] == ["B1 shuffle: block[8]", "1.20", "copy", "1.00"]
    assert cells[4:] == ["process_time", "1.00x its time", "", "<= 1.3x", "yes"]


def test_runs_are_matched_by_benchmark_in_any_order():
    def run(seconds, *names):
        return {
            "machine_info": {
                "cpu": {"count": 2},
                "threads": 1,
                "load": seconds,
                "python_version": "3.11",
                "packages": {},
            },
            "benchmarks": [
                {
                    "group": "B1",
                    "name": f"test_{name}",
                    "extra_info": {
                        "seconds": seconds,
                        "clock": "process_time",
                        "races": [result(Peer(name, nothing), [1.0], [seconds])],
                    },
                }
                for name in names
            ],
        }

    lines = page([run(1.0, "a", "b"), run(2.0, "b", "a"), run(4.0, "a", "b")]).splitlines()
    assert any(line.startswith("- Load average 1.0, 2.0, 4.0:") for line in lines)
    for name, line in zip("ab", lines[-2:], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells == [f"B1: {name}", "2000.00", name, "2000.00", "process_time",
                         "0.50x its time", "0.25-1.00", "", ""]  # fmt: skip


def test_notes_of_a_benchmark_are_below_the_table():
    info = {"seconds": 1.0, "clock": "process_time", "races": [], "note": "all it can do"}
    benchmark = {"group": "B13 train", "name": "test_epoch", "extra_info": info}
    assert notes({"benchmarks": [benchmark]}) == ["- B13 train: epoch: all it can do"]
