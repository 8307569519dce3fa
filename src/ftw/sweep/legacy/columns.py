"""The legacy files' columns, in order: 47 and 57 of the seed contract, 50 and 85 of the extended one, and of sidecars.

The rule of the file: a reader of the published suite finds the names and the order that it knows. Only the labels of
copy flags depend on a run, on its thresholds.
"""

from collections.abc import Sequence
from typing import Literal

from ftw.sweep.milestones.thresholds import Thresholds

Schema = Literal["seed", "extended"]
"""`seed`: the first fact with its variants and its control, 47 and 57 columns. `extended`: every fact, 50 and 85
columns, raw-lens, tuned-lens and milestone files."""

LISTED = 20
"""Best tokens that a row has cells for."""
TAGS = ("prompt_id", "prompt_variant", "layer", "pos", "token", "entropy")
FACT = ("fact_key", "fact_index")
TOPK = tuple(name for at in range(1, LISTED + 1) for name in (f"top{at}", f"prob{at}"))
SEED_RECORDS = (*TAGS, *TOPK, "rest_mass")
SEED_PURE = (
    *SEED_RECORDS,
    "copy_collapse",
    "entropy_collapse",
    "is_answer",
    "p_top1",
    "p_top5",
    "p_answer",
    "kl_to_final_bits",
    "answer_rank",
    "cos_to_final",
    "control_margin",
)
EXTENDED_RECORDS = (*FACT, *TAGS, "entropy_bits", *TOPK, "rest_mass")
MEASURED = (
    "entropy_collapse",
    "is_answer",
    "p_top1",
    "p_top5",
    "p_answer",
    "answer_minus_uniform",
    "semantic_margin_ok",
    "teacher_entropy_bits",
    "kl_to_final_bits",
    "kl_to_final_bits_norm_temp",
    "answer_rank",
    "topk_jaccard_raw_norm@50",
    "topk_jaccard_consecutive@50",
    "cos_to_final",
    "cos_to_answer",
    "cos_to_prompt_max",
    "geom_crossover",
    "echo_mass_prompt",
    "answer_mass",
    "answer_minus_echo_mass",
    "mass_ratio_ans_over_prompt",
    "topk_prompt_mass@50",
    "control_margin",
    "resid_norm_ratio",
    "delta_resid_cos",
    "answer_logit_gap",
    "answer_vs_top1_gap",
)
"""What an extended pure row has after its copy flags."""
PLACE = (*FACT, "prompt_id", "prompt_variant", "layer")
RAWLENS = (
    *PLACE,
    "p_top1_raw",
    "top1_token_id_raw",
    "top1_token_str_raw",
    "p_answer_raw",
    "answer_rank_raw",
    "p_top1_norm",
    "top1_token_id_norm",
    "top1_token_str_norm",
    "p_answer_norm",
    "answer_rank_norm",
    "kl_norm_vs_raw_bits",
    "kl_raw_to_norm_bits",
    "js_divergence",
    "entropy_bits_norm",
    "entropy_bits_raw",
    "entropy_gap_bits",
    "l1_prob_diff",
    "topk_jaccard_raw_norm@50",
    "topk_jaccard_consecutive@50",
    "norm_only_semantics",
)
RAWLENS_WINDOW = (
    *PLACE,
    "lens",
    "p_top1",
    "top1_token_id",
    "top1_token_str",
    "p_answer",
    "answer_rank",
    "kl_norm_vs_raw_bits",
)
TUNED_VARIANTS = (
    "layer",
    "kl_bits_baseline",
    "kl_bits_tuned",
    "kl_bits_rot_only",
    "kl_bits_temp_only",
    "delta_kl_bits_tuned",
    "delta_kl_bits_rot_only",
    "delta_kl_bits_temp_only",
    "delta_kl_bits_interaction",
    "answer_rank_baseline",
    "answer_rank_tuned",
    "answer_rank_rot_only",
    "answer_rank_temp_only",
    "rank_shift_tuned",
    "rank_shift_rot_only",
    "rank_shift_temp_only",
    "entropy_bits_baseline",
    "entropy_bits_tuned",
)
POSITIONS = (
    "pos_frac",
    "pos_index",
    "layer",
    "kl_bits_baseline",
    "kl_bits_tuned",
    "delta_kl_bits_tuned",
    "answer_rank_baseline",
    "answer_rank_tuned",
    "rank_shift_tuned",
    "entropy_bits_baseline",
    "entropy_bits_tuned",
)
MILESTONES = (
    "layer",
    "csv_row_index",
    "is_copy_strict",
    "is_copy_soft_k",
    "is_semantic_norm",
    "is_semantic_confirmed",
    "answer_rank",
    "p_answer",
    "kl_to_final_bits",
    "entropy_bits",
    "lens",
)
ARTIFACT = (
    "layer",
    "js_divergence",
    "kl_raw_to_norm_bits",
    "l1_prob_diff",
    "topk_jaccard_raw_norm@50",
    "lens_artifact_score_v2",
    "risk_tier",
)


def label(threshold: float) -> str:
    """A threshold as flags name it: at most six decimals, no zeros at the end. 0.70 is `0.7`, 1.0 is `1`."""
    return f"{threshold:.6f}".rstrip("0").rstrip(".")


def strict_flag(threshold: float) -> str:
    """The name of a strict copy flag, for example `copy_strict@0.95`."""
    return f"copy_strict@{label(threshold)}"


def soft_flag(window: int, threshold: float) -> str:
    """The name of a soft copy flag, for example `copy_soft_k2@0.33`."""
    return f"copy_soft_k{window}@{label(threshold)}"


def copy_flags(thresholds: Thresholds) -> tuple[str, ...]:
    """The names of a run's copy flags: strict at the run's threshold, the sweep, then soft by threshold and window."""
    strict = [thresholds.copy_p, *(p for p in sorted(thresholds.copy_sweep) if p != thresholds.copy_p)]
    windows = sorted(thresholds.soft_windows)
    soft = [(p, k) for p in (thresholds.soft_p, *sorted(thresholds.soft_extra)) for k in windows]
    return (*map(strict_flag, strict), *(soft_flag(k, p) for p, k in soft))


def records_columns(schema: Schema) -> Sequence[str]:
    """Of the file with a row per layer and position."""
    return SEED_RECORDS if schema == "seed" else EXTENDED_RECORDS


def pure_columns(schema: Schema, thresholds: Thresholds) -> Sequence[str]:
    """Of the file with a row per layer: the next token's."""
    if schema == "seed":
        return SEED_PURE
    return (*EXTENDED_RECORDS, "copy_collapse", *copy_flags(thresholds), *MEASURED)
