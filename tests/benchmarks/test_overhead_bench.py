"""Overhead of a run: planning, re-running finished jobs, and a trial besides its training.

Run: ``pytest -m benchmark tests/benchmarks --benchmark-json results.json``
"""

import statistics
import time
from cProfile import Profile

import pytest
import torch
from racing import Peer, result
from tiny_suite import TINY, tiny_suite

from transferbench import api
from transferbench.engine.jobs import Engine, start_engine
from transferbench.engine.resources import Machine
from transferbench.plan import DatasetFacts, Entry, make_plan
from transferbench.registry import identity, load_registry
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.runner.run import run_plan
from transferbench.runner.schedule import SilentWatcher
from transferbench.training import Training, model_outputs

pytestmark = pytest.mark.benchmark

DIFFERENT = [("P-T", "P-T"), ("RI-T", "RI-T"), ("P-T", "RI-T")]
MANY_PAIRS = {
    "name": "agreement",
    "pairs": [{"a": a, "b": b, "replicates": "different"} for a, b in DIFFERENT],
}


def many_jobs():
    """The tiny suite with ten replicates and all pairs of them: 501 jobs, 40 of them trials."""
    return tiny_suite(replicates=10, diagnostics=TINY["diagnostics"] | {"mistakes": MANY_PAIRS})


@pytest.fixture
def hold(benchmark, one_thread_and_kept_memory):  # noqa: ARG001  # sets threads and allocator
    """Repeat ``work``, which returns its seconds and the seconds of its limit."""

    def run(work, against, *, within, rounds, clock):
        pairs = []
        benchmark.pedantic(lambda: pairs.append(work()), rounds=rounds, warmup_rounds=1)
        own, limits = (list(column) for column in zip(*pairs[-rounds:], strict=True))
        peer = Peer(against, work, within=within)
        benchmark.extra_info["seconds"] = statistics.median(own)
        benchmark.extra_info["clock"] = clock.__name__
        benchmark.extra_info["races"] = [result(peer, own, limits)]

    return run


def held_to(limit_seconds, work):
    def timed():
        start = time.process_time()
        work()
        return time.process_time() - start, limit_seconds

    return timed


# --- planning -------------------------------------------------------------------------------------


@pytest.mark.benchmark(group="P1 plan 501 jobs")
def test_make_plan(hold):
    registry, suite = load_registry(), many_jobs()
    spec, params = registry.resolve_backbone("fixup-resnet8")
    entry = Entry(spec.name, identity(spec, spec.parse(params)), spec.license, spec.source)
    facts = {
        "source:source": DatasetFacts("a" * 64, 10, "multi-class", "accuracy", 800, 200),
        "target:handwriting": DatasetFacts("b" * 64, 10, "multi-class", "accuracy", 1437, 360),
    }
    assert len(make_plan(suite, [entry], registry, facts).jobs) == 501
    work = held_to(1.0, lambda: make_plan(suite, [entry], registry, facts))
    hold(work, "a limit of 1 s", within=1.0, rounds=15, clock=time.process_time)


# --- re-running finished jobs ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a finished run of 501 jobs."""
    folder = tmp_path_factory.mktemp("done") / "run"
    torch.set_num_threads(1)
    finished = api.run(many_jobs(), out=folder, jobs=1, device="cpu")
    assert not finished.failed
    return folder


def run_again(folder):
    planned = plan_suite(many_jobs(), Options(out=folder, jobs=1, device="cpu"))
    assert len(planned.plan.jobs) == 501
    assert run_plan(planned, SilentWatcher()).outcomes == {}


def run_and_report_again(folder):
    api.run(many_jobs(), out=folder, jobs=1, device="cpu")


@pytest.mark.benchmark(group="P2 run 501 finished jobs again")
@pytest.mark.parametrize("again", [run_again, run_and_report_again])
def test_a_cached(again, done, hold):
    work = held_to(2.0, lambda: again(done))
    hold(work, "a limit of 2 s", within=1.0, rounds=7, clock=time.process_time)


# --- a trial besides its training -----------------------------------------------------------------


def profiled(engine, job):
    """The seconds of a job, and of its training and evaluation."""
    profile = Profile()
    profile.runcall(engine, job)
    seconds = {entry.code: entry.totaltime for entry in profile.getstats()}
    core = seconds[Training.train.__code__] + seconds[model_outputs.__code__]
    return seconds[Engine.run.__code__], core


@pytest.mark.benchmark(group="P3 a trial of quickstart, start to end")
def test_whole_trial(tmp_path, hold):
    pytest.importorskip("mlxtend")
    options = Options(backbones=("fixup-resnet8",), out=tmp_path / "run", device="cpu")
    planned = plan_suite("quickstart@1", options)
    job = next(job for job in planned.plan.of_kind("trial") if not job.requires)
    root = planned.store.root
    engine = start_engine(Machine(root, root / "datasets", None, "cpu"))
    new_ids = iter(range(10**6))
    hold(
        lambda: profiled(engine, job._replace(id=f"{next(new_ids):064x}")),
        "its training and evaluation",
        within=1.05,
        rounds=3,
        clock=time.perf_counter,
    )
