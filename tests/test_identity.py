"""Ids are canonical: golden values, and equality exactly where content is equal."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferbench.identity import SEED_LIMIT, canonical_json, derive_seed, digest, file_digest

KEYS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=6)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | KEYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def test_canonical_json_is_the_published_form_of_rfc_8785():
    # The example of RFC 8785, section 3.2.4.
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '\u20ac$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical_json(value) == expected.encode()


def test_golden_digest():
    expected = hashlib.sha256(b'{"a":[1,2.5,"x"],"b":null}').hexdigest()
    assert digest({"b": None, "a": [1, 2.5, "x"]}) == expected


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_order_of_keys_does_not_matter(value):
    assert digest(value) == digest(dict(reversed(value.items())))


@given(VALUES, VALUES)
def test_digests_are_equal_exactly_where_json_values_are(a, b):
    def plain(value):
        # JSON has one kind of number: 1 and 1.0 are equal, True and 1 are not.
        return json.dumps(json.loads(canonical_json(value)), sort_keys=True)

    assert (digest(a) == digest(b)) == (plain(a) == plain(b))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**60])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match=r"."):
        digest(value)


def test_seeds_depend_on_purpose_and_axes_alone():
    seeds = {
        derive_seed(purpose, {"replicate": k}) for purpose in ("init", "data") for k in range(50)
    }
    assert len(seeds) == 100
    assert all(0 <= seed < SEED_LIMIT for seed in seeds)
    assert derive_seed("init", {"a": 1, "b": 2}) == derive_seed("init", {"b": 2, "a": 1})


def test_file_digest_is_sha256(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    assert file_digest(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
