"""The checks of any spec's own statements: texts and parameters."""

from __future__ import annotations

import re
from unittest import SkipTest

from transferbench.conformance.checks import Violation, defined_in
from transferbench.identity import canonical_json
from transferbench.registry import identity, parse_params
from transferbench.specs import Params, Spec

__all__ = ["CHECKS"]

# What a template leaves to be written.
PLACEHOLDER = re.compile(r"^\W*(todo|tbd|fixme|xxx|\?+|\.\.\.)", re.IGNORECASE)


def check_summary_source_and_licence_are_stated(spec: Spec) -> None:
    """Readers of a board need to know what it is, its origin, and whether they may use it."""
    for field in ("summary", "source", "license"):
        text = str(getattr(spec, field))
        if not text.strip() or PLACEHOLDER.match(text):
            raise Violation(
                f"{field} is {text!r}",
                f"state it in the spec: {field}='...' is shown on every list",
            )
        if "\n" in text:
            raise Violation(f"{field} has several lines", "tables show one: shorten it")


def check_tiny_parameters_are_accepted(spec: Spec) -> None:
    """The kit, and people who try the plugin out, run it with ``tiny``."""
    parse_params(spec, spec.tiny, origin="tiny")


def _tiny(spec: Spec) -> Params:
    try:
        return spec.parse(spec.tiny)
    except Exception as error:
        raise SkipTest("tiny is refused, see tiny-parameters-are-accepted") from error


def check_parameters_survive_json(spec: Spec) -> None:
    """Ids and jobs hold the parameters as JSON: reading them back must give the same values."""
    params = _tiny(spec)
    described = identity(spec, params)
    canonical_json(described)
    if (parsed := spec.parse(described["params"])) != params:
        raise Violation(
            f"{params!r} is {parsed!r} when it is read back from JSON",
            "give the parameters types that pydantic writes and reads alike",
        )


def check_every_parameter_has_a_type_that_refuses(spec: Spec) -> None:
    """A suite with a misspelt parameter must fail before anything is trained."""
    _tiny(spec)
    if spec.accepts({**spec.tiny, "no_such_parameter": 1}):
        raise Violation(
            "a parameter 'no_such_parameter' is accepted",
            "subclass transferbench.specs.Params, which forbids unknown ones",
        )


CHECKS = tuple(defined_in(__name__))
