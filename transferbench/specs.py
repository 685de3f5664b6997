"""The plugin interface: a spec class for each kind of plugin, and the protocols of its functions.

Start here to write a plugin. A spec is a frozen pydantic model that declares the plugin and holds
its functions. This module never imports torch at run time, and neither should the module of a
plugin: import torch inside the functions, so that ``transferbench list`` and ``--help`` stay fast.

Shape letters: N images, H height, W width, C channels, K classes, L labels, D features.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    runtime_checkable,
)

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, to_json

from transferbench.records import Measurement

if TYPE_CHECKING:
    from torch import Generator, Tensor, device
    from torch.nn import Module

    from transferbench.reporting import Part, Scope
else:
    # pydantic evaluates the annotations of a spec at run time, and torch must not be imported.
    Generator = Module = Part = Scope = Tensor = device = Any

__all__ = [
    "HEAD",
    "METRICS",
    "BackboneSpec",
    "DataFile",
    "DatasetItems",
    "DatasetSpec",
    "DatasetSplit",
    "DiagnosticContext",
    "DiagnosticSpec",
    "Frozen",
    "ImageShape",
    "InitializationContext",
    "InitializationSpec",
    "ListItems",
    "Memoize",
    "NoParams",
    "Params",
    "PerturbationSpec",
    "Preprocessing",
    "RateFactor",
    "ReportPart",
    "SourceNeed",
    "Spec",
    "Subject",
    "SubmittedTrial",
    "Weights",
    "uncached",
]

T = TypeVar("T")

LABEL_LENGTH, LABEL_DIGITS = 80, 8

BY_PARAMS = frozenset({
    "absent_classes", "channels", "folder", "grouping", "metric", "needs_root",
    "shared_between_splits", "task",
})  # fmt: skip
"""The fields of a dataset whose values its parameters may decide."""

HEAD = "head"
"""The name of the last module of every backbone: the classifier, replaced for each target."""

ImageShape: TypeAlias = tuple[int, int, int]
"""(H, W, C) of one image."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
Task = Literal["multi-class", "multi-label"]
Metric = Literal["accuracy", "auc", "balanced-accuracy", "macro-auc"]
METRICS: Mapping[Task, tuple[Metric, ...]] = {
    "multi-class": ("accuracy", "balanced-accuracy", "macro-auc"),
    "multi-label": ("accuracy", "balanced-accuracy", "auc"),
}
"""The metrics of each task."""
Need = Literal["init_state", "trajectory", "history", "logits", "features", "images", "gradients"]
SourceNeed = Literal["state", "head", "training"]


class Frozen(BaseModel):
    """An immutable model that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Params(Frozen):
    """Base class of plugin parameters: subclass it; each field has a type, bounds, a default."""


class NoParams(Params):
    """A plugin that takes no parameters."""


class Spec(Frozen):
    """The fields that plugins of all kinds declare."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: Name
    """Lower-case letters, digits, dots, hyphens and underscores; unique within the kind."""
    version: Annotated[int, Field(ge=1)]
    """Incremented whenever the plugin's numbers change; part of every id."""
    summary: Annotated[str, Field(min_length=1)]
    """One line, shown in lists."""
    source: Annotated[str, Field(min_length=1)]
    """The paper or other origin."""
    license: Annotated[str, Field(min_length=1)]
    """An SPDX identifier where one exists."""
    params: type[Params] = NoParams
    """Validates the parameters when a suite is loaded, before anything runs."""
    tiny: dict[str, Any] = {}
    """Parameters small enough for conformance checks that run in seconds."""

    def parse(self, values: Mapping[str, Any]) -> Params:
        """Validate parameters: nothing is coerced. Raises: pydantic's ``ValidationError``."""
        # As JSON, where a list is a tuple's strict form; infinity and NaN are left to the fields.
        text = to_json(dict(values), inf_nan_mode="constants")
        return self.params.model_validate_json(text, strict=True)

    def accepts(self, values: Mapping[str, Any]) -> bool:
        """Whether these parameters are valid."""
        try:
            self.parse(values)
        except ValidationError:
            return False
        return True


