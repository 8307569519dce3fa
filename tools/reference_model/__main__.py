"""One command for the whole recipe: corpus, tokenizer, training, evaluation, card, bundle.

    python -m tools.reference_model --work build/reference-model

An hour and a half on two CPU cores.
``--start evaluate`` measures a model that is already trained.
"""

import argparse
import json
import shutil
from pathlib import Path

from ftw.map.ontology.wordnet import PREAMBLE, WordNet
from tools.reference_model import card, corpus, evaluate, tree
from tools.reference_model.decoder import Shape
from tools.reference_model.packing import hold_out
from tools.reference_model.prepare import HELD_ONE_IN, prepare
from tools.reference_model.train import Outlet, Recipe, train

REPOSITORY = Path(__file__).parents[2]
BUNDLE = REPOSITORY / "src" / "ftw" / "bundled" / "reference-model"
BUNDLED_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "training.json",
    "eval.json",
    "MODEL_CARD.md",
    "WORDNET-LICENSE",
)
STAGES = ("tree", "corpus", "evaluate", "bundle")


def wordnet_license(dict_folder: Path) -> str:
    """The licence text that heads every WordNet data file."""
    lines = (dict_folder / "data.noun").read_text("latin-1").splitlines()
    head = [line for line in lines if line.startswith(PREAMBLE)]
    numbered = [line.rstrip().split(maxsplit=1) for line in head]
    return "\n".join(part[1] if len(part) > 1 else "" for part in numbered) + "\n"


def bundle(model: Path, dict_folder: Path, target: Path) -> None:
    """Copy what ships to the package."""
    (model / "WORDNET-LICENSE").write_text(wordnet_license(dict_folder))
    target.mkdir(parents=True, exist_ok=True)
    for name in BUNDLED_FILES:
        shutil.copyfile(model / name, target / name)
        (target / name).chmod(0o644)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.reference_model", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for corpus, checkpoints and the model")
    parser.add_argument("--dict", type=Path, default=Path("/usr/share/wordnet"), help="WordNet 3.0 dict folder")
    parser.add_argument(
        "--start", choices=STAGES, default="corpus", help="first stage; earlier results are taken from --work"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3400)
    parser.add_argument(
        "--megabytes", type=float, default=104.0, help="size of the corpus; 104 MB are one pass of 3,400 steps"
    )
    parser.add_argument("--processes", type=int, default=2, help="processes of one thread each; part of the recipe")
    parser.add_argument("--eager", action="store_true", help="do not compile (no C++ compiler needed, slower)")
    parser.add_argument("--target", type=Path, default=BUNDLE, help="where the bundle goes")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    model, first = args.work / "model", STAGES.index(args.start)
    wn = WordNet(args.dict)
    if first <= STAGES.index("tree"):
        tree.write(tree.derive(wn), tree.TREE_FILE)
    if first <= STAGES.index("corpus"):
        shape = Shape()
        prepared = prepare(wn, args.work, args.seed, args.megabytes, shape.vocab, shape.context)
        recipe = Recipe(steps=args.steps, seed=args.seed, processes=args.processes)
        train(shape, recipe, prepared.data, prepared.marks, Outlet(model, compile=not args.eager))
        report = json.loads((model / "training.json").read_text()) | {"corpus": prepared.record}
        (model / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    if first <= STAGES.index("evaluate"):
        _, held, _ = hold_out(corpus.read(args.work / "corpus.tsv"), HELD_ONE_IN)
        evaluate.write(evaluate.evaluate(model, wn, held), model)
    command = f"python -m tools.reference_model --work build/reference-model --seed {args.seed} --steps {args.steps}"
    card.write(model, command)
    bundle(model, args.dict, args.target)


if __name__ == "__main__":
    main()
