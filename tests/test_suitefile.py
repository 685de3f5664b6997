"""Suite files: what they may say, and that all mistakes are reported at once with their lines."""

import json
from pathlib import Path

import pytest

from transferbench.errors import SuiteError, UnknownNameError
from transferbench.registry import load_registry
from transferbench.suite import loading
from transferbench.suite.columns import columns_of
from transferbench.suite.loading import (
    bundled_suites,
    json_schema,
    load_suite,
    newest_suites,
    refuse_mistakes,
)

SUITE = """\
name: tiny
version: "1.0"
summary: A suite for tests.
backbones: [fixup-resnet8]
image: {size: 8, channels: 1, mean: [0.5], std: [0.5]}
sources:
  source: {dataset: {name: glyphs, params: {characters: letters}}, recipe: short}
targets:
  near: {dataset: {name: digits}, labels_per_class: 2}
perturbations:
  none: {name: identity}
  block-2: {name: block-shuffle, params: {block: 2}}
recipes:
  short: {optimizer: sgd, learning_rate: 1e-3, epochs: 1, batch_size: 8}
initializations:
  P-T: {name: pretrained, recipe: short}
  RI-T: {name: random, recipe: short}
replicates: 2
trials: [{}]
diagnostics:
  speed: {name: speed, of: [P-T, RI-T]}
claims:
  faster:
    statement: P-T trains faster
    terms: [{diagnostic: speed, metric: speed, initialization: P-T}]
    relation: above
scoring:
  initialization: P-T
  baseline: RI-T
  perturbation: none
  chance: {near: 0.1}
  reference: {near: 0.9}
"""


@pytest.fixture(scope="module")
def registry():
    return load_registry()


@pytest.fixture
def write(tmp_path):
    def write(*changes):
        text = SUITE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "tiny.yaml"
        path.write_text(text)
        return str(path)

    return write


def message_of(path, registry=None, changes=()):
    with pytest.raises(SuiteError) as caught:
        load_suite(path, registry, changes)
    return str(caught.value)


def test_a_valid_suite_is_read_with_yaml_1_2_numbers(write, registry):
    suite = load_suite(write(), registry)
    assert suite.id == "tiny@1.0"
    assert suite.board == "tiny@1"
    assert suite.recipes["short"].learning_rate == 0.001


@pytest.mark.parametrize("name", bundled_suites())
def test_bundled_suites_are_valid_and_named_after_their_file(name, registry):
    suite = load_suite(name, registry)
    assert suite.board == name
    refuse_mistakes(suite, registry)  # as it is given to a run in Python


def test_a_bundled_suite_that_is_changed_in_python_needs_a_name_of_its_own(registry):
    changed = load_suite("quickstart", registry).model_copy(update={"replicates": 20})
    with pytest.raises(SuiteError, match=f"the suite calls itself {changed.id}, and is another"):
        refuse_mistakes(changed, registry)
    refuse_mistakes(changed.model_copy(update={"name": "mine"}), registry)


def test_five_mistakes_are_told_at_once_each_with_its_line(write, registry):
    path = write(
        ("summary: A suite for tests.", "sumary: A suite for tests."),
        ("name: digits", "name: digitz"),
        ("{block: 2}", "{block: 3}"),
        ("epochs: 1,", "epochs: 0,"),
        ("of: [P-T, RI-T]", "of: [P-T, RIT]"),
    )
    message = message_of(path, registry)
    mistakes = [line.split(": ", 1) for line in message.splitlines()[1:]]
    lines = {at.rsplit(":", 1)[1].strip(): mistake for at, mistake in mistakes}
    assert "6 mistakes" in message
    assert "did you mean 'summary'?" in lines["3"]
    assert "did you mean 'digits'?" in lines["9"]
    assert "params" in lines["12"]
    assert "divide" in lines["12"]
    assert "recipes.short.epochs" in lines["14"]
    assert "did you mean 'RI-T'?" in lines["21"]
    assert "summary: Field required" in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "name: tiny",
            "name: tiny\nname: other",
            "yaml:2: name: duplicate key, set before in line 1",
        ),
        ("recipe: short}\ntargets", "recipe: long}\ntargets", "recipes has no 'long'"),
        ("initialization: P-T\n", "initialization: PT\n", "did you mean 'P-T'?"),
        ("chance: {near: 0.1}", "chance: {far: 0.1}", "targets has no 'far'"),
        ("{block: 2}", "{blok: 2}", "did you mean 'block'?"),
        ("mean: [0.5]", "mean: [0.5, 0.5]", "one per channel"),
        ("relation: above", "relation: within", "within needs a positive threshold"),
        ("diagnostic: speed,", "diagnostic: sped,", "did you mean 'speed'?"),
        ("optimizer: sgd", "optimizer: sgb", "'sgd' or 'adamw'"),
        ("epochs: 1,", "epochs: 1, schedule: {name: step},", "milestones belong to the step"),
        ("[fixup-resnet8]", "[fixup-resnet9]", "did you mean 'fixup-resnet8'?"),
        ("apply: x", "apply: y", "apply"),
    ],
)
def test_each_mistake_names_the_place_and_the_way_on(write, registry, old, new, expected):
    if old == "apply: x":
        old, new = "{name: identity}", "{name: identity, apply: never}"
    assert expected in message_of(write((old, new)), registry)