# --- datasets ---------------------------------------------------------------------------------


class DataFile(Frozen):
    """A file that a dataset reads: its path below the root, digest, size and where to get it."""

    path: str
    """Path below the dataset's root."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Digest of the content."""
    size_bytes: Annotated[int, Field(ge=0)]
    """Size of the content, uncompressed."""
    origin: str
    """Where to get the file."""


class DatasetSplit(NamedTuple):
    """One decoded split.

    images: uint8, (N, H, W, C) with C of 1 or 3, in memory or memory-mapped.
    labels: int64 (N,) class indices, or float32 (N, L) of 0 and 1 for multi-label tasks, where NaN
    is an unknown label: it counts neither in the loss nor in the metric.
    groups: (N,) strings or integers; images of one group never end up in different splits.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


@runtime_checkable
class LoadDataset(Protocol):
    """Decode one split into square images of side ``image_size``.

    Deterministic: equal arguments return equal pixels in the same order. ``root``: the folder of
    the dataset's files, None for a dataset without files.
    """

    def __call__(
        self, params: Any, split: str, root: Path | None, image_size: int
    ) -> DatasetSplit: ...


class DatasetItems(NamedTuple):
    """One split whose pictures are decoded by the framework: in parallel, once, in bounded memory.

    labels: as in DatasetSplit; their number is that of the pictures.
    groups: as in DatasetSplit.
    read: ``read(i)`` gives picture i as the path of its file, as the bytes of one, or as pixels:
    uint8 (H, W) or (H, W, C) of any size, C of 1, 3 or 4. Several threads call it at once.
    """

    labels: np.ndarray
    groups: np.ndarray
    read: Callable[[int], Path | bytes | np.ndarray]


@runtime_checkable
class ListItems(Protocol):
    """List the pictures of one split; the same pictures in the same order on every call."""

    def __call__(self, params: Any, split: str, root: Path | None) -> DatasetItems: ...


class DatasetSpec(Spec):
    """A labelled image dataset whose splits never divide a group.

    It gives ``items``, or decodes itself in ``load``: exactly one of the two.
    """

    items: ListItems | None = None
    """Lists the pictures of one split."""
    load: LoadDataset | None = None
    """Decodes one split into memory."""
    classes: Callable[[Any, Path | None], tuple[str, ...]]
    """``classes(params, root)``: the names of classes or labels, in the order of the indices."""
    task: Task = "multi-class"
    """One class per image, or several labels."""
    metric: Metric = "accuracy"
    """``accuracy``; ``balanced-accuracy``, the mean over classes of the accuracy on each.

    The area under the ROC curve: ``auc``, the mean over the labels of a multi-label task, and
    ``macro-auc``, the mean over the classes of a multi-class task, each against the rest.
    """
    splits: tuple[str, ...] = ("train", "test")
    """Names of the splits."""
    channels: Literal[1, 3]
    """1 for grey images, 3 for colour."""
    grouping: Annotated[str, Field(min_length=1)]
    """A description of a group, such as "a writer"."""
    shared_between_splits: str = ""
    """Which images or groups are in two splits and why, where the dataset is published so.

    Shown wherever the dataset is. Without it, such a dataset is refused.
    """
    pictured: bool = True
    """Whether a report may have pictures of its images; False where its agreement forbids it."""
    absent_classes: str = ""
    """Which classes have no image in a split and why, where the dataset is published so.

    Without it, such a dataset is refused.
    """
    files: tuple[DataFile, ...] = ()
    """The files to be present below the root, checked by digest."""
    needs_root: bool = False
    """Whether ``--data-root`` is required."""
    folder: str = ""
    """The folder of its files below the data root; where empty, that of its name."""
    by_params: Callable[[Any], Mapping[str, Any]] | None = None
    """``by_params(params)``: other values of fields, for datasets whose parameters decide them.

    Of ``task``, ``metric``, ``channels``, ``grouping``, ``shared_between_splits``,
    ``absent_classes``, ``folder`` and ``needs_root``. The spec itself describes the default.
    """
    member: str | None = None
    """The parameter that ``CIFAR10`` in ``torchvision/CIFAR10`` sets, for a family of datasets."""
    members: Callable[[], Sequence[str]] | None = None
    """The values of ``member``, for lists and suggestions."""
    preset: dict[str, Any] = {}
    """The parameters that a name ``FAMILY/MEMBER`` has set: of what the registry returns for it."""
    notes: Callable[[Any, Path | None], Sequence[str]] | None = None
    """``notes(params, root)``: sentences for the user on what was read and what was left out."""
    requires: tuple[str, ...] = ()
    """Distributions that the loader needs and the core does not install."""

    @model_validator(mode="after")
    def _one_way_to_read(self) -> Self:
        if (self.items is None) == (self.load is None):
            raise ValueError(f"dataset {self.name!r} must give items or load, one of them")
        return self

    @model_validator(mode="after")
    def _metric_of_task(self) -> Self:
        if self.metric not in METRICS[self.task]:
            choices = ", ".join(METRICS[self.task])
            raise ValueError(
                f"dataset {self.name!r} is {self.task} and has metric {self.metric!r}; choose of "
                f"{choices}"
            )
        return self

    @model_validator(mode="after")
    def _member_is_a_parameter(self) -> Self:
        if self.member is not None and self.member not in self.params.model_fields:
            raise ValueError(f"dataset {self.name!r}: member {self.member!r} is no parameter")
        if self.members is not None and self.member is None:
            raise ValueError(f"dataset {self.name!r} lists members and names no member parameter")
        return self

    def parse(self, values: Mapping[str, Any]) -> Params:
        """Validate parameters, with those of ``preset``. Raises: as ``Spec.parse``."""
        for key in self.preset.keys() & values.keys():
            if values[key] != self.preset[key]:
                reason = PydanticCustomError("preset", "the dataset's name says another one")
                detail = InitErrorDetails(type=reason, loc=(key,), input=values[key])
                raise ValidationError.from_exception_data(self.params.__name__, [detail])
        return super().parse({**values, **self.preset})

    def with_params(self, params: Any) -> Self:
        """The dataset as these parameters make it. Raises: ``ValueError`` for other fields."""
        values = self.by_params(params) if self.by_params else {}
        if others := sorted(values.keys() - BY_PARAMS):
            raise ValueError(f"by_params gives {', '.join(others)}, which parameters cannot decide")
        return type(self)(**{**dict(self), **values}) if values else self

    @property
    def reads_users_folder(self) -> bool:
        """Whether the images are the user's own: files below the root that are not declared."""
        return self.needs_root and not self.files


