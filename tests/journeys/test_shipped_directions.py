"""The directions that ship, measured on text that the reference model writes."""

import pytest

from ftw.hat.steering import Evaluator, Steer, load_directions
from ftw.hat.steering.evaluation import Effect
from ftw.map.registry.concept_pack import bundled_concept_pack
from ftw.map.registry.lens_pack import bundled_lens_packs
from ftw.substrate.model import load
from tools.reference_model.steering import BASE_REPEATS, CONCEPTS, REPEATS, SEED


def measured(terms: tuple[str, ...], *, repeats: int, base_repeats: int) -> list[Effect]:
    model, pack = load("reference"), bundled_concept_pack("everyday")
    table = load_directions(bundled_lens_packs()["reference_everyday"], fingerprint=model.fingerprint)
    evaluator = Evaluator(model, repeats=repeats, base_repeats=base_repeats, seed=SEED)
    return evaluator.measure([Steer(table.direction(term)) for term in terms], {t: pack.get(t).words for t in terms})


def test_the_default_strength_multiplies_a_concept_fivefold_at_little_damage() -> None:
    for effect in measured(("Food", "MilitaryAction", "BodyOfWater"), repeats=8, base_repeats=16):
        assert effect.is_good, effect


@pytest.mark.slow
def test_the_default_strength_suits_ten_of_twelve_concepts() -> None:
    effects = measured(CONCEPTS, repeats=REPEATS, base_repeats=BASE_REPEATS)
    assert sum(effect.is_good for effect in effects) >= 10, [effect for effect in effects if not effect.is_good]
