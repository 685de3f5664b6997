"""The site of the boards: its pages, their links and numbers, and how browsers show them."""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import accumulate, pairwise
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from browser import CHROMIUM, Browser, browser
from handmade_run import SKILL, SUITE, certify, entry_of, handmade_registry, submit
from torch import nn

from transferbench.errors import SubmissionError
from transferbench.leaderboard import build
from transferbench.leaderboard.site import (
    BoardInput,
    Index,
    append_dates,
    dates_of,
    write_board_pages,
    write_front,
)
from transferbench.leaderboard.site.cost import _counted
from transferbench.leaderboard.site.dates import DATES, read_dates
from transferbench.leaderboard.site.entries import _tex
from transferbench.leaderboard.site.pareto import _names
from transferbench.leaderboard.site.plots import (
    Datum,
    ScoreAxis,
    Series,
    compact,
    front_of,
    plot,
    span_of,
)
from transferbench.leaderboard.table import MINUS, BoardTable, Row, Unranked
from transferbench.networks.multiply_adds import forward_multiply_adds
from transferbench.plan import Entry
from transferbench.registry import load_registry
from transferbench.specs import Weights
from transferbench.submission import Declaration

PUBLISHED = Path(__file__).parents[1] / "leaderboard" / "site"
HOSTILE = "<script>alert(1)</script>\"' {x} \\write18 & %"
OLD, NEW = "2026-01-02", "2026-02-03"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three entries, of which one came later again, and one of hostile weights."""
    folder = tmp_path_factory.mktemp("site")
    registry, submissions = handmade_registry(folder), folder / "submissions"
    packed = submit(folder / "a", registry, submissions, tuple(map(entry_of, SKILL)))
    weights = Weights(tag="=SUM(A1)", origin="afar", license="MIT", pretrained_on=HOSTILE)
    entry = Entry("made-good", {"name": "made-good", "version": 1, "params": {}}, "MIT", "x",
                  weights)  # fmt: skip
    later = [
        *submit(folder / "b", registry, submissions, suite=SUITE | {"version": "1.1"}),
        *submit(folder / "c", registry, submissions, (entry,),
                declaration=Declaration(submitter=HOSTILE)),
    ]  # fmt: skip
    certify(later[-1], by=HOSTILE.upper())
    lines = [f"{day} {path.relative_to(submissions).as_posix()}"
             for day, paths in ((OLD, packed), (NEW, later)) for path in paths]  # fmt: skip
    (folder / DATES).write_text("\n".join(lines) + "\n")
    build(submissions, folder / "boards", registry, site=True)
    return folder / "boards" / "site"


def pages_of(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


class _Html(HTMLParser):
    """What an HTML page links and names; every element must be closed, every name unique."""

    VOID = ("meta", "link", "br", "wbr", "input", "img")
    DRAWN = ("line", "circle", "rect", "polyline")

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: list[str] = []
        self.open: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))
        self.close()
        assert not self.open, (page, self.open)
        assert len(set(self.names)) == len(self.names), page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, names)
        facts = dict(attrs)
        self.names += [facts["id"]] if facts.get("id") else []
        self.links += [facts[name] or "" for name in ("href", "src") if name in facts]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.DRAWN, tag
        assert "id" not in dict(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()


def _assert_links_resolve(site: Path) -> int:
    pages = {page: _Html(page) for page in pages_of(site)}
    names = {page.resolve(): set(parsed.names) for page, parsed in pages.items()}
    for page, parsed in pages.items():
        for link in parsed.links:
            if link.startswith(("https://arxiv.org/", "data:")):
                continue
            path, _, anchor = link.partition("#")
            target = Path(os.path.normpath(page.parent / unquote(path))) if path else page
            assert target.is_file(), (page, link)
            assert not anchor or anchor in names[target.resolve()], (page, link)
    return len(pages)


def test_every_page_is_html_whose_links_resolve(site: Path) -> None:
    # A front page, a board, five submissions and a claim.
    assert _assert_links_resolve(site) == 8


def test_every_published_page_is_html_whose_links_resolve() -> None:
    assert _assert_links_resolve(PUBLISHED) > 100
    size = sum(path.stat().st_size for path in PUBLISHED.rglob("*") if path.is_file())
    assert size < 5e6


def test_the_front_page_and_the_feed_follow_from_the_published_index(tmp_path: Path) -> None:
    index = Index.model_validate_json((PUBLISHED / "index.json").read_text())
    for path in write_front(index, tmp_path):
        assert path.read_bytes() == (PUBLISHED / path.name).read_bytes(), path.name
    assert {board.board for board in index.boards} == {
        path.name for path in PUBLISHED.iterdir() if path.is_dir()
    }


def test_the_same_submissions_give_the_same_pages(site: Path, tmp_path: Path) -> None:
    folder = site.parents[1]
    for name in ("submissions", "suites", "certificates", DATES):
        (tmp_path / name).symlink_to(folder / name)
    stale = tmp_path / "boards" / "site" / "handmade@1" / "entries" / "gone.html"
    stale.parent.mkdir(parents=True)
    stale.write_text("of a submission that went")
    build(tmp_path / "submissions", tmp_path / "boards", handmade_registry(tmp_path), site=True)
    again = tmp_path / "boards" / "site"
    files = sorted(path.relative_to(site) for path in site.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    for file in files:
        assert (again / file).read_bytes() == (site / file).read_bytes(), file


# --- what the pages say -----------------------------------------------------------------------


def words_of(page: Path) -> str:
    text = re.sub(r"<(script|style)[ >].*?</\1>", "", page.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_a_certificate_by_the_submitter_in_another_spelling_is_told(site: Path) -> None:
    (page,) = (site / "handmade@1" / "entries").glob("made-good+SUM*")
    assert "1 trials agree (counts as the submitter's own)" in words_of(page)


def test_a_board_shows_its_numbers(site: Path) -> None:
    words = words_of(site / "handmade@1" / "index.html")
    rows = json.loads((site.parent / "handmade@1" / "board.json").read_text())["rows"]
    assert len(rows) == 4
    for row in rows:
        for key in ("score", "pretrained", "baseline", "gain", "speed_gain", "severe_gain"):
            for name in (key, f"{key}_low", f"{key}_high"):
                assert f"{row[name]:.3f}".replace("-", MINUS) in words, name
    # Accuracies follow from predictions; the made-up speeds from nothing.
    page = (site / "handmade@1" / "index.html").read_text()
    assert re.search(
        r'data-label="speed gain"[^>]*>[^<]+<abbr class="origin" title="reported">r', page
    )
    assert re.search(r'data-label="score"[^>]*>[0-9.]+<small>', page)


def entry_page(site: Path, name: str) -> Path:
    (page,) = (site / "handmade@1" / "entries").glob(name)
    return page


def test_the_page_of_an_entry_tells_how_to_run_it_again(site: Path) -> None:
    words = words_of(entry_page(site, "made-fair-*"))
    for part in (
        "transferbench run handmade@1 --backbone made-fair",
        "transferbench submission reproduce leaderboard/submissions/handmade@1/made-fair/",
        "test metric on digits", "test metric on marks", "speed on digits",
        "helps", "reproduced", "sgd", "@misc{made-fair-handmade-1-", "overlap with digits",
        "not known: the backbone is not installed here",
    ):  # fmt: skip
        assert part in words, part
    assert "12,345" not in words  # the submitter's number of parameters


def test_a_superseded_submission_keeps_its_page(site: Path) -> None:
    old, new = sorted(
        (page for page in (site / "handmade@1" / "entries").glob("made-good-[0-9a-f]*.html")),
        key=lambda page: "Superseded:" not in page.read_text(),
    )
    assert f'href="{new.name}">submission {new.stem[-10:]}' in old.read_text()
    assert f'href="{old.name}"><code>{old.stem[-10:]}' in new.read_text()
    # An id is in its name, so that the page of another submission has another address.
    assert old.stem.removeprefix("made-good-") != new.stem.removeprefix("made-good-")


def test_a_withdrawn_submission_keeps_its_address(tmp_path: Path) -> None:
    row = Unranked("made/good", "0123456789", "withdrawn", f"by one: {HOSTILE}")
    table = BoardTable("handmade@1", "handmade@1", "", ("", ""), (), (), (row,), (), ())
    board = BoardInput(table, None, tmp_path / "submissions", {}, load_registry())
    summary, files = write_board_pages(board, tmp_path / "site" / "handmade@1")
    page = tmp_path / "site" / "handmade@1" / "entries" / "made+good-0123456789.html"
    assert files == [tmp_path / "site" / "handmade@1" / "index.html", page]
    assert not summary.entries
    assert "Withdrawn: by one: &lt;script&gt;" in page.read_text()
    links = [link for file in files for link in _Html(file).links]
    assert "entries/made%2Bgood-0123456789.html" in links


def test_foreign_text_is_escaped_on_every_page(site: Path) -> None:
    pages = {page: page.read_text() for page in [*pages_of(site), site / "feed.xml"]}
    assert sum("&lt;script&gt;alert(1)" in text for text in pages.values()) >= 4
    for page, text in pages.items():
        assert "<script>alert" not in text, page
    bibtex = re.search(
        r"@misc\{.*?\n\}", words := entry_page(site, "made-good+*").read_text(), re.DOTALL
    )
    assert bibtex, words
    assert r"\textbackslash{}write18" in bibtex[0]
    assert re.search(r"author = \{.*\\textbraceleft\{\}x\\textbraceright\{\}", bibtex[0])


def test_braces_of_a_name_end_no_field_of_bibtex() -> None:
    text = _tex("a}}, url={{b & c}")
    depths = accumulate({"{": 1, "}": -1}.get(letter, 0) for letter in text)
    assert min(depths) >= 0 == text.count("{") - text.count("}")
    assert text.startswith(r"a\textbraceright{}\textbraceright{}, url=\textbraceleft{}")


def test_names_beside_points_do_not_cover_each_other() -> None:
    data = [Datum(1.0, 0.541, name="mobilenetv2_100"), Datum(1.4, 0.536, name="lite1" * 4),
            Datum(1.2, 0.538, name="lite0" * 4), Datum(9.0, 0.2, name="far")]  # fmt: skip
    (line,) = plot([Series("entries", data, joined=False)], title="", description="", x_label="",
                   y_label="", log_x=True).lines  # fmt: skip
    assert [mark.name for mark in line.marks] == [datum.name for datum in data]
    assert line.marks[-1].name_y == line.marks[-1].y - 6
    near = sorted(mark.name_y for mark in line.marks[:3])
    assert min(high - low for low, high in pairwise(near)) > 10.9


def test_names_in_a_plot_are_short_where_they_stay_apart() -> None:
    def names(*entries: str) -> list[str]:
        return _names([Row({"entry": (entry,), "rank": (k,)}, "", None)
                       for k, entry in enumerate(entries, 1)])  # fmt: skip

    assert names("timm/a+imagenet@0", "timm/b+imagenet@1") == ["a", "b"]
    assert names("timm/a+imagenet@0", "timm/a+imagenet@1") == [
        "timm/a+imagenet@0", "timm/a+imagenet@1",
    ]  # fmt: skip
    assert names(*map(str, range(13)))[:2] == ["1", "2"]


def test_the_name_of_an_entry_breaks_behind_its_signs() -> None:
    front = (PUBLISHED / "index.html").read_text()
    assert ">timm/<wbr>mobilenetv2_<wbr>100+<wbr>imagenet@<wbr>b0353104</a>" in front


def test_a_claim_has_all_entries(site: Path) -> None:
    page = site / "handmade@1" / "claims" / "helps.html"
    words = words_of(page)
    assert "Pre-training helps" in words
    assert words.count("replicates, given P") == 4
    assert (
        "+ test_metric (trial) of P-T on digits, perturbation none "
        f"{MINUS} test_metric (trial) of RI-T on digits, perturbation none"
    ) in words
    board = (site / "handmade@1" / "index.html").read_text()
    assert 'href="claims/helps.html"' in board


def test_the_history_ranks_what_was_there(site: Path) -> None:
    page = (site / "handmade@1" / "index.html").read_text()
    history = page[page.index('id="history"') : page.index('id="scope"')]
    rows = re.findall(
        r'<td data-label="date"[^>]*>([^<]+)</td>.*?>(\S+) <code>.*?on that day"[^>]*>([^<]+)<',
        history, re.DOTALL,
    )  # fmt: skip
    assert [day for day, *_ in rows] == [NEW, NEW, OLD, OLD, OLD]
    assert rows[2:] == [(OLD, f"made-{name}", str(rank))
                        for rank, name in enumerate(("good", "fair", "poor"), start=1)]  # fmt: skip
    assert "Ranks by day" in history


def test_the_feed_is_atom(site: Path) -> None:
    atom = "{http://www.w3.org/2005/Atom}"
    feed = ET.parse(site / "feed.xml").getroot()  # noqa: S314  # our own file
    entries = feed.findall(f"{atom}entry")
    for node in (feed, *entries):
        assert [len(node.findall(f"{atom}{name}")) for name in ("id", "title", "updated")] == [
            1
        ] * 3
    updated = [entry.findtext(f"{atom}updated") for entry in entries]
    assert updated == [f"{NEW}T00:00:00Z"] * 2 + [f"{OLD}T00:00:00Z"] * 3
    assert feed.findtext(f"{atom}updated") == updated[0]
    assert len({entry.findtext(f"{atom}id") for entry in entries}) == 5
    for entry in entries:
        link = entry.find(f"{atom}link")
        assert link is not None
        assert (site / unquote(link.attrib["href"])).is_file()


# --- dates ------------------------------------------------------------------------------------


def test_dates_are_only_appended(tmp_path: Path) -> None:
    submissions = tmp_path / "submissions"
    (tmp_path / DATES).write_text("# A comment.\n2026-01-02 a@1/b/c\n")
    dates = dates_of(submissions, ["a@1/b/c", "a@1/b/d"])
    append_dates(submissions, dates)
    lines = (tmp_path / DATES).read_text().splitlines()
    assert lines[:2] == ["# A comment.", "2026-01-02 a@1/b/c"]
    assert lines[2:] == [f"{dates['a@1/b/d']} a@1/b/d"]
    assert str(dates["a@1/b/c"]) == OLD
    assert dates_of(submissions, ["a@1/b/d"]) == dates
    append_dates(submissions, dates)
    assert (tmp_path / DATES).read_text().splitlines() == lines


@pytest.mark.parametrize("line", ["2026-13-01 a@1/b/c", "2026-01-02", "yesterday a@1/b/c"])
def test_a_line_that_is_no_date_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / DATES).write_text(f"2026-01-02 a@1/b/b\n{line}\n")
    with pytest.raises(SubmissionError, match=rf"DATES:2: '{line}' is not YEAR-MONTH-DAY and"):
        read_dates(tmp_path / "submissions")


# --- drawings and costs -----------------------------------------------------------------------


def test_the_front_is_what_no_point_beats() -> None:
    points = [tuple(pair) for pair in np.random.default_rng(0).integers(1, 40, (60, 2)).tolist()]
    expected = {
        (cost, score)
        for cost, score in points
        if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points)
    }
    front = front_of(points)
    assert set(front) == expected
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(front))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [(0.81, 0.93), (1.0, 1.0), (3.0, 7e9), (1e-4, 2e-4)])
def test_an_axis_holds_its_values_and_has_ticks(values: tuple[float, float], log: bool) -> None:
    span = span_of(values, 0, 100, log=log)
    assert all(0 < span.at(value) < 100 for value in values)
    ticks = span.ticks()
    assert 1 <= len(ticks) <= 6
    assert all(0 <= tick.at <= 100 for tick in ticks)
    assert len({tick.label for tick in ticks}) == len(ticks)


def test_a_bar_shows_chance_where_scores_are_near_it() -> None:
    assert len(ScoreAxis([0.1, 0.9]).marks) == 2
    assert len(ScoreAxis([0.8, 0.9]).marks) == 1
    assert ScoreAxis([-0.2, 0.9]).at(0.0) > ScoreAxis([-0.2, 0.9]).at(-0.2)


def test_numbers_are_compact() -> None:
    numbers = (0.25, 173_882, 98.9e9, 1.2e15, -0.5, 12)
    assert list(map(compact, numbers)) == ["0.25", "174k", "98.9G", "1.2P", f"{MINUS}0.5", "12"]


def test_parameters_are_counted() -> None:
    """As many as the training that was published had, and not those of a submission's head."""
    (folder,) = PUBLISHED.parent.glob("submissions/quickstart@3/fixup-resnet14/*")
    jobs = json.loads((folder / "plan.json").read_text())["jobs"]
    payload = next(job["payload"] for job in jobs if job["kind"] == "trial")
    head = json.loads((folder / "submission.json").read_text())
    registry = load_registry()
    assert _counted(payload, registry)[0] == head["entry"]["parameters"]
    other = payload | {"backbone": payload["backbone"] | {"version": 99}}
    assert _counted(other, registry) == (None, None)


