"""The suite file as frozen pydantic models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic import Strict as PydanticStrict

from transferbench.identity import digest
from transferbench.specs import Metric, RateFactor

__all__ = [
    "BOARD_KEYS",
    "SOURCE",
    "TRIAL",
    "TRIAL_METRICS",
    "TUNING",
    "WHOLE_IMAGES",
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
    "Pilot",
    "Recipe",
    "Schedule",
    "Scoring",
    "Source",
    "Suite",
    "Target",
    "Term",
    "TrialGrid",
    "Tune",
    "Use",
]

TRIAL = "trial"
"""As the ``diagnostic`` of a claim: the measurements of the trials themselves."""

TRIAL_METRICS = (
    "test_metric", "test_loss", "train_metric", "train_loss", "best_test_metric", "best_epoch",
    "n_train",
)  # fmt: skip
"""What the trials themselves measure."""

TUNING = "tuning"
"""As the ``diagnostic`` of a measurement: of the trainings that a learning rate is chosen from."""

WHOLE_IMAGES = "whole images"
"""As the ``perturbation`` of these: there is none. No label of a suite has a space."""

SOURCE = "P"
"""As an arm of a diagnostic: the source network."""

BOARD_KEYS = frozenset(
    {"rank", "ties", "entry", "initialization", "score", "replicates", "covers", "pretrained",
     "baseline", "gain", "final", "severe_gain", "severe_final", "claims", "adjusted", "controls",
     "marks", "values", "reported", "parameters", "pretraining", "overlap", "needs",
     "learning_rates", "trust", "submission"}
)  # fmt: skip
"""Keys of the columns that every board has."""

BOARD_FIELDS = frozenset(
    {
        "claims_reproduced",
        "claims_contradicted",
        "claims_undecided",
        "adjusted_reproduced",
        "adjusted_contradicted",
        "adjusted_undecided",
        "controls_passed",
        "controls_failed",
        "controls_underpowered",
        "folder",
        "profile",
    }
)
"""Names in the csv and json files of every board that are no keys of columns."""

T = TypeVar("T")
Items: TypeAlias = Annotated[tuple[T, ...], PydanticStrict(strict=False)]
"""A list, kept as a tuple; its items are not coerced."""
Pair: TypeAlias = Annotated[tuple[T, T], PydanticStrict(strict=False)]
"""A list of two, kept as a tuple."""

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+*-]*$", max_length=60)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """Base of all models of the suite file: nothing is coerced, unknown keys are refused.

    ``added``: optional fields that came after version 1.0 of the first suites. They are serialised
    only where they differ from their default, so that earlier suites keep their digests.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
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
    """A plugin and its parameters."""

    name: str
    """Name of the plugin, as ``transferbench list`` shows it."""
    params: dict[str, Any] = {}
    """Parameters of the plugin, checked when the suite is loaded."""


class PerturbationUse(Use):
    """A perturbation of the input images."""

    added: ClassVar[frozenset[str]] = frozenset({"augment"})

    apply: Literal["train-and-test", "test-only"] = "train-and-test"
    """Whether training images are perturbed too, or test images alone."""
    augment: bool = True
    """Whether training images are augmented as the recipe says; false for the centre alone."""


