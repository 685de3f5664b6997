"""The generated pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from generator import bundled, checks, commands, errors, plugin_interface, plugins, schema

__all__ = ["PAGES"]

PAGES: Mapping[str, Callable[[], str]] = {
    "reference/commands.md": commands.page,
    "reference/hooks.md": plugin_interface.hooks_page,
    "reference/specs.md": plugin_interface.specs_page,
    "reference/checks.md": checks.page,
    "reference/suite-file.md": schema.page,
    "reference/suites.md": bundled.page,
    "reference/errors.md": errors.page,
    **{f"reference/{kind}s.md": partial(plugins.page, kind) for kind in plugins.KINDS},
}
"""Path below ``docs/`` -> function that writes the page."""
