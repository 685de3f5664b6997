"""Every command of the command line, as a user would give it."""

import gzip
import json
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from command_line import SMALL, artefacts, cli, command, environment, mistake, suite_file
from tiny_suite import TINY

import transferbench
from transferbench.api import Run
from transferbench.cli.running import duration
from transferbench.registry import load_registry
from transferbench.runner.request import _with_arms
from transferbench.suite.loading import bundled_suites, load_suite

KINDS = ("datasets", "perturbations", "backbones", "initializations", "diagnostics")
JOBS = 1 + 8 + 8 + 8 + 4 + 2
HEAVY = ("torch", "timm", "pandas", "matplotlib", "sklearn", "scipy", "pyarrow")


ODD_TYPE = """
from transferbench import hookimpl
from transferbench.specs import InitializationSpec, Params


class Pattern:
    pass


class Odd(Params):
    model_config = {"arbitrary_types_allowed": True}

    pattern: Pattern


@hookimpl
def transferbench_initializations():
    yield InitializationSpec(name="odd", version=1, summary="s", source="s", license="l",
                             initialize=print, params=Odd)
"""


class Finished:
    """One run of the tiny suite that the tests below look at, and change nothing of."""

    def __init__(self, folder):
        self.suite = suite_file(folder)
        self.folder = folder / "run"
        self.store = folder / "store"
        self.said = cli("run", self.suite, "--out", self.folder, "--jobs", 1, "--device", "cpu")
        self.artefacts = artefacts(self.store)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return Finished(tmp_path_factory.mktemp("finished"))


# --- what there is ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_list_gives_every_plugin_of_a_kind(kind):
    specs = getattr(load_registry(), kind)
    rows = json.loads(cli("list", kind, "--json").out)
    assert [row["name"] for row in rows] == list(specs)
    assert {row["kind"] + "s" for row in rows} == {kind}
    assert json.loads(cli("list", kind.removesuffix("s"), "--json").out) == rows
    assert all(row["summary"] == specs[row["name"]].summary for row in rows)
    assert {row["origin"] for row in rows} == {f"transferbench {transferbench.__version__}"}
    table = cli("list", kind)
    assert table.code == 0
    assert all(re.search(rf"\b{re.escape(name)}\b", table.out) for name in specs)


def test_list_of_an_unknown_kind_suggests_the_nearest():
    run = cli("list", "datasetz")
    assert run.code == 2
    assert "no kind of plugin named 'datasetz'; did you mean 'dataset'?" in run.err


def test_list_without_a_kind_gives_all_of_them():
    rows = json.loads(cli("list", "--json").out)
    assert len(rows) == sum(len(getattr(load_registry(), kind)) for kind in KINDS)


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("dataset", "digits", ["multi-class", "accuracy", "test, train", "license"]),
        (
            "perturbation",
            "block-shuffle",
            ["integer, at least 1", "required", "block in pixels"],
        ),
        ("backbone", "timm/resnet18", ["model", "text", "Wightman"]),
        ("backbones", "timm", ["model", "Wightman"]),
        (
            "initialization",
            "pretrained",
            ["integer, at least 0 or null", "none", "body"],
        ),
        ("diagnostic", "agreement", ["pair", "logits", "from"]),
        ("diagnostic", "cka", ["exact or minibatch", "number", "fraction of the median distance"]),
        ("diagnostic", "robustness", ["list of PerturbationSeries", "\nPerturbationSeries:\n"]),
        ("dataset", "image-folder", ["needs root", "yes", "such as ^([^_]+)_; files"]),
    ],
)
def test_show_says_what_a_plugin_is_and_takes(kind, name, words):
    said = cli("show", kind, name)
    assert said.code == 0
    assert all(word in said.out for word in words), said.out


@pytest.mark.parametrize("kind", [kind.removesuffix("s") for kind in KINDS])
def test_show_has_no_word_of_python(kind):
    for name in getattr(load_registry(), f"{kind}s"):
        said = cli("show", kind, name)
        assert said.code == 0
        assert not re.search(r"Annotated|Optional|Literal|<function|FieldInfo|`", said.out)


