"""What the extended legacy document adds to `diagnostics`: every milestone and every audit of the baseline fact.

The rule of the file: each key is one look-up of a milestone or a figure. What the run did not measure is None.
"""

from typing import Any

from ftw.sweep.legacy import raw, seed
from ftw.sweep.legacy.audited import audits
from ftw.sweep.legacy.columns import copy_flags, label
from ftw.sweep.legacy.passes import Pass
from ftw.sweep.legacy.sidecar import unified
from ftw.sweep.legacy.source import Source

WARN_BITS = 0.25
SIDES = {"norm": raw.NORM, "tuned": "tuned"}
"""Lenses by the ending that the legacy's keys have."""


def diagnostics(source: Source) -> dict[str, Any]:
    """All keys, those of the seed contract first."""
    one, t = source.suite.baseline, source.thresholds
    last = seed.last_layer(source, WARN_BITS)
    gates = {"warn_high_last_layer_kl": last["warn_high_last_layer_kl"], "threshold_bits": WARN_BITS}
    prism = unified(source, "prism") if source.has("prism") else None
    return {
        **seed.diagnostics(source),
        "surface_diagnostics_config": _config(source),
        "answer_margin_unit": "logit",
        "unembed_bias": {
            "present": source.figure("unembed_bias", "present"),
            "l2_norm": source.figure("unembed_bias", "length"),
            "max_abs": source.figure("unembed_bias", "max_abs"),
        },
        "flags": flags(source),
        "prism_summary": {**seed.prism_summary(source), "metrics": prism, "metrics_error": None},
        "copy_soft_config": {
            "threshold": t.soft_p,
            "window_ks": list(t.soft_windows),
            "extra_thresholds": list(t.soft_extra),
        },
        **copying(source, one),
        **meaning(source, one),
        **crossings(source, one),
        **audits(source, one),
        "last_layer_consistency": {**last, "gates": gates},
        **alignments(source),
        **confirmed(source, one),
    }


def _config(source: Source) -> dict[str, Any]:
    t = source.thresholds
    return {
        "delta": t.surface_margin,
        "gamma": t.geometry_margin,
        "K": t.coverage_k,
        "tau": t.coverage_p,
        "semantic_margin": {"delta_abs": t.uniform_margin},
        "semantic_gate": {"delta_top2_logit": t.top2_gap},
    }


def copying(source: Source, one: Pass) -> dict[str, Any]:
    """Soft copies, and strict ones over the sweep of thresholds."""
    t = source.thresholds
    soft = {str(k): source.milestone(one, f"soft_copy_k{k}_at_{t.soft_p:g}") for k in t.soft_windows}
    apart = {str(k): source.milestone(one, f"delta_soft_k{k}") for k in t.soft_windows}
    strict = {label(p): source.milestone(one, f"copy_at_{p:g}") for p in t.copy_sweep}
    return {
        "copy_soft_threshold": t.soft_p,
        "copy_soft_window_ks": list(t.soft_windows),
        "L_copy_soft": soft,
        "delta_layers_soft": apart,
        "copy_detector": {
            "strict": {"thresh": t.copy_p, "margin": t.copy_margin, "k": t.copy_window, "L_copy_strict": strict},
            "soft": {"thresh": t.soft_p, "window_ks": list(t.soft_windows), "L_copy_soft": soft},
            "deltas": {"delta_layers": source.milestone(one, "delta"), "delta_layers_soft": apart},
        },
        "copy_thresholds": {
            "tau_list": list(t.copy_sweep),
            "L_copy_strict": strict,
            "L_copy_strict_frac": {label(p): _frac(source, one, f"copy_at_{p:g}") for p in t.copy_sweep},
            "norm_only_flags": {label(p): source.milestone(one, f"copy_at_{p:g}_norm_only") for p in t.copy_sweep},
            "stability": source.milestone(one, "copy_stability"),
        },
        "copy_flag_columns": list(copy_flags(t)),
    }


