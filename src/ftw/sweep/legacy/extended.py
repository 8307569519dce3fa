"""The legacy JSON document in its extended form: the seed contract's blocks, and those that came after it.

The rule of the file: the seed's blocks keep their keys. What is added is added beside them.
"""

from typing import Any

import numpy as np

from ftw.sweep.legacy import seed
from ftw.sweep.legacy.columns import copy_flags
from ftw.sweep.legacy.diagnostics import confirming, diagnostics
from ftw.sweep.legacy.pack import evaluation_pack, preferred
from ftw.sweep.legacy.passes import Pass
from ftw.sweep.legacy.sidecar import unified
from ftw.sweep.legacy.source import Source

SERIOUS = ("caution", "serious")
"""Findings that a reader has to keep in mind."""


def document(source: Source) -> dict[str, Any]:
    """The whole document."""
    one = source.suite.baseline
    base = seed.document(source)
    facts = micro_suite(source)
    found = diagnostics(source)
    base["diagnostics"] = found | {"micro_suite": facts}
    base["prompt"] |= {"fact_key": one.fact_key, "fact_index": one.fact_index}
    base["control_summary"] |= {
        "first_control_strong_pos": source.milestone(source.suite.control, "control_strong"),
        "max_control_top2_logit_gap": source.milestone(source.suite.control, "control_gap_max"),
        "delta_top2_logit_ctl": source.thresholds.top2_gap,
    }
    return {
        **base,
        "prompts": {"facts_micro_suite": [_asked(source, each) for each in source.suite.facts]},
        "provenance": {"env": environment(source)},
        "copy_flag_columns": list(copy_flags(source.thresholds)),
        "tuned_lens": tuned_lens(source),
        "summary": {
            "semantic_margin": found["semantic_margin"],
            "semantic_gate": found["semantic_gate"],
            "micro_suite": facts["aggregates"],
            "position_window": {
                "share_stable": source.figure("position_stability", "share_stable"),
                "at_baseline": source.figure("position_stability", "share_stable", one),
            },
        },
        "micro_suite": facts,
        "measurement_guidance": guidance(source),
        "evaluation_pack": evaluation_pack(source, facts),
    }


def _asked(source: Source, one: Pass) -> dict[str, Any]:
    return {**one.tags, "context_prompt": source.text(one.index), "gold_answer": seed.gold(one)}


def environment(source: Source) -> dict[str, Any]:
    """What the run ran on; the whole of it stands in the run's own document."""
    made = source.fact("provenance") or {}
    return {
        "torch_version": source.fact("provenance", "versions", "torch"),
        "transformers_version": source.fact("provenance", "versions", "transformers"),
        "cuda_version": source.fact("provenance", "device", "cuda"),
        "cudnn": source.fact("provenance", "device", "cudnn"),
        "device": source.fact("provenance", "device", "type"),
        "dtype_compute": made.get("dtype"),
        "deterministic_algorithms": source.fact("provenance", "determinism", "deterministic_algorithms"),
        "cudnn_benchmark": source.fact("provenance", "determinism", "cudnn_benchmark"),
        "seed": made.get("seed"),
        "threads": made.get("threads"),
        "python": made.get("python"),
        "platform": made.get("platform"),
        "code_version": source.fact("provenance", "code", "version"),
        "code_commit": source.fact("provenance", "code", "commit"),
        "model_revision": source.fact("provenance", "model", "revision"),
        "model_fingerprint": source.fact("provenance", "model", "fingerprint"),
        "tokenizer_sha256": source.fact("provenance", "tokenizer", "sha256"),
    }


def tuned_lens(source: Source) -> dict[str, Any]:
    """The tuned lens of the run, or that there was none."""
    if not source.has("tuned"):
        return {"status": "missing", "mode": "auto", "path": None, "error": None}
    return {
        "status": "ok",
        "sha256": source.lens_digest("tuned"),
        "summaries": [
            {
                **one.tags,
                "L_copy": source.milestone(one, "copy", "tuned"),
                "L_semantic": source.milestone(one, "semantic", "tuned"),
                "first_kl_below_1.0": source.milestone(one, "kl_le_1", "tuned"),
            }
            for one in source.suite.passes
        ],
        "summary": {"metrics": unified(source, "tuned")},
        "audit_summary": _figures(source, "learned_lens", "tuned"),
        "positions": _figures(source, "learned_positions", "tuned"),
        "skip_layers_sanity": _figures(source, "skip_layers", "tuned"),
    }


def micro_suite(source: Source) -> dict[str, Any]:
    """Every fact's milestones in its own wording, and their medians over facts. Missing ones do not count."""
    facts = [_fact(source, one) for one in source.suite.facts]

    def known(name: str) -> list[int | float]:
        return [fact[name] for fact in facts if fact[name] is not None]

    def median(name: str) -> int | None:
        return round(float(np.median(known(name)))) if known(name) else None

    onsets, apart = known("L_semantic_norm"), known("delta_hat")
    return {
        "facts": facts,
        "aggregates": {
            "n": len(facts),
            "L_copy_strict_median": median("L_copy_strict"),
            "L_copy_soft_k1_median": median("L_copy_soft_k1"),
            "L_semantic_norm_median": median("L_semantic_norm"),
            "L_semantic_confirmed_median": median("L_semantic_confirmed"),
            "L_semantic_margin_ok_norm_median": median("L_semantic_margin_ok_norm"),
            "delta_hat_median": round(float(np.median(apart)), 4) if apart else None,
            "L_semantic_norm_iqr": [float(np.quantile(onsets, share)) for share in (0.25, 0.75)] if onsets else None,
            "n_missing": len(facts) - len(onsets),
        },
    }


def _fact(source: Source, one: Pass) -> dict[str, Any]:
    t = source.thresholds
    return {
        "fact_key": one.fact_key,
        "fact_index": one.fact_index,
        "L_copy_strict": source.milestone(one, "copy"),
        "L_copy_soft_k1": source.milestone(one, f"soft_copy_k1_at_{t.soft_p:g}"),
        "L_semantic_norm": source.milestone(one, "semantic"),
        "L_semantic_confirmed": source.milestone(one, "confirmed"),
        "confirmed_source": confirming(source, one),
        "L_semantic_margin_ok_norm": source.milestone(one, "semantic_margin_ok"),
        "delta_hat": source.milestone(one, "delta_hat"),
    }


def guidance(source: Source) -> dict[str, Any]:
    """What to keep in mind, from the run's graded guidance: only what asks for care is a reason here."""
    told = source.fact("guidance", "reasons") or ()
    asking = [one for one in told if one["severity"] in SERIOUS]
    return {
        "reasons": [one["code"] for one in asking],
        "severities": {one["code"]: one["severity"] for one in told},
        "prefer_ranks": source.fact("guidance", "prefer_ranks"),
        "suppress_abs_probs": source.fact("guidance", "suppress_abs_probs"),
        "preferred_lens_for_reporting": preferred(source),
        "use_confirmed_semantics": source.fact("guidance", "use_confirmed_semantics"),
        "notes": [one["reading"] for one in asking],
        "notes_append": [one["advice"] for one in asking],
    }


def _figures(source: Source, name: str, lens: str) -> dict[str, Any] | None:
    found = source.finding(name, lens)
    return {key: each.get("value") for key, each in found.get("figures", {}).items()} if found else None
