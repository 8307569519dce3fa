"""The legacy JSON documents: their keys, and where their values come from."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftw.sweep.legacy import extended, pack, raw, seed, sidecar
from ftw.sweep.legacy.audited import skipping
from ftw.sweep.legacy.rows import next_token
from ftw.sweep.legacy.source import Source

GOLDEN = Path(__file__).parents[2] / "data" / "sweep" / "legacy" / "document-seed.json"


def leaves(value: Any) -> Iterator[Any]:
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from leaves(each)
    if not isinstance(value, dict | list):
        yield value


def strong(source: Source, **layers: int | str) -> Source:
    """The run as if the baseline had these milestones."""
    entries = [dict(entry) for entry in source.document["prompts"]]
    at = source.suite.baseline.index
    found = {name: {"value": value, "why": None} for name, value in layers.items()}
    own = entries[at]["milestones"]
    entries[at]["milestones"] = own | {"logit": own["logit"] | found}
    return replace(source, document={**source.document, "prompts": entries})


def test_the_seed_document_has_the_published_keys(source: Source) -> None:
    found = seed.document(source)
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert list(found) == golden["document"]
    for block, keys in golden["blocks"].items():
        assert list(found[block]) == keys, block


def test_the_extended_document_keeps_every_key_of_the_seed(source: Source) -> None:
    first, second = seed.document(source), extended.document(source)
    assert set(first) < set(second)
    for block in ("diagnostics", "prompt", "control_summary"):
        assert set(first[block]) < set(second[block])


@pytest.mark.parametrize("form", [seed, extended])
def test_a_document_is_plain_json(source: Source, form: Any) -> None:
    document = form.document(source)
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text) == json.loads(json.dumps(document))
    assert all(value is None or isinstance(value, str | int | float | bool) for value in leaves(document))


def test_the_final_prediction_is_the_models_own(source: Source) -> None:
    found = seed.document(source)["final_prediction"]
    row = source.table.view("logit", source.suite.baseline.index).where(layer=source.n)
    assert found["entropy"] == pytest.approx(float(row["entropy_bits"][0]))
    assert len(found["topk"]) == 20
    assert found["topk"][0] == [
        source.table.pieces[int(row["top_ids"][0, 0])],
        pytest.approx(np.exp(row["top_logprobs"][0, 0])),
    ]


def test_probes_and_temperatures_are_shown(source: Source) -> None:
    found = seed.document(source)
    assert [(each["prompt"], len(each["topk"])) for each in found["test_prompts"]] == [("free", 10)]
    cold, hot = found["temperature_exploration"]
    assert (cold["temperature"], hot["temperature"]) == (0.5, 2.0)
    assert cold["entropy"] < hot["entropy"]
    assert len(hot["topk"]) == 15


def test_gold_is_the_answer_in_the_models_tokens(source: Source) -> None:
    one = source.suite.baseline
    assert seed.gold(one) == {
        "string": "x",
        "pieces": ["x"],
        "first_id": source.table.items[one.index].answer[0],
        "answer_ids": list(source.table.items[one.index].answer),
        "variant": "no_space",
    }
    assert seed.alignment(one)["status"] == "ok"
    lone = replace(one, entry={**one.entry, "answer": None})
    assert seed.alignment(lone) == {
        "ok": False, "status": "unresolved", "variant": None, "first_id": None, "answer_ids": [], "pieces": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("told", "scale", "softcap"),
    [("none", None, None), ("softcap 30", None, 30.0), ("scale 0.25, softcap 30", 0.25, 30.0)],
)
def test_the_heads_transform_is_told(source: Source, told: str, scale: float | None, softcap: float | None) -> None:
    finding = {"name": "last_layer", "figures": {"transform": {"value": told, "why": None}}}
    gemma = replace(source, document={**source.document, "audit": {"findings": [finding]}})
    assert seed.transform(gemma) == {"scale": scale, "softcap": softcap}
    assert seed.last_layer(gemma, 0.5)["warn_high_last_layer_kl"] is False


def test_ablation_is_the_ablated_wording_minus_the_baseline(source: Source) -> None:
    found = seed.ablation(strong(source, semantic=3))
    other = found["L_sem_nf"]
    assert found["L_sem_orig"] == 3
    assert found["delta_L_sem"] == (None if other is None else other - 3)


def test_milestones_of_gaps_reach_the_document(source: Source) -> None:
    """The published summary had no gaps: every milestone that needs one was null."""
    found = extended.document(
        strong(source, gap_ge_0=1, **{"gap_ge_0.5": 3, "semantic_strong": 4, "semantic_top2_ok": 3})
    )
    assert found["diagnostics"]["answer_margin_thresholds"]["gap_ge_0.5"] == 3
    assert found["summary"]["semantic_gate"]["L_semantic_strong"] == 4
    assert found["summary"]["semantic_gate"]["L_semantic_top2_ok_norm"] == 3


@pytest.mark.parametrize(
    ("by", "legacy"), [("raw+tuned", "both"), ("raw", "raw"), ("tuned", "tuned"), ("prism", "prism")]
)
def test_the_source_of_a_confirmation_is_named(source: Source, by: str, legacy: str) -> None:
    found = extended.document(strong(source, confirmed=3, confirmed_by=by))["diagnostics"]
    assert found["confirmed_semantics"]["source"] == legacy
    assert found["L_semantic_confirmed"] == 3


def test_thresholds_of_the_copy_sweep_are_keys_of_the_document(source: Source) -> None:
    """The published stability looked up 0.70 among keys that say 0.7."""
    block = extended.document(source)["diagnostics"]["copy_thresholds"]
    assert list(block["L_copy_strict"]) == ["0.7", "0.8", "0.9", "0.95"]
    assert list(block["norm_only_flags"]) == list(block["L_copy_strict"])


def test_the_layer_map_says_which_norm_each_row_went_through(source: Source) -> None:
    rows = extended.document(source)["diagnostics"]["layer_map"]
    assert [row["layer"] for row in rows] == list(range(source.n + 1))
    assert {row["norm"] for row in rows} == {"final_norm"}
    assert (rows[0]["stream"], rows[1]["stream"], rows[-1]["stream"]) == ("pre_block", "post_block", "unembed_head")
    assert len({row["ln_source"] for row in rows}) == 1


def test_every_facts_milestones_are_its_own(source: Source) -> None:
    facts = extended.micro_suite(source)["facts"]
    for fact, one in zip(facts, source.suite.facts, strict=True):
        assert fact["fact_key"] == one.fact_key
        assert fact["L_semantic_norm"] == source.milestone(one, "semantic")
        assert fact["L_semantic_confirmed"] == source.milestone(one, "confirmed")


def test_medians_over_facts_leave_out_what_is_missing(source: Source) -> None:
    found = extended.micro_suite(strong(source, semantic=3))
    known = [fact["L_semantic_norm"] for fact in found["facts"] if fact["L_semantic_norm"] is not None]
    assert found["aggregates"]["n_missing"] == 2 - len(known)
    assert found["aggregates"]["L_semantic_norm_median"] == round(float(np.median(known)))


def test_guidance_is_the_runs_own(source: Source) -> None:
    found = extended.guidance(source)
    told = source.document["guidance"]
    assert found["prefer_ranks"] == told["prefer_ranks"]
    assert set(found["reasons"]) == {
        one["code"] for one in told["reasons"] if one["severity"] in ("caution", "serious")
    }


def test_a_run_without_learned_lenses_says_so(source: Source) -> None:
    bare = replace(source, table=replace(source.table, lenses=("logit",)))
    assert extended.tuned_lens(bare) == {"status": "missing", "mode": "auto", "path": None, "error": None}
    assert seed.prism_summary(bare)["present"] is False


def test_sidecar_metrics_are_lens_against_lens(source: Source) -> None:
    one = source.suite.baseline
    found = sidecar.unified(source, "tuned")
    base, other = (source.milestone(one, "kl_at_p50", lens) for lens in ("logit", "tuned"))
    assert found["kl_bits_at_percentiles"]["p50"] == {"baseline": base, "tuned": other, "delta": base - other}


def test_the_raw_check_compares_layer_by_layer(source: Source) -> None:
    found = raw.check(source.table, source.suite.baseline, source.thresholds)
    assert [row["layer"] for row in found["samples"]] == list(range(source.n + 1))
    largest = max(row["kl_norm_vs_raw_bits"] for row in found["samples"])
    assert found["summary"]["max_kl_norm_vs_raw_bits"] == largest
    assert found["summary"]["lens_artifact_risk"] == ("high" if largest >= 1 else "medium" if largest >= 0.5 else "low")


def test_without_a_raw_view_the_raw_check_is_off(source: Source) -> None:
    bare = source.table.where(lens="logit")
    assert raw.check(bare, source.suite.baseline, source.thresholds) == {
        "mode": "off",
        "samples": [],
        "summary": {
            "first_norm_only_semantic_layer": None,
            "max_kl_norm_vs_raw_bits": None,
            "lens_artifact_risk": None,
        },
    }


def test_raw_rows_hold_both_sides_of_one_layer(source: Source) -> None:
    one = source.suite.passes[2]
    for row, own in zip(raw.rawlens(source.table, one), source.table.view("raw", one.index).rows(), strict=True):
        assert (row["layer"], row["fact_key"]) == (own["layer"], one.fact_key)
        assert row["kl_norm_vs_raw_bits"] == own["vs_logit_kl_bits"]
        assert row["kl_raw_to_norm_bits"] == own["vs_logit_rev_kl_bits"]
        assert row["norm_only_semantics"] == (row["answer_rank_norm"] == 1 and row["answer_rank_raw"] != 1)


def test_a_window_has_two_rows_per_layer(source: Source) -> None:
    rows = list(raw.window(source.table, source.suite.baseline, [1, 3]))
    assert [(row["layer"], row["lens"]) for row in rows] == [(1, "norm"), (1, "raw"), (3, "norm"), (3, "raw")]
    assert rows[0]["kl_norm_vs_raw_bits"] == rows[1]["kl_norm_vs_raw_bits"]
    assert rows[0]["p_top1"] != rows[1]["p_top1"]


def test_tuned_variants_are_of_the_baseline_fact(source: Source) -> None:
    """The published file described the last fact."""
    one = source.suite.baseline
    rows = list(sidecar.variants(source, one, "tuned"))
    base = next_token(source.table, one.index, "logit")["kl_bits"][1:]
    assert [row["layer"] for row in rows] == list(range(1, source.n + 1))
    assert [row["kl_bits_baseline"] for row in rows] == base.tolist()
    assert all(row["delta_kl_bits_tuned"] == row["kl_bits_baseline"] - row["kl_bits_tuned"] for row in rows)


def test_what_a_rotation_and_a_temperature_do_is_the_audits_word(source: Source) -> None:
    one = source.suite.baseline
    rows = [{"prompt": one.entry["id"], "layer": 2, "temperature": 0.5, "rotation": 0.25, "interaction": -0.125}]
    other = [{**rows[0], "temperature": 9.0}]
    findings = [
        {"name": "learned_lens", "subject": lens, "figures": {}, "tables": {"prompts": told}}
        for lens, told in (("prism", other), ("tuned", rows))
    ]
    audited = replace(source, document={**source.document, "audit": {"findings": findings}})
    first, second, *_ = sidecar.variants(audited, one, "tuned")
    assert first["kl_bits_temp_only"] is None
    assert second["kl_bits_temp_only"] == second["kl_bits_baseline"] - 0.5
    assert second["kl_bits_rot_only"] == second["kl_bits_baseline"] - 0.25
    assert second["delta_kl_bits_interaction"] == -0.125


@pytest.mark.parametrize(("cost", "regresses"), [(0.1, False), (0.3, True), (None, None)])
def test_a_tuned_lens_that_skips_badly_is_said_to_regress(
    source: Source, cost: float | None, regresses: bool | None
) -> None:
    finding = {"name": "skip_layers", "subject": "tuned", "figures": {"skip_2": {"value": cost, "why": None}}}
    audited = replace(source, document={**source.document, "audit": {"findings": [finding]}})
    assert skipping(audited)["tuned_lens_regression"] is regresses
    assert skipping(audited)["tuned_lens_skip_warning"] == (cost if regresses else None)


def test_positions_have_ranks_everywhere(source: Source) -> None:
    """The published file had ranks at the last position only."""
    one = source.suite.baseline
    rows = list(sidecar.positions(source.table, one.index, "tuned"))
    length = len(source.table.items[one.index].ids)
    assert {row["pos_index"] for row in rows} == {round(f * (length - 1)) for f in sidecar.FRACTIONS}
    assert all(row["answer_rank_baseline"] >= 1 and row["answer_rank_tuned"] >= 1 for row in rows)
    assert rows[-1]["pos_index"] == length - 1


def test_positions_that_were_not_read_have_no_rows(source: Source) -> None:
    at = source.suite.baseline.index
    places = {row["pos_index"] for row in sidecar.positions(source.table.last(), at, "tuned")}
    assert places == {len(source.table.items[at].ids) - 1}


def test_milestones_are_four_rows_that_point_into_the_pure_file(source: Source) -> None:
    rows = list(pack.milestones(strong(source, semantic=3, copy=1)))
    assert [row["layer"] for row in rows][0::2] == [1, 3]
    own = source.table.view("logit", source.suite.baseline.index)
    assert rows[2]["csv_row_index"] == 3
    assert rows[2]["entropy_bits"] == float(own["entropy_bits"][3])
    assert [row["is_semantic_norm"] for row in rows] == [False, False, True, False]


def test_the_earliest_soft_copy_has_the_shortest_window(source: Source) -> None:
    names = {f"soft_copy_k{k}_at_0.33": layer for k, layer in ((1, 2), (2, 1), (3, 1))}
    rows = list(pack.milestones(strong(source, **names)))
    assert (rows[1]["layer"], rows[1]["is_copy_soft_k"]) == (1, 2)


def test_the_artifact_audit_begins_with_its_summary(source: Source) -> None:
    summary, *layers = pack.artifact(source)
    assert summary["layer"] == "_summary"
    assert [row["layer"] for row in layers] == list(range(source.n + 1))
    assert summary["kl_raw_to_norm_bits"] == pytest.approx(np.median([row["kl_raw_to_norm_bits"] for row in layers]))


def test_the_pack_names_files_that_the_run_wrote(source: Source) -> None:
    found = extended.document(source)["evaluation_pack"]
    assert found["citations"]["files"]["pure_csv"] == "output-tiny-pure-next-token.csv"
    assert found["repeatability"]["flag"] in ("ok", "high_variance")
    bare = replace(source, table=replace(source.table, lenses=("logit",)))
    assert pack.evaluation_pack(bare, {})["citations"]["files"]["tuned_pure_csv"] is None
