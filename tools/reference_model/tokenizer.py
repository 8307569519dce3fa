"""The byte-level BPE tokenizer: learned on the corpus, written as a transformers tokenizer folder."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tools.reference_model.chats import ASSISTANT, BOS, EOS, PAD, SYSTEM, USER
from tools.reference_model.corpus import Document

SPECIAL = (BOS, EOS, PAD, SYSTEM, USER, ASSISTANT)
# Left as they are, the merges split "Tokyo"; names and nouns deserve tokens of their own, or a lens cannot show them.
REPEATS = {"capital": 12, "opposite": 10, "typed": 2, "hypernym": 2}
CHAT_TEMPLATE = (
    "{{ '<|bos|>' }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '<|system|>' + message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '<|user|>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + '<|eos|>' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def learn(docs: Sequence[Document], vocab: int, seed: int, sample: int = 120_000) -> Tokenizer:
    """Learn the merges from a sample of the documents."""
    texts: list[str] = []
    for kind, text in random.Random(seed).sample(docs, min(sample, len(docs))):
        for mark in SPECIAL:
            text = text.replace(mark, "\n")
        texts += [text] * REPEATS.get(kind, 1)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=list(SPECIAL), show_progress=False, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos = [(BOS, tokenizer.token_to_id(BOS))]
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=bos),
        ]
    )
    return tokenizer


def write(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """The files ``AutoTokenizer`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "additional_special_tokens": [SYSTEM, USER, ASSISTANT],
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(named, indent=2) + "\n")


def encode(tokenizer: Tokenizer, texts: Sequence[str], chunk: int = 20_000) -> list[list[int]]:
    """Token ids of every text, with the marks of its beginning and end."""
    eos = tokenizer.token_to_id(EOS)
    out = []
    for at in range(0, len(texts), chunk):
        out += [[*code.ids, eos] for code in tokenizer.encode_batch(list(texts[at : at + chunk]))]
    return out
