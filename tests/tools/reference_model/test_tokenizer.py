from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tools.reference_model import tokenizer
from tools.reference_model.__main__ import BUNDLE
from tools.reference_model.corpus import Document
from tools.reference_model.lexicon import pairs

TEXT = "Tom's café costs 3 dollars.\nIs it far? “No.”"


@pytest.fixture(scope="module")
def bundled() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(BUNDLE)


def test_learned_merges_round_trip(tmp_path: Path) -> None:
    docs = [Document("story", f"The dog number {i} barked. <|user|>Hi<|assistant|>Hello") for i in range(50)]
    tokenizer.write(tokenizer.learn(docs, vocab=320, seed=0), tmp_path, context=64)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.decode(loaded(TEXT)["input_ids"], skip_special_tokens=True) == TEXT
    assert loaded.model_max_length == 64


def test_encoded_documents_have_a_beginning_and_an_end() -> None:
    learned = tokenizer.learn([Document("story", "a dog and a cat")] * 3, vocab=270, seed=0)
    (code,) = tokenizer.encode(learned, ["a dog"])
    assert [code[0], code[-1]] == [learned.token_to_id("<|bos|>"), learned.token_to_id("<|eos|>")]


def test_the_bundled_tokenizer_round_trips(bundled: PreTrainedTokenizerBase) -> None:
    assert bundled.decode(bundled(TEXT)["input_ids"], skip_special_tokens=True) == TEXT


def test_most_capitals_are_single_tokens(bundled: PreTrainedTokenizerBase) -> None:
    cities = [city for _, city in pairs("capitals")]
    single = [len(bundled(" " + city, add_special_tokens=False)["input_ids"]) == 1 for city in cities]
    assert sum(single) > 0.8 * len(cities)


def test_the_chat_template_writes_the_marks_of_the_corpus(bundled: PreTrainedTokenizerBase) -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    text = bundled.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|bos|><|system|>Be kind.<|user|>Hi<|assistant|>"
