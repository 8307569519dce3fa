"""The blocks of the extended legacy document that come from the run's audits, for the baseline fact.

The rule of the file: an audit that was not made leaves its keys None, and the run's own document says why.
"""

from typing import Any

from ftw.sweep.legacy import raw
from ftw.sweep.legacy.passes import Pass
from ftw.sweep.legacy.rows import next_token, values
from ftw.sweep.legacy.source import Source

WEIGHTS = {"pct_ge_1.0": 0.6, "norm_only": 0.3, "max_kl": 0.1}
"""Of the artefact score's parts, as the audit weighs them."""
REGRESSION = 0.20
"""Relative perplexity of skipping two blocks from which on the tuned lens is said to regress."""
GATES = (("uniform_margin", "uniform"), ("top2_gap", "top2"), ("both_gates", "both"))
TARGETS = (("norm", "semantic"), ("strong", "strong"), ("strong_run2", "strong_run2"), ("confirmed", "confirmed"))
REPEATED = (
    ("max_rank_dev", "max_rank_deviation"),
    ("p95_rank_dev", "p95_rank_deviation"),
    ("top1_flip_rate", "flip_share"),
    ("rows_checked", "n_rows"),
    ("deterministic_algorithms", "deterministic_algorithms"),
)
OVERLAPS = (("jaccard@10", "jaccard10"), ("jaccard@50", "jaccard50"), ("spearman_top50", "spearman50"))


def audits(source: Source, one: Pass) -> dict[str, Any]:
    """All of them."""
    return {
        "copy_mask": {
            "size": source.figure("copy_mask", "size"),
            "sha256": source.figure("copy_mask", "sha256"),
            "ignored_token_str_sample": [row["piece"] for row in source.listed("copy_mask", "sample")],
        },
        "gate_stability_small_scale": gates(source, one),
        "raw_lens_window": window(source, one),
        "raw_lens_full": raw_full(source, one),
        "normalization_provenance": provenance(source, one),
        "layer_map": layer_map(source),
        "numeric_health": health(source),
        "repeatability": {name: source.figure("repeatability", ours) for name, ours in REPEATED},
        "repeatability_forward": {
            "enabled": source.figure("repeatability", "bits_equal") is not None,
            "bits_equal": source.figure("repeatability", "bits_equal"),
            "onset_moved": source.figure("repeatability", "onset_moved", one),
        },
        "decoding_point": {
            "gate": {"decoding_point_consistent": source.figure("decoding_point", "consistent", one)},
            "spread_layers": source.figure("decoding_point", "spread_layers", one),
        },
        "lens_consistency": agreement(source, one),
        "norm_trajectory": trajectory(source),
        "config": {"lens_artifact_score": {"weights": WEIGHTS, "thresholds": list(source.thresholds.artefact_tiers)}},
        **temperatures(source),
        **skipping(source),
    }


def temperatures(source: Source) -> dict[str, Any]:
    """Temperatures of the logit lens, fitted on held-out text, and the divergence (bits, median) that they leave."""
    at = {"25%": 0.25, "50%": 0.5, "75%": 0.75}
    return {
        "tau_norm_per_layer": [row["tau"] for row in source.listed("temperature", "layers")],
        **{
            f"kl_to_final_bits_norm_temp@{name}": {
                "layer": round(source.n * share),
                "value": source.figure("temperature", f"kl_bits_at_tau_{name}"),
            }
            for name, share in at.items()
        },
    }


def skipping(source: Source) -> dict[str, Any]:
    """What skipping the last blocks through the tuned lens costs, in relative perplexity; m blocks are m blocks."""
    found = {f"m={m}": source.figure("skip_layers", f"skip_{m}", lens="tuned") for m in (2, 4, 8)}
    two = found["m=2"]
    return {
        "skip_layers_sanity": found,
        "tuned_lens_skip_warning": two if two is not None and two > REGRESSION else None,
        "tuned_lens_regression": None if two is None else two > REGRESSION,
    }


def gates(source: Source, one: Pass) -> dict[str, Any]:
    """At which share of small rescalings of the logits each onset's gates hold."""
    return {
        "scales": list(source.thresholds.gate_scales),
        "per_target": {
            f"L_semantic_{target}": {
                f"{gate}_pass_frac": source.milestone(one, f"gate_{ours}_{name}") for gate, ours in GATES
            }
            for target, name in TARGETS
        },
        "min_both_gates_pass_frac": source.milestone(one, "gate_both_least"),
    }


def health(source: Source) -> dict[str, Any]:
    """Whether rows are finite, over the whole run."""
    share = source.figure("numeric_health", "share_not_finite")
    return {
        "any_nan_or_inf": None if share is None else share > 0,
        "layers_flagged": [dict(row) for row in source.listed("numeric_health", "not_finite")],
        "max_abs_logit_p99": source.figure("numeric_health", "max_abs_logit_p99"),
        "min_prob_p01": source.figure("numeric_health", "min_answer_probability_p01"),
    }


