"""Hooks of the site builder: pages generated from the code, formulas as MathML.

The site builder calls these functions by name. Generated pages are not part of the repository.
"""

from __future__ import annotations

from typing import Any

from generator import pages
from generator.formulas import with_formulas
from generator.markdown import in_boxes

__all__ = ["on_files", "on_page_content", "on_page_markdown"]


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    # The class of the builder that runs: MkDocs or its fork.
    page = type(next(iter(files)))
    for path, write in pages.PAGES.items():
        files.append(page.generated(config, path, content=write()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Convert formulas between dollars to MathML."""
    return with_formulas(markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Let wide tables scroll inside a box."""
    return in_boxes(html)
