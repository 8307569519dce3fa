"""Poc bench: nonces per second of a model on this machine, where the time goes, and how near the bare pass."""

from rich.text import Text

from ftw.poc.profiles import profile
from ftw.poc.speed import Speed, measure
from ftw.ui.app import open_model
from ftw.ui.cli.output import Out
from ftw.ui.visualization.figure import count, figure
from ftw.ui.visualization.palette import HUES, grey

BAR = 40
"""Cells of the bar that stands for a whole batch."""
STAGES = {"rng": "inputs", "forward": "forward pass", "readout": "readout", "encode": "encoding"}
"""What is shown for each stage of a split."""


def run(out: Out, *, model: str | None, name: str, seq_len: int | None, rows: int, rounds: int) -> None:
    """Measure, draw, give the document. Raises ConfigError for a profile, length or count that cannot be."""
    chosen = profile(name)
    opened = open_model(model, out)
    with out.bar("Measuring") as bar:
        found = measure(
            opened,
            profile=chosen,
            seq_len=seq_len,
            rows=rows,
            rounds=rounds,
            progress=lambda done, steps: bar("Measuring", done, steps),
        )
    draw(out, found)
    out.document({"command": "poc bench", **found.record()})


def draw(out: Out, found: Speed) -> None:
    """The rate, and a bar per stage."""
    whole = sum(found.split)
    rows = [Text(f"{'stage':<14}{'ms/batch':>10}{'share':>8}", grey(), no_wrap=True)]
    for stage, seconds in found.split._asdict().items():
        row = Text(f"{STAGES[stage]:<14}{seconds * 1e3:>10.2f}{seconds / whole:>8.1%}  ", no_wrap=True)
        row.append("━" * round(BAR * seconds / whole), HUES[0] if out.has_colour else "")
        rows.append(row)
    out.show(
        figure(
            f"{found.nonces_per_second:.3g} nonces/s, {found.ratio:.2f} of the bare forward pass",
            rows,
            f"bare pass: same model and batch, no inputs, hooks, readout: {found.bare_nonces_per_second:.3g} nonces/s",
            f"{count(found.rows, 'nonce')} of {found.seq_len} positions per batch",
            f"medians of {count(found.rounds, 'round')}",
            f"profile {found.profile}",
            f"{found.model}, {found.dtype} on {found.device}, {count(found.threads, 'thread')}",
            out.command,
        )
    )
