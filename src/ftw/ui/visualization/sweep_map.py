"""Maps of a sweep: the token that each block would say, by position of one prompt, or by prompt at its end.

The rule of the file: a cell's word is the lens's first token there, its tint that token's probability.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ftw.sweep.milestones.grid import LOGIT
from ftw.sweep.shelf import is_norm_view
from ftw.sweep.table import SweepTable
from ftw.ui.visualization.charts import percent, shown_token
from ftw.ui.visualization.plots import Heat, Layer
from ftw.ui.visualization.report import Choice, Figure
from ftw.ui.visualization.sweep_numbers import Asked, Run, first_stay, rounded, thinned

MOST_CELLS = 3000
"""Cells over all maps of a report, so that it can be mailed: each is drawn, said and stands in a table."""
MOST_COLUMNS = 48
MOST_MAPS = 12
ENOUGH = 16
"""Positions that are worth a map: fewer prompts are chosen from before a map shows fewer."""


def maps(run: Run, chosen: Sequence[Asked]) -> Figure | Choice | None:
    """A map for each chosen prompt and lens where every position was read, else of the ends of the chosen prompts.

    Through the logit lens and the learned ones: views of the norm differ from it by the norm alone.
    """
    if not chosen:
        return None
    lenses = [lens for lens in run.lenses if lens == LOGIT or not is_norm_view(lens)]
    cells = MOST_CELLS // (len(lenses) * (run.n + 1))
    wide = [one for one in chosen if all(_positions(run, one, lens) > 1 for lens in lenses)]
    if not wide:
        ends = [of_ends(run, chosen[: max(1, cells)], lens) for lens in lenses]
        return Choice("Lens", tuple(lenses), tuple(ends)) if len(lenses) > 1 else ends[0]
    wide = thinned(wide, max(1, min(MOST_MAPS, cells // ENOUGH)))
    room = max(1, min(MOST_COLUMNS, cells // len(wide)))
    pairs = [(one, lens) for one in wide for lens in lenses]
    names = tuple(
        f"{one.text.strip()} → {one.answer or '?'}{f' · {lens} lens' if len(lenses) > 1 else ''}" for one, lens in pairs
    )
    return Choice("Prompt", names, tuple(of_positions(run, one, lens, room) for one, lens in pairs))


def of_positions(run: Run, one: Asked, lens: str, room: int) -> Figure:
    """The map of one prompt: blocks by positions. Of a long prompt the last `room` positions."""
    rows = run.table.where(prompt=one.row, lens=lens)
    positions = np.unique(rows["pos"])
    kept = positions[-room:]
    rows = _taken(rows, rows["pos"] >= kept[0])
    ids = run.table.items[one.row].ids
    names = tuple(f"{shown_token(run.table.pieces[ids[pos]])} {pos}" for pos in kept.tolist())
    cut = "" if len(kept) == len(positions) else f" · the last {len(kept)} of {len(positions)} positions"
    return Figure(
        _reading(run, one, lens),
        _heat(run, rows, names, "token, position"),
        f"“{one.text.strip()}” · tint and word: the likeliest next token · lens: {lens}{cut}",
    )


def of_ends(run: Run, chosen: Sequence[Asked], lens: str) -> Figure:
    """The map of the ends of several prompts: prompts by blocks."""
    rows = run.last.where(lens=lens)
    order = {one.row: place for place, one in enumerate(chosen)}
    rows = _taken(rows, np.array([prompt in order for prompt in rows["prompt"].tolist()]))
    places = np.array([order[prompt] for prompt in rows["prompt"].tolist()])
    rows = _taken(rows, np.lexsort((rows["layer"], places)))
    return Figure(
        _ends_reading(run, chosen, lens) if len(chosen) > 1 else _reading(run, chosen[0], lens),
        _heat(run, rows, tuple(one.name for one in chosen), "prompt"),
        f"tint and word: the likeliest next token after the prompt · lens: {lens} · only last positions were read: "
        "with --positions all there is a map over the positions of a prompt",
    )


def _ends_reading(run: Run, chosen: Sequence[Asked], lens: str) -> str:
    settled = []
    for one in chosen:
        best = run.table.view(lens, one.row)["top_ids"][:, 0]
        settled.append(first_stay(best == best[-1]) or 0)
    layers = run.table.layers_of(lens)
    return (
        f"The word that {len(chosen)} prompts end with is settled between blocks {layers[min(settled)]} and "
        f"{layers[max(settled)]} of {run.n}{'' if lens == LOGIT else f' through the {lens} lens'}"
    )


def _reading(run: Run, one: Asked, lens: str) -> str:
    rows = run.table.view(lens, one.row)
    layers = rows["layer"].tolist()
    best = rows["top_ids"][:, 0]
    p = float(np.exp(rows["top_logprobs"][-1, 0]))
    same = first_stay(best == best[-1]) or 0
    word = shown_token(run.table.pieces[int(best[-1])])
    where = f"from block {layers[same]} on" if same else "at every block"
    if layers[same] == run.n:
        where = "at the last block only"
    through = "" if lens == LOGIT else f" through the {lens} lens"
    return f"“… {_end(one.text)}” → {word} is first {where}{through}, {percent(p)} at the end"


def _end(text: str, words: int = 5) -> str:
    """The last words of a prompt."""
    return " ".join(text.split()[-words:])


def _heat(run: Run, rows: SweepTable, names: tuple[str, ...], what: str) -> Heat:
    """Blocks by positions, or prompts (`what`) by blocks. The rows are sorted by place, and there by layer."""
    layers = np.unique(rows["layer"]).tolist()
    is_of_ends = what == "prompt"
    blocks = tuple(f"block {layer}" if layer or is_of_ends else "embedding" for layer in layers)
    shape = (len(names), len(layers))

    def turned(values: np.ndarray) -> np.ndarray:
        return values.reshape(shape) if is_of_ends else values.reshape(shape).T

    def grid(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
        clean = turned(np.where(rows["is_finite"], values, np.nan))
        return tuple(tuple(rounded(v) if math.isfinite(v) else math.nan for v in row) for row in clean.tolist())

    more = [
        Layer(said, grid(rows[name]))
        for name, said in (("entropy_bits", "entropy, bits"), ("kl_bits", "KL to the model's own, bits"))
        if name in rows.columns
    ]
    for name, said in (("next", "the token that follows"), ("answer", "the answer")):
        ranks = rows[f"{name}_rank"].astype(float)
        if (ranks > 0).any() and not (name == "next" and is_of_ends):  # at a prompt's end they are the same
            more.append(Layer(f"rank of {said}", grid(np.where(ranks > 0, ranks, np.nan))))
    return Heat(
        columns=blocks if is_of_ends else names,
        rows=names if is_of_ends else blocks,
        values=grid(np.exp(rows["top_logprobs"][:, 0].astype(float))),
        x="blocks that have run" if is_of_ends else what,
        y=what if is_of_ends else "blocks that have run",
        unit="probability",
        low=0.0,
        high=1.0,
        percent=True,
        labels=tuple(
            tuple(shown_token(run.table.pieces[token]) for token in row)
            for row in turned(rows["top_ids"][:, 0]).tolist()
        ),
        labelled="first token",
        more=tuple(more),
        from_end=True,
    )


def _positions(run: Run, one: Asked, lens: str) -> int:
    return len(np.unique(run.table.where(prompt=one.row, lens=lens)["pos"]))


def _taken(rows: SweepTable, which: np.ndarray) -> SweepTable:
    """The rows of a mask, or at these places."""
    return replace(rows, columns={name: column[which] for name, column in rows.columns.items()})
