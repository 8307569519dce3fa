"""Text of tokens as they are written: whole characters, and nothing of a stop string."""

import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ftw.substrate.engine_text import REPLACEMENT, Detokenizer, StopGate

ODD = "héllo wörld 日本語 🙂👨‍👩‍👧 naïve — it's\n\tit"


@pytest.fixture(scope="module")
def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and one special token."""
    vocab = {piece: i for i, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<eos>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def test_a_character_of_several_tokens_comes_whole_with_its_last_one(bytes_tokenizer: PreTrainedTokenizerFast) -> None:
    detokenizer = Detokenizer(bytes_tokenizer)
    ids = bytes_tokenizer.encode(ODD)
    assert len(ids) == len(ODD.encode())
    pieces = [detokenizer.push(token) for token in ids]
    assert "".join(pieces) + detokenizer.flush() == ODD
    assert not any(REPLACEMENT in piece for piece in pieces)


def test_bytes_that_never_become_a_character_show_at_the_end(bytes_tokenizer: PreTrainedTokenizerFast) -> None:
    detokenizer = Detokenizer(bytes_tokenizer)
    ids = bytes_tokenizer.encode("a🙂")[:-1]
    assert "".join(detokenizer.push(token) for token in ids) == "a"
    assert detokenizer.flush() == REPLACEMENT


def test_pieces_of_random_bytes_join_to_the_whole_text(bytes_tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(0)
    for _ in range(30):
        ids = [rng.randrange(256) for _ in range(40)]
        detokenizer = Detokenizer(bytes_tokenizer)
        shown = "".join(detokenizer.push(token) for token in ids) + detokenizer.flush()
        assert shown == bytes_tokenizer.decode(ids) == Detokenizer(bytes_tokenizer).whole(ids)


def test_special_tokens_are_not_shown(bytes_tokenizer: PreTrainedTokenizerFast) -> None:
    detokenizer = Detokenizer(bytes_tokenizer)
    ids = [*bytes_tokenizer.encode("ab"), bytes_tokenizer.eos_token_id]
    assert "".join(detokenizer.push(token) for token in ids) + detokenizer.flush() == "ab"


def test_spaces_between_words_survive_a_tokenizer_that_strips_the_first_one() -> None:
    backend = Tokenizer(models.WordLevel({"▁the": 0, "▁cat": 1, "s": 2, "<unk>": 3}, unk_token="<unk>"))
    backend.decoder = decoders.Metaspace()
    detokenizer = Detokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert [detokenizer.push(token) for token in (0, 1, 2, 0)] == ["the", " cat", "s", " the"]


def test_a_tokenizer_without_a_rust_backend_works_too() -> None:
    class Letters:
        def decode(self, ids: list[int], *, skip_special_tokens: bool = True) -> str:
            return "".join(map(chr, ids))

    detokenizer = Detokenizer(Letters())
    assert detokenizer.push(104) + detokenizer.push(105) + detokenizer.flush() == "hi"


@pytest.mark.parametrize("stops", [("STOP",), ("xx", "STOP"), ("STOPPED", "STOP"), ("ST", "STOP")])
def test_text_ends_before_the_stop_however_it_is_cut(stops: tuple[str, ...]) -> None:
    text = "So it S-TO-STO STOPPED here"
    want = text[: min(at for at in (text.find(stop) for stop in stops) if at >= 0)]
    rng = random.Random(1)
    for _ in range(200):
        gate, shown, at = StopGate(stops), "", 0
        while at < len(text) and not gate.is_closed:
            size = rng.randrange(1, 5)
            shown += gate.push(text[at : at + size])
            at += size
            assert want.startswith(shown)
        assert gate.is_closed
        assert shown + gate.flush() == want


def test_a_false_beginning_of_a_stop_is_held_and_then_shown() -> None:
    gate = StopGate(("\n\nQ:",))
    assert gate.push("Yes.\n") == "Yes."
    assert gate.push("\n") == ""
    assert gate.push("Then") == "\n\nThen"
    assert not gate.is_closed


def test_what_is_held_comes_out_at_the_end_of_the_text() -> None:
    gate = StopGate(("END",))
    assert gate.push("the E") == "the "
    assert gate.flush() == "E"


def test_nothing_comes_through_a_closed_gate() -> None:
    gate = StopGate(("!",))
    assert gate.push("oh! no") == "oh"
    assert gate.push("more") == ""
    assert gate.flush() == ""


def test_without_stops_all_text_passes_at_once() -> None:
    gate = StopGate(())
    assert gate.push("anything") == "anything"
