"""The notes and warnings of a board."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from transferbench.errors import TransferbenchError, UnknownNameError
from transferbench.leaderboard.scores import compared_arms
from transferbench.leaderboard.table import Row
from transferbench.registry import Registry
from transferbench.specs import InitializationSpec
from transferbench.suite import BoardColumn, InitializationUse, Scoring, Suite
from transferbench.suite.columns import columns_of
from transferbench.suite.preregistration import Registration

__all__ = ["REPRODUCED_WITHIN", "flags_of", "installed_initialization", "notes_of"]

ROUNDING = 1e-12
"""Rounding error of a score of 0."""

REPRODUCED_WITHIN = 0.01
"""Largest difference of scores at which another submitter's run reproduces an entry."""

INTERVALS = (
    "Intervals: 95%, Student-t over the n replicates{paired}, wider where one arm varies most,"
    " where no range is known, and next to the end of a range. They cover the target replicates"
    " given P: P is one pre-trained network shared by all replicates of an entry, so what another"
    " pre-training run would change is not in them."
)
OVER_NETWORKS = (
    "Intervals: 95%, Student-t, wider where one arm varies most, where no range is known, and next"
    " to the end of a range. Over source networks, each with its replicates, they cover what"
    " another pre-training run would change; over replicates given P, of an entry with external"
    " weights, they do not, since all replicates start from one network{paired}."
)
FIXED_IMAGES = (
    "Test images: intervals and ranks are of the suite's fixed test images, and do not cover others"
    " of the same dataset. With the variance between images that the entries of quickstart@1 and"
    " characters@2 have on their 1,000, an interval over 10 replicates covers what other images"
    " would give in 87 to 93% of differences of two entries and in 82% of scores, instead of 95%."
)
RANKS = (
    "Ranks: two entries are separated where their scores, paired by replicate, differ at the 5%"
    " level after Holm's correction over all pairs; entries that share a tie letter are not."
)
RANKS_OF_ARMS = (
    "Ranks: among the initializations of one entry. Two are separated where their scores{others},"
    " paired by replicate, differ at the 5% level after Holm's correction over all pairs of the"
    " entry; those that share a tie letter are not."
)
SHARE = (
    "{title}: (S - {baseline}) / ({arm} - {baseline}) of the mean {metric} over the replicates, S"
    " the row's, with Fieller's 95% interval (1954); ranks by it are those by {metric}. None is"
    " given where the gain of {arm} is not separated from 0, since such a ratio has no bounds, or"
    " is a loss."
)
NEEDS = "Needs: what a network starts from besides the backbone's own random draw."
CLAIMS = (
    "Claims: claims of the paper (families) reproduced/contradicted/undecided, each judged by 95%"
    " intervals; a family is reproduced where all its claims are, contradicted where one is."
    " Adjusted: the same by p-values after Holm's correction over the families of the entry, at 5%;"
    " submissions of earlier versions have none."
)
CONTROLS = (
    "Controls: passed/failed/underpowered. A control within a margin passes by two one-sided tests"
    " at 2.5% (its 95% interval lies inside), fails where the interval lies outside, and is"
    " underpowered where it does neither. An entry whose control fails is marked."
)
TRUST = (
    "Trust: reported (the submitter's word), recomputed (every test metric follows from the"
    " predictions that were handed in, and the labels are those of the dataset),"
    " spot-checked (another than the submitter trained some of its trials again, by"
    " `transferbench submission reproduce`, and got their metrics), reproduced (another named"
    " submitter's own run of the entry, spot-checked too, has the same score within"
    f" {REPRODUCED_WITHIN}, and no predictions that are equal bit for bit)."
)
ORIGINS = (
    "Values: recomputed (from the predictions), derived (from other recorded values, such as the"
    " history of a training, which are the submitter's word), or reported. A number that stands"
    " under derived and reported is as certain as what it follows from."
)
OVERLAP = (
    "Overlap of the targets with the pre-training: yes, no or unknown; unknown is not clean. With"
    " the suite's own sources it is computed, from the images (pixel by pixel) and the groups; what"
    " external weights were trained on is the submitter's word."
)
ONCE = (
    "An entry stands once: its submission for the latest suite MINOR, of several the one that was"
    " on the board first, of one day the first by id. The others are listed as superseded. An"
    " {ranked} that lacks a score is never ranked."
)


