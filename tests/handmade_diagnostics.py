"""Synthetic measurements of all diagnostics of weights and features, and a suite with them.

The labels of the suite differ from the names of the plugins on purpose.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from transferbench.suite import Suite

ENTRY = "made-net"
REPLICATES = 3
MODULES = ("stem", "stage1", "head")
LAMBDAS = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
SIGMAS = (0.0, 0.1, 1.0)
ALPHAS = (0.0, 0.5, 1.0)
EPOCHS = {"P0-T": 0, "P1-T": 1, "P2-T": 2, "P-T": 4}
SPEEDS = {"P-T": 0.9, "RI-T": 0.5, "MV-T": 0.7}
FLAG = "not a basin: loss 2.5 at 0.5 of the way is above 1.25"

PAIRS = [
    {"a": "P-T", "b": "P-T", "replicates": "different"},
    {"a": "RI-T", "b": "RI-T", "replicates": "different"},
    {"a": "P-T", "b": "RI-T", "replicates": "same"},
    {"a": "P-T", "b": "P", "replicates": "same"},
]
SAME_START = {"a": "RI-same", "b": "RI-same", "replicates": "different"}
FROM_SOURCE = [{"a": arm, "b": "P", "replicates": "same"} for arm in EPOCHS]
SCORES = ("leep", "nce", "h-score", "logme", "nleep", "linear-probe", "knn")
SUITE = {
    "name": "opened",
    "version": "1.0",
    "summary": "Synthetic measurements of networks.",
    "backbones": ["made"],
    "image": {"size": 8, "channels": 1, "mean": (0.5,), "std": (0.5,)},
    "sources": {"source": {"dataset": {"name": "toy"}, "recipe": "short"}},
    "targets": {"real": {"dataset": {"name": "toy"}}},
    "perturbations": {"none": {"name": "identity"}},
    "recipes": {"short": {"optimizer": "sgd", "learning_rate": 0.1, "epochs": 4, "batch_size": 8}},
    "initializations": {
        "P-T": {"name": "pretrained", "recipe": "short"},
        "RI-T": {"name": "random", "recipe": "short"},
        "RI-same": {"name": "same-random", "recipe": "short"},
        **{
            arm: {"name": "pretrained", "params": {"checkpoint": epoch}, "recipe": "short"}
            for arm, epoch in EPOCHS.items()
            if arm != "P-T"
        },
        "MV-T": {"name": "mean-var", "recipe": "short"},
        "P3-frozen": {
            "name": "pretrained",
            "params": {"checkpoint": 3},
            "recipe": "short",
            "frozen": True,
        },
    },
    "replicates": REPLICATES,
    "trials": ({},),
    "diagnostics": {
        "pace": {"name": "speed"},
        "alike": {"name": "cka", "pairs": PAIRS},
        "alike-too": {"name": "svcca", "pairs": PAIRS[:1]},
        "apart": {"name": "distance", "pairs": PAIRS},
        "line": {"name": "barrier", "pairs": [*PAIRS[:3], SAME_START]},
        "ends": {
            "name": "barrier",
            "params": {"endpoints": ("best", "final")},
            "pairs": [{"a": "P-T", "b": "P-T", "replicates": "same"}],
        },
        "renumbered": {"name": "aligned-barrier", "pairs": PAIRS[1:2]},
        "valley": {"name": "basin", "pairs": PAIRS[:2]},
        "back": {"name": "rewinding", "of": ("P-T", "RI-T")},
        "anew": {"name": "re-randomisation", "of": ("P-T", "RI-T")},
        "critical": {"name": "criticality", "of": ("P-T", "RI-T")},
        "start": {"name": "checkpoint-choice", "pairs": FROM_SOURCE},
        "spectra": {"name": "spectrum", "of": ("P-T", "RI-T")},
        "axes": {"name": "misalignment", "of": ("P-T", "RI-T")},
        **{f"by-{name}": {"name": name, "pairs": FROM_SOURCE} for name in SCORES},
        "bent": {"name": "robustness", "of": ("P-T", "RI-T")},
        "cues": {"name": "shape-bias", "of": ("P-T", "RI-T")},
    },
    "scoring": {
        "initialization": "P-T",
        "baseline": "RI-T",
        "perturbation": "none",
        "chance": {"real": 0.1},
        "reference": {"real": 0.9},
        "columns": [
            {
                "key": "pace",
                "title": "speed gain",
                "diagnostic": "pace",
                "metric": "speed",
                "of": "gain",
                "help": "how much faster P-T learns",
            }
        ],
    },
}


def opened_suite(**changes):
    """The suite above, with some of its fields replaced."""
    return Suite.model_validate({**SUITE, **changes}, strict=False)


class Opened:
    """Rows of measurements, from one seeded generator."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.rows = []

    def row(self, label, metric, value, arm, replicate, **more):
        """One measurement; ``value`` varies a little between replicates."""
        noisy = value if value is None else value * (1 + self.rng.normal(0, 0.03))
        cell = {"entry": ENTRY, "target": "real", "perturbation": "none", "n": 100}
        cell |= {"diagnostic": label, "metric": metric, "value": noisy, "unit": "fraction"}
        pair = {"other_initialization": None, "other_replicate": None}
        self.rows.append(
            cell | pair | {"initialization": arm, "replicate": replicate, "flag": None} | more
        )

    def pairs(self, chosen):
        """The labels of every pair of networks of these pairings."""
        for pairing in chosen:
            same = [(k, k) for k in range(REPLICATES)]
            apart = list(combinations(range(REPLICATES), 2))
            for i, j in same if pairing["replicates"] == "same" else apart:
                other = {"other_initialization": pairing["b"], "other_replicate": j}
                yield pairing["a"], i, other

    def everything(self):
        """A frame of all of them."""
        for part in (self.trials, self.likeness, self.lines, self.basins, self.modules,
                     self.critical, self.checkpoints, self.weights, self.perturbed):  # fmt: skip
            part()
        return pd.DataFrame(self.rows)

    def trials(self):
        reached = {"P0-T": 0.5, "P1-T": 0.9, "P2-T": 0.91, "P-T": 0.91, "RI-T": 0.6, "MV-T": 0.7}
        for k in range(REPLICATES):
            for arm, level in reached.items():
                self.row("trial", "test_metric", level + 0.001 * k, arm, k)
                self.row("trial", "train_metric", 0.95, arm, k)
            for arm, speed in SPEEDS.items():
                self.row("pace", "speed", speed, arm, k)

    def likeness(self):
        for arm, k, other in self.pairs(PAIRS):
            level = 0.9 if other["other_initialization"] == arm == "P-T" else 0.3
            for module in MODULES[:2]:
                for again in MODULES[:2]:
                    coordinates = other | {"module": module, "other_module": again}
                    size = level if module == again else level / 2
                    self.row("alike", "cka", size, arm, k, **coordinates)
                    if other["other_initialization"] == arm == "P-T":
                        self.row("alike-too", "svcca", size, arm, k, **coordinates)
            for module in ("body", *MODULES):
                coordinates = other | {"module": module}
                self.row("apart", "l2", 5 / level, arm, k, **coordinates)
                self.row("apart", "l2_normalised", 1 / level, arm, k, **coordinates)
                self.row("apart", "cosine", level, arm, k, **coordinates)

    def lines(self):
        for label, chosen in (
            ("line", [*PAIRS[:3], SAME_START]),
            ("ends", SUITE["diagnostics"]["ends"]["pairs"]),
            ("renumbered", PAIRS[1:2]),
        ):
            ways = ("before", "matched") if label == "renumbered" else (None,)
            for arm, k, other in self.pairs(chosen):
                for way in ways:
                    self.line(label, arm, k, other | {"split": "test", "alignment": way})

    def line(self, label, arm, k, coordinates):
        deep = 0.05 if arm == "P-T" else 0.5
        for at in LAMBDAS:
            dip = deep * 4 * at * (1 - at)
            self.row(label, "metric", 0.8 - max(dip, 0.0), arm, k, **coordinates, **{"lambda": at})
            self.row(label, "loss", 0.5 + abs(dip), arm, k, **coordinates, **{"lambda": at})
        for suffix in ("sup", "mid"):
            self.row(label, f"barrier_metric_{suffix}", deep, arm, k, **coordinates)
            self.row(label, f"barrier_metric_relative_{suffix}", deep / 0.8, arm, k, **coordinates)
            self.row(label, f"barrier_loss_{suffix}", deep * 2, arm, k, **coordinates)

    def basins(self):
        for arm, k, other in self.pairs(PAIRS[:2]):
            coordinates = other | {"split": "test", "of": "loss"}
            for at in LAMBDAS:
                self.row("valley", "loss", 1 + at**2, arm, k, **coordinates, **{"lambda": at})
            self.row("valley", "epsilon_segment", 0.2, arm, k, **coordinates)
            numbers = {"a_lo": -0.2, "a_hi": 1.2, "mu": 1.1, "epsilon": 0.004,
                       "delta": 40.0, "delta_excess": 50.0}  # fmt: skip
            for metric, value in numbers.items():
                lost = {"flag": FLAG} if arm == "RI-T" else {}
                self.row("valley", metric, None if lost else value, arm, k, **coordinates, **lost)
            for metric in ("escape_noise", "escape_extrapolation"):
                for sigma in SIGMAS if arm == "P-T" else ():
                    self.row("valley", metric, sigma, arm, k, **coordinates, sigma=sigma)

    def modules(self):
        for k in range(REPLICATES):
            for arm, lost in (("P-T", 0.1), ("RI-T", 0.4)):
                self.swap("back", "to", "final", ["init"], arm, k, lost)
                self.swap("anew", "draw", "final", [0, 1], arm, k, 1.5 * lost)

    def swap(self, label, name, whole, states, arm, k, lost):
        self.row(label, "metric", 0.8, arm, k, module="none", **{name: whole})
        for state in states:
            for module in (*MODULES, "all"):
                coordinates = {"module": module, name: state}
                self.row(label, "metric", 0.8 - lost, arm, k, **coordinates)
                self.row(label, "drop", lost, arm, k, **coordinates)
            self.row(label, "mean_body_drop", lost, arm, k, **{name: state})
            self.row(label, "worst_body_drop", 1.2 * lost, arm, k, **{name: state})

    def critical(self):
        for k in range(REPLICATES):
            for arm, gone in (("P-T", 1.0), ("RI-T", 4.0)):
                for path in ("direct", "optimisation"):
                    for module in MODULES:
                        self.module(arm, k, gone, {"module": module, "path": path, "end": "final"})
                    total = {"path": path, "end": "final", "tolerance": 0.1}
                    for which in ("all", "body"):
                        self.row("critical", "mu_total", 2 * gone, arm, k, modules=which, **total)

    def module(self, arm, k, gone, coordinates):
        for alpha in ALPHAS:
            self.row("critical", "distance", alpha * gone, arm, k, **coordinates, alpha=alpha)
            for sigma in SIGMAS:
                cell = coordinates | {"alpha": alpha, "sigma": sigma}
                self.row("critical", "metric", 0.9 - sigma / 2 - (1 - alpha) / 4, arm, k, **cell)
                self.row("critical", "loss", 0.2 + sigma, arm, k, **cell)
        at = coordinates | {"tolerance": 0.1}
        stuck = arm == "RI-T" and coordinates["module"] == "head"
        for metric, value in {"mu": gone, "alpha_low": 0.5, "sigma_high": 0.1}.items():
            lost = {"flag": "infeasible: no cell"} if stuck and metric == "mu" else {}
            self.row("critical", metric, None if lost else value, arm, k, **at, **lost)

    def checkpoints(self):
        for arm, k, other in self.pairs(FROM_SOURCE):
            epoch = EPOCHS[arm]
            coordinates = other | {"checkpoint": epoch}
            self.row("start", "target_metric", 0.5 + 0.1 * epoch, arm, k, **coordinates)
            self.row("start", "speed", 0.4 + 0.1 * epoch, arm, k, **coordinates)
            self.row("start", "source_metric", 0.2 * epoch, arm, k, **coordinates)
            for name, metrics in {
                "leep": ("leep",), "nce": ("nce",), "h-score": ("h_score", "regularised_h_score"),
                "logme": ("logme",), "nleep": ("nleep",), "linear-probe": ("probe_test_metric",),
            }.items():  # fmt: skip
                for metric in metrics:
                    self.row(f"by-{name}", metric, 1.0 + epoch, arm, k, **coordinates)
            for near in (1, 5):
                self.row("by-knn", "knn_accuracy", 0.9 - 0.1 * epoch, arm, k, **coordinates, k=near)

    def weights(self):
        for k in range(REPLICATES):
            for arm in ("P-T", "RI-T"):
                for of in ("final", "init"):
                    for module in MODULES:
                        self.layer(arm, k, {"module": module, "layer": f"{module}.w", "of": of})
                    coordinates = {"layer": "stem.w", "of": of}
                    for metric in ("misalignment", "misalignment_random", "shrinkage"):
                        self.row("axes", metric, 0.4, arm, k, **coordinates)

    def layer(self, arm, k, coordinates):
        for index in range(3):
            self.row(
                "spectra", "singular_value", 2.0 - index / 2, arm, k, **coordinates, index=index
            )
        for metric in ("stable_rank", "effective_rank", "spectral_norm", "frobenius_norm"):
            self.row("spectra", metric, 3.0, arm, k, **coordinates)

    def perturbed(self):
        for k in range(REPLICATES):
            for arm, level in (("P-T", 0.9), ("RI-T", 0.6)):
                self.row("bent", "test_metric", level, arm, k, test_perturbation="none", severity=0)
                for severity in (1, 2):
                    at = {"test_perturbation": "fog", "severity": severity}
                    self.row("bent", "test_metric", level / (1 + severity), arm, k, **at)
                for metric in ("mean_metric", "relative_metric", "corrected_relative_metric"):
                    for name in ("fog", "all"):
                        self.row("bent", metric, level / 2, arm, k, test_perturbation=name)
                for metric in ("shape_bias", "shape_answers", "texture_answers"):
                    self.row("cues", metric, level / 3, arm, k)
