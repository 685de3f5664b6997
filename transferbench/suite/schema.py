"""A suite: everything but the entry that is measured, as strict, frozen data."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from transferbench.identity import digest
from transferbench.specs import RateFactor

__all__ = [
    "BOARD_KEYS",
    "SOURCE",
    "TRIAL",
    "Augmentation",
    "Axis",
    "BoardColumn",
    "Cells",
    "Claim",
    "Diagnosis",
    "Grid",
    "Image",
    "InitializationUse",
    "Pairing",
    "PerturbationUse",
    "Recipe",
    "Schedule",
    "Scoring",
    "Source",
    "Suite",
    "Target",
    "Term",
    "TrialGrid",
    "Use",
]

TRIAL = "trial"
"""The name under which a claim asks for what a trial itself measured."""

SOURCE = "P"
"""The name under which a diagnostic takes the source network itself."""

BOARD_KEYS = frozenset(
    {"rank", "ties", "entry", "initialization", "score", "replicates", "pretrained", "baseline",
     "gain", "final", "severe_gain", "severe_final", "claims", "parameters", "pretraining",
     "overlap", "needs", "trust", "submission"}
)  # fmt: skip
"""The columns that a board has beside those of its suite."""

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+*-]*$", max_length=60)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """Nothing is coerced and nothing unknown is accepted.

    ``added``: optional fields that came after version 1.0 of the first suites. One that is not
    used is not written, so that a suite published before has the digest that it had.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    added: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = {
            name
            for name in self.added
            if getattr(self, name) == type(self).model_fields[name].default
        }
        return {name: value for name, value in write(self).items() if name not in unused}


class Use(Strict):
    """A plugin by name, with its parameters."""

    name: str
    params: dict[str, Any] = {}


class PerturbationUse(Use):
    """A perturbation, and whether training sees it too."""

    apply: Literal["train-and-test", "test-only"] = "train-and-test"


class Image(Strict):
    """What every network of the suite sees: square images, normalised by mean and std."""

    size: Annotated[int, Field(ge=4, le=1024)]
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[Positive, ...]

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> Self:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need {self.channels} value(s), one a channel")
        return self


class Schedule(Strict):
    """The learning rate over a training, relative to the recipe's rate.

    ``step`` multiplies by ``gamma`` after each epoch of ``milestones``; ``warmup_epochs`` rise
    linearly from zero and come before any of the three.
    """

    name: Literal["constant", "cosine", "step"] = "constant"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    milestones: tuple[Count, ...] = ()
    gamma: Positive = 0.1

    @model_validator(mode="after")
    def _milestones_belong_to_step(self) -> Self:
        if (self.name == "step") != bool(self.milestones):
            raise ValueError("milestones belong to the step schedule, which needs some")
        return self


class Augmentation(Strict):
    """Random changes of training images, drawn for each image and step on the device.

    ``random_resized_crop``: (smallest, largest) area fraction, aspect ratio 3/4 to 4/3.
    ``shift``: crop at a random offset after padding by so many pixels.
    ``rotate`` in degrees, ``translate`` as a fraction of the side, ``scale`` as (low, high).
    """

    shift: Annotated[int, Field(ge=0)] = 0
    flip: bool = False
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    translate: Fraction = 0.0
    scale: tuple[Positive, Positive] = (1.0, 1.0)
    random_resized_crop: tuple[Fraction, Fraction] | None = None
    fill: Annotated[int, Field(ge=0, le=255)] = 0

    @property
    def active(self) -> bool:
        """Whether anything is changed at all."""
        return self != Augmentation(fill=self.fill)


class Recipe(Strict):
    """How one network is trained; the rate is for ``batch_size`` images a step."""

    optimizer: Literal["sgd", "adamw"]
    learning_rate: Positive
    epochs: Count
    batch_size: Count
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Schedule = Schedule()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    gradient_clip: Positive | None = None
    precision: Literal["f32", "bf16", "fp16"] = "f32"
    augmentation: Augmentation = Augmentation()
    rate_factors: tuple[RateFactor, ...] = ()
    evaluate_test: Literal["every", "sparse", "last"] = "sparse"
    evaluate_train: Literal["every", "sparse", "last"] = "every"
    tuned_over: Count = 1
    """How many settings this recipe was the best of: unequal budgets are flagged in tables."""


