"""Two packs: nothing differs from itself, int8 stays close, and packs that cannot be compared are named."""

from pathlib import Path

import pytest

from ftw.map.training.compare import compare_packs
from ftw.substrate.errors import FingerprintMismatch, PackError
from ftw.substrate.model import Model, load
from tests.map.training.small_packs import concepts, lens_pack


@pytest.fixture(scope="module")
def model() -> Model:
    return load("tiny")


@pytest.fixture(scope="module")
def pack(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lens_pack(tmp_path_factory.mktemp("a") / "p", model)


def test_a_pack_agrees_with_itself_in_everything(model: Model, pack: Path) -> None:
    found = compare_packs(model, pack, pack, concepts())
    assert (found.macro.value, found.macro.low, found.macro.high) == (0, 0, 0)
    said = found.agreement
    assert (said.top10_same, said.first_same, said.largest) == (1, 1, 0)
    assert said.readings_both == 1
    assert not any(one.is_sure for one in found.lenses)
    assert found.terms == 4


def test_the_same_lenses_in_int8_read_nearly_the_same(model: Model, pack: Path, tmp_path: Path) -> None:
    small = lens_pack(tmp_path / "small", model, storage="int8")
    found = compare_packs(model, pack, small, concepts())
    assert found.b.megabytes < 0.5 * found.a.megabytes
    assert 0 < found.agreement.largest < 0.05
    assert found.agreement.first_same > 0.9


def test_other_lenses_differ_and_the_difference_is_that_of_the_areas(model: Model, pack: Path, tmp_path: Path) -> None:
    found = compare_packs(model, pack, lens_pack(tmp_path / "b", model, seed=9), concepts())
    assert found.agreement.first_same < 1
    for one in found.lenses:
        assert one.difference.value == pytest.approx(one.b - one.a)
        assert one.difference.low <= one.difference.value <= one.difference.high
    assert found.macro.value == pytest.approx(found.b.auroc - found.a.auroc, abs=1e-6)
    sizes = [abs(one.difference.value) for one in found.lenses]
    assert sizes == sorted(sizes, reverse=True)


def test_concepts_that_only_one_pack_has_are_listed_and_left_out(model: Model, pack: Path, tmp_path: Path) -> None:
    found = compare_packs(model, pack, lens_pack(tmp_path / "b", model, terms=("Animal", "Bird")), concepts())
    assert found.terms == 2
    assert (set(found.a.only), found.b.only) == ({"Food", "Dog"}, ())


def test_packs_of_other_concepts_are_not_compared(model: Model, pack: Path, tmp_path: Path) -> None:
    other = lens_pack(tmp_path / "b", model, pack=concepts("five"))
    with pytest.raises(PackError, match="only packs of the same concepts can be compared"):
        compare_packs(model, pack, other, concepts())


def test_packs_without_a_common_concept_are_not_compared(model: Model, tmp_path: Path) -> None:
    one = lens_pack(tmp_path / "a", model, terms=("Animal", "Bird"))
    other = lens_pack(tmp_path / "b", model, terms=("Food",))
    with pytest.raises(PackError, match="no concept in common"):
        compare_packs(model, one, other, concepts())


def test_a_lens_of_no_concept_of_the_pack_is_named(model: Model, pack: Path) -> None:
    from ftw.map.registry.concept_pack import ConceptPack

    fewer = ConceptPack(concepts().meta, [r for r in concepts().records.values() if r.term != "Food"])
    with pytest.raises(PackError, match="'Food' first"):
        compare_packs(model, pack, pack, fewer)


def test_a_pack_of_another_model_is_refused(pack: Path) -> None:
    from ftw.map.training.baselines import random_twin

    with pytest.raises(FingerprintMismatch, match="tiny_four"):
        compare_packs(random_twin(load("tiny")), pack, pack, concepts())