def test_a_type_of_a_plugins_own_is_no_obstacle(tmp_path):
    (tmp_path / "odd.py").write_text(ODD_TYPE)
    said = cli("show", "initialization", "odd", "--plugin", tmp_path / "odd.py")
    assert re.search(r"^pattern +anything +required$", said.out, re.MULTILINE), said


def test_a_bundled_suite_is_shown_with_its_path_and_is_a_suite(tmp_path):
    path = bundled_suites()["quickstart@3"]
    said = cli("show", "suite", "quickstart")
    assert said.out == f"# {path}\n{path.read_text()}"
    (tmp_path / "mine.yaml").write_text(said.out)
    assert cli("validate", tmp_path / "mine.yaml").out == cli("validate", "quickstart").out
    assert "did you mean 'quickstart'?" in mistake("show", "suite", "quickstrt")
    assert "no kind of plugin named 'suit'; did you mean 'suite'?" in mistake("show", "suit", "a")


def test_suites_are_listed_beside_the_plugins():
    listed = cli("suites").out
    assert cli("list", "suites").out == listed
    assert cli("list", "suites", "--json").out == cli("suites", "--json").out
    assert "transferbench show suite quickstart@3.0 prints one" in listed
    assert "transferbench suites lists the suites" in cli("list").out


def test_suites_validate_and_schema_agree_on_what_comes_along():
    listed = json.loads(cli("suites", "--json").out)
    table = cli("suites").out
    assert {row["suite"].partition("@")[0] for row in listed} >= {"quickstart", "characters"}
    for row in listed:
        assert row["suite"] in table
        assert cli("validate", row["suite"]).out.startswith(f"{row['suite']} is valid\ndigest: ")
    schema = json.loads(cli("schema").out)
    assert set(schema["required"]) <= set(TINY) <= set(schema["properties"])


def test_doctor_tells_versions_and_ends_with_1_where_a_plugin_is_broken(tmp_path, monkeypatch):
    said = cli("doctor")
    assert said.code == 0
    assert re.search(r"^torch +2\.", said.out, re.MULTILINE)
    assert re.search(r"^plugins +\d\d", said.out, re.MULTILINE)
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name\n")
    monkeypatch.setenv("TRANSFERBENCH_PLUGINS", str(broken))
    said = cli("doctor")
    assert said.code == 1
    assert "broken.py" in said.err
    assert "nothing_of_this_name" in said.err


def test_version_and_help():
    assert cli("--version").out == f"transferbench {transferbench.__version__}\n"
    text = cli("--help").out
    for name in (
        "plan", "prepare", "run", "status", "report", "compare", "export", "list", "show",
        "suites", "validate", "schema", "doctor", "submission", "leaderboard",
    ):  # fmt: skip
        assert re.search(rf"^  {name} ", text, re.MULTILINE)
        assert cli(name, "--help").code == 0


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("list",), ("schema",)])
def test_what_needs_no_training_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom transferbench.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True,
        env=environment(),
    )  # fmt: skip
    assert done.stdout
    assert done.stderr == "[]\n"


# --- plan, prepare, run -----------------------------------------------------------------------


def test_plan_runs_nothing_and_tells_jobs_hours_and_memory(tmp_path):
    options = (suite_file(tmp_path), "--out", tmp_path / "run", "--jobs", 1, "--device", "cpu")
    said = cli("plan", *options)
    assert said.code == 0, said.err
    for kind, jobs in {"pretrain": 1, "trial": 8, "all": JOBS}.items():
        line = rf"^{kind} +{jobs} +0 +(\S+ (s|min)|under a second)$"
        assert re.search(line, said.out, re.MULTILINE)
    left = r"(about \S+ (s|min)|under a second) for what is left, 1 job\(s\) at once on cpu"
    assert re.search(left, said.out)
    assert re.search(r"on cpu, [\d,]+ MiB a job$", said.out, re.MULTILINE)
    assert str(tmp_path / "run") in said.out
    assert artefacts(tmp_path / "store") == []
    assert not (tmp_path / "run").exists()


