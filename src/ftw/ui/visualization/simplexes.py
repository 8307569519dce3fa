"""Simplexes along a text, as rows of characters that fit 80 columns: which pole each word leans to, and where most.

The rule of the file: the place furthest from the text's own mean is named with its pole, its probability and its z.
"""

from collections.abc import Sequence

from rich.text import Text

from ftw.hat.monitoring.records import SimplexScore
from ftw.ui.visualization.charts import FIGURES, NAME, cut, percent, spark
from ftw.ui.visualization.palette import grey
from ftw.ui.visualization.sheet import label


def draw_simplexes(reads: Sequence[Sequence[SimplexScore]], *, width: int) -> list[Text]:
    """One row per simplex that stands out anywhere: `reads` has what was read with each word. Empty without any.

    A low step leans to the negative pole, a high one to the positive; a blank is a word where it is as usual.
    """
    reads = [[score for score in read if _stands_out(score)] for read in reads]
    names = list(dict.fromkeys(score.name for read in reads for score in read))
    if not names:
        return []
    room = width - NAME - FIGURES
    head = cut("between poles", NAME) + cut("low: first, high: second, blank: usual", room) + f"{'most':>15} {'z':>6}"
    rows = [Text(head.rstrip(), grey(), no_wrap=True)]
    for name in names:
        found = [next((score for score in read if score.name == name), None) for read in reads]
        seen = [score for score in found if score is not None]
        most = max(seen, key=lambda score: (abs(score.z), abs(score.spread)))
        pole, p = (most.poles[2], most.positive) if most.spread >= 0 else (most.poles[0], most.negative)
        row = Text(no_wrap=True)
        row.append(cut(f"{label(most.poles[0])}, {label(most.poles[2])}", NAME - 1) + " ")
        row.append(spark([0.0 if score is None else (score.spread + 1) / 2 for score in found], room).ljust(room))
        share = percent(p)
        row.append(f"{cut(label(pole), 15 - len(share) - 1).rstrip()} {share}".rjust(15))
        row.append(f" {most.z:>+6.1f}", grey())
        rows.append(row)
    return rows


def _stands_out(score: SimplexScore) -> bool:
    return score.alert or score.combined in ("active_elevated", "implicit_elevated")
