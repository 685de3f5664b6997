"""A perturbation that prints wherever it can: through Python, the descriptor and C."""

import atexit
import ctypes
import os
import sys

from transferbench.hookspecs import hookimpl
from transferbench.specs import PerturbationSpec


def noise(where):
    print(f"noise in Python {where}")  # noqa: T201  # what it is for
    sys.__stdout__.write(f"noise in the first stdout {where}\n")
    sys.__stdout__.flush()
    os.write(1, f"noise in the descriptor {where}\n".encode())
    ctypes.CDLL(None).puts(f"noise in C {where}".encode())


def severity(params, image_shape):  # noqa: ARG001  # what every plugin is given
    noise("of the severity")
    return 1.0


def build(params, image_shape, seed):  # noqa: ARG001  # as severity
    noise("of the builder")

    def darker(images, image_ids):  # noqa: ARG001  # as severity
        noise("of the call")
        return images * 0.5

    return darker


@hookimpl
def transferbench_perturbations():
    noise("of the hook")
    about = {"summary": "half as bright", "source": "drawn here", "license": "CC0-1.0"}
    yield PerturbationSpec(name="noisy", version=1, **about, build=build, severity=severity)


noise("of the import")
atexit.register(noise, "of the end")
