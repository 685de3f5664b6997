"""All blocks of all pages run as written, on a tiny suite; links and make targets exist."""

import re

import pytest
from documentation import PAGES, ROOT, FencedBlock, Reader, blocks, text_of

from transferbench.errors import SuiteError

LONG = {"docs/how-to/photographs.md"}
"""With a pre-training: half a minute."""
RUNS = [page for page in PAGES if any(block.language != "text" for block in blocks(page))]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for all pages, so that trials are not repeated."""
    return tmp_path_factory.mktemp("store")


def test_the_blocks_are_found():
    languages = [block.language for page in PAGES for block in blocks(page)]
    assert languages.count("sh") > 10
    assert languages.count("python") > 5
    assert languages.count("yaml") > 3


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page in LONG else ()) for page in RUNS],
)
def test_the_blocks_of_a_page_run_in_order(page, tmp_path, store):
    Reader(tmp_path, store).read(page)


@pytest.mark.parametrize(
    "block",
    [
        FencedBlock("ruby", "puts 1"),
        FencedBlock("", "no language"),
        FencedBlock("sh", "rm -rf elsewhere"),
        FencedBlock("sh", "transferbench run no-such-suite"),
        FencedBlock("sh", "make no-such-target"),
        FencedBlock("python", "assert 1 == 2"),
        FencedBlock("yaml", "recipes: {P-T: {momentun: 0.9}}"),
        FencedBlock("json", "{"),
    ],
    ids=str,
)
def test_a_broken_block_is_an_error(block, tmp_path, store):
    reader = Reader(tmp_path, store)
    with pytest.raises((AssertionError, ValueError, SuiteError)):
        reader.do("a page", block)


def test_a_block_with_a_file_name_is_written_to_that_file(tmp_path, store):
    reader = Reader(tmp_path, store)
    reader.do("a page", FencedBlock("python", "# one.py\nx = 1\n"))
    assert (tmp_path / "one.py").read_text() == "# one.py\nx = 1\n"


def test_contributing_stays_short():
    assert len(text_of("CONTRIBUTING.md").splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_on_pages_exist(page):
    for target in re.findall(r"(?:^|`)make (\w+)", text_of(page), re.MULTILINE):
        assert re.search(rf"^{target}:", text_of("Makefile"), re.MULTILINE), target


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_linked_files_of_pages_outside_the_site_exist(page):
    for link in re.findall(r"\]\((?!http|#)([^)#]+)", text_of(page)):
        assert (ROOT / link).exists(), link