def test_a_file_that_is_not_there_or_not_yaml(tmp_path):
    assert "No such file" in message_of(str(tmp_path / "none.yaml"))
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    assert "has no fields" in message_of(str(path))


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'quickstart'"):
        load_suite("quikstart")


@pytest.fixture
def two_majors(write, tmp_path, monkeypatch):
    """Suite ``tiny`` in its MAJORs 2 and 10, beside another."""
    for name, version in (("tiny", "2.0"), ("tiny", "10.1"), ("other", "1.0")):
        changes = ("name: tiny", f"name: {name}"), ('"1.0"', f'"{version}"')
        major = version.partition(".")[0]
        Path(write(*changes)).rename(tmp_path / f"{name}@{major}.yaml")
    monkeypatch.setattr(loading, "BUNDLED", tmp_path)


@pytest.mark.usefixtures("two_majors")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny", "tiny@10.1"),
        ("tiny@10", "tiny@10.1"),
        ("tiny@10.1", "tiny@10.1"),
        ("tiny@2", "tiny@2.0"),
        ("tiny@2.0", "tiny@2.0"),
        ("other", "other@1.0"),
    ],
)
def test_a_name_is_the_newest_major_and_older_ones_are_there_by_their_number(name, expected):
    assert load_suite(name).id == expected


@pytest.mark.usefixtures("two_majors")
def test_majors_are_listed_by_their_number():
    assert list(bundled_suites()) == ["other@1", "tiny@2", "tiny@10"]
    assert newest_suites() == {"other": "other@1", "tiny": "tiny@10"}


@pytest.mark.usefixtures("two_majors")
@pytest.mark.parametrize("name", ["tiny@1", "tiny@1.0", "tiny@", "tiny@x", "tiny@9.0"])
def test_a_major_that_is_not_installed_is_refused(name):
    message = f"^this installation has no suite '{name}'; it has tiny@2 and tiny@10$"
    with pytest.raises(SuiteError, match=message):
        load_suite(name)


@pytest.mark.usefixtures("two_majors")
def test_a_minor_that_is_not_installed_is_refused():
    with pytest.raises(
        SuiteError, match=r"^this installation has suite 'tiny@2.0', not 'tiny@2.1'"
    ):
        load_suite("tiny@2.1")


@pytest.mark.usefixtures("two_majors")
@pytest.mark.parametrize("name", ["tiny", "tiny@2", "tiny@10.1"])
def test_a_folder_named_like_a_suite_does_not_hide_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    assert load_suite(name).name == "tiny"
    Path("other folder").mkdir()
    assert "cannot read the suite other folder: Is a directory" in message_of("other folder")


@pytest.mark.usefixtures("two_majors")
def test_a_folder_does_not_make_another_minor_of_a_suite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny@2.1").mkdir()
    assert "has suite 'tiny@2.0', not 'tiny@2.1'" in message_of("tiny@2.1")


def test_changes_are_yaml_values_at_a_path(write):
    suite = load_suite(write(), changes=["replicates=5", "recipes.short.learning_rate=3e-2"])
    assert suite.replicates == 5
    assert suite.recipes["short"].learning_rate == 0.03


def test_a_change_uses_a_plugin_under_a_new_label(write, registry):
    changes = ("perturbations.mine.name=block-shuffle", "perturbations.mine.params={block: 4}",
               "diagnostics.agreement.name=learning-curve", "targets.near.dataset.name=glyphs",
               "perturbations.none.name=pixel-shuffle")  # fmt: skip
    suite = load_suite(write(), registry, changes)
    assert list(suite.perturbations) == ["none", "block-2", "mine"]
    assert suite.perturbations["mine"].params == {"block": 4}
    assert suite.perturbations["none"].name == "pixel-shuffle"
    assert suite.diagnostics["agreement"].name == "learning-curve"
    assert suite.targets["near"].dataset.name == "glyphs"


