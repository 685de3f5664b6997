"""Suites that pre-train several source networks: who starts from which, and what is paired."""

import html
from collections import Counter

import pandas as pd
import pytest
from test_plan import FACTS, SUITE, changed, entry_of
from tiny_suite import TINY, tiny_suite

import transferbench
from transferbench.api import Run
from transferbench.errors import SuiteError
from transferbench.plan import make_plan
from transferbench.plan.pairs import paired_replicates, reference_of
from transferbench.registry import load_registry
from transferbench.specs import Weights
from transferbench.statistics import replicate_difference
from transferbench.submission.bundle import read_bundle
from transferbench.submission.integrity import (
    check_every_cell_is_there_once,
    check_plan_can_be_made_again,
)
from transferbench.suite import Suite, coverage
from transferbench.suite.coverage import coverage_mistakes
from transferbench.suite.loading import refuse_mistakes

WEIGHTS = Weights(tag="t", origin="o", license="l", pretrained_on="p", sha256="0" * 64)


@pytest.fixture(scope="module")
def registry():
    return load_registry()


def with_networks(networks, replicates, **changes):
    suite = changed("sources.source.networks", networks, SUITE | {"replicates": replicates})
    suite |= {"perturbations": {"none": {"name": "identity"}}}
    arms = suite["initializations"] | {"RI-same": {"name": "same-random", "recipe": "short"}}
    return suite | {"initializations": arms} | changes


def plan_of(registry, suite, **entry):
    return make_plan(Suite.model_validate(suite), [entry_of(registry, **entry)], registry, FACTS)


def start_of(plan, cell):
    return plan.jobs[cell.job].requires


def pairs_of(arm, other, kind, *references):
    return {
        "mistakes": {
            "name": "agreement",
            "pairs": [{"a": arm, "b": other, "replicates": kind, "references": [*references]}],
        }
    }


def test_replicate_k_starts_from_network_k(registry):
    plan = plan_of(registry, with_networks(3, 6))
    sources = plan.of_kind("pretrain")
    assert [job.title.rpartition(", ")[2] for job in sources] == [f"network {m}" for m in range(3)]
    for cell in plan.cells:
        expected = (sources[cell.replicate % 3].id,) if cell.initialization == "P-T" else ()
        assert start_of(plan, cell) == expected


def test_the_first_network_is_the_only_one_of_before(registry):
    single, three = (plan_of(registry, with_networks(n, 6)) for n in (1, 3))
    (source,) = single.of_kind("pretrain")
    first, second, third = three.of_kind("pretrain")
    assert first.id == source.id
    for job in (second, third):
        assert job.payload["selection"] != source.payload["selection"]
        assert not set(job.payload["seeds"].values()) & set(source.payload["seeds"].values())
    for before, after in zip(single.cells, three.cells, strict=True):
        moved = before.initialization != "RI-T" and before.replicate % 3
        assert (before.job != after.job) == bool(moved)


def test_a_shared_draw_is_shared_by_the_replicates_of_a_network(registry):
    plan = plan_of(registry, with_networks(3, 6))
    draws = [plan.jobs[cell.job].payload["seeds"]["init"] for cell in plan.cells
             if cell.initialization == "RI-same"]  # fmt: skip
    assert draws[:3] == draws[3:]
    assert len(set(draws)) == 3


@pytest.mark.parametrize(
    ("arms", "kind", "expected"),
    [
        (("P-T", "P-T"), "different", [(0, 2), (0, 4), (1, 3), (1, 5), (2, 4), (3, 5)]),
        (("P-T", "P-T"), "next", [(0, 2), (1, 3), (2, 4), (3, 5), (4, 0), (5, 1)]),
        (("RI-same", "RI-same"), "next", [(0, 2), (1, 3), (2, 4), (3, 5), (4, 0), (5, 1)]),
        (("RI-T", "RI-T"), "next", [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0)]),
        (("P-T", "RI-T"), "same", [(k, k) for k in range(6)]),
        (("P-T", "P"), "same", [(k, k) for k in range(6)]),
    ],
)
def test_pairs_stay_within_a_network(registry, arms, kind, expected):
    plan = plan_of(registry, with_networks(2, 6, diagnostics=pairs_of(*arms, kind)))
    measured = [(m.a.replicate, m.b.replicate) for m in plan.measured]
    assert measured == expected
    for row in plan.measured:
        several = arms[0] != "RI-T"
        assert row.network == (row.a.replicate % 2 if several else None)


