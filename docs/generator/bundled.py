"""The suites that come along: what they train and measure, and their claims as predicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from generator.markdown import code, prose, table
from transferbench.suite import Claim, Suite, Term
from transferbench.suitefile import bundled_suites, load_suite

__all__ = ["page", "predicate"]

HEAD = """# The bundled suites

`transferbench suites` lists them. What a claim's verdict means: [statistics](../science/statistics.md).
In a predicate, `speed(P-T, block-1)` is the metric *speed* of the arm *P-T* under *block-1*, averaged
over what is not named; `P-T & RI-T` is a pair; Spearman is the rank correlation of the values with
their position.

"""


def page() -> str:
    """The page."""
    return HEAD + "\n".join(_section(load_suite(name)) for name in bundled_suites())


def _section(suite: Suite) -> str:
    parts = [f"## {suite.id}", suite.summary, table(["", ""], _facts(suite))]
    parts += ["**Arms.**", table(["arm", "initialization", "parameters", "source", "recipe"],
                                 _arms(suite))]  # fmt: skip
    parts += ["**Claims.**", table(["claim", "statement", "holds where", "source"], _claims(suite))]
    return "\n\n".join(parts) + "\n"


def _facts(suite: Suite) -> Iterator[tuple[str, str]]:
    yield "images", f"{suite.image.size} px, {suite.image.channels} channel(s)"
    for label, source in suite.sources.items():
        yield f"source {code(label)}", source.dataset.name
    for label, target in suite.targets.items():
        distance = f", {target.distance}" if target.distance else ""
        yield f"target {code(label)}", f"{target.dataset.name}{distance}"
    yield "perturbations", ", ".join(map(code, suite.perturbations))
    yield "replicates", str(suite.replicates)
    yield "diagnostics", ", ".join(code(use.name) for use in suite.diagnostics.values())
    yield "default backbones", ", ".join(map(code, suite.backbones))


def _arms(suite: Suite) -> Iterator[tuple[str, ...]]:
    for label, use in suite.initializations.items():
        params = ", ".join(f"{key}: {value}" for key, value in use.params.items())
        frozen = ", body frozen" if use.frozen else ""
        yield code(label), code(use.name), params, use.source, use.recipe + frozen


def _claims(suite: Suite) -> Iterator[tuple[str, ...]]:
    for label, claim in suite.claims.items():
        control = " (control)" if claim.control else ""
        yield code(label) + control, claim.statement, code(predicate(claim)), prose(claim.source)


def predicate(claim: Claim) -> str:
    """A claim as the inequality that its interval is held against."""
    if claim.order:
        effect = f"Spearman({'; '.join(map(_sum, claim.order))})"
    else:
        effect = _sum(claim.terms)
    if claim.relative_to:
        effect = f"({effect}) / ({_sum(claim.relative_to)})"
    threshold = f"{claim.threshold:g}"
    if claim.relation == "within":
        return f"|{effect}| < {threshold}"
    return f"{effect} {'>' if claim.relation == 'above' else '<'} {threshold}"


def _sum(terms: Sequence[Term]) -> str:
    parts = [f"{_sign(term.weight)}{_term(term)}" for term in terms]
    return "".join(parts).removeprefix(" + ").removeprefix(" ")


def _sign(weight: float) -> str:
    sign = " - " if weight < 0 else " + "
    size = abs(weight)
    return sign if size == 1 else f"{sign}{size:g} "


def _term(term: Term) -> str:
    arms = " & ".join(filter(None, (term.initialization, term.other_initialization)))
    coordinates = [f"{key}={value}" for key, value in term.coordinates.items()]
    return f"{term.metric}({', '.join(filter(None, (arms, term.target, term.perturbation)))}" + (
        f"; {', '.join(coordinates)})" if coordinates else ")"
    )
