"""The digest of the code that offers a plugin: what counts, and what does not."""

import importlib
import py_compile
import sys

import pytest
from test_registry import distribution, offering  # noqa: F401  # a fixture

from transferbench.registry import Distributions, load_registry
from transferbench.registry.code import code_of_file

OFFER = offering("wide")


def code(*files, name="wide"):
    return load_registry(files).code("backbone", name)


def write(folder, **sources):
    """Modules in a folder, by their dotted names."""
    for name, source in sources.items():
        path = folder / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


@pytest.fixture(autouse=True)
def imports_undone(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


OWN_FOLDER = "import sys, pathlib\nsys.path.append(str(pathlib.Path(__file__).parent))\n"
WAYS = {
    "import": ("import widths", {}),
    "from": ("from widths import WIDTH", {}),
    "later": ("def build():\n    import widths\n    return widths.WIDTH", {}),
    "by its name": ("import importlib\nbuild = lambda: importlib.import_module('widths')", {}),
    "as a file": ("def build():\n    exec(open('./widths.py').read())", {}),
    "in a folder": ("def build():\n    exec(open('lib/widths.py').read())", {}),
    "a namespace": ("from lib.deep import widths", {}),
    "as one of Python's own": ("import queue", {}),
    "by another": ("import other", {"other": "def f():\n    import widths"}),
    "in a circle": ("import other", {"other": "import widths, other"}),
    "a package": ("import pack", {"pack.__init__": "from .widths import WIDTH"}),
    "two levels": ("import pack.a.b", {"pack.__init__": "", "pack.a.__init__": "",
                                       "pack.a.b": "from ..widths import WIDTH"}),
    "a whole module": ("import pack.a", {"pack.__init__": "", "pack.a": "from . import widths"}),
    "around it": ("import pack.a", {"pack.__init__": "from pack import widths", "pack.a": ""}),
    "relative by name": ("import pack", {"pack.__init__": "import importlib\nlater = lambda: "
                                         "importlib.import_module('.widths', __name__)"}),
}  # fmt: skip
PLACES = {
    "as one of Python's own": "queue",
    "in a folder": "lib.widths",
    "a namespace": "lib.deep.widths",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_module_that_a_file_imports_counts_however_it_is_imported(way, tmp_path):
    imports, more = WAYS[way]
    module = PLACES.get(way, "pack.widths" if "pack.__init__" in more else "widths")
    write(tmp_path, plugin=imports, **more, **{module: "WIDTH = 8"})
    before = code_of_file(tmp_path / "plugin.py")
    write(tmp_path, **{module: "WIDTH = 64"})
    after = code_of_file(tmp_path / "plugin.py")
    assert (before.origin, before.loose) == ("plugin.py", True)
    assert before.sha256 != after.sha256 == before.now(Distributions()).sha256
    write(tmp_path, **{module: "WIDTH = 8"})
    assert code_of_file(tmp_path / "plugin.py") == before


def test_an_edited_module_is_executed_again_in_the_same_process(tmp_path):
    offer = OFFER.replace("'wide'", "f'wide-{widths.WIDTH}'")
    write(tmp_path, plugin=f"{OWN_FOLDER}import widths\n{offer}", widths="WIDTH = 8")
    plugin = tmp_path / "plugin.py"
    first = load_registry([plugin])
    assert "wide-8" in first.backbones
    write(tmp_path, widths="WIDTH = 64")
    assert "wide-64" in load_registry([plugin]).backbones
    assert first.code("backbone", "wide-8").sha256 == first.file_codes[str(plugin)]
    assert first.code("backbone", "wide-8").now(Distributions()) != first.code("backbone", "wide-8")


def test_a_module_on_the_path_counts_wherever_it_is(tmp_path, monkeypatch):
    write(tmp_path / "project", common="WIDTH = 8")
    write(tmp_path, plugin="import common")
    monkeypatch.syspath_prepend(tmp_path / "project")
    before = code_of_file(tmp_path / "plugin.py")
    assert before.files == {"": tmp_path / "plugin.py",
                            "common": tmp_path / "project" / "common.py"}  # fmt: skip
    write(tmp_path / "project", common="WIDTH = 64")
    assert code_of_file(tmp_path / "plugin.py").sha256 != before.sha256


def test_what_does_not_run_does_not_count(tmp_path):
    plugin = tmp_path / "plugin.py"
    write(tmp_path, plugin="import widths, torch, json, transferbench", widths="A = 1\nB = 2\n")
    before = code_of_file(plugin)
    write(tmp_path, unrelated="WIDTH = 8")
    (tmp_path / "data.json").write_text("{}")
    py_compile.compile(tmp_path / "widths.py")
    (tmp_path / "widths.py").write_bytes(b"A = 1\r\nB = 2\r\n")
    assert code_of_file(plugin) == before
    assert sorted(before.files) == ["", "widths"]


def test_the_place_and_the_name_of_a_file_do_not_count(tmp_path):
    write(tmp_path / "a", plugin="name = 'plugin'\nimport widths", widths="WIDTH = 8")
    write(tmp_path / "b", renamed="name = 'plugin'\nimport widths", other="WIDTH = 8")
    (tmp_path / "b" / "widths.py").symlink_to(tmp_path / "b" / "other.py")
    first = code_of_file(tmp_path / "a" / "plugin.py")
    assert code_of_file(tmp_path / "b" / "renamed.py").sha256 == first.sha256
    write(tmp_path / "b", other="WIDTH = 64")
    assert code_of_file(tmp_path / "b" / "renamed.py").sha256 != first.sha256


def test_a_link_to_a_file_is_that_file(tmp_path):
    write(tmp_path / "a", plugin=f"{OWN_FOLDER}import widths\n{OFFER}", widths="WIDTH = 8")
    (tmp_path / "link.py").symlink_to(tmp_path / "a" / "plugin.py")
    assert sorted(code(tmp_path / "link.py").files) == ["", "widths"]


def test_a_module_without_its_source_counts(tmp_path):
    def compiled(source):
        write(tmp_path, widths=source)
        py_compile.compile(tmp_path / "widths.py", tmp_path / "widths.pyc")
        (tmp_path / "widths.py").unlink()
        importlib.invalidate_caches()

    write(tmp_path, plugin="import widths")
    compiled("WIDTH = 8")
    before = code_of_file(tmp_path / "plugin.py")
    compiled("WIDTH = 64")
    assert code_of_file(tmp_path / "plugin.py").sha256 != before.sha256


@pytest.mark.parametrize("broken", ["def (", "x = '\0'", "a = '\\d'\n", "\ufeffimport os"])
def test_a_module_that_is_no_python_counts_by_its_content(broken, tmp_path):
    write(tmp_path, plugin="def build():\n    import widths", widths=broken)
    before = code_of_file(tmp_path / "plugin.py")
    write(tmp_path, widths=f"{broken} ")
    assert code_of_file(tmp_path / "plugin.py").sha256 != before.sha256


def test_a_file_that_is_gone_has_no_code_now(tmp_path):
    write(tmp_path, plugin=OFFER)
    before = code_of_file(tmp_path / "plugin.py")
    (tmp_path / "plugin.py").unlink()
    assert before.now(Distributions()) is None


# --- distributions ------------------------------------------------------------------------------


def record(folder, name, *rows):
    text = "".join(f"{row}\n" for row in rows)
    (folder / f"{name}-1.0.dist-info" / "RECORD").write_text(text)


def test_a_distribution_counts_by_its_record(distribution):  # noqa: F811  # a fixture
    folder = distribution("tidy", OFFER)
    own, info = "tidy_module.py,sha256=aaa,10", "tidy-1.0.dist-info"
    record(folder, "tidy", own, f"{info}/METADATA,sha256=bbb,10")
    before = code()
    assert (str(before)[:9], before.loose) == ("tidy 1.0 ", False)
    record(folder, "tidy", own, f"{info}/METADATA,sha256=ccc,10", f"{info}/INSTALLER,sha256=x,4",
           "../../bin/tidy,sha256=y,200", "__pycache__/tidy_module.cpython-311.pyc,,")  # fmt: skip
    assert code() == before == before.now(Distributions())
    record(folder, "tidy", own.replace("aaa", "ddd"))
    assert code().sha256 != before.sha256
    assert before.now(Distributions()) == code()


@pytest.mark.parametrize("editable", [True, False])
def test_without_a_useful_record_a_distribution_counts_by_its_sources(editable, distribution):  # noqa: F811  # a fixture
    folder = distribution("tidy", None, module="mylab.plugins")
    if editable:
        record(folder, "tidy", "__editable__.tidy.pth,sha256=aaa,10")
    write(folder, **{"mylab.__init__": "", "mylab.plugins": OFFER, "mylab.nets.deep": "WIDTH = 8"})
    (folder / "mylab" / "notes.txt").write_text("these are no code")
    before = code()
    assert before.now(Distributions()) == before
    (folder / "mylab" / "notes.txt").write_text("nor are these")
    assert code() == before
    write(folder, **{"mylab.nets.deep": "WIDTH = 64"})
    assert before.now(Distributions()) == code() != before
    assert not before.loose


def test_the_bundled_plugins_have_a_code_and_a_distribution_that_is_gone_has_none(distribution):  # noqa: F811  # a fixture
    registry = load_registry()
    codes = {registry.code("dataset", "digits").sha256, registry.code("backbone", "timm").sha256}
    assert len(codes) == 1
    folder = distribution("tidy", OFFER)
    installed = code()
    (folder / "tidy_module.py").unlink()
    del sys.modules["tidy_module"]
    importlib.invalidate_caches()
    assert installed.now(Distributions()) is None
