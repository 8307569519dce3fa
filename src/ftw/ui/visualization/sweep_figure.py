"""The figure of a sweep in a terminal: a row per relation with the share of its prompts that each block answers.

The rule of the file: 80 columns hold it, and it says the same without colour.
"""

from collections.abc import Sequence

import numpy as np
from rich.console import Group
from rich.style import Style
from rich.text import Text

from ftw.ui.visualization.charts import cut, percent, spark
from ftw.ui.visualization.figure import count, figure
from ftw.ui.visualization.palette import HUES, grey
from ftw.ui.visualization.sweep_audit import panel_reading
from ftw.ui.visualization.sweep_numbers import Run, Spread

NAME = 20
"""Columns for a row's name."""
FIGURES = 22
"""Columns for the onset and how many have one."""
MOST_ROWS = 12
MOST_WIDE = 4
"""Columns that a block takes where there is room."""


def sweep_figure(run: Run, *, width: int, colour: bool) -> Group:
    """The figure: its reading, a ribbon per group of prompts, units and provenance."""
    return figure(reading(run), draw_sweep(run, width=width, colour=colour), *_foot(run))


def reading(run: Run) -> str:
    """The claim: from which block on the median fact's answer is first."""
    whole = run.spread()
    if whole is None:
        # with answers there is still no onset where each begins with a token that is only a blank
        bare = "whose answers begin with a bare blank: only whole answers tell"
        why = bare if run.facts else "none with an answer to find"
        return f"{count(len(run.prompts), 'prompt')} read at {count(run.n + 1, 'layer')}, {why}"
    if whole.n_missing == whole.n_facts:
        return f"At no block is the answer of any of the {count(whole.n_facts, 'fact')} first{_best_rank(run)}"
    if whole.median is None:
        return f"The answers of {whole.n_missing} of {count(whole.n_facts, 'fact')} are first at no block"
    never = f"; {whole.n_missing} of {whole.n_facts} never are" if whole.n_missing else ""
    span = f" ({100 * run.level:.0f} % interval {whole.interval})" if whole.interval else ""
    return f"The median answer is first from block {whole.median:.3g} of {run.n} on{span}{never}"


def _best_rank(run: Run) -> str:
    """Where the median answer comes nearest to being first."""
    ranks = run.curves("answer_rank")
    if ranks is None:
        return ""
    at = int(np.nanargmin(ranks.median))
    return (
        f": the median rank is at best {ranks.median[at]:.0f} (block {ranks.layers[at]}, chance {run.chance_rank:.0f})"
    )


def draw_sweep(run: Run, *, width: int, colour: bool) -> list[Text]:
    """One row per relation, and per language and variant where there are several."""
    rows = run.groups[:MOST_ROWS]
    if not rows:
        return _entropies(run, width=width, colour=colour)
    scale, cells = _scale(run, width - NAME - FIGURES - 2)
    head = f"{'':<{NAME}}{scale}  {'first from':>13}{'facts':>{FIGURES - 13}}"
    drawn = [Text(head.rstrip(), grey(), no_wrap=True)]
    hue = Style(color=HUES[0]) if colour else Style()
    for row in rows:
        text = Text(no_wrap=True)
        text.append(cut(row.title, NAME - 1) + " ")
        text.append(_ribbon(row.shares, cells, len(scale)), hue)
        text.append(f"  {_median(row):>13}")
        text.append(f"{row.n_facts - row.n_missing}/{row.n_facts}".rjust(FIGURES - 13), grey())
        drawn.append(text)
    return drawn


def _median(row: Spread) -> str:
    """The median onset and, in brackets, its interval."""
    if row.median is None:
        return "never"
    if row.low is None:
        return f"{row.median:.3g}"
    return f"{row.median:.3g} ({row.low:.3g}–{'never' if row.high is None else f'{row.high:.3g}'})"


def _scale(run: Run, room: int) -> tuple[str, int]:
    """The line over the ribbons from the first layer to the last, and how many columns a layer takes."""
    layers = run.n + 1
    cells = max(1, min(MOST_WIDE, room // layers))
    length = min(layers * cells, room)
    left, right = "0", str(run.n)
    title = " blocks run " if length >= 20 else " "
    return left + title.center(length - len(left) - len(right), "·") + right, cells


def _ribbon(shares: Sequence[float], cells: int, length: int) -> str:
    """The share of facts whose answer is first, layer by layer."""
    return "".join(one * cells for one in spark(shares, length // cells)).ljust(length)


def _entropies(run: Run, *, width: int, colour: bool) -> list[Text]:
    """Without answers: the median entropy of each layer, as a share of that of knowing nothing."""
    entropy = run.curves("entropy_bits")
    if entropy is None:
        return []
    room = width - NAME - FIGURES - 2
    scale, cells = _scale(run, room)
    shares = np.clip(np.nan_to_num(entropy.median) / run.uniform_bits, 0.0, 1.0)
    row = Text(f"{'median entropy':<{NAME}}", no_wrap=True)
    row.append(_ribbon(shares.tolist(), cells, len(scale)), Style(color=HUES[0]) if colour else Style())
    row.append(f"  {entropy.median[0]:.1f} to {entropy.median[-1]:.1f} bits".rjust(FIGURES), grey())
    return [Text(f"{'':<{NAME}}{scale}", grey(), no_wrap=True), row]


def _foot(run: Run) -> tuple[str, ...]:
    document = run.document
    model, battery = document["model"], document.get("battery") or {}
    height = "height: share of facts whose answer has rank 1 there" if run.facts else "height: entropy, of uniform"
    chance = f"chance of rank 1: {percent(1 / run.table.vocab_size)}"
    return (
        height,
        f"in brackets: {100 * run.level:.0f} % interval" if any(row.interval for row in run.groups) else "",
        chance if run.facts else f"uniform {run.uniform_bits:.1f} bits",
        f"{model['name']} {str(model['fingerprint'])[:8]}",
        f"battery {battery['name']} {battery['version']}" if battery else "",
        f"identity gate exact, max error {run.table.gate.max_abs_error:.0e} logits" if run.table.gate.exact else "",
        panel_reading(run) if (document.get("audit") or {}).get("findings") else "",
        str(document.get("command") or ""),
    )
