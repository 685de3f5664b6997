"""The site says all that the code has, from hooks to claims; and it builds."""

import logging
import re
from html.parser import HTMLParser
from itertools import chain

import pytest
from documentation import ROOT, text_of
from generator import bundled, commands, plugin_interface, plugins, schema
from generator.fields import undocumented
from generator.formulas import with_formulas
from generator.markdown import prose, table
from generator.pages import PAGES
from typer.testing import CliRunner

from transferbench.cli import app
from transferbench.cli.words import words
from transferbench.suite import Claim, Suite
from transferbench.suite.loading import bundled_suites, load_suite

PARTS = ("Question", "Formula", "Cost", "How to read it", "Source")
SCIENCE = sorted((ROOT / "docs" / "science" / "diagnostics").glob("*.md"))
CLASSES = {
    cls.__name__: cls
    for documented in (*chain(*plugin_interface.CLASSES.values()), *schema.models())
    for cls in documented.__mro__
    if cls.__module__.startswith("transferbench.")
}  # fmt: skip


@pytest.fixture(scope="module")
def written():
    """The pages that are written from the code."""
    return {path: write() for path, write in PAGES.items()}


def sections():
    """Diagnostic -> its section of the science pages."""
    texts = [path.read_text(encoding="utf-8") for path in SCIENCE]
    pages = [re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:] for text in texts]
    return {name: text for page in pages for name, text in zip(page[::2], page[1::2], strict=True)}


# --- everything is documented -----------------------------------------------------------------


def test_every_hook_has_its_section(written):
    for hook in plugin_interface.HOOKS:
        assert f"## {hook}\n" in written["reference/hooks.md"]
    assert len(plugin_interface.HOOKS) == 5


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_something_is_said_of_every_field(name):
    assert undocumented(CLASSES[name]) == []


def test_every_field_of_a_spec_has_its_row(written):
    rows = 0
    for cls in (cls for group in plugin_interface.CLASSES.values() for cls in group):
        section = written["reference/specs.md"].partition(f"### {cls.__name__}\n")[2]
        section = section.partition("\n### ")[0]
        for field in getattr(cls, "model_fields", {}).keys() & cls.__annotations__.keys():
            assert f"| `{field}` |" in section, (cls, field)
            rows += 1
    assert rows > 50


def test_every_environment_variable_has_its_row(written):
    code = [path.read_text(encoding="utf-8") for folder in ("transferbench", "plugins")
            for path in (ROOT / folder).rglob("*.py")]  # fmt: skip
    names = set(re.findall(r"TRANSFERBENCH_[A-Z]+", "\n".join(code)))
    assert len(names) > 3
    rows = re.findall(r"\n\| `(TRANSFERBENCH_[A-Z]+)` \|", written["reference/errors.md"])
    assert set(rows) == names


def test_every_key_of_a_suite_has_its_row(written):
    definitions = Suite.model_json_schema()["$defs"] | {"Suite": Suite.model_json_schema()}
    text = written["reference/suite-file.md"]
    for name, definition in definitions.items():
        section = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        for key in definition["properties"]:
            assert f"| `{key}` |" in section, (name, key)


def helps():
    """What ``--help`` says of each command, found by asking as a user does."""
    said = CliRunner().invoke(app, ["--help"]).output
    groups = {(name,) for name in named_commands(said)}
    while groups:
        verb = groups.pop()
        said = CliRunner().invoke(app, [*verb, "--help"]).output
        below = named_commands(said)
        groups |= {(*verb, name) for name in below}
        if not below:
            yield verb, said


def named_commands(said):
    return re.findall(r"^  ([a-z][\w-]*)", said.partition("Commands:")[2], re.MULTILINE)


def test_every_verb_and_option_is_documented(written):
    help_texts = dict(helps())
    assert ("submission", "pack") in help_texts
    assert {verb.words for verb in commands.verbs()} == help_texts.keys()
    for verb, said in help_texts.items():
        section = written["reference/commands.md"].partition(f"## {' '.join(verb)}\n")[2]
        section = section.partition("\n## ")[0]
        for option in re.findall(r"^ +(--[\w-]+)", said, re.MULTILINE):
            assert re.search(rf"`{option}[ `]", section) or option == "--help", (verb, option)


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_plugin_is_documented_with_its_parameters(kind, written):
    text = written[f"reference/{kind}s.md"]
    assert plugins.built_in(kind)
    for name, spec in plugins.built_in(kind).items():
        section = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert spec.license in section, name
        for parameter in spec.params.model_fields:
            assert f"| `{parameter}` |" in section, (name, parameter)


@pytest.mark.parametrize("kind", ["perturbation", "initialization"])
def test_every_plugin_has_its_line_on_the_science_page(kind):
    rows = re.findall(r"^\| `([\w.-]+)` \|", text_of(f"docs/science/{kind}s.md"), re.MULTILINE)
    assert sorted(rows) == sorted(plugins.built_in(kind))


# --- the science pages ------------------------------------------------------------------------


def test_every_diagnostic_has_its_section_and_no_other_has():
    assert sorted(sections()) == sorted(plugins.built_in("diagnostic"))


@pytest.mark.parametrize("name", sorted(plugins.built_in("diagnostic")))
def test_a_diagnostic_is_told_in_five_parts(name):
    text = sections()[name]
    assert re.findall(r"^\*\*([\w ]+)\.\*\*", text, re.MULTILINE) == list(PARTS)
    parts = re.split(r"^\*\*[\w ]+\.\*\*", text, flags=re.MULTILINE)[1:]
    assert all(len(part.split()) >= 4 for part in parts), [len(part) for part in parts]


