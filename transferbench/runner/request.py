"""From what a user asks for to a plan: the suite as changed, its entries, its decoded data."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transferbench.data.cache import prepare
from transferbench.errors import DataError, SuiteError, TransferbenchError, UnknownNameError
from transferbench.identity import file_digest
from transferbench.plan import DatasetFacts, Entry, Plan, make_plan
from transferbench.plan.external_weights import left_out_arms
from transferbench.registry import Registry, blamed, identity, load_registry
from transferbench.runner.scheduler import done_jobs
from transferbench.specs import BackboneSpec, Weights
from transferbench.store import Store
from transferbench.suite import Grid, InitializationUse, Suite, Use
from transferbench.suite.loading import load_suite

__all__ = [
    "Options",
    "Planned",
    "go_offline",
    "open_registry",
    "plan_run",
    "plugin_variable",
]

PLUGIN_VARIABLE = "TRANSFERBENCH_PLUGINS"
OWN_PRETRAINING = "suite"
"""The value of ``--weights`` that asks for the suite's own pre-training."""


@dataclass(frozen=True)
class Options:
    """What a user asks of a run besides its suite.

    ``initializations``: arms of the suite to keep, or plugins to add as arms.
    ``weights``: ``suite``, or a tag or a file of the backbone's own weights.
    ``changes``: settings of the suite to change, as ``recipes.P-T.epochs=3``.
    ``out``: the run's folder (None: ``runs/SUITE@VERSION``); ``store``: shared between runs and
    suites (None: ``store`` beside the run's folder).
    ``jobs``: how many at once (None: one for each core, or one for the GPU).
    """

    backbones: Sequence[str] = ()
    initializations: Sequence[str] = ()
    weights: str = OWN_PRETRAINING
    changes: Sequence[str] = ()
    seed_count: int | None = None
    out: str | Path | None = None
    store: str | Path | None = None
    data_root: str | Path | None = None
    plugins: Sequence[str | Path] = ()
    device: str = "auto"
    jobs: int | None = None
    time_limit_seconds: float | None = None
    micro_batch: int | None = None
    compile: bool = False


@dataclass(frozen=True)
class Planned:
    """A plan with all that its execution needs.

    ``asked``: what was asked for each entry, to be asked again by a later run in this folder.
    ``notes``: what the user should know and need not act on.
    """

    plan: Plan
    registry: Registry
    options: Options
    changed: tuple[str, ...]
    asked: tuple[tuple[str, str], ...]
    folder: Path
    store: Store
    notes: tuple[str, ...] = ()

    @property
    def suite(self) -> Suite:
        """The suite as it is run."""
        return self.plan.suite

    @cached_property
    def done(self) -> set[str]:
        """The jobs that were in the store when this was first asked."""
        return done_jobs(self.plan.jobs, self.store)


def plan_run(suite: str | Suite, options: Options) -> Planned:
    """Everything that ``suite`` asks of the entries in ``options``; trains nothing.

    Datasets are decoded where they are not yet, since their pixels are part of every id.
    Entries that an earlier run in the same folder finished are part of the plan.
    Raises: ``SuiteError``, ``UnknownNameError``, ``PluginError``, ``DataError``.
    """
    registry = open_registry(options.plugins)
    loaded, changed = _changed_suite(suite, options, registry)
    names = tuple(options.backbones) or loaded.backbones
    asked = tuple((name, options.weights) for name in dict.fromkeys(names))
    entries = [_entry(registry, *one) for one in asked]
    folder = Path(options.out or Path("runs") / _folder_name(loaded, changed))
    store = Store(Path(options.store or folder.parent / "store"))
    store.prepare()
    data_root = None if options.data_root is None else Path(options.data_root)
    facts = dict(_facts(loaded, registry, store.root / "datasets", data_root))
    earlier, notes = _finished_earlier(folder, loaded, registry, store, facts, asked)
    plan = make_plan(loaded, [*(_entry(registry, *one) for one in earlier), *entries],
                     registry, facts)  # fmt: skip
    notes = (*notes, *_left_out(plan, registry))
    return Planned(plan, registry, options, changed, (*earlier, *asked), folder, store, notes)


def plugin_variable() -> str:
    """The loose plugin files that the environment names."""
    return os.environ.get(PLUGIN_VARIABLE, "")


def open_registry(files: Sequence[str | Path]) -> Registry:
    """The plugins that are installed, in ``files`` and in the environment's files."""
    return load_registry(tuple(map(Path, files)), {PLUGIN_VARIABLE: plugin_variable()})


def go_offline() -> None:
    """Keep this process and its workers from looking for weights on the network."""
    os.environ["HF_HUB_OFFLINE"] = "1"


def _left_out(plan: Plan, registry: Registry) -> Iterator[str]:
    """A note on the arms that entries with external weights go without."""
    external = [entry for entry in plan.entries if entry.weights is not None]
    # The arms are the same whichever external weights an entry has.
    for entry in external[:1]:
        arms = left_out_arms(plan.suite, entry.weights, registry)
        if arms:
            names = ", ".join(one.name for one in external)
            named = ", ".join(f"{arm} ({why})" for arm, why in arms.items())
            yield (
                f"{names}: external weights cannot start {named}; these arms are left out, "
                "and claims on them stay undecided"
            )


def _folder_name(suite: Suite, changed: Sequence[str]) -> str:
    # A changed suite has a folder of its own: its numbers are not those of the suite's name.
    return f"{suite.id}+{suite.digest[:8]}" if changed else suite.id


