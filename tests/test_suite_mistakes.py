"""Each mistake in a suite is a sentence with file, line and field, before anything is trained."""

import copy
import json
import os
import re
import time

import pytest
from command_line import artefacts, mistake, suite_file
from tiny_suite import TINY, tiny_suite

import transferbench
from transferbench.errors import PluginError, SuiteError, UnknownNameError, suggestion
from transferbench.registry import load_registry
from transferbench.suite import Suite, mistakes
from transferbench.suite.document import MAX_DEPTH, MAX_VALUES, defined_at, plain, read_yaml
from transferbench.suite.loading import load_suite, newest_suites


@pytest.fixture(scope="module")
def registry():
    return load_registry()


@pytest.fixture
def reasons(tmp_path, registry):
    """The mistakes of a suite file, each without the path: ``LINE: FIELD: MESSAGE``."""
    path = tmp_path / "suite.yaml"

    def reasons(text, changes=()):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        began = time.perf_counter()
        with pytest.raises(SuiteError) as caught:
            load_suite(str(path), registry, changes)
        assert time.perf_counter() - began < 10  # 2 s, on a machine that does nothing else
        lines = str(caught.value).splitlines()
        assert re.fullmatch(r"the suite has (one mistake|\d+ mistakes):", lines[0]), lines
        return "\n".join(line.strip().removeprefix(f"{path}:") for line in lines[1:])

    return reasons


def with_value(field, value):
    """The tiny suite as JSON, a line each field, with YAML in the place of one value."""
    suite = copy.deepcopy(TINY)
    steps = (step.replace("~", "/") for step in field.split("/"))
    *parents, last = (int(step) if step.isdigit() else step for step in steps)
    node = suite
    for step in parents:
        node = node[step]
    node[last] = "@"
    return json.dumps(suite, indent=1).replace('"@"', value)


def line_of(text, value):
    return text[: text.index(value)].count("\n") + 1


# --- YAML -------------------------------------------------------------------------------------

