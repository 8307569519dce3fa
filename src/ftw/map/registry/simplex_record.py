"""Simplexes of a concept pack as simplexes.json holds them: two opposite poles, a middle, and words for each.

The rule of the file: a pole is known by its words and examples alone, and no two poles of a simplex share one.
"""

from pathlib import Path

from pydantic import Field, RootModel, ValidationError, model_validator

from ftw.substrate.config import Strict
from ftw.substrate.errors import PackError

SIMPLEXES = "simplexes.json"
POLES = ("negative", "neutral", "positive")
FEWEST = 3
"""Words or examples that a pole must have: one is left over to measure when others are learnt from."""


class Pole(Strict):
    """One end of a simplex, or its middle."""

    name: str = Field(min_length=1)
    words: list[str] = Field(default_factory=list)
    """Read in carriers, as member words of concepts are."""
    pos: str = "n"
    """`n`, `v` or `a`: which carriers its words stand in."""
    examples: list[str] = Field(default_factory=list)
    """Whole texts, read at their end."""

    @model_validator(mode="after")
    def _enough(self) -> "Pole":
        if len(self.words) + len(self.examples) < FEWEST:
            raise ValueError(f"pole {self.name!r} has fewer than {FEWEST} words and examples")
        return self


class Monitoring(Strict):
    """When a monitor says that a simplex reads something unusual."""

    baseline_window: int = Field(default=100, ge=50)
    """Tokens that the running baseline is taken over."""
    alert_threshold: float = Field(default=2.0, gt=0)
    """Standard deviations from the baseline."""
    trend_window: int = Field(default=500, ge=1)
    """Tokens that a trend is looked for in."""


class SimplexRecord(Strict):
    """One simplex, and what a monitor should make of it."""

    name: str = Field(min_length=1)
    negative: Pole
    neutral: Pole
    positive: Pole
    concept: str | None = None
    """The concept whose activation it tells from talk about it."""
    always_on: bool = False
    monitoring: Monitoring = Monitoring()

    @property
    def poles(self) -> tuple[Pole, Pole, Pole]:
        """In the order in which a lens answers."""
        return self.negative, self.neutral, self.positive

    @model_validator(mode="after")
    def _apart(self) -> "SimplexRecord":
        seen: dict[str, str] = {}
        for pole in self.poles:
            for text in (*pole.words, *pole.examples):
                other = seen.setdefault(text.casefold(), pole.name)
                if other != pole.name:
                    raise ValueError(f"simplex {self.name!r}: {text!r} stands for {other} and for {pole.name}")
        return self


class _Records(RootModel[list[SimplexRecord]]):
    """The file as a whole."""


def read_simplexes(folder: Path) -> tuple[SimplexRecord, ...]:
    """The simplexes of the pack in `folder`; none where it has no such file. Raises PackError that names the field."""
    file = folder / SIMPLEXES
    if not file.exists():
        return ()
    try:
        records = _Records.model_validate_json(file.read_bytes()).root
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, p['loc'])) or 'the file'}: {p['msg']}" for p in error.errors())
        raise PackError(f"{file}: {'; '.join(problems)}") from error
    names = [record.name.casefold() for record in records]
    twice = sorted({record.name for record in records if names.count(record.name.casefold()) > 1})
    if twice:
        raise PackError(f"{file}: {', '.join(twice)} stands twice: names of simplexes are unique")
    return tuple(records)