def test_plan_knows_what_is_cached(finished):
    plan = json.loads(cli("plan", finished.suite, "--out", finished.folder, "--json").out)
    assert plan["jobs"] == plan["cached"] == JOBS
    assert plan["kinds"]["trial"] == {"jobs": 8, "cached": 8, "wall_seconds": 0}
    assert plan["overlap"] == {"handwriting": "no"}
    assert plan["wall_seconds"] == 0
    assert plan["memory_bytes"] > 2**20


def test_plan_says_which_claims_have_no_pilot_and_a_run_of_two_replicates_gives_none(finished):
    plan = json.loads(cli("plan", finished.suite, "--out", finished.folder, "--json").out)
    (claim,) = plan["claims"]
    assert (claim["claim"], claim["n"], claim["has_pilot"]) == ("faster", 2, False)
    said = cli("plan", finished.suite, "--out", finished.folder)
    assert "no pilot" not in said.out
    assert re.search(r"^claim +family +n\n-+ +-+ +-+\nfaster +faster +2$", said.out, re.MULTILINE)
    said = cli("pilot", finished.folder)
    assert "# faster: no pilot of fixup-resnet8: fewer than 3 replicates" in said.out
    (row,) = json.loads(cli("pilot", finished.folder, "--json").out)
    assert (row["claim"], row["pilot"], row["needed"]) == ("faster", None, None)


def test_plan_tells_claims_with_a_pilot_from_those_without(tmp_path):
    pilot = {"draw": "before", "n": 5, "effect": 0.1, "deviation": 0.01}
    claims = {"faster": TINY["claims"]["faster"], "known": TINY["claims"]["faster"]}
    claims["known"] = claims["known"] | {"pilot": pilot}
    said = cli("plan", suite_file(tmp_path, claims=claims), "--out", tmp_path / "run")
    assert re.search(r"^claim +family +n +half-width +power +n for 90%$", said.out, re.MULTILINE)
    assert re.search(r"^faster +faster +2 +no pilot", said.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "about 0 s"), (0.01, "under a second"), (0.99, "under a second"), (1.2, "about 1 s"),
     (200, "about 3 min"), (7200, "about 2.0 h")],
)  # fmt: skip
def test_a_time_is_told_as_exactly_as_it_is_known(seconds, text):
    assert duration(seconds, "about ") == text


def test_plan_warns_of_more_jobs_at_once_than_memory_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("transferbench.runner.cost.free_bytes", lambda _: 3 * 2**30)
    options = (suite_file(tmp_path), "--out", tmp_path / "run", "--device", "cpu")
    said = cli("plan", *options, "--jobs", 200)
    assert f"note: {JOBS} job(s) at once take about " in said.err  # there are no more
    assert re.search(r"and 3\.2 GB are free on cpu, so that the system may end some: run at most "
                     r"\d+ at once \(--jobs \d+\)$", said.err, re.MULTILINE)  # fmt: skip
    assert "at once take" not in cli("plan", *options, "--jobs", 1).err
    (warning,) = json.loads(cli("plan", *options, "--jobs", 200, "--json").out)["warnings"]
    assert warning in said.err


def test_an_unused_plugin_file_is_told(tmp_path):
    plugin = tmp_path / "my_net.py"
    assert cli("plugin", "new", "my-net", "--kind", "backbone", "--out", tmp_path).code == 0
    options = ("plan", suite_file(tmp_path, SMALL), "--out", tmp_path / "run", "--plugin", plugin)
    note = (
        "note: no job of this run uses my_net.py, which offers backbone 'my-net': name it in the "
        "suite, or a backbone with --backbone\n"
    )
    assert note in cli(*options).err
    assert "no job of this run" not in cli(*options, "--backbone", "my-net").err


def test_prepare_decodes_the_data_and_a_run_needs_nothing_else(tmp_path):
    path = suite_file(tmp_path, SMALL)
    out = ("--out", tmp_path / "run")
    said = cli("prepare", path, *out)
    last = f"the data of tiny@1.0 are ready in {tmp_path / 'store' / 'datasets'}"
    assert said.out.splitlines()[-1] == last
    decoded = {file: file.stat().st_mtime_ns for file in (tmp_path / "store").rglob("*.npy")}
    assert len(decoded) == 2 * 2 * 4
    assert artefacts(tmp_path / "store") == []
    assert cli("run", path, *out, "--jobs", 1).code == 0
    again = {file: file.stat().st_mtime_ns for file in (tmp_path / "store").rglob("*.npy")}
    assert again == decoded


