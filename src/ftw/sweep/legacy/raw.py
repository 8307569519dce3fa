"""The raw lens beside the normalised one, layer by layer: rows of the two raw-lens files, and the check in the JSON.

`norm` is the logit lens (the model's own final norm), `raw` the lens without a norm; N and R are their distributions.

The rule of the file: both sides of a row are of one prompt and one layer. A layer that either lens lacks has no row.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from ftw.sweep.legacy.passes import Pass
from ftw.sweep.legacy.rows import at_layers, chances, next_token, ranks, values
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.table import SweepTable

NORM, RAW = "logit", "raw"


def rawlens(table: SweepTable, one: Pass) -> Iterator[dict[str, Any]]:
    """Every layer of a pass through both lenses; nothing where the run had no raw lens."""
    norm, raw = _sides(table, one)
    teacher = norm["entropy_bits"][-1:].tolist()
    columns: dict[str, list[Any]] = {
        **_side(table, raw, "_raw"),
        **_side(table, norm, "_norm"),
        "kl_norm_vs_raw_bits": values(raw["vs_logit_kl_bits"]),
        "kl_raw_to_norm_bits": values(raw["vs_logit_rev_kl_bits"]),
        "js_divergence": values(raw["vs_logit_js_bits"]),
        "entropy_bits_norm": values(norm["entropy_bits"]),
        "entropy_bits_raw": values(raw["entropy_bits"]),
        "entropy_gap_bits": values(norm["entropy_bits"] - np.array(teacher or [np.nan], dtype=np.float64)),
        "l1_prob_diff": values(raw["vs_logit_l1"]),
        "topk_jaccard_raw_norm@50": values(raw["vs_logit_jaccard50"]),
        "topk_jaccard_consecutive@50": values(norm["jaccard50_prev"]),
    }
    firsts = zip(columns["answer_rank_norm"], columns["answer_rank_raw"], strict=True)
    columns["norm_only_semantics"] = [None if None in pair else pair[0] == 1 and pair[1] != 1 for pair in firsts]
    for at, layer in enumerate(norm["layer"].tolist()):
        yield {**one.tags, "layer": layer, **{name: column[at] for name, column in columns.items()}}


def window(table: SweepTable, one: Pass, layers: Collection[int]) -> Iterator[dict[str, Any]]:
    """Two rows, `norm` and `raw`, for each of these layers."""
    norm, raw = _sides(table, one)
    kl = values(raw["vs_logit_kl_bits"])
    sides = {name: _side(table, rows, "") for name, rows in (("norm", norm), ("raw", raw))}
    for at, layer in enumerate(norm["layer"].tolist()):
        if layer in layers:
            for name, columns in sides.items():
                row = {key: column[at] for key, column in columns.items()}
                yield {**one.tags, "layer": layer, "lens": name, **row, "kl_norm_vs_raw_bits": kl[at]}


def check(table: SweepTable, one: Pass, thresholds: Thresholds) -> dict[str, Any]:
    """The block `raw_lens_check`: a sample per layer, and whether anything is said only because of the norm.

    The risk is `high` where a layer is right only with the norm, or KL(norm || raw) reaches the first threshold;
    `medium` from the second on; else `low`. None without samples: then the mode is `off`.
    """
    rows = list(rawlens(table, one))
    samples = [{"layer": row["layer"], **_sample(row)} for row in rows]
    only = [row["layer"] for row in rows if row["norm_only_semantics"]]
    gaps = [row["kl_norm_vs_raw_bits"] for row in rows if row["kl_norm_vs_raw_bits"] is not None]
    most, (high, medium) = max(gaps, default=None), thresholds.raw_kl_bits
    risk = None
    if rows:
        far = most or 0.0
        risk = "high" if only or far >= high else "medium" if far >= medium else "low"
    return {
        "mode": "full" if rows else "off",
        "samples": samples,
        "summary": {
            "first_norm_only_semantic_layer": only[0] if only else None,
            "max_kl_norm_vs_raw_bits": most,
            "lens_artifact_risk": risk,
        },
    }


def _sample(row: dict[str, Any]) -> dict[str, Any]:
    out = {"kl_norm_vs_raw_bits": row["kl_norm_vs_raw_bits"]}
    out["top1_agree"] = row["top1_token_id_norm"] == row["top1_token_id_raw"]
    for name in ("p_top1", "p_answer", "answer_rank"):
        out |= {f"{name}_{side}": row[f"{name}_{side}"] for side in ("norm", "raw")}
    for side in ("norm", "raw"):
        rank = row[f"answer_rank_{side}"]
        out[f"is_answer_{side}"] = None if rank is None else rank == 1
    return out


def _sides(table: SweepTable, one: Pass) -> tuple[SweepTable, SweepTable]:
    """The rows of both lenses at the layers that both have."""
    norm, raw = (next_token(table, one.index, lens) for lens in (NORM, RAW))
    return at_layers(norm, raw["layer"]), at_layers(raw, norm["layer"])


def _side(table: SweepTable, rows: SweepTable, end: str) -> dict[str, list[Any]]:
    ids = rows["top_ids"][:, 0].tolist() if len(rows) else []
    return {
        f"p_top1{end}": values(chances(rows["top_logprobs"][:, 0])) if len(rows) else [],
        f"top1_token_id{end}": ids,
        f"top1_token_str{end}": [table.pieces[token] for token in ids],
        f"p_answer{end}": values(chances(rows["answer_logprob"])),
        f"answer_rank{end}": ranks(rows["answer_rank"]),
    }