class Source(Strict):
    """The task pre-trained on; epochs of ``checkpoints`` are kept besides the last."""

    dataset: Use
    recipe: str
    checkpoints: tuple[Annotated[int, Field(ge=0)], ...] = ()
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shuffle_labels: bool = False


class Target(Strict):
    """The task fine-tuned on.

    ``labels_per_class`` limits the training images, drawn anew for each replicate;
    ``validation`` is the share of the remaining training groups held out to choose ``best``;
    ``test_limit`` keeps that many test images, one fixed subset for every trial.
    """

    dataset: Use
    labels_per_class: Count | None = None
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    validation_limit: Count | None = None
    test_limit: Count | None = None
    distance: str | None = None
    shuffle_labels: bool = False


class InitializationUse(Use):
    """An initialization under its arm's label, the source it starts from, and its recipe."""

    recipe: str
    source: str = "source"
    recipes: dict[Label, str] = {}
    """Another recipe for some targets."""
    frozen: bool = False
    """Train the head alone: the control of fixed features."""


class Grid(Strict):
    """A product of labels; None stands for all."""

    targets: tuple[str, ...] | None = None
    perturbations: tuple[str, ...] | None = None
    initializations: tuple[str, ...] | None = None

    def holds(self, target: str, perturbation: str, initialization: str) -> bool:
        """Whether a cell is part of the product."""
        axes = (self.targets, self.perturbations, self.initializations)
        cell = (target, perturbation, initialization)
        return all(axis is None or one in axis for axis, one in zip(axes, cell, strict=True))


class TrialGrid(Grid):
    """Trials to run; the states after the epochs of ``checkpoints`` are kept besides the last."""

    added: ClassVar[frozenset[str]] = frozenset({"checkpoints"})

    checkpoints: tuple[Count, ...] = ()


class Pairing(Strict):
    """Which two networks are compared: of the same replicate, or of different ones.

    ``different``: all pairs of replicates; ``next``: each replicate of ``a`` with the one after it
    of ``b``, the first after the last, so that n replicates make n pairs.
    ``references``: arms whose networks of another replicate serve as independent references.
    """

    a: str
    b: str
    replicates: Literal["same", "different", "next"]
    references: tuple[str, ...] = ()


