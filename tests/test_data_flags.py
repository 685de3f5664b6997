"""Submissions that contradict each other on the labels of one dataset are told on their board."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from handmade_run import entry_of, handmade_registry, only_board, submit, trial_outputs

from transferbench.plan import Job


def one_other_label(job: Job, cell: Any) -> tuple[np.ndarray, np.ndarray]:
    labels, logits = trial_outputs(job, cell)
    if labels.ndim == 1:
        labels = labels.copy()
        labels[3] = (labels[3] + 1) % 5
    return labels, logits


def test_other_true_labels_of_the_same_images_are_told(tmp_path: Path) -> None:
    registry, submissions = handmade_registry(tmp_path), tmp_path / "submissions"
    submit(tmp_path / "a", registry, submissions, (entry_of("made-good"),))
    (tmp_path / "suites" / "TEST_LABELS").unlink()  # pinned ones are compared in the check
    submit(tmp_path / "b", registry, submissions, (entry_of("made-fair"),))
    assert not any("true labels" in flag for flag in only_board(submissions, registry).flags)
    submit(tmp_path / "c", registry, submissions, (entry_of("made-poor"),), outputs=one_other_label)
    flags = [flag for flag in only_board(submissions, registry).flags if "true labels" in flag]
    targets = ("digits", "shuffled")
    assert len(flags) == 2 * len(targets)
    for entry in ("made-fair", "made-good"):
        for target in targets:
            (flag,) = (f for f in flags if f"{entry} (" in f and f"of {target}:" in f)
            assert "made-poor (" in flag
            assert flag.endswith("one of them is wrong.")
