"""An entry is its weights, not its file's name; and no process costs another one its rows."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import timm
import torch
from command_line import SMALL, cli, command, environment, mistake, suite_file
from handmade_run import (
    SUITE,
    Declaration,
    entry_of,
    handmade_registry,
    make_run,
    only_board,
    pack,
    publish,
)
from safetensors.torch import save_file

from transferbench import api
from transferbench.api import Run
from transferbench.identity import file_digest
from transferbench.registry import load_registry
from transferbench.runner import run as runner
from transferbench.runner.entries import requested_entries
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.runner.schedule import SilentWatcher
from transferbench.specs import Weights
from transferbench.suite import Suite

BACKBONE = "fixup-resnet8"


def weights_file(path, seed, **changes):
    """A state of the small network, with the files of equal seeds equal byte for byte."""
    spec = load_registry().backbone(BACKBONE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = spec.build(spec.parse({}), 10, 1, 8).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: changes.get(name, tensor) for name, tensor in state.items()}, path)
    return path


def label(path, tag="best"):
    return f"{BACKBONE}+{tag}@{file_digest(path)[:8]}"


def test_weights_by_tag_are_normalised_as_they_expect():
    """Two weights of one architecture may expect different constants."""
    names = ["mae", "augreg_in21k"]
    entries, _ = requested_entries(["timm/vit_base_patch16_224"], names, load_registry())
    means = [entry.entry.preprocessing.mean for entry in entries]
    assert means == [(0.485, 0.456, 0.406), (0.5, 0.5, 0.5)]


def run_with(folder, weights, *more):
    return cli(
        "run", suite_file(folder, SMALL), "--backbone", BACKBONE, "--weights", weights,
        "--out", folder / "run", "--jobs", 1, "--device", "cpu", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """Two files of one name, run one after the other into one folder."""
    folder = tmp_path_factory.mktemp("twice")
    files = [weights_file(folder / name / "best.pth", seed) for seed, name in enumerate("ab")]
    said = [run_with(folder, file) for file in files]
    assert [each.code for each in said] == [0, 0], said
    return folder, files, said


# --- names ------------------------------------------------------------------------------------


def weights(tag, sha256="1a2b3c4d" + "0" * 56):
    return Weights(tag=tag, origin="o", license="l", pretrained_on="p", sha256=sha256)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("best", "best@1a2b3c4d"),
        ("best.pth", "best.pth@1a2b3c4d"),
        ("a_b+c-d.2", "a_b+c-d.2@1a2b3c4d"),
        ("my best é@3", "my-best-e-3@1a2b3c4d"),
        ("../up", "..-up@1a2b3c4d"),
        ("重み", "weights@1a2b3c4d"),
        ("", "weights@1a2b3c4d"),
        ("x" * 500, f"{'x' * 80}@1a2b3c4d"),
    ],
)
def test_the_label_of_weights_holds_part_of_their_digest(tag, expected):
    assert weights(tag).label == expected


def test_a_tag_without_a_digest_is_its_own_label():
    assert weights("a1_in1k", None).label == "a1_in1k"


# --- one folder, several files ----------------------------------------------------------------


def test_two_files_of_one_name_are_two_entries_everywhere(twice):
    folder, files, said = twice
    names = [label(file) for file in files]
    assert len(set(names)) == 2
    run = Run(folder / "run")
    assert run.entries == names
    table = run.measurements
    assert sorted(set(table["entry"])) == sorted(names)
    values = table.query("metric == 'test_loss' and initialization == 'P-T'").set_index("entry")
    assert values["value"].nunique() == 2
    assert list(run.claims) == names
    board = said[1].out
    assert all(board.count(name) >= 1 for name in names)
    report = (folder / "run" / "report.html").read_text(encoding="utf-8")
    assert all(name in report for name in names)
    packed = cli("submission", "pack", folder / "run", "--out", folder / "s")
    publish(run.suite, folder / "s")
    paths = packed.out.split()
    assert len({Path(path).parent.name for path in paths}) == 2
    assert cli("leaderboard", "build", folder / "s", "--out", folder / "boards").code == 0
    tables = [path.read_text(encoding="utf-8") for path in (folder / "boards").rglob("*.csv")]
    assert tables
    assert all(name in table for name in names for table in tables)


def test_what_is_in_ids_is_the_name_of_the_file_and_its_whole_digest(copied):
    folder, files = copied
    planned = planned_with(folder, files[0])
    starts = [job.payload["initialization"].get("weights") for job in planned.plan.of_kind("trial")]
    assert {"tag": "best", "sha256": file_digest(files[0])} in starts
    assert not any("label" in start for start in starts if start)


def test_the_first_entry_was_not_computed_again(twice):
    assert "already done" in twice[2][1].err
    assert twice[2][1].err.count("P-T of") == 1


@pytest.fixture
def copied(twice, tmp_path):
    """A copy of the run of two files, to be changed, with copies of the files."""
    folder, files, _ = twice
    for name in ("run", "store", "a", "b"):
        shutil.copytree(folder / name, tmp_path / name)
    return tmp_path, [tmp_path / file.relative_to(folder) for file in files]


def planned_with(folder, file, **more):
    suite = Suite.model_validate(SMALL)
    options = Options(backbones=[BACKBONE], weights=str(file), out=folder / "run", **more)
    return plan_suite(suite, options)


def names_of(planned):
    return [entry.name for entry in planned.plan.entries]


def test_equal_bytes_under_another_name_are_the_same_entry(copied):
    folder, files = copied
    other = shutil.copy(files[0], folder / "other.pth")
    planned = planned_with(folder, other)
    assert sorted(names_of(planned)) == sorted(map(label, files))
    assert planned.done == set(planned.plan.jobs)
    note = f"{other} has the bytes of best.pth: it is the entry {label(files[0])} of this run"
    assert note in planned.notes


def test_a_file_that_was_changed_or_removed_leaves_its_entry_in_the_run(copied):
    folder, files = copied
    before = [label(file) for file in files]
    weights_file(files[0], 7)
    planned = planned_with(folder, files[0])
    assert sorted(names_of(planned)) == sorted([*before, label(files[0])])
    files[0].unlink()
    assert sorted(names_of(planned_with(folder, files[1]))) == sorted(before)


def test_the_folder_of_an_earlier_version_keeps_its_entries_and_gets_their_names(copied):
    folder, files = copied
    shutil.rmtree(folder / "run" / "entries")
    path = folder / "run" / "run.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    for row in (*run["entries"], *run["jobs"]):
        row.update({"name": f"{BACKBONE}+best"} if "name" in row else {"entry": f"{BACKBONE}+best"})
    path.write_text(json.dumps(run), encoding="utf-8")
    assert Run(folder / "run").entries == [f"{BACKBONE}+best"] * 2
    planned = planned_with(folder, files[1])
    assert names_of(planned) == list(map(label, files))
    assert planned.done == set(planned.plan.jobs)


def older_run(folder, file, **changes):
    """The run of one entry as an earlier version left it: no digest is in the entry's name."""
    older = shutil.copytree(folder / "run", folder / f"older-{file.parent.name}")
    name = label(file)
    run = json.loads((older / "run.json").read_text(encoding="utf-8"))
    index = [entry["name"] for entry in run["entries"]].index(name)
    for field in ("asked", "entries"):
        run[field] = [run[field][index]]
    run["jobs"] = [row for row in run["jobs"] if row["entry"] == name]
    run["entries"][0]["weights"].update(changes)
    text = json.dumps(run).replace(name, f"{BACKBONE}+best")
    (older / "run.json").write_text(text, encoding="utf-8")
    records = (older / "records.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    own = "".join(line for line in records if name in line)
    (older / "records.jsonl").write_text(own.replace(name, f"{BACKBONE}+best"), encoding="utf-8")
    return older


def test_the_entry_of_an_older_run_is_paired_by_its_weights(copied, capsys):
    folder, files = copied
    rows = api.compare_runs(older_run(folder, files[0]), folder / "run")
    assert {row["entry"] for row in rows} == {f"{BACKBONE}+best"}
    assert {row["a - b"] for row in rows} == {0}
    assert capsys.readouterr().err == (
        f"note: {BACKBONE}+best and {label(files[1])} are not paired by their weights: they "
        "differ\n"
    )
    rows = api.compare_runs(folder / "run", older_run(folder, files[1]))
    assert {row["entry"] for row in rows} == {label(files[1])}
    assert {row["a - b"] for row in rows} == {0}


def test_two_older_runs_with_other_weights_of_one_name_are_not_paired(copied, capsys):
    folder, files = copied
    assert api.compare_runs(*(older_run(folder, file) for file in files)) == []
    name = f"{BACKBONE}+best"
    line = f"note: {name} and {name} are not paired by their weights: they differ\n"
    assert capsys.readouterr().err == line


def test_why_an_entry_of_an_older_run_is_not_paired_is_told(copied):
    folder, files = copied
    said = cli("compare", older_run(folder, files[0], sha256=None), folder / "run")
    assert (said.code, said.out) == (0, "the two runs have no measurement in common\n")
    for file in files:
        assert (f"note: {BACKBONE}+best and {label(file)} are not paired by their weights: the run "
                f"of {BACKBONE}+best does not tell their digest\n" in said.err)  # fmt: skip


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"external": 3}', '{"external": {}, "backbone": "x"}', "[" * 100_000],
)
def test_a_damaged_file_of_an_entry_is_ignored(copied, content):
    folder, files = copied
    digest = Suite.model_validate(SMALL).digest
    own = content.replace("{", f'{{"suite_digest": "{digest}", ', 1) if ":" in content else content
    (folder / "run" / "entries" / "damaged.json").write_text(own, encoding="utf-8")
    assert sorted(names_of(planned_with(folder, files[1]))) == sorted(map(label, files))


