"""The backbone example-convnet passes all checks, and its distribution offers it."""

from __future__ import annotations

from collections.abc import Callable

from transferbench.conformance import parametrize_with_checks
from transferbench.registry import load_registry

from transferbench_example_convnet import SPEC

DISTRIBUTION = "transferbench-example-convnet"


@parametrize_with_checks([SPEC])
def test_conforms(check: Callable[[], None]) -> None:
    check()


def test_the_installed_distribution_offers_it() -> None:
    origin = load_registry().origin("backbone", SPEC.name)
    assert origin.startswith(f"{DISTRIBUTION} ")
