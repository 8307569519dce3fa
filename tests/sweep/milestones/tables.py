"""Tables from logits that a test makes up: every column is computed from them in fp64, one row at a time."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ftw.substrate.gate import Gate
from ftw.sweep.battery import Prompt
from ftw.sweep.table import COLUMNS, SCALES, Item, SweepTable

GATE = Gate("made", "MadeForCausalLM", True, 0.0, 0.0, None)
K = 5
"""Tokens that a row lists."""


def fact(
    name: str = "f",
    ids: Sequence[int] = (1, 2, 3),
    answer: int | None = 5,
    control: int | None = None,
    *,
    relation: str = "r",
    variant: str = "orig",
    template: str = "t",
    language: str = "en",
    kind: str = "fact",
    accepted: Sequence[int] = (),
    pool: Sequence[int] = (),
) -> Item:
    """A prompt of these ids whose answer is one token."""
    probe = answer is None
    source = Prompt(
        id=f"{relation}/{name}/{template}/{variant}/{kind}",
        text="text",
        answer=None if probe else f"w{answer}",
        control_answer=None if control is None else f"c{control}",
        relation=relation,
        fact_id=name,
        template=template,
        variant=variant,
        language=language,
        kind="probe" if probe else kind,  # type: ignore[arg-type]
    )
    return Item(
        source.id,
        tuple(ids),
        () if answer is None else (answer,),
        () if answer is None else (answer, *accepted),
        () if control is None else (control,),
        tuple(pool),
        source=source,
    )


def table_of(
    logits: Mapping[str, Float[np.ndarray, "prompt layer vocab"]],
    items: Sequence[Item] | None = None,
    *,
    special: Sequence[int] = (),
    symbols: Sequence[int] = (),
    k: int = K,
    given: Mapping[str, float] | None = None,
) -> SweepTable:
    """The table of these logits at last positions. The first lens's last layer is the model; each lens ends there.

    `symbols` are tokens that are no words. `given` sets columns that logits do not decide.
    """
    first = next(iter(logits.values()))
    n_layers, vocab = max(z.shape[1] for z in logits.values()) - 1, first.shape[2]
    items = tuple(items or [fact(f"f{at}") for at in range(len(first))])
    rows: list[dict[str, object]] = []
    for prompt, item in enumerate(items):
        for lens, z in logits.items():
            for at, row in enumerate(z[prompt]):
                layer = n_layers + 1 - z.shape[1] + at
                rows.append(_row(row.astype(np.float64), first[prompt, -1], item, symbols, k))
                rows[-1] |= {"prompt": prompt, "lens": lens, "layer": layer, **(given or {})}
    columns = {
        name: _column([row[name] for row in rows], kind) for name, (kind, _) in COLUMNS.items() if name in rows[0]
    }
    pieces = {token: "," if token in symbols else f"w{token}" for token in range(vocab)}
    return SweepTable(
        columns=columns,
        items=items,
        pieces=pieces,
        model="made",
        n_layers=n_layers,
        vocab_size=vocab,
        lenses=tuple(logits),
        precision="exact",
        gate=GATE,
        special_ids=frozenset(special),
    )


def _row(z: np.ndarray, own: np.ndarray, item: Item, symbols: Sequence[int], k: int) -> dict[str, object]:
    logp, q = _log_softmax(z), _log_softmax(own.astype(np.float64))
    p, finite = np.exp(logp), bool(np.isfinite(z).all())
    order = np.argsort(-logp, kind="stable")[:k] if finite else np.arange(k)
    words = [token for token in dict.fromkeys(item.ids) if token not in symbols]
    answer = item.answer[0] if item.answer else -1
    control = item.control[0] if item.control else -1

    def of(token: int, values: np.ndarray) -> float:
        return float(values[token]) if token >= 0 else float("nan")

    scaled = [of(answer, _log_softmax(z * scale)) for scale in SCALES]
    centred, mine = z - z.mean(), own - own.mean()
    return {
        "pos": len(item.ids) - 1,
        "token_id": item.ids[-1],
        "top_ids": order,
        "top_logprobs": logp[order],
        "entropy_bits": float(-(p * logp).sum() / np.log(2)),
        "kl_bits": float((p * (logp - q)).sum() / np.log(2)),
        "cos_logits": float(centred @ mine / max(np.linalg.norm(centred) * np.linalg.norm(mine), 1e-30)),
        "answer_id": answer,
        "answer_rank": int((z > z[answer]).sum()) + 1 if answer >= 0 else 0,
        "answer_logprob": of(answer, logp),
        "answer_logprob_scaled": scaled,
        "answer_whole_logprob": of(answer, logp),
        "answer_mass": float(p[list(item.accepted)].sum()) if item.answer else float("nan"),
        "control_id": control,
        "control_rank": int((z > z[control]).sum()) + 1 if control >= 0 else 0,
        "control_logprob": of(control, logp),
        "control_whole_logprob": of(control, logp),
        "echo_mass": float(p[words].sum()),
        "echo_mass_top50": float(sum(p[token] for token in order if token in words)),
        "cos_answer": 0.0,
        "cos_echo_max": 0.0,
        "pool_ranks": [int((z > z[token]).sum()) + 1 for token in item.pool] + [0] * (4 - len(item.pool)),
        "is_finite": finite,
    }


def _log_softmax(z: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return z - z.max() - np.log(np.exp(z - z.max()).sum())


def _column(values: list[object], kind: str) -> np.ndarray:
    return np.array(values, dtype=None if kind == "str" else kind)


def peaked(vocab: int, tokens: Sequence[int], p: float | Sequence[float]) -> Float[np.ndarray, "layer vocab"]:
    """Logits layer by layer: one token has probability p, the others share the rest."""
    each = [p] * len(tokens) if isinstance(p, float) else list(p)
    z = np.zeros((len(tokens), vocab))
    for layer, (token, share) in enumerate(zip(tokens, each, strict=True)):
        z[layer] = np.log((1 - share) / (vocab - 1))
        z[layer, token] = np.log(share)
    return z
