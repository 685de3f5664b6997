"""Numbers of one version of a plugin and of two codes: told everywhere, never mixed unasked."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import contextmanager
from html import unescape
from importlib.metadata import version
from pathlib import Path

import pytest
from command_line import SMALL, artefacts, cli, mistake, suite_file
from damage import flip
from test_registry import distribution  # noqa: F401  # a fixture
from tiny_suite import TINY

import transferbench
from transferbench.errors import PluginError
from transferbench.registry import Code, codes_in, load_registry
from transferbench.registry.code import code_of_file
from transferbench.runner.other_code import report_code
from transferbench.runner.run import run_plan
from transferbench.runner.schedule import SilentWatcher
from transferbench.store import Store
from transferbench.store.documents import write_document
from transferbench.suite import Suite

VERSION = version("transferbench")
MY_DATA = Path(__file__).parent / "loose_plugins" / "my_data.py"

WIDE = """
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from torch import nn

from transferbench import hookimpl
from transferbench.specs import BackboneSpec

WIDTH = 8


def build(params, num_classes, in_chans, image_size):
    from blocks import activation

    body = nn.Sequential(nn.Conv2d(in_chans, WIDTH, 3), activation(), nn.AdaptiveAvgPool2d(2))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(4 * WIDTH, num_classes))


@hookimpl
def transferbench_backbones():
    yield BackboneSpec(
        name="wide", version=1, summary="One convolution.", source="here", license="CC0-1.0",
        build=build, modules=lambda net: {"stem": ["0"], "head": ["2"]}, head=lambda net: net[2],
    )
"""


@contextmanager
def imports_undone():
    """Each folder's plugin imports the module of its own folder."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("blocks", None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one replicate with WIDTH = 8."""
    folder = tmp_path_factory.mktemp("wide")
    (folder / "wide.py").write_text(WIDE)
    (folder / "blocks.py").write_text("from torch import nn\n\nactivation = nn.ReLU\n")
    with imports_undone():
        said = run(folder)
    assert said.code == 0, said
    return folder


def artefacts_of(folder):
    store = Store(folder / "store")
    return [store.artefact(path.name) for path in artefacts(store.root)]


def arguments(folder, *more):
    return (suite_file(folder, SMALL), "--out", folder / "run", "--plugin", folder / "wide.py",
            "--backbone", "wide", "--device", "cpu", *more)  # fmt: skip


def run(folder, *more, call=cli):
    return call("run", *arguments(folder, "--jobs", 1, *more))


def test_a_job_keeps_the_code_of_every_plugin_that_ran_in_it(finished):
    codes = {}
    for artefact in artefacts_of(finished):
        codes.setdefault(artefact.kind, set()).update(codes_in(artefact.facts).items())
    plugins = {kind: {plugin for plugin, _ in own} for kind, own in codes.items()}
    assert plugins == {
        "pretrain": {"backbone 'wide'", "dataset 'glyphs'"},
        "trial": {"backbone 'wide'", "dataset 'digits'", "initialization 'pretrained'",
                  "initialization 'random'"},
        "diagnosis": {"backbone 'wide'", "dataset 'digits'", "diagnostic 'speed'"},
    }  # fmt: skip
    own = code_of_file(finished / "wide.py")
    for plugin, code in set.union(*codes.values()):
        assert code.loose == (plugin == "backbone 'wide'")
        assert code.origin == ("wide.py" if code.loose else f"transferbench {VERSION}")
        assert code.sha256 == own.sha256 or not code.loose


