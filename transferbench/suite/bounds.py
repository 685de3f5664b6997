"""Values of a suite that its schema allows, and that nothing can be computed with."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence

from transferbench.records import Record
from transferbench.suite.document import Location, Mistake
from transferbench.suite.schema import TUNING, Augmentation, Image, Recipe, Suite, Term

__all__ = ["DISTINCT", "terms_of", "value_mistakes"]

SMALLER_IS_BETTER = {"test_loss", "train_loss", "best_epoch"}
"""Metrics of trials whose reference lies below chance."""
MAX_BATCH = 2**20
MAX_EPOCHS = 10**6
LARGE = 1e6
"""Beyond it no rate, factor or constant of an image trains anything."""
LARGEST_EXPONENT = 300
"""A float's largest power of ten is 308."""
DISTINCT = 1e-6
"""The smallest difference of reference and chance that a score can be divided by."""


def value_mistakes(suite: Suite) -> Iterator[Mistake]:
    """Values and combinations of values that training, judging or scoring cannot work with."""
    yield from _image_mistakes(suite)
    for label, recipe in suite.recipes.items():
        yield from _recipe_mistakes(("recipes", label), recipe, suite.image.size)
    yield from _network_mistakes(suite)
    yield from _tuning_mistakes(suite)
    for location, term in terms_of(suite):
        yield from _at_most((*location, "weight"), abs(term.weight), LARGE)
        yield from _not_fields((*location, "coordinates"), term.coordinates)
    yield from _claim_mistakes(suite)
    yield from _score_mistakes(suite)


def _at_most(location: Location, value: float, limit: float) -> Iterator[Mistake]:
    if value > limit:
        yield Mistake(location, f"should be at most {limit:,g}, not {value:g}")


def _image_mistakes(suite: Suite) -> Iterator[Mistake]:
    images: dict[Location, Image] = {("image",): suite.image}
    images |= {("targets", label, "image"): target.image
               for label, target in suite.targets.items() if target.image}  # fmt: skip
    for at, image in images.items():
        for i, mean in enumerate(image.mean):
            yield from _at_most((*at, "mean", i), abs(mean), LARGE)
        for i, std in enumerate(image.std):
            yield from _at_most((*at, "std", i), std, LARGE)
            if std < 1 / LARGE:
                yield Mistake((*at, "std", i), f"should be at least {1 / LARGE:g}, not {std:g}")
        for field in ("size", "channels"):
            value, expected = getattr(image, field), getattr(suite.image, field)
            if value != expected:
                reason = f"{value}, and the suite's image has {expected}: a network has one input"
                yield Mistake((*at, field), reason)


def _network_mistakes(suite: Suite) -> Iterator[Mistake]:
    """Sources with several networks have equally many, each with equally many replicates."""
    networks = suite.networks
    for label, source in suite.sources.items():
        if source.networks not in {1, networks}:
            reason = f"{source.networks} networks, and another source has {networks}"
            yield Mistake(
                ("sources", label, "networks"), f"{reason}; give sources with several as many"
            )
    counts: dict[Location, int | None] = {("replicates",): suite.replicates}
    counts |= {("trials", i, "replicates"): row.replicates for i, row in enumerate(suite.trials)}
    for location, count in counts.items():
        if count is not None and count % networks:
            reason = (
                f"{count} is no multiple of the {networks} networks of a source; ask for "
                f"{math.ceil(count / networks) * networks} replicates, or for 1 network"
            )
            yield Mistake(location, reason)