def test_run_tells_claims_board_and_report(finished):
    said = finished.said
    assert said.code == 0, said.err
    assert re.search(
        r"^faster +faster +(reproduced|contradicted|undecided) ", said.out, re.MULTILINE
    )
    assert re.search(r"^families: 1 (reproduced|contradicted|undecided)$", said.out, re.MULTILINE)
    assert re.search(r"^ +1 +a +fixup-resnet8 ", said.out, re.MULTILINE)
    assert said.out.endswith(f"the report is {finished.folder / 'report.html'}\n")
    assert f"{JOBS} jobs: 0 already done, {JOBS} to run" in said.err
    assert "done P-T of fixup-resnet8 on handwriting, block-2, replicate 1 in" in said.err
    assert len(finished.artefacts) == JOBS


def test_a_second_run_with_json_is_for_programs(finished):
    said = cli("run", finished.suite, "--out", finished.folder, "--json")
    summary = json.loads(said.out)
    assert summary["jobs"] == JOBS
    assert (summary["failed"], summary["changed"], summary["entries"]) == (
        [],
        [],
        ["fixup-resnet8"],
    )
    (claim,) = summary["claims"]["fixup-resnet8"]
    assert claim["claim"] == "faster"
    (family,) = summary["families"]["fixup-resnet8"]
    assert (family["name"], family["verdicts"]) == ("faster", {"faster": claim["verdict"]})
    assert summary["controls"] == {"fixup-resnet8": {"passed": 0, "failed": 0, "underpowered": 0}}
    assert f"{JOBS} already done, 0 to run" in said.err


def test_a_changed_suite_is_marked_has_its_own_folder_and_a_board_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = suite_file(tmp_path, SMALL)
    said = cli("run", path, "--set", "recipes.short.epochs=1", "--jobs", 1)
    assert said.code == 0, said.err
    assert re.search(r"^tiny-changed@1 ", said.out, re.MULTILINE)
    assert re.search(r"^ +1 +a +fixup-resnet8 ", said.out, re.MULTILINE)
    assert "the suite was changed (recipes.short.epochs=1)" in said.out
    assert "its rows cannot be submitted" in said.out
    (folder,) = (tmp_path / "runs").glob("tiny*")
    assert re.fullmatch(r"tiny@1\.0\+[0-9a-f]{8}", folder.name)
    assert Run(folder).described["changed"] == ["recipes.short.epochs=1"]
    assert "recipes.short.epochs=1" in (folder / "report.html").read_text(encoding="utf-8")
    assert "recipes.short.epochs=1" in mistake("submission", "pack", folder)


def test_an_initialization_is_added_as_an_arm(tmp_path):
    out = ("--out", tmp_path / "run", "--jobs", 1)
    path = suite_file(tmp_path, SMALL)
    said = cli("run", path, *out, "--initialization", "same-random", "--json")
    assert json.loads(said.out)["changed"] == ["initializations=same-random"]
    arms = Run(tmp_path / "run").measurements.initialization
    assert set(arms) == {"P-T", "RI-T", "same-random"}


def test_an_added_arm_starts_and_is_trained_as_the_scored_one():
    registry = load_registry()
    suite = load_suite("neyshabur2020", registry)
    scored = suite.initializations[suite.scoring.initialization]
    sources = {f"my-{label}": source for label, source in suite.sources.items()}
    uses = {label: use.model_copy(update={"source": f"my-{use.source}"})
            for label, use in suite.initializations.items()}  # fmt: skip
    suite = suite.model_copy(update={"sources": sources, "initializations": uses})
    added = _with_arms(suite, ["mean-var"], registry).initializations["mean-var"]
    assert scored.recipes
    assert (added.recipe, added.recipes) == (scored.recipe, scored.recipes)
    assert added.source == f"my-{scored.source}"


