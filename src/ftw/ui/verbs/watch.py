"""Watch: a generation with its readings, drawn while it is written."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from ftw.substrate.engine import Chunk, TransformersEngine
from ftw.substrate.model import Model
from ftw.ui.app import open_lenses, open_model
from ftw.ui.cli.output import Out
from ftw.ui.reading import Lenses, Read, Scored, mark_of, record_of
from ftw.ui.verbs.generation import Ask
from ftw.ui.visualization.charts import draw_tracks, percent
from ftw.ui.visualization.export import check_target, write_picture
from ftw.ui.visualization.figure import count, foot, title
from ftw.ui.visualization.marks import Mark, Track, Word, leading, tracks
from ftw.ui.visualization.palette import Palette
from ftw.ui.visualization.sheet import Line, draw_line, label, lay_out, sheet
from ftw.ui.visualization.simplexes import draw_simplexes


@dataclass
class Score:
    """A text as it is being written, with its readings."""

    words: list[Word] = field(default_factory=list)
    leaders: list[Mark | None] = field(default_factory=list)
    reads: list[Read | None] = field(default_factory=list)
    """What was read with each word, whole."""
    prompt: list[Read] = field(default_factory=list)
    """What was read at each token of the prompt, first to last."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: str | None = None
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """What was written so far."""
        return "".join(word.text for word in self.words)


def run(
    out: Out,
    ask: Ask,
    *,
    model: str | None,
    pack: str | None,
    concepts: Sequence[str] | None,
    top: int,
    export: Path | None,
    manifest: str | None = None,
    memory: int | None = None,
) -> None:
    """Write, draw, and give the document. Ctrl-C ends the text early; what was written is kept."""
    if export is not None:
        check_target(export)
    opened = open_model(model, out)
    ask.request(opened)  # what is wrong with the request is told before more is loaded
    lenses = open_lenses(opened, pack, out, manifest=manifest, memory=memory)
    named = lenses.resolve(concepts) if concepts is not None else None
    page = Page(opened, lenses, ask, top=top, named=named or (), command=out.command)
    interrupted = play(out, page, pace_s=0.0)
    if export is not None:
        write_picture(export, page.whole, title=f"ftw watch · {opened.name}")
        out.tell(f"wrote {export}")
    out.document(page.document())
    if interrupted:
        raise KeyboardInterrupt


@dataclass
class Page:
    """One watched text: who writes, who reads, what was asked, what came."""

    model: Model
    lenses: Lenses
    ask: Ask
    top: int
    named: Sequence[str] = ()
    """Concepts that were asked for by name: they are drawn even when they stay quiet."""
    command: str = ""
    score: Score = field(default_factory=Score)

    def __post_init__(self) -> None:
        self.palette: Palette = self.lenses.palette()

    def write(self) -> Iterator[Chunk]:
        """Let the model write. Each chunk is in the score when it is given."""
        made: dict[int, Read] = {}

        def keep(reading: Read) -> None:
            # of the pass over the prompt the last position stays: it is the state that wrote the first token
            made[reading.index] = reading
            if reading.index == 0:
                self.score.prompt.append(reading)

        watcher = self.lenses.make_watcher(self.top, self.named, keep)
        request = self.ask.request(self.model, controllers=(watcher,))
        stream = TransformersEngine(self.model).stream(request)
        while True:
            began = time.perf_counter()
            chunk = next(stream, None)
            if chunk is None:
                return
            self.score.seconds += time.perf_counter() - began  # of the model and its lenses, not of drawing
            reading = made.get(len(self.score.tokens)) if chunk.token >= 0 else None
            self.add(chunk, [mark_of(score) for score in self._shown(reading)], reading)
            yield chunk

    def _shown(self, reading: Read | None) -> list[Scored]:
        """What is told of a reading: all of it, or the concepts that were asked for."""
        scores = () if reading is None else reading.scores
        return [score for score in scores if not self.named or score.term in self.named]

    def add(self, chunk: Chunk, marks: Sequence[Mark], reading: Read | None = None) -> None:
        """Put a token into the score, with what the state that wrote it reads."""
        score = self.score
        score.reads.append(reading)
        score.words.append(Word(chunk.text, tuple(marks)))
        score.leaders.append(leading(marks, self.lenses.parent))
        score.finished = chunk.finished
        if chunk.token >= 0:
            score.tokens.append(chunk.token)
            score.logprobs.append(chunk.logprob)

    def tracks(self) -> list[Track]:
        """The rows under the text."""
        return tracks(self.score.words, self.lenses.parent, self.top, always=self.named)

    def lines(self, width: int, *, colour: bool) -> list[Text]:
        """The text with its names."""
        return sheet(self.score.words, self.score.leaders, self.palette, width=width, colour=colour)

    def under(self, width: int, *, colour: bool) -> list[Text]:
        """The tracks, and the simplexes if the pack has some."""
        width = min(width, 80)
        rows = draw_tracks(self.tracks(), self.palette, width=width, colour=colour)
        poles = draw_simplexes([() if read is None else read.simplexes for read in self.score.reads], width=width)
        return [*rows, *([Text()] if rows and poles else []), *poles]

    def reading(self) -> str:
        """The claim of the page; of a text that Ctrl-C ended, of what there is."""
        return self._claim() if self.score.finished else f"Interrupted. So far: {self._claim()}"

    def _claim(self) -> str:
        n = len(self.score.tokens)
        leads = Counter(mark.concept for mark in self.score.leaders if mark is not None)
        first = next((track for track in self.tracks() if leads[track.concept]), None)
        if first is None:
            return f"Quiet: no concept is read with more than 50 % in {count(n, 'token')}"
        led = leads[first.concept]
        before = [word.text.strip() for word in self.score.words[: first.peak_at] if word.text.strip()]
        where = f"strongest right after “{before[-1]}”" if before else "strongest at the start"
        return (
            f"{label(first.concept).capitalize()} leads {led} of {count(n, 'token')}, {where} ({percent(first.peak)})"
        )

    def foot(self) -> Text:
        """Units and provenance."""
        rate = f"{len(self.score.tokens) / self.score.seconds:.0f} tokens/s" if self.score.seconds else ""
        model = f"{self.model.name} {self.model.fingerprint[:8]}"
        meaning = "a reading belongs to the state that wrote the word, which has read what stands before it"
        return foot(meaning, model, self.lenses.title, self.ask.how, rate, self.command)

    def whole(self, width: int, *, colour: bool) -> RenderableType:
        """The page: claim, text, tracks, foot."""
        who = Text(self.ask.prompt.strip(), style="dim")
        under = self.under(width, colour=colour)
        parts: list[RenderableType] = [
            title(self.reading()),
            Text(),
            who,
            Text(),
            *self.lines(width, colour=colour),
            Text(),
        ]
        return Group(*parts, *under, *([Text()] if under else []), self.foot())

    def document(self) -> dict[str, object]:
        """What `--json` gives."""
        score = self.score
        made = [(word.text, read) for word, read, _ in zip(score.words, score.reads, score.tokens, strict=False)]
        ids = self.ask.request(self.model).ids
        return {
            "command": "watch",
            "model": {"name": self.model.name, "fingerprint": self.model.fingerprint},
            "pack": self.lenses.record,
            **self.ask.record,
            "text": score.text,
            "finished": score.finished or "interrupted",
            "seconds": score.seconds,
            "prompt_tokens": [
                {"text": self.model.decode([token]), "id": token, **self._told(read)}
                for token, read in zip(ids, score.prompt, strict=False)
            ],
            "tokens": [
                {"text": text, "id": token, "logprob_nats": logprob, **self._told(read)}
                for (text, read), token, logprob in zip(made, score.tokens, score.logprobs, strict=True)
            ],
        }

    def _told(self, reading: Read | None) -> dict[str, object]:
        """What a document says of the state that read a token, or wrote it."""
        return {
            "readings": [record_of(score) for score in self._shown(reading)],
            "simplexes": () if reading is None else reading.simplexes,
            "late": () if reading is None else reading.late,
            "t_ms": {} if reading is None else reading.t_ms,
        }