BOMB = "\n".join(
    ["a: &a [x, x, x, x, x, x, x, x, x]"]
    + [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi")]  # noqa: B905  # one is longer
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("!!int x", "the tag !!int cannot be used; write the plain value"),
        ("!!bool maybe", "the tag !!bool cannot be used"),
        ("!!python/object/apply:os.system [ls]", "the tag !!python/object/apply:os.system"),
        ("!!binary aGk=", "the tag !!binary cannot be used"),
        ("!!set {a, b}", "the tag !!set cannot be used"),
        ("!own x", "the tag !own cannot be used"),
        ("! x", "the tag ! cannot be used"),
        ("'2'", "Input should be an integer, not '2'"),
        ("2.0", "Input should be an integer, not 2.0"),
        ("1e1", "Input should be an integer, not 10.0"),
        ("true", "Input should be an integer, not true"),
        ("", "Input should be an integer, not nothing"),
        ("[2]", "Input should be an integer, not a list"),
        ("2020-01-01", "Input should be an integer, not '2020-01-01'"),
        ("1:30", "Input should be an integer, not '1:30'"),
        ("0o18", "Input should be an integer, not '0o18'"),
        ("1_000", "1_000 is read differently by YAML 1.1 and 1.2; write a plain decimal number"),
        ("010", "010 is read differently by YAML 1.1 and 1.2"),
        ("0b11", "0b11 is read differently by YAML 1.1 and 1.2"),
        (".inf", ".inf is not a finite number"),
        ("-.INF", "-.INF is not a finite number"),
        (".nan", ".nan is not a finite number"),
        ("1e400", "1e400 is beyond the largest number"),
        ("9007199254740992", "9007199254740992 is beyond 9007199254740991, the largest integer"),
        ("1" * 5000, "a text of 5000 characters; at most 4000 are allowed"),
        ("1" * 400, "1... is beyond 9007199254740991"),
        ("0x" + "f" * 50, "is beyond 9007199254740991"),
        ("-5", "Input should be greater than or equal to 1, not -5"),
        ("-0.0", "Input should be an integer, not -0.0"),
        ("&a [*a]", "*a stands inside of &a itself"),
        ("&a {b: *a}", "*a stands inside of &a itself"),
        ("&a {<<: *a}", "*a stands inside of &a itself"),
        ("*gone", "no value has the anchor &gone"),
        ("{<<: 3}", "<< takes over the entries of mappings, and this is none"),
        ("[" * 300 + "]" * 300, f"nested more than {MAX_DEPTH} deep"),
        ("[" * 10_000, f"nested more than {MAX_DEPTH} deep"),
        ("{a: " * 10_000, f"nested more than {MAX_DEPTH} deep"),
        ("[" + "1, " * 100_000 + "]", f"more than {MAX_VALUES} values"),
        ('"\\ud800"', "the character U+D800 cannot stand in a suite; take it out"),
        ('"\\0"', "the character U+0000 cannot stand in a suite"),
        ('"\\U00110000"', "is not a YAML file"),
        ('"\\x1b[31m"', "the character U+001B cannot stand in a suite"),
        ("x" * 4001, "a text of 4001 characters; at most 4000 are allowed"),
    ],
)
def test_a_value_is_refused_at_its_line_and_field(reasons, value, expected):
    text = with_value("replicates", value)
    reason = reasons(text)
    assert expected in reason
    line, field, _ = reason.split(": ", 2)
    if "YAML file" not in expected:
        assert int(line) == line_of(text, '"replicates"')
        assert field.startswith("replicates")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not a suite: it has no fields at the top level"),
        (b"# nothing\n", "is not a suite: it has no fields at the top level"),
        (b"null", "is not a suite: it has no fields at the top level"),
        ("name: é\n".encode("latin-1"), "1: suite: is not a YAML file: byte 0xe9 is not UTF-8"),
        (b"a: 1\nb: \xed\xa0\x80", "2: suite: is not a YAML file: byte 0xed is not UTF-8"),
        ("name: a".encode("utf-16"), "1: suite: is not a YAML file: the text is UTF-16; save it"),
        ("name: a".encode("utf-16-be"), "the character U+0000 cannot stand in a suite"),
        (b"a: 1\nb: \x00", "2: suite: the character U+0000 cannot stand in a suite; take it out"),
        (b"a: 1\n\tb: 2", "2: suite: is not a YAML file: "),
        (b"a:\n\tb: 2", "2: suite: is not a YAML file: a tab cannot indent a line; use spaces"),
        (b"a: {b: 1\nc: 2", "1: suite: is not a YAML file: ',' or '}' is missing at the end of"),
        (b"a: 1\nb: [1, 2\n", "2: suite: is not a YAML file: the [ that begins here is not closed"),
        (b"a: [1,\n  'x'\n  'y']", "2: suite: is not a YAML file: ',' or ']' is missing at"),
        (b"a: {x: 1 y: 2}", "1: suite: is not a YAML file: ',' or '}' is missing\n"),
        (b"a: 'x\nb: 1\n", "1: suite: is not a YAML file: the quote that begins here is not"),
        (b"a: 'x\nb: 'y'\n", "1: suite: is not a YAML file: the quote that begins here is closed"),
        (b"a:\n  b: 1\n   c: 2\n", "3: suite: is not a YAML file: this goes on with the text of"),
        (b"a:\n    b: 1\n  c: 2\n", "3: suite: is not a YAML file: this does not fit the"),
        (b"a: b: c", "1: suite: is not a YAML file: a second ':' in one line; put the text that"),
        (b"a: - b", "1: suite: is not a YAML file: a list cannot begin here"),
        (b"a: @b", "1: suite: is not a YAML file: '@' cannot begin a text; put it in quotes"),
        (b"a: 1\n---\nb: 2", "2: suite: a second document begins; a suite file holds one"),
        (b"%YAML 1.1\n---\na: 1", "YAML 1.1 is asked for; a suite is YAML 1.2"),
        (b"%YAML 1.2\n---\na: 1: 2", "3: suite: is not a YAML file: a second ':' in one line"),
        (b"a: 1\n%YAML 1.2\n", "3: suite: is not a YAML file: expected '<document start>'"),
        (b"a: 1\nb: {a: 1,\n a: 2}", "3: b.a: duplicate key, set before in line 2"),
        (b"1: a", "1: suite: this key is not text; put a number, null, true or false in quotes"),
        (b"a: {[1]: 2}", "1: a: this key is not text"),
        (b"a: {true: 2}", "1: a: this key is not text"),
        (b"a:\n  <<: {c: 1}\n  <<: [{c: 2}, 3]", "3: a.<<: << takes over the entries of mappings"),
        (BOMB.encode(), "6: f.4: aliases stand for more than 200000 values"),
        (b"a: &a " + b"x" * 3000 + b"\nb: &b [" + b"*a, " * 2000 + b"]\nc: [*b, *b, *b, *b]",
         "3: c.4: aliases stand for more than 200000 values"),
        (b"- " * 10_000 + b"1", ": 0.0.0.0.0.0.0.0.0.0.0.0....: nested more than 32 deep"),
        (b"a: 1\n" * 300_000, "1: suite: the file has more than 524288 bytes"),
    ],
)  # fmt: skip
def test_a_file_is_refused_before_it_is_a_suite(tmp_path, content, expected):
    path = tmp_path / "suite.yaml"
    path.write_bytes(content)
    message = mistake("validate", path)
    assert expected in message
    assert str(path) in message


