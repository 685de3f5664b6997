"""Mistakes of users and faults of plugins: each has a clear message, and nothing is lost."""

import os
import re
import socket

import pytest
import torch
from command_line import SMALL, artefacts, cli, mistake, suite_file
from huggingface_hub import constants
from own_plugin import OWN_JOBS, own_run
from safetensors.torch import save_file
from tiny_suite import TINY

from transferbench.api import Run
from transferbench.identity import file_digest

# --- no files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/dev/full", "/dev/zero", "/dev/urandom", "pipe", "socket", "."])
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("validate",), "cannot read the suite {}: "),
        (("status",), "{} is not a run's folder: it has no run.json; give the folder that"),
        (("plan", "suite.yaml", "--weights"), "give a file"),
        (("submission", "check"), "{} is not a submission: it has no submission.json; give"),
        (("verify",), "{} is not a store: it has no folder 'jobs'; give the folder of --store"),
    ],
)
def test_what_never_ends_or_is_no_file_is_refused(tmp_path, monkeypatch, name, command, expected):
    suite_file(tmp_path, SMALL)
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket")
        assert expected.format(name) in mistake(*command, name)


# --- the suite --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--backbone", "fixup-resnet9"), "no backbone named 'fixup-resnet9'; did you mean"),
        (("--backbone", "timm/resnet18x"), "no timm backbone named 'resnet18x'; did you mean"),
        (("--backbone", "timm"), "backbone 'timm' is a family; ask for one of it, such as 'timm/"),
        (("--initialization", "pretraned"), "no initialization or arm named 'pretraned'; did you"),
        (("--weights", "nowhere.pth"), "no weights file nowhere.pth; give the path of an existing"),
        (("--weights", "nothing"), "named 'nothing' (or give a file that exists)"),
        (("--set", "replicates"), "'replicates' has no '='; write it as recipes.P-T.epochs=3"),
        (("--set", "replicates=[1"), "'[1' is not a YAML value; write it as in a suite file"),
        (("--set", "recipes.shrt.epochs=1"), "has no 'shrt' there; did you mean 'short'?"),
        (("--set", "trials.7=1"), "the suite has no '7' there; there are: 0"),
        (("--set", "name.x=1"), "nothing can be set below 'name'"),
        (("--set", "name.x.y=1"), "nothing can be set at 'x', below 'tiny'"),
        (("--set", "recipes.short.epochs=0"),
         "--set recipes.short.epochs=0: recipes.short.epochs: Input should be greater than or"),
        (("--set", "recipes.short.epoch=1"), "recipes.short.epoch: no such field; did you mean"),
        (("--set", "recipes.short.speed=1"), "no such field; there are: augmentation, batch_size"),
        (("--set", "perturbations.block-2.params.block=3"),
         "block-shuffle: block 3 does not divide the side 8; choose one of 1, 2, 4, 8"),
        (("--device", "tpu"), "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (("--jobs", "0"), "'--jobs': Input should be greater than or equal to 1"),
        (("--seed-count", "0"), "'--seed-count': Input should be greater than or equal to 1"),
        (("--seed-count", "1" * 400), "'--seed-count': Input should be less than or equal to 10"),
        (("--image-memory", "inf"), "'--image-memory': Input should be less than or equal to 10"),
        (("--bakbone", "x"), "No such option: --bakbone (Possible options: --backbone)"),
        (("--store", "a", "--store", "b"), "--store is there several times; give it"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_option_is_reported_with_advice(tmp_path, arguments, expected):
    path = suite_file(tmp_path)
    assert expected in mistake("run", path, "--out", tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_a_gpu_that_is_not_there_is_reported(tmp_path, verb):
    options = ("--out", tmp_path / "run", "--device", "cuda")
    message = mistake(verb, suite_file(tmp_path, SMALL), *options)
    assert "--device cuda was requested, but PyTorch" in message
    assert "finds no CUDA device here; use --device cpu, or install a driver" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_refused_run_leaves_an_earlier_one_where_it_is(tmp_path):
    folder = tmp_path / "run"
    assert cli("run", suite_file(tmp_path, SMALL), "--out", folder, "--jobs", 1).code == 0
    before = sorted(path.name for path in folder.iterdir())
    changed = suite_file(tmp_path, SMALL, replicates=2)
    mistake("run", changed, "--out", folder, "--device", "cuda")
    assert sorted(path.name for path in folder.iterdir()) == before
    assert cli("report", folder).code == 0


def test_five_mistakes_are_reported_at_once_each_with_its_line(tmp_path):
    path = suite_file(
        tmp_path,
        imag=3,
        backbones=["fixup-resnet9"],
        perturbations=TINY["perturbations"]
        | {"block-2": {"name": "block-shuffle", "params": {"block": 3}}},
        recipes={"short": TINY["recipes"]["short"] | {"learning_rate": -1}},
        diagnostics=TINY["diagnostics"] | {"speed": {"name": "sped"}},
    )
    lines = path.read_text(encoding="utf-8").splitlines()
    report = mistake("validate", path)
    assert "the suite has 5 mistakes:" in report
    for wrong, message in {
        "imag:": "imag: no such field; did you mean 'image'?",
        "fixup-resnet9": "backbones.0: no backbone named 'fixup-resnet9'; did you mean",
        "params:": "perturbations.block-2.params: block-shuffle: block 3 does not divide",
        "learning_rate:": "recipes.short.learning_rate: Input should be greater than 0",
        "name: sped": "diagnostics.speed.name: no diagnostic named 'sped'; did you mean 'speed'?",
    }.items():
        near = report.rpartition(message)[0].rpartition(":")[0].rpartition(":")
        assert message in report
        assert near[0].endswith(str(path))
        here = [number for number, line in enumerate(lines, 1) if wrong in line]
        assert int(near[2]) in here, (wrong, near[2], here)


@pytest.mark.parametrize(
    ("field", "wrong", "expected"),
    [
        ("sources", {"source": TINY["sources"]["source"] | {"dataset": {"name": "glyph"}}},
         "sources.source.dataset.name: no dataset named 'glyph'; did you mean 'glyphs'?"),
        ("perturbations", {"none": {"name": "idenity"}, "block-2": {"name": "identity"}},
         "perturbations.none.name: no perturbation named 'idenity'; did you mean 'identity'?"),
        ("backbones", ["fixup-resnet9"], "no backbone named 'fixup-resnet9'; did you mean"),
        ("initializations", TINY["initializations"] | {"RI-T": {"name": "randm"}},
         "initializations.RI-T.name: no initialization named 'randm'; did you mean 'random'?"),
        ("diagnostics", TINY["diagnostics"] | {"curve": {"name": "learning-curv"}},
         "diagnostics.curve.name: no diagnostic named 'learning-curv'; did you mean"),
        ("sources", {"source": TINY["sources"]["source"] | {
            "dataset": {"name": "glyphs", "params": {"per_class": 0}}}},
         "sources.source.dataset.params.per_class: glyphs: Input should be greater than"),
        ("sources", {"source": TINY["sources"]["source"] | {
            "dataset": {"name": "glyphs", "params": {"per_clas": 4}}}},
         "glyphs has no such parameter; did you mean 'per_class'?"),
        ("sources", {"source": TINY["sources"]["source"] | {
            "dataset": {"name": "glyphs", "params": [4]}}},
         "sources.source.dataset.params: Input should be a mapping, not a list"),
    ],
)  # fmt: skip
def test_a_suite_that_names_a_plugin_or_parameter_wrongly(tmp_path, field, wrong, expected):
    assert expected in mistake("validate", suite_file(tmp_path, **{field: wrong}))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name: [", "is not a YAML file"),
        (b"\xff\xfe\x00", "is not a YAML file"),
        (b"- 1\n", "is not a suite: it has no fields at the top level"),
        (b"", "is not a suite: it has no fields at the top level"),
        (b"name: a\nname: b\n", "duplicate key"),
    ],
)
def test_a_file_that_is_no_suite(tmp_path, content, expected):
    path = tmp_path / "suite.yaml"
    path.write_bytes(content)
    message = mistake("validate", path)
    assert expected in message
    assert str(path) in message


def test_a_suite_that_is_not_there(tmp_path):
    message = mistake("validate", tmp_path / "suite.yaml")
    assert "No such file or directory; give the path of a .yaml file, or a bundled" in message
    assert "no suite named 'quickstrt'; did you mean 'quickstart'?" in mistake("plan", "quickstrt")


@pytest.mark.parametrize(
    "arguments", [("status",), ("report",), ("export", "x.csv"), ("compare",),
                  ("submission", "pack")],
)  # fmt: skip
def test_a_folder_that_is_no_run(tmp_path, arguments):
    verb, more = (arguments, ()) if arguments[0] == "submission" else (arguments[:1], arguments[1:])
    more = (tmp_path,) if verb == ("compare",) else more
    message = mistake(*verb, tmp_path, *more)
    assert f"{tmp_path} is not a run's folder: it has no run.json; give the folder" in message


# --- data, weights and disks ------------------------------------------------------------------

FASHION = SMALL | {
    "targets": {"fashion": {"dataset": {"name": "fashion-mnist"}}},
    "scoring": SMALL["scoring"] | {"chance": {"fashion": 0.1}, "reference": {"fashion": 1.0}},
}
FILES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (None, "no data root was given"),
        ({}, "has no train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte"),
        (FILES | {"train-images-idx3-ubyte": 1000}, "expected 47040016 bytes with sha256 c59f468a"),
        (FILES, "found 47040016 bytes with sha256"),
    ],
    ids=["no root", "missing", "truncated", "wrong content"],
)
def test_a_dataset_whose_files_are_not_right_says_what_and_where_to_get_it(
    tmp_path, sizes, expected
):
    folder = tmp_path / "data" / "fashion-mnist"
    folder.mkdir(parents=True)
    for name, size in (sizes or {}).items():
        with (folder / name).open("wb") as stream:
            stream.truncate(size)
    root = () if sizes is None else ("--data-root", tmp_path / "data")
    message = mistake("run", suite_file(tmp_path, FASHION), "--out", tmp_path / "run", *root)
    assert "target:fashion: " in message
    assert expected in message
    assert "get" in message
    assert "dataset-fashion-mnist" in message


