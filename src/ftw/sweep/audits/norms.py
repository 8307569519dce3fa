"""Norms, bias and words: what stands between the stream and the vocabulary, layer by layer.

The rule of the file: modules are named as the model names them, so that a reader can look them up.
"""

from collections.abc import Sequence, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftw.substrate.canonical import canonical_json, sha256_hex
from ftw.sweep import metrics
from ftw.sweep.audits.finding import Finding, grade, middle, number, percent, plain, shown
from ftw.sweep.audits.grid import Grids, share
from ftw.sweep.audits.states import Ends
from ftw.sweep.lenses import VocabLens
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.lenses.views import NormView, is_norm
from ftw.sweep.milestones.grid import LOGIT
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome
from ftw.sweep.run import Sweep
from ftw.sweep.table import is_word

SAMPLE = 16
"""Tokens of the mask that are shown."""


def norm_provenance(sweep: Sweep, ends: Ends, grid: Grids, chosen: Sequence[int]) -> Finding:
    """The layer map: for each lens and layer the block that made the stream and the modules that it was read through.

    Length ratios are medians over the run's prompts, cosines over the chosen ones (indices).
    """
    model = sweep.model
    names: dict[int, str] = {}
    for name, module in model.net.named_modules():
        names.setdefault(id(module), name)
    states = ends.of(chosen)
    rows: list[dict[str, Any]] = []
    for lens in sweep.all_lenses:
        ratio = grid.matrix(lens.name, "state_norm") / grid.matrix(lens.name, "resid_norm")
        cosines = _cosines(sweep, lens, states)
        for place, at in enumerate(lens.layers):
            rows.append(
                {
                    "lens": lens.name,
                    "layer": at,
                    "stream": "embedding" if at == 0 else f"{model.arch.blocks_path}.{at - 1}",
                    **_through(lens, at, sweep, names),
                    "length_ratio": middle(ratio[:, at]).value,
                    "cosine": plain(cosines[place]),
                }
            )
    logit = [row for row in rows if row["lens"] == LOGIT]
    lowest = min((row["cosine"] for row in logit if row["cosine"] is not None), default=float("nan"))
    figures = {
        "n_lenses": Outcome(len(sweep.all_lenses)),
        "final_norm": Outcome(logit[-1]["modules"] or "none"),
        "min_cosine_logit": number(lowest, "not_asked"),
    }
    reading = (
        f"The logit lens reads every layer through {figures['final_norm'].value}; it turns the stream by a cosine of "
        f"{shown(figures['min_cosine_logit'])} at least."
    )
    return Finding("norm_provenance", "fine", reading, figures, tables={"layer_map": rows})


def _through(lens: VocabLens, at: int, sweep: Sweep, names: dict[int, str]) -> dict[str, Any]:
    modules: tuple[nn.Module, ...] = sweep.model.arch.tail
    if isinstance(lens, NormView):
        modules = lens.norms[at - lens.layers.start]
    norms = [module for module in modules if is_norm(module)]
    eps = next((value for norm in norms for value in (_eps(norm),) if value is not None), None)
    return {
        "modules": ", ".join(names.get(id(module), type(module).__name__) for module in modules),
        "norm": type(norms[0]).__name__ if norms else None,
        "eps": eps,
        "fitted": lens.digest if lens.digest != lens.name else None,
    }


def _eps(norm: nn.Module) -> float | None:
    for name in ("eps", "variance_epsilon", "epsilon", "layer_norm_epsilon"):
        value = getattr(norm, name, None)
        if isinstance(value, float):
            return value
    return None


@torch.inference_mode()
def _cosines(sweep: Sweep, lens: VocabLens, states: Tensor) -> np.ndarray:
    """By layer of the lens the median cosine of the head's input to the stream; NaN where their widths differ."""
    layers = lens.layers
    part = states[layers.start : layers.stop].to(sweep.head.device)
    h = lens.head_inputs(part, layers)
    if h.shape != part.shape:
        return np.full(len(layers), np.nan)
    found: np.ndarray = metrics.cosine(h, part.float()).median(dim=1).values.double().cpu().numpy()
    return found


def unembed_bias(sweep: Sweep, grid: Grids, thresholds: Thresholds) -> Finding:
    """The head's bias, and how often the logit lens's best token is just the one that the bias favours most."""
    bias = getattr(sweep.model.arch.head, "bias", None)
    if not isinstance(bias, Tensor):
        figures = {"present": Outcome(False)}
        return Finding("unembed_bias", "fine", "The head has no bias.", figures)
    values = bias.detach()[: sweep.model.vocab_size].float().cpu()
    favoured = int(values.argmax())
    best = grid.best(LOGIT)
    largest = float(values.abs().max())
    figures = {
        "present": Outcome(True),
        "length": number(float(torch.linalg.vector_norm(values))),
        "max_abs": number(largest),
        "favoured_id": Outcome(favoured),
        "share_favoured": number(share(best[best >= 0] == favoured)),
    }
    reading = (
        f"The head's bias reaches {largest:.2f} logits; its favourite token is the best one in "
        f"{percent(figures['share_favoured'])} of the rows."
    )
    return Finding("unembed_bias", grade(largest, thresholds.grade_bias), reading, figures)


def copy_mask(sweep: Sweep, special: Set[int]) -> Finding:
    """The tokens that never count as words of a prompt, as a number and a hash: their list can be made again."""
    ignored = ignored_ids(sweep, special)
    sample = [{"id": token, "piece": piece} for token, piece in list(ignored.items())[:SAMPLE]]
    figures = {
        "size": Outcome(len(ignored)),
        "sha256": Outcome(sha256_hex(canonical_json(list(ignored)))),
        "vocab_size": Outcome(sweep.model.vocab_size),
    }
    reading = f"{len(ignored)} of {sweep.model.vocab_size} tokens never count as words."
    if sweep.model.tokenizer is None:
        reading = "Without a tokenizer every token counts as a word."
    return Finding("copy_mask", "fine", reading, figures, tables={"sample": sample})


def ignored_ids(sweep: Sweep, special: Set[int]) -> dict[int, str]:
    """Every token id that is no word, ascending, with its text. Special tokens are in it. Empty without a tokenizer."""
    tokenizer = sweep.model.tokenizer
    if tokenizer is None:
        return {}
    known = min(sweep.model.vocab_size, len(tokenizer))
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    pieces = tokenizer.batch_decode([[token] for token in range(known)], **options)
    return {token: piece for token, piece in enumerate(pieces) if token in special or not is_word(piece)}


def logit_lens(sweep: Sweep) -> LogitLens:
    """The sweep's logit lens."""
    return next(lens for lens in sweep.lenses if isinstance(lens, LogitLens))