@pytest.mark.parametrize("verb", ["validate", "plan"])
def test_a_file_of_weights_is_no_suite(tmp_path, verb):
    path = tmp_path / "w1.safetensors"
    path.write_bytes((1000).to_bytes(8, "little") + b"{}" * 600_000)
    assert mistake(verb, path) == (
        f"error: {path} is a binary file, and no suite: give a .yaml file, or a bundled suite: "
        f"{', '.join(newest_suites())}; weights are named with --weights {path}\n"
    )


@pytest.mark.parametrize(
    ("create", "expected"),
    [
        (lambda path: path.mkdir(), "Is a directory; give the path of a .yaml file"),
        (os.mkfifo, "it is not a regular file; give the path of a .yaml file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is not a regular file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda _: None, "No such file or directory"),
    ],
)
def test_what_is_no_suite_file(tmp_path, create, expected):
    path = tmp_path / "suite.yaml"
    create(path)
    message = mistake("validate", path)
    assert expected in message
    assert str(path) in message


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".yaml", "a\0b", "a\0b.yaml", ""])
def test_a_name_that_no_file_can_have(name):
    assert "suite" in mistake("validate", name)


def test_names_are_not_looked_for_in_each_of_many_merges():
    doubled = "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 13))
    last = ", ".join(f"k{i}: {i}" for i in range(200))
    text = f"a0: &a0 {{k: 1}}\n{doubled}b: &b {{{last}}}\nc: {{<<: [*a12, *b]}}\n"
    root, _ = read_yaml(text.encode())
    began = time.process_time()
    assert plain(root)["c"] == {"k": 1} | {f"k{i}": i for i in range(200)}
    assert {defined_at(root, ("c", f"k{i}"), built={}) for i in range(2)} == {14}
    assert time.process_time() - began < 0.5  # 2 ms, and 2 s where it is asked each time


def test_aliases_are_counted_and_not_expanded():
    chain = "\n".join(f"a{i}: &a{i} {{x: *a{i - 1}}}" if i else "a0: &a0 1" for i in range(60))
    (mistake_,) = read_yaml(chain.encode()).mistakes
    assert mistake_.message == "nested more than 32 deep"
    small = read_yaml(b"a: &a [1, 2]\nb: [*a, *a]\nc: {<<: [{d: 1}, {d: 2, e: 3}], e: 4}")
    assert plain(small.root) == {"a": [1, 2], "b": [[1, 2], [1, 2]], "c": {"e": 4, "d": 1}}


def test_windows_line_ends_a_byte_order_mark_and_emoji_in_texts_are_read(tmp_path, registry):
    text = json.dumps(TINY | {"summary": "rocket \U0001f680"}, indent=1)
    path = tmp_path / "suite.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_suite(str(path), registry).summary == "rocket \U0001f680"


def test_json_is_yaml(tmp_path, registry):
    path = tmp_path / "suite.json"
    path.write_text(json.dumps(TINY | {"summary": "rocket \U0001f680"}))
    assert "\\ud83d" in path.read_text()
    assert load_suite(str(path), registry).summary == "rocket \U0001f680"