@pytest.fixture(scope="module")
def weight_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    (folder / "garbage.safetensors").write_bytes(b"garbage")
    (folder / "garbage.pth").write_bytes(b"garbage")
    (folder / "text.txt").write_text("garbage")
    torch.save({"code": print}, folder / "code.pth")
    save_file({"conv1.weight": torch.zeros(3)}, folder / "shape.safetensors")
    return folder


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("garbage.safetensors", "cannot be read as weights (it begins as no file of safetensors"),
        ("garbage.pth", "cannot be read as weights (it begins as no file of safetensors"),
        ("code.pth", "cannot be read as weights (beside tensors it holds builtins.print"),
        ("text.txt", "cannot be read as weights (it begins as no file of safetensors"),
        ("shape.safetensors", "does not fit timm/test_resnet (Error(s) in loading state_dict"),
        ("gone.pth", "gone.pth; give the path of an existing file, or a tag"),
    ],
)
def test_weights_that_are_none_are_reported_before_anything_is_trained(
    tmp_path, weight_files, file, expected
):
    message = mistake(
        "run", suite_file(tmp_path, SMALL), "--out", tmp_path / "run", "--jobs", 1,
        "--backbone", "timm/test_resnet", "--weights", weight_files / file,
    )  # fmt: skip
    assert expected in message
    assert file in message
    assert len(message) < 1000 + len(str(weight_files))
    assert artefacts(tmp_path / "store") == []


