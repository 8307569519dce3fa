"""Watching: the page is what the engine wrote and what the lenses read, token by token."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ftw.hat.classifiers import Reliability
from ftw.hat.monitoring import SimplexScore
from ftw.hat.monitoring.resident import ROOTS_FIRST
from ftw.hat.steering import Direction
from ftw.map.registry.concept_pack import bundled_concept_pack
from ftw.substrate.engine import Chunk, TransformersEngine
from ftw.substrate.errors import FingerprintMismatch
from ftw.substrate.model import Model, load
from ftw.substrate.types import Controller, Edit, Site, Step
from ftw.ui.app import open_lenses
from ftw.ui.cli.output import Out, plain
from ftw.ui.reading import Lenses, Read
from ftw.ui.verbs.generation import Ask
from ftw.ui.verbs.watch import Page, play
from tests.ui.conftest import Ftw


@dataclass(frozen=True)
class Seen:
    term: str
    p: float
    baseline: float = 0.02
    z: float = 9.0
    auroc: float | None = 0.95
    above: bool = True
    level: int = 1
    reliability: Reliability | None = None
    sibling_p: float | None = None


@dataclass(frozen=True)
class Reading:
    index: int
    scores: tuple[Seen, ...]
    simplexes: tuple[SimplexScore, ...] = ()
    late: tuple[str, ...] = ()
    t_ms: Mapping[str, float] = field(default_factory=dict)


class EveryThird:
    """A controller in place of lenses: food at every third token, weather at the prompt's earlier positions."""

    def __init__(self, tell: Callable[[Read], None]) -> None:
        self.tell = tell

    @property
    def sites(self) -> Sequence[Site]:
        return (Site(0),)

    def __call__(self, step: Step) -> Sequence[Edit]:
        if step.phase == "prompt":
            for _ in range(len(step.input_ids) - 1):
                self.tell(Reading(0, (Seen("Weather", 0.9),)))
        self.tell(Reading(step.index, (Seen("Food", 0.9, above=step.index % 3 == 0),)))
        return ()


def fake(make: Callable[[int, Sequence[str], Callable[[Read], None]], Controller] | None = None) -> Lenses:
    def watcher(top: int, always: Sequence[str], tell: Callable[[Read], None]) -> Controller:
        return EveryThird(tell)

    def nowhere(term: str) -> Direction:
        raise AssertionError(f"nobody steers here, {term} least of all")

    return Lenses(bundled_concept_pack(), ("Food",), "fake", "1", "block 0", nowhere, make or watcher)


@pytest.fixture(scope="module")
def model() -> Model:
    return load("reference")


def page(model: Model, n: int = 12, **more: object) -> Page:
    return Page(model, fake(), Ask("Tell me a story about a storm.", max_tokens=n), top=5, **more)


def test_a_watched_text_is_the_unwatched_one(model: Model) -> None:
    watched = page(model)
    list(watched.write())
    (plain,) = TransformersEngine(model).generate(watched.ask.request(model))
    assert tuple(watched.score.tokens) == plain.tokens
    assert watched.score.text == plain.text


def test_a_reading_stands_at_the_token_that_its_state_wrote(model: Model) -> None:
    watched = page(model)
    list(watched.write())
    led = [mark is not None for mark in watched.score.leaders]
    assert led == [index % 3 == 0 for index in range(12)]
    assert all(mark is None or mark.concept == "Food" for mark in watched.score.leaders)


def test_the_claim_counts_what_is_drawn(model: Model) -> None:
    watched = page(model)
    list(watched.write())
    assert watched.reading().startswith("Food leads 4 of 12 tokens")
    assert "90 %" in watched.reading()


def test_a_text_without_loud_readings_is_called_quiet(model: Model) -> None:
    watched = page(model, 3)
    watched.add(Chunk("r", 5, " a", -0.1, "length"), ())
    assert watched.reading() == "Quiet: no concept is read with more than 50 % in 1 token"


def test_only_concepts_asked_for_are_drawn(model: Model) -> None:
    watched = page(model, 4, named=("Weather",))
    list(watched.write())
    assert all(mark is None for mark in watched.score.leaders)
    assert [track.concept for track in watched.tracks()] == ["Weather"]


