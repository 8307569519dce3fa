"""The reference vectors conform, every changed value is found and named, and what cannot be compared is told."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftw.poc import conformance
from ftw.poc.conformance import FIELDS, Parameters, compare, main, recompute
from ftw.substrate.errors import ConfigError

FILE = Path(__file__).parents[1] / "data/poc/poc_reference_vectors.json"
GOLDEN = json.loads(FILE.read_text())


def places(value, path=()):
    """Every number and text of a value."""
    if isinstance(value, list):
        return [place for at, each in enumerate(value) for place in places(each, (*path, at))]
    return [path]


SMALL = GOLDEN[0]
LEAVES = [(name, *path) for name in FIELDS for path in places(SMALL[name])]


def changed(path, change):
    content = copy.deepcopy([SMALL])
    inner = content[0]
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = change(inner[path[-1]])
    return content


def test_the_reference_vectors_conform_in_every_field():
    report = compare(GOLDEN)
    assert report.difference is None
    assert report.groups == 4
    assert report.values == sum(len(places(group[name])) for group in GOLDEN for name in FIELDS)
    assert set(GOLDEN[0]) == {*Parameters.model_fields, *FIELDS}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LEAVES))
def test_any_changed_value_is_found_and_named(path):
    def off(value):
        return value.swapcase() if isinstance(value, str) else value + (1 if isinstance(value, int) else 2e-4)

    found = compare(changed(path, off)).difference
    assert found is not None
    assert found.path == f"[0].{path[0]}" + "".join(f"[{at}]" for at in path[1:])
    original = SMALL[path[0]]
    for at in path[1:]:
        original = original[at]
    assert found.got == off(original)
    assert found.expected == (pytest.approx(original, abs=1e-4) if isinstance(original, float) else original)


@pytest.mark.parametrize("name", ["block_hash", "public_key", "nonces", "hidden_size", "seq_len", "poc_stronger_rng"])
def test_other_parameters_give_other_values(name):
    other = {"block_hash": "x", "public_key": "x", "nonces": [0, 1, 3], "hidden_size": 65, "seq_len": 17}
    content = [SMALL | {name: other.get(name, True)}]
    assert compare(content).difference is not None


def test_a_float_may_be_off_by_the_tolerance_and_no_more():
    path = ("readout_of_last_input_row", 0, 0)
    assert compare(changed(path, lambda x: x + 5e-7)).difference is None
    assert compare(changed(path, lambda x: x + 2e-6)).difference is not None
    assert compare(changed(("input_first8", 0, 0), lambda x: 10**400)).difference is not None


@pytest.mark.parametrize(("name", "cut"), [("input_seeds", 2), ("artifact_b64", 0), ("target64_first8", 7)])
def test_another_length_is_a_difference(name, cut):
    found = compare([SMALL | {name: SMALL[name][:cut]}]).difference
    assert found is not None
    assert found.path == f"[0].{name} (length)"
    assert (found.expected, found.got) == (len(SMALL[name]), cut)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, "must be a list of 1 to 1000 groups"),
        ([], "must be a list"),
        ([3], r"\[0\] must be an object"),
        ([SMALL, SMALL | {"extra": 1}], r"\[1\].extra is no known field"),
        ([{key: value for key, value in SMALL.items() if key != "pick_set"}], r"\[0\].pick_set is missing"),
        ([SMALL | {"k_dim": 65}], r"\[0\].k_dim is 65, hidden_size is 64"),
        ([SMALL | {"k_dim": "12"}], r"\[0\]: k_dim"),
        ([SMALL | {"poc_stronger_rng": 0}], r"\[0\]: poc_stronger_rng"),
        ([SMALL | {"nonces": []}], r"\[0\]: nonces"),
        ([SMALL | {"nonces": [True]}], r"\[0\]: nonces"),
        ([SMALL | {"seq_len": 1 << 20}], "input numbers, and at most"),
        ([SMALL | {"pick_set": "x"}], r"\[0\].pick_set is a text, expected is a list of 3"),
        ([SMALL | {"input_seeds": [1.5, 2, 3]}], r"\[0\].input_seeds\[0\] is a number, expected is a whole number"),
        ([SMALL | {"input_sum": [True, 0, 0]}], r"\[0\].input_sum\[0\] is a truth value, expected is a number"),
        ([SMALL | {"artifact_b64": [None]}], r"\[0\].artifact_b64\[0\] is null, expected is a text"),
    ],
)
def test_what_cannot_be_compared_is_an_error_that_names_the_place(content, why):
    with pytest.raises(ConfigError, match=why):
        compare(content)


def test_a_narrow_group_is_recomputed_too():
    group = {"block_hash": "b", "public_key": "k", "nonces": [1], "hidden_size": 2, "seq_len": 1, "k_dim": 2}
    whole = group | {"poc_stronger_rng": False}
    assert compare([whole | recompute(Parameters.read(whole, source="x"))]).difference is None


def test_the_command_answers_with_its_exit_code(tmp_path, capsys):
    assert main([str(FILE)]) == 0
    assert capsys.readouterr().out == "4 groups, 821 values: all equal\n"
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(changed(("pick_order", 1, 2), lambda x: x + 1)))
    assert main([str(bad)]) == 1
    assert capsys.readouterr().out.startswith("differs at [0].pick_order[1][2]: expected ")
    assert main([str(bad), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["conforms"] is False
    assert document["difference"]["path"] == "[0].pick_order[1][2]"
    bad.write_text('[{"block_hash"')
    assert main([str(bad)]) == 2
    assert "is not JSON, or cut short" in capsys.readouterr().err
    assert main([str(tmp_path / "none.json")]) == 2
    with pytest.raises(SystemExit, match="2"):
        main([])


def test_a_difference_says_what_was_allowed():
    assert str(conformance.Difference("[0].x", 1.0, 2.0, 1e-6)) == "[0].x: expected 1.0 (within 1e-06), got 2.0"
    assert str(conformance.Difference("[0].x", 1, 2, 0.0)) == "[0].x: expected 1, got 2"


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "ftw.poc.conformance", str(FILE), "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["conforms"] is True