# --- perturbations ----------------------------------------------------------------------------


@runtime_checkable
class BuildIndex(Protocol):
    """The gather map of a permutation of an image's values.

    Value j of the perturbed image, flattened HWC, is value ``map[j]`` of the original.
    ``image_ids``: int64 positions in the split, for maps that differ between images; the map of
    an image depends only on its own id and the seed.

    Shapes: returns int32 (M, H*W*C), M = 1 (one map for all images) or ``len(image_ids)``.
    """

    def __call__(
        self, params: Any, image_shape: ImageShape, seed: int, image_ids: np.ndarray
    ) -> np.ndarray: ...


@runtime_checkable
class BuildTransform(Protocol):
    """Build a function ``(images, image_ids) -> images`` on batches, on any device, not in place.

    Shapes: the function takes and returns float32 (N, C, H, W): values in [0, 1] for stage
    ``pixels``, normalised values for stage ``normalised``. ``image_ids`` as in BuildIndex.
    """

    def __call__(
        self, params: Any, image_shape: ImageShape, seed: int
    ) -> Callable[[Tensor, np.ndarray], Tensor]: ...


class PerturbationSpec(Spec):
    """A transform of the input images: exactly one of ``index`` and ``build`` is set."""

    index: BuildIndex | None = None
    """Builds a permutation of the values of an image."""
    runs: BuildIndex | None = None
    """The same permutation as ``index`` in runs of equal length, int32 (M, R).

    Run j of the result is run ``runs[m, j]`` of the image. Optional, for maps that differ between
    images: they are built for every batch, and R indices per image are faster than H*W*C.
    """
    build: BuildTransform | None = None
    """Builds any other transform."""
    stage: Literal["pixels", "normalised"] = "normalised"
    """Before or after normalisation; a permutation of whole pixels commutes with it."""
    applies_to: frozenset[Literal["train-and-test", "test-only"]] = frozenset(
        {"train-and-test", "test-only"}
    )
    """How a suite may use it."""
    check: Callable[[Any, ImageShape], str | None] = lambda params, image_shape: None
    """An error message where the parameters do not fit images of this shape, else None."""
    severity: Callable[[Any, ImageShape], float]
    """Strength of the perturbation: 0 for the identity, larger is stronger."""
    severity_is_distance: bool = True
    """Whether the distance to the clean images grows with the severity.

    False where the severity is a published level without that meaning.
    """

    @model_validator(mode="after")
    def _one_builder(self) -> Self:
        if (self.index is None) == (self.build is None):
            raise ValueError(f"perturbation {self.name!r} must give index or build, one of them")
        if self.runs is not None and self.index is None:
            raise ValueError(f"perturbation {self.name!r} gives runs, which go with index")
        return self