NESTED = """\
name: a
image:
  size: 8
  mean: [0.5]
recipes:
  short: &short
    epochs: 2
    # the rate that was chosen

    schedule: {name: step}
  long:
    <<: *short
    epochs: 9
claims:
  faster:
    statement: it trains in
      fewer epochs
    terms:
      - diagnostic: speed
        metric: speed
      - diagnostic: speed
        metric: area
  same:
    terms: []
    control: true
"""


@pytest.mark.parametrize("number", [
    number for number, line in enumerate(NESTED.splitlines(), 1)
    if re.match(r"[^#]*:", line) and "{" not in line
])  # fmt: skip
def test_a_missing_colon_is_told_at_its_line(number):
    """A line later a parser sees that what began there was no key; with { after it, it is one."""
    lines = NESTED.splitlines()
    lines[number - 1] = lines[number - 1].replace(":", "", 1)
    (told,) = read_yaml("\n".join(lines).encode()).mistakes
    assert told.at == number
    assert "a ':' and a space are missing after the key" in told.message


# --- fields -----------------------------------------------------------------------------------

RECIPE = "recipes/short"
PAIR = "{a: P-T, b: RI-T, replicates: next}"
TERM = "{diagnostic: speed, metric: speed, initialization: P-T}"


def robustness(series):
    return f"{{name: robustness, params: {{perturbations: [{series}]}}}}"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("version", "1.0", "Input should be a text in quotes, not 1.0"),
        ("version", f"'1.{'0' * 30}'", "at most 20 characters"),
        ("name", f"'{'x' * 200}'", "at most 60 characters"),
        ("targets", "3", "Input should be a mapping, not 3"),
        ("targets", "[a]", "Input should be a mapping, not a list"),
        ("targets", "{}", "scoring.chance.handwriting: targets has no 'handwriting'; "),
        ("targets", "", "Input should be a mapping, not nothing"),
        ("perturbations", "{}", "perturbations has no 'none'"),
        ("trials", "[]", "is empty, so that nothing is trained"),
        ("trials/0", "{targets: []}", "is empty; leave it out for all of them"),
        ("backbones/0", "3", "Input should be a text in quotes, not 3"),
        ("image/size", "100000", "Input should be less than or equal to 1024, not 100000"),
        ("image/mean/0", "1e9", "should be at most 1e+06, not 1e+09"),
        ("image/std/0", "1e-9", "should be at least 1e-06, not 1e-09"),
        ("targets/handwriting/image", "{size: 16, channels: 1, mean: [0.5], std: [0.5]}",
         "image.size: 16, and the suite's image has 8: a network has one input"),
        ("targets/handwriting/image", "{size: 8, channels: 1, mean: [1e9], std: [0.5]}",
         "image.mean.0: should be at most 1e+06, not 1e+09"),
        ("replicates", "1000000000", "a run holds at most 100,000 jobs; ask for fewer, or divide"),
        (f"{RECIPE}/learning_rate", "'0.1'", "Input should be a number, not '0.1'"),
        (f"{RECIPE}/learning_rate", "1e30", "should be at most 1e+06, not 1e+30"),
        (f"{RECIPE}/learning_rate", "-0.0", "Input should be greater than 0, not -0.0"),
        (f"{RECIPE}/epochs", "1000000000000", "should be at most 1e+06, not 1e+12"),
        (f"{RECIPE}/batch_size", "100000000", "should be at most 1.04858e+06, not 1e+08"),
        (f"{RECIPE}/augmentation", "{flip: yes}", "Input should be true or false, not 'yes'"),
        (f"{RECIPE}/augmentation", "{flip: 1}", "Input should be true or false, not 1"),
        (f"{RECIPE}/augmentation", "{shift: 8}", "a padding of 8 moves images of 8 px out of"),
        (f"{RECIPE}/augmentation", "{scale: [2, 1]}", "the smallest, 2, is above the largest, 1"),
        (f"{RECIPE}/augmentation", "{scale: [1]}", "scale: Input should have a value more than 1"),
        (f"{RECIPE}/augmentation", "{scale: [1, 1e9]}", "should be at most 1e+06"),
        (f"{RECIPE}/augmentation", "{random_resized_crop: [0, 0]}", "a crop without area"),
        (f"{RECIPE}/betas", "[1, 1]", "betas.0: Input should be less than 1, not 1"),
        (f"{RECIPE}/momentum", "1", "momentum: Input should be less than 1, not 1"),
        (f"{RECIPE}/mixup", "1e9", "mixup: should be at most 1e+06, not 1e+09"),
        (f"{RECIPE}/weight_decay", "-1", "Input should be greater than or equal to 0, not -1"),
        (f"{RECIPE}/label_smoothing", "1", "Input should be less than 1, not 1"),
        (f"{RECIPE}/schedule", "{warmup_epochs: 3}", "3 epochs of warm-up in a training of 2"),
        (f"{RECIPE}/schedule", "{name: step, gamma: 1e200, milestones: [1, 2]}",
         "schedule.gamma: 1e+200, 2 times, overflows"),
        (f"{RECIPE}/rate_factors", "[{pattern: '(', factor: 1}]",
         "rate_factors.0.pattern: '(' is not a regular expression: missing )"),
        (f"{RECIPE}/rate_factors", "[{pattern: a, factor: '1'}]",
         "rate_factors.0.factor: Input should be a number, not '1'"),
        ("initializations/P-T", "{name: pretrained, recipe: short, source: sauce}",
         "sources has no 'sauce', where P-T starts from; did you mean 'source'?"),
        ("sources", "{own: {dataset: {name: digits}, recipe: short}}",
         "sources has no 'source', where P-T starts from; there are: own"),
        ("initializations/P-T", "{name: pretrained, recipe: short, params: {checkpoint: 1}}",
         "P-T starts from epoch 1 of source, which stores epochs 0; add it to the source's"),
        ("initializations/P-T", "{name: pretrained, recipe: short, recipes: {far: short}}",
         "targets has no 'far'; there are: handwriting"),
        ("initializations/P-T", "{name: pretrained, recipe: short, recipes: {handwritng: short}}",
         "targets has no 'handwritng'; did you mean 'handwriting'?"),
        ("initializations/P-T", "{name: pretrained, recipe: short, params: {checkpoint: '0'}}",
         "checkpoint: pretrained: Input should be an integer, not '0'"),
        ("perturbations/block-2/params", "{block: true}", "Input should be an integer, not true"),
        ("perturbations/block-2/params", "{block: 2.0}", "Input should be an integer, not 2.0"),
        ("sources/source/dataset/params", "{per_class: '4'}", "should be an integer, not '4'"),
        ("diagnostics/drop/pairs", "[]", "relative-drop measures nothing: pairs is empty"),
        ("diagnostics/drop", "{name: relative-drop, of: [P-T]}",
         "of: relative-drop measures a pair: name its arms in pairs"),
        ("diagnostics/speed", "{name: speed, of: []}", "speed measures nothing: of is empty"),
        ("diagnostics/speed", "{name: speed, groups: [[]]}", "speed measures one network: name"),
        ("diagnostics/speed", "{name: speed, of: [P-T, P-T]}", "P-T would be measured twice"),
        ("diagnostics/drop/pairs", f"[{PAIR}, {PAIR.replace('next', 'different')}]",
         "P-T and RI-T would be measured twice"),
        ("diagnostics/curve", "{name: rewinding, params: {to: [1]}, of: [P-T]}",
         "reads epoch 1 of P-T on handwriting, which stores none; add it to the checkpoints"),
        ("diagnostics/curve", robustness("{name: identty, settings: [{}]}"),
         "no perturbation named 'identty'; did you mean 'identity'?"),
        ("diagnostics/curve", robustness("{name: block-shuffle, settings: [{block: 3}]}"),
         "block-shuffle: block 3 does not divide"),
        ("diagnostics/curve", robustness("{name: block-shuffle, settings: [{block: x}]}"),
         "block-shuffle: Input should be an integer, not 'x'"),
        ("diagnostics/trial", "{name: speed}",
         "trial means the measurements of the trials themselves; choose another label"),
        ("initializations/P", "{name: random, recipe: short}",
         "P means the source network itself; choose another label"),
        ("initializations/a b", "{name: random, recipe: short}",
         "'a b' is not a label: a label begins with a letter or digit and has at most 60"),
        ("targets/a~b", "{dataset: {name: digits}}", "is not a label"),
        ("targets/\U0001f600", "{dataset: {name: digits}}", "is not a label"),
        ("targets/" + "x" * 61, "{dataset: {name: digits}}", "is not a label"),
        ("scoring/chance", "{}", "has no value for 'handwriting'"),
        ("scoring/reference", "{}", "has no value for 'handwriting'"),
        ("scoring/reference", "{handwriting: 0.1}", "0.1 is the value at chance too, so that no"),
        ("scoring/metric", "tst_metric",
         "trials have no metric 'tst_metric'; did you mean 'test_metric'?"),
        ("scoring/reference", "{handwriting: 0.05}", "0.05 is below chance, 0.1, so that worse"),
        ("claims/faster/terms/0/metric", "sped",
         "speed has no metric 'sped'; did you mean 'speed'?"),
        ("scoring/columns",
         "[{key: a, title: A, diagnostic: speed, metric: area, of: value, help: a}]",
         "speed has no metric 'area'; "),
        ("claims/faster/terms/0/metric", "{}", "Input should be a text in quotes, not a mapping"),
        ("claims/faster/terms/0/weight", "1e300", "should be at most 1e+06, not 1e+300"),
        ("claims/faster/terms/0/coordinates", "{metric: a}",
         "metric is a field of every measurement and no coordinate"),
        ("claims/faster/terms/0/coordinates", "{epoch: true}",
         "coordinates.epoch: Input should be a text in quotes or an integer or a number, not true"),
        ("claims/faster/terms/0/other_initialization", "RI-T",
         "speed does not measure P-T and RI-T; correct the term, or let the diagnosis do it"),
        ("claims/faster/terms/0/initialization", "P", "speed does not measure P; correct"),
        ("claims/faster", "{statement: s, order: [[]], relation: above}", "an effect without term"),
        ("claims/faster", f"{{statement: s, relation: above, order: [[{TERM}]]}}", "two or more"),
        ("claims/faster/each", "{coordinates: [replicate]}",
         "replicate is a field of every measurement and no coordinate"),
        ("claims/faster/terms/0", "{diagnostic: trial, metric: sped, initialization: P-T}",
         "trials have no metric 'sped'"),
    ],
)  # fmt: skip
def test_a_field_is_refused_in_words(reasons, field, value, expected):
    lines = reasons(with_value(field, value)).splitlines()
    matching = [line for line in lines if expected in line]
    assert matching, lines
    assert all(re.match(r"[0-9]+: [\w.-]+", line) for line in matching)


