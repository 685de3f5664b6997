"""The request of a run: the suite as changed, its entries and those of earlier runs."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from transferbench.errors import SuiteError, UnknownNameError
from transferbench.registry import Registry, parse_params
from transferbench.runner.earlier import EarlierRun, earlier_run
from transferbench.runner.entries import (
    RequestedEntry,
    as_recorded,
    backbones_of,
    described_entries,
    other_entries,
    recorded_entries,
    requested_entries,
)
from transferbench.runner.options import Options
from transferbench.suite import Grid, InitializationUse, Suite
from transferbench.suite.coverage import coverage_notes
from transferbench.suite.loading import load_suite, refuse_mistakes

__all__ = ["Request", "make_request"]


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
    texts = options.weights_texts
    backbones = options.backbones or backbones_of(texts, registry) or loaded.backbones
    if not backbones:
        raise SuiteError(f"{loaded.id}: backbones is empty; name some there or with --backbone")
    requested, twins = requested_entries(tuple(dict.fromkeys(backbones)), texts, registry)
    # A changed suite has a folder of its own: its numbers are not those of the suite's name.
    name = f"{loaded.id}+{loaded.digest[:8]}" if changed else loaded.id
    folder = Path(options.out or Path("runs") / name)
    before = earlier_run(folder)
    other_suite = before is not None and before.digest != loaded.digest
    recorded = [*([] if other_suite else described_entries(before)),
                *recorded_entries(folder, loaded.digest)]  # fmt: skip
    entries = [as_recorded(entry, recorded, registry) for entry in requested]
    earlier, notes = other_entries(recorded, entries, registry)
    notes = [*untrained, *notes, *twins, *_renamed(requested, entries)]
    superseded = before if before and other_suite and before.has_results else None
    if superseded:
        notes.append(_superseded(superseded))
    return Request(loaded, changed, entries, earlier, notes, folder, superseded)


def _renamed(
    requested: Sequence[RequestedEntry], entries: Sequence[RequestedEntry]
) -> Iterator[str]:
    """Notes on ``entries`` that are in the run already, with weights of another name."""
    for entry, own in zip(entries, requested, strict=True):
        if entry is not own:
            source, name = entry.entry.source, entry.entry.name
            yield f"{own.weights} has the bytes of {source}: it is the entry {name} of this run"


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
        if options.seed_count is not None and (rows := _rows_of_their_own(loaded)):
            changes += [f"{row}={options.seed_count}" for row in rows]
            loaded = load_suite(suite, registry, changes)
    notes = coverage_notes(loaded, registry)
    if options.initializations:
        loaded = _with_arms(loaded, options.initializations, registry)
        changes.append(f"initializations={','.join(options.initializations)}")
    return loaded, tuple(changes), notes


def _rows_of_their_own(suite: Suite) -> list[str]:
    """The fields of the numbers of replicates that rows of trials have of their own."""
    return [f"trials.{i}.replicates" for i, grid in enumerate(suite.trials) if grid.replicates]


def _with_arms(suite: Suite, names: Sequence[str], registry: Registry) -> Suite:
    """``suite`` with its scored arms and those of ``names``, which may be plugins to add.

    An arm that is added is trained wherever the scored initialization is, from its source and with
    its recipes.
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
            scored = table[suite.scoring.initialization]
            table[name] = InitializationUse(
                name=name, recipe=scored.recipe, recipes=scored.recipes, source=scored.source
            )
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
