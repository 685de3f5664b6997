"""One training on several processes gives the network that one process trains."""

import json
import os
import pickle
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from command_line import SMALL, artefacts, mistake, suite_file
from safetensors.torch import load_file
from shared_training import (
    ADAMW,
    EXACT,
    REFUSED,
    SHARDED,
    WITH_STATISTICS,
    WITHOUT_STATISTICS,
    Plain,
    kind,
    trained,
)
from tiny_suite import TINY, tiny_suite
from training_groups import FEATURES, recipe_of, training_of

import transferbench
from transferbench.engine import ranks
from transferbench.engine.jobs import start_engine
from transferbench.engine.ranks import RankedJob, on_ranks
from transferbench.engine.resources import Machine
from transferbench.errors import (
    DeviceError,
    ExecutorError,
    LostProcessError,
    PluginError,
    SuiteError,
)
from transferbench.runner import execute
from transferbench.runner.executors import this_machine
from transferbench.runner.executors.inprocess import attempt
from transferbench.runner.executors.spec import ExecutorContext
from transferbench.runner.executors.this_machine import MEASURES, TRAINS, LocalOptions
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.store import Store
from transferbench.training.processes import Processes, refuse_other_rounding
from transferbench.training.sharding import fills_a_card, state_bytes


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What two processes under torchrun have trained."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "path").write_text(json.dumps(sys.path))
    with pytest.MonkeyPatch.context() as patch:
        code = "from transferbench.engine.jobs import serve_rank; serve_rank(folder)"
        assert code in ranks._BOOTSTRAP
        own = ranks._BOOTSTRAP.replace(code, "from shared_training import main; main(folder)")
        patch.setattr(ranks, "_BOOTSTRAP", own)
        ranks._launch(folder, 2)
    return torch.load(folder / "results.pt", weights_only=True)


def largest_difference(first, second):
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


LEARNING_RATE = FEATURES["adamw"]["recipe"]["learning_rate"]
TOLERANCES = {
    "without": (WITHOUT_STATISTICS, 1e-6),
    "with": (WITH_STATISTICS, 1e-5),
    "adamw": (ADAMW, 0.01 * LEARNING_RATE),
    # Whatever the optimizer makes of rounding, it is rounding that it begins with.
    "exact": (EXACT, 1e-9),
}
TOLERANCES |= {f"sharded {group}": (SHARDED[f"sharded {group}"], tolerance)
               for group, (_, tolerance) in TOLERANCES.items()}  # fmt: skip


@pytest.mark.parametrize(
    ("group", "feature"),
    [(group, name) for group, (kinds, _) in TOLERANCES.items() for name in kinds],
)
def test_two_processes_train_the_network_of_one(shared, group, feature):
    kinds, tolerance = TOLERANCES[group]
    state, history = trained(kinds[feature])
    shared_state, shared_history = shared[group][feature]
    assert largest_difference(shared_state, state) <= tolerance
    for shared_row, row in zip(shared_history, history, strict=True):
        assert shared_row == pytest.approx(row, abs=max(tolerance, 1e-6))


@pytest.mark.parametrize(
    ("kind", "message"),
    [("own-norm", r"its body\.1 is a OwnNorm, which normalises by statistics of its batch"),
     ("dropout", "draws random numbers as it is trained"),
     ("few", "a batch of 1 images cannot be shared by 2 processes")],
)  # fmt: skip
def test_what_would_not_be_the_training_of_one_process_is_refused(shared, kind, message):
    assert kind in REFUSED
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(shared["refused"][kind])


@pytest.mark.parametrize(
    ("kind", "message"),
    [("scalar", "Scalar cannot be spread over GPUs: fully_shard doesn't support scalar parameters"),
     ("dropout", "Network draws random numbers as it is trained")],
)  # fmt: skip
def test_what_cannot_be_spread_is_refused(shared, kind, message):
    assert shared["sharded refused"][kind].startswith(message)


def test_a_training_in_parts_is_kept_whole_and_goes_on_with_the_same_bits(shared):
    own = shared["interrupted"]
    assert own["epoch"] == 1
    assert largest_difference(own["resumed"], own["whole"]) == 0
    assert max(own["share"]) <= 0.75
    state, _ = trained(kind("adamw", Plain))
    parameters = [shape for name, tensor in state.items() if "running" not in name
                  if (shape := tuple(tensor.shape))]  # fmt: skip
    assert own["shapes"] == [[(), shape, shape] for shape in parameters]


