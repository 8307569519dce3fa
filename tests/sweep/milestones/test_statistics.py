"""Summary and statistics of a battery: variants, controls, facts, chance, and the permutation control."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from ftw.sweep import milestones, statistics
from ftw.sweep.milestones import Thresholds, summary
from ftw.sweep.milestones.grid import grids
from ftw.sweep.milestones.permutation import permuted
from ftw.sweep.milestones.summary import middle, spread
from ftw.sweep.outcome import Outcome
from ftw.sweep.table import Item, SweepTable
from tests.sweep.milestones.tables import fact, peaked, table_of

VOCAB, N = 32, 6
T = Thresholds(resamples=200, permutations=200)


def asked(
    onsets: Sequence[int | None], items: Sequence[Item], extra: dict[str, Sequence[int | None]] | None = None
) -> SweepTable:
    """A table whose prompts have their answers first from these layers on (None: never)."""
    logits = {}
    for lens, layers in {"logit": onsets, **(extra or {})}.items():
        logits[lens] = np.stack(
            [
                peaked(VOCAB, [_best(layer, at, item) for layer in range(N + 1)], 0.9)
                for at, item in zip(layers, items, strict=True)
            ]
        )
    return table_of(logits, items)


def _best(layer: int, onset: int | None, item: Item) -> int:
    return item.answer[0] if item.answer and onset is not None and layer >= onset else 1


def capitals(n: int, **options: object) -> list[Item]:
    return [fact(f"f{at}", answer=4 + at, control=4 + (at + 1) % n, **options) for at in range(n)]  # type: ignore[arg-type]


def test_a_variant_is_compared_with_the_original_of_its_own_template() -> None:
    items = [
        fact("a", answer=5),
        fact("a", answer=5, variant="no_filler"),
        fact("a", answer=5, template="other"),
        fact("a", answer=5, template="other", variant="no_filler"),
        fact("b", answer=6, variant="no_filler"),
    ]
    table = asked([3, 5, 4, None, 2], items)
    found = summary.of(table, milestones.of(table)).ablations
    shifts = {(one["fact"], one["template"]): one["milestones"]["semantic"]["delta"] for one in found}
    assert shifts["a", "t"] == {"value": 2, "why": None}
    assert shifts["a", "other"] == {"value": None, "why": "no_onset"}
    assert shifts["b", "t"] == {"value": None, "why": "no_variant"}
    assert [one["orig"] for one in found][-1] is None


def test_controls_are_listed_with_their_margins() -> None:
    items = [fact("a", answer=5, control=6), fact("a", answer=6, control=5, kind="control"), fact("b", answer=None)]
    table = asked([2, 3, None], items)
    found = summary.of(table, milestones.of(table)).controls
    assert [one["prompt"] for one in found] == [items[1].id]
    assert found[0]["milestones"]["control_margin_stays"] == {"value": 3, "why": None}


def test_a_fact_is_the_middle_of_its_wordings_and_never_is_the_latest() -> None:
    def of(*layers: int | None) -> Outcome:
        return middle([Outcome.none("never") if layer is None else Outcome(layer) for layer in layers])

    assert of(2, 5, 3).value == 3
    assert of(2, None, 3).value == 3
    assert of(2, None).why == "never"
    assert of().why == "not_asked"


def test_medians_count_the_missing_and_their_reasons() -> None:
    found = spread([Outcome(3), Outcome(5), Outcome.none("never"), Outcome.none("not_finite"), Outcome.none("never")])
    assert found["median"] == {"value": 4.0, "why": None}
    assert (found["n"], found["n_missing"], found["reasons"]) == (5, 3, {"never": 2, "not_finite": 1})
    assert spread([Outcome.none("never")])["median"] == {"value": None, "why": "never"}
    assert spread([])["median"]["why"] == "too_few"


def test_facts_are_counted_once_however_often_they_are_asked() -> None:
    items = [fact("a", answer=5, template=name) for name in "xyz"] + [fact("b", answer=6)]
    table = asked([2, 4, None, 6], items)
    found = summary.of(table, milestones.of(table)).facts
    assert found["n"] == 2
    assert found["lenses"]["logit"]["semantic"]["median"] == {"value": 5.0, "why": None}
    assert [one["milestones"]["semantic"]["value"] for one in found["per_fact"]] == [4, 6]


def test_another_lens_stands_beside_the_logit_lens_with_its_gain() -> None:
    items = capitals(3)
    table = asked([4, 4, 5], items, {"tuned": [2, 3, None]})
    table.columns["kl_bits"][table["lens"] == "logit"] = 6.0
    table.columns["kl_bits"][table["lens"] == "tuned"] = 2.0
    beside = summary.of(table, milestones.of(table)).sidecars["tuned"]
    assert beside["ranks"]["le_1"]["delta"]["median"]["value"] == -1.5
    assert beside["ranks"]["le_1"]["delta"]["n_missing"] == 1
    assert beside["kl_bits"]["p50"]["delta"]["median"]["value"] == pytest.approx(4.0)


def test_onsets_come_with_intervals_by_relation_language_and_variant() -> None:
    items = [*capitals(5), *capitals(4, relation="s", language="de"), *capitals(5, variant="no_filler")]
    table = asked([2, 3, 3, 4, 3, 6, 6, 5, None, 4, 5, 5, 6, 5], items)
    found = statistics.of(table, milestones.of(table), T, seed=1)
    everything = found.onset("semantic")
    assert everything is not None
    assert (everything["n_facts"], everything["n_missing"], everything["median"]["value"]) == (9, 1, 4.0)
    assert everything["median"]["low"] <= 4.0 <= everything["median"]["high"]
    relation = found.onset("semantic", by="relation", name="s")
    assert relation is not None
    assert relation["median"]["value"] == 6.0
    assert relation["share"]["value"] == 0.75
    german, variant = (
        found.onset("semantic", by=by, name=name) for by, name in (("language", "de"), ("variant", "no_filler"))
    )
    assert german is not None
    assert variant is not None
    assert variant["n_facts"] == 5
    assert found.onset("semantic", "raw") is None
    shift = next(one for one in found.shifts if one["by"] == "variant" and one["milestone"] == "semantic")
    assert shift["mean"]["value"] == pytest.approx(2.0)


def test_a_lens_is_compared_with_the_logit_lens_fact_by_fact() -> None:
    items = capitals(5)
    table = asked([2, 3, 4, 5, None], items, {"tuned": [1, 2, 3, 4, 6]})
    shift = next(
        one
        for one in statistics.of(table, milestones.of(table), T, seed=1).shifts
        if (one["by"], one["lens"], one["milestone"]) == ("lens", "tuned", "semantic")
    )
    assert (shift["mean"]["value"], shift["mean"]["low"], shift["mean"]["high"]) == (-1.0, -1.0, -1.0)
    assert (shift["n_facts"], shift["n_missing"]) == (5, 1)


def test_curves_say_which_share_of_facts_is_answered_at_each_layer_and_what_chance_gives() -> None:
    table = asked([2, 4, 4, None], capitals(4))
    curve = next(one for one in statistics.of(table, milestones.of(table), T, seed=1).curves if one["rank"] == 1)
    assert curve["layers"] == list(range(N + 1))
    assert curve["share"] == [0, 0, 0.25, 0.25, 0.75, 0.75, 0.75]
    assert all(
        low <= share <= high for low, share, high in zip(curve["low"], curve["share"], curve["high"], strict=True)
    )
    assert curve["chance"] == 1 / VOCAB


def test_chance_is_what_random_logits_give() -> None:
    rng = np.random.default_rng(0)
    items = [fact(f"f{at}", answer=5, control=6, pool=[7, 8, 9]) for at in range(150)]
    table = table_of({"logit": rng.normal(size=(150, 2, VOCAB))}, items, k=10)
    chance = statistics.chance(table, [1, 10])
    first = table.where(layer=0)["answer_rank"]
    for rank in (1, 10):
        assert (first <= rank).mean() == pytest.approx(chance["rank_le"][str(rank)], abs=0.11)
        hit = (table["answer_rank"].reshape(150, 2) <= rank).any(axis=1).mean()
        assert hit == pytest.approx(chance["any_layer"][str(rank)], abs=0.12)
    assert np.median(first) == pytest.approx(chance["rank_median"], abs=4)
    found = milestones.of(table)
    pool = [found[at, "logit"]["pool_place_last"].value == 0 for at in range(150)]
    assert np.mean(pool) == pytest.approx(chance["pool_first"]["value"], abs=0.11)
    signs = statistics.of(table, found, T, seed=1).control_signs
    assert all(one["p_value"]["value"] > 0.01 for one in signs)


def test_without_pools_there_is_no_chance_of_leading_one() -> None:
    table = asked([2], [fact("a", answer=5)])
    assert statistics.chance(table, [1])["pool_first"] == {"value": None, "why": "no_control"}


def test_shuffled_answers_are_first_as_often_as_facts_share_them() -> None:
    items = capitals(8)
    table = asked([4] * 8, items)
    one = permuted(grids(table)["logit"], 1, shuffles=500, seed=0)[0]
    np.testing.assert_array_equal(one.share, [0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(one.chance[4:], 1 / 8, atol=0.03)
    assert one.stands_out.value == 4
    assert (one.p[:4] == 1).all()
    assert one.p_depth.value < 0.01  # type: ignore[operator]


def test_a_model_that_names_one_capital_for_every_country_does_not_stand_out() -> None:
    items = capitals(6)
    table = table_of({"logit": np.stack([peaked(VOCAB, [4] * (N + 1), 0.9)] * 6)}, items)
    one = permuted(grids(table)["logit"], 1, shuffles=200, seed=0)[0]
    np.testing.assert_allclose(one.share, 1 / 6)
    np.testing.assert_allclose(one.chance, 1 / 6)
    assert one.stands_out.why == "never"
    assert one.p_depth.value == 1.0


def test_relations_are_shuffled_apart_and_then_counted_together() -> None:
    items = [*capitals(4), *capitals(4, relation="s")]
    table = asked([2] * 4 + [None] * 4, items)
    found = permuted(grids(table)["logit"], 1, shuffles=200, seed=0)
    assert [(one.relation, one.n_facts) for one in found] == [("r", 4), ("s", 4), ("", 8)]
    assert found[2].share[-1] == 0.5
    json.dumps([one.document() for one in found], allow_nan=False)


def test_there_is_no_permutation_of_one_answer_or_of_ranks_that_are_not_listed() -> None:
    table = asked([2, 3], [fact("a", answer=5), fact("b", answer=5)])
    assert permuted(grids(table)["logit"], 1, shuffles=50, seed=0) == []
    assert permuted(grids(asked([2] * 4, capitals(4)))["logit"], 10, shuffles=50, seed=0) == []


def test_a_battery_of_probes_has_no_facts_and_still_a_document() -> None:
    table = asked([None, None], [fact("a", answer=None), fact("b", answer=None)])
    found = milestones.of(table)
    document = statistics.of(table, found, T, seed=1).document() | summary.of(table, found).document()
    assert document["onsets"] == document["ablations"] == document["controls"] == document["permutation"] == []
    json.dumps(document, allow_nan=False)


def test_the_same_seed_gives_the_same_statistics() -> None:
    table = asked([2, 3, 4, 5, None], capitals(5))
    found = milestones.of(table)
    one, two, other = (statistics.of(table, found, T, seed=seed).document() for seed in (1, 1, 2))
    assert json.dumps(one, allow_nan=False) == json.dumps(two, allow_nan=False)
    assert one != other
