"""The request of a run: the suite as changed, its entries and those of earlier runs."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transferbench.errors import SuiteError, TransferbenchError, UnknownNameError
from transferbench.identity import file_digest
from transferbench.plan import Entry
from transferbench.registry import Registry, blamed, identity, parse_params
from transferbench.runner.earlier import EarlierRun, earlier_run
from transferbench.runner.options import SUITE_WEIGHTS, Options
from transferbench.specs import BackboneSpec, Weights
from transferbench.suite import Grid, InitializationUse, Suite
from transferbench.suite.coverage import coverage_notes
from transferbench.suite.loading import load_suite, refuse_mistakes

__all__ = ["Request", "RequestedEntry", "make_request"]


class RequestedEntry(NamedTuple):
    """An entry with the names that it was requested by, and the distribution of its backbone."""

    entry: Entry
    backbone: str
    weights: str
    origin: str


class Request(NamedTuple):
    """The suite and the entries of a run, and its folder.

    ``earlier``: the other entries of earlier runs in the same folder, finished or not.
    ``superseded``: a run of another suite in the same folder. ``notes``: on what is left out.
    """

    suite: Suite
    changed: tuple[str, ...]
    entries: list[RequestedEntry]
    earlier: list[RequestedEntry]
    notes: list[str]
    folder: Path
    superseded: EarlierRun | None


def make_request(suite: str | Suite, options: Options, registry: Registry) -> Request:
    """What ``options`` request of ``suite``.

    Raises: ``SuiteError``, ``UnknownNameError``, ``PluginError``.
    """
    loaded, changed, untrained = _changed_suite(suite, options, registry)
    backbones = dict.fromkeys(options.backbones or loaded.backbones)
    if not backbones:
        raise SuiteError(f"{loaded.id}: backbones is empty; name some there or with --backbone")
    entries = [_entry(name, options.weights, registry) for name in backbones]
    # A changed suite has a folder of its own: its numbers are not those of the suite's name.
    name = f"{loaded.id}+{loaded.digest[:8]}" if changed else loaded.id
    folder = Path(options.out or Path("runs") / name)
    before = earlier_run(folder)
    if before is None or before.digest == loaded.digest:
        earlier, notes = _earlier_entries(before, registry, entries)
        return Request(loaded, changed, entries, earlier, [*untrained, *notes], folder, None)
    superseded = before if before.has_results else None
    notes = [_superseded(before)] if superseded else []
    return Request(loaded, changed, entries, [], [*untrained, *notes], folder, superseded)


def _superseded(before: EarlierRun) -> str:
    held = (
        f"a run of another suite, {before.described.suite_id} with digest {before.digest[:8]}"
        if before.described
        else "a run whose run.json cannot be read"
    )
    return (
        f"{before.folder} holds {held}; its files move to {before.aside} when this run begins, and "
        "jobs that both have are not computed again"
    )


def _changed_suite(
    suite: str | Suite, options: Options, registry: Registry
) -> tuple[Suite, tuple[str, ...], list[str]]:
    """The suite with its changes, and notes on what is not trained."""
    changes = list(options.changes)
    if options.seed_count is not None:
        changes.append(f"replicates={options.seed_count}")
    if isinstance(suite, Suite):
        if changes:
            raise SuiteError("a suite given as an object is changed in Python, not by --set")
        refuse_mistakes(suite, registry)
        loaded = suite
    else:
        loaded = load_suite(suite, registry, changes)
    notes = coverage_notes(loaded, registry)
    if options.initializations:
        loaded = _with_arms(loaded, options.initializations, registry)
        changes.append(f"initializations={','.join(options.initializations)}")
    return loaded, tuple(changes), notes


def _with_arms(suite: Suite, names: Sequence[str], registry: Registry) -> Suite:
    """``suite`` with its scored arms and those of ``names``, which may be plugins to add.

    An arm that is added is trained wherever the scored initialization is.
    """
    table = dict(suite.initializations)
    for name in names:
        if name not in table:
            try:
                spec = registry.initialization(name)
            except UnknownNameError as error:
                choices = [*table, *registry.names("initialization")]
                raise UnknownNameError("initialization or arm", name, choices) from error
            parse_params(spec, {}, origin=f"--initialization {name}")
            recipe = table[suite.scoring.initialization].recipe
            table[name] = InitializationUse(name=name, recipe=recipe)
    arms = {suite.scoring.baseline, suite.scoring.initialization, *names}
    uses = {label: use for label, use in table.items() if label in arms}
    added = tuple(label for label in uses if label not in suite.initializations)
    grids = tuple(_with_added(grid, uses, added, suite) for grid in suite.trials)
    return suite.model_copy(update={"initializations": uses, "trials": grids})


def _with_added(grid: Grid, arms: Container[str], added: tuple[str, ...], suite: Suite) -> Grid:
    chosen = grid.initializations
    if chosen is None:
        return grid
    more = added if suite.scoring.initialization in chosen else ()
    labels = (*(label for label in chosen if label in arms), *more)
    return grid.model_copy(update={"initializations": labels})


def _entry(name: str, weights: str, registry: Registry) -> RequestedEntry:
    spec, values = registry.resolve_backbone(name)
    params = spec.parse(values)
    backbone = identity(spec, params)
    if weights == SUITE_WEIGHTS:
        entry = Entry(name, backbone, spec.license, spec.source)
    else:
        external = _external_weights(spec, params, name, weights)
        with blamed(f"backbone {spec.name!r}"):
            preprocessing = spec.preprocessing(params)
        label = f"{name}+{external.tag}"
        entry = Entry(label, backbone, external.license, external.origin, external, preprocessing)
    return RequestedEntry(entry, name, weights, registry.origin("backbone", spec.name))


def _external_weights(spec: BackboneSpec, params: Any, name: str, tag_or_file: str) -> Weights:
    if spec.load_weights is None:
        raise SuiteError(f"backbone {name!r} loads no external weights; use --weights suite")
    with blamed(f"backbone {spec.name!r}"):
        tagged = {weights.tag: weights for weights in spec.weights(params)}
    if tag_or_file in tagged:
        return tagged[tag_or_file]
    path = Path(tag_or_file)
    if path.is_file():
        return Weights(
            tag=path.stem, origin=path.name, license="unknown", pretrained_on="unknown",
            sha256=file_digest(path),
        )  # fmt: skip
    raise UnknownNameError(f"weights of {name}", tag_or_file, tagged, "or give a file that exists")


def _earlier_entries(
    before: EarlierRun | None, registry: Registry, requested: Sequence[RequestedEntry]
) -> tuple[list[RequestedEntry], list[str]]:
    """The other entries that earlier runs of this very suite requested, and notes."""
    again = {(entry.backbone, entry.weights) for entry in requested}
    entries, notes = [], []
    for name, weights in before.asked if before else ():
        if (name, weights) not in again:
            try:
                entries.append(_entry(name, weights, registry))
            except TransferbenchError as error:
                notes.append(f"the earlier entry {name} is left out: {error}")
    return entries, notes
