from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ftw.hat.steering import Directions, Evaluator, Steer, load_directions, save_directions, train_directions
from ftw.hat.steering.evaluation import Effect
from ftw.hat.steering.table import DAMAGED, ENOUGH, STEP, WHOLE, default_block, search_gains
from ftw.substrate.errors import (
    FingerprintMismatch,
    NumericError,
    PackError,
    SiteError,
    StorageError,
    UnknownConcept,
    UsageError,
)
from ftw.substrate.model import Model, from_net
from ftw.substrate.reference import tiny
from ftw.substrate.types import Site


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


@pytest.fixture
def table() -> Directions:
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(3, 32), dim=-1)
    return Directions(("Food", "Animal", "Sea"), Site(2), vectors, torch.tensor([0.2, 0.3, 0.4]), "ab" * 32)


def test_a_saved_table_loads_back(tmp_path: Path, table: Directions) -> None:
    save_directions(tmp_path, table)
    found = load_directions(tmp_path, fingerprint="ab" * 32)
    assert (found.terms, found.site, len(found)) == (table.terms, table.site, 3)
    assert torch.allclose(found.vectors, table.vectors, atol=1e-3)
    assert torch.allclose(found.vectors.norm(dim=-1), torch.ones(3), atol=1e-6)
    assert torch.equal(found.gains, table.gains)


def test_a_direction_is_found_in_any_case(table: Directions) -> None:
    found = table.direction("food")
    assert (found.term, found.site, found.gain) == ("Food", Site(2), pytest.approx(0.2))
    with pytest.raises(UnknownConcept, match="nearest: Animal"):
        table.direction("animals")


def test_directions_of_another_model_are_refused(tmp_path: Path, table: Directions) -> None:
    save_directions(tmp_path, table)
    with pytest.raises(FingerprintMismatch, match=r"abababab, this model is 12121212"):
        load_directions(tmp_path, fingerprint="12" * 32)


def test_what_is_not_finite_is_not_saved(tmp_path: Path, table: Directions) -> None:
    with pytest.raises(NumericError, match="gains of the directions"):
        save_directions(tmp_path, replace(table, gains=table.gains / 0))


def test_damaged_files_are_named(tmp_path: Path, table: Directions) -> None:
    file = tmp_path / "directions.safetensors"
    with pytest.raises(StorageError, match="does the pack have directions"):
        load_directions(tmp_path, fingerprint="")
    file.write_bytes(b"nothing")
    with pytest.raises(PackError, match="truncated or not a safetensors file"):
        load_directions(tmp_path, fingerprint="")
    save_file({"vectors": torch.ones(1)}, file)
    with pytest.raises(PackError, match="no table of directions"):
        load_directions(tmp_path, fingerprint="")
    save_directions(tmp_path, replace(table, terms=("Food", "Animal")))
    with pytest.raises(PackError, match="2 concepts, vectors"):
        load_directions(tmp_path, fingerprint="ab" * 32)


def test_a_nan_in_a_file_names_the_concept(tmp_path: Path, table: Directions) -> None:
    from safetensors import safe_open

    save_directions(tmp_path, table)
    file = tmp_path / "directions.safetensors"
    with safe_open(file, "pt") as stored:
        said = stored.metadata()
    for name, match in (("gains", "gain of 'Food' is not finite"), ("vectors", "no direction for 'Food'")):
        tensors = load_file(file)
        tensors[name].view(-1)[0] = float("nan")
        save_file(tensors, file, metadata=said)
        with pytest.raises(NumericError, match=match):
            load_directions(tmp_path, fingerprint="ab" * 32)
        save_directions(tmp_path, table)


def test_directions_are_trained_for_concepts_whose_words_can_be_told(model: Model) -> None:
    told: list[tuple[str, int, int]] = []
    # the tiny model's tokens are bytes: a word's first one is the space, so only words of one byte would do
    with pytest.raises(UsageError, match="none of the 1 concepts"):
        train_directions(model, {"Food": ["bread"]})
    named = from_net(model.net, _first_letters(model), name="letters")
    table = train_directions(
        named, {"A": ["a"], "Long": ["two words"], "B": ["b"]}, progress=lambda *step: told.append(step)
    )
    assert table.terms == ("A", "B")
    assert table.site == Site(default_block(4))
    assert bool((table.gains > 0).all())
    assert table.fingerprint == model.fingerprint
    assert ("calibrating directions", 2, 2) in told
    assert ("steering, round 1", 2, 2) in told


def test_a_block_that_is_not_there_is_refused(model: Model) -> None:
    with pytest.raises(SiteError, match=r"no such site: block 4. This model has blocks 0\.\.3"):
        train_directions(model, {"A": ["a"]}, block=4)


def _first_letters(model: Model) -> object:
    """The tiny tokenizer, but a space before a word is no token of its own."""

    class Letters(type(model.tokenizer)):  # type: ignore[misc]
        def __call__(self, text: str, **options: object) -> object:
            return super().__call__(text.removeprefix(" ") if len(text) == 2 else text, **options)

    from ftw.substrate.bundled import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.__class__ = Letters
    return tokenizer


class Scripted(Evaluator):
    """An evaluator that tells what it was told to: (multiple, perplexity ratio) per concept and round."""

    def __init__(self, script: dict[str, list[tuple[float, float]]]) -> None:
        self.script = {term: list(told) for term, told in script.items()}

    def measure(self, steers: Sequence[Steer], words: Mapping[str, Collection[str]]) -> list[Effect]:
        told = [(steer, self.script[steer.direction.term].pop(0)) for steer in steers]
        return [
            Effect(s.direction.term, s.strength, 0.1, 0.01, multiple, ratio, 1, "") for s, (multiple, ratio) in told
        ]


def test_gains_follow_what_is_written_and_right_ones_are_left_alone(table: Directions) -> None:
    weak, fine, broken = (ENOUGH / 2, WHOLE - 0.1), (2 * ENOUGH, WHOLE), (2 * ENOUGH, DAMAGED + 0.1)
    scripted = Scripted({"Food": [weak, weak], "Animal": [fine], "Sea": [broken, fine]})
    words = {term: ["x"] for term in table.terms}
    found = search_gains(scripted, table, words)
    assert found.gains.tolist() == pytest.approx([0.2 * STEP**2, 0.3, 0.4 / STEP])
    assert not any(scripted.script.values())


def test_a_concept_without_words_to_count_keeps_its_gain(table: Directions) -> None:
    found = search_gains(Scripted({"Food": [(0.0, 1.0)]}), table, {"Food": ["x"]}, rounds=1)
    assert found.gains.tolist() == pytest.approx([0.2 * STEP, 0.3, 0.4])
