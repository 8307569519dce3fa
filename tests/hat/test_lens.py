import pytest

from ftw.hat.classifiers import ClassifierInfo, ConceptLens
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