def test_a_file_of_an_entry_that_is_a_pipe_is_not_waited_for(copied):
    folder, files = copied
    os.mkfifo(folder / "run" / "entries" / "pipe.json")
    (folder / "run" / "entries" / "endless.json").symlink_to("/dev/zero")
    assert sorted(names_of(planned_with(folder, files[1]))) == sorted(map(label, files))


def test_an_entry_whose_jobs_are_elsewhere_is_left_out_with_the_store(copied):
    folder, files = copied
    planned = planned_with(folder, files[1], store=folder / "elsewhere")
    assert names_of(planned) == [label(files[1])]
    elsewhere = folder / "elsewhere"
    assert (
        f"left out, since not finished in the store {elsewhere}: {label(files[0])}; run an entry "
        "again to go on with it"
    ) in planned.notes


def test_odd_names_of_files_make_entries_that_can_be_submitted(tmp_path):
    file = weights_file(tmp_path / "run #3" / "my best é\n.pth.tar", 1)
    said = run_with(tmp_path, file)
    assert said.code == 0, said.err
    assert "no board" not in said.out
    (name,) = Run(tmp_path / "run").entries
    assert name == label(file, "my-best-e-.pth")
    packed = cli("submission", "pack", tmp_path / "run", "--out", tmp_path / "s")
    assert packed.code == 0, packed.err