def test_an_added_arm_is_trained_wherever_the_scored_one_is(tmp_path):
    trials = [{"initializations": ["P-T", "RI-T"]}, {"initializations": ["RI-T"]}]
    suite = suite_file(tmp_path, TINY, trials=trials)
    arms = ("--initialization", "same-random", "--initialization", "P-T")
    cost = json.loads(cli("plan", suite, "--out", tmp_path / "run", *arms, "--json").out)
    assert cost["kinds"]["trial"]["jobs"] == 8 + 4


def test_seed_count_limits_the_replicates(tmp_path):
    out = ("--out", tmp_path / "run", "--jobs", 1)
    suite = SMALL | {"replicates": 3, "trials": [{"replicates": 4}]}
    said = cli("run", suite_file(tmp_path, suite), *out, "--seed-count", 1, "--json")
    assert json.loads(said.out)["changed"] == ["replicates=1", "trials.0.replicates=1"]
    assert set(Run(tmp_path / "run").measurements.replicate) == {0}


def test_a_backbone_from_a_file_and_one_of_a_family_are_compared(tmp_path):
    names = ("--backbone", "fixup-resnet8", "--backbone", "timm/test_resnet")
    said = cli("run", suite_file(tmp_path, SMALL), "--out", tmp_path / "run", "--jobs", 1, *names)
    assert said.code == 0, said.err
    assert "timm/test_resnet " in said.out
    assert Run(tmp_path / "run").entries == ["fixup-resnet8", "timm/test_resnet"]


@pytest.mark.slow
def test_a_time_limit_holds_for_one_job_at_once_too(tmp_path):
    path = suite_file(tmp_path, SMALL, trials=[{"initializations": ["RI-T"]}], diagnostics={},
                      claims={})  # fmt: skip
    limits = ("--jobs", 1, "--time-limit", 0.001)
    said = cli("run", path, "--out", tmp_path / "run", *limits)
    assert said.code == 1
    assert "took longer than 0.001 s" in said.err


# --- after a run ------------------------------------------------------------------------------


def test_status_counts_jobs_and_tells_them_one_by_one_with_json(finished):
    said = cli("status", finished.folder)
    assert said.code == 0
    assert re.search(r"^trial +ok +8$", said.out, re.MULTILINE)
    rows = json.loads(cli("status", finished.folder, "--json").out)
    assert len(rows) == JOBS
    assert {row["status"] for row in rows} == {"ok"}
    # Rounded to milliseconds, a small diagnosis may have taken none.
    assert all(row["wall_seconds"] > 0 for row in rows if row["kind"] == "trial")
    assert all(row["wall_seconds"] is not None for row in rows)


def test_report_writes_the_page_again(finished):
    page = finished.folder / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert cli("report", finished.folder).out == f"the report is {page}\n"
    assert page.read_bytes() == before


def test_compare_pairs_what_two_runs_have_in_common(finished, tmp_path):
    other = tmp_path / "other"
    changed = ("--set", "recipes.short.learning_rate=0.03", "--store", finished.store)
    assert cli("run", finished.suite, "--out", other, "--jobs", 1, *changed).code == 0
    rows = json.loads(cli("compare", finished.folder, other, "--json").out)
    cell = {"metric": "train_loss", "perturbation": "none", "initialization": "RI-T"}
    (row,) = [row for row in rows if cell.items() <= row.items()]
    means = [table.loc[(table[list(cell)] == pd.Series(cell)).all(axis=1), "value"].mean()
             for table in (Run(finished.folder).measurements, Run(other).measurements)]  # fmt: skip
    assert [row["a"], row["b"]] == pytest.approx(means)
    assert row["a - b"] == pytest.approx(means[0] - means[1])
    assert row["n"] == 2
    text = cli("compare", finished.folder, other).out
    assert "a - b" in text
    assert f"  {means[0]:.4g}  " in text


def test_compare_says_where_nothing_is_in_common(finished, tmp_path):
    other = tmp_path / "run"
    cli("run", suite_file(tmp_path, SMALL), "--out", other, "--backbone", "timm/test_resnet",
        "--jobs", 1)  # fmt: skip
    said = cli("compare", finished.folder, other)
    assert (said.code, said.out) == (0, "the two runs have no measurement in common\n")


