"""Small tokenizers of each kind that language models use, on a tiny net: byte-level, sentencepiece-like, wordpiece."""

from collections.abc import Callable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from ftw.substrate.bundled import tiny_net
from ftw.substrate.model import Model, from_net

TEXT = [
    "The capital of Germany is called Berlin and the capital of France is called Paris.",
    "Rome is in Italy, Tokyo is in Japan, Ottawa is in Canada. New York is a city.",
    "日本の首都は東京です。",
    "is called Berlin is called Paris is called Rome is called Tokyo is called Ottawa",
] * 4


def wrapped(core: Tokenizer, **special: str) -> Model:
    """A tiny model that speaks the tokenizer. Its vocabulary need not fit: nothing is run."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False, **special)
    return from_net(tiny_net(), tokenizer, name="speller")


def byte_level(*, begins: bool = False) -> Model:
    """GPT-2's kind: bytes, merges, a blank belongs to the word after it."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=500, initial_alphabet=alphabet, special_tokens=["<s>", "<|said|>"], show_progress=False
        ),
    )
    if begins:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return wrapped(core, bos_token="<s>", additional_special_tokens=["<|said|>"])


def sentencepiece() -> Model:
    """Llama 2's kind: a blank is a mark of its own that words begin with, and a text begins with one."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    core.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>"], show_progress=False)
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return wrapped(core, bos_token="<s>", unk_token="<unk>")


def wordpiece() -> Model:
    """BERT's kind: lower case, no blanks in tokens, a token before and one after every text."""
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(cleanup=False)
    core.train_from_iterator(
        TEXT,
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False),
    )
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return wrapped(core, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


KINDS: dict[str, Callable[[], Model]] = {
    "byte-level": byte_level,
    "byte-level with BOS": lambda: byte_level(begins=True),
    "sentencepiece": sentencepiece,
    "wordpiece": wordpiece,
}