@pytest.mark.parametrize(
    "replicates", ["different", "same}, {a: P-T, b: P-T, replicates: different"]
)
def test_a_column_shows_one_value_a_network(reasons, registry, tmp_path, replicates):
    columns = "[{key: a, title: A, diagnostic: mistakes, metric: kappa, of: value, help: a}]"
    (tmp_path / "one.yaml").write_text(text := with_value("scoring/columns", columns))
    load_suite(str(tmp_path / "one.yaml"), registry)
    pairs = f"[{{a: P-T, b: RI-T, replicates: {replicates}}}]"
    line = reasons(text, [f"diagnostics.mistakes.pairs={pairs}"])
    expected = (
        "a column shows one value a network, and those of P-T are in several pairs of mistakes"
    )
    assert f"scoring.columns.0.diagnostic: {expected}; judge it by a claim, or" in line


def test_many_mistakes_are_cut_short(reasons):
    text = with_value("claims", "{" + ", ".join(f"c{i}: {{}}" for i in range(200)) + "}")
    reason = reasons(text)
    assert len(reason.splitlines()) == 51
    assert reason.endswith("and 350 more")


def test_only_for_mistakes_that_are_printed_the_nearest_label_is_looked_for(reasons, monkeypatch):
    names = []

    def counted(name, available):
        names.append(name)
        return suggestion(name, available)

    monkeypatch.setattr(mistakes, "suggestion", counted)
    arms = {f"a{i}": {"name": "random", "recipe": "shrt"} for i in range(80)}
    lines = reasons(with_value("initializations", json.dumps(arms))).splitlines()
    assert sum("recipes has no 'shrt'; did you mean 'short'?" in line for line in lines) > 40
    assert len(names) <= 50