def test_a_tag_and_a_file_of_one_name_are_never_guessed_between(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r160_in1k").write_text("a file")
    message = mistake("plan", suite_file(tmp_path, SMALL), "--backbone", "timm/test_resnet",
                      "--weights", "r160_in1k", "--out", tmp_path / "run")  # fmt: skip
    assert "'r160_in1k' is a tag of timm/test_resnet and a file here; give ./r160_in1k" in message


def test_a_name_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / os.fsdecode(b"best-\xe9.pth")
    file.write_bytes(b"never read")
    message = mistake("plan", suite_file(tmp_path, SMALL), "--backbone", BACKBONE,
                      "--weights", file, "--out", tmp_path / "run")  # fmt: skip
    assert r"best-\udce9.pth' is not UTF-8; rename the file" in message


def test_a_digest_after_the_name_is_checked_before_anything_else(tmp_path):
    file = weights_file(tmp_path / "run #3" / "best.pth", 1)
    suite = suite_file(tmp_path, SMALL)
    arguments = ("plan", suite, "--backbone", BACKBONE, "--out", tmp_path / "run", "--weights")
    assert cli(*arguments, f"{file}#sha256={file_digest(file)}").code == 0
    message = mistake(*arguments, f"{file}#sha256=00")
    assert f"{file} has sha256 {file_digest(file)}, not 00; it is truncated or another" in message
    assert "only sha256=DIGEST may follow" in mistake(*arguments, f"{file}#md5=00")


# --- what is said of weights ------------------------------------------------------------------


def wrapped_file(path, seed):
    state = torch.load(weights_file(path, seed), weights_only=True)
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, path)
    return path


