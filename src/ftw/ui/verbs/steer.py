"""Steer: one prompt written twice, plain and steered, with what the steering did and what it cost."""

import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ftw.hat.steering import DEFAULT_STRENGTH, Direction, Steer, steer_edits, word_rate
from ftw.hat.steering.evaluation import continuation_nats
from ftw.substrate.engine import Chunk, TransformersEngine
from ftw.substrate.model import Model
from ftw.ui.app import open_lenses, open_model
from ftw.ui.cli.output import Out
from ftw.ui.reading import Lenses
from ftw.ui.verbs.generation import Ask
from ftw.ui.visualization.charts import percent
from ftw.ui.visualization.export import check_target, write_picture
from ftw.ui.visualization.figure import foot, title
from ftw.ui.visualization.palette import grey
from ftw.ui.visualization.sheet import label

GAP = 4
"""Columns between the two texts."""


@dataclass
class Side:
    """One of the two texts as it is written."""

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finished: str | None = None

    def take(self, chunk: Chunk) -> None:
        """Add a token."""
        self.text += chunk.text
        self.finished = chunk.finished
        if chunk.token >= 0:
            self.tokens.append(chunk.token)


def run(
    out: Out,
    ask: Ask,
    *,
    model: str | None,
    pack: str | None,
    concept: str,
    strength: float | None,
    export: Path | None,
) -> None:
    """Write both texts, draw them side by side, give the document. Ctrl-C ends both early; what was written is kept."""
    if export is not None:
        check_target(export)
    opened = open_model(model, out)
    ask.request(opened)  # what is wrong with the request is told before more is loaded
    lenses = open_lenses(opened, pack, out)
    (term,) = lenses.resolve((concept,))
    pair = Pair(
        opened, lenses, ask, term=term, strength=DEFAULT_STRENGTH if strength is None else strength, command=out.command
    )
    interrupted = play(out, pair, pace_s=0.0)
    if export is not None:
        write_picture(export, pair.whole, title=f"ftw steer · {opened.name}")
        out.tell(f"wrote {export}")
    out.document(pair.document())
    if interrupted:
        raise KeyboardInterrupt


@dataclass(frozen=True, slots=True)
class Measured:
    """What one text is made of."""

    words: int
    rate: float
    """Share of its words that are words of the concept."""
    perplexity: float
    """How surprising the unsteered model finds a token of it, on (geometric) average."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Both texts, measured."""

    plain: Measured
    steered: Measured

    @property
    def damage(self) -> float:
        """Perplexity of the steered text over that of the plain one."""
        return self.steered.perplexity / self.plain.perplexity

    def record(self) -> dict[str, float]:
        """The same for a JSON document."""
        sides = {"unsteered": self.plain, "steered": self.steered}
        rates = {f"{name}_concept_word_rate": side.rate for name, side in sides.items()}
        perplexities = {f"{name}_perplexity": side.perplexity for name, side in sides.items()}
        return {**rates, **perplexities, "perplexity_ratio": self.damage}


