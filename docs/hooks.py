"""What happens when the site is built: pages are written from the code, formulas become MathML.

The site builder calls these functions by their names. Nothing they write is kept in the repository.
"""

from __future__ import annotations

from typing import Any

from generator import pages
from generator.formulas import with_formulas
from generator.markdown import in_boxes

__all__ = ["on_files", "on_page_content", "on_page_markdown"]


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are written from the code."""
    # The class of the builder that runs: MkDocs or its fork.
    page = type(next(iter(files)))
    for path, write in pages.PAGES.items():
        files.append(page.generated(config, path, content=write()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Formulas between dollars become MathML, which browsers draw without a network."""
    return with_formulas(markdown)


def on_page_content(html: str, **_: Any) -> str:
    """A wide table scrolls inside its own box, never the page."""
    return in_boxes(html)
