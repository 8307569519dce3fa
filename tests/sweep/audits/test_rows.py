"""Health, trajectory, positions, skipped layers, guidance: audits of rows alone, on tables whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from ftw.sweep.audits import Finding, of
from ftw.sweep.audits.catalogue import CATALOGUE
from ftw.sweep.audits.finding import SEVERITIES, grade, layer, middle, missing, number, worst
from ftw.sweep.audits.grid import Grids
from ftw.sweep.audits.guidance import ADVICE, guide
from ftw.sweep.audits.health import norm_trajectory, numeric_health
from ftw.sweep.audits.learned import learned_lens, prefer, skip_layers
from ftw.sweep.audits.positions import learned_positions, next_token_depth
from ftw.sweep.milestones import Thresholds
from ftw.sweep.outcome import Outcome
from ftw.sweep.table import SweepTable
from tests.sweep.audits.tables import item, made

LIMITS = Thresholds()
EARLY, NEVER = [9, 9, 1, 1, 1, 1], [9, 9, 9, 9, 9, 9]


def health(table: SweepTable) -> Finding:
    return numeric_health(table, Grids(table), LIMITS)


def test_rows_that_are_all_finite_are_fine() -> None:
    found = health(made({"logit": [EARLY]}))
    assert (found.severity, found.figures["share_not_finite"].value) == ("fine", 0.0)
    assert found.figures["max_abs_logit_p99"].value == pytest.approx(abs(np.log(0.6) + 1))


def test_a_broken_row_before_an_onset_is_serious_and_one_after_is_graded() -> None:
    def broken_at(at: int) -> Finding:
        flags = [True] * 6
        flags[at] = False
        onset_late = {"raw": {"is_finite": [flags]}}
        return health(made({"logit": [EARLY] * 1, "raw": [[9, 9, 1, 1, 1, 1]]}, onset_late))

    assert broken_at(1).severity == "serious"
    assert broken_at(1).figures["is_before_an_onset"].value is True
    after = broken_at(5)
    assert after.figures["is_before_an_onset"].value is False
    assert after.tables["not_finite"] == [{"lens": "raw", "layer": 5, "rows": 1}]


def trajectory(lengths: list[float]) -> Finding:
    ranks = [[9] * (len(lengths) - 1) + [1]]
    return norm_trajectory(Grids(made({"logit": ranks}, {"logit": {"resid_norm": [lengths]}})), LIMITS)


def test_a_stream_that_grows_steadily_has_no_spikes() -> None:
    found = trajectory([2.0, *(100 * 1.3**at for at in range(12))])
    assert (found.figures["shape"].value, found.severity) == ("monotonic", "fine")
    assert found.figures["slope"].value == pytest.approx(np.log(1.3))


def test_a_stream_of_one_length_is_a_plateau() -> None:
    assert trajectory([5.0] * 10).figures["shape"].value == "plateau"


def test_a_block_that_steps_out_of_line_is_a_spike_and_only_that_one() -> None:
    lengths = [2.0, *(100 * 1.1**at for at in range(14))]
    lengths[7:] = [length * 20 for length in lengths[7:]]
    found = trajectory(lengths)
    assert (found.figures["shape"].value, found.figures["n_spikes"].value) == ("spike", 1)
    assert [row["layer"] for row in found.tables["layers"] if row["is_spike"]] == [7]


def test_the_first_and_the_last_block_are_no_spikes() -> None:
    lengths = [1.0, *(100 * 1.1**at for at in range(10)), 5000.0]
    found = trajectory(lengths)
    assert found.figures["n_spikes"].value == 0
    assert float(found.figures["first_block_growth"].value or 0) > 4


def test_few_blocks_have_no_trajectory() -> None:
    assert trajectory([1.0, 2.0, 3.0]).why == "too_few"
    assert trajectory([1.0, 2.0, float("nan"), 4.0, 5.0, 6.0, 7.0]).why == "not_finite"


def everywhere(ranks: list[list[int]]) -> SweepTable:
    """A table with rows at both positions: the first position's next token has these ranks."""
    last = made({"logit": [EARLY] * len(ranks), "tuned": [EARLY] * len(ranks)}, {"tuned": {"kl_bits": [[1.0] * 6] * 2}})
    first = made(
        {"logit": ranks, "tuned": ranks}, {"tuned": {"kl_bits": [[2.5] * 6] * 2}, "logit": {"next_rank": ranks}}
    )
    columns = {name: np.concatenate([first[name], last[name]]) for name in last.columns}
    columns["pos"] = np.repeat(np.array([0, 1], dtype=np.int32), len(last))
    order = np.lexsort((columns["layer"], columns["lens"], columns["pos"], columns["prompt"]))
    return replace(last, columns={name: column[order] for name, column in columns.items()})