# --- backbones --------------------------------------------------------------------------------


class Preprocessing(Frozen):
    """Input normalisation: (pixels / 255 - ``mean``) / ``std``, one value per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Weights(Frozen):
    """External weights that a backbone can load."""

    tag: str
    """The name to pass to ``--weights``."""
    origin: str
    """Where the weights come from."""
    license: str
    """Licence of the weights."""
    pretrained_on: str
    """The names of the pre-training datasets."""
    sha256: str | None = None
    """Digest of the file, if known."""
    classes: int | None = None
    """Number of classes of the pre-trained head."""
    preprocessing: Preprocessing | None = None
    """The input normalisation that they expect; none for that of the backbone."""

    @property
    def label(self) -> str:
        """The weights in the name of an entry: the tag, and part of the digest where it is there.

        Two files of one name are two entries, since their digests differ. Other characters than
        those of an entry's name are replaced.
        """
        text = unicodedata.normalize("NFKD", self.tag).encode("ascii", "ignore").decode()
        name = re.sub(r"[^A-Za-z0-9._+-]+", "-", text)[:LABEL_LENGTH].strip("-") or "weights"
        return f"{name}@{self.sha256[:LABEL_DIGITS]}" if self.sha256 else name


class RateFactor(Frozen):
    """A learning rate factor of some parameters."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, use_attribute_docstrings=True)

    pattern: str
    """Regular expression, searched for in the names of parameters."""
    factor: Annotated[float, Field(gt=0)]
    """Factor of the learning rate."""


@runtime_checkable
class BuildBackbone(Protocol):
    """Build a network with the backbone's own random initialization.

    Draws come from torch's global generator, which the framework seeds and restores: the builder
    must not seed it.

    Shapes: the network maps float (N, C, H, W) to logits (N, num_classes).
    """

    def __call__(self, params: Any, num_classes: int, in_chans: int, image_size: int) -> Module: ...


class BackboneSpec(Spec):
    """A network family and its partition into modules."""

    build: BuildBackbone
    """Builds a network."""
    modules: Callable[[Module], Mapping[str, Sequence[str]]]
    """The partition: module name -> prefixes of the names of its parameters and buffers.

    From input to output. Each name belongs to exactly one module; the last module is HEAD.
    """
    head: Callable[[Module], Module]
    """The final layer, which maps the penultimate features to the logits.

    Several layers, such as those of a distilled network, are given in an ``nn.ModuleList``: the
    network combines their outputs, and its features are their distinct inputs side by side.
    """
    member: str | None = None
    """The parameter that ``resnet18`` in ``timm/resnet18`` sets, for a family of networks."""
    members: Callable[[], Sequence[str]] | None = None
    """The values of ``member``, for lists and suggestions."""
    preprocessing: Callable[[Any], Preprocessing | None] = lambda params: None
    """The input normalisation that the external weights expect."""
    batch_statistics: Callable[[Any], bool] = lambda params: False
    """Whether the network has buffers of batch statistics, as BatchNorm does."""
    rate_factors: tuple[RateFactor, ...] = ()
    """Learning rate factors of parameters such as Fixup's scalars; the first match applies."""
    weights: Callable[[Any], Sequence[Weights]] = lambda params: ()
    """The external weights that are available by tag."""
    load_weights: Callable[[Any, Module, str], str | None] | None = None
    """``load_weights(params, net, tag_or_file)`` fills the body of ``net`` in place.

    It may return a line on what it ignored or changed, which the user reads. The environment
    variable ``HF_HUB_OFFLINE`` is set to 1 where the network is refused. The head of a network with
    as many classes as that of the weights is filled too.
    """
    classes_in: Callable[[Any, str], int | None] = lambda params, file: None
    """``classes_in(params, file)``: the number of classes of the pre-trained head in a file.

    None where it holds none. A head that is known predicts the classes that it was trained on.
    """


