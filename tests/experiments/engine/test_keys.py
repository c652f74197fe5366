"""Keys: equal content and only equal content gives equal keys; what is not content stays out."""

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.engine.cells import Sampling
from experiments.engine.keys import canonical, cell_key, digest, stage_key

names = st.text("abcdefghij-.", min_size=1, max_size=8)
hashes = st.dictionaries(names, st.text("0123456789abcdef", min_size=4, max_size=8), min_size=1)
cells = st.builds(
    Sampling,
    sampler=names,
    schedule=names,
    steps=st.integers(1, 256),
    seed=st.integers(0, 2**32 - 1),
    num_samples=st.integers(1, 50_000),
    choice_temperature=st.floats(0, 100),
    sampling_temperature=st.floats(0.01, 100),
)
parts = st.fixed_dictionaries(
    {"weights": hashes, "sizes": hashes, "data": hashes, "metrics": hashes, "code": hashes}
)


def reversed_dict(value):
    if isinstance(value, dict):
        return {name: reversed_dict(value[name]) for name in reversed(value)}
    return value


@given(cells, parts)
def test_the_order_of_the_configuration_does_not_change_a_key(cell, part):
    assert cell_key(cell.as_dict(), **part) == cell_key(
        reversed_dict(cell.as_dict()), **reversed_dict(part)
    )


@given(cells, parts, st.data())
def test_any_changed_field_of_a_cell_changes_its_key(cell, part, data):
    field = data.draw(st.sampled_from([field.name for field in fields(Sampling)]))
    old = getattr(cell, field)
    new = f"{old}x" if isinstance(old, str) else old + 1 if isinstance(old, int) else old * 2 + 1
    other = replace(cell, **{field: new})
    assert cell_key(other.as_dict(), **part) != cell_key(cell.as_dict(), **part)


@given(cells, parts, st.data())
def test_any_changed_weight_data_metric_or_code_changes_the_key(cell, part, data):
    group = data.draw(st.sampled_from(sorted(part)))
    name = data.draw(st.sampled_from(sorted(part[group])))
    other = {**part, group: {**part[group], name: part[group][name] + "0"}}
    assert cell_key(cell.as_dict(), **other) != cell_key(cell.as_dict(), **part)


@given(cells)
def test_whole_numbers_and_floats_of_one_temperature_are_one_cell(cell):
    whole = replace(cell, choice_temperature=4, sampling_temperature=1)
    other = replace(cell, choice_temperature=4.0, sampling_temperature=1.0)
    assert digest(whole.as_dict()) == digest(other.as_dict())


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(plain)
def test_canonical_json_reads_back_as_the_same_value(value):
    assert json.loads(canonical(value)) == value
    assert canonical(value).isascii()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_numbers_that_json_cannot_say_are_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical(value)


@pytest.mark.parametrize("value", [{1: "a"}, {"a": {None: 1}}, b"bytes", [object()]])
def test_data_that_json_would_bend_are_refused(value):
    with pytest.raises(TypeError):
        canonical(value)


def test_a_key_is_the_sha256_of_the_canonical_json():
    # Written out by hand: a silent change of the form would orphan every old result.
    text = (
        '{"cell":{"steps":4},"code":{"a":"1"},"data":{"r":"2"},"metrics":{"fid":"fid.v1"},'
        '"schema":2,"sizes":{"t":"4"},"weights":{"t":"3"}}'
    )
    import hashlib

    key = cell_key(
        {"steps": 4},
        weights={"t": "3"},
        sizes={"t": "4"},
        data={"r": "2"},
        metrics={"fid": "fid.v1"},
        code={"a": "1"},
    )
    assert key == hashlib.sha256(text.encode()).hexdigest()


def test_stages_of_equal_content_but_other_name_have_other_keys():
    assert stage_key("tokens", seed=1) != stage_key("features", seed=1)
    assert stage_key("tokens", seed=1) != stage_key("tokens", seed=2)
    assert stage_key("tokens", a=1, b=2) == stage_key("tokens", b=2, a=1)
