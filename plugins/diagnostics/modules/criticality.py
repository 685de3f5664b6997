"""Module criticality: how far a module can be rewound, and how much weight noise it tolerates.

mu(module, epsilon) = min { |theta(alpha) - theta(0)|^2 / sigma^2 : the network with the module at
theta(alpha) + N(0, sigma^2) has a risk of at most epsilon }. On the direct path theta(alpha) is
(1 - alpha) theta(0) + alpha theta(F), on the optimisation path the module at the stored epochs.

Source: Chatterji, Neyshabur, Sedghi, ICLR 2020, arXiv 1912.00528; Neyshabur et al. 2020, arXiv
2008.11687, Section 3.4 and Figure 6, for the second path and the second end.

Shape letters: A points of a path, S noise levels of which the first is 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from transferbench.records import Coordinate, Measurement
from transferbench.specs import HEAD, DiagnosticContext, DiagnosticSpec, Params, ReportPart, Subject
from transferbench_plugins.diagnostics._history import History, last_epoch, metric_curve
from transferbench_plugins.diagnostics._measurement import measurement
from transferbench_plugins.diagnostics.modules.swaps import TYPICAL_MODULES

if TYPE_CHECKING:
    from transferbench_plugins.diagnostics.modules._module_paths import ModulePaths, PathMap

__all__ = ["CRITICALITY", "Criticality", "CriticalityParams", "best_epoch", "criticality"]

Path = Literal["direct", "optimisation"]
Coordinates = dict[str, Coordinate]
PathTolerance = tuple[Path, float]

INFEASIBLE = "infeasible: no cell of the grid keeps the risk"
NOT_FINITE = "not finite, or not defined on these images"
NO_CHECKPOINT = "no epoch between was kept: the path is its two ends"
UNTOUCHED = "the module ends where it started"
NO_NOISE = "less than the smallest noise of the grid"


class CriticalityParams(Params):
    """``alphas``: points of the direct path, evenly spaced, both ends included.

    ``sigmas``: standard deviations of the weight noise; ``draws``: noise samples for each.
    ``limit``: train images. ``tolerances``: epsilon is the risk at the end plus each of these.
    ``risk``: the loss in nats, or the error, 1 - metric (the 0-1 loss for an accuracy).
    ``paths``: from initial to trained weights; ``ends``: the trained states.
    """

    alphas: Annotated[int, Field(ge=2, le=1001)] = 11
    sigmas: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (
        *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
    )
    draws: Annotated[int, Field(ge=1, le=1000)] = 3
    limit: Annotated[int, Field(ge=1)] = 500
    tolerances: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (0.1,)
    risk: Literal["loss", "error"] = "loss"
    paths: Annotated[tuple[Path, ...], Field(min_length=1)] = ("direct", "optimisation")
    ends: Annotated[tuple[Literal["final", "best"], ...], Field(min_length=1)] = ("final", "best")

    @field_validator("sigmas")
    @classmethod
    def _ascending(cls, sigmas: tuple[float, ...]) -> tuple[float, ...]:
        if list(sigmas) != sorted(set(sigmas)):
            raise ValueError(f"noise levels must ascend, from the weakest: {list(sigmas)} do not")
        return sigmas


class Criticality(NamedTuple):
    """The minimum, its alpha and sigma, and the feasible ranges; None if no cell is feasible.

    ``alpha_low``: all points from here to the end are feasible without noise.
    ``sigma_high``: the end is feasible up to this noise level, 0 if at no level of the grid.
    """

    mu: float | None
    mu_alpha: float | None
    mu_sigma: float | None
    alpha_low: float | None
    sigma_high: float | None


def measure(
    params: CriticalityParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """For each module, path and end: loss and metric over (alpha, sigma), mu for each tolerance.

    A module can be non-critical for two reasons: it can be rewound (``alpha_low``; ``distance`` is
    its distance from the start), or it tolerates noise (``sigma_high``). ``mu_total`` sums over all
    modules, or those of the body.
    On the optimisation path alpha is the epoch divided by that of the end. Paths and ends share
    noise samples. Noise is added to parameters only; buffers move along the path, so that
    alpha = 0 is the rewound network; batch statistics are recomputed in each cell from the same
    images.
    Units: nats; fraction; weight for sigma and distance (L2 over the module); mu is a ratio.
    Error: cells are f32 means over noise samples. mu is a minimum over the grid: a finer grid
    gives a smaller value.
    """
    import torch

    from transferbench_plugins.diagnostics.modules._module_paths import ModulePaths

    (subject,) = subjects
    modules = subject.modules
    seeds = torch.randint(2**62, (len(modules),), generator=context.generator).tolist()
    for end in params.ends:
        end_epoch = last_epoch(subject.history) if end == "final" else best_epoch(subject.history)
        measurements = _EndMeasurements(params, ModulePaths(subject, end, end_epoch, params), end)
        for (module, names), seed in zip(modules.items(), seeds, strict=True):
            yield from measurements.of_module(module, names, seed)
        yield from measurements.totals()


def best_epoch(history: History) -> int:
    """The epoch of the state ``best``: the first with the largest validation metric.

    As in training, outputs that are not finite do not count, and it is the last epoch where there
    are no others.
    """
    finite = [row for row in history if row.get("validation_loss", 0.0) is not None]
    epochs, values = metric_curve(finite, "validation_metric")
    return int(epochs[values.argmax()]) if len(values) else last_epoch(history)


def criticality(
    risks: np.ndarray,
    alphas: np.ndarray,
    distances: np.ndarray,
    sigmas: Sequence[float],
    epsilon: float | None,
) -> Criticality:
    """The criticality of one module from its map of risks.

    mu is 0 for a module that did not move: sufficiently small noise is always feasible.
    Shapes: risks (A, S), NaN for what is not finite; alphas and distances (A,); sigmas (S - 1,).
    """
    limit = -np.inf if epsilon is None else epsilon
    feasible_AS = risks <= limit
    squares_AS = (distances[:, None] / np.asarray(sigmas)) ** 2
    ratios_AS = np.where(feasible_AS[:, 1:], squares_AS, np.inf)
    # Among equal minima (all are 0) take the one with the most noise.
    index = int(ratios_AS[:, ::-1].argmin())
    row, column = index // len(sigmas), len(sigmas) - 1 - index % len(sigmas)
    mu = float(ratios_AS[row, column])
    alpha_low, sigma_high = _ranges(feasible_AS, alphas, sigmas)
    if np.isfinite(mu):
        return Criticality(mu, float(alphas[row]), sigmas[column], alpha_low, sigma_high)
    untouched = distances[-1] == 0 and feasible_AS[-1, 0]
    return Criticality(0.0 if untouched else None, None, None, alpha_low, sigma_high)


def _ranges(
    feasible_AS: np.ndarray, alphas: np.ndarray, sigmas: Sequence[float]
) -> tuple[float | None, float | None]:
    """``alpha_low`` and ``sigma_high``; None if the end itself is not feasible."""
    backwards_A, noise_S = feasible_AS[::-1, 0], feasible_AS[-1]
    if not backwards_A[0]:
        return None, None
    points, levels = (int(np.append(cells, False).argmin()) for cells in (backwards_A, noise_S))
    return float(alphas[len(alphas) - points]), (0.0, *sigmas)[levels - 1]


# --- measurements -----------------------------------------------------------------------------


class _EndMeasurements:
    """Measurements for one end: map and minima of each module and path, and their sums."""

    def __init__(self, params: CriticalityParams, paths: ModulePaths, end: str) -> None:
        self._params = params
        self._paths = paths
        self._end = end
        loss, metric = paths.at_end()
        error = None if metric is None else 1 - metric
        risk = loss if params.risk == "loss" else error
        self._epsilons = {t: None if risk is None else risk + t for t in params.tolerances}
        self._mus: dict[PathTolerance, dict[str, float | None]] = {}

    def of_module(self, module: str, names: Sequence[str], seed: int) -> Iterator[Measurement]:
        maps = self._paths.maps(names, seed)
        for path, path_map in zip(self._params.paths, maps, strict=True):
            coordinates: Coordinates = {"module": module, "path": path, "end": self._end}
            yield from self._cells(path_map, coordinates)
            risks = path_map.losses if self._params.risk == "loss" else 1 - path_map.metrics
            for tolerance, epsilon in self._epsilons.items():
                minimum = criticality(
                    risks, path_map.alphas, path_map.distances, self._params.sigmas, epsilon
                )
                self._mus.setdefault((path, tolerance), {})[module] = minimum.mu
                yield from self._minimum(minimum, {**coordinates, "tolerance": tolerance}, path)

    def totals(self) -> Iterator[Measurement]:
        for (path, tolerance), mus in self._mus.items():
            body = {module: mu for module, mu in mus.items() if module != HEAD}
            for modules, summands in (("all", mus), ("body", body)):
                missing = ", ".join(module for module, mu in summands.items() if mu is None)
                total = None if missing else sum(mu for mu in summands.values() if mu is not None)
                at: Coordinates = {"modules": modules, "path": path, "end": self._end}
                at["tolerance"] = tolerance
                why, flag = f"{INFEASIBLE} of {missing}", self._flag(path)
                yield self._row("mu_total", "ratio", total, at, missing=why, flag=flag)

    def _cells(self, path_map: PathMap, coordinates: Coordinates) -> Iterator[Measurement]:
        for row, alpha in enumerate(path_map.alphas):
            point: Coordinates = {**coordinates, "alpha": float(alpha)}
            yield self._row("distance", "weight", path_map.distances[row], point)
            for column, sigma in enumerate((0.0, *self._params.sigmas)):
                cell: Coordinates = {**point, "sigma": sigma}
                yield self._row("loss", "nats", path_map.losses[row, column], cell)
                yield self._row("metric", "fraction", path_map.metrics[row, column], cell)

    def _minimum(
        self, minimum: Criticality, coordinates: Coordinates, path: Path
    ) -> Iterator[Measurement]:
        units = ("ratio", "fraction", "weight", "fraction", "weight")
        missing = UNTOUCHED if minimum.mu == 0 else INFEASIBLE
        for metric, unit, value in zip(Criticality._fields, units, minimum, strict=True):
            flag = self._flag(path) if metric == "mu" else None
            if metric == "sigma_high" and value == 0:
                flag = NO_NOISE
            yield self._row(metric, unit, value, coordinates, missing=missing, flag=flag)

    def _flag(self, path: Path) -> str | None:
        return NO_CHECKPOINT if path == "optimisation" and not self._paths.epochs else None

    def _row(
        self,
        metric: str,
        unit: str,
        value: float | None,
        coordinates: Coordinates,
        *,
        missing: str = NOT_FINITE,
        flag: str | None = None,
    ) -> Measurement:
        n = self._paths.images
        return measurement(metric, value, unit, n, coordinates, missing=missing, flag=flag)


def _cost(params: CriticalityParams) -> float:
    """For a typical network, of which a swap runs half on average."""
    cells = params.alphas * (1 + len(params.sigmas) * params.draws)
    return len(params.ends) * len(params.paths) * cells * TYPICAL_MODULES / 2


CRITICALITY = DiagnosticSpec(
    name="criticality",
    version=2,
    summary="Weight rewinding and noise that each module tolerates: loss maps and criticality mu",
    source="Chatterji, Neyshabur, Sedghi, ICLR 2020, arXiv 1912.00528; arXiv 2008.11687, Figure 6",
    license="Apache-2.0",
    params=CriticalityParams,
    tiny={"alphas": 2, "sigmas": [0.01, 0.1], "draws": 1, "limit": 8},
    measure=measure,
    subjects="one",
    unknown_labels=True,
    metrics=frozenset(
        {
            "alpha_low",
            "distance",
            "loss",
            "metric",
            "mu",
            "mu_alpha",
            "mu_sigma",
            "mu_total",
            "sigma_high",
        }
    ),
    ranges={
        "metric": (0, 1),
        **dict.fromkeys(("distance", "loss", "mu", "mu_total", "sigma_high"), (0, math.inf)),
    },
    needs=frozenset({"init_state", "trajectory", "history", "images"}),
    cost=_cost,
    limit=lambda params: params.limit,
    report=ReportPart(
        build=f"{__package__}._criticality_report:criticality",
        metrics=frozenset({*Criticality._fields, "mu_total", "distance", "loss", "metric"}),
    ),
)
