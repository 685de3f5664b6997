"""Plugins of all kinds in one file, which do something they should not at one place, and a run."""

from command_line import SMALL, suite_file

RAISE = 'raise RuntimeError("on purpose")'

OWN = """
import numpy as np

from transferbench import hookimpl
from transferbench.records import Measurement
from transferbench.specs import (
    BackboneSpec, DatasetSpec, DatasetSplit, DiagnosticSpec, InitializationSpec,
    PerturbationSpec, Preprocessing, Weights,
)

ABOUT = {{"version": 1, "summary": "s", "source": "s", "license": "l"}}


def reach(place):
    if place == {broken!r}:
        exec({action!r}, {{}})


reach("import")


@hookimpl
def transferbench_datasets():
    reach("hook")

    def classes(params, root):
        reach("classes")
        return ("dark", "light")

    def load(params, split, root, image_size):
        reach("load")
        labels = np.arange(20) % 2
        images = np.broadcast_to(labels[:, None, None, None] * 200, (20, image_size, image_size, 1))
        groups = np.arange(20) + 100 * (split == "test")
        return DatasetSplit(images.astype(np.uint8), labels, groups)

    yield DatasetSpec(name="own-data", **ABOUT, load=load, classes=classes, channels=1,
                      grouping="each image")


@hookimpl
def transferbench_perturbations():
    def check(params, shape):
        reach("check")

    def severity(params, shape):
        reach("severity")
        return 1.0

    def index(params, shape, seed, image_ids):
        reach("index")
        return np.arange(np.prod(shape), dtype=np.int32)[None, ::-1].copy()

    def each(params, shape, seed, image_ids):
        # The two images of the check before a run differ from a batch of ten.
        reach("each" if len(image_ids) > 2 else "")
        one = np.arange(np.prod(shape), dtype=np.int32)
        return np.stack([np.roll(one, item) for item in image_ids])

    def build(params, shape, seed):
        reach("build")

        def transform(images, image_ids):
            reach("transform")
            return 1 - images

        return transform

    yield PerturbationSpec(name="own-map", **ABOUT, index=index, check=check, severity=severity)
    yield PerturbationSpec(name="own-maps", **ABOUT, index=each, severity=lambda params, shape: 1.0)
    yield PerturbationSpec(name="own-transform", **ABOUT, build=build,
                           severity=lambda params, shape: 1.0)


@hookimpl
def transferbench_backbones():
    def build(params, num_classes, in_chans, image_size):
        from torch import nn

        class Flatten(nn.Flatten):
            def forward(self, images):
                reach("forward")
                return super().forward(images)

        reach("network")
        return nn.Sequential(nn.Conv2d(in_chans, 2, 3), Flatten(),
                             nn.Linear(2 * (image_size - 2) ** 2, num_classes))

    def modules(net):
        reach("modules")
        return {{"stem": ["0"], "head": ["2"]}}

    def head(net):
        reach("head")
        return net[2]

    def members():
        reach("members")
        return ["small"]

    def weights(params):
        reach("weights")
        return [Weights(tag="own-tag", origin="o", license="l", pretrained_on="p")]

    def load_weights(params, net, tag):
        reach("load_weights")

    def preprocessing(params):
        reach("preprocessing")
        return Preprocessing(mean=(0.5,), std=(0.5,))

    from transferbench.specs import Params

    class Member(Params):
        member: str

    rest = {{"build": build, "modules": modules, "head": head, "weights": weights,
            "load_weights": load_weights, "preprocessing": preprocessing}}
    yield BackboneSpec(name="own-net", **ABOUT, **rest)
    yield BackboneSpec(name="own-family", **ABOUT, **rest, params=Member, member="member",
                       members=members, tiny={{"member": "small"}})


@hookimpl
def transferbench_initializations():
    def initialize(params, net, context):
        reach("initialize")

    def checkpoint(params):
        reach("checkpoint")

    yield InitializationSpec(name="own-start", **ABOUT, initialize=initialize,
                             checkpoint=checkpoint, needs=frozenset({{"source_weights"}}))


@hookimpl
def transferbench_diagnostics():
    def measure(params, subjects, context):
        yield Measurement(metric="one", value=1.0, unit="fraction", n=1)
        reach("measure")

    def cost(params):
        reach("cost")
        return 1.0

    yield DiagnosticSpec(name="own-measure", **ABOUT, measure=measure, subjects="one", cost=cost)
"""

OWN_SUITE = SMALL | {
    "backbones": ["own-net"],
    "sources": {"source": {"dataset": {"name": "own-data"}, "recipe": "short"}},
    "targets": {"own": {"dataset": {"name": "own-data"}, "validation": 0.0}},
    "perturbations": {
        "none": {"name": "identity"},
        "map": {"name": "own-map"},
        "maps": {"name": "own-maps"},
        "transform": {"name": "own-transform"},
    },
    "initializations": {
        "P-T": {"name": "own-start", "recipe": "short"},
        "RI-T": {"name": "random", "recipe": "short"},
    },
    "diagnostics": {"speed": {"name": "speed"}, "measure": {"name": "own-measure"}},
    "scoring": SMALL["scoring"] | {"chance": {"own": 0.5}, "reference": {"own": 1.0}},
}
OWN_JOBS = 1 + 8 + 8 + 8


def own_file(folder, broken, action=RAISE):
    """A file of plugins of all kinds, which does something at one place."""
    plugin = folder / "own.py"
    plugin.write_text(OWN.format(broken=broken, action=action), encoding="utf-8")
    return plugin


def own_run(folder, broken, *arguments, action=RAISE):
    """The arguments of a run whose plugins all are of one such file."""
    plugin = own_file(folder, broken, action)
    return (suite_file(folder, OWN_SUITE), "--plugin", plugin, "--out", folder / "run",
            "--jobs", 1, "--device", "cpu", *arguments)  # fmt: skip
