import pytest

from ftw.hat.classifiers import MLP, ClassifierInfo, ConceptLens, LensRow, Reliability
from ftw.hat.classifiers.lens import depth_of
from ftw.substrate.errors import UsageError
from ftw.substrate.types import Site


def test_early_mid_late_are_thirds_of_the_real_depth() -> None:
    assert [depth_of(block, 9) for block in range(9)] == ["early"] * 3 + ["mid"] * 3 + ["late"] * 3
    assert depth_of(33, 34) == "late"
    with pytest.raises(UsageError, match="block 9 does not exist"):
        depth_of(9, 9)


def test_the_best_classifier_is_the_one_with_the_highest_metric() -> None:
    weak = ClassifierInfo(1, "early", metrics={"auroc_words": 0.8})
    strong = ClassifierInfo(4, "mid", metrics={"auroc_words": 0.9})
    lens = ConceptLens("Food", (weak, strong, ClassifierInfo(7, "late")))
    assert lens.best() is strong
    assert lens.best().site == Site(4)
    assert lens.best(depth="early") is weak


def test_a_lens_without_a_classifier_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one, each block once"):
        ConceptLens("Food", ())
    with pytest.raises(UsageError, match="no late classifier"):
        ConceptLens("Food", (ClassifierInfo(1, "early"),)).best(depth="late")


def rows_at(*blocks: int, primary: int | None = None) -> list[LensRow]:
    return [
        LensRow(term="Food", block=block, row=0, primary=block == primary, auroc_words=0.5 + block / 100)
        for block in blocks
    ]


def test_the_primary_classifier_is_the_default_else_the_middle_one_is() -> None:
    assert ConceptLens.of_rows(rows_at(0, 1, 5, 8, primary=0), 9).default.block == 0
    assert ConceptLens.of_rows(rows_at(0, 1, 4, 5, 8), 9).default.block == 5
    assert ConceptLens.of_rows(rows_at(0, 1, 7, 8), 9).default.block == 8
    assert ConceptLens.of_rows(rows_at(-1, 0), 9).default.block == 0


def test_each_third_has_its_best_block() -> None:
    lens = ConceptLens.of_rows(rows_at(0, 1, 4, 5, 8), 9)
    assert lens.best_blocks == {"early": 1, "mid": 5, "late": 8}
    assert lens.at(4).metrics["auroc"] == pytest.approx(0.54)
    with pytest.raises(UsageError, match="no classifier at block 3"):
        lens.at(3)


def test_weights_are_read_once_and_let_go_of() -> None:
    read: list[int] = []

    def source(block: int) -> MLP:
        read.append(block)
        return MLP(4)

    lens = ConceptLens.of_rows(rows_at(1, 5, primary=5), 9, source)
    assert lens.load() is lens.load(5)
    assert (read, lens.loaded) == ([5], (5,))
    lens.unload()
    lens.load(1)
    assert (read, lens.loaded) == ([5, 1], (1,))
    with pytest.raises(UsageError, match="a record without weights"):
        ConceptLens.of_rows(rows_at(1), 9).load()


def test_rows_of_two_concepts_are_no_lens() -> None:
    with pytest.raises(UsageError, match="these rows are of A, Food"):
        ConceptLens.of_rows([*rows_at(1), LensRow(term="A", block=1, row=1)], 9)


def test_an_interval_that_runs_backwards_is_refused() -> None:
    assert Reliability(auroc=0.9, low=0.8, high=0.95, n=20).low == 0.8
    with pytest.raises(ValueError, match="low is at most high"):
        Reliability(auroc=0.9, low=0.95, high=0.8, n=20)


def test_a_figure_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="ece is not a finite number"):
        LensRow(term="A", block=0, row=0, metrics={"ece": float("inf")})
