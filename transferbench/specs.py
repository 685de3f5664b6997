"""The seam: what a plugin of each kind declares and promises.

A spec is plain, frozen data around one builder. Nothing here imports torch when it runs: a
plugin's builder may import what it needs when it is called, so that ``list`` and ``--help`` stay
fast.

Shape letters: N images, H height, W width, C channels, K classes, L labels, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
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
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from transferbench.records import Measurement

if TYPE_CHECKING:
    from torch import Generator, Tensor, device
    from torch.nn import Module
else:
    # pydantic reads the annotations of a spec when it runs, and torch must not be imported.
    Generator = Module = Tensor = device = Any

__all__ = [
    "HEAD",
    "BackboneSpec",
    "DataFile",
    "DatasetSpec",
    "DatasetSplit",
    "DiagnosticContext",
    "DiagnosticSpec",
    "ImageShape",
    "InitializationContext",
    "InitializationSpec",
    "NoParams",
    "Once",
    "Params",
    "PerturbationSpec",
    "Preprocessing",
    "RateFactor",
    "Spec",
    "Subject",
    "Weights",
    "each_time",
]

T = TypeVar("T")

HEAD = "head"
"""The name every backbone gives to the module that a new target replaces."""

ImageShape: TypeAlias = tuple[int, int, int]
"""(H, W, C) of one image."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
Task = Literal["multi-class", "multi-label"]
Metric = Literal["accuracy", "auc"]
Need = Literal["init_state", "trajectory", "history", "logits", "features", "images", "gradients"]


class Params(BaseModel):
    """The parameters of a plugin: subclass it, give each field a type, bounds and a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NoParams(Params):
    """A plugin that takes no parameters."""


class Spec(BaseModel):
    """What every plugin declares.

    ``version`` is bumped when the plugin's numbers change; it is part of every id.
    ``tiny`` holds parameters small enough for a check that runs in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: Name
    version: Annotated[int, Field(ge=1)]
    summary: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    license: Annotated[str, Field(min_length=1)]
    params: type[Params] = NoParams
    tiny: dict[str, Any] = {}

    @field_validator("tiny")
    @classmethod
    def _plain(cls, tiny: dict[str, Any]) -> dict[str, Any]:
        return dict(tiny)

    def parse(self, given: Mapping[str, Any]) -> Params:
        """``given`` as this plugin's parameters. Raises: pydantic's ``ValidationError``."""
        return self.params.model_validate(dict(given))

    def accepts(self, given: Mapping[str, Any]) -> bool:
        """Whether ``given`` are parameters of this plugin."""
        try:
            self.parse(given)
        except ValidationError:
            return False
        return True


# --- datasets ---------------------------------------------------------------------------------


class DataFile(BaseModel):
    """A file that a dataset reads below its root: what it must be and where to get it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0)]
    origin: str


class DatasetSplit(NamedTuple):
    """One decoded split.

    images: uint8, (N, H, W, C) with C of 1 or 3, in memory or memory-mapped.
    labels: int64 (N,) class indices, or float32 (N, L) of 0 and 1 for multi-label tasks.
    groups: (N,) strings or integers; two images of one group are never in different splits.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


@runtime_checkable
class LoadDataset(Protocol):
    """Decode one split; ``root`` is the folder of the dataset's files (None: it needs none).

    Square images of side ``image_size``; the same call gives the same pixels in the same order.
    """

    def __call__(
        self, params: Any, split: str, root: Path | None, image_size: int
    ) -> DatasetSplit: ...


class DatasetSpec(Spec):
    """A labelled set of images with splits that never cross groups."""

    load: LoadDataset
    classes: Callable[[Any, Path | None], tuple[str, ...]]
    task: Task = "multi-class"
    metric: Metric = "accuracy"
    splits: tuple[str, ...] = ("train", "test")
    channels: Literal[1, 3]
    grouping: Annotated[str, Field(min_length=1)]
    files: tuple[DataFile, ...] = ()
    needs_root: bool = False
    requires: tuple[str, ...] = ()
    """Distributions the loader imports or reads that the core does not install."""


# --- perturbations ----------------------------------------------------------------------------


@runtime_checkable
class BuildIndex(Protocol):
    """The gather map of a permutation of an image's values.

    Shapes: returns int32 (M, H*W*C), M = 1 (one map for all images) or ``len(image_ids)``.
    Value j of the perturbed image, flattened HWC, is value ``map[j]`` of the original.
    ``image_ids``: int64 positions in the split, for maps that differ between images; the map of
    an image depends on its own id and the seed alone.
    """

    def __call__(
        self, params: Any, image_shape: ImageShape, seed: int, image_ids: np.ndarray
    ) -> np.ndarray: ...


