"""The hand-written words of the corpus, read from ``words/``: names, families, capitals, opposites, plots, frames."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

WORDS = Path(__file__).parent / "words"


@cache
def table(name: str) -> dict[str, Any]:
    """The TOML file of that name."""
    return tomllib.loads((WORDS / f"{name}.toml").read_text())


def lines(name: str) -> list[str]:
    """The lines of the text file of that name, without comments."""
    return [line for line in (WORDS / f"{name}.txt").read_text().splitlines() if line and not line.startswith("#")]


@cache
def pairs(name: str) -> tuple[tuple[str, str], ...]:
    """The two columns of ``capitals`` or ``opposites``."""
    return tuple((left, right) for left, _, right in (line.partition(": ") for line in lines(name)))


def words(name: str) -> list[str]:
    """A list of ``words.toml``."""
    return list(table("words")[name])


@dataclass(frozen=True)
class Family:
    """A concept family of the stories: who does what with which things, and what goes wrong."""

    name: str
    places: tuple[str, ...]
    roles: tuple[str, ...]
    things: tuple[str, ...]
    adjectives: tuple[str, ...]
    actions: tuple[str, ...]
    predicates: tuple[str, ...]
    problems: tuple[tuple[str, str], ...]

    @property
    def topic(self) -> str:
        """How a sentence names the family: ``music``, ``the sea``."""
        return str(table("words")["family_topics"].get(self.name, self.name))

    @property
    def content_words(self) -> set[str]:
        """Words that speak of this family, for measuring topics."""
        pool = [self.name, *self.things, *self.roles, *self.places]
        return {w for p in pool for w in p.lstrip("~").lower().split()} - {"and", "of", "shop"}


def _split(text: str, by: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(by) if part.strip())


@cache
def families() -> dict[str, Family]:
    """All families by name, in the order of the file."""
    out = {}
    for line in lines("families"):
        name, places, roles, things, adjectives, actions, predicates, problems = line.split("|")
        troubles = [p.split("=>") for p in problems.split(";")]
        out[name] = Family(
            name,
            _split(places, ","),
            _split(roles, ","),
            _split(things, ","),
            _split(adjectives, ","),
            _split(actions, ";"),
            _split(predicates, ";"),
            tuple((problem.strip(), remedy.strip()) for problem, remedy in troubles),
        )
    return out