@pytest.fixture
def folder(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    described = copy / "run" / "run.json"
    described.write_text(described.read_text().replace(str(finished), str(copy)))
    with imports_undone():
        yield copy


def edit(folder, file="wide.py", old="WIDTH = 8", new="WIDTH = 64"):
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def short(folder):
    """The file's code as messages show it."""
    return f"wide.py {code_of_file(folder / 'wide.py').sha256[:8]}"


def test_the_code_of_an_edited_file_is_told_by_plan_run_and_status(folder):
    then = short(folder)
    edit(folder)
    line = (
        "5 finished job(s) were computed by other code of backbone 'wide' (version 1) under the "
        f"same version: by {then}, now {short(folder)}; they are used as they are: if the change "
        "moves numbers, raise the version, and they are computed again"
    )
    status = cli("status", folder / "run")
    assert line in status.out.splitlines()
    rows = json.loads(cli("status", folder / "run", "--json").out)
    assert [row["other_code"] for row in rows] == 5 * [[f"{then}, now {short(folder)}"]]
    planned = cli("plan", *arguments(folder))
    assert f"note: {line}\n" in planned.err
    assert line in json.loads(cli("plan", *arguments(folder), "--json").out)["notes"]
    said = run(folder, "--json")
    assert f"note: {line}\n" in said.err
    assert json.loads(said.out)["code"] == [line]
    assert line in unescape((folder / "run" / "report.html").read_text())


def test_what_is_unchanged_is_no_news(folder):
    assert "other code" not in cli("status", folder / "run").out
    assert "other code" not in cli("plan", *arguments(folder)).err


def test_a_second_replicate_by_other_code_is_refused_until_it_is_accepted(folder):
    then = short(folder)
    edit(folder, new="WIDTH = 8\n# the same numbers")
    more = ("--seed-count", 2, "--store", folder / "store")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    mixture = (
        "the trials or a diagnosis of one entry mix numbers of different code of backbone 'wide' "
        "(version 1): "
        f"5 job(s) by {then}, 4 job(s) by {short(folder)}; one of these jobs is P-T of wide on "
        "handwriting, none, replicate 0"
    )
    error = run(folder, *more, call=mistake)
    assert error.endswith(
        f"error: {mixture}; nothing was computed: raise the plugin's version if the change moves "
        "numbers, or accept the mixture with --accept-code (accept_code=True)\n"
    )
    assert before == {path: path.read_bytes() for path in before}
    note = f"note: {mixture}; a run refuses the mixture without --accept-code\n"
    assert note in cli("plan", *arguments(folder, *more)).err

    assert run(folder, *more, "--accept-code").code == 0
    accepted = mixture.replace(":", ", as accepted:", 1)
    assert accepted in cli("status", folder / "run").out
    assert accepted in unescape((folder / "run" / "report.html").read_text())
    code = json.loads((folder / "run" / "run.json").read_text())["code"]
    assert len(code["accepted"]["backbone 'wide'"]) == 2
    environment = json.loads((folder / "run" / "environment.json").read_text())
    assert {then, short(folder)} <= set(environment["jobs"]["code"])

    assert run(folder, *more).code == 0  # it was accepted before
    edit(folder, new="WIDTH = 16")
    again = run(folder, "--seed-count", 3, "--store", folder / "store", call=mistake)
    assert "nothing was computed" in again


def planned(folder, **options):
    return transferbench.plan_run(
        str(folder / "suite.yaml"), out=folder / "run", plugins=[folder / "wide.py"],
        backbones=["wide"], device="cpu", **options,
    )  # fmt: skip


def test_a_bumped_version_is_computed_anew(folder):
    edit(folder)
    edit(folder, old="version=1", new="version=2")
    plan = planned(folder)
    assert not plan.done
    assert not plan.code.notes


def test_a_module_that_the_file_imports_is_part_of_its_code(folder):
    assert not planned(folder).code.notes
    edit(folder, "blocks.py", "nn.ReLU", "nn.Tanh")
    [note] = planned(folder).code.notes
    assert note.startswith("5 finished job(s) were computed by other code of backbone 'wide'")
    with pytest.raises(PluginError, match="nothing was computed"):
        transferbench.run(
            str(folder / "suite.yaml"), out=folder / "run", plugins=[folder / "wide.py"],
            backbones=["wide"], seed_count=2, store=folder / "store", progress=False,
        )  # fmt: skip
    assert not planned(folder, seed_count=2, store=folder / "store", accept_code=True).code.refused


def test_artefacts_without_the_fact_stay_valid(folder):
    store = Store(folder / "store")
    for artefact in artefacts_of(folder):
        manifest = store.manifest(artefact.job)
        facts = {name: value for name, value in manifest.facts.items() if name != "code"}
        path = folder / "store" / "jobs" / artefact.job[:2] / artefact.job / "manifest.json"
        write_document(path, manifest.model_copy(update={"facts": facts}))
    edit(folder)
    plan = planned(folder, seed_count=2, store=folder / "store")
    assert len(plan.done) == 5
    assert plan.code.notes == ()


def test_a_run_folder_of_before_has_a_status(folder):
    described = json.loads((folder / "run" / "run.json").read_text())
    del described["code"]
    (folder / "run" / "run.json").write_text(json.dumps(described))
    edit(folder)
    assert "other code" not in cli("status", folder / "run").out


def test_status_compares_with_the_run_where_a_file_is_gone(folder):
    edit(folder, new="WIDTH = 8\n# the same numbers")
    run(folder)
    (folder / "wide.py").unlink()
    assert "5 finished job(s) were computed by other code" in cli("status", folder / "run").out


def test_a_worker_refuses_a_file_that_changed_since_the_plan(folder):
    plan = planned(folder, seed_count=2, store=folder / "store", jobs=1)
    edit(folder, "blocks.py", "nn.ReLU", "nn.Tanh")
    with pytest.raises(PluginError, match=r"wide.py', or a module that it imports, has changed"):
        run_plan(plan, SilentWatcher())


LATE = """
from transferbench import hookimpl
from transferbench.specs import DiagnosticSpec
from transferbench.records import Measurement


def measure(subjects, params, context):
    from pathlib import Path

    if EDITS:
        Path(__file__).with_name("level.py").write_text("LEVEL = 3")
    from level import LEVEL

    yield Measurement(metric="level", value=LEVEL, unit="1", n=1)


@hookimpl
def transferbench_diagnostics():
    yield DiagnosticSpec(
        name="late", version=1, summary="A number.", source="here", license="CC0-1.0",
        measure=measure, subjects="one",
    )
"""


@pytest.mark.parametrize("edits", [False, True])
def test_a_module_that_is_imported_after_an_edit_fails_its_job(folder, monkeypatch, edits):
    (folder / "late.py").write_text(f"EDITS = {edits}\n{LATE}")
    (folder / "level.py").write_text("LEVEL = 2")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "level", raising=False)
    said = run(folder, "--plugin", folder / "late.py", "--set", "diagnostics.late={name: late}")
    levels = [
        a.facts["code"] for a in artefacts_of(folder) if "diagnostic 'late'" in a.facts["code"]
    ]
    assert (said.code, bool(levels)) == ((1, False) if edits else (0, True)), said
    if edits:
        failed = cli("status", folder / "run").out
        assert "plugin file 'late.py', or a module that it imports, has changed since" in failed