@pytest.mark.parametrize("feature", ["plain", "mixup"])
def test_the_shares_of_a_step_are_the_images_of_its_batch(feature):
    """Bit for bit, with the augmentation and the mixup of the whole batch."""
    options = FEATURES["perturbed-per-image-augmented"] | {
        "recipe": FEATURES[feature].get("recipe", {})
    }
    indices = torch.arange(5, 13)

    def examples(processes):
        stepping = training_of(0, options).stepping
        execution = stepping.execution
        object.__setattr__(execution, "processes", processes)
        draw = stepping.draw(indices, torch.Generator().manual_seed(3), 0)
        return stepping._examples(draw)

    images, targets, _ = examples(Processes())
    for rank in range(3):
        own, own_targets, of_step = examples(Processes(rank, 3))
        assert torch.equal(own, images[rank::3])
        assert torch.equal(own_targets, targets[rank::3])
        assert torch.equal(of_step, targets)


# --- in a worker ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", [None, pytest.param(True, marks=pytest.mark.slow)])
def test_a_job_on_two_processes_keeps_what_it_keeps_on_one(shard, tmp_path):
    planned = plan_suite(tiny_suite(), Options(out=tmp_path / "run", device="cpu"))
    store = planned.store
    job = next(job for job in planned.plan.jobs.values() if job.kind == "pretrain")

    def computed(processes, shard=None):
        machine = Machine(store.root, store.datasets, None, "cpu", processes=processes, shard=shard)
        start_engine(machine)(job)
        artefact = store.artefact(job.id)
        state = artefact.read("final.safetensors", load_file)
        facts, names = artefact.facts, artefact.names
        store.remove(job.id)
        return state, names, facts

    state, names, facts = computed(2, shard)
    alone, alone_names, alone_facts = computed(1)
    assert names == alone_names
    assert (facts["processes"], facts.get("sharded")) == (2, shard)
    assert not {"processes", "sharded"} & alone_facts.keys()
    # AdamW divides a gradient by its size: of one that is almost zero it keeps the rounding.
    assert largest_difference(state, alone) < 1e-2 * 0.003


def ranked(tmp_path, count=2):
    machine = Machine(tmp_path, tmp_path, None, "cpu", processes=count)
    return RankedJob(machine, None, tmp_path / "draft", tmp_path / "unfinished")


def in_each(monkeypatch, code):
    """Run ``code`` in place of a training; ``rank`` and ``folder`` are what it needs."""
    start = "import os, pathlib, signal, sys, time; folder = pathlib.Path(sys.argv[1]); "
    monkeypatch.setattr(ranks, "_BOOTSTRAP", f"{start}rank = int(os.environ['RANK'])\n{code}")


def test_a_process_that_is_killed_makes_the_job_a_lost_one(tmp_path, monkeypatch):
    in_each(monkeypatch, "os.kill(os.getpid(), 9) if rank == 1 else time.sleep(100)")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    outcome = attempt("job", lambda: on_ranks(ranked(tmp_path)))
    assert list(tmp_path.iterdir()) == []
    assert outcome.status == "lost"
    assert "a training on several processes was cut off" in outcome.message
    assert "process 1 was killed by signal 9" in outcome.message


def test_what_a_process_raises_is_raised_where_the_job_is(tmp_path, monkeypatch):
    failures = {
        0: ranks._Failure(RuntimeError("[gloo/pair.cc] Connection closed by peer"), "", 1.0),
        1: ranks._Failure(PluginError("the network is broken"), "its traceback", 2.0),
    }
    pickled = {rank: pickle.dumps(failure) for rank, failure in failures.items()}
    (tmp_path / "failures").write_bytes(pickle.dumps(pickled))
    in_each(monkeypatch, (
        f"import pickle; failures = pickle.load(open({str(tmp_path / 'failures')!r}, 'rb'))\n"
        "(folder / f'failure-{rank}').write_bytes(failures[rank])\n"
        "while not (folder / 'failure-1').exists(): time.sleep(0.01)\n"  # the end of one ends all
        "sys.exit(1)"
    ))  # fmt: skip
    with pytest.raises(PluginError, match="the network is broken") as raised:
        on_ranks(ranked(tmp_path))
    assert raised.value.__notes__ == ["its traceback"]


