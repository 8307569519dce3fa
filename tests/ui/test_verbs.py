"""What the verbs do beyond parsing: pictures, peeks, proofs, reports, packs."""

import dataclasses
import io
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from ftw.poc.hello import hello
from ftw.substrate.errors import ConfigError
from ftw.substrate.model import Model
from ftw.substrate.reference import tiny
from ftw.ui.app import lens_folder
from ftw.ui.verbs import peek, poc
from ftw.ui.verbs.models import size
from ftw.ui.visualization.export import write_picture
from ftw.ui.visualization.figure import count, facts
from tests.ui.conftest import Ftw


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


def draw(width: int, *, colour: bool) -> Text:
    return Text("storm & <rain>", style="bold on #112233" if colour else "")


def test_an_exported_svg_stands_alone_and_is_well_formed(tmp_path: Path) -> None:
    write_picture(tmp_path / "x.svg", draw, title="t")
    text = (tmp_path / "x.svg").read_text()
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert "storm" in "".join(root.itertext())
    assert "#112233" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in text


def test_an_exported_text_is_plain(tmp_path: Path) -> None:
    write_picture(tmp_path / "x.txt", draw, title="t")
    assert (tmp_path / "x.txt").read_text() == "storm & <rain>\n"


def test_watch_writes_the_picture_that_it_shows(ftw: Ftw, tmp_path: Path) -> None:
    ran = ftw("watch", "Tell me a story about a storm.", "-n", "12", "--export", str(tmp_path / "w.svg"))
    assert ran.code == 0, ran.err
    assert "wrote" in ran.err
    shown = "".join(ElementTree.fromstring((tmp_path / "w.svg").read_text()).itertext()).replace("\xa0", " ")
    claim = next(line for line in ran.out.splitlines() if "12 tokens" in line)
    assert claim[:60].rstrip() in shown


def test_an_answer_is_the_token_after_the_prompt_and_a_space(model: Model) -> None:
    assert peek.answer_id(model, "a", "b") == model.encode("a b")[len(model.encode("a"))]


def test_an_answer_that_adds_no_token_is_an_error(model: Model) -> None:
    class Deaf(Model):
        def encode(self, text: str, *, chat: bool = False) -> list[int]:
            return [1]

    deaf = Deaf(net=model.net, tokenizer=model.tokenizer, arch=model.arch, spec=model.spec, name="deaf")
    with pytest.raises(ConfigError, match="the answer 'x' adds no token"):
        peek.answer_id(deaf, "a", "x")


@pytest.mark.parametrize(
    ("argv", "claim"),
    [
        (["The capital of France is"], "Paris is first"),
        (["The capital of France is", "--answer", "London"], "London ends at rank"),
    ],
)
def test_the_claim_of_a_peek_comes_first(ftw: Ftw, argv: list[str], claim: str) -> None:
    assert ftw("peek", *argv).out.startswith(claim)


def test_a_proof_that_fails_is_shown_and_is_an_error(ftw: Ftw, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    good = hello(model, n=2)
    bad = dataclasses.replace(
        good, recomputed=dataclasses.replace(good.recomputed, identical=False, distances=(0.1, 0.2))
    )
    monkeypatch.setattr(poc, "prove", lambda out, opened, n: bad)
    ran = ftw("poc", "hello", "--model", "tiny")
    assert "differ by up to 0.2" in ran.failed(1)
    assert ran.out.startswith("2 vectors computed again differ by up to 0.2")


def test_a_push_beyond_numbers_is_an_error_not_a_text(ftw: Ftw) -> None:
    ran = ftw("steer", "Hello", "-c", "food", "--strength", "1e38", "-n", "4")
    assert ran.code == 1
    assert "Traceback" not in ran.err


def test_lens_training_wants_an_empty_folder(ftw: Ftw, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    assert "is not an empty folder" in ftw("lens", "train", "--out", str(tmp_path)).failed(1)


def test_lens_training_tells_an_unwritable_folder_before_any_work(ftw: Ftw, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in ftw("lens", "train", "--out", str(tmp_path / "file" / "lenses")).failed(1)


def test_a_pack_without_a_report_says_how_to_get_one(ftw: Ftw, tmp_path: Path) -> None:
    assert "holds no report.json" in ftw("lens", "report", "--pack", str(tmp_path)).failed(1)


def test_a_lens_pack_that_is_not_there_lists_those_that_ship(ftw: Ftw) -> None:
    line = ftw("lens", "report", "--pack", "no-such").failed(1)
    assert "no lens pack no-such" in line
    assert "reference_everyday" in line


def test_a_pack_is_found_by_its_folder_too() -> None:
    folder = lens_folder("reference_everyday")
    assert lens_folder(str(folder)) == folder


def test_a_concept_is_shown_with_its_place_and_words(ftw: Ftw) -> None:
    ran = ftw("pack", "show", "--concept", "BREAD")
    assert ran.code == 0
    assert "toast" in ran.out
    assert "food > bread" in " ".join(ran.out.split())


def test_an_unknown_concept_pack_lists_the_bundled_ones(ftw: Ftw) -> None:
    assert "everyday" in ftw("pack", "show", "no-such-pack").failed(1)


@pytest.mark.parametrize(
    ("n", "said"), [(512, "512 B"), (8192, "8.2 kB"), (26_000_000, "26 MB"), (2_100_000_000, "2.1 GB")]
)
def test_sizes_are_said_in_two_figures(n: int, said: str) -> None:
    assert size(n) == said


def test_facts_keep_their_column_when_they_are_long() -> None:
    console = Console(file=io.StringIO(), width=30)
    console.print(facts({"words": "one two three four five six seven"}))
    lines: Sequence[str] = console.file.getvalue().splitlines()
    assert len(lines) > 1
    assert all(line.startswith(" " * 9) for line in lines[1:])


def test_a_noun_agrees_with_its_number() -> None:
    assert [count(1, "token"), count(2, "token"), count(0, "lens", "lenses")] == ["1 token", "2 tokens", "0 lenses"]


def test_a_lens_pack_cut_short_on_its_way_names_the_file(ftw: Ftw, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(lens_folder("reference_everyday"), folder)
    weights = folder / "level0.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "level0.safetensors" in ftw("watch", "Hello", "--pack", str(folder)).failed(1)
