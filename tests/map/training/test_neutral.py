"""Neutral text: enough of it, and never the same in two parts."""

import pytest
import torch

from ftw.map.training.neutral import Fragments, NeutralSet, bundled_fragments, neutral_numbers, neutral_texts
from ftw.substrate.errors import ConfigError, UsageError


def test_parts_share_no_text_and_no_fragment() -> None:
    parts = [set(neutral_texts(part, 400)) for part in ("fit", "calibrate", "measure")]
    assert [len(part) for part in parts] == [400, 400, 400]
    assert len(set.union(*parts)) == 1200
    bundled = bundled_fragments()
    assert not bundled.calibrate.pieces & bundled.measure.pieces


def test_the_same_seed_gives_the_same_texts_and_fewer_are_the_first_of_more() -> None:
    assert neutral_texts("fit", 9, seed=2) == neutral_texts("fit", 20, seed=2)[:9]
    assert neutral_texts("fit", 9, seed=2) != neutral_texts("fit", 9, seed=3)


@pytest.mark.parametrize("n", [0, 10**6])
def test_more_texts_than_there_are_is_an_error(n: int) -> None:
    with pytest.raises(UsageError, match="part 'measure' gives 1 to"):
        neutral_texts("measure", n)


def test_a_fragment_in_two_parts_is_refused() -> None:
    one = {"openings": ["So,"], "clauses": ["it is"], "endings": ["now."]}
    other = {"openings": ["Then,"], "clauses": ["it was"], "endings": ["then."]}
    with pytest.raises(ConfigError, match="no fragment serves for two parts"):
        NeutralSet.read({"fit": one, "calibrate": other, "measure": one}, source="neutral.toml")


def test_own_fragments_can_be_given() -> None:
    sets = [Fragments(openings=[f"{c},"], clauses=[c], endings=[f"{c}."]) for c in "abc"]
    given = NeutralSet(fit=sets[0], calibrate=sets[1], measure=sets[2])
    assert neutral_texts("measure", 1, fragments=given) == ("c, c c.",)


def test_texts_to_calibrate_on_have_even_numbers_and_those_to_measure_on_odd_ones() -> None:
    assert torch.equal(neutral_numbers([2, 1], [3]), torch.tensor([0, 0, 2, 1, 1, 1]))