def test_a_pair_with_the_source_has_the_network_that_its_trial_starts_from(registry):
    plan = plan_of(registry, with_networks(3, 6, diagnostics=pairs_of("P-T", "P", "same")))
    for row in plan.measured:
        assert plan.jobs[row.a.job].requires == (row.b.job,)


def test_the_source_is_measured_once_a_network(registry):
    diagnostics = {"spectrum": {"name": "spectrum", "of": ["P", "P-T"]}}
    plan = plan_of(registry, with_networks(3, 6, diagnostics=diagnostics))
    counts = Counter(row.a.initialization for row in plan.measured)
    assert counts == {"P": 3, "P-T": 6}
    sources = [row for row in plan.measured if row.a.initialization == "P"]
    assert [row.network for row in sources] == [0, 1, 2]
    assert len({row.a.job for row in sources}) == 3


def test_a_reference_is_of_the_same_network_where_that_has_a_third(registry):
    assert reference_of(0, 2, 6, networks=2) == 4
    assert reference_of(2, 4, 6, networks=2) == 0
    assert reference_of(0, 2, 4, networks=2) == 3
    assert reference_of(0, 1, 2, networks=2) is None
    several = pairs_of("P-T", "P-T", "different", "P-T", "RI-T")
    plan = plan_of(registry, with_networks(2, 6, diagnostics=several))
    replicate = {cell.job: cell.replicate for cell in plan.cells}
    for row in plan.measured:
        subjects = plan.jobs[row.job].payload["subjects"]
        assert {replicate[job] % 2 for job in subjects} == {row.network}
        assert replicate[subjects[2]] not in {row.a.replicate, row.b.replicate}


def test_external_weights_are_one_network(registry):
    suite = with_networks(3, 6, diagnostics=pairs_of("P-T", "P-T", "different"))
    plan = plan_of(registry, suite, weights=WEIGHTS)
    assert plan.of_kind("pretrain") == []
    assert len(plan.measured) == 15
    assert {row.network for row in plan.measured} == {None}
    shared = {row.network for row in plan.measurements() if row.a.initialization == "RI-same"}
    assert shared == {0, 1, 2}


def test_pairs_of_replicates_of_one_network():
    pairs = paired_replicates("different", 6, 4, ordered=True, networks=2)
    assert pairs == [(0, 2), (1, 3), (2, 0), (3, 1), (4, 0), (4, 2), (5, 1), (5, 3)]
    assert paired_replicates("next", 2, 2, ordered=False, networks=2) == []


def refused(suite, registry):
    with pytest.raises(SuiteError) as caught:
        refuse_mistakes(Suite.model_validate(suite), registry)
    return str(caught.value)


def test_replicates_are_a_multiple_of_the_networks(registry):
    text = refused(with_networks(3, 6, trials=[{}, {"replicates": 7}]), registry)
    assert text.endswith(
        "trials.1.replicates: 7 is no multiple of the 3 networks of a source; ask for 9 "
        "replicates, or for 1 network"
    )
    assert "replicates: 4 is no multiple of the 3" in refused(with_networks(3, 4), registry)


def test_sources_with_several_networks_have_equally_many(registry):
    suite = with_networks(3, 6)
    source = suite["sources"]["source"]
    more = suite["sources"] | {"null": source | {"networks": 2}, "one": source | {"networks": 1}}
    assert refused(suite | {"sources": more}, registry).endswith(
        "sources.null.networks: 2 networks, and another source has 3; give sources with several "
        "as many"
    )


def test_a_pair_that_no_network_has_is_refused(registry):
    diagnostics = pairs_of("P-T", "RI-T", "next")
    mistakes = list(coverage_mistakes(
        Suite.model_validate(with_networks(3, 3, diagnostics=diagnostics)), registry
    ))  # fmt: skip
    (mistake,) = mistakes
    assert mistake.location == ("diagnostics", "mistakes", "pairs", 0, "replicates")
    assert mistake.message == (
        "pairs two replicates of P-T and RI-T that start from one source network, and each of "
        "the 3 networks has one; ask for 6 replicates"
    )
    again = with_networks(3, 3, diagnostics=pairs_of("RI-T", "RI-T", "next"))
    assert list(coverage_mistakes(Suite.model_validate(again), registry)) == []


@pytest.mark.parametrize(
    "diagnostics",
    [
        *(pairs_of(a, b, kind) for a, b in (("P-T", "P-T"), ("P-T", "RI-T"), ("RI-T", "RI-T"))
          for kind in ("same", "different", "next")),
        {"spectrum": {"name": "spectrum", "of": ["P", "P-T"]}},
    ],
)  # fmt: skip
def test_the_limit_of_jobs_counts_what_is_planned(registry, diagnostics, monkeypatch):
    suite = Suite.model_validate(with_networks(3, 6, diagnostics=diagnostics))
    plan = plan_of(registry, suite.model_dump())
    jobs = len(plan.cells) + len(plan.measured)
    for limit, mistakes in ((jobs, 0), (jobs - 1, 1)):
        monkeypatch.setattr(coverage, "MAX_JOBS", limit)
        assert len(list(coverage_mistakes(suite, registry))) == mistakes