def test_a_worker_that_is_told_to_end_tells_the_first_process(tmp_path, monkeypatch):
    done = tmp_path / "done"
    in_each(monkeypatch, (
        "if rank == 1: signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"else: signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(done)!r}).touch(),"
        " os._exit(1)))\n"
        f"pathlib.Path({str(tmp_path)!r}, f'begun-{{rank}}').touch()\n"
        f"while rank == 0 or not pathlib.Path({str(done)!r}).exists(): time.sleep(0.05)"
    ))  # fmt: skip
    before = signal.getsignal(signal.SIGTERM)

    def tell():
        while len(list(tmp_path.glob("begun-*"))) < 2:
            stop.wait(0.05)
        os.kill(os.getpid(), signal.SIGUSR2)

    stop = threading.Event()
    threading.Thread(target=tell, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        on_ranks(ranked(tmp_path))
    assert done.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_process_ends_with_the_worker_that_started_it(monkeypatch):
    class EndedError(Exception):
        pass

    def end(code):
        raise EndedError(code)

    parents = iter([7, 7, 1])
    monkeypatch.setattr(ranks.os, "getppid", lambda: next(parents))
    monkeypatch.setattr(ranks.os, "_exit", end)
    monkeypatch.setattr(ranks.time, "sleep", lambda _: None)
    with pytest.raises(EndedError):
        ranks._watch(7)


@pytest.mark.slow
def test_a_training_whose_process_is_killed_goes_on_where_it_was(tmp_path):
    """A second process dies in the middle of a step; the first does not wait for it for ever."""
    recipe = TINY["recipes"]["short"] | {"epochs": 30}
    suite = tiny_suite(recipes={"short": recipe})
    planned = plan_suite(suite, Options(out=tmp_path / "run", device="cpu"))
    store = planned.store
    job = next(job for job in planned.plan.jobs.values() if job.kind == "pretrain")
    machine = Machine(store.root, store.datasets, None, "cpu", processes=2, save_seconds=0.0)
    engine = start_engine(machine)
    kept = store.root / "unfinished" / job.id / "training.pt"

    def kill():
        while not kept.exists():
            stop.wait(0.01)
        children = Path(f"/proc/self/task/{threading.main_thread().native_id}/children")
        os.kill(max(map(int, children.read_text().split())), signal.SIGKILL)

    stop = threading.Event()
    threading.Thread(target=kill, daemon=True).start()
    outcome = attempt(job.id, lambda: engine(job))
    assert outcome.status == "lost"
    assert "was killed by signal 9" in outcome.message
    assert kept.exists()
    engine(job)
    assert not kept.exists()
    start_engine(machine._replace(store=tmp_path / "other"))(job)
    states = [Store(root).artefact(job.id).read("final.safetensors", load_file)
              for root in (store.root, tmp_path / "other")]  # fmt: skip
    assert largest_difference(*states) == 0


# --- options --------------------------------------------------------------------------------------


def test_cards_are_given_to_workers_together():
    assert this_machine.together(list("0123456"), 3) == ["0,1,2", "3,4,5"]
    assert this_machine.together(["0"], 1) == ["0"]
    setups = this_machine.gpu_setups(["0,1", "2,3"], None, 3, None)
    environments = [setup.environment.get("CUDA_VISIBLE_DEVICES") for setup in setups]
    assert environments == ["0,1", "2,3", None]


def test_the_cards_that_slurm_gives_are_split_among_workers(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setattr(this_machine, "_device", lambda _: "cuda")
    machine = Machine(None, None, None, "cpu")
    context = ExecutorContext(Options(gpus_per_job=2, jobs=3), machine, None, None)
    with this_machine.workers_here(context, LocalOptions()) as executor:
        cards = [setup.environment.get("CUDA_VISIBLE_DEVICES") for setup in executor._setups]
        assert cards == ["4,5", "6,7", None]
        assert (executor.free(TRAINS), executor.free(MEASURES)) == (2, 1)
    with pytest.raises(ExecutorError, match="leave out slots_per_gpu or --gpus-per-job"):
        this_machine.workers_here(context, LocalOptions(slots_per_gpu=2))


def test_jobs_of_several_processes_share_the_cores(monkeypatch):
    monkeypatch.setattr(this_machine, "available_cpus", lambda: 8)
    options = [Options(gpus_per_job=count) for count in (1, 3, 16)]
    assert [this_machine.slots_of(each, "cpu") for each in options] == [8, 2, 1]


@pytest.mark.parametrize(
    ("recipe", "trained", "frozen"),
    [({"optimizer": "adamw"}, 5, 1), ({"optimizer": "sgd"}, 4, 1),
     ({"optimizer": "sgd", "momentum": 0.0}, 3, 1)],
)  # fmt: skip
def test_a_training_is_spread_where_its_state_takes_half_of_a_card(recipe, trained, frozen):
    net = Plain(0)
    head = sum(4 * p.numel() for p in net.head.parameters())
    body = sum(4 * p.numel() for p in net.body.parameters())
    assert state_bytes(net, recipe_of(**recipe)) == trained * (head + body)
    net.body.requires_grad_(requires_grad=False)
    needs = trained * head + frozen * body
    assert state_bytes(net, recipe_of(**recipe)) == needs
    assert fills_a_card(net, recipe_of(**recipe), 2 * needs - 1)
    assert not fills_a_card(net, recipe_of(**recipe), 2 * needs)


@pytest.mark.parametrize(
    ("options", "needs", "spread"),
    [({}, 3, True), ({}, 1, False), ({"shard": False}, 3, False), ({"shard": True}, 1, True),
     ({"processes": 1, "rank": None}, 3, False)],
)  # fmt: skip
def test_the_facts_of_a_job_say_that_it_was_spread(options, needs, spread, tmp_path, monkeypatch):
    """``needs``: of half of a card's memory, in thirds of what the state takes of it."""
    machine = Machine(tmp_path, tmp_path, None, "cpu", processes=2, rank=0)._replace(**options)
    engine = start_engine(machine)
    recipe, net, draft = recipe_of(optimizer="adamw"), Plain(0), SimpleNamespace(facts={})
    card = SimpleNamespace(total_memory=2 * state_bytes(net, recipe) * 2 // needs)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    engine.resources.device = torch.device("cuda")
    assert engine._shards(draft, net, recipe) == spread
    assert draft.facts == ({"sharded": True} if spread else {})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"shard": True}, "give --gpus-per-job as well"),
     ({"shard": True, "gpus_per_job": 2, "compile": True}, "leave out --compile")],
)  # fmt: skip
def test_what_is_not_spread_is_told(options, message):
    with pytest.raises(SuiteError, match=message):
        execute._refuse_shards(Options(**options))


