"""What a battery file may say: relations, facts, templates, literal prompts and probes, each key checked.

The rule of the file: a record that exists is sound in itself and in its relation: placeholders exist, ids are unique,
controls point at facts, and every fact is worded in every language that a template asks in.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ftw.substrate.config import Strict
from ftw.sweep.battery.prompt import ORIGINAL, Kind

PLACEHOLDERS = ("subject", "Subject")
"""What a template may hold: the subject as it is, and with its first letter in upper case."""


def _trimmed(text: str) -> str:
    if not text or text != text.strip():
        raise ValueError(f"{text!r} is empty or has blanks around it: write it without")
    return text


def _written(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is empty: a prompt needs at least one character")
    return text


def _named(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", text):
        raise ValueError(f"{text!r} is no name: names are letters, digits, dots, dashes and underscores")
    return text


def _fillable(text: str) -> str:
    """A template's text. Raises ValueError for other placeholders than PLACEHOLDERS, or none."""
    _written(text)
    try:
        found = [name for _, name, spec, conversion in Formatter().parse(text) if name is not None]
        plain = all(not spec and not conversion for _, _, spec, conversion in Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is no template ({error}): write a brace that is meant as {{{{ or }}}}") from error
    for name in found:
        if name not in PLACEHOLDERS or not plain:
            near = get_close_matches(name, PLACEHOLDERS, n=1)
            hint = f"did you mean {{{near[0]}}}?" if near else "templates take {subject} and {Subject}"
            raise ValueError(f"{{{name}}} is no placeholder; {hint}")
    if not found:
        raise ValueError(f"{text!r} has no {{subject}}: every fact would get the same prompt")
    return text


Trimmed = Annotated[str, AfterValidator(_trimmed)]
Written = Annotated[str, AfterValidator(_written)]
Named = Annotated[str, AfterValidator(_named)]
Fillable = Annotated[str, AfterValidator(_fillable)]


class Wording(Strict):
    """A fact in one language."""

    subject: Trimmed
    answer: Trimmed
    aliases: tuple[Trimmed, ...] = ()
    """Other answers that count as right."""


class Fact(Wording):
    """One fact of a relation, worded in the relation's language and, if need be, in others."""

    id: Trimmed | None = None
    """Unique in the relation. Left out, it is `subject→answer`."""
    control: Trimmed | None = None
    """Id or subject of the fact that this one's negative controls are about; left out, the relation's rule decides."""
    languages: dict[Named, Wording] = Field(default_factory=dict)
    """The fact in other languages than the relation's."""

    @property
    def key(self) -> str:
        """The fact's id."""
        return self.id or f"{self.subject}→{self.answer}"


class Template(Strict):
    """A text with a gap for the subject, and variants of it."""

    id: Named
    text: Fillable
    """The variant `orig`."""
    variants: dict[Named, Fillable] = Field(default_factory=dict)
    """The same question put otherwise, by name, for example `no_filler`."""
    language: Named | None = None
    """Left out: the relation's."""

    @model_validator(mode="after")
    def _no_second_original(self) -> "Template":
        if ORIGINAL in self.variants:
            raise ValueError(f"the variant {ORIGINAL!r} is the template's own text: give this one another name")
        return self

    @property
    def texts(self) -> Mapping[str, str]:
        """Every variant's text by name, `orig` first."""
        return {ORIGINAL: self.text, **self.variants}


class Line(Strict):
    """A prompt that is written out: an entry of a relation, or a row of a CSV or JSONL file."""

    text: Written
    answer: Trimmed | None = None
    aliases: tuple[Trimmed, ...] = ()
    control_answer: Trimmed | None = None
    id: Trimmed | None = None
    """Unique in the relation. Left out: its number, from 1."""
    fact: Trimmed | None = None
    """Id of the fact. Rows of one fact are several prompts for it."""
    variant: Named = ORIGINAL
    language: Named | None = None
    """Left out: the relation's."""
    kind: Kind | None = None
    """Left out: `fact` with an answer, `probe` without."""


class Probe(Strict):
    """A free text without an answer, to look at."""

    text: Written
    id: Named | None = None
    """Unique among the probes. Left out: its number, from 1."""
    language: Named = "en"


class Relation(Strict):
    """Facts of one kind and the templates that ask for them, or prompts that are written out, or both."""

    name: Named
    about: str = ""
    language: Named = "en"
    """Of the facts' own wording, and of templates and prompts that name none."""
    controls: Literal["none", "next"] = "none"
    """Negative controls of facts that name no control. `next`: each is asked about the next fact with another answer,
    the last about the first."""
    templates: tuple[Template, ...] = ()
    facts: tuple[Fact, ...] = ()
    prompts: tuple[Line, ...] = ()

    @model_validator(mode="after")
    def _sound(self) -> "Relation":
        if bool(self.templates) != bool(self.facts):
            have, lack = ("facts", "templates") if self.facts else ("templates", "facts")
            raise ValueError(f"relation {self.name} has {have} but no {lack}: together they make prompts")
        if not self.facts and not self.prompts:
            raise ValueError(f"relation {self.name} has no prompts: give it facts and templates, or prompts")
        only_once((template.id for template in self.templates), f"relation {self.name}: template")
        only_once((fact.key for fact in self.facts), f"relation {self.name}: fact")
        for fact in self.facts:
            self.control_of(fact)
            for template in self.templates:
                self.wording(fact, template)
        return self

    def wording(self, fact: Fact, template: Template) -> Wording:
        """The fact in the template's language. Raises ValueError where the fact lacks it."""
        language = template.language or self.language
        if language == self.language:
            return fact
        if language not in fact.languages:
            raise ValueError(
                f"template {template.id} asks in {language!r}, and fact {fact.key} is not worded in it: "
                f"add languages.{language} with subject and answer"
            )
        return fact.languages[language]

    def control_of(self, fact: Fact) -> Fact | None:
        """The fact that the controls of `fact` are about; None for none. Raises ValueError where it cannot serve."""
        if fact.control is None:
            return self._next(fact) if self.controls == "next" else None
        named = [other for other in self.facts if fact.control in (other.key, other.subject)]
        if len(named) != 1:
            known = [other.key for other in self.facts if other is not fact]
            near = get_close_matches(fact.control, known, n=1, cutoff=0.3)
            hint = f"; did you mean {near[0]}?" if near else ""
            count = "no fact" if not named else f"{len(named)} facts: give the id"
            raise ValueError(f"fact {fact.key}: its control {fact.control!r} is {count} of {self.name}{hint}")
        if named[0] is fact or not apart(fact, named[0]):
            raise ValueError(f"fact {fact.key}: its control {named[0].key} has the same answer: name another one")
        return named[0]

    def _next(self, fact: Fact) -> Fact:
        at = self.facts.index(fact)
        for other in (*self.facts[at + 1 :], *self.facts[:at]):
            if apart(fact, other):
                return other
        raise ValueError(
            f"fact {fact.key}: no other fact of {self.name} has another answer, so none can be its control"
        )


class Head(Strict):
    """The table [battery] of a TOML file."""

    name: Named
    version: Trimmed
    about: str = ""
    temperatures: tuple[Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)], ...] = ()
    """At which the first prompt's next-token distribution is shown besides 1."""


class BatteryFile(Strict):
    """A battery file in TOML."""

    battery: Head
    relations: tuple[Relation, ...] = ()
    probes: tuple[Probe, ...] = ()


def apart(one: Wording, other: Wording) -> bool:
    """Whether no answer of the one counts as right for the other."""
    return not {one.answer, *one.aliases} & {other.answer, *other.aliases}


def only_once(ids: Iterable[str], what: str) -> None:
    """Raises ValueError that names an id which stands twice."""
    for name, count in Counter(ids).items():
        if count > 1:
            raise ValueError(f"{what} {name} stands {count} times: ids are unique")
