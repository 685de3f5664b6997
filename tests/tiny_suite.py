"""A suite that runs in seconds, for tests of complete runs."""

from transferbench.suite import Suite

TINY = {
    "name": "tiny",
    "version": "1.0",
    "summary": "Printed to handwritten digits at 8 px, in seconds.",
    "backbones": ["fixup-resnet8"],
    "image": {"size": 8, "channels": 1, "mean": [0.5], "std": [0.5]},
    "sources": {
        "source": {
            "dataset": {"name": "glyphs", "params": {"characters": "digits", "per_class": 4}},
            "recipe": "short",
            "checkpoints": [0],
        }
    },
    "targets": {
        "handwriting": {
            "dataset": {"name": "digits"}, "labels_per_class": 3, "validation": 0.1,
            "validation_limit": 20, "test_limit": 60,
        }
    },
    "perturbations": {
        "none": {"name": "identity"},
        "block-2": {"name": "block-shuffle", "params": {"block": 2}},
    },
    "recipes": {
        "short": {
            "optimizer": "adamw", "learning_rate": 0.003, "epochs": 2, "batch_size": 10,
            "augmentation": {"shift": 1},
        }
    },
    "initializations": {
        "P-T": {"name": "pretrained", "recipe": "short"},
        "RI-T": {"name": "random", "recipe": "short"},
    },
    "replicates": 2,
    "trials": [{}],
    "diagnostics": {
        "curve": {"name": "learning-curve"},
        "speed": {"name": "speed"},
        "drop": {
            "name": "relative-drop", "pairs": [{"a": "P-T", "b": "RI-T", "replicates": "same"}]
        },
        "mistakes": {
            "name": "agreement",
            "on": {"perturbations": ["none"]},
            "pairs": [{"a": "P-T", "b": "RI-T", "replicates": "same"}],
        },
    },
    "claims": {
        "faster": {
            "statement": "P-T trains faster",
            "terms": [
                {"diagnostic": "speed", "metric": "speed", "initialization": "P-T"},
                {"diagnostic": "speed", "metric": "speed", "initialization": "RI-T", "weight": -1},
            ],
            "relation": "above",
        }
    },
    "scoring": {
        "initialization": "P-T", "baseline": "RI-T", "perturbation": "none",
        "chance": {"handwriting": 0.1}, "reference": {"handwriting": 0.98},
    },
}  # fmt: skip


def tiny_suite(**changes) -> Suite:
    """The tiny suite with top-level fields replaced."""
    return Suite.model_validate(TINY | changes)