class Image(Strict):
    """The input of every network of the suite: square images, normalised per channel."""

    added: ClassVar[frozenset[str]] = frozenset({"stored", "fit"})

    size: Annotated[int, Field(ge=4, le=1024)]
    """Side in pixels."""
    channels: Literal[1, 3]
    """1 for grey, 3 for colour; images with the other number of channels are converted."""
    mean: Items[float]
    """Mean of each channel, for values in [0, 1]."""
    std: Items[Positive]
    """Standard deviation of each channel, for values in [0, 1]."""
    stored: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Side at which images are stored, at least ``size``; none for ``size``.

    Networks see the centre. A ``random_resized_crop`` is taken from all that is stored.
    """
    fit: Literal["crop", "pad", "whole"] = "crop"
    """How a picture that is not square becomes one.

    ``crop``: its centre. ``pad``: all of it, with black beside it. ``whole``: all of it, distorted
    in the store and undone where an image is taken from it: networks see the centre, or crops.
    """

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> Self:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need {self.channels} value(s), one per channel")
        return self

    @model_validator(mode="after")
    def _stored_holds_the_input(self) -> Self:
        if self.stored is not None and self.stored < self.size:
            raise ValueError(f"stored {self.stored} is smaller than size {self.size}")
        return self


class Schedule(Strict):
    """Learning rate schedule, as factors of the recipe's learning rate."""

    name: Literal["constant", "cosine", "step"] = "constant"
    """``constant``, ``cosine`` annealing to 0, or ``step`` decay at ``milestones``."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs of linear warm-up from 0, which precede the schedule."""
    milestones: Items[Count] = ()
    """Epochs after which ``step`` multiplies the learning rate by ``gamma``."""
    gamma: Positive = 0.1
    """Factor of ``step``."""

    @model_validator(mode="after")
    def _milestones_belong_to_step(self) -> Self:
        if (self.name == "step") != bool(self.milestones):
            raise ValueError("milestones belong to the step schedule, which needs some")
        return self


class Augmentation(Strict):
    """Random augmentation of training images, sampled for each image and step on the device."""

    shift: Annotated[int, Field(ge=0)] = 0
    """Padding in pixels before a random crop of the original size."""
    flip: bool = False
    """Horizontal flip with probability 0.5."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Maximum rotation to either side in degrees."""
    translate: Fraction = 0.0
    """Maximum translation along each axis, as a fraction of the side."""
    scale: Pair[Positive] = (1.0, 1.0)
    """Minimum and maximum scale factor."""
    random_resized_crop: Pair[Fraction] | None = None
    """Minimum and maximum area fraction of a random resized crop, aspect ratio 3/4 to 4/3."""
    fill: Annotated[int, Field(ge=0, le=255)] = 0
    """Grey level, 0 to 255, of pixels from outside the image."""

    @property
    def active(self) -> bool:
        """Whether it changes images at all."""
        return self != Augmentation(fill=self.fill)


class Tune(Strict):
    """A grid of learning rates, of which each entry, arm and target gets its best.

    Every rate trains ``replicates`` networks on images that are not perturbed, with seeds of their
    own; the rate with the highest mean of the best validation metric is chosen, of equals the
    smallest. No test image is used.
    """

    learning_rate: Annotated[Items[Positive], Field(min_length=2)]
    """Peak learning rates to choose from, two or more."""
    replicates: Count = 2
    """Networks that are trained at each rate."""

    @model_validator(mode="after")
    def _each_rate_once(self) -> Self:
        if len(set(self.learning_rate)) < len(self.learning_rate):
            raise ValueError("a learning rate stands twice in the grid")
        return self


