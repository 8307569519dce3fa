import json
from pathlib import Path

from ftw.map.ontology.wordnet import WordNet
from tools.reference_model.chats import BOS
from tools.reference_model.corpus import SHARES
from tools.reference_model.lens_text import SEED, write


def test_text_for_lenses_is_of_every_kind_and_leaves_the_opening_to_the_tokenizer(wn: WordNet, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "text.jsonl"
    n = write(wn, out, seed=SEED, megabytes=0.05)
    records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert n == len(records)
    assert {record["kind"] for record in records} == set(SHARES)
    assert not any(record["text"].startswith(BOS) for record in records)
