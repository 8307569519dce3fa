"""Charts of text characters: tracks along a text, blocks of a model. Every one fits 80 columns.

The rule of the file: a number stands beside every bar, and what is usual stands beside the number.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, runtime_checkable

from rich.cells import cell_len, set_cell_size
from rich.style import Style
from rich.text import Text

from ftw.ui.visualization.marks import Track
from ftw.ui.visualization.palette import HUES, Palette, grey
from ftw.ui.visualization.sheet import label

STEPS = " ▁▂▃▄▅▆▇█"
EIGHTHS = " ▏▎▍▌▋▊▉█"
NAME = 18
"""Columns for a concept's name."""
FIGURES = 23
"""Columns for peak, usual and AUROC."""


@runtime_checkable
class _Guess(Protocol):
    @property
    def token(self) -> str: ...

    @property
    def p(self) -> float: ...


@runtime_checkable
class _BlockView(Protocol):
    @property
    def block(self) -> int: ...

    @property
    def top(self) -> Sequence[_Guess]: ...

    @property
    def answer_rank(self) -> int: ...

    @property
    def answer_p(self) -> float: ...


def percent(p: float) -> str:
    """A probability as a whole percent: `95 %`, and `<1 %` where rounding would say none."""
    if math.isnan(p):
        return "-"
    return "<1 %" if 0 < p < 0.005 else f"{100 * p:.0f} %"


def spark(values: Sequence[float], width: int) -> str:
    """Values in [0, 1] as one character each; beyond `width` values, each shows the highest of its share."""
    if len(values) > width:
        cuts = [round(i * len(values) / width) for i in range(width + 1)]
        values = [max(values[a:b]) for a, b in pairwise(cuts)]
    return "".join(STEPS[max(1, min(8, math.ceil(v * 8)))] if v > 0 else " " for v in values)


def bar(p: float, width: int) -> str:
    """A value in [0, 1] as a bar of at most `width` columns, to an eighth of a column."""
    eighths = round(max(0.0, min(p, 1.0)) * width * 8)
    return (EIGHTHS[8] * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")).ljust(width)


def cut(text: str, width: int) -> str:
    """`text` in exactly `width` columns; where it is longer it ends in an ellipsis."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(set_cell_size(text, width - 1).rstrip() + "…", width)


def draw_tracks(tracks: Sequence[Track], palette: Palette, *, width: int, colour: bool) -> list[Text]:
    """One row per concept: its reading along the text, its peak, what it usually reads, how good its lens is."""
    if not tracks:
        return []
    room = width - NAME - FIGURES
    axis = min(room, len(tracks[0].p))
    title = "first word to last" if axis >= len("first word to last") else "along the text"
    head = cut("concept", NAME) + cut(title, room) + "   peak  usual  AUROC"
    rows = [Text(head.rstrip(), grey(), no_wrap=True)]
    for track in tracks:
        hue = palette.name(track.concept) if colour else Style()
        row = Text(no_wrap=True)
        row.append(cut(label(track.concept), NAME - 1) + " ", hue)
        row.append(spark(track.p, room).ljust(room), hue)
        row.append(f"  {percent(track.peak):>5}")
        auroc = "-" if math.isnan(track.auroc) else f"{track.auroc:.2f}"
        row.append(f"  {percent(track.baseline):>5}   {auroc:>5}", grey())
        rows.append(row)
    return rows


def draw_blocks(views: Sequence[_BlockView], answer: str, *, width: int, colour: bool, top: int) -> list[Text]:
    """One row per block: what it would say, the rank of the answer, and its probability as a bar."""
    words = min(top, 3)
    figures = 24
    column = (width - 7 - figures) // words
    hue = Style(color=HUES[0]) if colour else Style()
    said = "would say next".ljust(column * words)
    rows = [Text(f"block  {said}{'rank':>6}  {cut(f'p({shown_token(answer)})', 16)}".rstrip(), grey(), no_wrap=True)]
    for view in views:
        row = Text(f"{view.block:>5}  ", no_wrap=True)
        for place in range(words):
            if place >= len(view.top):
                row.append(" " * column)
                continue
            guess = view.top[place]
            share = percent(guess.p)
            is_answer = guess.token == answer
            row.append(
                cut(f"{cut_short(shown_token(guess.token), column - len(share) - 2)} {share}", column),
                Style(bold=True, color=hue.color) if is_answer else (Style() if place == 0 else grey()),
            )
        row.append(f"{view.answer_rank:>6}  ", Style(bold=view.answer_rank == 1))
        row.append(f"{percent(view.answer_p):>5} ")
        row.append(bar(view.answer_p, figures - 14).rstrip(), hue)
        rows.append(row)
    return rows


def cut_short(text: str, width: int) -> str:
    """`text` in at most `width` columns."""
    return text if cell_len(text) <= width else cut(text, max(width, 1)).rstrip()


def shown_token(token: str) -> str:
    """A token so that it can be seen: without the space before it, and a blank one by its name."""
    text = token.strip(" ")
    if text:
        return "".join(c if c.isprintable() else {"\n": "↵", "\t": "⇥"}.get(c, "�") for c in text)
    return "␣" if token else "∅"
