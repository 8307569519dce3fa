"""Prompt: one text that is swept, with the answer that is looked for and where both come from.

The rule of the file: a prompt is plain data. What it becomes in tokens depends on the model, and is `gold`'s business.
"""

from dataclasses import dataclass, field
from typing import Literal

from ftw.substrate.errors import ConfigError

Kind = Literal["fact", "control", "probe"]
"""`fact`: the text asks for the fact's answer. `control`: the same template about another subject; the fact's answer
would be wrong here. `probe`: a free text without an answer, to look at."""

ORIGINAL = "orig"
"""The variant that a template's own text is."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One text of a battery. Raises ConfigError where the parts contradict each other."""

    id: str
    """Unique in its battery: relation/fact/template/variant."""
    text: str
    answer: str | None = None
    """The continuation that is looked for, without a leading space; None for a probe."""
    aliases: tuple[str, ...] = ()
    """Other continuations that count as right."""
    control_answer: str | None = None
    """The answer that must not win here: of a fact the other subject's, of a control the fact's own."""
    relation: str = ""
    fact_id: str = ""
    """The fact that this prompt asks for, or that it is the control of."""
    fact_index: int | None = None
    """The fact's place in its relation, from 0; None where the prompt belongs to no listed fact."""
    template: str = ""
    variant: str = ORIGINAL
    language: str = "en"
    """BCP 47, for example `en`, `de`, `pt-BR`."""
    kind: Kind = "fact"
    where: str = field(default="", compare=False, repr=False)
    """The file and table, or line, that it was read from: error messages begin with it."""

    def __post_init__(self) -> None:
        if not self.text:
            raise ConfigError(f"{self.place}: the text is empty")
        if self.kind == "probe":
            if self.answer is not None or self.aliases or self.control_answer is not None:
                raise ConfigError(f"{self.place}: a probe has no answer; leave the answers out, or make it a fact")
            return
        if self.answer is None:
            raise ConfigError(f"{self.place}: a {self.kind} needs an answer; give one, or make it a probe")
        if self.control_answer in self.gold:
            raise ConfigError(
                f"{self.place}: {self.control_answer!r} is both the answer and the control's answer: "
                f"a control asks for something else"
            )

    @property
    def gold(self) -> tuple[str, ...]:
        """Every continuation that counts as right, the answer first; empty for a probe."""
        return () if self.answer is None else (self.answer, *self.aliases)

    @property
    def place(self) -> str:
        """Where to look when something is wrong with it: file, table or line, and id."""
        return f"{self.where}: prompt {self.id}" if self.where else f"prompt {self.id}"