def notes_of(
    suite: Suite, severe: str | None, registry: Registry, registration: Registration | None = None
) -> Iterator[str]:
    """How to read the numbers of a suite's board."""
    scoring = suite.scoring
    of_arms = scoring.ranks == "initializations"
    scored = "the row's initialization" if of_arms else scoring.initialization
    yield (
        f"Score: for each replicate the mean over {', '.join(scoring.chance)} of (value - chance) /"
        f" (reference - chance), where value is {scoring.metric} of {scored} under"
        f" {scoring.perturbation}. {_frozen(scoring)}."
    )
    intervals = OVER_NETWORKS if suite.networks > 1 else INTERVALS
    yield intervals.format(paired="" if of_arms else "; gains are paired by replicate")
    yield FIXED_IMAGES
    columns = columns_of(suite)
    yield RANKS_OF_ARMS.format(others=_other_ranks(columns)) if of_arms else RANKS
    yield from _described(suite, columns)
    if of_arms:
        yield NEEDS
    if severe is not None:
        yield f"{severe} is the most severe perturbation of the suite's main family."
    if _equal_tuning(suite):
        yield f"Tuning budgets are equal: {_tuning(suite)}."
    if registration is not None:
        yield (
            f"Preregistered on {registration.date} with digest {registration.digest[:12]}: claims,"
            " thresholds, margins, replicates and seeds were fixed before the first result."
        )
    yield from (TRUST, ORIGINS) if of_arms else (CLAIMS, TRUST, ORIGINS, OVERLAP)
    if any(claim.control for claim in suite.claims.values()):
        yield CONTROLS
    yield ONCE.format(ranked="initialization" if of_arms else "entry")
    yield from _shared_data(suite, registry)
    if of_arms:
        yield from _described_arms(suite, registry)


def _frozen(scoring: Scoring) -> str:
    from_data = [target for target, level in scoring.chance.items() if level == "data"]
    if not from_data:
        return "Chance and reference are frozen in the suite"
    return (
        "References are frozen in the suite; chance is the metric of the best constant prediction "
        f"on the test images of {', '.join(from_data)}"
    )


def _shared_data(suite: Suite, registry: Registry) -> Iterator[str]:
    """A line on each installed dataset that is published with images in two splits."""
    uses = [source.dataset for source in suite.sources.values()]
    uses += [target.dataset for target in suite.targets.values()]
    lines = set()
    for use in uses:
        with suppress(TransferbenchError):  # it is not installed here
            spec = registry.dataset(use.name)
            if not spec.accepts(use.params):
                continue
            reason = spec.with_params(spec.parse(use.params)).shared_between_splits
            lines |= {(use.name, reason)} if reason else set()
    for name, reason in sorted(lines):
        yield f"Dataset {name} is published with images or groups in two splits: {reason}."


def _other_ranks(columns: Sequence[BoardColumn]) -> str:
    ranks = [f"for the {c.title} their {c.metric}" for c in columns if c.of == "rank"]
    return f" ({', '.join(ranks)})" if ranks else ""


def _described(suite: Suite, columns: Sequence[BoardColumn]) -> Iterator[str]:
    """A line on each measurement that the suite shows."""
    arms = {"arm": suite.scoring.initialization, "baseline": suite.scoring.baseline}
    for column in columns:
        title = f"{column.title[:1].upper()}{column.title[1:]}"
        if column.under == "clean" and column.of == "share":
            yield SHARE.format(title=title, metric=column.metric, **arms)
        elif column.under == "clean" and column.of != "rank":
            yield f"{title}: {column.help}."


