"""A plugin that changes the process for everybody: refused by its name, and no other arm moves."""

import pytest
from command_line import artefacts, cli, mistake
from own_plugin import own_file, own_run

from transferbench.api import Run
from transferbench.conformance import check_plugin
from transferbench.registry import load_registry
from transferbench.registry.discovery import SPECS

PATCH = "import torch.nn.functional as F; F.cross_entropy = F.nll_loss"
PATCHED = "torch.nn.functional.cross_entropy was replaced"
ISSUE = {
    "import torch; torch.nn.Linear.forward = lambda self, x: x[:, : self.out_features]":
        "torch.nn.modules.linear.Linear.forward was replaced",
    PATCH: PATCHED,
    "import torch; torch.set_flush_denormal(True)": "flushing of denormal numbers went from False",
    "import torch; torch.set_default_dtype(torch.float64)": "torch.get_default_dtype() went from",
    "import torch; torch.set_num_threads(3)": "torch.get_num_threads() went from 1 to 3",
    "import torch; torch.manual_seed(0)": "the global generator of torch was moved",
    "import os; os.environ['OMP_NUM_THREADS'] = '5'": "os.environ['OMP_NUM_THREADS'] was set or",
    "import warnings; warnings.simplefilter('ignore')": "warnings.filters were changed",
}  # fmt: skip
"""The polluters that were reported, and two of their kind."""

PLACES = {
    "classes": "dataset", "load": "dataset", "check": "perturbation", "severity": "perturbation",
    "index": "perturbation", "each": "perturbation", "build": "perturbation",
    "transform": "perturbation", "network": "backbone", "modules": "backbone", "head": "backbone",
    "forward": "backbone", "members": "backbone", "weights": "backbone",
    "preprocessing": "backbone", "initialize": "initialization", "checkpoint": "initialization",
    "measure": "diagnostic", "cost": "diagnostic",
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def check_messages(folder, moment, action):
    """What the conformance kit says of the plugins of one kind."""
    registry = load_registry([own_file(folder, moment, action)])
    assert "own.py" not in str(registry.problems)
    offered = registry.offered_by(str(folder / "own.py"))
    kind = SPECS[PLACES[moment]]
    return [result.message for spec in offered if isinstance(spec, kind)
            for result in check_plugin(spec) if result.status == "failed"]  # fmt: skip


@pytest.mark.parametrize(("number", "moment"), list(enumerate(PLACES)))
def test_the_check_of_a_plugin_names_what_each_call_changed(tmp_path, number, moment):
    # A polluter in turn for each place: all of them in every place would take minutes.
    action, text = list(ISSUE.items())[number % len(ISSUE)]
    if "manual_seed" in action and PLACES[moment] == "backbone":
        pytest.skip("a builder of networks draws from the generator, and a check says who seeds it")
    messages = check_messages(tmp_path, moment, action)
    assert any(text in message for message in messages), messages


@pytest.mark.parametrize("action", ISSUE)
def test_the_check_of_a_file_that_changes_the_process_as_it_is_loaded_fails(tmp_path, action):
    said = cli("plugin", "check", own_file(tmp_path, "import", action))
    assert said.code == 1
    assert f"own.py': it changed what everybody shares: {ISSUE[action]}" in said.out


def test_the_check_of_a_file_that_changes_the_process_in_a_hook_fails(tmp_path):
    said = cli("plugin", "check", own_file(tmp_path, "hook", PATCH), "--kind", "dataset")
    assert said.code == 1
    assert f"own.py': it changed what everybody shares: {PATCHED}" in said.out


@pytest.mark.parametrize(
    ("number", "moment"), list(enumerate(["load", "severity", "checkpoint", "cost"]))
)
def test_a_plugin_that_changes_the_process_while_planning_stops_the_run(tmp_path, number, moment):
    action, text = list(ISSUE.items())[number]
    message = mistake("run", *own_run(tmp_path, moment, action=action))
    kind = PLACES[moment]
    assert f"{kind} 'own-" in message
    assert f" changed what everybody shares: {text}" in message
    assert artefacts(tmp_path / "store") == []


SMALLER = {"perturbations": {"none": {"name": "identity"}, "own": {"name": "own-transform"}}}


def run_smaller(folder, moment, action="pass", *more):
    folder.mkdir()
    suite, *options = own_run(folder, moment, action=action)
    perturbations = ("--set", f"perturbations={SMALLER['perturbations']}")
    return cli("run", suite, *options, *perturbations, *more)


def contents(store):
    return {path.name: {file.name: file.read_bytes() for file in path.iterdir()
                        if file.name != "manifest.json"} for path in artefacts(store)}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    said = run_smaller(folder, "nowhere")
    assert said.code == 0, said.err
    return contents(folder / "store")


@pytest.mark.parametrize(
    ("moment", "culprit"),
    [
        ("transform", "perturbation 'own-transform'"),
        ("initialize", "initialization 'own-start'"),
        ("measure", "diagnostic 'own-measure'"),
    ],
)
def test_a_plugin_that_changes_the_process_in_a_job_moves_no_other(
    tmp_path, undisturbed, moment, culprit
):
    said = run_smaller(tmp_path / "run", moment, PATCH)
    assert said.code == 1
    failed = [row["message"] for row in Run(tmp_path / "run" / "run").failed]
    own = [message for message in failed if "which did not finish" not in message]
    assert own
    for message in own:
        assert message.startswith(f"{culprit} changed what everybody shares: {PATCHED}"), message
    finished = contents(tmp_path / "run" / "store")
    assert len(finished) + len(failed) == len(undisturbed)
    assert finished == {job: undisturbed[job] for job in finished}


IN_A_DIAGNOSIS = "import inspect\nif '_diagnose' in {frame.function for frame in inspect.stack(0)}:"
PAIRS = "pairs: [{a: P-T, b: RI-T, replicates: same}]"
OURS = ("--set", f"diagnostics={{similar: {{name: cka, {PAIRS}}}}}", "--set", "claims={}")


@pytest.mark.parametrize(
    ("action", "more"), [(PATCH, ()), (f"{IN_A_DIAGNOSIS} {PATCH}", OURS)], ids=["trial", "ours"]
)
def test_the_code_of_a_network_that_changes_the_process_is_named(tmp_path, action, more):
    said = run_smaller(tmp_path / "run", "forward", action, *more)
    assert said.code == 1
    (message,) = {row["message"] for row in Run(tmp_path / "run" / "run").failed
                  if "which did not finish" not in row["message"]}  # fmt: skip
    assert message.startswith("backbone 'own-net' changed what everybody shares: torch.nn")