def test_weights_of_another_network_say_what_does_not_fit(tmp_path, weight_files):
    weights = ("--weights", weight_files / "shape.safetensors")
    out = ("--out", tmp_path / "run", "--jobs", 1)
    message = mistake("run", suite_file(tmp_path, SMALL), *out, *weights)
    file = weight_files / "shape.safetensors"
    assert f"error: fixup-resnet8+shape@{file_digest(file)[:8]}: the weights {file} do" in message
    assert " do not fit the network (missing: " in message
    assert "give weights of the same backbone" in message


@pytest.mark.parametrize("verb", ["run", "prepare"])
def test_weights_of_a_tag_without_a_network_say_to_give_the_file(tmp_path, monkeypatch, verb):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    arguments = ("--backbone", "timm/test_resnet", "--weights", "r160_in1k", "--offline")
    message = mistake(verb, suite_file(tmp_path, SMALL), "--out", tmp_path / "run", *arguments)
    assert "the weights 'r160_in1k' of timm/test_resnet cannot be downloaded" in message
    assert "the network is refused, by --offline or HF_HUB_OFFLINE" in message
    assert "run: hf download timm/test_resnet.r160_in1k model.safetensors; then copy" in message
    assert f"{tmp_path / 'hub'}/models--timm--test_resnet.r160_in1k" in message
    assert "pass the .safetensors or .pth file instead of the tag" in message


def test_a_micro_batch_that_would_change_batch_statistics_is_reported_before_anything_is_trained(
    tmp_path,
):
    arguments = (suite_file(tmp_path, SMALL), "--out", tmp_path / "run", "--jobs", 1)
    batches = ("--backbone", "timm/test_resnet", "--micro-batch")
    message = mistake("run", *arguments, *batches, 4)
    assert (
        "--micro-batch 4 would change the numbers of timm/test_resnet: it normalises by" in message
    )
    assert (
        "the recipe's batch is of 10 images; give a micro-batch of at least 10, or leave" in message
    )
    assert artefacts(tmp_path / "store") == []
    said = cli("run", *arguments, *batches, 10)
    assert said.code == 0, said.err