@pytest.mark.slow
def test_a_worker_process_notes_the_same_code(folder):
    codes, diagnosis = codes_and_diagnosis(folder)
    shutil.rmtree(diagnosis)
    assert cli("run", *arguments(folder, "--jobs", 2)).code == 0
    assert codes_and_diagnosis(folder) == (codes, diagnosis)


def test_verify_notes_the_same_code_and_leaves_what_other_code_computed(folder):
    codes, diagnosis = codes_and_diagnosis(folder)
    flip(diagnosis / "measurements.json")
    assert [repair.outcome for repair in verify(folder).repairs] == ["repaired"]
    assert codes_and_diagnosis(folder) == (codes, diagnosis)

    then = short(folder)
    edit(folder)
    flip(diagnosis / "measurements.json")
    [repair] = verify(folder).repairs
    assert repair.outcome == "not recomputed"
    assert repair.detail.startswith(f"it was computed with {then} (here {short(folder)}), so that")


def codes_and_diagnosis(folder):
    """The fact of every job, and the folder of a diagnosis."""
    codes = {artefact.job: artefact.facts["code"] for artefact in artefacts_of(folder)}
    job = next(each.job for each in artefacts_of(folder) if each.kind == "diagnosis")
    return codes, folder / "store" / "jobs" / job[:2] / job


def verify(folder):
    return transferbench.verify(
        folder / "store", plugins=[folder / "wide.py"], device="cpu", jobs=1, progress=False
    )


# --- what is mixed ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several(finished):
    """A plan of two replicates with pairs and a perturbation, of which nothing was computed."""
    suite = suite_file(finished / "several", TINY)
    with imports_undone():
        return transferbench.plan_run(
            suite, out=finished / "several", store=finished / "store", backbones=["wide"],
            plugins=[finished / "wide.py"], device="cpu",
        )  # fmt: skip


def by_others(plan, plugin, finished, *, loose=True, earlier=(), accept=False):
    """The report where jobs with these titles were computed by other code of a plugin."""
    code = Code(origin="old.py" if loose else "old 1.0", sha256="0" * 64, loose=loose)
    codes = {name: {plugin: code} for name, job in plan.plan.jobs.items() if finished(job.title)}
    assert codes
    return report_code(plan.plan, codes, plan.registry, dict(earlier), accept=accept)


FINISHED = {
    "one replicate of a cell": (lambda title: title.startswith("RI-T of wide on handwriting, none")
                                and title.endswith("0"), True),
    "the pre-training": (lambda title: title.startswith("pre-train"), True),
    "a diagnosis of trials": (lambda title: title.startswith("speed of RI-T"), True),
    "all": (lambda title: True, False),  # a title
}  # fmt: skip