def test_what_a_wrong_table_leads_to_is_not_told(reasons):
    text = with_value("initializations", "3")
    line = line_of(text, "initializations")
    assert reasons(text) == f"{line}: initializations: Input should be a mapping, not 3"


@pytest.mark.parametrize("field", ["chance", "reference"])
def test_a_misspelt_target_of_a_score_is_one_mistake(reasons, field):
    text = with_value(f"scoring/{field}", "{handwritng: 0.5}")
    assert reasons(text) == (
        f"{line_of(text, json.dumps(field))}: scoring.{field}.handwritng: targets has no "
        "'handwritng'; did you mean 'handwriting'?"
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("replicates='2'", "--set replicates='2': replicates: Input should be an integer, not '2'"),
        ("replicates=2.0", "--set replicates=2.0: replicates: Input should be an integer, not 2.0"),
        ("replicates=", "--set replicates=: replicates: Input should be an integer, not nothing"),
        ("replicates=10000000", "--set replicates=10000000: replicates: 40,000,000 trials for"),
        ("recipes.short.betas=[1, 1]", "recipes.short.betas.0: Input should be less than 1"),
        ("scoring.chance={}", "--set scoring.chance={}: scoring.chance: has no value for 'hand"),
        ("trials.0.targets=[near]", "targets has no 'near'; there are: handwriting"),
    ],
)
def test_a_mistake_in_an_option_names_the_option(tmp_path, registry, change, expected):
    with pytest.raises(SuiteError, match=re.escape(expected)):
        load_suite(str(suite_file(tmp_path)), registry, [change])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("replicates=!!int x", "'!!int x' is not a YAML value; write it as in a suite file (the"),
        ("replicates=.nan", "(.nan is not a finite number)"),
        ("replicates=*a", "(no value has the anchor &a)"),
        ("replicates=[" + "[" * 300, "(nested more than 32 deep)"),
        ("trials.\u00b2=1", "the suite has no '\u00b2' there; there are: 0"),
        ("trials." + "1" * 5000 + "=1", "there; there are: 0"),
        ("replicates.x=1", "nothing can be set below 'replicates'"),
        ("replicates=1\n---\n2", "a second document begins"),
        ("=3", "no such field"),
    ],
)
def test_an_option_that_cannot_be_read_says_why(tmp_path, change, expected):
    with pytest.raises(SuiteError, match=re.escape(expected)):
        load_suite(str(suite_file(tmp_path)), None, [change])


