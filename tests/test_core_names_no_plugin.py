"""No string in the core is the name of a plugin: built-in plugins use the interface of all others.

The templates of the scaffold write plugins, and bundled suites use them: both are left out.
"""

import ast
from pathlib import Path

import transferbench
from transferbench.registry import load_registry

CORE = Path(transferbench.__file__).parent
LEFT_OUT = ("scaffold/templates/", "suite/bundled/")
KINDS = ("dataset", "perturbation", "backbone", "initialization", "diagnostic")

BY_ACCIDENT = {
    "bootstrap": "how an interval is made",
    "cka": "the unit of similarities",
    "pretrained": "the key of a board's column, published",
    "random": "Python's module, whose state is compared",
    "timm": "the distribution, whose version is recorded",
    "torchvision": "the distribution, whose version is shown",
}
"""Names of plugins that are another thing's too, and what they mean in the core."""


def strings(path):
    """The string constants of a module, but for docstrings and the names that it exports."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    skipped = set()
    for node in nodes:
        if isinstance(node, ast.Expr):
            skipped.add(node.value)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            skipped.update(ast.walk(node.value))
    constants = (node for node in nodes if isinstance(node, ast.Constant) and node not in skipped)
    return {node.value for node in constants if isinstance(node.value, str)}


def named_plugins(core):
    """Plugin -> the files with a string that is its name."""
    registry = load_registry()
    names = {name for kind in KINDS for name in registry.names(kind)}
    files = {path.relative_to(core).as_posix(): path for path in core.rglob("*.py")}
    named = {}
    for file, path in files.items():
        for name in strings(path) & names if not file.startswith(LEFT_OUT) else ():
            named.setdefault(name, []).append(file)
    return named


def test_the_core_names_no_plugin():
    named = named_plugins(CORE)
    assert {name: files for name, files in named.items() if name not in BY_ACCIDENT} == {}
    assert named.keys() == BY_ACCIDENT.keys()


def test_a_plugin_that_is_named_is_found(tmp_path):
    (tmp_path / "page.py").write_text(
        '"""cka"""\n__all__ = ["speed"]\nlabel = "knn"\nif label == "leep" or f"{label}svcca":\n'
        '    use = {"logme": [f"x{label}", "barriers"]}\n',
        "utf-8",
    )
    expected = ("knn", "leep", "svcca", "logme")
    assert named_plugins(tmp_path) == {name: ["page.py"] for name in expected}