@pytest.mark.parametrize("case", FINISHED)
def test_what_stands_together_is_of_one_code(case, several):
    finished, mixed = FINISHED[case]
    report = by_others(several, "backbone 'wide'", finished)
    assert len(report.differences) == 1
    assert bool(report.refused) == mixed


@pytest.mark.parametrize("diagnostics", [{}, TINY["diagnostics"]])
def test_arms_that_are_compared_are_of_one_code(several, diagnostics):
    suite = Suite.model_validate(TINY | {"diagnostics": diagnostics, "claims": {}})
    plan = transferbench.plan_run(
        suite, out=several.folder, store=several.store.root, backbones=["wide"],
        plugins=several.options.plugins, device="cpu",
    )  # fmt: skip
    [mixture] = by_others(plan, "backbone 'wide'", lambda title: title.startswith("RI-T")).refused
    assert mixture.jobs[several.code.plugins[0].code]


def test_installed_code_is_told_and_not_refused(several):
    report = by_others(several, "perturbation 'block-shuffle'", FINISHED_BLOCK, loose=False)
    [difference], [mixture] = report.differences, report.mixtures
    assert str(difference).endswith(
        f"by old 1.0 00000000, now {difference.now}; they are used as they are"
    )
    assert difference.now.origin == f"transferbench {VERSION}"
    assert "mix numbers of different code of perturbation 'block-shuffle'" in str(mixture)
    assert not report.refused
    report.refuse_mixtures()


def FINISHED_BLOCK(title):  # noqa: N802  # a case
    return title == "RI-T of wide on handwriting, block-2, replicate 0"


def test_what_was_accepted_is_these_codes_and_no_others(several):
    finished, _ = FINISHED["one replicate of a cell"]
    now = several.code.plugins[0].sha256
    accepted = by_others(several, "backbone 'wide'", finished, accept=True).accepted
    assert accepted == {"backbone 'wide'": ("0" * 64, now) if now > "0" * 64 else (now, "0" * 64)}
    assert not by_others(several, "backbone 'wide'", finished, earlier=accepted.items()).refused
    others = {"backbone 'wide'": ("1" * 64, now)}.items()
    assert by_others(several, "backbone 'wide'", finished, earlier=others).refused


def test_a_distribution_whose_record_changed_is_told_and_runs_on(tmp_path, distribution):  # noqa: F811  # a fixture
    folder = distribution("nets", None, module="wide_nets")
    info = folder / "nets-1.0.dist-info"
    (folder / "wide_nets").mkdir()
    source = WIDE.replace("activation()", "nn.ReLU()").replace("from blocks import activation", "")
    (folder / "wide_nets" / "__init__.py").write_text(source)

    def installed(digest):
        (info / "RECORD").write_text(f"wide_nets/__init__.py,sha256={digest},9\n")
        return load_registry().code("backbone", "wide")

    def of_the_run(command, *more):
        return cli(command, suite_file(tmp_path, SMALL), "--out", tmp_path / "run", "--backbone",
                   "wide", "--device", "cpu", *more)  # fmt: skip

    then = installed("first")
    assert of_the_run("run", "--jobs", 1).code == 0
    now = installed("second")
    line = (
        "5 finished job(s) were computed by other code of backbone 'wide' (version 1) under the "
        f"same version: by {then}, now {now}; they are used as they are\n"
    )
    assert (then.origin, now.origin) == ("nets 1.0", "nets 1.0")
    assert line in of_the_run("plan").err
    assert line in cli("status", tmp_path / "run").out
    said = of_the_run("run", "--jobs", 1, "--seed-count", 2)
    assert said.code == 0
    assert "mix numbers of different code of backbone 'wide' (version 1): 5 job" in said.err


# --- data sets ----------------------------------------------------------------------------------


def test_a_data_set_of_an_edited_file_is_decoded_again(tmp_path):
    def fingerprint():
        """Of the data that the arms train on."""
        [trial] = {job.payload["dataset"]["fingerprint"] for job in plan().plan.of_kind("trial")}
        return trial

    def plan():
        return transferbench.plan_run(
            suite, out=tmp_path / "run", plugins=[tmp_path / "my_data.py"], device="cpu"
        )

    shutil.copy(MY_DATA, tmp_path / "my_data.py")
    target = SMALL["targets"]["handwriting"] | {"dataset": {"name": "my-data"}}
    suite = suite_file(tmp_path, SMALL, targets={"handwriting": target})
    before = fingerprint()
    edit(tmp_path, "my_data.py", "import numpy", "# a comment\nimport numpy")
    assert fingerprint() == before
    edit(tmp_path, "my_data.py", "integers(128", "integers(64")
    assert fingerprint() != before
    assert plan().code.notes == ()