@pytest.mark.parametrize(
    ("ending", "read"),
    [("csv", pd.read_csv), ("parquet", pd.read_parquet), ("json", pd.read_json)],
)
def test_export_writes_one_tidy_table(finished, tmp_path, ending, read):
    to = tmp_path / "new" / f"table.{ending}"
    table = Run(finished.folder).measurements
    assert cli("export", finished.folder, to).out == f"{len(table)} rows in {to}\n"
    written = read(to)
    assert list(written.columns) == list(table.columns)
    assert written["value"].to_numpy() == pytest.approx(table["value"].to_numpy(), nan_ok=True)


# --- submissions and boards -------------------------------------------------------------------


@pytest.fixture
def packed(finished, tmp_path):
    said = cli("submission", "pack", finished.folder, "--out", tmp_path / "submissions",
               "--submitter", "A. Reader", "--overlap", "handwriting=no")  # fmt: skip
    assert said.code == 0, said.err
    return type(finished.folder)(said.out.strip())


def test_a_packed_submission_passes_its_check_and_stands_on_the_board(finished, packed, tmp_path):
    said = cli("submission", "check", packed)
    assert said.code == 0, said.out
    report = json.loads(cli("submission", "check", packed, "--json").out)
    assert report["ok"]
    assert report["trust"] == "reported"  # no suite that is known, and its labels are not pinned
    suites = tmp_path / "suites"
    suites.mkdir()
    shutil.copy(finished.suite, suites / "tiny@1.0.yaml")
    pins = cli("leaderboard", "labels", finished.suite, "--store", finished.store)
    (suites / "TEST_LABELS").write_text(pins.out)
    report = json.loads(cli("submission", "check", packed, "--json").out)
    assert report["trust"] == "recomputed"
    submissions, boards = tmp_path / "submissions", tmp_path / "boards"
    written = cli("leaderboard", "build", submissions, "--out", boards).out.split()
    endings = {path.rpartition(".")[2] for path in written}
    assert endings == {"md", "html", "csv", "tex", "json"}
    assert all((boards / path).is_file() for path in written)
    board = cli("leaderboard", "show", "--submissions", submissions).out
    assert "tiny@1 " in board
    assert "fixup-resnet8" in board
    assert cli("leaderboard", "show", "tiny@1", "--submissions", submissions).out == board


def test_a_submission_that_was_changed_fails_its_check(packed):
    records = packed / "records.jsonl.gz"
    text = gzip.decompress(records.read_bytes())
    records.chmod(0o644)
    records.write_bytes(gzip.compress(text.replace(b'"value":0.', b'"value":0.9', 1)))
    said = cli("submission", "check", packed)
    assert said.code == 1
    assert "records.jsonl" in said.out
    assert not json.loads(cli("submission", "check", packed, "--json").out)["ok"]


@pytest.mark.usefixtures("packed")
def test_publishing_tells_the_users_mistakes(finished, tmp_path):
    pack = ("submission", "pack", finished.folder, "--out", tmp_path / "submissions")
    message = mistake(*pack, "--overlap", "handwriting=perhaps")
    assert "the answer must be yes, no or unknown" in message
    assert "fixup-resnet8" in mistake(*pack, "--entry", "fixup-resnet9")
    boards = ("leaderboard", "show", "tiny@2", "--submissions", tmp_path / "submissions")
    assert "no board named 'tiny@2'; did you mean 'tiny@1'?" in mistake(*boards)


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "at least 1 character"), ("Ada\tL", "a line break or another character"),
     ("a" * 301, "at most 300 characters")],
)  # fmt: skip
def test_a_text_that_no_board_can_show_is_refused_before_anything_is_done(
    finished, tmp_path, text, why
):
    pack = ("submission", "pack", finished.folder, "--out", tmp_path / "submissions")
    for option in ("--submitter", "--license"):
        assert re.search(f"{option}: .*{why}", mistake(*pack, option, text))
    reproduce = ("submission", "reproduce", tmp_path / "no-submission", "--by", text)
    assert re.search(f"--by: .*{why}", mistake(*reproduce))
    assert not (tmp_path / "submissions").exists()


def test_the_installed_command_is_this_one():
    done = subprocess.run(
        [*command("suites"), "--json"], capture_output=True, text=True, check=False,
        env=environment(),
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads(cli("suites", "--json").out)
