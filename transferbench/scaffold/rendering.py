"""Render the templates: a plugin's module, and the files of a distribution."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from transferbench.hookspecs import PROJECT
from transferbench.registry.discovery import Kind
from transferbench.scaffold.commands import run_command
from transferbench.scaffold.naming import Names

__all__ = ["distribution_texts", "plugin_text"]

# The requirements of each kind's template besides transferbench, bounded as in pyproject.toml.
REQUIRES: Mapping[Kind, tuple[str, ...]] = {
    "backbone": ("pydantic>=2.9", "torch>=2.6"),
    "dataset": ("numpy>=1.26", "pydantic>=2.9"),
    "diagnostic": ("numpy>=1.26", "pydantic>=2.9"),
    "initialization": ("pydantic>=2.9", "torch>=2.6"),
    "perturbation": ("numpy>=1.26", "pydantic>=2.9"),
}
DISTRIBUTION = {
    Path("pyproject.toml"): "pyproject.toml.j2",
    Path("README.md"): "README.md.j2",
    Path("LICENSE"): "LICENSE.j2",
    Path(".gitignore"): "gitignore.j2",
    Path(".github/workflows/check.yaml"): "check.yaml.j2",
}


def plugin_text(kind: Kind, names: Names) -> str:
    """The module that offers a plugin of ``kind``."""
    return _render(f"{kind}.py.j2", kind, names)


def distribution_texts(kind: Kind, names: Names) -> dict[Path, str]:
    """The files of a distribution, by their paths below its folder."""
    texts = {path: _render(template, kind, names) for path, template in DISTRIBUTION.items()}
    texts[Path(names.package) / "__init__.py"] = plugin_text(kind, names)
    texts[Path("tests") / f"test_{names.module}.py"] = _render("test_plugin.py.j2", kind, names)
    return texts


def _render(template: str, kind: Kind, names: Names) -> str:
    environment = Environment(
        autoescape=False,  # noqa: S701  # Python, TOML and Markdown
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    source = resources.files(f"{__package__}.templates").joinpath(template)
    return environment.from_string(source.read_text(encoding="utf-8")).render(
        **names._asdict(),
        kind=kind,
        requires=(*REQUIRES[kind], f"{PROJECT}>={_release()}"),
        run=run_command(kind, names),
    )


def _release() -> str:
    """The major and minor version that the templates are written for."""
    return ".".join(version(PROJECT).split(".")[:2])