def test_the_share_of_ordinary_tokens_that_are_right_at_the_onset_reaches_one() -> None:
    table = everywhere([EARLY, EARLY])
    found = next_token_depth(table, Grids(table))
    assert (found.figures["share_at_onset"].value, found.figures["median_layer"].value) == (1.0, 2.0)
    table = everywhere([EARLY, [9, 9, 9, 9, 9, 1]])
    assert next_token_depth(table, Grids(table)).figures["share_at_onset"].value == 0.5


def test_tokens_that_the_model_gets_wrong_do_not_count() -> None:
    table = everywhere([EARLY, NEVER])
    assert next_token_depth(table, Grids(table)).figures["n_positions"].value == 1
    table = everywhere([NEVER, NEVER])
    assert next_token_depth(table, Grids(table)).why == "never"


def test_last_positions_alone_say_nothing_of_ordinary_tokens() -> None:
    table = made({"logit": [EARLY]})
    assert next_token_depth(table, Grids(table)).why == "no_positions"
    assert learned_positions(table, Grids(table), "logit", LIMITS).why == "no_positions"
    assert learned_positions(table, Grids(table), None, LIMITS).why == "no_lens"


def test_a_learned_lens_is_looked_at_early_and_late_in_every_prompt() -> None:
    table = everywhere([EARLY, EARLY])
    found = learned_positions(table, Grids(table), "tuned", LIMITS)
    assert (found.figures["early"].value, found.figures["late"].value) == (0.5, 2.0)
    assert found.figures["gap_bits"].value == -1.5
    assert (set(found.prompts), found.severity) == ({"p0", "p1"}, "note")


def test_skipping_m_blocks_reads_the_layer_that_n_minus_m_blocks_made() -> None:
    logprobs = [[-3.0, -2.5, -2.0, -1.5, -1.2, -1.0]]
    table = made(
        {"logit": [EARLY], "tuned": [EARLY]}, {name: {"answer_logprob": logprobs} for name in ("logit", "tuned")}
    )
    found = skip_layers(Grids(table), "tuned", LIMITS)
    assert found.tables["skipped"][0] == {"skipped": 2, "layer": 3, "relative": pytest.approx(np.expm1(0.5))}
    assert [row["layer"] for row in found.tables["skipped"]] == [3, 1]
    assert skip_layers(Grids(table), None, LIMITS).why == "no_lens"


def test_a_finding_that_was_not_measured_has_no_grade() -> None:
    found = missing("raw_vs_norm", "no_view", "Nothing.")
    assert (found.severity, found.document()["why"], found.document()["unit"]) == (None, "no_view", "0 to 1; bits")
    assert worst(None, None) is None
    assert worst("fine", None, "caution", "note") == "caution"


def test_grades_ascend_step_by_step() -> None:
    assert [grade(value, (1.0, 2.0, 3.0)) for value in (1.0, 1.5, 2.5, 3.5)] == list(SEVERITIES)


def test_grades_that_fall_or_are_unknown_are_errors() -> None:
    with pytest.raises(ValidationError, match="steps ascend"):
        Thresholds(grade_spread=(0.5, 0.2, 0.9))
    with pytest.raises(ValidationError, match="grade_sprad"):
        Thresholds.model_validate({"grade_sprad": (0, 1, 2)})


def test_numbers_that_do_not_exist_become_reasons() -> None:
    assert number(float("nan")).why == "not_finite"
    assert number(float("inf"), "too_few").why == "too_few"
    assert (layer(-1).why, layer(3).value) == ("never", 3)
    assert middle([float("nan")]).why == "too_few"
    assert middle([1.0, float("nan"), 3.0]).value == 2.0


def test_every_audit_has_a_formula_a_unit_and_advice() -> None:
    assert set(ADVICE) == set(CATALOGUE)
    for entry in CATALOGUE.values():
        assert entry.title.endswith("?")
        assert entry.formula
        assert entry.unit


def finding(name: str, severity: str | None) -> Finding:
    return Finding(name, severity, "A line.", why=None if severity else "no_view")  # type: ignore[arg-type]


def test_a_sound_run_is_told_so() -> None:
    guidance = guide([finding("raw_vs_norm", "fine"), finding("last_layer", "fine")])
    assert guidance.severity == "fine"
    assert guidance.reasons == ()
    flags = (guidance.prefer_ranks, guidance.suppress_abs_probs, guidance.onsets_as_ranges)
    assert not any(flags)


def test_a_note_changes_nothing_and_a_serious_finding_takes_numbers_away() -> None:
    assert not guide([finding("onset_margin", "note")]).prefer_ranks
    caution = guide([finding("onset_margin", "caution")])
    assert (caution.prefer_ranks, caution.suppress_abs_probs) == (True, False)
    assert guide([finding("onset_margin", "serious")]).suppress_abs_probs


