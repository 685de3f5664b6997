"""The errors: one family, messages with advice."""

from __future__ import annotations

import pytest

from transferbench import errors
from transferbench.errors import (
    PluginError,
    TransferbenchError,
    UnknownNameError,
    listing,
    nearest,
    shortened,
    suggestion,
)


def test_every_error_is_one_the_command_line_catches():
    exported = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
    assert len(exported) >= 9
    for error in exported:
        assert issubclass(error, TransferbenchError)
        assert error.__doc__


def test_the_tree_in_the_docstring_names_every_error():
    for name in errors.__all__:
        if name.endswith("Error"):
            assert name in errors.__doc__


def test_the_exported_names_are_sorted_and_complete():
    defined = [
        name
        for name, value in vars(errors).items()
        if getattr(value, "__module__", "") == errors.__name__ and not name.startswith("_")
    ]
    assert sorted(defined) == errors.__all__


def test_an_unknown_name_offers_the_nearest():
    error = UnknownNameError("backbone", "resnet5", ["vit", "resnet50", "mlp"])
    assert str(error) == "no backbone named 'resnet5'; did you mean 'resnet50'?"


def test_an_unknown_name_near_to_nothing_lists_what_there_is():
    error = UnknownNameError("dataset", "zebra", ["mnist", "digits"])
    assert str(error) == "no dataset named 'zebra'; there are: digits, mnist"


def test_an_unknown_name_where_there_is_nothing_and_with_advice():
    assert str(UnknownNameError("dataset", "x", [])) == "no dataset named 'x'"
    advised = UnknownNameError("dataset", "x", [], advice="install one")
    assert str(advised) == "no dataset named 'x' (install one)"


def test_a_plugin_error_is_shown_as_its_message_alone():
    with pytest.raises(TransferbenchError) as caught:
        raise PluginError("broken, repair it")
    assert str(caught.value) == "broken, repair it"


@pytest.mark.parametrize(
    ("name", "close"),
    [("block-shufle", "block-shuffle"), ("noise", "noise"), ("qqqqqq", None), ("", None)],
)
def test_nearest(name, close):
    assert nearest(name, ["noise", "block-shuffle"]) == close


def test_long_lists_end_in_how_many_more_there_are():
    assert listing(["a", "b", "c"], 3) == "a, b, c"
    assert listing(["a", "b", "c"], 2, "; ") == "a; b and 1 more"
    assert shortened(["a", "b", "c"], 1) == ["a", "and 2 more"]
    assert shortened([], 1) == []


def test_an_unknown_name_is_answered_with_the_nearest_or_with_all():
    assert suggestion("lion", ["zebra", "lions"]) == "did you mean 'lions'?"
    assert suggestion("x", ["zebra", "lions"]) == "there are: zebra, lions"
    assert suggestion("x", []) == "there are: none"
