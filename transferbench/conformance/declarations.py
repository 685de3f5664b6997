"""What a spec of any kind says about itself."""

from __future__ import annotations

import re
from unittest import SkipTest

from transferbench.conformance.checks import Broken
from transferbench.identity import canonical_json
from transferbench.registry import identity, parse_params
from transferbench.specs import Params, Spec

__all__ = ["CHECKS"]

# What a template leaves to be written.
PLACEHOLDER = re.compile(r"^\W*(todo|tbd|fixme|xxx|\?+|\.\.\.)", re.IGNORECASE)


def check_summary_source_and_licence_are_stated(spec: Spec) -> None:
    """Readers of a board ask what it is, where it comes from and whether they may use it."""
    for field in ("summary", "source", "license"):
        text = str(getattr(spec, field))
        if not text.strip() or PLACEHOLDER.match(text):
            raise Broken(
                f"{field} is {text!r}", f"say it in the spec: {field}='...' is shown on every list"
            )
        if "\n" in text:
            raise Broken(f"{field} has several lines", "tables show one: shorten it")


def check_tiny_parameters_are_accepted(spec: Spec) -> None:
    """The kit, and whoever tries the plugin out, run it with ``tiny``."""
    parse_params(spec, spec.tiny, where="tiny")


def _tiny(spec: Spec) -> Params:
    try:
        return spec.parse(spec.tiny)
    except Exception as error:
        raise SkipTest("tiny is refused, see tiny-parameters-are-accepted") from error


def check_parameters_survive_json(spec: Spec) -> None:
    """Ids and jobs hold the parameters as JSON: they must say the same when read back."""
    params = _tiny(spec)
    described = identity(spec, params)
    canonical_json(described)
    if (found := spec.parse(described["params"])) != params:
        raise Broken(
            f"{params!r} is {found!r} when it is read back from JSON",
            "give the parameters types that pydantic writes and reads alike",
        )


def check_every_parameter_has_a_type_that_refuses(spec: Spec) -> None:
    """A suite with a misspelt parameter must fail before anything is trained."""
    _tiny(spec)
    if spec.accepts({**spec.tiny, "no_such_parameter": 1}):
        raise Broken(
            "a parameter 'no_such_parameter' is accepted",
            "subclass transferbench.specs.Params, which forbids unknown ones",
        )


CHECKS = (
    check_summary_source_and_licence_are_stated,
    check_tiny_parameters_are_accepted,
    check_parameters_survive_json,
    check_every_parameter_has_a_type_that_refuses,
)