def test_what_was_undone_is_printed_by_prepare_and_run_and_kept(tmp_path):
    file = wrapped_file(tmp_path / "best.pth", 1)
    remark = "read from 'state_dict'; removed 'module.' from the names; ignored epoch"
    line = f"note: {label(file)}: {remark}"
    ready = (f"weights of {label(file)}: 25 tensors of {file}, sha256 {file_digest(file)}; "
             f"{remark}")  # fmt: skip
    prepared = cli("prepare", suite_file(tmp_path, SMALL), "--backbone", BACKBONE,
                   "--weights", file, "--out", tmp_path / "run")  # fmt: skip
    assert prepared.out.splitlines()[0] == ready
    said = run_with(tmp_path, file)
    assert said.err.splitlines().count(line) == 1
    facts = json.loads((tmp_path / "run" / "environment.json").read_text(encoding="utf-8"))
    assert facts["jobs"]["weights"] == [f"best: {remark}"]
    assert "ignored epoch" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", ["plan", "prepare", "run"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_before_anything_is_trained(tmp_path, verb, value):
    broken = torch.zeros(16, 16, 3, 3)
    broken[3, 2, 1, 0] = value
    file = weights_file(tmp_path / "best.pth", 1, **{"layer1.0.conv1.weight": broken})
    message = mistake(verb, suite_file(tmp_path, SMALL), "--backbone", BACKBONE,
                      "--weights", file, "--out", tmp_path / "run")  # fmt: skip
    assert f"the weights {file} are not finite: 1 of 2304 values of layer1.0.conv1" in message
    assert "NaN or infinite; the training that wrote them diverged" in message


def changed_state(path, change):
    """A state of timm's small network after ``change``."""
    state = timm.create_model("test_resnet", in_chans=1).state_dict()
    change(state)
    torch.save(state, path)
    return path


def with_a_negative_variance(state):
    state["layer2.0.bn2.running_var"][0] = -1


def with_huge_convolutions(state):
    for name in state:
        if state[name].ndim == 4:
            state[name] *= 1e30


def with_zeros(state):
    for name in state:
        state[name] *= 0


def with_rounded_convolutions(state):
    for name in state:
        if state[name].ndim == 4:
            state[name] = (state[name] * 1e-9).half().float()


NEGATIVE = "layer2.0.bn2, whose running_var has negative variances such as -1,"
NO_FEATURES = "the features before the head are equal"


@pytest.mark.parametrize(
    ("verb", "change", "fault"),
    [
        ("run", with_a_negative_variance, f"the outputs of {NEGATIVE} are not finite"),
        ("prepare", with_a_negative_variance, f"the outputs of {NEGATIVE} are not finite"),
        ("prepare", with_huge_convolutions, "the outputs of conv1.3 are not finite"),
        ("prepare", with_zeros, NO_FEATURES),
        ("prepare", with_rounded_convolutions, NO_FEATURES),
    ],
)
def test_weights_that_make_a_broken_network_are_refused(tmp_path, verb, change, fault):
    file = changed_state(tmp_path / "best.pth", change)
    message = mistake(verb, suite_file(tmp_path, SMALL), "--backbone", "timm/test_resnet",
                      "--weights", file, "--out", tmp_path / "run")  # fmt: skip
    assert f"with the weights {file} {fault}, in eval mode and for" in message
    assert "different images of noise: nothing can be learnt from them" in message