@pytest.mark.parametrize("value", ["0", "-4", "2000", "true", "a"])
def test_a_plugin_is_not_asked_about_a_size_that_no_image_has(reasons, value):
    assert len(reasons(with_value("image/size", value)).splitlines()) == 1


# --- plugins ----------------------------------------------------------------------------------

NEEDS_STRENGTH = """
from pydantic import field_validator

from transferbench import hookimpl
from transferbench.specs import InitializationSpec, Params


class BoundedStrength(Params):
    strength: int

    @field_validator("strength")
    @classmethod
    def _odd(cls, strength):
        return 1 // strength and {}[strength]


@hookimpl
def transferbench_initializations():
    yield InitializationSpec(name="needs-strength", version=1, summary="s", source="s", license="l",
                             initialize=print, params=BoundedStrength)
"""


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ("{strength: 0}", "initializations.RI-T.params: initialization 'needs-strength' failed: "),
        ("{strength: 0}", "ZeroDivisionError: integer division or modulo by zero (mine.py:14)"),
        ("{strength: 1}", "initialization 'needs-strength' failed: KeyError: 1 (mine.py:14); "),
        ("{strength: '1'}", "params.strength: needs-strength: Input should be an integer, not '1'"),
        ("{}", "params.strength: needs-strength: Field required"),
        ("3", "initializations.RI-T.params: Input should be a mapping, not 3"),
    ],
)  # fmt: skip
def test_a_validator_that_raises_names_plugin_and_field(tmp_path, params, expected):
    (tmp_path / "mine.py").write_text(NEEDS_STRENGTH)
    path = tmp_path / "suite.yaml"
    arm = f"{{name: needs-strength, recipe: short, params: {params}}}"
    path.write_text(with_value("initializations/RI-T", arm))
    message = mistake("validate", path, "--plugin", tmp_path / "mine.py")
    assert f"{path}:{line_of(path.read_text(), 'RI-T')}: " in message
    assert expected in message


