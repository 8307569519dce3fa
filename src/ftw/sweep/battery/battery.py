"""Battery: a named, versioned set of prompts, read from a file or from those that ship with ftw.

The rule of the file: prompts come out in the file's order, each with an id that stands once, so two readings of one
file are the same prompts and a row of a result finds its prompt.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from ftw.substrate.canonical import canonical_json, sha256_hex
from ftw.substrate.errors import ConfigError
from ftw.sweep.battery.prompt import ORIGINAL, Kind, Prompt
from ftw.sweep.battery.reading import Row, read_bytes, read_csv, read_jsonl, read_toml
from ftw.sweep.battery.records import Fact, Line, Probe, Relation, Wording, apart, only_once

SUFFIXES = (".toml", ".csv", ".jsonl")


@dataclass(frozen=True)
class Battery:
    """Relations and probes. Raises ConfigError where ids stand twice, or where there is no prompt at all."""

    name: str
    version: str
    relations: tuple[Relation, ...] = ()
    probes: tuple[Probe, ...] = ()
    about: str = ""
    temperatures: tuple[float, ...] = ()
    """At which the first prompt's next-token distribution is shown besides 1."""
    source: str = ""
    """The file it was read from, or `bundled NAME`."""
    places: Mapping[str, str] | None = field(default=None, compare=False, repr=False)
    """Line in the file by prompt id, for files with a prompt per line."""

    def __post_init__(self) -> None:
        found = self.prompts()
        if not found:
            raise ConfigError(f"{self.source or self.name} holds no prompt: give it a relation or a probe")
        try:
            only_once((relation.name for relation in self.relations), "relation")
            only_once((prompt.id for prompt in found), "prompt")
        except ValueError as error:
            raise ConfigError(f"{self.source or self.name}: {error}") from error

    @classmethod
    def read(cls, what: Path | str) -> "Battery":
        """The battery of a file (.toml, .csv, .jsonl), or a bundled one by name.

        Raises ConfigError that names the file, the table or line and the key, StorageError where it cannot be read.
        """
        if str(what) in bundled():
            data = (files("ftw") / "bundled" / "batteries" / f"{what}.toml").read_bytes()
            return cls._of_toml(data, f"bundled {what}")
        file = Path(what)
        if file.suffix.lower() not in SUFFIXES:
            near = get_close_matches(str(what), bundled(), n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"{what} is no battery: {hint}give one of {', '.join(bundled())}, or a file {', '.join(SUFFIXES)}"
            )
        data, source = read_bytes(file), str(file)
        if file.suffix.lower() == ".toml":
            return cls._of_toml(data, source)
        read = read_csv if file.suffix.lower() == ".csv" else read_jsonl
        return cls._of_rows(read(data, source), name=file.stem, version=sha256_hex(data)[:12], source=source)

    @classmethod
    def _of_toml(cls, data: bytes, source: str) -> "Battery":
        record = read_toml(data, source)
        head = record.battery
        return cls(head.name, head.version, record.relations, record.probes, head.about, head.temperatures, source)

    @classmethod
    def _of_rows(cls, rows: list[tuple[Row, str]], *, name: str, version: str, source: str) -> "Battery":
        lines: dict[str, list[Line]] = {}
        places: dict[str, str] = {}
        for row, where in rows:
            group = lines.setdefault(row.relation, [])
            line = Line(**row.model_dump(exclude={"relation"}))
            group.append(line)
            key = _line_id(row.relation, line, len(group))
            if key in places:
                raise ConfigError(f"{where}: prompt {key} stands in {places[key]} too: ids are unique")
            places[key] = where
        relations = tuple(Relation(name=each, prompts=tuple(group)) for each, group in lines.items())
        return cls(name, version, relations, source=source, places=places)

    def prompts(self) -> list[Prompt]:
        """Every prompt: relations in order, in each the facts with their templates, variants and controls; then probes.

        Raises ConfigError that names the prompt whose parts contradict each other.
        """
        out: list[Prompt] = []
        for relation in self.relations:
            for index, fact in enumerate(relation.facts):
                out += self._of_fact(relation, index, fact)
            out += self._of_lines(relation)
        for number, probe in enumerate(self.probes, 1):
            name = probe.id or str(number)
            out.append(
                Prompt(f"probe/{name}", probe.text, language=probe.language, kind="probe", where=self._where(name))
            )
        return out

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over name, version and every prompt. Two batteries with one digest ask the same."""
        prompts = [{key: value for key, value in asdict(each).items() if key != "where"} for each in self.prompts()]
        return sha256_hex(canonical_json({"name": self.name, "version": self.version, "prompts": prompts}))

    def _of_fact(self, relation: Relation, index: int, fact: Fact) -> Iterator[Prompt]:
        control = relation.control_of(fact)
        for template in relation.templates:
            mine = relation.wording(fact, template)
            other = None if control is None else relation.wording(control, template)
            base = f"{relation.name}/{fact.key}/{template.id}"
            if other is not None and not apart(mine, other):
                raise ConfigError(
                    f"{self._where(base)}: in the language of template {template.id}, {fact.key} and its control "
                    f"{control.key if control else ''} have the same answer: name another control"
                )
            asked: list[tuple[str, Kind, str, Wording, Wording | None]]
            asked = [(variant, "fact", text, mine, other) for variant, text in template.texts.items()]
            if other is not None:
                asked.append((ORIGINAL, "control", template.text, other, mine))
            for variant, kind, text, about, against in asked:
                yield Prompt(
                    id=f"{base}/{'control' if kind == 'control' else variant}",
                    text=_fill(text, about.subject),
                    answer=about.answer,
                    aliases=about.aliases,
                    control_answer=None if against is None else against.answer,
                    relation=relation.name,
                    fact_id=fact.key,
                    fact_index=index,
                    template=template.id,
                    variant=variant,
                    language=template.language or relation.language,
                    kind=kind,
                    where=self._where(base),
                )

    def _of_lines(self, relation: Relation) -> Iterator[Prompt]:
        indices = {fact.key: index for index, fact in enumerate(relation.facts)}
        for number, line in enumerate(relation.prompts, 1):
            key = _line_id(relation.name, line, number)
            fact_id = line.fact or (key.removeprefix(f"{relation.name}/") if line.answer else "")
            yield Prompt(
                id=key,
                text=line.text,
                answer=line.answer,
                aliases=line.aliases,
                control_answer=line.control_answer,
                relation=relation.name,
                fact_id=fact_id,
                fact_index=indices.setdefault(fact_id, len(indices)) if line.answer else None,
                variant=line.variant,
                language=line.language or relation.language,
                kind=line.kind or ("fact" if line.answer else "probe"),
                where=self._where(key),
            )

    def _where(self, key: str) -> str:
        return (self.places or {}).get(key, self.source or self.name)


def bundled() -> tuple[str, ...]:
    """The names of the batteries that ship with ftw."""
    folder = files("ftw") / "bundled" / "batteries"
    return tuple(sorted(each.name.removesuffix(".toml") for each in folder.iterdir() if each.name.endswith(".toml")))


def _line_id(relation: str, line: Line, number: int) -> str:
    return f"{relation}/{line.id or number}"


def _fill(text: str, subject: str) -> str:
    return text.format(subject=subject, Subject=subject[:1].upper() + subject[1:])