# --- initializations --------------------------------------------------------------------------


class InitializationContext(NamedTuple):
    """The inputs of an initialization.

    source_state: the pre-trained network's parameters and buffers without the head's, or None.
    modules: the backbone's partition, module name -> names of parameters and buffers.
    generator: the only source of randomness to use (on the CPU).
    images: one normalised batch (N, C, H, W) of target training images, or None.
    """

    source_state: Mapping[str, Tensor] | None
    modules: Mapping[str, Sequence[str]]
    generator: Generator
    images: Tensor | None


@runtime_checkable
class Initialize(Protocol):
    """Set the weights of ``net`` in place; its head already has a new random initialization."""

    def __call__(self, params: Any, net: Module, context: InitializationContext) -> None: ...


class InitializationSpec(Spec):
    """The initial weights of a target network."""

    initialize: Initialize
    """Sets the weights."""
    needs: frozenset[Literal["source_weights", "images"]] = frozenset()
    """The inputs that the context must provide."""
    touches: Literal["nothing", "body", "everything"] = "body"
    """The weights that it may change; ``transferbench plugin check`` verifies it."""
    checkpoint: Callable[[Any], int | None] = lambda params: None
    """The pre-training epoch whose weights it needs (None: the last)."""
    draw: Literal["replicate", "shared", "second"] = "replicate"
    """The random network that ``initialize`` receives.

    One per replicate, one shared by all replicates, or a second one per replicate, independent of
    the first.
    """


# --- diagnostics ------------------------------------------------------------------------------


class TrialFacts(Protocol):
    """The facts that a diagnostic and a recomputation both read of a trial."""

    @property
    def job(self) -> str: ...
    @property
    def task(self) -> Task: ...
    @property
    def metric(self) -> Metric: ...
    @property
    def chance(self) -> float: ...
    @property
    def labels(self) -> np.ndarray: ...