# --- suites made in Python --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"recipes": {}}, "recipes has no 'short'"),
        ({"sources": {}}, "tiny@1.0 has no source to pre-train fixup-resnet8 on; give its weights"),
        ({"replicates": 10**9}, "replicates: 4,000,000,000 trials for each"),
        ({"scoring": TINY["scoring"] | {"chance": {}}}, "scoring.chance: has no value for"),
        ({"perturbations": {"none": {"name": "block-shuffle", "params": {"block": "2"}}}},
         "perturbations.none.params.block: block-shuffle: Input should be an integer, not '2'"),
    ],
)  # fmt: skip
def test_a_suite_made_in_python_is_checked_as_well(tmp_path, changes, expected):
    with pytest.raises(SuiteError, match=re.escape(expected)):
        transferbench.plan_run(tiny_suite(**changes), out=tmp_path / "run")
    assert artefacts(tmp_path / "store") == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"backbones": ["timm/resnetx"]}, "no timm backbone named 'resnetx'; did you mean"),
        ({"targets": {"a": {"dataset": {"name": "digitz"}}}}, "no dataset named 'digitz'; did you"),
        ({"diagnostics": {"a": {"name": "sped"}}}, "no diagnostic named 'sped'; did you mean"),
    ],
)
def test_a_plugin_that_a_suite_made_in_python_lacks_is_an_unknown_name(tmp_path, changes, expected):
    with pytest.raises(UnknownNameError, match=re.escape(expected)):
        transferbench.plan_run(tiny_suite(**changes), out=tmp_path / "run")


def test_what_is_not_trained_is_a_note(tmp_path):
    trials = [{"initializations": ["RI-T"]}]
    planned = transferbench.plan_run(suite_file(tmp_path, trials=trials), out=tmp_path / "run")
    assert list(planned.notes) == [
        "diagnosis drop measures nothing: its arms are not trained where it looks",
        "diagnosis mistakes measures nothing: its arms are not trained where it looks",
        "claims stay undecided, since not all that they compare is trained: faster",
        "no score: P-T is not trained on handwriting, none",
    ]
    late = transferbench.plan_run(
        suite_file(tmp_path), out=tmp_path / "run",
        changes=["trials=[{checkpoints: [1, 2, 3, 9]}]", "sources.source.checkpoints=[0, 4]"],
    )  # fmt: skip
    assert list(late.notes) == [
        "sources.source: no training reaches checkpoint 4, the longest has 2",
        "trials.0: no training reaches checkpoint 3, 9, the longest has 2",
    ]
    # Arms that were taken out on purpose are not noted.
    chosen = transferbench.plan_run(tiny_suite(), out=tmp_path / "run", initializations=["RI-T"])
    assert chosen.notes == ()
    again = transferbench.plan_run(tiny_suite(diagnostics={}), out=tmp_path / "run")
    assert list(again.notes) == [
        "claims stay undecided, since not all that they compare is trained: faster"
    ]


def test_a_plugin_that_needs_parameters_cannot_be_an_arm_by_its_name_alone(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(NEEDS_STRENGTH)
    options = {"out": tmp_path / "run", "plugins": [file], "initializations": ["needs-strength"]}
    message = "--initialization needs-strength: parameters of initialization 'needs-strength': stre"
    with pytest.raises(PluginError, match=message):
        transferbench.plan_run(tiny_suite(), **options)


def test_python_values_are_not_coerced_either():
    with pytest.raises(ValueError, match="replicates\n  Input should be a valid integer"):
        Suite.model_validate(TINY | {"replicates": "2"})
    with pytest.raises(ValueError, match="Input should be a finite number"):
        tiny_suite(recipes={"short": TINY["recipes"]["short"] | {"learning_rate": float("inf")}})


def test_a_suite_without_backbones_asks_for_some(tmp_path):
    path = suite_file(tmp_path, backbones=[])
    message = "tiny@1.0: backbones is empty; name some there or with --backbone"
    assert message in mistake("plan", path, "--out", tmp_path / "run")
    planned = transferbench.plan_run(path, out=tmp_path / "run", backbones=["fixup-resnet8"])
    assert [entry.name for entry in planned.plan.entries] == ["fixup-resnet8"]