def trajectory(source: Source) -> dict[str, Any]:
    """How the stream's length grows."""
    return {name: source.figure("norm_trajectory", name) for name in ("shape", "slope", "r2", "n_spikes")}


def window(source: Source, one: Pass) -> dict[str, Any]:
    """The layers around the milestones at which raw and normalised lens are compared."""
    found = next((row for row in source.listed("raw_vs_norm", "windows") if row["prompt"] == one.entry["id"]), {})
    return {
        "radius": found.get("radius"),
        "center_layers": found.get("centre_layers", []),
        "layers_checked": found.get("layers", []),
        "norm_only_semantics_layers": found.get("norm_only_layers", []),
        "max_kl_norm_vs_raw_bits_window": found.get("max_kl_bits"),
        "mode": "window",
    }


def raw_full(source: Source, one: Pass) -> dict[str, Any]:
    """The comparison at every layer, with the artefact score over all layers, as published, and over those not flat."""

    def figure(name: str) -> Any:
        return source.figure("raw_vs_norm", name, one)

    return {
        "pct_layers_kl_ge_1.0": figure("share_kl_ge_1.0"),
        "pct_layers_kl_ge_0.5": figure("share_kl_ge_0.5"),
        "n_norm_only_semantics_layers": figure("n_norm_only"),
        "earliest_norm_only_semantic": figure("earliest_norm_only"),
        "max_kl_norm_vs_raw_bits": figure("max_kl_bits"),
        "mode": "full",
        "js_divergence_percentiles": {f"p{p}": figure(f"js_p{p}") for p in (25, 50, 75)},
        "l1_prob_diff_percentiles": {f"p{p}": figure(f"l1_p{p}") for p in (25, 50, 75)},
        "first_js_le_0.1": figure("first_js_below"),
        "first_l1_le_0.5": figure("first_l1_below"),
        "teacher_entropy_bits": source.own(one.index, 1)["entropy"],
        "topk_overlap": {
            "K": 50,
            "jaccard_raw_norm_p50": figure("jaccard50_p50"),
            "first_jaccard_raw_norm_ge_0.5": figure("first_jaccard50_above"),
        },
        "score": {
            "lens_artifact_score": figure("score_all_layers"),
            "lens_artifact_score_v2": figure("score_v2_all_layers"),
            "lens_artifact_score_not_flat": figure("score"),
            "flat_share": figure("flat_share"),
            "tier": figure("tier"),
        },
    }


def provenance(source: Source, one: Pass) -> dict[str, Any]:
    """Which norm each layer was read through, and what it does to the stream."""
    rows = next_token(source.table, one.index, raw.NORM)
    ratio = values(rows["state_norm"] / rows["resid_norm"])
    cosines = {row["layer"]: row for row in source.listed("norm_provenance", "layer_map") if row["lens"] == raw.NORM}
    per_layer = []
    for at, layer in enumerate(rows["layer"].tolist()):
        found = cosines.get(layer, {})
        per_layer.append(
            {
                "layer": layer,
                "ln_source": found.get("modules"),
                "norm": found.get("norm"),
                "eps": found.get("eps"),
                "resid_norm_ratio": ratio[at],
                "delta_resid_cos": found.get("cosine"),
                "raw_resid_norm": values(rows["resid_norm"])[at],
            }
        )
    return {
        "arch": source.fact("model", "architecture"),
        "strategy": {"primary": "final_norm", "ablation": "onset spread over norm views"},
        "per_layer": per_layer,
    }


def layer_map(source: Source) -> list[dict[str, Any]]:
    """What each row of the CSV files decodes, as published but for the norm: every layer goes through the final one.

    `ln_source` names the modules. Row 0 is the input of block 0, row n the output of the last block.
    """
    found = {row["layer"]: row for row in source.listed("norm_provenance", "layer_map") if row["lens"] == raw.NORM}
    out = []
    for layer in range(source.n + 1):
        block, stream = f"blocks[{layer - 1}]", "post_block"
        if layer == 0:
            block, stream = "blocks[0]", "pre_block"
        elif layer == source.n:
            block, stream = "final", "unembed_head"
        at = {"layer": layer, "block": block, "stream": stream, "norm": "final_norm"}
        out.append({**at, "ln_source": found.get(layer, {}).get("modules")})
    return out


def agreement(source: Source, one: Pass) -> dict[str, Any]:
    """Overlap of the best tokens at the baseline's onset, lens against lens."""
    return {
        f"norm_vs_{lens}": {legacy: source.figure("lens_agreement", f"{lens}_{ours}", one) for legacy, ours in OVERLAPS}
        for lens in source.table.lenses
        if lens != raw.NORM
    }
