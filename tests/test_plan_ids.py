"""The job ids of every bundled suite's plan are those of the published numbers.

An id moves only for a reason that the changelog names. Then, and only then:
``python tests/test_plan_ids.py`` writes the new ids.

Moved so far: ``diagnosis robustness`` of ``characters``, which now holds the versions of the
perturbations that its parameters name.
"""

import hashlib
import json
from collections import defaultdict
from pathlib import Path

import pytest

from transferbench.plan import DatasetFacts, Entry, make_plan
from transferbench.registry import identity, load_registry
from transferbench.submission.bundle import read_bundle
from transferbench.submission.integrity import check_plan_can_be_made_again
from transferbench.suite.loading import bundled_suites, load_suite

SUBMISSIONS = Path(__file__).parent.parent / "leaderboard" / "submissions"
PINNED = Path(__file__).with_name("pinned_plan_ids.json")
# Plans do not decode here: what they take from the pixels is fixed.
FACTS = DatasetFacts("0" * 64, 10, "multi-class", "accuracy", 1000, 500)


def ids_of(name):
    """Kind of job, with a diagnosis's label -> how many there are, and a digest of their ids."""
    registry = load_registry()
    suite = load_suite(name, registry, [])
    facts = {f"source:{label}": FACTS for label in suite.sources}
    facts |= {f"target:{label}": FACTS for label in suite.targets}
    entries = []
    for backbone in suite.backbones:
        spec, params = registry.resolve_backbone(backbone)
        described = identity(spec, spec.parse(params))
        entries.append(Entry(backbone, described, spec.license, spec.source))
    plan = make_plan(suite, entries, registry, facts)
    labels = {measured.job: measured.diagnostic for measured in plan.measured}
    groups = defaultdict(list)
    for job in plan.jobs.values():
        groups[f"{job.kind} {labels.get(job.id, '')}".strip()].append(job.id)
    return {
        group: [len(ids), hashlib.sha256("".join(sorted(ids)).encode()).hexdigest()]
        for group, ids in sorted(groups.items())
    }


@pytest.mark.parametrize("name", sorted(bundled_suites()))
def test_job_ids_stay(name):
    assert ids_of(name) == json.loads(PINNED.read_text(encoding="utf-8"))[name]


def test_a_submission_made_before_an_id_moved_can_be_planned_again():
    (folder,) = (SUBMISSIONS / "characters@2" / "timm+test_resnet").iterdir()
    bundle = read_bundle(folder)
    robustness = [
        job.payload["diagnostic"]
        for job in bundle.plan.jobs
        if job.payload.get("diagnostic", {}).get("name") == "robustness"
    ]
    assert len(robustness) == 20
    assert not any("perturbations" in diagnostic for diagnostic in robustness)
    assert list(check_plan_can_be_made_again(bundle, load_registry())) == []


if __name__ == "__main__":
    every = {name: ids_of(name) for name in sorted(bundled_suites())}
    PINNED.write_text(json.dumps(every, indent=1) + "\n", encoding="utf-8")