def play(out: Out, page: Page, *, pace_s: float = 0.0) -> bool:
    """Draw a page while it is written: over itself on a terminal, line by line in a pipe. True if Ctrl-C ended it.

    `pace_s` is waited after each token, so that a person can follow.
    """
    screen: _Screen = _Silent() if out.json else _Canvas(out, page) if out.is_live else _Feed(out, page)
    interrupted = False
    with screen:
        try:
            for _ in page.write():
                screen.refresh()
                time.sleep(pace_s)
        except KeyboardInterrupt:
            interrupted = True
    screen.finish()
    return interrupted


class _Screen(AbstractContextManager["_Screen"]):
    """Where a page is drawn while it is written."""

    def __exit__(self, *error: object) -> None:
        """Leave the stream as a shell wants it."""

    def refresh(self) -> None:
        """Draw what is new."""

    def finish(self) -> None:
        """Draw the whole."""


class _Silent(_Screen):
    """Nowhere: the answer is a document."""


class _Canvas(_Screen):
    """A terminal: what fits is drawn over itself, the whole at the end."""

    def __init__(self, out: Out, page: Page) -> None:
        self._out, self._page = out, page
        self._live = Live(console=out.stdout, auto_refresh=False, transient=True, vertical_overflow="crop")

    def __enter__(self) -> "_Canvas":
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def refresh(self) -> None:
        out, page = self._out, self._page
        under = page.under(out.width, colour=out.has_colour)
        room = max(3, out.stdout.height - len(under) - 5)
        who = Text(page.ask.prompt.strip(), style="dim", no_wrap=True, overflow="ellipsis")
        shown = page.lines(out.width, colour=out.has_colour)[-room:]
        self._live.update(Group(who, Text(), *shown, Text(), *under), refresh=True)

    def finish(self) -> None:
        self._out.show(self._page.whole(self._out.width, colour=self._out.has_colour))


class _Feed(_Screen):
    """A pipe: lines are printed as soon as they are complete, what sums them up at the end."""

    def __init__(self, out: Out, page: Page) -> None:
        self._out, self._page, self._done = out, page, 0
        out.show(Text(page.ask.prompt.strip()), Text(), sep="\n")

    def refresh(self) -> None:
        self._print(lay_out(self._page.score.words, self._out.width)[:-1])

    def finish(self) -> None:
        page, out = self._page, self._out
        self._print(lay_out(page.score.words, out.width))
        under = page.under(out.width, colour=False)
        out.show(Text(), title(page.reading()), Text(), *under, *([Text()] if under else []), page.foot(), sep="\n")

    def _print(self, lines: Sequence[Line]) -> None:
        page, out = self._page, self._out
        fresh = lines[self._done :]
        for line in fresh:
            rows = draw_line(line, page.score.leaders, page.palette, width=out.width, colour=False)
            out.show(*rows, sep="\n")
        if fresh:
            out.stdout.file.flush()
        self._done += len(fresh)
