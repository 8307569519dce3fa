"""Answers whose first token is only a blank: what is read off that token says so, everything else goes on."""

from dataclasses import replace

import numpy as np
import pytest

from ftw.substrate.reference import tiny
from ftw.sweep import milestones, statistics
from ftw.sweep.audits import of
from ftw.sweep.audits.grid import Grids
from ftw.sweep.battery import Prompt
from ftw.sweep.milestones import Thresholds, summary
from ftw.sweep.milestones.grid import first_token, grids
from ftw.sweep.run import Sweep
from ftw.sweep.table import SweepTable
from tests.sweep.audits.tables import made
from tests.sweep.milestones.tables import fact, peaked, table_of

BLANK, SPELLED = 5, (6, 7, 8)
T = Thresholds(resamples=50, permutations=20)
SILENT = (
    "semantic",
    "semantic_stays",
    "semantic_step",
    "semantic_accepted",
    "semantic_margin_ok",
    "p_at_semantic",
    "confirmed",
    "delta",
    "delta_hat",
    "rank_le_5",
    "gap_ge_0.5",
    "surface",
    "geometry",
    "pool_first_stays",
    "control_margin_first",
    "control_margin_max",
    "control_strong",
    "control_gap_max",
)
WHOLE = ("whole_half_stays", "whole_p_last", "control_whole_stays", "copy", "kl_le_1", "low_entropy")


def table() -> SweepTable:
    """Four facts, each answered from another layer on; the first one's answer begins with a blank."""
    answers = (BLANK, *SPELLED)
    items = [fact(f"f{at}", answer=one, control=answers[at - 1], pool=answers[:1]) for at, one in enumerate(answers)]
    items[1] = replace(items[1], control=(9,))
    logits = [peaked(16, [2] * (2 + at) + [one] * (6 - at), 0.9) for at, one in enumerate(answers)]
    found = table_of({"logit": np.stack(logits), "tuned": np.stack(logits)}, items)
    return replace(found, pieces={**found.pieces, BLANK: " "})


def test_milestones_of_the_first_token_say_that_it_is_a_blank() -> None:
    found = milestones.of(table(), T)
    assert {name: found[0, "logit"][name].why for name in SILENT} == dict.fromkeys(SILENT, "blank_first")
    assert "blank_first" not in {each.why for each in found[2, "logit"].outcomes().values()}


def test_milestones_of_whole_answers_go_on() -> None:
    found = milestones.of(table(), T)[0, "logit"]
    assert "blank_first" not in {found[name].why for name in WHOLE}
    assert found["whole_half_stays"].value == 2


def test_a_control_that_begins_with_a_blank_cannot_be_beaten_by_its_first_token() -> None:
    plain = table()
    items = (plain.items[0], replace(plain.items[1], control=(BLANK, 9)), *plain.items[2:])
    found = milestones.of(replace(plain, items=items), T)[1, "logit"]
    assert (found["control_margin_first"].why, found["semantic"].value) == ("blank_first", 3)


def test_statistics_and_shuffles_leave_blanks_out() -> None:
    rows = table()
    found = statistics.of(rows, milestones.of(rows, T), T)
    semantic, whole = found.onset("semantic"), found.onset("whole_half_stays")
    assert semantic is not None
    assert whole is not None
    assert (semantic["n_facts"], semantic["n_missing"], semantic["share"]["value"]) == (3, 0, 1.0)
    assert (whole["n_facts"], whole["n_missing"]) == (4, 0)
    assert {one["n_facts"] for one in found.curves} == {3}
    assert {one.n_facts for one in found.permuted} == {3}
    assert max(one["n_facts"] for one in found.control_signs) == 3
    shifts = {one["milestone"]: one for one in found.shifts if one["by"] == "lens"}
    assert (shifts["semantic"]["n_facts"], shifts["semantic"]["n_missing"]) == (3, 0)
    assert shifts["copy"]["n_facts"] == 4


def test_the_summary_counts_blanks_by_their_reason() -> None:
    rows = table()
    told = summary.of(rows, milestones.of(rows, T), T).facts["lenses"]["logit"]["semantic"]
    assert told["reasons"] == {"blank_first": 1}


def test_facts_that_all_begin_with_a_blank_have_no_statistics_and_no_onset_to_audit() -> None:
    rows = made({"logit": [[9, 1, 1, 1]] * 2, "raw": [[9, 1, 1, 1]] * 2, "next": [[9, 1, 1, 1]] * 2})
    rows = replace(rows, pieces={**rows.pieces, BLANK: " "})
    found = statistics.of(rows, milestones.of(rows, T), T)
    onset = found.onset("semantic")
    assert onset is not None
    assert (onset["n_facts"], onset["median"]["why"], found.curves, found.permuted) == (0, "too_few", (), ())
    grid = Grids(rows)
    assert not grid.facts().any()
    assert np.isnan(grid.ranks("logit")).all()
    audit = of(None, rows)
    names = ("norm_views", "decoding_point", "raw_vs_norm", "lens_agreement", "onset_margin", "gate_stability")
    assert {name: audit[name].why for name in names} == dict.fromkeys(names, "blank_first")


@pytest.mark.parametrize(("answer", "why"), [("x", "blank_first"), (",", None)])
def test_a_tokenizer_that_does_not_merge_blanks_has_such_answers(answer: str, why: str | None) -> None:
    model = tiny()  # a token per byte
    rows = Sweep(model, k=5).run([Prompt("p", "It is", answer)])
    assert first_token(rows, rows.items[0].answer) == why
    assert milestones.of(rows)[0, "logit"]["rank_le_5"].why in ({why} if why else {None, "never"})
    assert milestones.of(rows)[0, "logit"]["whole_p_last"].value is not None


def test_a_token_that_is_part_of_a_character_is_no_blank() -> None:
    rows = table()
    assert first_token(replace(rows, pieces={**rows.pieces, BLANK: ""}), (BLANK, 6)) is None
    assert first_token(rows, ()) == "no_answer"


def test_a_rank_of_a_blank_is_no_number_and_its_probability_is() -> None:
    grid = grids(table())["logit"]
    assert np.isnan(grid.numbers("answer_rank")[0]).all()
    assert np.isfinite(grid.numbers("answer_logprob")[0]).all()
    assert grid.numbers("answer_rank")[1].tolist()[-1] == 1