@runtime_checkable
class BuildTransform(Protocol):
    """A function on a batch of images, on any device, that leaves its input untouched.

    Shapes: the function takes and returns float32 (N, C, H, W): values in [0, 1] where the stage
    is ``pixels``, normalised values where it is ``normalised``. ``image_ids`` as in BuildIndex.
    """

    def __call__(
        self, params: Any, image_shape: ImageShape, seed: int
    ) -> Callable[[Tensor, np.ndarray], Tensor]: ...


class PerturbationSpec(Spec):
    """A transform of the input images: either a permutation (``index``) or any other (``build``).

    ``severity`` orders parameters: 0 is the identity, larger is a stronger perturbation.
    ``severity_is_distance``: images move further from the clean ones as it grows; False where it
    is a published number that orders no distance.
    """

    index: BuildIndex | None = None
    runs: BuildIndex | None = None
    """``index`` told in runs of equal length, (M, R): run j of the result is run ``runs[m, j]``.

    Optional, for maps that differ between images: they are built for every batch, and R numbers
    an image are quicker than H*W*C. It must say what ``index`` says.
    """
    build: BuildTransform | None = None
    stage: Literal["pixels", "normalised"] = "normalised"
    applies_to: frozenset[Literal["train-and-test", "test-only"]] = frozenset(
        {"train-and-test", "test-only"}
    )
    check: Callable[[Any, ImageShape], str | None] = lambda params, image_shape: None
    """What is wrong with these parameters at this image shape, or None."""
    severity: Callable[[Any, ImageShape], float]
    severity_is_distance: bool = True

    @model_validator(mode="after")
    def _one_builder(self) -> Self:
        if (self.index is None) == (self.build is None):
            raise ValueError(f"perturbation {self.name!r} must give index or build, one of them")
        if self.runs is not None and self.index is None:
            raise ValueError(f"perturbation {self.name!r} gives runs, which go with index")
        return self


# --- backbones --------------------------------------------------------------------------------


class Preprocessing(BaseModel):
    """How a backbone wants its input: (pixels / 255 - mean) / std, one value a channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Weights(BaseModel):
    """Weights that a backbone can load from outside: what they are and what they have seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tag: str
    origin: str
    license: str
    pretrained_on: str
    sha256: str | None = None
    classes: int | None = None