def _changed_suite(
    suite: str | Suite, options: Options, registry: Registry
) -> tuple[Suite, tuple[str, ...]]:
    changes = list(options.changes)
    if options.seed_count is not None:
        changes.append(f"replicates={options.seed_count}")
    if isinstance(suite, Suite):
        if changes:
            raise SuiteError("a suite given as an object is changed in Python, not by --set")
        loaded = suite
    else:
        loaded = load_suite(suite, registry, changes)
    if options.initializations:
        loaded = _with_arms(loaded, options.initializations, registry)
        changes.append(f"initializations={','.join(options.initializations)}")
    return loaded, tuple(changes)


def _with_arms(suite: Suite, wanted: Sequence[str], registry: Registry) -> Suite:
    """``suite`` with the arms of ``wanted`` besides its scored ones, those of plugins added.

    An arm that is added is trained wherever the scored initialization is.
    """
    arms = {suite.scoring.baseline, suite.scoring.initialization}
    known = dict(suite.initializations)
    for name in wanted:
        if name not in known:
            try:
                registry.initialization(name)
            except UnknownNameError as error:
                choices = [*known, *registry.names("initialization")]
                raise UnknownNameError("initialization or arm", name, choices) from error
            recipe = known[suite.scoring.initialization].recipe
            known[name] = InitializationUse(name=name, recipe=recipe)
        arms.add(name)
    kept = {label: use for label, use in known.items() if label in arms}
    added = tuple(label for label in kept if label not in suite.initializations)
    grids = tuple(_with_added(grid, kept, added, suite) for grid in suite.trials)
    return suite.model_copy(update={"initializations": kept, "trials": grids})


def _with_added(grid: Grid, kept: Container[str], added: tuple[str, ...], suite: Suite) -> Grid:
    chosen = grid.initializations
    if chosen is None:
        return grid
    more = added if suite.scoring.initialization in chosen else ()
    labels = (*(label for label in chosen if label in kept), *more)
    return grid.model_copy(update={"initializations": labels})


def _entry(registry: Registry, name: str, weights: str) -> Entry:
    spec, given = registry.resolve_backbone(name)
    params = spec.parse(given)
    described = identity(spec, params)
    if weights == OWN_PRETRAINING:
        return Entry(name, described, spec.license, spec.source)
    found = _weights(spec, params, name, weights)
    with blamed(f"backbone {spec.name!r}"):
        preprocessing = spec.preprocessing(params)
    return Entry(
        f"{name}+{found.tag}", described, found.license, found.origin, found, preprocessing
    )


def _weights(spec: BackboneSpec, params: Any, name: str, given: str) -> Weights:
    if spec.load_weights is None:
        raise SuiteError(f"backbone {name!r} loads no external weights; use --weights suite")
    with blamed(f"backbone {spec.name!r}"):
        offered = {weights.tag: weights for weights in spec.weights(params)}
    if given in offered:
        return offered[given]
    path = Path(given)
    if path.is_file():
        return Weights(
            tag=path.stem, origin=path.name, license="unknown", pretrained_on="unknown",
            sha256=file_digest(path),
        )  # fmt: skip
    raise UnknownNameError(f"weights of {name}", given, offered, "or give a file that exists")


def _facts(
    suite: Suite, registry: Registry, cache: Path, data_root: Path | None
) -> Iterator[tuple[str, DatasetFacts]]:
    """What a plan needs to know of the suite's datasets; every one that is missing is named."""
    missing: list[str] = []
    for label, use in _datasets(suite):
        spec = registry.dataset(use.name)
        try:
            found = prepare(
                spec,
                spec.parse(use.params),
                image_size=suite.image.size,
                channels=suite.image.channels,
                cache=cache,
                data_root=data_root,
            )
        except DataError as error:
            missing.append(f"{label}: {error}")
            continue
        yield label, DatasetFacts(
            found.fingerprint, len(found.classes), found.task, found.metric,
            len(found.splits["train"].labels), len(found.splits["test"].labels),
        )  # fmt: skip
    if missing:
        raise DataError("\n".join(missing))


def _datasets(suite: Suite) -> Iterator[tuple[str, Use]]:
    used = {use.source for use in suite.initializations.values()}
    for label, source in suite.sources.items():
        if label in used:
            yield f"source:{label}", source.dataset
    for label, target in suite.targets.items():
        yield f"target:{label}", target.dataset


def _finished_earlier(
    folder: Path,
    suite: Suite,
    registry: Registry,
    store: Store,
    facts: dict[str, DatasetFacts],
    asked: Sequence[tuple[str, str]],
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """The entries that earlier runs of this very suite finished in ``folder``, and notes."""
    finished: list[tuple[str, str]] = []
    notes: list[str] = []
    for name, weights in _asked_earlier(folder, suite):
        if (name, weights) in asked:
            continue
        try:
            entry = _entry(registry, name, weights)
        except TransferbenchError as error:
            notes.append(f"the earlier entry {name} is left out: {error}")
            continue
        jobs = make_plan(suite, [entry], registry, facts).jobs
        if done_jobs(jobs, store) == set(jobs):
            finished.append((name, weights))
        else:
            notes.append(
                f"the earlier entry {entry.name} is unfinished and left out; run it to go on"
            )
    return tuple(finished), tuple(notes)


def _asked_earlier(folder: Path, suite: Suite) -> list[tuple[str, str]]:
    try:
        earlier = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if earlier["suite_digest"] != suite.digest:
            return []
        return [(str(one["backbone"]), str(one["weights"])) for one in earlier["asked"]]
    except (OSError, ValueError, KeyError, TypeError):
        # A run folder that was never finished, or is not ours to read, holds no entries.
        return []