def test_a_file_that_was_never_written_is_refused_before_it_is_hashed(tmp_path, monkeypatch):
    file = tmp_path / "best.safetensors"
    with file.open("wb") as stream:
        stream.truncate(2**36)
    monkeypatch.setattr("transferbench.networks.weight_paths.file_digest", lambda _: 1 / 0)
    message = mistake("prepare", suite_file(tmp_path, SMALL), "--backbone", "timm/test_resnet",
                      "--weights", file, "--out", tmp_path / "run")  # fmt: skip
    assert f"{file} begins with zeros, as no file of weights does: get it again" in message


def test_refused_weights_leave_no_trace(tmp_path):
    good = weights_file(tmp_path / "good.pth", 1)
    assert run_with(tmp_path, good).code == 0
    before = (tmp_path / "run" / "run.json").read_bytes()
    broken = torch.full((16, 16, 3, 3), torch.nan)
    bad = weights_file(tmp_path / "bad.pth", 1, **{"layer1.0.conv1.weight": broken})
    said = run_with(tmp_path, bad)
    assert said.code == 2
    assert "are not finite" in said.err
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    again = run_with(tmp_path, good)
    assert again.code == 0
    assert "left out" not in again.err
    assert "bad" not in again.err


def test_weights_of_a_tag_that_are_not_finite_are_refused(tmp_path, monkeypatch):
    state = timm.create_model("test_resnet").state_dict()
    state["layer1.0.bn1.running_var"][0] = float("nan")
    repository, revision = tmp_path / "models--timm--test_resnet.r160_in1k", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    (repository / "snapshots" / revision).mkdir(parents=True)
    save_file(state, repository / "snapshots" / revision / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = mistake("prepare", suite_file(tmp_path, SMALL), "--backbone", "timm/test_resnet",
                      "--weights", "r160_in1k", "--offline", "--out", tmp_path / "run")  # fmt: skip
    assert "the weights r160_in1k are not finite: 1 of" in message
    assert "values of layer1.0.bn1.running_var are NaN or infinite" in message


MASKED = """
import os
from transferbench import hookimpl
from transferbench.specs import BackboneSpec, Weights

def build(params, num_classes, in_chans, image_size):
    import torch
    from torch import nn
    inputs = in_chans * image_size**2
    net = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 4), nn.Linear(4, num_classes))
    net[1].register_buffer("mask", torch.full((2,), -torch.inf))
    return net

def load_weights(params, net, tag):
    print("offline", os.environ.get("HF_HUB_OFFLINE"))
    return net.load_state_dict(net.state_dict())

@hookimpl
def transferbench_backbones():
    return [BackboneSpec(
        name="masked", version=1, summary="s", source="s", license="MIT", build=build,
        modules=lambda net: {"stem": ["1"], "head": ["2"]}, head=lambda net: net[2],
        weights=lambda params: [Weights(tag="web", origin="o", license="l", pretrained_on="p")],
        load_weights=load_weights,
    )]
"""


@pytest.mark.parametrize("offline", [True, False])
def test_the_loader_of_a_plugin_is_told_of_a_network_that_is_refused(
    tmp_path, capsys, monkeypatch, offline
):
    """Its infinite mask is no broken weight, and what torch returns no remark."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (tmp_path / "masked.py").write_text(MASKED)
    finished = api.run(
        Suite.model_validate(SMALL), backbones=["masked"], weights="web", offline=offline,
        plugins=[tmp_path / "masked.py"], out=tmp_path / "run", jobs=1, device="cpu",
    )  # fmt: skip
    assert finished.entries == ["masked+web"]
    assert set(capsys.readouterr().out.split("\n")) == {f"offline {'1' if offline else None}", ""}
    assert "HF_HUB_OFFLINE" not in os.environ
    facts = json.loads((tmp_path / "run" / "environment.json").read_text(encoding="utf-8"))
    assert "weights" not in facts["jobs"]


def test_weights_that_changed_since_the_plan_are_refused(tmp_path):
    file = weights_file(tmp_path / "best.pth", 1)
    planned = planned_with(tmp_path, file, jobs=1, device="cpu")
    weights_file(file, 2)
    with pytest.raises(api.DataError, match=r"best\.pth have changed since the run was planned"):
        runner.run_plan(planned, SilentWatcher())


# --- several processes in one folder ----------------------------------------------------------


class Interrupted(SilentWatcher):
    """Calls a function once, before the first job is started."""

    def __init__(self, call):
        self.call = call

    def started(self, job):  # noqa: ARG002  # the protocol's
        call, self.call = self.call, lambda: None
        call()


def finished_in(folder):
    run = Run(folder / "run")
    entries = set(run.entries)
    assert set(run.measurements["entry"]) == entries
    assert set(run.claims) == entries
    report = (folder / "run" / "report.html").read_text(encoding="utf-8")
    return {name for name in entries if name in report}


@pytest.mark.parametrize("moment", ["while it computes", "before it writes", "before it reports"])
def test_a_run_inside_another_costs_neither_its_rows(tmp_path, monkeypatch, moment):
    """The second one starts and ends at a moment of the first one's."""
    files = [weights_file(tmp_path / name / "best.pth", seed) for seed, name in enumerate("ab")]
    first = planned_with(tmp_path, files[0], jobs=1, device="cpu")
    second = planned_with(tmp_path, files[1], jobs=1, device="cpu")

    calls = iter([second])

    def inner():
        monkeypatch.undo()
        for planned in calls:
            api.finish(planned, SilentWatcher())

    def before(function):
        def called(*arguments):
            inner()
            return function(*arguments)

        return called

    if moment == "before it writes":
        monkeypatch.setattr(runner, "write_results", before(runner.write_results))
    elif moment == "before it reports":
        monkeypatch.setattr(Run, "_write_report", before(Run._write_report))
    watcher = Interrupted(inner) if moment == "while it computes" else SilentWatcher()
    finished = api.finish(first, watcher)
    assert "no board" not in finished.board()
    assert finished_in(tmp_path) == set(map(label, files))


@pytest.mark.slow
def test_two_processes_with_two_entries_lose_no_row(tmp_path):
    suite = suite_file(tmp_path, SMALL)
    files = [weights_file(tmp_path / name / "best.pth", seed) for seed, name in enumerate("ab")]
    processes = [
        subprocess.Popen(
            command("run", suite, "--backbone", BACKBONE, "--weights", file,
                    "--out", tmp_path / "run", "--jobs", 1, "--device", "cpu"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        )
        for file in files
    ]  # fmt: skip
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert finished_in(tmp_path) == set(map(label, files))


# --- boards -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return handmade_registry(tmp_path_factory.mktemp("plugins"))


def submitted(folder, registry, tag, digit, name):
    """A submission of weights under a name; ``digit``: of their digest."""
    entry = entry_of("made-good", "web")
    external = entry.weights.model_copy(update={"tag": tag, "sha256": digit * 64})
    entry = type(entry)(**vars(entry) | {"weights": external, "name": name})
    store = make_run(folder, registry, (entry,))
    publish(Suite.model_validate(SUITE), folder.parent / "s")
    return pack(folder / "run", store, name, folder.parent / "s", Declaration(), registry)


def test_old_submissions_of_two_files_of_one_name_are_two_rows(tmp_path, registry):
    for digit in "ab":
        submitted(tmp_path / digit, registry, "best", digit, "made-good+best")
    board = only_board(tmp_path / "s", registry)
    assert sorted(row.cells["entry"][0] for row in board.rows) == [
        "made-good+best@aaaaaaaa", "made-good+best@bbbbbbbb",
    ]  # fmt: skip
    assert board.unranked == ()
    assert list(board.verdicts) == [row.cells["entry"][0] for row in board.rows]


def test_equal_bytes_under_two_names_are_one_row(tmp_path, registry):
    submitted(tmp_path / "1", registry, "best", "a", "made-good+best")
    submitted(tmp_path / "2", registry, "best", "a", "made-good+best@aaaaaaaa")
    submitted(tmp_path / "3", registry, "copy", "a", "made-good+copy@aaaaaaaa")
    board = only_board(tmp_path / "s", registry)
    assert len(board.rows) == 1
    assert [row.status for row in board.unranked] == ["superseded"] * 2