def test_a_label_near_to_a_known_one_is_new_only_as_the_plugins_own_name(write, registry):
    near = "perturbations.block-shuffle.name=block-shuffle"
    message = message_of(write(), registry, [near])
    assert "perturbations.block-shuffle.params.block: block-shuffle: Field required" in message
    perturbations = load_suite(write(), changes=[near]).perturbations
    assert "block-shuffle" in perturbations
    assert "did you mean 'block-2'?" in message_of(
        write(), registry, ["perturbations.block-3.name=pixel-shuffle"]
    )


def test_a_change_reaches_labels_with_dots(write):
    glyphs = "  near: {dataset: {name: glyphs}}\n"
    changes = ("near", "near.far"), ("  near.far: {", f"{glyphs}  near.far: {{")
    settings = ["targets.near.far.labels_per_class=3", "targets.near.labels_per_class=5",
                "scoring.reference.near.far=0.8"]  # fmt: skip
    suite = load_suite(write(*changes), changes=settings)
    counts = {label: target.labels_per_class for label, target in suite.targets.items()}
    assert counts == {"near": 5, "near.far": 3}
    assert suite.scoring.reference == {"near.far": 0.8}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("replicates", "has no '='"),
        ("perturbation.mine.name=identity", "did you mean 'perturbations'?"),
        ("perturbations.mine.nam=identity", "the suite has no 'mine' there"),
        ("initializations.mine.name=random", "initializations.mine.recipe: Field required"),
        ("recipes.shart.epochs=3", "did you mean 'short'?"),
        ("replicates=none", "replicates"),
        ("replicats=3", "did you mean 'replicates'?"),
        ("name.x=3", "nothing can be set below 'name'"),
        ("backbones.7=x", "the suite has no '7' there"),
    ],
)
def test_a_change_that_leads_nowhere_is_told(write, change, expected):
    assert expected in message_of(write(), changes=[change])


COLUMN = "{key: quick, title: quick, diagnostic: speed, metric: speed, of: gain, help: how quick}"


def with_columns(*columns):
    return ("baseline: RI-T\n", f"baseline: RI-T\n  columns: [{', '.join(columns)}]\n")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            [COLUMN.replace(": speed", ": sped", 1)],
            "30: scoring.columns.0.diagnostic: diagnostics has no 'sped'",
        ),
        ([COLUMN.replace("metric: speed, ", "")], "30: scoring.columns.0.metric: Field required"),
        ([COLUMN.replace("of: gain", "of: loss")], "30: scoring.columns.0.of: Input should be 'va"),
        ([COLUMN, COLUMN], "27: scoring: two columns have the key 'quick'"),
        ([COLUMN.replace("key: quick", "key: score")], "27: scoring: every board has a column 's"),
        ([COLUMN.replace("key: quick", "key: folder")], "27: scoring: every board has a column 'f"),
        ([COLUMN.replace("key: quick", "key: score_low")], "27: scoring: 'score_low' would be the"),
        ([COLUMN.replace("of: gain", "of: share")], "27: scoring: a share of the gain belongs to"),
    ],
)
def test_a_mistake_in_a_column_is_named(write, registry, columns, expected):
    message = message_of(write(with_columns(*columns)), registry)
    assert expected in message
    assert f"tiny.yaml:{expected}" in message


def test_a_suite_says_what_its_board_shows(write):
    plain = load_suite(write())
    assert columns_of(plain) == ()
    assert "columns" not in plain.model_dump(mode="json")["scoring"]
    suite = load_suite(write(with_columns(COLUMN)))
    (column,) = columns_of(suite)
    assert (column.key, column.under, column.terminal) == ("quick", "clean", False)
    assert suite.digest != plain.digest
    trial = COLUMN.replace("diagnostic: speed", "diagnostic: trial")
    assert columns_of(load_suite(write(with_columns(trial))))[0].diagnostic == "trial"


@pytest.mark.parametrize(
    "name", ["characters@2", "initializations@1", "null-pair@1", "quickstart@1"]
)
def test_the_columns_of_suites_published_before_them_are_listed_apart_and_fit(name):
    suite = load_suite(name)
    columns = columns_of(suite)
    assert columns
    assert suite.scoring.columns == ()
    assert {column.diagnostic for column in columns} <= set(suite.diagnostics)
    type(suite.scoring).model_validate(suite.scoring.model_dump() | {"columns": columns})


def test_the_json_schema_describes_a_suite():
    schema = json.loads(json.dumps(json_schema()))
    assert set(schema["required"]) <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_every_field_of_the_json_schema_has_a_description():
    schema = json_schema()
    models = schema["$defs"] | {"Suite": schema}
    assert {"Target", "Claim", "RateFactor"} <= models.keys()
    for model, definition in models.items():
        assert definition["description"].endswith("."), model
        for key, value in definition["properties"].items():
            assert value.get("description", "").strip().endswith("."), (model, key)
