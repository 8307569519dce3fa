"""All milestones of a table: onsets, confirmation, distances, the document, and what cannot be read."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftw.substrate.errors import UsageError
from ftw.substrate.model import Model, load
from ftw.sweep import milestones
from ftw.sweep.battery import Battery
from ftw.sweep.lenses.views import view
from ftw.sweep.milestones import Thresholds
from ftw.sweep.milestones.grid import grids
from ftw.sweep.run import Sweep
from ftw.sweep.table import SweepTable
from tests.sweep.milestones.tables import fact, peaked, table_of

A = 5
VOCAB = 16


def first_at(layers: list[int], n: int = 8) -> np.ndarray:
    """One prompt whose answer comes first at these layers."""
    return peaked(VOCAB, [A if layer in layers else 9 for layer in range(n + 1)], 0.9)[None]


@pytest.fixture(scope="module")
def model() -> Model:
    return load("reference")


@pytest.fixture(scope="module")
def swept(model: Model) -> SweepTable:
    prompts = Battery.read("reference").prompts()[:14] + Battery.read("germany").prompts()[-2:]
    return Sweep(model, [view(model, "raw"), view(model, "own")], k=12).run(prompts)


def test_onset_run_and_stay_are_three_things() -> None:
    one = milestones.of(table_of({"logit": first_at([1, 3, 4, 6, 7, 8])}, [fact(answer=A)]))[0, "logit"]
    assert [one[name].value for name in ("semantic", "semantic_run2", "semantic_stays")] == [1, 3, 6]
    assert one["semantic_strong"].value == 1
    assert one["semantic_strong_run2"].value == 3


@settings(max_examples=25)
@given(flags=st.lists(st.booleans(), min_size=2, max_size=10))
def test_the_change_point_leaves_the_fewest_layers_on_the_wrong_side(flags: list[bool]) -> None:
    n = len(flags) - 1
    one = milestones.of(
        table_of({"logit": first_at([at for at, here in enumerate(flags) if here], n)}, [fact(answer=A)])
    )[0, "logit"]
    wrong = [sum(flags[:c]) + sum(not here for here in flags[c:]) for c in range(n + 2)]
    best = max(c for c in range(n + 2) if wrong[c] == min(wrong))
    assert one["semantic_step"].value == (best if best <= n else None)
    stays = next((c for c in range(n + 1) if all(flags[c:])), None)
    assert one["semantic_stays"].value == stays
    assert one["semantic"].value == next((c for c in range(n + 1) if flags[c]), None)


def test_two_layers_in_a_row_cannot_begin_at_the_last() -> None:
    one = milestones.of(table_of({"logit": first_at([8])}, [fact(answer=A)]))[0, "logit"]
    assert one["semantic"].value == 8
    assert one["semantic_run2"].why == one["semantic_strong_run2"].why == "never"


def test_the_strong_onset_exists_wherever_the_rows_have_it() -> None:
    # the gap comes from the same rows as the rank: what a row shows, its milestone cannot miss
    z = first_at([2, 5, 6])
    z[0, 2], z[0, 2, A] = 0, 0.1  # first, but by a tenth of a logit
    one = milestones.of(table_of({"logit": z}, [fact(answer=A)]))[0, "logit"]
    assert one["semantic"].value == 2
    assert one["gap_at_semantic"].value < 0.5
    assert [one[name].value for name in ("semantic_top2_ok", "semantic_strong", "gap_ge_0.5", "gap_ge_1")] == [5] * 4
    assert one["semantic_strong_run2"].value == 5


@pytest.mark.parametrize(("at", "confirmed"), [(2, True), (3, True), (7, True), (8, False), (1, False)])
def test_an_onset_is_confirmed_by_the_raw_lens_within_the_window(at: int, confirmed: bool) -> None:
    logit, raw = first_at(list(range(5, 11)), 10), first_at([at], 10)
    if at in (2, 8):
        logit = first_at(list(range(4 if at == 2 else 5, 11)), 10)
    one = milestones.of(table_of({"logit": logit, "raw": raw}, [fact(answer=A)]))[0, "logit"]
    assert (one["confirmed"].value == one["semantic"].value) is confirmed
    assert one["confirmed"].why == (None if confirmed else "never")


def test_every_fact_is_confirmed_by_itself_and_by_every_learned_lens() -> None:
    logit = np.concatenate([first_at([4, 5, 6, 7, 8]), first_at([6, 7, 8]), first_at([])])
    tuned = np.concatenate([first_at([3, 8]), first_at([1]), first_at([2])])
    prism = np.concatenate([first_at([6]), first_at([8]), first_at([2])])
    facts = [fact(f"f{at}", answer=A) for at in range(3)]
    found = milestones.of(table_of({"logit": logit, "own": logit, "tuned": tuned, "prism": prism}, facts))
    assert [found[at, "logit"]["confirmed_by"].value for at in range(3)] == ["tuned+prism", "prism", None]
    assert found[2, "logit"]["confirmed"].why == "no_onset"
    assert found[0, "logit"]["confirmed_margin_ok"].value is True
    assert found[0, "logit"]["run2_near_confirmed"].value is True
    assert found[0, "tuned"]["confirmed_by"].why == "never"  # tuned at 3, prism at 6: too far apart
    assert found[0, "prism"]["confirmed_by"].value == "tuned"  # which has it at 8 as well


def test_norm_views_do_not_confirm_each_other() -> None:
    one = milestones.of(table_of({"logit": first_at([8]), "own": first_at([8])}, [fact(answer=A)]))[0, "logit"]
    assert one["confirmed"].why == one["confirmed_by"].why == "no_lens"


def test_a_run_far_from_the_confirmed_onset_is_not_near_it() -> None:
    tables = {"logit": first_at([1, 6, 7, 8]), "raw": first_at([2])}
    one = milestones.of(table_of(tables, [fact(answer=A)]))[0, "logit"]
    assert one["confirmed"].value == 1
    assert one["run2_near_confirmed"].value is False
    short = milestones.of(table_of({"logit": first_at([1]), "raw": first_at([2])}, [fact(answer=A)]))[0, "logit"]
    assert short["run2_near_confirmed"].value is False


def test_meaning_is_counted_from_copying() -> None:
    tokens = [9, 2, 9, 9, A, A, A, A, A]
    z = peaked(VOCAB, tokens, [0.5, 0.5, 0.5, 0.97, 0.97, 0.97, 0.97, 0.97, 0.97])[None]
    one = milestones.of(table_of({"logit": z}, [fact(ids=(1, 2, 3), answer=A)]))[0, "logit"]
    assert one["copy"].why == "never"
    assert one["delta"].why == "no_copy"
    assert one["delta_soft_k1"].value == 3
    assert one["delta_hat"].value == pytest.approx(3 / 8)  # without a strict copy the earliest soft one counts
    z[0, 2] = peaked(VOCAB, [3], 0.97)[0]
    both = milestones.of(table_of({"logit": z}, [fact(ids=(1, 2, 3), answer=A)]))[0, "logit"]
    assert both["delta"].value == 2
    assert both["delta_hat"].value == pytest.approx(2 / 8)


def test_an_alias_counts_as_right_beside_the_answer() -> None:
    z = peaked(VOCAB, [9, 7, A], 0.9)[None]
    one = milestones.of(table_of({"logit": z}, [fact(answer=A, accepted=[7])]))[0, "logit"]
    assert one["semantic_accepted"].value == 1
    assert one["semantic"].value == 2


@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 6))
def test_the_document_has_no_nan_and_every_name_a_meaning(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    logits = {lens: rng.normal(size=(2, n + 1, VOCAB)) * 3 for lens in ("logit", "raw", "tuned")}
    logits["own"] = logits["raw"][:, 1:] if n > 1 else logits["raw"]
    items = [fact("a", answer=A, control=6, pool=[7]), fact("b", answer=None)]
    found = milestones.of(table_of(logits, items), Thresholds(soft_extra=(0.5,)))
    assert set(found) == {(prompt, lens) for prompt in (0, 1) for lens in logits}
    for one in found.values():
        document = json.loads(json.dumps(one.document(), allow_nan=False))
        for name, each in document.items():
            assert milestones.meaning(name).formula
            assert (each["value"] is None) != (each["why"] is None)
            if milestones.meaning(name).unit == "layer" and each["value"] is not None:
                assert 0 <= each["value"] <= n
            if name.endswith("_frac"):
                assert each["value"] == document[name.removesuffix("_frac")]["value"] / n


def test_an_unknown_milestone_is_an_error_that_names_the_nearest() -> None:
    one = milestones.of(table_of({"logit": first_at([3])}, [fact(answer=A)]))[0, "logit"]
    with pytest.raises(UsageError, match="no milestone 'semantics': did you mean semantic"):
        one["semantics"]
    with pytest.raises(UsageError, match="no milestone 'zzz': there are "):
        one["zzz"]
    with pytest.raises(UsageError, match="there is no milestone 'rank'"):
        milestones.meaning("rank")


def test_rows_of_some_layers_only_are_no_table_to_read_onsets_from() -> None:
    table = table_of({"logit": first_at([3])}, [fact(answer=A)])
    for part in (table.where(layer=3), replaced(table, table["layer"] < 8), replaced(table, table["layer"] != 3)):
        with pytest.raises(UsageError, match="does not hold every layer of lens logit up to 8"):
            milestones.of(part)
    with pytest.raises(UsageError, match="the table has no column nonsense"):
        grids(table)["logit"]["nonsense"]


def replaced(table: SweepTable, rows: np.ndarray) -> SweepTable:
    """The table with these rows only."""
    return replace(table, columns={name: column[rows] for name, column in table.columns.items()})


def test_a_table_of_all_positions_gives_the_milestones_of_the_last(model: Model) -> None:
    prompts = Battery.read("reference").prompts()[:3]
    sweep = Sweep(model, k=8)
    everywhere, ends = (milestones.of(sweep.run(prompts, positions=where)) for where in ("all", "last"))
    assert set(everywhere) == set(ends)
    for key, one in ends.items():
        for name, outcome in one.outcomes().items():
            there = everywhere[key][name]
            assert there.why == outcome.why, name
            if isinstance(outcome.value, float):
                assert there.value == pytest.approx(outcome.value, rel=1e-2, abs=1e-3), name


def test_milestones_of_the_bundled_model_agree_with_its_rows(swept: SweepTable) -> None:
    found = milestones.of(swept)
    for (prompt, lens), one in found.items():
        rows = list(swept.view(lens, prompt).rows())
        answered = bool(swept.items[prompt].answer)
        first = [row["layer"] for row in rows if answered and row["answer_rank"] == 1]
        assert one["semantic"].value == (first[0] if first else None)
        strong = [
            row["layer"]
            for row in rows
            if row["answer_rank"] == 1
            and math.exp(row["answer_logprob"]) - 1 / swept.vocab_size >= 0.002
            and row["top_logprobs"][0] - row["top_logprobs"][1] >= 0.5
        ]
        assert one["semantic_strong"].value == (strong[0] if strong else None)
        close = [row["layer"] for row in rows if row["kl_bits"] <= 1]
        assert one.kl[1.0].value == (close[0] if close else None)
    assert found[0, "logit"]["semantic_strong"].value is not None
    assert found[len(swept.items) - 1, "logit"]["semantic"].why == "no_answer"
