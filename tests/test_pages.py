"""Every block of every page runs as written, on a tiny suite; every link and target is there."""

import re

import pytest
from documentation import PAGES, ROOT, Reader, blocks, text_of

RUNS = [page for page in PAGES if any(block.language != "text" for block in blocks(page))]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """What one page trained, another need not train again."""
    return tmp_path_factory.mktemp("store")


def test_the_blocks_are_found():
    languages = [block.language for page in PAGES for block in blocks(page)]
    assert languages.count("sh") > 10
    assert languages.count("python") > 5
    assert languages.count("yaml") > 3


@pytest.mark.parametrize("page", RUNS)
def test_the_blocks_of_a_page_run_in_their_order(page, tmp_path, store):
    Reader(tmp_path, store).read(page)


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_that_a_page_names_exists(page):
    for target in re.findall(r"(?:^|`)make (\w+)", text_of(page), re.MULTILINE):
        assert re.search(rf"^{target}:", text_of("Makefile"), re.MULTILINE), target


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_outside_the_site_links_to_exists(page):
    for link in re.findall(r"\]\((?!http|#)([^)#]+)", text_of(page)):
        assert (ROOT / link).exists(), link
