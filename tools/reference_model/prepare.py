"""From seed to training windows: corpus, tokenizer, packed windows, and a record of what the corpus holds."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ftw.map.ontology.wordnet import WordNet
from tools.reference_model import corpus, tokenizer, tree
from tools.reference_model.chats import BOS, EOS, PAD
from tools.reference_model.corpus import Document
from tools.reference_model.packing import hold_out, pack, pack_by_length
from tools.reference_model.train import Data, Marks

HELD_ONE_IN = 400
SHORT_WINDOW = 256
TOKENIZER_SEED = 0


@dataclass(frozen=True)
class Prepared:
    """What training and evaluation need of the corpus."""

    data: Data
    marks: Marks
    held: list[Document]
    record: dict[str, object]


def prepare(wn: WordNet, work: Path, seed: int, megabytes: float, vocab: int, context: int) -> Prepared:
    """Write the corpus to ``work`` and the tokenizer to ``work/model``; give the windows."""
    docs = corpus.documents(wn, tree.read(), seed, megabytes)
    corpus.write(docs, work / "corpus.tsv")
    train, held, dropped = hold_out(docs, HELD_ONE_IN)
    learned = tokenizer.learn(train, vocab, TOKENIZER_SEED)
    tokenizer.write(learned, work / "model", context)
    marks: Marks = {"bos": learned.token_to_id(BOS), "eos": learned.token_to_id(EOS), "pad": learned.token_to_id(PAD)}
    codes = tokenizer.encode(learned, [d.text for d in train])
    short, long = pack_by_length(codes, min(SHORT_WINDOW, context), context, marks["pad"], seed)
    held_codes = [code[:context] for code in tokenizer.encode(learned, [d.text for d in held])]
    by_kind: Counter[str] = Counter()
    for d, code in zip(train, codes, strict=True):
        by_kind[d.kind] += len(code)
    record = {
        "seed": seed,
        "megabytes": megabytes,
        "sha256": hashlib.sha256((work / "corpus.tsv").read_bytes()).hexdigest(),
        "documents": len(docs),
        "tokens_by_kind": dict(by_kind),
        "held_out_documents": len(held),
        "held_out_copies_removed": dropped,
    }
    (work / "corpus.json").write_text(json.dumps(record, indent=1) + "\n")
    return Prepared(Data(short, long, pack(held_codes, context, marks["pad"])), marks, held, record)
