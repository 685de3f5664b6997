"""The types of the public names. mypy checks this file; nothing runs it."""

from pathlib import Path
from typing import Any, assert_type

import pandas as pd

import transferbench
from transferbench import Run, hookimpl
from transferbench.claims import Verdict
from transferbench.conformance import CheckResult
from transferbench.plan import Job
from transferbench.runner.planning import Planned
from transferbench.specs import DatasetSpec, PerturbationSpec
from transferbench.suite import Suite


def options_are_keyword_arguments(suite: Suite) -> None:
    finished = transferbench.run(
        "quickstart",
        backbones=["timm/resnet10t"],
        initializations=("pretrained",),
        weights="suite",
        changes=["recipes.P-T.epochs=3"],
        seed_count=2,
        out="runs/x",
        store=Path("store"),
        data_root=None,
        plugins=["mine.py", Path("other.py")],
        device="cpu",
        jobs=2,
        time_limit_seconds=60.0,
        micro_batch=32,
        compile=False,
        progress=False,
    )
    assert_type(finished, Run)
    assert_type(transferbench.run(suite), Run)
    assert_type(transferbench.plan_run("quickstart", jobs=1), Planned)
    assert_type(transferbench.plan_run("quickstart").plan.jobs, dict[str, Job])


# Each ignored error is what is tested: mypy reports an ignore that is not needed.
def mistakes_in_options_are_type_errors() -> None:
    transferbench.run()  # type: ignore[call-arg]
    transferbench.run(1)  # type: ignore[arg-type]
    transferbench.run("quickstart", backbone=["timm/resnet10t"])  # type: ignore[call-arg]
    transferbench.run("quickstart", ["timm/resnet10t"])  # type: ignore[call-arg]
    transferbench.run("quickstart", seed_count="2")  # type: ignore[arg-type]
    transferbench.plan_run("quickstart", progress=False)  # type: ignore[call-arg]
    transferbench.compare("a", "b", by="entry")  # type: ignore[call-arg]
    transferbench.export("a", to=1)  # type: ignore[arg-type]
    transferbench.pack("a", "b", entries=1)  # type: ignore[arg-type]


def a_run_has_tables_verdicts_and_files() -> None:
    finished = Run("runs/x")
    assert_type(finished.measurements, pd.DataFrame)
    assert_type(finished.table(), pd.DataFrame)
    assert_type(finished.statuses, pd.DataFrame)
    assert_type(finished.claims, dict[str, list[Verdict]])
    assert_type(finished.failed, list[dict[str, Any]])
    assert_type(finished.entries, list[str])
    assert_type(finished.report(), Path)
    assert_type(finished.board(), str)
    assert_type(finished.suite, Suite)


def finished_runs_are_compared_exported_and_packed() -> None:
    assert_type(transferbench.compare("a", Path("b")), list[dict[str, Any]])
    assert_type(transferbench.export("a", "table.csv"), int)
    assert_type(transferbench.pack("a", "submissions", entries=["net"]), list[Path])
    assert_type(transferbench.compare_runs("a", "b"), list[dict[str, Any]])
    assert_type(transferbench.export_run("a", "table.csv"), int)
    assert_type(transferbench.pack_run("a", "submissions"), list[Path])


@hookimpl
def transferbench_perturbations() -> list[PerturbationSpec]:
    return []


def hooks_and_checks_keep_their_types(spec: DatasetSpec) -> None:
    assert_type(transferbench_perturbations(), list[PerturbationSpec])
    assert_type(spec.name, str)
    assert_type(transferbench.check_plugin(spec), list[CheckResult])
