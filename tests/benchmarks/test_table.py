"""What the table of races says of a ratio and its goal."""

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
def test_a_race_is_judged_by_the_median_of_its_rounds(peer, ratio, goal, met):
    # Rounds of 2x, 2x and, disturbed, 50x; the ratio of the medians would be 4x.
    race = result(peer, [1.0, 2.0, 0.1], [2.0, 4.0, 5.0])
    assert race["peer_seconds"] == 4.0
    assert judged(race) == (ratio, goal, met)


def test_the_page_has_a_row_for_each_race_and_says_what_was_measured_on():
    race = result(Peer("copy", nothing, within=1.3), [0.001], [0.001])
    found = {
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
    lines = page({"machine_info": machine, "benchmarks": [found]}).splitlines()
    assert "- CPU: A CPU, 2 cores; 1 thread used" in lines
    assert "- Python 3.11, torch 2.6" in lines
    assert any(line.startswith("- Load average 0.2:") for line in lines)
    cells = [cell.strip() for cell in lines[-1].strip("|").split("|")]
    assert cells[:4] == ["B1 shuffle: block[8]", "1.20", "copy", "1.00"]
    assert cells[4:] == ["process_time", "1.00x its time", "<= 1.3x", "yes"]


def test_what_a_benchmark_notes_stands_below_the_table():
    info = {"seconds": 1.0, "clock": "process_time", "races": [], "note": "all it can do"}
    found = {"group": "B13 train", "name": "test_epoch", "extra_info": info}
    assert notes({"benchmarks": [found]}) == ["- B13 train: epoch: all it can do"]