def _recipe_mistakes(at: Location, recipe: Recipe, image_size: int) -> Iterator[Mistake]:
    schedule = recipe.schedule
    limits: dict[Location, tuple[float, float]] = {
        ("epochs",): (recipe.epochs, MAX_EPOCHS),
        ("batch_size",): (recipe.batch_size, MAX_BATCH),
        ("learning_rate",): (recipe.learning_rate or 0, LARGE),
        **{
            ("tune", "learning_rate", i): (rate, LARGE)
            for i, rate in enumerate(recipe.tune.learning_rate if recipe.tune else ())
        },
        ("weight_decay",): (recipe.weight_decay, LARGE),
        ("mixup",): (recipe.mixup, LARGE),
        **{
            ("rate_factors", i, "factor"): (rate.factor, LARGE)
            for i, rate in enumerate(recipe.rate_factors)
        },
    }
    for field, (value, limit) in limits.items():
        yield from _at_most((*at, *field), value, limit)
    if schedule.warmup_epochs > recipe.epochs:
        reason = f"{schedule.warmup_epochs:g} epochs of warm-up in a training of {recipe.epochs}"
        yield Mistake((*at, "schedule", "warmup_epochs"), reason)
    if len(schedule.milestones) * math.log10(schedule.gamma) > LARGEST_EXPONENT:
        times = len(schedule.milestones)
        yield Mistake((*at, "schedule", "gamma"), f"{schedule.gamma:g}, {times} times, overflows")
    for i, rate in enumerate(recipe.rate_factors):
        try:
            re.compile(rate.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            reason = f"{rate.pattern[:60]!r} is not a regular expression: {error}"
            yield Mistake((*at, "rate_factors", i, "pattern"), reason)
    yield from _augmentation_mistakes((*at, "augmentation"), recipe.augmentation, image_size)


def _tuning_mistakes(suite: Suite) -> Iterator[Mistake]:
    """Grids that nothing can be chosen from; labels that do not exist are told elsewhere."""
    tuned = {label for label, recipe in suite.recipes.items() if recipe.tune}
    for label, source in suite.sources.items():
        if source.recipe in tuned:
            reason = (
                f"{source.recipe} chooses its learning rate for each arm and target, and a source "
                "has neither: name a recipe with learning_rate"
            )
            yield Mistake(("sources", label, "recipe"), reason)
    grids = [suite.axes(grid) for grid in suite.trials]
    for label, target in suite.targets.items():
        trained = {arm for targets, _, arms in grids if label in targets for arm in arms}
        arms = [arm for arm, use in suite.initializations.items()
                if arm in trained and use.recipe_on(label) in tuned]  # fmt: skip
        if arms and not target.validation:
            reason = (
                f"is 0, and the learning rate of {arms[0]} is chosen on validation images: hold "
                "some out, or give its recipe a learning_rate"
            )
            yield Mistake(("targets", label, "validation"), reason)
    if tuned and TUNING in suite.diagnostics:
        reason = f"{TUNING} means the trainings that rates are chosen from; choose another label"
        yield Mistake(("diagnostics", TUNING), reason)
    yield from _rate_mistakes(suite)


def _rate_mistakes(suite: Suite) -> Iterator[Mistake]:
    """Arms that cannot take the learning rate of another one."""
    arms = suite.initializations
    compared = (suite.scoring.initialization, suite.scoring.baseline)
    grids = [suite.axes(grid) for grid in suite.trials]
    for label, use in arms.items():
        if use.rate_of not in arms:
            continue
        at, other = ("initializations", label, "rate_of"), arms[use.rate_of]
        if use.rate_of not in compared or use.rate_of == label or other.rate_of:
            tuned = [arm for arm in dict.fromkeys(compared) if arm != label]
            reason = (
                f"{use.rate_of} need not be tuned in a run; take the rate of {' or '.join(tuned)}"
            )
            yield Mistake(at, reason)
            continue
        targets = [target for row, _, trained in grids if label in trained for target in row]
        if different := [t for t in targets if use.recipe_on(t) != other.recipe_on(t)]:
            target = different[0]
            reason = (
                f"on {target} the recipe of {label} is {use.recipe_on(target)}, and that of "
                f"{use.rate_of} {other.recipe_on(target)}; a rate holds for one recipe"
            )
            yield Mistake(at, reason)


def _augmentation_mistakes(
    at: Location, augmentation: Augmentation, image_size: int
) -> Iterator[Mistake]:
    if augmentation.shift >= image_size:
        reason = f"a padding of {augmentation.shift} moves images of {image_size} px out of sight"
        yield Mistake((*at, "shift"), reason)
    for field in ("scale", "random_resized_crop"):
        low, high = getattr(augmentation, field) or (1.0, 1.0)
        if low > high:
            yield Mistake((*at, field), f"the smallest, {low:g}, is above the largest, {high:g}")
        if high == 0:
            yield Mistake((*at, field), "a crop without area")
    yield from _at_most((*at, "scale", 1), augmentation.scale[1], LARGE)


# --- claims and scores ------------------------------------------------------------------------


def terms_of(suite: Suite) -> Iterator[tuple[Location, Term]]:
    """Every term of every claim, with its location."""
    for label, claim in suite.claims.items():
        for field in ("terms", "relative_to"):
            for i, term in enumerate(getattr(claim, field)):
                yield ("claims", label, field, i), term
        for field in ("order", "against"):
            for i, terms in enumerate(getattr(claim, field)):
                for j, term in enumerate(terms):
                    yield ("claims", label, field, i, j), term


def _not_fields(location: Location, coordinates: Iterable[str]) -> Iterator[Mistake]:
    """Records hold coordinates beside their own fields: one name cannot be both."""
    if reserved := sorted(Record.model_fields.keys() & set(coordinates)):
        reason = f"{', '.join(reserved)} is a field of every measurement and no coordinate"
        yield Mistake(location, reason)


def _claim_mistakes(suite: Suite) -> Iterator[Mistake]:
    for label, claim in suite.claims.items():
        if claim.pilot and claim.pilot.draw == suite.draw:
            reason = (
                f"is the draw of this suite ({suite.draw!r}): its trainings would be those that the"
                " power was planned from; give the suite another draw"
            )
            yield Mistake(("claims", label, "pilot", "draw"), reason)
        for field in ("each", "along"):
            if axis := getattr(claim, field):
                yield from _not_fields(("claims", label, field, "coordinates"), axis.coordinates)
        for field in ("order", "against"):
            effects: Sequence[Sequence[Term]] = getattr(claim, field)
            if len(effects) == 1:
                reason = "the order of one effect says nothing; give two or more"
                yield Mistake(("claims", label, field), reason)
            for i, terms in enumerate(effects):
                if not terms:
                    yield Mistake(("claims", label, field, i), "an effect without terms")


def _score_mistakes(suite: Suite) -> Iterator[Mistake]:
    """A score is (value - chance) / (reference - chance), of targets that have both."""
    chance, reference = suite.scoring.chance, suite.scoring.reference
    better_when_larger = suite.scoring.metric not in SMALLER_IS_BETTER
    if not chance and not reference:
        yield Mistake(("scoring", "chance"), "has no target, and a score is of one at least")
    for field, values, others in (("chance", chance, reference), ("reference", reference, chance)):
        # A misspelt target is one mistake, told of its label, and not three.
        missing = (suite.targets.keys() & others.keys()) - values.keys()
        for target in missing if values.keys() <= suite.targets.keys() else ():
            yield Mistake(("scoring", field), f"has no value for {target!r}")
    for target in chance.keys() & reference.keys():
        level = suite.scoring.chance_of(target)
        if level is not None and abs(reference[target] - level) < DISTINCT:
            reason = (
                f"{reference[target]:g} is the value at chance too, so that no score can be "
                "computed; give the metric of a good network"
            )
            yield Mistake(("scoring", "reference", target), reason)
        elif level is not None and reference[target] < level and better_when_larger:
            reason = (
                f"{reference[target]:g} is below chance, {level:g}, so that worse entries would "
                "rank first; give the metric of a good network"
            )
            yield Mistake(("scoring", "reference", target), reason)