class Diagnosis(Strict):
    """A diagnostic and the trials it measures.

    ``groups``: of arms whose networks of one replicate a diagnostic of groups takes together.
    """

    added: ClassVar[frozenset[str]] = frozenset({"groups"})

    name: str
    params: dict[str, Any] = {}
    of: tuple[str, ...] | None = None
    pairs: tuple[Pairing, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    on: Grid = Grid()


class Cells(Strict):
    """The measurements that one term of a claim averages over.

    ``coordinates`` are matched exactly; what is left out is averaged.
    """

    diagnostic: str
    metric: str
    target: str | None = None
    perturbation: str | None = None
    initialization: str
    other_initialization: str | None = None
    coordinates: dict[str, str | int | float] = {}


class Term(Cells):
    """One summand of an effect."""

    weight: float = 1.0


class Axis(Strict):
    """The values of a coordinate that a claim goes through, in the order they were measured.

    Of several ``coordinates`` the rows count where all are equal, such as a module and the same
    module of the other network. ``without``: values left out, such as the head.
    """

    coordinates: Annotated[tuple[str, ...], Field(min_length=1)]
    without: tuple[str | int | float, ...] = ()


class Claim(Strict):
    """A predicate over measurements, judged by the interval of an effect.

    The effect is the weighted sum of its terms, computed for each replicate; ``relative_to``
    divides it by another weighted sum, which must be shown to be above 0. ``above``/``below`` hold
    when the whole 95% interval lies beyond ``threshold``; ``within`` holds when it lies inside
    (-threshold, threshold).
    ``each`` asks for it at every value of a coordinate; ``along`` for the rank correlation of the
    sum with the place of the value. ``order`` asks for the rank correlation of a list of effects
    with their position, or with the effects ``against`` which they stand.
    """

    added: ClassVar[frozenset[str]] = frozenset({"each", "along", "against"})

    statement: str
    source: str = ""
    terms: tuple[Term, ...] = ()
    relative_to: tuple[Term, ...] = ()
    each: Axis | None = None
    along: Axis | None = None
    order: tuple[tuple[Term, ...], ...] = ()
    against: tuple[tuple[Term, ...], ...] = ()
    relation: Literal["above", "below", "within"]
    threshold: float = 0.0
    unit: str = "fraction"
    control: bool = False

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if bool(self.terms) == bool(self.order):
            raise ValueError("give either terms or order")
        if self.order and self.relative_to:
            raise ValueError("relative_to goes with terms")
        if (self.each or self.along) and not self.terms:
            raise ValueError("each and along go with terms")
        if self.along and (self.each or self.relative_to):
            raise ValueError("along goes with neither each nor relative_to")
        if self.against and len(self.against) != len(self.order):
            raise ValueError("against goes with order, and has as many effects")
        if self.relation == "within" and self.threshold <= 0:
            raise ValueError("within needs a positive threshold")
        return self


class BoardColumn(Strict):
    """A measurement without coordinates that a board shows as a column.

    ``key``: its name in the csv and json files of the board; ``title``: its head.
    ``diagnostic``: a label of the suite's diagnostics, or ``trial``; ``metric``: of that one.
    ``of``: the mean ``value`` of the row's arm, its ``gain`` over the baseline (paired), the
    ``share`` of the scored arm's gain that it reaches (on boards of initializations), or its
    ``rank`` by the values.
    ``under``: the perturbation that is scored, or the most severe one of the suite's main family,
    whose label is then appended to ``title`` and ``help``.
    ``help``: what the column holds, with its unit.
    ``terminal``: whether a terminal, which has room for few columns, shows it too.
    """

    key: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
    title: Annotated[str, Field(min_length=1, max_length=60)]
    diagnostic: str
    metric: Annotated[str, Field(min_length=1)]
    of: Literal["value", "gain", "share", "rank"]
    under: Literal["clean", "most-severe"] = "clean"
    help: Annotated[str, Field(min_length=1)]
    terminal: bool = False


class Scoring(Strict):
    """How an entry is scored: the mean over ``targets`` of (value - chance) / (reference - chance).

    ``chance`` and ``reference`` are frozen per target, so that a new entry moves no other.
    ``ranks``: what the board's rows are: entries, each by ``initialization``, or within each entry
    every initialization that the suite trains under ``perturbation``.
    ``columns``: the measurements that the board shows beside the score.
    """

    added: ClassVar[frozenset[str]] = frozenset({"ranks", "columns"})
    metric: str = "test_metric"
    initialization: str
    baseline: str
    perturbation: str
    chance: dict[str, Fraction]
    reference: dict[str, Fraction]
    ranks: Literal["entries", "initializations"] = "entries"
    columns: tuple[BoardColumn, ...] = ()

    @model_validator(mode="after")
    def _columns_fit_the_board(self) -> Self:
        keys = [column.key for column in self.columns]
        if repeated := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"two columns have the key {repeated[0]!r}")
        if taken := sorted(BOARD_KEYS.intersection(keys)):
            raise ValueError(
                f"every board has a column {taken[0]!r} of its own; choose another key"
            )
        if self.ranks == "entries" and any(column.of == "share" for column in self.columns):
            raise ValueError("a share of the gain belongs to boards with ranks: initializations")
        return self


class Suite(Strict):
    """Everything but the entry: data, recipes, replicates, diagnostics, claims and scoring."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]*\.[0-9]+$")]
    summary: str
    backbones: tuple[str, ...]
    image: Image
    sources: dict[Label, Source]
    targets: dict[Label, Target]
    perturbations: dict[Label, PerturbationUse]
    recipes: dict[Label, Recipe]
    initializations: dict[Label, InitializationUse]
    replicates: Count
    trials: tuple[TrialGrid, ...]
    diagnostics: dict[Label, Diagnosis]
    claims: dict[Label, Claim] = {}
    scoring: Scoring

    def trains(self, target: str, perturbation: str, initialization: str) -> bool:
        """Whether a cell is in any grid of trials."""
        return any(grid.holds(target, perturbation, initialization) for grid in self.trials)

    @property
    def id(self) -> str:
        """``name@MAJOR.MINOR``."""
        return f"{self.name}@{self.version}"

    @property
    def digest(self) -> str:
        """The sha256 of its content."""
        return digest(self.model_dump(mode="json"))

    @property
    def board(self) -> str:
        """``name@MAJOR``: what shares a leaderboard."""
        return f"{self.name}@{self.version.split('.')[0]}"
