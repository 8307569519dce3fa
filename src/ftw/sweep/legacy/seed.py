"""The legacy JSON document as the seed contract has it: its blocks, and the keys of `diagnostics`.

The rule of the file: each key is one look-up. Where ours differs from what a key meant (the final norm at every layer,
the head in fp32, cosines without their mean) the value says so.
"""

from collections.abc import Mapping
from typing import Any

from ftw.sweep.legacy import raw
from ftw.sweep.legacy.passes import Pass
from ftw.sweep.legacy.records import pack_topk
from ftw.sweep.legacy.rows import chances, next_token, ranks, values
from ftw.sweep.legacy.source import Source

VARIANTS: Mapping[str, str] = {"space": "with_space", "joined": "no_space", "split": "split"}
"""How an answer follows its prompt, in the legacy's words. `split` is new: a token reached across the prompt's end."""
WARN_BITS = 0.5
"""A last row further than this from the model's own is a warning."""
NORM_SOURCE = "the model's own final norm at every layer"


def document(source: Source) -> dict[str, Any]:
    """The whole document."""
    suite = source.suite
    return {
        "status": "ok",
        "prompt": prompt(source),
        "test_prompts": [
            {"type": "test_prompt", "prompt": source.text(at), **source.own(at, 10)} for at, _ in suite.probes
        ],
        "temperature_exploration": explored(source),
        "diagnostics": diagnostics(source),
        "final_prediction": {"type": "final_prediction", **source.own(suite.baseline.index, 20)},
        "model_stats": model_stats(source),
        "raw_lens_check": raw.check(source.table, suite.baseline, source.thresholds),
        "ablation_summary": ablation(source),
        "control_prompt": control_prompt(source),
        "control_summary": control(source),
        "gold_answer": gold(suite.baseline),
    }


def prompt(source: Source) -> dict[str, Any]:
    """What the document is about: the first fact in its own wording."""
    one = source.suite.baseline
    return {"type": "prompt", "context_prompt": source.text(one.index), "ground_truth": gold(one)["string"]}


def explored(source: Source) -> list[dict[str, Any]]:
    """The model's own distribution after the run's first prompt at the battery's temperatures."""
    return [
        {
            "type": "temperature_exploration",
            "temperature": each["temperature"],
            "entropy": each["entropy_bits"],
            "topk": pack_topk([one["token"] for one in each["top"]], [one["p"] for one in each["top"]]),
        }
        for each in source.fact("temperatures") or ()
    ]


def model_stats(source: Source) -> dict[str, Any]:
    """The model's sizes."""
    names = {
        "num_layers": "n_layers",
        "d_model": "d_model",
        "n_heads": "n_heads",
        "d_vocab": "vocab_size",
        "n_ctx": "context",
        "architecture": "architecture",
    }
    return {"type": "model_stats", **{ours: source.fact("model", theirs) for ours, theirs in names.items()}}


def diagnostics(source: Source) -> dict[str, Any]:
    """How the numbers were made, and the baseline's milestones."""
    one, t = source.suite.baseline, source.thresholds
    return {
        "type": "analysis_diagnostics",
        **_made(source),
        "context_prompt": source.text(one.index),
        "target_prediction": "the token after the prompt",
        "prism_summary": prism_summary(source),
        "L_copy": source.milestone(one, "copy"),
        "L_copy_H": source.milestone(one, "low_entropy"),
        "L_semantic": source.milestone(one, "semantic"),
        "delta_layers": source.milestone(one, "delta"),
        "copy_thresh": t.copy_p,
        "copy_window_k": t.copy_window,
        "copy_match_level": "id_subsequence",
        **{f"first_kl_below_{bits:.1f}": source.milestone(one, f"kl_le_{bits:g}") for bits in sorted(t.kl_bits)},
        **{f"first_rank_le_{rank}": source.milestone(one, f"rank_le_{rank}") for rank in sorted(t.ranks)},
        "gold_alignment": alignment(one)["status"],
        "last_layer_consistency": last_layer(source, WARN_BITS),
    }


def _made(source: Source) -> dict[str, Any]:
    """How layers become logits."""
    dtype, exact = source.fact("provenance", "dtype"), source.table.precision == "exact"
    return {
        "model": source.table.model,
        "device": source.fact("provenance", "device", "type"),
        "use_norm_lens": True,
        "use_fp32_unembed": dtype != "float32",
        "unembed_dtype": "float32" if exact else "bfloat16; reported tokens again in float32",
        "first_block_ln1_type": norm_type(source, "next", 0),
        "final_ln_type": norm_type(source, raw.NORM, source.n),
        "layernorm_bias_fix": "not needed: the model's own norm is called",
        "norm_alignment_fix": NORM_SOURCE,
        "layer0_norm_fix": NORM_SOURCE,
        "mixed_precision_fix": "norm and head in float32",
        "layer0_position_info": "the input of the first block, with positions where the model adds them",
    }