class Recipe(Strict):
    """Hyperparameters of one training."""

    added: ClassVar[frozenset[str]] = frozenset({"learning_rate", "tune"})

    optimizer: Literal["sgd", "adamw"]
    """SGD with momentum, or AdamW."""
    learning_rate: Positive | None = None
    """Peak learning rate for ``batch_size`` images per step; none where ``tune`` chooses it."""
    tune: Tune | None = None
    """Learning rates to choose from, instead of one; for arms, not for sources."""
    epochs: Count
    """Passes over the training images."""
    batch_size: Count
    """Images per optimizer step, at most all that there are.

    With a smaller ``--micro-batch`` gradients are accumulated.
    """
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    betas: Pair[Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Betas of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of all parameters, decoupled in AdamW."""
    schedule: Schedule = Schedule()
    """Learning rate schedule."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target distribution that is spread uniformly over the classes."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup's Beta distribution; 0 turns mixup off."""
    gradient_clip: Positive | None = None
    """Maximum norm of the gradient over all parameters; none without clipping."""
    precision: Literal["f32", "bf16", "fp16"] = "f32"
    """Precision of forward and backward passes; weights and updates are float32."""
    augmentation: Augmentation = Augmentation()
    """Augmentation of the training images."""
    rate_factors: Items[RateFactor] = ()
    """Learning rate factors of some parameters; those of the backbone are tried first."""
    evaluate_test: Literal["every", "sparse", "last"] = "sparse"
    """Epochs after which test and validation images are evaluated.

    ``every`` epoch; ``sparse``: 0, 1, 2, 5, 10, 20, 50 ... and the last; or the ``last``.
    """
    evaluate_train: Literal["every", "sparse", "last"] = "every"
    """The same for the training set, in eval mode without augmentation; ``speed`` averages it."""
    tuned_over: Count = 1
    """Number of settings this recipe was selected from; tables flag unequal tuning budgets.

    With ``tune`` it is the number of its rates, and is left out.
    """

    @model_validator(mode="after")
    def _one_rate_or_a_grid(self) -> Self:
        if (self.learning_rate is None) == (self.tune is None):
            raise ValueError(
                "give either learning_rate, or tune to choose it from a grid; null takes one out"
            )
        if self.tune and self.tuned_over != type(self).model_fields["tuned_over"].default:
            raise ValueError("tuned_over follows from the grid of tune: leave it out")
        return self

    @property
    def budget(self) -> int:
        """The number of settings that it is the best of."""
        return len(self.tune.learning_rate) if self.tune else self.tuned_over


class Source(Strict):
    """A task to pre-train on."""

    added: ClassVar[frozenset[str]] = frozenset({"networks"})

    dataset: Use
    """Dataset to pre-train on."""
    recipe: str
    """Label of a recipe."""
    checkpoints: Items[Annotated[int, Field(ge=0)]] = ()
    """Epochs whose states are stored besides the last; 0 is the initial state."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training images held out to select the state ``best``."""
    shuffle_labels: bool = False
    """Randomly permute the training labels (random-label control)."""
    networks: Count = 1
    """Networks to pre-train, each with its own seeds; replicate k starts from network k % networks.

    With several, intervals say what another pre-training would change. Sources with several have
    equally many, and replicates are a multiple of it.
    """


class Target(Strict):
    """A task to fine-tune on."""

    added: ClassVar[frozenset[str]] = frozenset({"image", "metric", "stratify"})

    dataset: Use
    """Dataset to fine-tune on."""
    image: Image | None = None
    """How its pictures are stored, fitted and normalised; none for the ``image`` of the suite.

    Of the same ``size`` and ``channels``: a network sees images of one shape.
    """
    metric: Metric | None = None
    """What its networks are judged by and selected for; none for the metric of the dataset.

    ``balanced-accuracy`` and ``macro-auc`` give all classes equal weight, however few their images.
    """
    labels_per_class: Count | None = None
    """Training images per class, sampled anew for each replicate; none for all."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the remaining training groups held out to select the state ``best``."""
    validation_limit: Count | None = None
    """Maximum number of validation images, stratified by class; none for all."""
    test_limit: Count | None = None
    """Maximum number of test images, one fixed subset for every trial; none for all."""
    stratify: Literal["share", "every-class"] = "share"
    """``share``: each class has its share of validation and test images, which may be none.

    ``every-class``, for small and unbalanced data: one image at least, where it has two groups; of
    a class with fewer than ``labels_per_class`` training images all are taken; the rarest class,
    or label of a multi-label task, is divided first.
    """
    distance: str | None = None
    """Distance to the source in a word, such as ``near``; shown in tables only."""
    shuffle_labels: bool = False
    """Randomly permute the training labels: a control that must stay at chance."""


class InitializationUse(Use):
    """An arm: an initialization, its source and its recipe."""

    added: ClassVar[frozenset[str]] = frozenset({"rate_of"})

    recipe: str
    """Label of the recipe of this arm."""
    source: str = "source"
    """Label of the source of its weights."""
    recipes: dict[Label, str] = {}
    """Target -> label of another recipe for that target."""
    frozen: bool = False
    """Train the head alone, on fixed features."""
    rate_of: str | None = None
    """Arm whose tuned learning rate this one takes; none where it is tuned itself.

    The scored arm or the baseline, with the same recipe. Of a null control that is tuned itself,
    the difference to the baseline contains that of two choices.
    """

    def recipe_on(self, target: str) -> str:
        """The label of the recipe of this arm on a target."""
        return self.recipes.get(target, self.recipe)


class Grid(Strict):
    """The product of targets, perturbations and arms."""

    targets: Items[str] | None = None
    """Labels of targets; none for all."""
    perturbations: Items[str] | None = None
    """Labels of perturbations; none for all."""
    initializations: Items[str] | None = None
    """Labels of arms; none for all."""

    def holds(self, target: str, perturbation: str, initialization: str) -> bool:
        """Whether a cell is part of the product."""
        axes = (self.targets, self.perturbations, self.initializations)
        cell = (target, perturbation, initialization)
        return all(axis is None or label in axis for axis, label in zip(axes, cell, strict=True))


class TrialGrid(Grid):
    """Trials to run; a trial in two grids runs once."""

    added: ClassVar[frozenset[str]] = frozenset({"checkpoints", "replicates"})

    checkpoints: Items[Count] = ()
    """Epochs whose states are stored besides the last."""
    replicates: Count | None = None
    """Replicates of these trials; none for those of the suite. Of two grids the larger counts."""


class Pairing(Strict):
    """Pairs of networks to compare."""

    a: str
    """Arm of the first network; ``P`` is the source network."""
    b: str
    """Arm of the second network; ``P`` is the source network."""
    replicates: Literal["same", "different", "next"]
    """``same``: replicate k of both. ``different``: all pairs of two replicates.

    ``next``: replicate k of the first and k + 1 of the second (the last with the first), so that
    n replicates make n pairs. Of a source with several ``networks``, both start from the same one.
    """
    references: Items[str] = ()
    """Arms whose networks of another replicate serve as independent references."""


class Diagnosis(Use):
    """A diagnostic and the trials it measures."""

    added: ClassVar[frozenset[str]] = frozenset({"groups"})

    of: Items[str] | None = None
    """For a diagnostic of one network: the arms to measure; none for all."""
    pairs: Items[Pairing] = ()
    """For a diagnostic of pairs: the pairs to measure."""
    groups: Items[Items[str]] = ()
    """For a diagnostic of groups: arms whose networks of one replicate form a group."""
    on: Grid = Grid()
    """The trials to measure."""


class Cells(Strict):
    """The measurements whose mean is one term of a claim."""

    diagnostic: str
    """Label of a diagnosis, or ``trial`` for the measurements of the trials themselves."""
    metric: str
    """Name of the metric, as the diagnostic reports it."""
    target: str | None = None
    """Label of a target; none averages over all."""
    perturbation: str | None = None
    """Label of a perturbation; none averages over all."""
    initialization: str
    """Arm of the network, or of the first of a pair."""
    other_initialization: str | None = None
    """Arm of the second network of a pair."""
    coordinates: dict[str, str | int | float] = {}
    """Coordinates to match exactly; the mean is taken over all others."""


class Term(Cells):
    """A weighted summand of an effect."""

    weight: float = 1.0
    """Factor of the mean."""


class Axis(Strict):
    """The values of a coordinate that a claim iterates over, in the order of measurement."""

    coordinates: Annotated[Items[str], Field(min_length=1)]
    """Names of coordinates; of several, rows count where all are equal.

    Two networks are compared module by module with ``module`` and ``other_module``.
    """
    without: Items[str | int | float] = ()
    """Values to leave out, such as the head."""


class Pilot(Strict):
    """What a pilot, a run of another draw, measured of a claim: its power is planned from it.

    ``transferbench pilot RUN`` prints it.
    """

    added: ClassVar[frozenset[str]] = frozenset({"arms", "arm_deviations"})

    draw: Annotated[str, Field(pattern=r"^[A-Za-z0-9._+-]*$", max_length=60)]
    """The ``draw`` of the pilot's suite, which is not that of this suite."""
    n: Count
    """Replicates behind it, or source networks where the claim is judged over them."""
    effect: float
    """Its effect; of a claim on ``each`` value, that of the value furthest from holding."""
    deviation: Positive
    """Standard deviation of the effect over replicates, or source networks.

    Of an order: of the effect at a level, from the mean of its replicate.
    """
    levels: Items[float] = ()
    """Of an order: the effects at its levels."""
    against: Items[float] = ()
    """Of one order against another: the other effects."""
    against_deviation: Positive | None = None
    """Standard deviation of one of the other effects, from the mean of its replicate."""
    arms: Items[float] = ()
    """The means of the claim's terms, in their order: near the end of a range intervals are wider.

    Without them a difference is planned for in the middle of the range.
    """
    arm_deviations: Items[Annotated[float, Field(ge=0)]] = ()
    """Standard deviations of the terms over replicates, or source networks."""

    @model_validator(mode="after")
    def _same_lengths(self) -> Self:
        if len(self.against) not in {0, len(self.levels)}:
            raise ValueError("against has as many effects as levels")
        if bool(self.against) != bool(self.against_deviation):
            raise ValueError("against goes with against_deviation")
        if len(self.arms) != len(self.arm_deviations):
            raise ValueError("arms has as many means as arm_deviations has deviations")
        return self


class Claim(Strict):
    """A predicate over measurements, judged by the 95% interval of an effect.

    The effect is the weighted sum of ``terms``, computed for each replicate. ``each``, ``along``,
    ``order`` and ``against`` replace it by effects at several values or by a rank correlation.
    """

    added: ClassVar[frozenset[str]] = frozenset({"each", "along", "against", "family", "pilot"})

    statement: str
    """The claim in words."""
    source: str = ""
    """Reference of the claim, such as a section of a paper."""
    family: Annotated[str, Field(max_length=60)] = ""
    """The claim of the paper that it is part of, such as ``C2``: verdicts are counted per family.

    By default the ``C`` and number that ``source`` ends in, else the label of the claim.
    """
    terms: Items[Term] = ()
    """Summands of the effect."""
    relative_to: Items[Term] = ()
    """Summands of the denominator; undecided where its 95% interval is not above 0."""
    each: Axis | None = None
    """Judge the effect at every value of a coordinate; the claim must hold at all of them."""
    along: Axis | None = None
    """Use the rank correlation (Kendall's tau) of the terms with the position of the value."""
    order: Items[Items[Term]] = ()
    """Effects whose rank correlation (Kendall's tau) is judged, instead of ``terms``."""
    against: Items[Items[Term]] = ()
    """Effects to correlate those of ``order`` with; their position where there are none."""
    relation: Literal["above", "below", "within"]
    """``above`` or ``below``: the whole interval lies beyond ``threshold``.

    ``within``: it lies inside (-threshold, threshold).
    """
    threshold: float = 0.0
    """Threshold in the unit of the effect."""
    unit: str = "fraction"
    """Unit of the effect."""
    control: bool = False
    """Whether the claim must hold in any sound run; controls do not count as claims of an entry.

    A control ``within`` a margin is an equivalence test: two one-sided tests at 2.5% each.
    """
    pilot: Pilot | None = None
    """What a pilot of another draw measured: ``plan`` tells the power of the claim from it."""

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
        ordered = bool(self.order or self.along)
        if self.pilot and ordered != bool(self.pilot.levels):
            raise ValueError("a pilot has levels where the claim is on an order, and only there")
        if self.pilot and bool(self.against) != bool(self.pilot.against):
            raise ValueError("a pilot has against where the claim has it, and only there")
        if self.pilot and len(self.pilot.arms) not in {0, len(self.terms)}:
            raise ValueError("the arms of a pilot are one for each of the claim's terms")
        if self.relation == "within" and self.threshold <= 0:
            raise ValueError("within needs a positive threshold")
        return self

    @property
    def all_terms(self) -> list[Term]:
        """The terms of all its sums."""
        sums = (self.terms, self.relative_to, *self.order, *self.against)
        return [term for summands in sums for term in summands]


class BoardColumn(Strict):
    """A measurement without coordinates that a board shows as a column."""

    key: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
    """Name of the column in the csv and json files of the board."""
    title: Annotated[str, Field(min_length=1, max_length=60)]
    """Head of the column."""
    diagnostic: str
    """Label of a diagnosis that measures each network once, or ``trial``."""
    metric: Annotated[str, Field(min_length=1)]
    """Name of the metric, as the diagnostic reports it."""
    of: Literal["value", "gain", "share", "rank"]
    """The mean ``value`` of the row's arm, its paired ``gain`` over the baseline, or a ``rank``.

    ``share``: of the scored arm's gain, on boards of initializations; ``rank``: by the values.
    """
    under: Literal["clean", "most-severe"] = "clean"
    """The scored perturbation, or the most severe of the suite's main family.

    The label of the latter is appended to ``title`` and ``help``.
    """
    help: Annotated[str, Field(min_length=1)]
    """Description of the column, with its unit."""
    terminal: bool = False
    """Whether terminals, which have room for few columns, show it too."""


class Scoring(Strict):
    """The score of an entry: the mean over targets of (value - chance) / (reference - chance)."""

    added: ClassVar[frozenset[str]] = frozenset({"ranks", "columns", "statistics"})
    metric: str = "test_metric"
    """Metric of the trials."""
    initialization: str
    """The arm that is scored."""
    baseline: str
    """The arm that it is compared with."""
    perturbation: str
    """The perturbation that both are scored under."""
    statistics: str | None = None
    """A perturbation that takes the features of images and leaves their statistics.

    Such as shuffled blocks. The first sentence of a report then tells by the gain under it whether
    the gain is one of features or of statistics.
    """
    chance: dict[str, Fraction | Literal["data"]]
    """Target -> metric at chance level, fixed so that new entries do not change other scores.

    ``data``: that of the best constant prediction on the test images: the share of the most
    frequent class for an accuracy, 1 / classes for a balanced accuracy, 0.5 for an AUC.
    """
    reference: dict[str, Fraction]
    """Target -> reference metric, whose score is 1; fixed for the same reason."""
    ranks: Literal["entries", "initializations"] = "entries"
    """Rows of the board: entries, each by ``initialization``, or all arms of each entry."""
    columns: Items[BoardColumn] = ()
    """Measurements that the board shows beside the score."""

    def chance_of(self, target: str) -> float | None:
        """The metric at chance level; None where the target is not scored, or only data tell it."""
        value = self.chance.get(target)
        return None if value == "data" else value

    @model_validator(mode="after")
    def _columns_fit_the_board(self) -> Self:
        keys = [column.key for column in self.columns]
        if repeated := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"two columns have the key {repeated[0]!r}")
        if taken := sorted((BOARD_KEYS | BOARD_FIELDS).intersection(keys)):
            raise ValueError(
                f"every board has a column {taken[0]!r} of its own; choose another key"
            )
        if bounds := [key for key in keys if key.endswith(("_low", "_high"))]:
            raise ValueError(
                f"{bounds[0]!r} would be the bound of an interval in csv and json files; choose a "
                "key without _low or _high at its end"
            )
        if self.ranks == "entries" and any(column.of == "share" for column in self.columns):
            raise ValueError("a share of the gain belongs to boards with ranks: initializations")
        return self


