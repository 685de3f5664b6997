"""Which page is written by what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from generator import bundled, checks, commands, errors, plugins, schema, seam

__all__ = ["PAGES"]

PAGES: Mapping[str, Callable[[], str]] = {
    "reference/commands.md": commands.page,
    "reference/hooks.md": seam.hooks_page,
    "reference/specs.md": seam.specs_page,
    "reference/checks.md": checks.page,
    "reference/suite-file.md": schema.page,
    "reference/suites.md": bundled.page,
    "reference/errors.md": errors.page,
    **{f"reference/{kind}s.md": partial(plugins.page, kind) for kind in plugins.KINDS},
}
"""Path below ``docs/`` -> what writes it."""
