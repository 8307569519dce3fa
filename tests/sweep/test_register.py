"""The register: every known defect of the published suite, by its number, and the tests that keep it away from ours.

A defect whose tests were renamed or deleted fails here. Those that have no better place are tested below.
"""

import ast
from pathlib import Path

import pytest
import torch

import ftw
from ftw.substrate.model import from_net, load
from ftw.sweep import forward
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.run import Sweep
from tests.substrate.families import build

HERE = Path(__file__)
TESTS = HERE.parents[1]
REGISTER = {
    "D-01 softcap and scale left out of the lenses and of the teacher": (
        "test_the_last_row_is_the_models_own_log_probabilities_and_company_changes_nothing",
        "test_softcap_and_half_precision_are_the_models_own",
        "test_a_scale_that_is_left_out_shows_as_a_temperature",
    ),
    "D-02 gap milestones always null": (
        "test_milestones_of_gaps_reach_the_document",
        "test_the_strong_onset_exists_wherever_the_rows_have_it",
    ),
    "D-03 audits of a learned lens overwritten by the last fact": (
        "test_the_parts_of_a_gain_are_keyed_by_prompt",
        "test_every_fact_has_its_own_raw_figures",
    ),
    "D-04 overlaps filled in with another fact's": ("test_overlaps_with_the_raw_lens_are_each_prompts_own",),
    "D-05 the next block's norm as the lens's": ("test_the_default_lens_is_the_models_own_tail_at_every_layer",),
    "D-06 LayerNorm models without centring and bias": ("test_a_layer_norm_is_called_not_rewritten",),
    "D-07 a rotation applied the wrong way round": ("test_the_rows_of_a_toy_of_16_dimensions_are_mapped_exactly",),
    "D-08 a tuned lens whose matrices never move": (
        "test_no_parameter_stays_where_it_began",
        "test_the_gradient_at_the_start_is_not_zero",
    ),
    "D-09 two defaults for one threshold, options dropped on the way": (
        "test_a_worker_is_handed_the_whole_job_in_a_file",
        "test_a_job_has_the_values_that_were_given",
    ),
    "D-10 a stability that cannot be reached": (
        "test_every_stability_can_be_reached_and_follows_the_layers_between",
        "test_identical_onsets_are_stable_one_missing_is_mixed_none_is_no_copy",
    ),
    "D-11 a decoding point that fails by construction": (
        "test_the_decoding_point_can_be_consistent_where_early_ranks_differ",
    ),
    "D-12 a position stability of at most a sixth": (
        "test_position_stability_can_reach_one",
        "test_positions_have_ranks_everywhere",
    ),
    "D-13 more training than is booked, a warmup that is not used": (
        "test_accumulated_micro_batches_are_one_large_batch",
    ),
    "D-14 a divergence with a ceiling": ("test_a_divergence_does_not_stop_at_a_floor",),
    "D-15 a cosine of logits with their mean": (
        "test_cosine_of_logits_ignores_their_mean_and_has_no_value_without_a_direction",
    ),
    "D-16 a window that is drawn before its risk is known": (
        "test_the_window_widens_where_the_whole_sweep_shows_a_risk",
    ),
    "D-17 a basis from forty vectors": ("test_a_position_counts_once", "test_what_cannot_be_fitted_is_refused"),
    "D-18 whitening of something else than is decoded": ("test_moments_are_those_of_the_lens_inputs_of_all_layers",),
    "D-19 temperatures fitted on what they judge, cut at an edge": (
        "test_temperatures_are_fitted_where_there_is_text",
        "test_a_lens_that_knows_nothing_is_best_at_the_edge_and_says_so",
    ),
    "D-20 alignment by length alone": (
        "test_a_text_that_ends_in_a_blank_is_not_matched_by_length",
        "test_a_merge_across_the_prompts_end_is_seen",
    ),
    "D-21 residuals overwritten by the next fact": ("test_states_are_kept_as_the_stream_was",),
    "D-22 sentences in a .json": (
        "test_a_failed_run_leaves_json_with_what_ended_it",
        "test_a_run_that_ends_by_an_error_says_which_in_valid_json",
    ),
    "D-23 a model of unknown size never runs": ("test_the_budgets_of_a_sweep_are_counted",),
    "D-24 a self-test that cannot run": ("test_what_cannot_be_decoded_is_refused_by_name",),
    "D-25 tests that are imported and not run": ("test_every_test_file_here_holds_tests",),
    "D-26 guidance that says the same of every model": ("test_nothing_saturates_on_tables_that_differ",),
    "D-27 work done twice": (
        "test_prompts_with_equal_ids_run_once",
        "test_the_published_suites_control_is_no_second_pass",
    ),
    "D-28 an entropy called a copy": ("test_low_entropy_is_of_any_token",),
    "D-29 failures turned into nulls": ("test_no_error_of_the_sweep_is_swallowed",),
    "D-30 a pin on a class that is gone": ("test_models_are_read_without_another_projects_wrapper",),
}


def names() -> set[str]:
    found = set()
    for file in TESTS.rglob("test_*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return found


def sources() -> dict[Path, ast.Module]:
    home = Path(str(ftw.__file__)).parent / "sweep"
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in home.rglob("*.py")}


def test_every_defect_has_the_tests_that_are_named() -> None:
    known = names()
    missing = {defect: test for defect, tests in REGISTER.items() for test in tests if test not in known}
    assert missing == {}
    assert [int(defect[2:4]) for defect in REGISTER] == list(range(1, 31))


def test_the_default_lens_is_the_models_own_tail_at_every_layer() -> None:
    model = load("tiny")
    resid = forward.read(model, [[1, 2, 3]], positions="all").states
    sweep = Sweep(model)
    assert [lens.name for lens in sweep.lenses] == ["logit"]
    with torch.no_grad():
        expected = model.net.model.norm(resid)
    torch.testing.assert_close(sweep.lenses[0].head_inputs(resid, range(model.n_layers + 1)), expected)


@pytest.mark.filterwarnings("ignore")
def test_a_layer_norm_is_called_not_rewritten() -> None:
    model = from_net(build("gpt2"))
    resid = forward.read(model, [[1, 2, 3]], positions="all").states
    found = LogitLens(model.arch).head_inputs(resid, range(model.n_layers + 1))
    norm = model.net.transformer.ln_f
    centred = resid - resid.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    torch.testing.assert_close(found, scaled * norm.weight + norm.bias, rtol=1e-4, atol=1e-4)
    assert norm.bias.abs().max() > 0.01


def test_the_published_suites_control_is_no_second_pass() -> None:
    from ftw.sweep.battery import Battery
    from ftw.sweep.items import items_of
    from ftw.sweep.plan import Plan

    items = items_of(load("reference"), Battery.read("germany"))
    plan = Plan(items, "last")
    assert len(plan.sequences) < len(items)
    assert len(set(plan.sequences)) == len(plan.sequences)


def test_every_test_file_here_holds_tests() -> None:
    for file in HERE.parent.rglob("test_*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
        assert tests, file.name


def test_no_error_of_the_sweep_is_swallowed() -> None:
    broad = []
    for file, tree in sources().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else {""}
            goes_on = not any(isinstance(each, ast.Raise) for each in ast.walk(node))
            if caught & {"", "Exception", "BaseException"} and goes_on:
                broad.append(f"{file.name}:{node.lineno}")
    assert broad == []


def test_models_are_read_without_another_projects_wrapper() -> None:
    for file, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
                assert not any(name.split(".")[0] in ("transformer_lens", "nnsight") for name in modules), file.name