@dataclass
class Pair:
    """Two texts of one prompt: what the model writes, and what it writes when a concept is pushed."""

    model: Model
    lenses: Lenses
    ask: Ask
    term: str
    strength: float
    command: str = ""
    plain: Side = field(default_factory=Side)
    steered: Side = field(default_factory=Side)
    found: Cost | None = None
    """Effect and damage; None until both texts are written."""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.direction: Direction = self.lenses.find_direction(self.term)
        self.words = self.lenses.concepts.concepts[self.term].words
        self.hue: Style = self.lenses.palette().name(self.term)

    def write(self) -> Iterator[None]:
        """Write both at once, a token of each per step."""
        engine = TransformersEngine(self.model)
        sides = {
            engine.submit(self.ask.request(self.model)): self.plain,
            engine.submit(
                self.ask.request(self.model, edits=steer_edits([Steer(self.direction, self.strength)]))
            ): self.steered,
        }
        while engine.has_work:
            began = time.perf_counter()
            chunks = engine.step()
            self.seconds += time.perf_counter() - began  # of the model, not of drawing
            for chunk in chunks:
                if chunk.error is not None:
                    raise chunk.error
                sides[chunk.request_id].take(chunk)
            yield

    def judge(self) -> None:
        """Measure effect and damage on what was written."""
        ids = self.ask.request(self.model).ids
        sides = (self.plain, self.steered)
        nats = continuation_nats(self.model, [(ids, side.tokens) for side in sides])
        plain, steered = (self._measured(side, float(of.mean())) for side, of in zip(sides, nats, strict=True))
        self.found = Cost(plain, steered)

    def _measured(self, side: Side, nats_per_token: float) -> Measured:
        rate, words = word_rate([side.text], self.words)
        return Measured(words, rate, math.exp(nats_per_token))

    def columns(self, width: int, *, colour: bool) -> RenderableType:
        """Both texts side by side; the concept's words stand out."""
        each = (width - GAP) // 2
        table = Table.grid(padding=(0, GAP, 0, 0))
        table.add_column(width=each)
        table.add_column(width=each)
        towards = "towards" if self.strength >= 0 else "away from"
        table.add_row(Text("As it is", grey()), Text(f"Steered {towards} {label(self.term)}", grey()))
        table.add_row(self._marked(self.plain.text, colour=colour), self._marked(self.steered.text, colour=colour))
        return table

    def _marked(self, text: str, *, colour: bool) -> Text:
        shown = Text("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text.strip()))
        if self.words:
            style = Style(bold=True, underline=True, color=self.hue.color if colour else None)
            longest_first = sorted(self.words, key=len, reverse=True)
            pattern = r"\b(?:" + "|".join(map(re.escape, longest_first)) + r")(?:s|es)?\b"
            for match in re.finditer(pattern, shown.plain, re.IGNORECASE):
                shown.stylize(style, *match.span())
        return shown

    def reading(self) -> str:
        """The claim of the page."""
        if self.found is None:
            return f"{label(self.term).capitalize()}: interrupted before it could be measured"
        before, after = percent(self.found.plain.rate), percent(self.found.steered.rate)
        effect = f"{label(self.term).capitalize()} words go from {before} to {after} of the text"
        return f"{effect}, at {self.found.damage:.1f} times the perplexity"

    def whole(self, width: int, *, colour: bool) -> RenderableType:
        """The page: claim, prompt, both texts, figures, foot."""
        who = Text(self.ask.prompt.strip(), style="dim")
        columns = self.columns(width, colour=colour)
        return Group(title(self.reading()), Text(), who, Text(), columns, Text(), *self._figures(), self.foot())

    def _figures(self) -> list[RenderableType]:
        if self.found is None:
            return []
        rows = Table.grid(padding=(0, 3, 0, 0))
        rows.add_row("", Text("as it is", grey()), Text("steered", grey()), "")
        plain, steered = self.found.plain, self.found.steered
        name = f"{label(self.term)} words"
        of = f"effect, of {plain.words} and {steered.words} words"
        rows.add_row(name, percent(plain.rate), percent(steered.rate), Text(of, grey()))
        ratio = f"damage, {self.found.damage:.2f} times"
        rows.add_row("perplexity", f"{plain.perplexity:.1f}", f"{steered.perplexity:.1f}", Text(ratio, grey()))
        return [rows, Text()]

    def foot(self) -> Text:
        """Units and provenance."""
        return foot(
            f"strength {self.strength:g}, {100 * self.direction.gain * self.strength:.0f} % of the state's norm",
            f"pushed after {self.direction.site} at every token",
            "perplexity of each text as the unsteered model reads it",
            f"{self.model.name} {self.model.fingerprint[:8]}",
            f"pack {self.lenses.name} {self.lenses.version}",
            self.ask.how,
            self.command,
        )

    def document(self) -> dict[str, object]:
        """What `--json` gives."""
        sides = {"unsteered": self.plain, "steered": self.steered}
        return {
            "command": "steer",
            "model": {"name": self.model.name, "fingerprint": self.model.fingerprint},
            "pack": self.lenses.record,
            **self.ask.record,
            "concept": self.term,
            "strength": self.strength,
            "block": self.direction.site.layer,
            "gain": self.direction.gain,
            "seconds": self.seconds,
            **{
                name: {"text": side.text, "tokens": side.tokens, "finished": side.finished or "interrupted"}
                for name, side in sides.items()
            },
            "measured": None if self.found is None else self.found.record(),
        }


def play(out: Out, pair: Pair, *, pace_s: float = 0.0) -> bool:
    """Draw a pair while it is written, and whole at the end. True if Ctrl-C ended it."""
    interrupted = False
    live = Live(console=out.stdout, auto_refresh=False, transient=True, vertical_overflow="crop")
    if out.is_live:
        live.start()
    try:
        for _ in pair.write():
            if out.is_live:
                live.update(pair.columns(out.width, colour=out.has_colour), refresh=True)
            time.sleep(pace_s)
        pair.judge()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        live.stop()
    out.show(pair.whole(out.width, colour=out.has_colour))
    return interrupted