# --- a run ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three source networks, each with one replicate of both arms."""
    source = TINY["sources"]["source"] | {"networks": 3}
    suite = tiny_suite(
        sources={"source": source},
        perturbations={"none": TINY["perturbations"]["none"]},
        replicates=3,
        diagnostics={
            "speed": {"name": "speed"},
            "spectrum": {"name": "spectrum", "of": ["P"]},
            "mistakes": {
                "name": "agreement",
                "pairs": [{"a": "RI-T", "b": "P-T", "replicates": "same"}],
            },
        },
    )
    folder = tmp_path_factory.mktemp("networks")
    return transferbench.run(suite, out=folder / "run", jobs=1, device="cpu", progress=False)


def test_records_tell_the_network(run):
    table = run.measurements
    starts = table[table.initialization != "RI-T"]
    assert (starts.network == starts.replicate % 3).all()
    paired = table[table.diagnostic == "mistakes"]
    assert (paired.network == paired.replicate).all()
    random = table[(table.initialization == "RI-T") & (table.diagnostic == "trial")]
    assert random.network.isna().all()
    assert sorted(table[table.diagnostic == "spectrum"].replicate.unique()) == [0, 1, 2]


def test_the_report_says_what_an_interval_covers(run):
    (verdict,) = run.claims["fixup-resnet8"]
    assert verdict.covers == "3 source networks x 1 replicate"
    assert verdict.interval == "ranged-t-networks-95"
    text = html.unescape(run.report().read_text(encoding="utf-8"))
    assert "over 3 source networks x 1 replicate" in text
    means = run.table()
    assert means[["arm", "n"]].to_numpy().tolist() == [["P-T", 3], ["RI-T", 3]]


def test_a_submission_with_a_replicate_of_another_network_is_refused(run, tmp_path, registry):
    (folder,) = transferbench.pack(run.folder, tmp_path)
    bundle = read_bundle(folder)
    assert list(check_plan_can_be_made_again(bundle, registry)) == []
    moved = tuple(
        row.model_copy(update={"network": 0}) if row.network == 1 else row for row in bundle.records
    )
    problems = list(check_plan_can_be_made_again(bundle._replace(records=moved), registry))
    trial = next(row.job for row in moved if (row.diagnostic, row.initialization, row.replicate)
                 == ("trial", "P-T", 1))  # fmt: skip
    assert (
        "trial of P-T on handwriting, none, replicate 1 is not required "
        f"(job {trial[:12]}, source network 0)"
    ) in [problem.why for problem in problems]
    assert list(check_every_cell_is_there_once(bundle, registry)) == []
    untold = tuple(row.model_copy(update={"network": None}) for row in bundle.records)
    problems = check_every_cell_is_there_once(bundle._replace(records=untold), registry)
    reasons = {problem.why for problem in problems}
    for metric, arm in (("test_metric", "P-T"), ("kappa", "RI-T")):
        cell = f"{arm} on handwriting, none, replicate 1"
        assert f"a {metric} record of {cell} has no source network" in reasons


def test_two_runs_are_compared_over_the_networks(run, monkeypatch):
    own = run.measurements
    # Two replicates of each network; the second run is higher by k / 100 at replicate k.
    twice = pd.concat([own, own.assign(replicate=own.replicate + 3)])
    later = twice.assign(value=twice.value + twice.replicate / 100)
    tables = iter([twice, later])
    monkeypatch.setattr(Run, "measurements", property(lambda _: next(tables)))
    rows = transferbench.compare(run.folder, run.folder)
    for arm, count in (("P-T", 3), ("RI-T", 6)):
        (row,) = (row for row in rows
                  if (row["initialization"], row["metric"]) == (arm, "test_metric"))  # fmt: skip
        sides = []
        for table in (twice, later):
            own = table[(table.initialization == arm) & (table.metric == "test_metric")]
            own = own[own.diagnostic == "trial"]
            units = own.groupby(own.replicate % count)["value"].mean()
            sides.append(dict(enumerate(units.tolist())))
        expected = replicate_difference(*sides, ends=(0.0, 1.0))
        assert [row["low"], row["high"]] == pytest.approx([expected.low, expected.high])
        assert row["n"] == count