def meaning(source: Source, one: Pass) -> dict[str, Any]:
    """Semantic onset, its gates and its margins."""
    t = source.thresholds
    strong = {
        f"L_semantic_{legacy}": source.milestone(one, f"semantic_{name}")
        for legacy, name in (("run2", "run2"), ("strong", "strong"), ("strong_run2", "strong_run2"))
    }
    fractions = {f"{name}_frac": _frac(source, one, name.replace("L_", "")) for name in ("L_semantic", *strong)}
    soft = {f"L_copy_soft_k{k}_frac": _frac(source, one, f"soft_copy_k{k}_at_{t.soft_p:g}") for k in t.soft_windows}
    margin_ok = source.milestone(one, "semantic_margin_ok")
    own = source.milestone(one, "confirmed_margin_ok")
    return {
        "answer_margin_thresholds": {
            f"gap_ge_{gap:.1f}": source.milestone(one, f"gap_ge_{gap:g}") for gap in t.answer_gaps
        },
        "L_semantic_margin_ok": margin_ok,
        "semantic_margin": {
            "delta_abs": t.uniform_margin,
            "p_uniform": 1 / source.table.vocab_size,
            "L_semantic_margin_ok_norm": margin_ok,
            "margin_ok_at_L_semantic_norm": source.milestone(one, "margin_ok_at_semantic"),
            "p_answer_at_L_semantic_norm": source.milestone(one, "p_at_semantic"),
            "L_semantic_confirmed_margin_ok_norm": margin_ok if own else None,
        },
        "semantic_gate": {
            "delta_abs": t.uniform_margin,
            "delta_top2_logit": t.top2_gap,
            "L_semantic_top2_ok_norm": source.milestone(one, "semantic_top2_ok"),
            "L_semantic_top2_ok_norm_frac": _frac(source, one, "semantic_top2_ok"),
            "gap_at_L_semantic_norm": source.milestone(one, "gap_at_semantic"),
            **strong,
            "run2_overlaps_confirmed_window": source.milestone(one, "run2_near_confirmed"),
        },
        "depth_fractions": {
            **fractions,
            "first_rank_le_5_frac": _frac(source, one, "rank_le_5"),
            "L_copy_strict_frac": _frac(source, one, "copy"),
            **soft,
        },
    }


def crossings(source: Source, one: Pass) -> dict[str, Any]:
    """Where curves cross, for the logit lens (`norm`) and the tuned one."""
    t = source.thresholds
    out: dict[str, Any] = {}
    for side, lens in SIDES.items():
        out |= {
            f"L_surface_to_meaning_{side}": source.milestone(one, "surface", lens),
            f"answer_mass_at_L_surface_{side}": source.milestone(one, "surface_answer_mass", lens),
            f"echo_mass_at_L_surface_{side}": source.milestone(one, "surface_echo_mass", lens),
            f"L_geom_{side}": source.milestone(one, "geometry", lens),
            f"cos_to_answer_at_L_geom_{side}": source.milestone(one, "geometry_cos_answer", lens),
            f"cos_to_prompt_max_at_L_geom_{side}": source.milestone(one, "geometry_cos_echo_max", lens),
            f"L_topk_decay_{side}": source.milestone(one, "coverage", lens),
            f"topk_prompt_mass_at_decay_{side}": source.milestone(one, "coverage_mass", lens),
        }
    out["cos_milestones"] = {
        side: {f"ge_{least:.1f}": source.milestone(one, f"cos_ge_{least:g}", lens) for least in t.cosines}
        for side, lens in SIDES.items()
        if source.has(lens)
    }
    shares = [round(100 * depth) for depth in t.depths]
    out["entropy_gap_bits_percentiles"] = {f"p{p}": source.milestone(one, f"entropy_gap_p{p}") for p in shares}
    out["entropy_gap_samples"] = source.milestone(one, "entropy_gap_samples")
    return out


def alignments(source: Source) -> dict[str, Any]:
    """How every prompt's answer was found in the model's tokens."""
    entries = [{**one.tags, **seed.alignment(one)} for one in source.suite.passes]
    return {
        "gold_alignment": seed.alignment(source.suite.baseline)["status"],
        "gold_alignment_rate": alignment_rate(source),
        "gold_alignment_prompts": entries,
    }


def alignment_rate(source: Source) -> float:
    """The share of passes with an answer in the model's tokens, 0 to 1."""
    passes = source.suite.passes
    aligned = sum(seed.gold(one)["first_id"] is not None for one in passes)
    return aligned / len(passes)


def confirmed(source: Source, one: Pass) -> dict[str, Any]:
    """The onset where another lens confirms it."""
    layer = source.milestone(one, "confirmed")
    return {
        "L_semantic_confirmed": layer,
        "confirmed_semantics": {
            "L_semantic_confirmed": layer,
            "source": confirming(source, one),
            "window": source.thresholds.confirm_window,
            "L_semantic_norm": source.milestone(one, "semantic"),
            "L_semantic_raw": source.milestone(one, "semantic", "raw"),
            "L_semantic_tuned": source.milestone(one, "semantic", "tuned"),
        },
    }


def confirming(source: Source, one: Pass) -> str:
    """`raw`, `tuned`, `both` of them, `none`; other lenses by name, joined by a plus."""
    by = source.milestone(one, "confirmed_by")
    names = set(str(by).split("+")) if by else set()
    return "both" if names == {"raw", "tuned"} else str(by) if by else "none"


def flags(source: Source) -> dict[str, Any]:
    """By audit how serious it is: `fine`, `note`, `caution`, `serious`, or None where it was not measured.

    An audit of one lens carries the lens's name.
    """
    return {
        "_".join(filter(None, (finding["name"], finding.get("subject")))): finding.get("severity")
        for finding in source.findings()
    }


def _frac(source: Source, one: Pass, name: str) -> float | None:
    share = source.milestone(one, f"{name}_frac")
    return None if share is None else round(share, 3)