@pytest.mark.parametrize("option", ["--out", "--store"])
@pytest.mark.parametrize("verb", ["plan", "run", "prepare"])
def test_a_folder_that_cannot_be_written_is_reported(tmp_path, verb, option):
    (tmp_path / "file").write_text("in the way")
    unwritable = (option, tmp_path / "file" / "run")
    message = mistake(verb, suite_file(tmp_path, SMALL), *unwritable)
    assert f"{tmp_path / 'file'} is not a folder, and {option} must be one; name another" in message


# --- plugins that raise -----------------------------------------------------------------------


def test_the_file_of_these_tests_runs_where_nothing_raises(tmp_path):
    said = cli("run", *own_run(tmp_path, "nowhere"))
    assert said.code == 0, said.err
    assert len(artefacts(tmp_path / "store")) == OWN_JOBS
    said = cli("plan", *own_run(tmp_path, "nowhere", "--weights", "own-tag"))
    assert said.code == 0, said.err


@pytest.mark.parametrize(
    ("step", "plugin", "arguments"),
    [
        ("classes", "dataset 'own-data'", ()),
        ("load", "dataset 'own-data', split 'train',", ()),
        ("check", "perturbation 'own-map'", ()),
        ("severity", "perturbation 'own-map'", ()),
        ("checkpoint", "initialization 'own-start'", ()),
        ("cost", "diagnostic 'own-measure'", ()),
        ("weights", "backbone 'own-net'", ("--weights", "own-tag")),
        ("preprocessing", "backbone 'own-net'", ("--weights", "own-tag")),
        ("load_weights", "backbone 'own-net'", ("--weights", "own-tag")),
    ],
)
def test_a_plugin_that_raises_while_planning_is_named(tmp_path, step, plugin, arguments):
    message = mistake("run", *own_run(tmp_path, step, *arguments))
    file = re.escape(str(tmp_path / "own.py"))
    assert re.search(rf"{re.escape(plugin)} failed: RuntimeError: on purpose \(own.py:\d+\); "
                     rf"repair {file}, or leave it out \(TRANSFERBENCH_TRACEBACK=1 shows the "
                     r"traceback\)", message)  # fmt: skip
    assert artefacts(tmp_path / "store") == []


def test_a_family_that_cannot_list_its_members_is_named(tmp_path):
    message = mistake("run", *own_run(tmp_path, "members", "--backbone", "own-family/small"))
    assert (
        "backbone family 'own-family' cannot list its members: RuntimeError: on purpose" in message
    )


@pytest.mark.parametrize(
    ("step", "expected", "finished"),
    [
        ("index", "perturbation 'own-map' failed: RuntimeError: on purpose (own.py:", 19),
        ("each", "perturbation 'own-maps' failed: RuntimeError: on purpose (own.py:", 19),
        ("build", "perturbation 'own-transform' failed: RuntimeError: on purpose (own.py:", 19),
        ("transform", "perturbation 'own-transform' failed: RuntimeError: on purpose", 19),
        ("network", "backbone 'own-net' cannot be built for 2 classes, 1 channel(s), 8 px", 0),
        ("modules", "backbone 'own-net' failed: RuntimeError: on purpose (own.py:", 0),
        ("head", "backbone 'own-net' failed: RuntimeError: on purpose (own.py:", 0),
        ("initialize", "initialization 'own-start' failed: RuntimeError: on purpose (own.py:", 13),
        ("measure", "diagnostic 'own-measure' failed: RuntimeError: on purpose (own.py:", 17),
    ],
)
def test_a_plugin_that_raises_in_a_job_is_named_and_costs_its_jobs_alone(
    tmp_path, step, expected, finished
):
    said = cli("run", *own_run(tmp_path, step))
    assert said.code == 1
    assert "Traceback" not in said.err
    assert f"job(s) did not finish: transferbench status {tmp_path / 'run'}" in said.err
    messages = [row["message"] for row in Run(tmp_path / "run").failed]
    own = [message for message in messages if "which did not finish" not in message]
    assert own
    assert all(expected in message for message in own), own
    assert len(artefacts(tmp_path / "store")) == finished == OWN_JOBS - len(messages)
    assert expected in cli("status", tmp_path / "run").out


