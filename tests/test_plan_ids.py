"""The job ids of the plans of all bundled suites are those of the published numbers.

An id changes only for a reason given in the changelog; only then run
``python tests/test_plan_ids.py`` to write the new ids.

Changed so far: ``diagnosis robustness`` of ``characters``, which now contains the versions of the
perturbations in its parameters.
"""

import hashlib
import json
from collections import defaultdict
from pathlib import Path

import pytest

from transferbench.plan import DatasetFacts, Entry, make_plan
from transferbench.registry import identity, load_registry
from transferbench.specs import Weights
from transferbench.submission.bundle import read_bundle
from transferbench.submission.integrity import check_plan_can_be_made_again
from transferbench.suite.loading import bundled_suites, load_suite

SUBMISSIONS = Path(__file__).parent.parent / "leaderboard" / "submissions"
PINNED = Path(__file__).with_name("pinned_plan_ids.json")
# Fixed values instead of decoded datasets.
FACTS = DatasetFacts("0" * 64, 10, "multi-class", "accuracy", 1000, 500)
# Of suites without a source.
WEIGHTS = Weights(
    tag="imagenet", origin="nowhere", license="none", pretrained_on="ImageNet-1k",
    sha256="1" * 64, classes=1000,
)  # fmt: skip


def ids_of(name):
    """Number and digest of the job ids, by kind of job and label of diagnosis."""
    registry = load_registry()
    suite = load_suite(name, registry, [])
    facts = {f"source:{label}": FACTS for label in suite.sources}
    facts |= {f"target:{label}": FACTS for label in suite.targets}
    weights = None if suite.sources else WEIGHTS
    entries = []
    for backbone in suite.backbones:
        spec, params = registry.resolve_backbone(backbone)
        described = identity(spec, spec.parse(params))
        entries.append(Entry(backbone, described, spec.license, spec.source, weights))
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
def test_job_ids_are_pinned(name):
    assert ids_of(name) == json.loads(PINNED.read_text(encoding="utf-8"))[name]


def test_a_submission_from_before_the_change_of_an_id_can_be_planned_again():
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
    plan_ids = {name: ids_of(name) for name in sorted(bundled_suites())}
    PINNED.write_text(json.dumps(plan_ids, indent=1) + "\n", encoding="utf-8")
