"""Text for fitting lenses on the reference model: documents as in its training, drawn with another seed, as JSONL.

`python -m tools.reference_model.lens_text --out build/lens-text.jsonl`. Needs WordNet's files, as the training does.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ftw.map.ontology.wordnet import WordNet
from tools.reference_model import tree
from tools.reference_model.chats import BOS
from tools.reference_model.corpus import documents

SEED = 7
"""Not the training's."""


def write(wn: WordNet, out: Path, *, seed: int, megabytes: float) -> int:
    """One object a line, `{"kind": …, "text": …}`, and how many. The tokenizer's own opening mark is left off."""
    found = documents(wn, tree.read(), seed, megabytes)
    lines = [json.dumps({"kind": each.kind, "text": each.text.removeprefix(BOS)}, ensure_ascii=False) for each in found]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.reference_model.lens_text", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dict", type=Path, default=Path("/usr/share/wordnet"), help="WordNet 3.0 dict folder")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--megabytes", type=float, default=4.0)
    args = parser.parse_args(argv)
    n = write(WordNet(args.dict), args.out, seed=args.seed, megabytes=args.megabytes)
    print(f"{n} documents in {args.out}")


if __name__ == "__main__":
    main()