def test_a_run_in_which_everything_failed_can_be_looked_at(tmp_path):
    assert cli("run", *own_run(tmp_path, "network")).code == 1
    folder = tmp_path / "run"
    assert cli("status", folder).code == 0
    assert cli("report", folder).code == 0
    assert cli("export", folder, tmp_path / "table.csv").out.startswith("0 rows in ")
    said = cli("compare", folder, folder)
    assert said.out == "the two runs have no measurement in common\n"


def test_a_backbone_that_cannot_be_built_is_named_by_plan(tmp_path):
    message = mistake("plan", *own_run(tmp_path, "network"))
    assert "backbone 'own-net' cannot be built for 2 classes" in message
    assert "RuntimeError: on purpose" in message


def test_a_plugin_that_ends_python_is_named_too(tmp_path):
    message = mistake("run", *own_run(tmp_path, "severity", action="raise SystemExit(0)"))
    assert "perturbation 'own-map' failed: SystemExit: 0 (own.py:" in message


def test_memory_that_ran_out_in_a_plugin_is_reported_as_such(tmp_path):
    said = cli("run", *own_run(tmp_path, "measure", action="raise MemoryError()"))
    assert said.code == 1
    assert {row["status"] for row in Run(tmp_path / "run").failed} == {"oom"}


@pytest.mark.parametrize("step", ["import", "load", "measure"])
def test_the_traceback_of_a_file_of_ones_own_can_be_seen(tmp_path, monkeypatch, step):
    """Where it cannot be loaded, fails while planning, or in a job."""
    arguments = ("run", *own_run(tmp_path, step))
    without = cli(*arguments).err
    assert "TRANSFERBENCH_TRACEBACK=1 shows the traceback" in without
    assert "Traceback" not in without
    monkeypatch.setenv("TRANSFERBENCH_TRACEBACK", "1")
    said = cli(*arguments).err
    assert re.search(r"Traceback \(most recent call last\):\n.*own\.py\", line \d+.*"
                     r"RuntimeError: on purpose\n", said, re.DOTALL)  # fmt: skip


@pytest.mark.parametrize("step", ["import", "hook"])
def test_a_plugin_that_cannot_be_loaded_is_named_once_where_it_is_needed(tmp_path, step):
    message = mistake("run", *own_run(tmp_path, step))
    assert message.count("RuntimeError: on purpose") == 1
    assert re.search(r"unknown names: 1 plugin that may offer it could not be loaded: plugin "
                     r"'\S+own.py': RuntimeError: on purpose \(own.py:\d+\); repair it, or "
                     "leave the file out", message)  # fmt: skip
    assert "no dataset named 'own-data'" in message


@pytest.mark.parametrize("step", ["import", "hook"])
def test_a_broken_plugin_is_one_line_where_it_is_not_needed(tmp_path, monkeypatch, step):
    own_run(tmp_path, step)
    monkeypatch.setenv("TRANSFERBENCH_PLUGINS", str(tmp_path / "own.py"))
    out = ("--out", tmp_path / "run", "--jobs", 1)
    for arguments in (("list",), ("show", "dataset", "digits"), ("validate", "quickstart"),
                      ("run", suite_file(tmp_path, SMALL), *out)):  # fmt: skip
        said = cli(*arguments)
        assert said.code == 0, said.err
        (note,) = [line for line in said.err.splitlines() if line.startswith("note: ")]
        assert "own.py': RuntimeError: on purpose" in note
    assert cli("--help").err == ""


@pytest.mark.parametrize(
    "words",
    [
        ("list",), ("show", "dataset", "digits"), ("validate", "quickstart"),
        ("plan", "quickstart"), ("prepare", "quickstart"), ("run", "quickstart"),
        ("plugin", "check", "digits"), ("submission", "check", "."), ("leaderboard", "show"),
    ],
)  # fmt: skip
def test_a_plugin_file_that_is_not_there_is_a_mistake(words):
    message = mistake(*words, "--plugin", "absent.py")
    assert message == (
        "error: plugin file 'absent.py': there is no such file; check the path, or leave it out\n"
    )


def test_a_plugin_file_of_the_environment_that_is_not_there_stops_what_runs(monkeypatch):
    monkeypatch.setenv("TRANSFERBENCH_PLUGINS", "absent.py")
    assert cli("--help").err == ""
    for words in (("list",), ("show", "dataset", "digits"), ("validate", "quickstart")):
        said = cli(*words)
        assert said.code == 0
        assert "absent.py': there is no such file; check the path, or leave it out" in said.err
    for verb in ("plan", "prepare", "run"):
        assert mistake(verb, "quickstart") == (
            "error: plugin file 'absent.py' of TRANSFERBENCH_PLUGINS: there is no such file; check "
            "the path, or leave it out\n"
        )
