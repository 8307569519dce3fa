"""Which prompts of a run the legacy files show, and under which tags.

The published suite calls a prompt about a fact `pos` and a control `ctl`, a wording `orig` or by its variant's name,
and a fact by key and index. A battery may ask a fact through several templates: the first one's variants keep their
names, those of another are called `template.variant`. Facts are numbered through the battery; a key that stands in
several relations is written `relation/key`. Controls carry the fact whose answer they must not say, except where there
is only one control: then both fields are empty, as published.

The rule of the file: tags are unique. Two prompts of one run never share all of them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftw.substrate.errors import ConfigError
from ftw.sweep.battery.prompt import ORIGINAL
from ftw.sweep.legacy.columns import Schema
from ftw.sweep.table import SweepTable


@dataclass(frozen=True)
class Pass:
    """One prompt as the legacy files tag it."""

    index: int
    """Into the table's `items`."""
    prompt_id: str
    """`pos`, or `ctl` for a control."""
    prompt_variant: str
    fact_key: str | None
    fact_index: int | None
    entry: Mapping[str, Any]
    """The prompt in the run's document."""

    @property
    def is_control(self) -> bool:
        """Whether the answer of the fact must not win here."""
        return self.prompt_id == "ctl"

    @property
    def tags(self) -> dict[str, Any]:
        """The four tags of a row."""
        return {
            "fact_key": self.fact_key,
            "fact_index": self.fact_index,
            "prompt_id": self.prompt_id,
            "prompt_variant": self.prompt_variant,
        }


@dataclass(frozen=True)
class Suite:
    """The prompts of a run in the published order: facts with their variants, then controls; probes apart."""

    passes: tuple[Pass, ...]
    probes: tuple[tuple[int, Mapping[str, Any]], ...]
    """Index and entry of every free text."""

    @property
    def baseline(self) -> Pass:
        """The first fact in its own wording: what the JSON document is about."""
        return self.passes[0]

    @property
    def control(self) -> Pass | None:
        """The baseline's control, None where it has none."""
        return next((one for one in self.passes if one.is_control and _about_same(one, self.baseline)), None)

    @property
    def ablated(self) -> Pass | None:
        """The baseline in another variant, `no_filler` where there is one."""
        others = [
            one
            for one in self.passes
            if not one.is_control and one != self.baseline and one.fact_key == self.baseline.fact_key
        ]
        named = {one.prompt_variant: one for one in reversed(others) if "." not in one.prompt_variant}
        return named.get("no_filler") or next(iter(reversed(named.values())), None)

    @property
    def facts(self) -> tuple[Pass, ...]:
        """Every fact in its own wording, the first that there is."""
        first: dict[str | None, Pass] = {}
        for one in self.passes:
            if not one.is_control:
                first.setdefault(one.fact_key, one)
        return tuple(first.values())

    def of(self, schema: Schema) -> tuple[Pass, ...]:
        """The passes that a schema's files show.

        `seed` has no columns for facts, so it shows one fact: the baseline, its variants, its control.
        """
        if schema == "extended":
            return self.passes
        own = [
            one
            for one in self.passes
            if not one.is_control and one.fact_key == self.baseline.fact_key and "." not in one.prompt_variant
        ]
        return (*own, *([self.control] if self.control else []))


def suite(document: Mapping[str, Any], table: SweepTable) -> Suite:
    """The run's prompts by their legacy tags.

    Where no prompt has an answer, every probe is a pass whose key is its id. Raises ConfigError where the document and
    the table are not of one run.
    """
    entries: Sequence[Mapping[str, Any]] = document["prompts"]
    ids = [entry["id"] for entry in entries]
    if ids != [item.id for item in table.items]:
        raise ConfigError(
            f"the document lists {len(ids)} prompts and the table {len(table.items)}, or others: take both from one run"
        )
    asked = [(at, entry) for at, entry in enumerate(entries) if entry["kind"] != "probe"]
    probes = tuple((at, entry) for at, entry in enumerate(entries) if entry["kind"] == "probe")
    if not asked:
        lone = [Pass(at, "pos", ORIGINAL, entry["id"], at, entry) for at, entry in enumerate(entries)]
        return Suite(tuple(lone), probes)
    return Suite(tuple(_tagged(asked)), probes)


def _tagged(asked: Sequence[tuple[int, Mapping[str, Any]]]) -> Iterator[Pass]:
    """Facts in the order of the battery, then controls."""
    keys = _keys([entry for _, entry in asked])
    indices = {key: at for at, key in enumerate(dict.fromkeys(keys.values()))}
    first: dict[str, str] = {}
    for _, entry in asked:
        first.setdefault(keys[_fact(entry)], entry.get("template") or "")
    controls = sum(entry["kind"] == "control" for _, entry in asked)
    taken: Counter[tuple[str, str, str]] = Counter()
    for at, entry in sorted(asked, key=lambda one: one[1]["kind"] == "control"):
        key = keys[_fact(entry)]
        is_control = entry["kind"] == "control"
        template = entry.get("template") or ""
        variant = entry["variant"] if template == first[key] else f"{template}.{entry['variant']}"
        prompt_id = "ctl" if is_control else "pos"
        taken[prompt_id, variant, key] += 1
        if (count := taken[prompt_id, variant, key]) > 1:
            variant = f"{variant}.{count}"
        alone = is_control and controls == 1
        yield Pass(at, prompt_id, variant, None if alone else key, None if alone else indices[key], entry)


def _fact(entry: Mapping[str, Any]) -> tuple[str, str]:
    return str(entry.get("relation") or ""), str(entry.get("fact_id") or entry["id"])


def _keys(entries: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """What each fact is called: its id, with the relation before it where several relations have that id."""
    facts = dict.fromkeys(map(_fact, entries))
    count = Counter(fact for _, fact in facts)
    return {(relation, fact): fact if count[fact] == 1 else f"{relation}/{fact}" for relation, fact in facts}


def _about_same(control: Pass, baseline: Pass) -> bool:
    return _fact(control.entry) == _fact(baseline.entry)
