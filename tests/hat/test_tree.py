from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ftw.hat.classifiers.hierarchy import Tree
from ftw.hat.classifiers.index import LensRow
from ftw.substrate.errors import PackError, UsageError


def rows_of(parents: Sequence[str | None], names: str = "abcdefghijklmnop") -> list[LensRow]:
    return [LensRow(term=names[at], block=0, row=at, parent=parent) for at, parent in enumerate(parents)]


LENSES = 8
PARENTS = st.tuples(*(st.none() | st.sampled_from("abcdefgh"[:at] or "z") for at in range(LENSES)))
NUMBERS = st.lists(st.floats(0, 1, width=32), min_size=2 * LENSES, max_size=2 * LENSES)
MARKS = st.lists(st.booleans(), min_size=2 * LENSES, max_size=2 * LENSES)


def case_of(parents: Sequence[str | None], p: list[float], above: list[bool]) -> tuple[Tree, Tensor, Tensor]:
    """A tree, and two rows of p and of what is above."""
    return Tree.of(rows_of(parents)), torch.tensor(p).view(2, LENSES), torch.tensor(above).view(2, LENSES)


def test_names_are_resolved_to_places_levels_and_groups() -> None:
    tree = Tree.of(rows_of([None, "A", "a", "b", None, "gone", "Gone"]))
    assert tree.parents == (-1, 0, 0, 1, -1, -1, -1)
    assert tree.parent.tolist() == list(tree.parents)
    assert tree.level.tolist() == list(tree.levels) == [0, 1, 1, 2, 0, 0, 0]
    assert [tree.siblings(at) for at in (0, 1, 3, 5)] == [(0, 4), (1, 2), (3,), (5, 6)]
    assert (tree.children(0), tree.children(3), tree.children(-1)) == ((1, 2), (), (0, 4, 5, 6))
    assert (tree.path(3), tree.path(0)) == ((0, 1), ())
    assert (len(tree), tree.device) == (7, torch.device("cpu"))
    assert tree.to("cpu").parents == tree.parents


def test_a_level_of_the_index_is_kept() -> None:
    rows = [LensRow(term="x", block=0, row=0, level=3, parent="gone"), LensRow(term="y", block=0, row=1, parent="x")]
    assert Tree.of(rows).levels == (3, 1)


def test_a_branch_goes_down_by_levels() -> None:
    tree = Tree.of(rows_of([None, "a", "b", "c", "a"]))
    assert tree.branch(0) == (0, 1, 4, 2, 3)
    assert tree.branch(0, 1) == (0, 1, 4)
    assert tree.branch(0, 0) == (0,)
    with pytest.raises(UsageError, match="depth is -1"):
        tree.branch(0, -1)


@pytest.mark.parametrize("parents", [["a"], ["b", "a"], [None, "d", "b", "c"]])
def test_a_circle_of_parents_is_refused(parents: list[str | None]) -> None:
    with pytest.raises(PackError, match="go in a circle"):
        Tree.of(rows_of(parents))


def test_a_parent_stays_unless_a_child_explains_it() -> None:
    tree = Tree.of(rows_of([None, "a", "a"]))
    p = torch.tensor([[0.9, 0.3, 0.4], [0.9, 0.8, 0.1], [0.9, 0.7, 0.1], [0.9, 0.95, 0.1], [0.5, 0.1, 0.1]])
    above = p >= torch.tensor([0.5, 0.5, 0.5])
    above[3, 1] = False  # a strong child below its own threshold explains nothing
    told = tree.visible(p, above, margin=0.15)
    assert told.tolist() == [
        [True, False, False],
        [False, True, False],
        [True, True, False],
        [True, False, False],
        [True, False, False],
    ]


@given(PARENTS, NUMBERS, MARKS, st.floats(0, 0.5))
def test_of_what_is_hidden_something_below_is_visible(
    parents: tuple[str | None, ...], numbers: list[float], marks: list[bool], margin: float
) -> None:
    tree, p, above = case_of(parents, numbers, marks)
    shown = tree.visible(p, above, margin=margin)
    assert not (shown & ~above).any()
    for row, at in (above & ~shown).nonzero().tolist():
        assert any(shown[row, below] for below in tree.branch(at)[1:])


@given(PARENTS, NUMBERS, MARKS, st.floats(0, 0.5, width=32))
def test_visibility_is_what_the_sentence_says(
    parents: tuple[str | None, ...], numbers: list[float], marks: list[bool], margin: float
) -> None:
    tree, p, above = case_of(parents, numbers, marks)
    shown = tree.visible(p, above, margin=margin)
    for row in range(2):
        for at in range(len(tree)):
            bound = p[row, at] - margin
            explained = any(above[row, child] and p[row, child] >= bound for child in tree.children(at))
            assert bool(shown[row, at]) == (bool(above[row, at]) and not explained)


@given(PARENTS, NUMBERS, MARKS)
def test_siblings_share_one(parents: tuple[str | None, ...], numbers: list[float], marks: list[bool]) -> None:
    tree, p, above = case_of(parents, numbers, marks)
    logit = torch.where(above, 50 * p - 25, float("-inf"))
    soft = tree.sibling_softmax(logit)
    assert soft.isfinite().all()
    for group in {tree.siblings(at) for at in range(len(tree))}:
        total = soft[:, group].sum(1)
        scored = above[:, group].any(1)
        assert torch.allclose(total, scored.float(), atol=1e-5)
        there = logit[:, group].softmax(1)
        assert torch.allclose(soft[:, group][scored], there[scored], atol=1e-6)


def test_an_empty_step_has_no_readings() -> None:
    tree = Tree.of(rows_of([None, "a"]))
    none = torch.zeros(0, 2)
    assert tree.visible(none, none > 0, margin=0.1).shape == (0, 2)
    assert tree.sibling_softmax(none).shape == (0, 2)