def norm_type(source: Source, lens: str, layer: int) -> str | None:
    """The class of the norm that a lens reads a layer through; None where no audit looked."""
    rows = source.listed("norm_provenance", "layer_map")
    found = next((row for row in rows if (row.get("lens"), row.get("layer")) == (lens, layer)), {})
    norm = found.get("norm")
    return str(norm) if norm else None


def prism_summary(source: Source) -> dict[str, Any]:
    """Whether the run had a Prism lens, and at which layers."""
    there = source.has("prism")
    return {
        "mode": "auto",
        "artifact_sha256": source.lens_digest("prism"),
        "present": there,
        "compatible": there,
        "layers": list(source.table.layers_of("prism")) if there else None,
        "error": None,
    }


def last_layer(source: Source, warn_bits: float) -> dict[str, Any]:
    """The last row of the lens beside the model's own output: the same, which the identity gate has proved."""
    one = source.suite.baseline
    row = next_token(source.table, one.index, raw.NORM).where(layer=source.n)
    p_top1, kl = values(chances(row["top_logprobs"])[:, 0])[0], values(row["kl_bits"])[0]
    measured = source.figure("last_layer", "kl_bits", one)
    kl = kl if measured is None else measured
    return {
        "kl_to_final_bits": kl,
        "top1_agree": True,
        "p_top1_lens": p_top1,
        "p_top1_model": p_top1,
        "p_answer_lens": values(chances(row["answer_logprob"]))[0],
        "answer_rank_lens": ranks(row["answer_rank"])[0],
        "temp_est": source.figure("last_layer", "temperature"),
        "kl_after_temp_bits": source.figure("last_layer", "kl_bits_after_temperature"),
        "cfg_transform": transform(source),
        "kl_before_transform_bits": source.figure("last_layer", "kl_bits_untransformed"),
        "warn_high_last_layer_kl": kl is not None and kl > warn_bits,
    }


def transform(source: Source) -> dict[str, float | None]:
    """The scale (logits are multiplied by it) and the softcap of the model's logits, which every layer went through."""
    told = source.figure("last_layer", "transform") or ""
    parts = dict(part.split() for part in told.split(", ") if " " in part)
    return {name: float(parts[name]) if name in parts else None for name in ("scale", "softcap")}


def gold(one: Pass) -> dict[str, Any]:
    """An answer in the model's tokens; None in every field of a prompt without one."""
    answer = one.entry.get("answer") or {}
    ids = answer.get("ids") or []
    return {
        "string": answer.get("text"),
        "pieces": (answer.get("pieces") or [])[:4],
        "first_id": ids[0] if ids else None,
        "answer_ids": list(ids),
        "variant": VARIANTS.get(answer.get("how", "")),
    }


def alignment(one: Pass) -> dict[str, Any]:
    """How an answer was found in the model's tokens. `unresolved` is only a prompt without an answer."""
    found = gold(one)
    ok = found["first_id"] is not None
    kept = {name: found[name] for name in ("variant", "first_id", "answer_ids", "pieces")}
    return {"ok": ok, "status": "ok" if ok else "unresolved", **kept}


def control_prompt(source: Source) -> dict[str, Any] | None:
    """The baseline's control; None where it has none."""
    one = source.suite.control
    if one is None:
        return None
    return {"context_prompt": source.text(one.index), "gold_answer": gold(one), "gold_alignment": alignment(one)}


def control(source: Source) -> dict[str, Any]:
    """Where the control's own answer leads the fact's."""
    one = source.suite.control
    return {
        "first_control_margin_pos": source.milestone(one, "control_margin_first"),
        "max_control_margin": source.milestone(one, "control_margin_max"),
    }


def ablation(source: Source) -> dict[str, Any]:
    """Milestones of the baseline and of its ablated wording; deltas are the ablated one's minus the baseline's."""
    orig, other = source.suite.baseline, source.suite.ablated
    found = {
        "L_copy_orig": source.milestone(orig, "copy"),
        "L_sem_orig": source.milestone(orig, "semantic"),
        "L_copy_nf": source.milestone(other, "copy"),
        "L_sem_nf": source.milestone(other, "semantic"),
    }
    for name in ("copy", "sem"):
        found[f"delta_L_{name}"] = minus(found[f"L_{name}_nf"], found[f"L_{name}_orig"])
    return found


def minus(one: int | float | None, other: int | float | None) -> int | float | None:
    """The difference; None where a side is missing."""
    return None if one is None or other is None else one - other
