"""Peek: each block's next words, and the way of one answer through them."""

from ftw.substrate.errors import ConfigError
from ftw.substrate.model import Model
from ftw.sweep.peek import Peek, peek
from ftw.ui.app import open_model
from ftw.ui.cli.output import Out
from ftw.ui.visualization.charts import draw_blocks, percent, shown_token
from ftw.ui.visualization.figure import figure


def run(out: Out, prompt: str, *, model: str | None, answer: str | None, top: int) -> None:
    """Draw the peek of a prompt, or give its document."""
    opened = open_model(model, out)
    found = look(opened, prompt, answer=answer, top=top)
    draw(out, opened, found, prompt, top=top, command=out.command)
    out.document(document(opened, found, prompt))


def look(model: Model, prompt: str, *, answer: str | None = None, top: int = 3) -> Peek:
    """The peek of a prompt. Raises what `sweep.peek` raises, and ConfigError for an answer that adds no token."""
    # a space at the end would be a token of its own, and the next word would lose the space before it
    prompt = prompt.rstrip(" ")
    follow = None if answer is None else answer_id(model, prompt, answer)
    return peek(model, model.encode(prompt), k=min(top, model.vocab_size), answer_id=follow)


def answer_id(model: Model, prompt: str, answer: str) -> int:
    """The first token that `answer` adds after the prompt and a space. Raises ConfigError where it adds none."""
    before = model.encode(prompt)
    after = model.encode(f"{prompt} {answer.strip()}")
    for place, token in enumerate(after):
        if place >= len(before) or token != before[place]:
            return token
    raise ConfigError(f"the answer {answer!r} adds no token to the prompt: name a word that can follow it")


def draw(out: Out, model: Model, found: Peek, prompt: str, *, top: int, command: str) -> None:
    """The figure of a peek."""
    rows = draw_blocks(found.blocks, found.answer, width=min(out.width, 80), colour=out.has_colour, top=top)
    out.show(
        figure(
            reading(found),
            rows,
            f"“{prompt.strip()} …”",
            f"{model.name} {model.fingerprint[:8]}",
            f"identity gate exact, max error {found.gate.max_abs_error:.0e} logits",
            f"chance {percent(found.chance)}",
            command,
        )
    )


def reading(found: Peek) -> str:
    """The claim: from which block on the answer stands first."""
    last = found.blocks[-1]
    answer = shown_token(found.answer)
    if found.first_from is None:
        own = shown_token(last.top[0].token)
        return f"{answer} ends at rank {last.answer_rank} ({percent(last.answer_p)}): {own} is first"
    where = f"from block {found.first_from} on"
    if found.first_from == 0:
        where = "at every block"
    elif found.first_from == last.block:
        where = f"at the last block only ({last.block})"
    return f"{answer} is first {where}, {percent(last.answer_p)} at the end"


def document(model: Model, found: Peek, prompt: str) -> dict[str, object]:
    """What `--json` gives."""
    return {
        "command": "peek",
        "model": {"name": model.name, "fingerprint": model.fingerprint},
        "prompt": prompt,
        "prompt_tokens": len(found.ids),
        "answer": {"token": found.answer, "id": found.answer_id, "first_from_block": found.first_from},
        "chance_p": found.chance,
        "gate": {
            "exact": found.gate.exact,
            "max_abs_error_logits": found.gate.max_abs_error,
            "kl_bits": found.gate.kl_bits,
        },
        "blocks": found.blocks,
    }
