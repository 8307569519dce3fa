"""Tables made by hand: what every lens says at every layer is given, the rest is filled in."""

from collections.abc import Mapping, Sequence

import numpy as np

from ftw.substrate.gate import Gate
from ftw.sweep.battery import Prompt
from ftw.sweep.table import COLUMNS, Item, SweepTable

GATE = Gate("made", "MadeForCausalLM", True, 0.0, 0.0, None)
ANSWER, OTHER, THIRD = 5, 6, 7
Given = Mapping[str, Sequence[Sequence[float]]]
"""By column: prompts down, layers across."""


def made(
    ranks: Mapping[str, Sequence[Sequence[int]]], given: Mapping[str, Given] | None = None, *, vocab: int = 1000
) -> SweepTable:
    """A table of last positions. `ranks[lens]` are the answer's ranks [prompt][layer], a lens from layer 1 on has
    one less.

    Where the rank is 1 the answer has p = 0.6 and the second 0.2, elsewhere 0.2 and another token 0.6. `given[lens]`
    replaces columns.
    """
    n_prompts = len(next(iter(ranks.values())))
    n_layers = max(len(rows[0]) for rows in ranks.values()) - 1
    parts: list[dict[str, np.ndarray]] = []
    for prompt in range(n_prompts):
        for lens, rows in ranks.items():
            first = n_layers + 1 - len(rows[prompt])
            part = _rows(prompt, lens, list(rows[prompt]), first)
            for name, values in (given or {}).get(lens, {}).items():
                part[name] = np.array(values[prompt], dtype=part[name].dtype)
            parts.append(part)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    return SweepTable(
        columns=columns,
        items=tuple(item(prompt) for prompt in range(n_prompts)),
        pieces={token: f"w{token}" for token in range(20)},
        model="made",
        n_layers=n_layers,
        vocab_size=vocab,
        lenses=tuple(ranks),
        precision="exact",
        gate=GATE,
    )


def item(prompt: int, kind: str = "fact") -> Item:
    """The prompt with this index: two tokens, and an answer of one."""
    source = Prompt(f"p{prompt}", f"text {prompt}", "w5", kind=kind)
    return Item(f"p{prompt}", (1, 10 + prompt), (ANSWER,), (ANSWER,), source=source)


def _rows(prompt: int, lens: str, ranks: list[int], first: int) -> dict[str, np.ndarray]:
    count = len(ranks)
    known = np.array(ranks)
    is_first = known == 1
    out: dict[str, np.ndarray] = {}
    for name, (kind, _) in COLUMNS.items():
        if kind == "str":
            out[name] = np.full(count, lens)
        elif name in ("top_ids", "top_logprobs", "answer_logprob_scaled", "pool_ranks"):
            width = {"answer_logprob_scaled": 4, "pool_ranks": 0}.get(name, 3)
            out[name] = np.zeros((count, width), dtype=kind)
        else:
            out[name] = np.full(count, np.nan if kind.startswith("float") else 0, dtype=kind)
    out["prompt"][:], out["pos"][:], out["token_id"][:] = prompt, 1, 10 + prompt
    out["layer"][:] = np.arange(first, first + count)
    out["is_finite"][:] = True
    out["top_ids"][:] = np.where(is_first[:, None], [[ANSWER, OTHER, THIRD]], [[OTHER, ANSWER, THIRD]])
    out["top_logprobs"][:] = np.log([0.6, 0.2, 0.1])
    out["answer_id"][:], out["answer_rank"][:] = ANSWER, known
    out["answer_logprob"][:] = np.where(known > 0, np.log(np.where(is_first, 0.6, 0.2)), np.nan)
    out["answer_logprob_scaled"][:] = out["answer_logprob"][:, None]
    out["control_id"][:], out["next_id"][:], out["next_rank"][:] = -1, ANSWER, known
    out["entropy_bits"][:], out["kl_bits"][:], out["logsumexp"][:], out["logsumexp_bound"][:] = 2.0, 3.0, 1.0, 0.0
    out["js_bits"][:], out["cos_logits"][:], out["cos_state"][:] = 0.3, 0.5, 0.5
    out["state_norm"][:], out["resid_norm"][:] = 1.0, np.exp(0.3 * out["layer"])
    out["answer_mass"][:], out["echo_mass"][:] = np.exp(out["answer_logprob"]), 0.1
    if lens != "logit":
        versus = {"kl_bits": 0.1, "rev_kl_bits": 0.1, "js_bits": 0.02, "l1": 0.1, "jaccard10": 0.8}
        for name, value in (versus | {"jaccard50": 0.8, "spearman50": 0.9}).items():
            out[f"vs_logit_{name}"][:] = value
    return out
