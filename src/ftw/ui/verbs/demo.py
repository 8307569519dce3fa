"""Demo: a minute with a real model, made of the verbs' own parts. Nothing in it is canned."""

import time
from dataclasses import dataclass

from rich.text import Text

from ftw.hat.steering import DEFAULT_STRENGTH
from ftw.substrate.model import Model
from ftw.ui.app import open_lenses, open_model
from ftw.ui.cli.output import Out
from ftw.ui.reading import Lenses
from ftw.ui.verbs import peek, poc, steer, watch
from ftw.ui.verbs.generation import Ask
from ftw.ui.visualization.figure import title
from ftw.ui.visualization.palette import ACCENT, grey

STORY = "Tell me a story about a storm."
STEERED, CONCEPT = "Tell me a story.", "food"
FACT = "The capital of France is"
PACE_S = 0.06
"""Between two tokens, so that a person can follow."""
PAUSE_S = 5.0
"""After a part, to read it."""
TOKENS = 72


@dataclass(frozen=True)
class Show:
    """Where the demo is given, and how slowly."""

    out: Out
    is_paced: bool

    @property
    def pace_s(self) -> float:
        """Seconds between two tokens."""
        return PACE_S if self.is_paced else 0.0

    def part(self, number: int, what: str, why: str) -> None:
        """Announce a part."""
        accent = ACCENT if self.out.has_colour else ""
        head = Text.assemble((f"{number}  ", accent), (what, "bold"))
        self.out.show(head, Text(f"   {why}", grey()), Text(), sep="\n")

    def rest(self) -> None:
        """Time to read."""
        self.out.show(Text())
        if self.is_paced:
            time.sleep(PAUSE_S)


def run(out: Out, *, model: str | None, is_paced: bool) -> None:
    """Give the demo, or its document. Ctrl-C ends it after what is on the screen."""
    began = time.perf_counter()
    show = Show(out, is_paced and out.is_live)
    opened = open_model(model, out)
    lenses = open_lenses(opened, None, out)
    _head(out, opened, lenses)
    named = "" if model is None else f" --model {model}"
    document = {
        "command": "demo",
        "model": {"name": opened.name, "fingerprint": opened.fingerprint},
        "watch": _watch(show, opened, lenses, named),
        "steer": _steer(show, opened, lenses, named),
        "peek": _peek(show, opened, named),
        "poc": _poc(show, opened, named),
    }
    seconds = time.perf_counter() - began
    out.show(title("Go on yourself"), Text(), sep="\n")
    for line, what in (
        ('ftw watch "Tell me a story about a doctor."', "watch another text"),
        ('ftw steer "Tell me a story." --concept plant', "push another concept"),
        ('ftw peek "The opposite of hot is"', "see another answer form"),
        ("ftw pack show", "what can be read"),
        ("ftw --help", "all verbs"),
    ):
        out.show(Text.assemble(f"  {line:<50}", (what, grey())))
    out.document(document | {"seconds": seconds})


def _head(out: Out, model: Model, lenses: Lenses) -> None:
    size = sum(p.numel() for p in model.net.parameters()) / 1e6
    out.show(title(f"A language model with {size:.1f} million weights in {model.n_layers} blocks, opened up"))
    out.show(Text(f"{model.name} {model.fingerprint[:8]} · {lenses.title}", grey()), Text(), sep="\n")


def _watch(show: Show, model: Model, lenses: Lenses, named: str) -> dict[str, object]:
    show.part(1, "It writes, and every state is read", "A concept stands under the word that its state wrote.")
    ask = Ask(STORY, max_tokens=TOKENS)
    page = watch.Page(model, lenses, ask, top=5, command=f'ftw watch "{STORY}" -n {TOKENS}{named}')
    if watch.play(show.out, page, pace_s=show.pace_s):
        raise KeyboardInterrupt
    show.rest()
    return page.document()


def _steer(show: Show, model: Model, lenses: Lenses, named: str) -> dict[str, object]:
    show.part(2, "The same prompt, steered", f"A push towards {CONCEPT} at one block, at every token.")
    ask = Ask(STEERED, max_tokens=TOKENS)
    (term,) = lenses.resolve((CONCEPT,))
    command = f'ftw steer "{STEERED}" --concept {CONCEPT} -n {TOKENS}{named}'
    pair = steer.Pair(model, lenses, ask, term=term, strength=DEFAULT_STRENGTH, command=command)
    if steer.play(show.out, pair, pace_s=show.pace_s):
        raise KeyboardInterrupt
    show.rest()
    return pair.document()


def _peek(show: Show, model: Model, named: str) -> dict[str, object]:
    show.part(3, "Where an answer forms", "After each block: what the model would say if it stopped there.")
    found = peek.look(model, FACT)
    peek.draw(show.out, model, found, FACT, top=3, command=f'ftw peek "{FACT}"{named}')
    show.rest()
    return peek.document(model, found, FACT)


def _poc(show: Show, model: Model, named: str) -> dict[str, object]:
    show.part(4, "Proof that it was computed", "Vectors that only these weights give, whatever the batch.")
    found = poc.prove(show.out, model, 8)
    poc.draw(show.out, found, command=f"ftw poc hello{named}")
    show.rest()
    return found.record()
