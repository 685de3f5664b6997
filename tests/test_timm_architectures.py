"""Each of timm's architectures is trained for a step, or refused, as its page says."""

from __future__ import annotations

import pytest
import timm
from timm_architectures import FITTING, PAGE, REFUSED, SEARCH_SECONDS, page, row_of, version_of

from transferbench.networks import fitting

TEXT = PAGE.read_text(encoding="utf-8")
LINES = [line for line in TEXT.splitlines() if line.startswith("| `")]
SAME_VERSION = version_of(TEXT) == timm.__version__


def test_the_page_is_made_of_the_pinned_models():
    assert len(LINES) == len(FITTING) + len(REFUSED)
    for pinned, line in zip((*FITTING, *REFUSED), LINES, strict=True):
        assert line.startswith(f"| `{pinned.architecture}` | `{pinned.model}` | {pinned.size} |")
    fitted, refused = LINES[: len(FITTING)], LINES[len(FITTING) :]
    assert page(fitted, refused, version_of(TEXT)) == TEXT


def refuse_other_lines(row):
    if not SAME_VERSION:
        pytest.skip(f"its line on the page is of timm {version_of(TEXT)}")
    assert row.line in LINES


@pytest.mark.skipif(not SAME_VERSION, reason="another timm is installed")
def test_every_architecture_of_timm_is_pinned():
    assert {pinned.architecture for pinned in FITTING} == set(timm.list_modules())


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # timm's own
@pytest.mark.parametrize("pinned", FITTING, ids=lambda pinned: pinned.model)
def test_the_smallest_model_of_an_architecture_is_trained(pinned):
    if not timm.is_model(pinned.model):
        pytest.skip(f"timm {timm.__version__} has no {pinned.model}")
    row = row_of(pinned)
    assert row.result == "trained"
    refuse_other_lines(row)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # timm's own
@pytest.mark.parametrize("pinned", REFUSED, ids=lambda pinned: pinned.model)
def test_what_does_not_fit_is_refused_in_a_sentence_with_a_way_on(pinned, monkeypatch):
    if not timm.is_model(pinned.model):
        pytest.skip(f"timm {timm.__version__} has no {pinned.model}")
    monkeypatch.setattr(fitting, "SECONDS", SEARCH_SECONDS)
    row = row_of(pinned)
    assert "\n" not in row.result
    assert "; choose " in row.result or "set image.size" in row.result
    refuse_other_lines(row)