def test_multiply_adds_are_those_of_the_formula() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 5, padding=2, groups=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip
    statistics = net[1].running_mean.clone()
    expected = 8 * 8 * 8 * 3 * 9 + 8 * 8 * 16 * (8 // 4) * 25 + 16 * 10
    assert forward_multiply_adds(net, channels=3, image_size=16) == expected
    assert net.training
    assert torch.equal(net[1].running_mean, statistics)


# --- in a browser -----------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium to open pages")
PAGES = (
    "index.html", "quickstart@3/index.html", "initializations@1/index.html",
    "characters@2/index.html", "null-pair@1/index.html", "icons@1/index.html",
)  # fmt: skip


def seen_pages() -> list[Path]:
    """A page of each kind, of the published site."""
    entry, *_ = sorted((PUBLISHED / "characters@2" / "entries").iterdir())
    claim, *_ = sorted((PUBLISHED / "characters@2" / "claims").iterdir())
    arms, *_ = sorted((PUBLISHED / "initializations@1" / "entries").iterdir())
    long, *_ = sorted((PUBLISHED / "icons@1" / "entries").iterdir())
    return [*(PUBLISHED / page for page in PAGES), entry, claim, arms, long]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


CUT_OFF = """[...document.querySelectorAll("main *")].filter(each => {
  const box = each.getBoundingClientRect();
  return box.right > document.querySelector("main").getBoundingClientRect().right + 1
      && !each.closest("details, .hidden") && box.width > 0
      && each.closest("table.numbers, table.top, thead, .skip") === null;
}).map(each => each.outerHTML.slice(0, 80))"""


@needs_browser
@pytest.mark.parametrize("width", [1280, 1400, 420])
def test_nothing_is_cut_off(chromium: Browser, width: int) -> None:
    for page in seen_pages():
        chromium.show(page, width, dark=width == 1400)
        across = chromium.value("document.documentElement.scrollWidth")
        assert across <= width, (page, across)
        assert chromium.value(CUT_OFF) == [], page


@needs_browser
@pytest.mark.parametrize("width", [1280, 420])
def test_numbers_are_seen_without_scripts(chromium: Browser, width: int) -> None:
    chromium.scripts(enabled=False)
    chromium.show(PUBLISHED / "quickstart@3" / "index.html", width)
    chromium.scripts(enabled=True)
    visible = chromium.value("document.querySelector('.results').innerText")
    rows = json.loads((PUBLISHED.parent / "quickstart@3" / "board.json").read_text())["rows"]
    for row in rows:
        for key in ("score", "score_low", "pretrained", "gain", "severe_gain_high"):
            assert f"{row[key]:.3f}".replace("-", MINUS) in visible, key
    assert not chromium.value("document.querySelector('.filter, thead button')")


@needs_browser
def test_a_board_can_be_sorted_and_filtered(chromium: Browser) -> None:
    chromium.show(PUBLISHED / "quickstart@3" / "index.html")
    names = ("[...document.querySelectorAll('.results tbody tr')].filter(row => !row.hidden)"
             ".map(row => row.querySelector('th').innerText.trim())")  # fmt: skip
    ranked = chromium.value(names)
    assert len(ranked) == 3
    head = "document.querySelectorAll('table.sortable thead th')[2]"
    chromium.value(f"{head}.querySelector('button').click()")
    assert chromium.value(names) == ranked[::-1]
    assert chromium.value(f"{head}.getAttribute('aria-sort')") == "ascending"
    chromium.value("const field = document.querySelector('.filter input');"
                   "field.value = 'RESNET8'; field.dispatchEvent(new Event('input'))")  # fmt: skip
    assert chromium.value(names) == ["fixup-resnet8"]


@needs_browser
def test_the_keyboard_reaches_what_can_be_done(chromium: Browser) -> None:
    chromium.show(PUBLISHED / "quickstart@3" / "index.html")
    reached = []
    for _ in range(9):
        for kind in ("keyDown", "keyUp"):
            chromium.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab",
                          windowsVirtualKeyCode=9)  # fmt: skip
        reached.append(chromium.value("document.activeElement.innerText.split('\\n')[0]"
                                      " || document.activeElement.tagName"))  # fmt: skip
    assert reached[:6] == ["Skip to content", "transferbench leaderboard", "Boards", "Newest",
                           "Feed", "INPUT"]  # fmt: skip
    assert "rank" in reached


AXE = os.environ.get("AXE_CORE", "")
"""The file axe.min.js of axe-core, which is not part of the project."""


@needs_browser
@pytest.mark.skipif(not AXE, reason="needs AXE_CORE, the file axe.min.js of the package axe-core")
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(chromium: Browser, dark: bool) -> None:
    script = Path(AXE).read_text()
    for page in seen_pages():
        for width in (1280, 420):
            chromium.show(page, width, dark=dark)
            chromium.value(f"{script}; 0")
            passed, found = chromium.value(
                "axe.run().then(r => [r.passes.length, r.violations.map(v => [v.id, v.impact,"
                " v.nodes[0].html.slice(0, 120), v.nodes[0].failureSummary.slice(0, 200)])])"
            )
            assert found == [], (page, width)
            assert passed > 10