def _described_arms(suite: Suite, registry: Registry) -> Iterator[str]:
    """A line on each compared arm: its plugin, parameters and summary."""
    for label in compared_arms(suite):
        use = suite.initializations[label]
        spec = installed_initialization(use, registry)
        params = ", ".join(f"{name}={value}" for name, value in use.params.items())
        text = f"{label}: {use.name}{f' ({params})' if params else ''}"
        yield f"{text}. {spec.summary}." if spec else f"{text}."


def installed_initialization(
    use: InitializationUse, registry: Registry
) -> InitializationSpec | None:
    """The initialization of an arm; None where its plugin is not installed."""
    try:
        return registry.initialization(use.name)
    except UnknownNameError:
        return None


def flags_of(suite: Suite, rows: Sequence[Row]) -> Iterator[str]:
    """Warnings about unequal tuning and arms that did not learn."""
    of_arms = suite.scoring.ranks == "initializations"
    if not _equal_tuning(suite):
        favoured = (
            "Ranks favour the initializations that were tuned more."
            if of_arms
            else "Gains favour the arm that was tuned more."
        )
        yield f"Unequal tuning budgets: {_tuning(suite)}. {favoured}"
    # The other numbers of arms that are not above chance do not compare.
    untrained = [
        f"{row.cells['initialization'][0]} of {row.cells['entry'][0]}"
        for row in rows
        if of_arms and _at_chance(row.cells["score"])
    ]
    if untrained:
        yield f"Not above chance: {', '.join(untrained)}. Such networks did not learn."


def _at_chance(score: Sequence[Any]) -> bool:
    """Whether an interval of scores reaches 0; equal replicates have a value alone."""
    value, low = score[:2]
    lowest = value if low is None else low
    return isinstance(lowest, float) and lowest <= ROUNDING


def _equal_tuning(suite: Suite) -> bool:
    return len({_budgets(suite, arm) for arm in compared_arms(suite)}) == 1


def _tuning(suite: Suite) -> str:
    arms = compared_arms(suite)
    chosen = _chosen_in_run(suite, arms)
    if suite.scoring.ranks == "entries":
        parts = [f"{arm} best of {_budgets(suite, arm)}" for arm in arms]
    elif len({_recipes(suite, arm) for arm in arms}) == 1:
        budget = _budgets(suite, arms[0])
        apart = chosen or "; none was tuned apart"
        return f"all share one recipe, the best of {budget} settings{apart}"
    else:
        groups: dict[str, list[str]] = {}
        for arm in arms:
            groups.setdefault(_budgets(suite, arm), []).append(arm)
        parts = [f"{', '.join(members)} best of {n}" for n, members in groups.items()]
    return f"the recipes are of {' and '.join(parts)} settings{chosen}"


def _chosen_in_run(suite: Suite, arms: Sequence[str]) -> str:
    """Which of the arms get their learning rates from the run itself, as a clause."""
    tuned = [arm for arm in arms if any(suite.recipes[r].tune for r in _recipes(suite, arm))]
    if not tuned:
        return ""
    whose = "" if len(tuned) == len(arms) else f" for {', '.join(tuned)}"
    return f"; the learning rate is chosen{whose} in the run, for each entry and target by itself"


def _recipes(suite: Suite, arm: str) -> tuple[str, ...]:
    """The recipe of an arm on each scoring target."""
    use = suite.initializations[arm]
    return tuple(use.recipe_on(target) for target in suite.scoring.chance)


def _budgets(suite: Suite, arm: str) -> str:
    """The numbers of settings that the recipes of an arm were selected from."""
    use = suite.initializations[arm]
    recipes = (use.recipe, *use.recipes.values())
    return " or ".join(str(n) for n in sorted({suite.recipes[r].budget for r in recipes}))