def test_advice_concerns_only_what_its_finding_does() -> None:
    guidance = guide([finding("norm_views", "serious")])
    assert (guidance.onsets_as_ranges, guidance.prefer_ranks, guidance.suppress_abs_probs) == (True, False, False)
    assert guidance.reasons[0].advice == ADVICE["norm_views"]


def test_the_most_serious_reason_comes_first_and_what_is_unmeasured_is_named() -> None:
    found = [finding("norm_views", "note"), finding("onset_margin", "serious"), finding("temperature", None)]
    guidance = guide(found)
    assert [reason.code for reason in guidance.reasons] == ["onset_margin", "norm_views"]
    assert guidance.unmeasured == ("temperature",)
    assert guidance.summary == "serious: 1 note, 1 serious; 1 audits not measured."


def test_a_learned_lens_is_preferred_only_where_it_turns() -> None:
    def lens(name: str, prefer: bool, rotation: float = 1.0) -> Finding:
        figures = {"prefer": Outcome(prefer), "rotation_p50": Outcome(rotation)}
        return Finding("learned_lens", "fine", "A line.", figures, subject=name)

    assert guide([lens("tuned", True)]).preferred_lens == "tuned"
    assert guide([lens("tuned", False)]).preferred_lens == "logit"
    assert guide([lens("tuned", True), lens("prism", True, 2.0)]).preferred_lens == "prism"


def test_nothing_saturates_on_tables_that_differ() -> None:
    """The same audits call one table sound and another not: a flag that is always up says nothing."""
    sound = of(None, made({"logit": [EARLY], "next": [EARLY], "raw": [EARLY]}))
    rotten = of(None, made({"logit": [EARLY], "next": [[9, 9, 9, 9, 9, 1]], "raw": [NEVER]}))
    assert sound.guidance.severity in ("fine", "note")
    assert rotten.guidance.severity == "serious"
    assert rotten.guidance.onsets_as_ranges


def test_prompts_without_answers_are_reasons_and_no_crash() -> None:
    table = made({"logit": [[0] * 6], "raw": [[0] * 6]})
    table = replace(table, items=(replace(item(0), answer=(), accepted=(), source=None),))
    audit = of(None, table)
    assert audit["norm_views"].why == "no_answer"
    assert audit["onset_margin"].why == "no_answer"
    assert audit["raw_vs_norm"].why == "no_answer"


def lens_with(kl: list[float]) -> Finding:
    columns = {"logit": {"kl_bits": [[5.0, 5.0, 5.0, 5.0, 5.0, 0.0]]}, "tuned": {"kl_bits": [kl]}}
    grid = Grids(made({"logit": [EARLY], "tuned": [EARLY]}, columns))
    return learned_lens(grid, "tuned", None, LIMITS, [0])


def test_a_learned_lens_that_is_worse_than_none_is_serious() -> None:
    found = lens_with([6.0, 6.0, 6.0, 6.0, 6.0, 0.0])
    assert (found.figures["total_p50"].value, found.severity) == (-1.0, "serious")


def test_a_learned_lens_that_is_not_the_model_at_the_end_is_a_caution() -> None:
    assert lens_with([2.0, 2.0, 2.0, 2.0, 2.0, 0.1]).figures["is_off_at_the_end"].value is False
    off = lens_with([2.0, 2.0, 2.0, 2.0, 2.0, 4.0])
    assert (off.figures["is_off_at_the_end"].value, off.severity) == (True, "caution")


def test_without_held_out_text_a_gain_has_no_parts_and_no_lens_is_preferred() -> None:
    found = lens_with([2.0, 2.0, 2.0, 2.0, 2.0, 0.0])
    assert (found.figures["total_p50"].value, found.severity) == (3.0, "note")
    assert {found.figures[name].why for name in ("rotation_p50", "calibration_only", "prefer")} == {"no_text"}


def test_every_learned_lens_has_findings_of_its_own() -> None:
    audit = of(None, made({"logit": [EARLY], "tuned": [EARLY], "prism": [EARLY]}))
    found = [finding.subject for finding in audit.findings if finding.name == "learned_lens"]
    assert found == ["tuned", "prism"]
    assert audit["learned_lens"].subject == "tuned"


def test_a_fast_sweep_says_how_far_its_log_probabilities_may_be_off() -> None:
    table = made({"logit": [EARLY]}, {"logit": {"logsumexp_bound": [[0.25] * 6]}})
    assert "within 0.2500 nats" in health(replace(table, precision="fast")).reading
    assert "nats" not in health(table).reading


def test_a_lens_that_is_earlier_by_one_layer_alone_is_not_preferred_in_a_shallow_model() -> None:
    def is_preferred(earlier: float) -> object:
        figures = {"calibration_only": Outcome(False), "is_off_at_the_end": Outcome(False)}
        return prefer(figures | {"rotation_50%": Outcome(0.0), "layers_earlier": Outcome(earlier)}, LIMITS).value

    assert (is_preferred(1.0), is_preferred(2.0)) == (False, True)
