"""The measurements of one diagnosis, as a diagnostic yields them, each checked on arrival."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transferbench.errors import PluginError
from transferbench.records import Measurement
from transferbench.registry import blamed
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Subject

__all__ = ["measured"]

MAX_MEASUREMENTS = 100_000
"""Of one diagnosis; without a limit an endless generator fills the memory of its machine."""


def measured(
    spec: DiagnosticSpec,
    params: Mapping[str, Any],
    subjects: Sequence[Subject],
    context: DiagnosticContext,
) -> list[Measurement]:
    """Measure ``subjects``.

    Raises: ``PluginError`` for what is no measurement, for two of one metric and equal coordinates,
    and for more than ``MAX_MEASUREMENTS``.
    """
    name = f"diagnostic {spec.name!r}"
    measurements: dict[object, Measurement] = {}
    with blamed(name):
        for measurement in spec.measure(spec.parse(params), subjects, context):
            if not isinstance(measurement, Measurement):
                raise PluginError(
                    f"{name} yielded {type(measurement).__name__}; it must yield Measurement"
                )
            if measurement.key in measurements:
                at = f" at {measurement.coordinates}" if measurement.coordinates else ""
                raise PluginError(
                    f"{name} measured {measurement.metric}{at} twice; distinguish the values by a"
                    " coordinate"
                )
            measurements[measurement.key] = measurement
            if len(measurements) > MAX_MEASUREMENTS:
                raise PluginError(f"{name} yielded more than {MAX_MEASUREMENTS} measurements")
    return list(measurements.values())