class Screen:
    """An Out over strings: a terminal or a pipe."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, terminal: bool, json: bool = False) -> None:
        self.file = io.StringIO()
        monkeypatch.setattr("sys.stdout", self.file)
        for name in ("NO_COLOR", "COLUMNS", "LINES"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm-256color")
        if terminal:
            monkeypatch.setenv("FORCE_COLOR", "1")
        else:
            monkeypatch.delenv("FORCE_COLOR", raising=False)
        self.out = Out(json=json, command="ftw watch x")

    @property
    def text(self) -> str:
        return self.file.getvalue()


def test_a_pipe_gets_plain_lines_with_names_under_the_words(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, terminal=False)
    play(screen.out, page(model))
    assert "\x1b" not in screen.text
    assert any(set(line.split()) == {"food"} for line in screen.text.splitlines())
    assert max(map(len, screen.text.splitlines())) <= 80


def test_a_terminal_gets_the_page_once_at_the_end(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, terminal=True)
    play(screen.out, page(model))
    assert "\x1b[" in screen.text
    assert screen.text.count("Food leads 4 of 12 tokens") == 1


def test_ctrl_c_keeps_what_was_written(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, terminal=False)

    class Interrupts(EveryThird):
        def __call__(self, step: Step) -> Sequence[Edit]:
            if step.index == 6:
                raise KeyboardInterrupt
            return super().__call__(step)

    watched = page(model)
    watched.lenses = fake(lambda top, always, tell: Interrupts(tell))
    assert play(screen.out, watched)
    assert len(watched.score.tokens) == 6
    assert watched.score.words[0].text.strip() in screen.text
    assert watched.document()["finished"] == "interrupted"


def test_the_document_holds_every_token_with_its_readings(model: Model) -> None:
    watched = page(model)
    list(watched.write())
    document = json.loads(json.dumps(plain(watched.document())))
    assert "".join(token["text"] for token in document["tokens"]) == document["text"]
    assert all(token["logprob_nats"] <= 0 for token in document["tokens"])
    assert document["finished"] == "length"


def test_the_document_holds_the_prompt_and_what_each_reading_rests_on(model: Model) -> None:
    watched = page(model)
    list(watched.write())
    document = json.loads(json.dumps(plain(watched.document())))
    ids = watched.ask.request(model).ids
    assert [token["id"] for token in document["prompt_tokens"]] == list(ids)
    assert document["prompt_tokens"][0]["readings"][0]["concept"] == "Weather"
    (food,) = document["tokens"][0]["readings"]
    assert (food["concept"], food["level"], food["reliability"], food["sibling_p"]) == ("Food", 1, None, None)
    assert document["tokens"][0].keys() >= {"simplexes", "late", "t_ms"}


def test_a_manifest_restricts_what_is_read() -> None:
    out = Out(json=True)
    lenses = open_lenses(load("reference"), None, out, manifest="minimal-efficient")
    assert lenses.deployment is not None
    assert 0 < len(lenses.deployment.concepts) < len(lenses.terms)
    assert "manifest minimal-efficient" in lenses.title
    told = lenses.record["manifest"]
    assert isinstance(told, dict)
    assert told["fingerprint"] == lenses.deployment.fingerprint
    assert open_lenses(load("reference"), None, out).record["manifest"] is None


def test_a_pack_larger_than_its_memory_is_read_as_parents_ask(ftw: Ftw, tmp_path: Path) -> None:
    file = tmp_path / "roots.json"
    file.write_text(ROOTS_FIRST.model_dump_json())
    asked = ("watch", "Tell me a story about a dog.", "-n", "24", "--json")
    whole = ftw(*asked, "--manifest", str(file)).document
    small = ftw(*asked, "--lens-memory", "400kB").document
    assert "memory" not in whole["pack"]
    memory = small["pack"]["memory"]
    assert memory["bytes"] <= memory["budget"] == 400_000
    assert memory["resident"] < memory["slots"] < memory["lenses"] == 355
    assert small["pack"]["manifest"]["id"] == "small-memory"
    assert [token["text"] for token in small["tokens"]] == [token["text"] for token in whole["tokens"]]
    alike = 0
    for mine, all_of_it in zip(small["tokens"], whole["tokens"], strict=True):
        if not mine["late"]:
            read, wanted = ({r["concept"]: r["p"] for r in token["readings"]} for token in (mine, all_of_it))
            assert read == pytest.approx(wanted, abs=0.02)
            alike += 1
    assert alike  # how many have readings depends on how fast the disk is: tests of the bank itself hold that


def test_memory_that_holds_all_lenses_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTW_LENS_MEMORY", "64MB")
    assert open_lenses(load("reference"), None, Out(json=True)).memory is None
    monkeypatch.setenv("FTW_LENS_MEMORY", "500 kB")
    lenses = open_lenses(load("reference"), None, Out(json=True))
    assert lenses.memory is not None
    assert "58 of 355 concepts" in lenses.title
    assert "from the start, manifest small-memory" in lenses.title
    assert lenses.find_direction("Dog").term == "Dog"


def test_named_concepts_are_always_in_memory() -> None:
    lenses = open_lenses(load("reference"), None, Out(json=True), memory=400_000)
    lenses.make_watcher(5, ("Dog",), lambda reading: None)
    assert lenses.memory is not None
    assert lenses.memory()["resident"] > 58  # the dog came with its siblings


def test_too_little_memory_or_none_at_all_names_the_way_out(ftw: Ftw) -> None:
    line = ftw("watch", "Hello", "--lens-memory", "lots").failed(2)
    assert "--lens-memory: 'lots' is no size: give bytes with a unit, such as 64MB" in line
    line = ftw("watch", "Hello", "--lens-memory", "150kB").failed(2)
    assert "58 lenses must always be in memory" in line
    assert "allow more" in line
    with pytest.raises(FingerprintMismatch, match="was made for reference"):
        open_lenses(load("tiny"), "reference_everyday", Out(json=True), memory=1000)


def test_a_manifest_that_is_not_there_names_the_presets(ftw: Ftw) -> None:
    line = ftw("watch", "Hello", "--manifest", "safety-auditer").failed(2)
    assert "benchmark-v1, general-chat, minimal-efficient, safety-auditor" in line
