"""The evaluation pack: a run's milestones on one page, with the rows of the CSV files that they can be looked up in.

The rule of the file: row numbers count from 0 in the baseline's own rows of the pure file, as published.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ftw.sweep.legacy import raw
from ftw.sweep.legacy.audited import raw_full, trajectory
from ftw.sweep.legacy.diagnostics import alignment_rate, confirming
from ftw.sweep.legacy.names import file_name
from ftw.sweep.legacy.passes import Pass
from ftw.sweep.legacy.raw import rawlens
from ftw.sweep.legacy.rows import chances, next_token, ranks, values
from ftw.sweep.legacy.seed import gold
from ftw.sweep.legacy.source import Source


def evaluation_pack(source: Source, suite: Mapping[str, Any]) -> dict[str, Any]:
    """The block of the JSON document. `suite` is its micro-suite."""
    one = source.suite.baseline
    full = raw_full(source, one)
    rows = list(milestones(source))
    return {
        "model": source.table.model,
        "n_layers": source.n,
        "preferred_lens_for_reporting": preferred(source),
        "use_confirmed_semantics": source.fact("guidance", "use_confirmed_semantics"),
        "milestones": {
            "L_copy_strict": source.milestone(one, "copy"),
            "L_copy_soft": _soft(source, one),
            "L_semantic_norm": source.milestone(one, "semantic"),
            "L_semantic_confirmed": {"layer": source.milestone(one, "confirmed"), "source": confirming(source, one)},
            "depth_fractions": {
                "copy_strict_frac": _rounded(source.milestone(one, "copy_frac")),
                "semantic_frac": _rounded(source.milestone(one, "semantic_frac")),
                "delta_hat": _rounded(source.milestone(one, "delta_hat")),
            },
        },
        "artifact": {
            "lens_artifact_score": full["score"]["lens_artifact_score"],
            "lens_artifact_score_v2": full["score"]["lens_artifact_score_v2"],
            "js_divergence_p50": full["js_divergence_percentiles"]["p50"],
            "l1_prob_diff_p50": full["l1_prob_diff_percentiles"]["p50"],
            "first_js_le_0.1": full["first_js_le_0.1"],
            "first_l1_le_0.5": full["first_l1_le_0.5"],
            "jaccard_raw_norm_p50": full["topk_overlap"]["jaccard_raw_norm_p50"],
            "first_jaccard_raw_norm_ge_0.5": full["topk_overlap"]["first_jaccard_raw_norm_ge_0.5"],
            "pct_layers_kl_ge_1.0": full["pct_layers_kl_ge_1.0"],
            "n_norm_only_semantics_layers": full["n_norm_only_semantics_layers"],
            "earliest_norm_only_semantic": full["earliest_norm_only_semantic"],
            "risk_tier": full["score"]["tier"],
        },
        "repeatability": _repeatability(source),
        "alignment": {"gold_alignment_rate": alignment_rate(source), "variant": gold(one)["variant"]},
        "norm_trajectory": trajectory(source),
        "entropy": {f"entropy_gap_bits_p{p}": source.milestone(one, f"entropy_gap_p{p}") for p in (25, 50, 75)},
        "citations": {
            "layers": {f"{row['name']}_row": row["csv_row_index"] for row in rows},
            "files": {
                "pure_csv": file_name(source.table.model, "pure-next-token"),
                **{key: name if source.has(lens) else None for key, (lens, name) in _sidecars(source).items()},
            },
        },
        "micro_suite": dict(suite),
    }


def preferred(source: Source) -> str | None:
    """The lens to report, in the legacy's words: `norm` is the logit lens."""
    lens = source.fact("guidance", "preferred_lens")
    return "norm" if lens == raw.NORM else lens


def milestones(source: Source) -> Iterator[dict[str, Any]]:
    """Four rows: strict copy, the earliest soft copy, the semantic onset, and the confirmed one.

    A milestone that there is not keeps its row, with the layer and the numbers empty.
    """
    one = source.suite.baseline
    soft = _soft(source, one)
    found = {
        "L_copy_strict": source.milestone(one, "copy"),
        "L_copy_soft": soft["layer"],
        "L_semantic_norm": source.milestone(one, "semantic"),
        "L_semantic_confirmed": source.milestone(one, "confirmed"),
    }
    rows = next_token(source.table, one.index, raw.NORM)
    layers = rows["layer"].tolist()
    columns = {
        "answer_rank": ranks(rows["answer_rank"]),
        "p_answer": values(chances(rows["answer_logprob"])),
        "kl_to_final_bits": values(rows["kl_bits"]),
        "entropy_bits": values(rows["entropy_bits"]),
    }
    for name, layer in found.items():
        at = layers.index(layer) if layer is not None else None
        yield {
            "name": name,
            "layer": layer,
            "csv_row_index": at,
            "is_copy_strict": name == "L_copy_strict",
            "is_copy_soft_k": soft["k"] if name == "L_copy_soft" else None,
            "is_semantic_norm": name == "L_semantic_norm",
            "is_semantic_confirmed": name == "L_semantic_confirmed",
            "lens": "norm",
            **{key: None if at is None else column[at] for key, column in columns.items()},
        }


def artifact(source: Source) -> Iterator[dict[str, Any]]:
    """A summary with medians and the score, then each layer of the baseline, raw beside normalised."""
    one = source.suite.baseline
    full = raw_full(source, one)
    rows = list(rawlens(source.table, one))
    reverse = [row["kl_raw_to_norm_bits"] for row in rows if row["kl_raw_to_norm_bits"] is not None]
    yield {
        "layer": "_summary",
        "kl_raw_to_norm_bits": float(np.median(reverse)) if reverse else None,
        "js_divergence": full["js_divergence_percentiles"]["p50"],
        "l1_prob_diff": full["l1_prob_diff_percentiles"]["p50"],
        "topk_jaccard_raw_norm@50": full["topk_overlap"]["jaccard_raw_norm_p50"],
        "lens_artifact_score_v2": full["score"]["lens_artifact_score_v2"],
        "risk_tier": full["score"]["tier"],
    }
    yield from rows


def _soft(source: Source, one: Pass) -> dict[str, Any]:
    """The earliest soft copy over all windows; of several at one layer the shortest window."""
    t = source.thresholds
    found = [(source.milestone(one, f"soft_copy_k{k}_at_{t.soft_p:g}"), k) for k in sorted(t.soft_windows)]
    layer, k = min(((layer, k) for layer, k in found if layer is not None), default=(None, None))
    return {"k": k, "layer": layer}


def _repeatability(source: Source) -> dict[str, Any]:
    flips = source.figure("repeatability", "flip_share")
    far = source.figure("repeatability", "max_rank_deviation")
    t = source.thresholds
    flag = "unavailable"
    if flips is not None and far is not None:
        flag = "high_variance" if far > t.rank_deviation or flips > t.flip_share else "ok"
    return {
        "max_rank_dev": far,
        "p95_rank_dev": source.figure("repeatability", "p95_rank_deviation"),
        "top1_flip_rate": flips,
        "flag": flag,
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def _sidecars(source: Source) -> dict[str, tuple[str, str]]:
    """Files that are there with a lens: the lens and the file's name."""
    kinds = {
        "tuned_pure_csv": ("tuned", "pure-next-token-tuned"),
        "rawlens_full_csv": (raw.RAW, "pure-next-token-rawlens"),
        "tuned_variants_csv": ("tuned", "pure-next-token-tuned-variants"),
        "positions_audit_csv": ("tuned", "positions-tuned-audit"),
    }
    return {key: (lens, file_name(source.table.model, kind)) for key, (lens, kind) in kinds.items()}