class Subject(TrialFacts, Protocol):
    """A finished trial (or a source network) as a diagnostic sees it; artefacts are read lazily.

    ``job``: the trial's id. ``chance``: the metric of the best constant prediction.
    ``labels``, ``logits``, ``features``: of the test subset in its fixed order, labels int64 (N,)
    or float32 (N, L) with NaN for unknown ones, logits (N, K) and penultimate features (N, D) of
    the final state.
    ``history``: one mapping per evaluated epoch, with ``epoch``, ``train_metric``, ``train_loss``,
    ``test_metric``, ``test_loss``, ``validation_metric``; None where not evaluated or not finite,
    as after divergence. Epoch 0 is the initial state; the last epoch always has train and test.
    Metrics are fractions, in eval mode on clean inputs.
    ``modules``: the backbone's partition. ``epochs``: the epochs whose states are stored.
    Of external weights there are ``modules``, the final state and its networks alone, and
    ``history`` is empty.
    """

    @property
    def history(self) -> Sequence[Mapping[str, float | None]]: ...
    @property
    def logits(self) -> np.ndarray: ...
    @property
    def features(self) -> np.ndarray: ...
    @property
    def modules(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def epochs(self) -> Sequence[int]: ...
    def state(self, which: str | int = "final") -> Mapping[str, Tensor]:
        """The state dict ``init``, ``final``, ``best``, or that of a stored epoch."""
        ...

    def fresh(self, seed: int) -> Mapping[str, Tensor]:
        """The state dict of a new random initialization of the whole network."""
        ...

    def network(self, which: str | int = "final") -> Module:
        """A network holding ``state(which)``, in eval mode on the context's device."""
        ...

    def head(self, net: Module) -> Module:
        """The head of a ``network``, which maps the penultimate features to the logits.

        A layer, or a module of several: an ``nn.ModuleList``, which is never called itself.
        """
        ...

    def images(self, split: str, limit: int | None = None) -> Tensor:
        """Normalised, perturbed images (N, C, H, W) of ``train`` or ``test`` in fixed order.

        Where they take much memory, a view that makes batches of them: go through them with
        ``torch.split``, a slice or indices. Any other use makes all of them at once.
        """
        ...

    def perturbed(
        self, name: str, params: Mapping[str, Any], seed: int, split: str, limit: int | None = None
    ) -> Tensor:
        """``images(split, limit)`` under a registered perturbation instead of the trial's own."""
        ...

    def targets(self, split: str, limit: int | None = None) -> Tensor:
        """The labels of ``images(split, limit)``."""
        ...


class SubmittedTrial(TrialFacts, Protocol):
    """A finished trial as far as a submission holds it: its predictions and its history.

    ``classes``: how many the dataset has, or labels of a multi-label task.
    ``items``: the positions of the test subset in the test split, int64 (N,). ``labels``: int32
    (N,) or int8 (N, L), float32 (N, L) with NaN where some are unknown. ``predicted``: classes
    int32 (N,), or bool (N, L) for a multi-label task.
    ``scores``: the logits, float32 (N, L) of a multi-label task and (N, K) of classes that a metric
    ranks images by; None otherwise.
    ``history``: as that of a ``Subject``, with the metrics that the submission records by epoch
    alone; None where it records none.
    """

    @property
    def classes(self) -> int: ...
    @property
    def items(self) -> np.ndarray: ...
    @property
    def predicted(self) -> np.ndarray: ...
    @property
    def scores(self) -> np.ndarray | None: ...
    @property
    def history(self) -> Sequence[Mapping[str, float | None]] | None: ...


class Memoize(Protocol):
    """The result of ``compute``, from a cache of this worker where it holds ``key``.

    For results that several diagnoses of one network share, such as its features on the same
    images. The key must contain all that the result depends on; do not modify the result.
    """

    def __call__(self, key: Hashable, compute: Callable[[], T]) -> T: ...


def uncached(key: Hashable, compute: Callable[[], T]) -> T:
    """A ``Memoize`` that stores nothing."""
    del key
    return compute()


class DiagnosticContext(NamedTuple):
    """The inputs of a diagnostic beside its subjects.

    device: where to compute.
    generator: the only source of randomness to use (on the CPU), seeded with ``seed``.
    once: a cache of results that several diagnoses share.
    """

    device: device
    generator: Generator
    seed: int
    once: Memoize = uncached


@runtime_checkable
class Measure(Protocol):
    """Measure finished trials without training; networks keep their weights and mode."""

    def __call__(
        self, params: Any, subjects: Sequence[Subject], context: DiagnosticContext
    ) -> Iterable[Measurement]: ...


@runtime_checkable
class Recompute(Protocol):
    """Measure trials from what a submission holds of them, to check the values that it reports.

    The content is not trusted: read it as data alone.
    """

    def __call__(self, params: Any, trials: Sequence[SubmittedTrial]) -> Iterable[Measurement]: ...


class _ImportedWhenCalled(NamedTuple):
    """A function of the module in ``name``, which is ``module:function``."""

    name: str

    def __call__(self, *args: Any) -> Any:
        return resolve_name(self.name)(*args)


def _function(function: Any) -> Any:
    if not isinstance(function, Hashable):
        raise ValueError("must be hashable: diagnostics with equal functions share a part")  # noqa: TRY004  # pydantic reports a ValueError
    return _ImportedWhenCalled(function) if isinstance(function, str) else function


class ReportPart(Frozen):
    """How the measurements of a diagnostic are shown in the report of a run.

    Diagnostics with equal ``build`` share one part, drawn once for all of them. What a part is
    made from is in ``transferbench.reporting``.
    """

    build: Annotated[Callable[[Scope], Part | None], BeforeValidator(_function)]
    """Makes the part of one entry; None where there is nothing to show.

    Or its name, ``module:function``: the module is imported when a report is written.
    """
    metrics: frozenset[str]
    """The metrics that the part shows; a table at the end of the report lists all others."""


class DiagnosticSpec(Spec):
    """Measurements of one finished trial, of a pair or of a group."""

    measure: Measure
    """Yields the measurements."""
    recompute: Recompute | None = None
    """Yields those measurements whose values follow from a submission; intervals are not compared.

    They must have the metric, coordinates, value and ``n`` that ``measure`` gives them, and of a
    metric they must be all: a submission with others is refused.
    """
    subjects: Literal["one", "pair", "group"]
    """The number of trials; a pair may be followed by reference trials that the suite names."""
    needs: frozenset[Need] = frozenset()
    """The artefacts and data of its subjects that it reads, so that trials store them."""
    needs_of_source: SourceNeed = "training"
    """What it reads of a source network that is its last subject, or its only one.

    ``state``: the final weights; ``head``: these, and the classes that its head predicts;
    ``training``: what the training left, such as history, other states or images. External weights
    have no training, and a head where it is known: what they lack is not measured of them.
    """
    cost: Callable[[Any], float] = lambda params: 0.0
    """Forward passes over the evaluation subset, for the plan's time estimate."""
    limit: Callable[[Any], int | None] = lambda params: None
    """The maximum number of images in each of these passes (None: all)."""
    perturbations: Callable[[Any], Iterable[str]] = lambda params: ()
    """Names of the perturbations that ``Subject.perturbed`` is called with.

    Their versions become part of the diagnosis's id.
    """
    settings: Callable[[Any], Iterable[tuple[str, Mapping[str, Any]]]] = lambda params: ()
    """The perturbations among its parameters, each with its own parameters.

    They are checked when a suite is loaded.
    """
    states: Callable[[Any], Iterable[str]] = lambda params: ()
    """The states, such as ``best``, that its parameters name, beside those that it ``needs``.

    ``--keep final`` stores them.
    """
    epochs: Callable[[Any], Iterable[int]] = lambda params: ()
    """The epochs whose states it reads: a suite stores them as checkpoints of the trials."""
    metrics: frozenset[str] = frozenset()
    """Names of all metrics that it measures: claims and boards on others are refused.

    None declared: any name is accepted, and a claim on one that is not measured is undecided.
    """
    ranges: Mapping[str, tuple[float, float]] = {}
    """Metric -> the least and the largest value that its definition allows; one may be infinite.

    Intervals over replicates, of values and of differences, end there, and next to an end they
    reach further from it. Without a range a metric may be skewed anywhere, and its intervals over
    replicates are 2.9 (n = 3) to 2.0 (n = 10) times as wide; ``(-inf, inf)`` states that it is not.
    """
    identical: Mapping[str, float] = {}
    """Known answer: metric -> its value for a network compared with itself.

    With coordinates ``module`` and ``other_module``: where both name the same module.
    """
    symmetric: frozenset[str] = frozenset()
    """Known answer: metrics of a pair that do not change when its two subjects are swapped."""
    unknown_labels: bool = False
    """Whether it leaves out labels that are unknown (NaN), or reads no labels.

    Without it a plan that measures trials with such labels is refused.
    """
    answers_within: Annotated[float, Field(ge=0)] = 1e-6
    """Absolute tolerance of the known answers."""
    report: ReportPart | None = None
    """Its part of a run's report; without one, its means are listed in a table."""


# --- former names -----------------------------------------------------------------------------

_RENAMED = {"Once": "Memoize", "each_time": "uncached"}

if not TYPE_CHECKING:  # a type checker would take every misspelt name for an attribute

    def __getattr__(name: str) -> Any:
        if name not in _RENAMED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        message = f"{__name__}.{name} is deprecated; its name is {_RENAMED[name]} now"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return globals()[_RENAMED[name]]