def test_a_group_is_not_shared_among_processes():
    options = Options(gpus_per_job=2, group=4)
    with pytest.raises(SuiteError, match="--gpus-per-job 2 shares each training among processes"):
        execute._refuse_group_of_processes(options)
    context = ExecutorContext(Options(gpus_per_job=2), None, None, None)
    assert context.group_size("cuda") == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [(("--set", "recipes.short.precision=bf16"), "in bf16 each process rounds its gradients"),
     (("--backbone", "timm/test_resnet"), "gradients are zero but for rounding, from which AdamW")],
)  # fmt: skip
def test_rounding_that_keeps_no_tolerance_is_refused_before_anything_is_trained(
    tmp_path, arguments, why
):
    run = ("run", suite_file(tmp_path, SMALL), "--out", tmp_path / "run", "--device", "cpu")
    message = mistake(*run, "--gpus-per-job", 2, *arguments)
    assert why in message
    assert "leave out --gpus-per-job, or accept and record it with --accept-rounding" in message
    assert artefacts(tmp_path / "store") == []


@pytest.mark.parametrize(
    ("optimizer", "precision", "by_batch", "keeps_none"),
    [("sgd", "f32", True, False), ("adamw", "f32", False, False), ("adamw", "f32", True, True),
     ("sgd", "bf16", False, True), ("sgd", "fp16", True, True)],
)  # fmt: skip
def test_rounding_that_keeps_no_tolerance_may_be_recorded(
    optimizer, precision, by_batch, keeps_none
):
    recorded = refuse_other_rounding("mine", optimizer, precision, by_batch=by_batch, recorded=True)
    assert recorded == keeps_none


@pytest.mark.slow
def test_accepted_rounding_is_a_fact_of_the_job(tmp_path):
    options = {"gpus_per_job": 2, "accept_rounding": True, "device": "cpu", "jobs": 1}
    recipe = TINY["recipes"]["short"] | {"precision": "bf16"}
    suite = tiny_suite(**SMALL | {"recipes": {"short": recipe}})
    finished = transferbench.run(suite, out=tmp_path / "run", progress=False, **options)
    assert not finished.failed
    facts = [Store(tmp_path / "store").artefact(job.parent.name).facts
             for job in (tmp_path / "store").glob("jobs/*/*/history.json")]  # fmt: skip
    assert facts
    assert all(each["accepted_rounding"] and each["processes"] == 2 for each in facts)


def test_more_gpus_than_there_are_are_refused(monkeypatch):
    monkeypatch.setattr(this_machine, "_cards", lambda: ["0"])
    with pytest.raises(DeviceError, match="the GPUs here are 1; give at most --gpus-per-job 1"):
        this_machine.refuse_few_cards(Options(gpus_per_job=2), "cuda")


def test_what_another_process_was_lost_of_is_no_cause(tmp_path):
    assert ranks.lost_another(torch.distributed.DistNetworkError("reset"))
    assert not ranks.lost_another(SuiteError("batch"))
    with pytest.raises(LostProcessError, match="process 0 ended with exit code 3"):
        ranks._raise_cause(tmp_path, {0: 3})