class Suite(Strict):
    """Everything but the entry: data, recipes, replicates, diagnostics, claims and scoring."""

    added: ClassVar[frozenset[str]] = frozenset({"draw"})

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]
    """Lower-case words joined by hyphens."""
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]*\.[0-9]+$", max_length=20)]
    """``MAJOR.MINOR`` in quotes; a change of scores is a new MAJOR, with its own board."""
    summary: str
    """One sentence, shown in lists and above the board."""
    backbones: Items[str]
    """Default backbones, without ``--backbone``; ``family/member`` for one of a family."""
    image: Image
    """The input of the networks."""
    sources: dict[Label, Source]
    """Label -> task to pre-train on; arms start from ``source`` unless they name another.

    Empty where every entry brings external weights (``--weights``).
    """
    targets: dict[Label, Target]
    """Label -> task to fine-tune on."""
    perturbations: dict[Label, PerturbationUse]
    """Label -> perturbation of the input images, including the identity."""
    recipes: dict[Label, Recipe]
    """Label -> hyperparameters; sources and arms refer to them."""
    initializations: dict[Label, InitializationUse]
    """Label -> arm, such as ``P-T`` and ``RI-T``."""
    replicates: Count
    """Repetitions of every trial, each with its own seeds; a row of ``trials`` may have its own."""
    draw: Annotated[str, Field(pattern=r"^[A-Za-z0-9._+-]*$", max_length=60)] = ""
    """Part of every seed: another word gives other networks, independent of those known so far."""
    trials: Items[TrialGrid]
    """Trials to run, as products of targets, perturbations and arms."""
    diagnostics: dict[Label, Diagnosis]
    """Label -> diagnostic and the trials it measures."""
    claims: dict[Label, Claim] = {}
    """Label -> claim to judge."""
    scoring: Scoring
    """How entries are scored and ranked."""

    def axes(self, grid: Grid) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """The targets, perturbations and arms of a grid."""

        def labels(chosen: tuple[str, ...] | None, table: dict[str, Any]) -> tuple[str, ...]:
            return tuple(table) if chosen is None else chosen

        return (
            labels(grid.targets, self.targets),
            labels(grid.perturbations, self.perturbations),
            labels(grid.initializations, self.initializations),
        )

    def cells(self) -> dict[tuple[str, str, str], set[int]]:
        """Target, perturbation and arm of the trials, in order, and the epochs to keep."""
        cells: dict[tuple[str, str, str], set[int]] = {}
        for grid in self.trials:
            for cell in product(*self.axes(grid)):
                cells.setdefault(cell, set()).update(grid.checkpoints)
        return cells

    def image_of(self, dataset: str) -> Image:
        """The images of ``source:LABEL`` or ``target:LABEL``."""
        target = self.targets.get(dataset.removeprefix("target:"))
        return (target and target.image) or self.image

    @property
    def networks(self) -> int:
        """The networks of the sources that have several; 1 where none has."""
        return max((source.networks for source in self.sources.values()), default=1)

    def replicates_in(self, target: str, perturbation: str, initialization: str) -> int:
        """The replicates of a cell, 0 where it is not trained.

        The source network counts as often as the trials that it is measured beside.
        """
        arms = self.initializations if initialization == SOURCE else (initialization,)
        return max(
            (
                grid.replicates or self.replicates
                for grid in self.trials
                if any(grid.holds(target, perturbation, arm) for arm in arms)
            ),
            default=0,
        )

    @property
    def most_trials(self) -> int:
        """The trials of all grids, those in several counted as often."""
        return sum(
            (grid.replicates or self.replicates) * math.prod(map(len, self.axes(grid)))
            for grid in self.trials
        )

    def trains(self, target: str, perturbation: str, initialization: str) -> bool:
        """Whether a cell is part of any grid of trials."""
        return any(grid.holds(target, perturbation, initialization) for grid in self.trials)

    def with_chance(self, chance: Mapping[str, float]) -> Suite:
        """The suite with these numbers where it says that ``data`` tell the chance level."""
        if "data" not in self.scoring.chance.values():
            return self
        levels = {
            target: chance.get(target, level) if level == "data" else level
            for target, level in self.scoring.chance.items()
        }
        scoring = self.scoring.model_copy(update={"chance": levels})
        return self.model_copy(update={"scoring": scoring})

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
        """``name@MAJOR``: suites of one board."""
        return f"{self.name}@{self.version.split('.')[0]}"