class RateFactor(BaseModel):
    """Parameters whose name matches ``pattern`` (re.search) learn at ``factor`` times the rate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: str
    factor: Annotated[float, Field(gt=0)]


@runtime_checkable
class BuildBackbone(Protocol):
    """A new network with its own random initialization, drawn from torch's global generator.

    The framework seeds that generator inside a fork; the builder seeds nothing itself.
    Shapes: the network maps float (N, C, H, W) to logits (N, num_classes).
    """

    def __call__(self, params: Any, num_classes: int, in_chans: int, image_size: int) -> Module: ...


class BackboneSpec(Spec):
    """A network family and its declared partition into modules.

    ``modules(net)`` maps each module's name, from input to output, to prefixes of the names of
    its parameters and buffers; every one is covered exactly once, and the last module is HEAD.
    ``head(net)`` is the layer whose input are the features and whose output are the logits.
    ``member``: the parameter named by the part behind the slash in ``timm/resnet18``.
    ``load_weights(params, net, tag_or_file)`` fills the body of ``net``; it returns nothing.
    """

    build: BuildBackbone
    modules: Callable[[Module], Mapping[str, Sequence[str]]]
    head: Callable[[Module], Module]
    member: str | None = None
    members: Callable[[], Sequence[str]] | None = None
    preprocessing: Callable[[Any], Preprocessing | None] = lambda params: None
    batch_statistics: Callable[[Any], bool] = lambda params: False
    rate_factors: tuple[RateFactor, ...] = ()
    weights: Callable[[Any], Sequence[Weights]] = lambda params: ()
    load_weights: Callable[[Any, Module, str], None] | None = None


# --- initializations --------------------------------------------------------------------------


class InitializationContext(NamedTuple):
    """What an initialization may use.

    source_state: the pre-trained network's parameters and buffers without the head's, or None.
    modules: the backbone's partition, module name to state names.
    generator: the only randomness it may draw from (on the CPU).
    images: one normalised batch (N, C, H, W) of target training images, or None.
    """

    source_state: Mapping[str, Tensor] | None
    modules: Mapping[str, Sequence[str]]
    generator: Generator
    images: Tensor | None


@runtime_checkable
class Initialize(Protocol):
    """Set the weights of ``net`` in place; the head was drawn afresh and may be left alone."""

    def __call__(self, params: Any, net: Module, context: InitializationContext) -> None: ...


class InitializationSpec(Spec):
    """How a target network's weights start.

    ``checkpoint(params)``: the pre-training epoch whose weights it needs (None: the final one).
    ``draw``: which random draw of the whole network it starts from: its replicate's, one that all
    replicates share, or a second one of its replicate, independent of the other arms'.
    """

    initialize: Initialize
    needs: frozenset[Literal["source_weights", "images"]] = frozenset()
    touches: Literal["nothing", "body", "everything"] = "body"
    checkpoint: Callable[[Any], int | None] = lambda params: None
    draw: Literal["replicate", "shared", "second"] = "replicate"


# --- diagnostics ------------------------------------------------------------------------------


class Subject(Protocol):
    """A finished trial (or the source network), its artefacts read when first asked for.

    ``labels``: of the fixed ordered test subset, int64 (N,) or float32 (N, L).
    ``history``: one mapping an evaluated epoch, with ``epoch``, ``train_metric``, ``train_loss``,
    ``test_metric``, ``test_loss``, ``validation_metric``, None where not evaluated or not finite:
    of a network that diverged, all may be. Train and test are evaluated after the last epoch.
    Metrics are fractions in eval mode on clean inputs; epoch 0 is the initial state.
    """

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
        """The state dict ``init``, ``final``, ``best`` or of a kept epoch."""
        ...

    def fresh(self, seed: int) -> Mapping[str, Tensor]:
        """The state dict of another random draw of the whole network by its backbone."""
        ...

    def network(self, which: str | int = "final") -> Module:
        """A network holding ``state(which)``, in eval mode on the context's device."""
        ...

    def head(self, net: Module) -> Module:
        """The layer of a ``network`` whose input are the features."""
        ...

    def images(self, split: str, limit: int | None = None) -> Tensor:
        """Normalised, perturbed images (N, C, H, W) of ``train`` or ``test`` in fixed order."""
        ...

    def perturbed(
        self,
        name: str,
        params: Mapping[str, Any],
        seed: int,
        split: str,
        limit: int | None = None,
    ) -> Tensor:
        """``images(split, limit)`` under a registered perturbation instead of the trial's own."""
        ...

    def targets(self, split: str, limit: int | None = None) -> Tensor:
        """The labels that belong to ``images(split, limit)``."""
        ...


class Once(Protocol):
    """What ``compute`` gives, from memory where this worker has computed ``key`` before.

    For what several diagnoses need of one network, such as its features on the same images: the
    key says all that the value depends on, and nobody changes it.
    """

    def __call__(self, key: Hashable, compute: Callable[[], T]) -> T: ...


def each_time(key: Hashable, compute: Callable[[], T]) -> T:
    """``Once`` without a memory."""
    del key
    return compute()


class DiagnosticContext(NamedTuple):
    """Where a diagnostic computes, what it may draw from, and what it need not compute again."""

    device: device
    generator: Generator
    seed: int
    once: Once = each_time


@runtime_checkable
class Measure(Protocol):
    """Measure finished trials without training; models and mode are left as they were."""

    def __call__(
        self, params: Any, subjects: Sequence[Subject], context: DiagnosticContext
    ) -> Iterable[Measurement]: ...


class DiagnosticSpec(Spec):
    """A measurement of one finished trial, a pair of them or a group.

    ``cost(params)``: forward passes over the evaluation subset, for the plan's estimate;
    ``limit(params)``: of at most so many images each (None: of all).
    A pair's subjects after the first two are references, where the suite names some.
    Known answers, each to within ``answers_within``: ``identical``, metric -> the value that one
    network compared with itself gives, where a module is compared with itself (coordinates
    ``module`` and ``other_module``); ``symmetric``, the metrics of a pair that stay when the two
    exchange their places.
    """

    measure: Measure
    subjects: Literal["one", "pair", "group"]
    needs: frozenset[Need] = frozenset()
    cost: Callable[[Any], float] = lambda params: 0.0
    limit: Callable[[Any], int | None] = lambda params: None
    identical: Mapping[str, float] = {}
    symmetric: frozenset[str] = frozenset()
    answers_within: Annotated[float, Field(ge=0)] = 1e-6
