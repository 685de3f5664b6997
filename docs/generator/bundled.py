"""The page of bundled suites: arms, diagnostics, and claims as predicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from generator.markdown import code, prose, table
from transferbench.suite import Claim, Suite, Term
from transferbench.suite.loading import bundled_suites, load_suite

__all__ = ["page", "predicate"]

HEAD = """# The bundled suites

`transferbench suites` lists them; how each came about: [quickstart](../suites/quickstart.md),
[characters](../suites/characters.md), [initializations](../suites/initializations.md),
[null-pair](../suites/null-pair.md), [icons](../suites/icons.md), [photos](../suites/photos.md),
[neyshabur2020](../suites/neyshabur2020.md), [vision](../suites/vision.md). `quickstart` is the
newest MAJOR, `quickstart@1` that one: older MAJORs stay, with the same digests and job ids. What a
claim's verdict means: [statistics](../science/statistics.md). In a predicate, `speed(P-T,
block-1)` is the metric *speed* of the arm *P-T* under *block-1*, averaged over all labels that are
left out; `P-T & RI-T` is a pair. tau is Kendall's rank correlation of values with their position,
or with those behind the bar.

"""


def page() -> str:
    """The page."""
    return HEAD + "\n".join(_section(load_suite(name)) for name in bundled_suites())


def _section(suite: Suite) -> str:
    parts = [f"## {suite.id}", suite.summary, table(["part", ""], _facts(suite))]
    parts += ["**Arms.**", table(["arm", "initialization", "parameters", "source", "recipe"],
                                 _arms(suite))]  # fmt: skip
    parts += ["**Claims.**", table(["claim", "statement and predicate"], _claims(suite))]
    return "\n\n".join(parts) + "\n"


def _facts(suite: Suite) -> Iterator[tuple[str, str]]:
    yield "images", f"{suite.image.size} px, {suite.image.channels} channel(s)"
    for label, source in suite.sources.items():
        networks = f", {source.networks} networks" if source.networks > 1 else ""
        yield f"source {code(label)}", f"{source.dataset.name}{networks}"
    for label, target in suite.targets.items():
        distance = f", {target.distance}" if target.distance else ""
        yield f"target {code(label)}", f"{target.dataset.name}{distance}"
    yield "perturbations", ", ".join(map(code, suite.perturbations))
    own = sorted({row.replicates for row in suite.trials if row.replicates})
    rows = f"; {' and '.join(map(str, own))} in rows of their own" if own else ""
    yield "replicates", f"{suite.replicates}{rows}"
    if suite.draw:
        yield "draw", code(suite.draw)
    yield "diagnostics", ", ".join(code(use.name) for use in suite.diagnostics.values())
    yield "default backbones", ", ".join(map(code, suite.backbones))


def _arms(suite: Suite) -> Iterator[tuple[str, ...]]:
    for label, use in suite.initializations.items():
        params = ", ".join(f"{key}: {value}" for key, value in use.params.items())
        frozen = ", body frozen" if use.frozen else ""
        rate = f", rate of {use.rate_of}" if use.rate_of else ""
        yield code(label), code(use.name), params, use.source, use.recipe + rate + frozen


def _claims(suite: Suite) -> Iterator[tuple[str, ...]]:
    for label, claim in suite.claims.items():
        source = f" ({prose(claim.source)})" if claim.source else ""
        control = "Control: " if claim.control else ""
        yield code(label), f"{control}{claim.statement}{source}<br>{code(predicate(claim))}"


def predicate(claim: Claim) -> str:
    """A claim as an inequality."""
    threshold = f"{claim.threshold:g}"
    prefix = f"for each {claim.each.coordinates[0]}: " if claim.each else ""
    effect = _effect(claim)
    if claim.relation == "within":
        return f"{prefix}|{effect}| < {threshold}"
    return f"{prefix}{effect} {'>' if claim.relation == 'above' else '<'} {threshold}"


def _effect(claim: Claim) -> str:
    if claim.along:
        return f"tau({_sum(claim.terms)} along {claim.along.coordinates[0]})"
    if claim.order:
        against = f" | {'; '.join(map(_sum, claim.against))}" if claim.against else ""
        return f"tau({'; '.join(map(_sum, claim.order))}{against})"
    if claim.relative_to:
        return f"({_sum(claim.terms)}) / ({_sum(claim.relative_to)})"
    return _sum(claim.terms)


def _sum(terms: Sequence[Term]) -> str:
    parts = [f"{_sign(term.weight)}{_term(term)}" for term in terms]
    return "".join(parts).removeprefix(" + ").strip()


def _sign(weight: float) -> str:
    size = "" if abs(weight) == 1 else f"{abs(weight):g} "
    return f" {'-' if weight < 0 else '+'} {size}"


def _term(term: Term) -> str:
    arms = " & ".join(filter(None, (term.initialization, term.other_initialization)))
    labels = ", ".join(filter(None, (arms, term.target, term.perturbation)))
    coordinates = ", ".join(f"{key}={value}" for key, value in term.coordinates.items())
    return f"{term.metric}({'; '.join(filter(None, (labels, coordinates)))})"
