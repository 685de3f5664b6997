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

DISTRIBUTION = "the distribution, whose version is recorded"
BY_ACCIDENT = {
    ("cli/listing.py", "timm"): DISTRIBUTION,
    ("engine/jobs.py", "timm"): DISTRIBUTION,
    ("runner/folder.py", "timm"): DISTRIBUTION,
    ("conformance/isolation.py", "random"): "Python's module, whose state is compared",
    ("leaderboard/rows.py", "pretrained"): "the key of a board's column, published",
    ("suite/schema.py", "pretrained"): "the key of a board's column, published",
    ("statistics.py", "bootstrap"): "how an interval is made",
}
"""Where a plugin's name is another thing's too, and what it means there."""


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
    """(file, name) of every string that is a plugin's name."""
    registry = load_registry()
    names = {name for kind in KINDS for name in registry.names(kind)}
    files = {path.relative_to(core).as_posix(): path for path in core.rglob("*.py")}
    return {
        (file, name)
        for file, path in files.items()
        if not file.startswith(LEFT_OUT)
        for name in strings(path) & names
    }


def test_the_core_names_no_plugin():
    assert named_plugins(CORE) == BY_ACCIDENT.keys()


def test_a_plugin_that_is_named_is_found(tmp_path):
    (tmp_path / "page.py").write_text(
        '"""cka"""\n__all__ = ["speed"]\nlabel = "knn"\nif label == "leep" or f"{label}svcca":\n'
        '    use = {"logme": [f"x{label}", "barriers"]}\n',
        "utf-8",
    )
    names = {name for _, name in named_plugins(tmp_path)}
    assert names == {"knn", "leep", "svcca", "logme"}