@pytest.mark.parametrize("name", sorted(plugins.built_in("diagnostic")))
def test_a_diagnostic_cites_the_sources_of_its_plugin(name):
    source = plugins.built_in("diagnostic")[name].source
    for paper in re.findall(r"\d{4}\.\d{5}|10\.\d{4}/\S+", source):
        assert paper.rstrip(".;,") in sections()[name], paper


def test_every_diagnostic_is_in_the_overview():
    text = text_of("docs/science/diagnostics.md")
    for name in plugins.built_in("diagnostic"):
        assert f"`{name}`" in text, name


def test_every_claim_of_the_paper_has_its_row():
    rows = re.findall(r"^\| (C\d+) \|", text_of("docs/science/claims.md"), re.MULTILINE)
    assert rows == [f"C{number}" for number in range(1, 26)]


def test_every_claim_of_a_bundled_suite_is_shown_as_a_predicate(written):
    for name in bundled_suites():
        for label, claim in load_suite(name).claims.items():
            assert f"| `{label}` |" in written["reference/suites.md"]
            assert bundled.predicate(claim) in written["reference/suites.md"]


def test_every_check_of_a_submission_is_a_rule():
    from transferbench.registry import load_registry
    from transferbench.submission.check import _named_checks
    from transferbench.suite.published import KnownSuites

    for check in _named_checks(load_registry(), KnownSuites(), *[lambda: None] * 3):
        assert f"| {check} |" in text_of("docs/leaderboard.md"), check


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ({"terms": [("a", 1), ("b", -1)], "relation": "above"}, "m(a) - m(b) > 0"),
        ({"terms": [("a", -0.5)], "relation": "below", "threshold": 2}, "- 0.5 m(a) < 2"),
        ({"terms": [("a", 1)], "relation": "within", "threshold": 1}, "|m(a)| < 1"),
        ({"order": [[("a", 1)], [("b", 1)]], "relation": "above"}, "tau(m(a); m(b)) > 0"),
        (
            {"terms": [("a", 1)], "relative_to": [("b", 1)], "relation": "above"},
            "(m(a)) / (m(b)) > 0",
        ),
    ],
)
def test_a_predicate_says_what_is_compared(claim, expected):
    def terms(weights):
        return [{"diagnostic": "d", "metric": "m", "initialization": arm, "weight": weight}
                for arm, weight in weights]  # fmt: skip

    for key in ("terms", "relative_to"):
        claim = claim | {key: terms(claim.get(key, ()))}
    claim["order"] = [terms(effect) for effect in claim.get("order", ())]
    assert bundled.predicate(Claim.model_validate(claim | {"statement": "s"})) == expected


# --- how pages are written --------------------------------------------------------------------


def test_formulas_become_mathml_and_code_stays():
    result = with_formulas("a $x_1$ b `$x$` \\$5 and $6\n\n$$\\frac{1}{2}$$\n\n```\n$y$\n```\n")
    assert result.count("<math") == 2
    assert 'display="block"' in result
    assert "`$x$`" in result
    assert "```\n$y$\n```" in result
    assert "\\$5 and $6" in result


def test_prose_keeps_code_and_takes_markup_from_the_rest():
    assert (
        prose("of ``a_b``: R*x, [y]\nUnits: nats.")
        == "of `a_b`: R\\*x, \\[y\\]\n\n**Units.** nats."
    )


def test_a_cell_is_one_line_and_its_bars_do_not_end_it():
    assert table(["a"], [["x |\n y `a|b`"]]) == "| a |\n| --- |\n| x \\| y `a|b` |\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"type": "integer", "minimum": 1}, "integer, at least 1"),
        ({"enum": ["a", "b"]}, "`a` or `b`"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "number or null"),
        ({"type": "array", "items": {"$ref": "#/$defs/Term"}}, "list of Term"),
        (
            {"type": "object", "patternProperties": {"^x$": {"$ref": "#/$defs/Recipe"}}},
            "label to Recipe",
        ),
        ({"type": "array", "prefixItems": [{"type": "number"}] * 2}, "[number, number]"),
        ({"type": "object"}, "mapping"),
    ],
)
def test_a_schema_in_words(value, expected):
    assert words(value) == expected


# --- the site ---------------------------------------------------------------------------------


class Fetched(HTMLParser):
    """What a browser fetches of its own accord."""

    def __init__(self):
        super().__init__()
        self.addresses = set()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag in {"script", "img", "iframe", "source"} and attributes.get("src"):
            self.addresses.add(attributes["src"])
        if tag == "link" and "stylesheet" in attributes.get("rel", ""):
            self.addresses.add(attributes["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as ``make docs`` builds it."""
    from properdocs.commands.build import build
    from properdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    warnings = []

    class Told(logging.Handler):
        def emit(self, record):
            warnings.append(record.getMessage())

    handler = Told(logging.WARNING)
    logging.getLogger("properdocs").addHandler(handler)
    build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder)))
    logging.getLogger("properdocs").removeHandler(handler)
    assert not warnings, warnings
    return folder


def test_the_site_builds_without_a_warning_and_has_every_page(site):
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    for path in (ROOT / "docs").rglob("*.md"):
        assert path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() in pages
    for path in PAGES:
        assert path.replace(".md", ".html") in pages
    assert not list(site.rglob("*.py"))


def test_a_page_fetches_nothing_from_elsewhere(site):
    for path in site.rglob("*.html"):
        parser = Fetched()
        parser.feed(path.read_text(encoding="utf-8"))
        assert not [url for url in parser.addresses if re.match(r"(?:https?:)?//", url)], path
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", path.read_text("utf-8")), path


def test_formulas_are_drawn_without_a_script(site):
    text = (site / "science" / "diagnostics" / "features.html").read_text(encoding="utf-8")
    assert text.count("<math") > 5
    assert "$$" not in text
