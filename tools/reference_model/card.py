"""The model card, written from ``eval.json`` and ``training.json`` so that its numbers are the measured ones."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

KINDS = {
    "story": "stories after ten plots about 74 families of things and people",
    "chat": "chats of one to three turns",
    "chat_story": "story requests",
    "scene": "a few loose sentences",
    "facts": "present-tense sentences about a family",
    "typed": "sentences that teach what kind of thing a word is",
    "listing": "members of a kind in a row, odd ones out",
    "hypernym": '"X is a kind of Y", the direct hypernym of WordNet',
    "definition": "WordNet's glosses",
    "example": "WordNet's usage examples",
    "capital": "195 countries and capitals",
    "opposite": "167 pairs of opposites",
    "tracking": "who has what",
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def by_block(rows: dict[str, Sequence[object]]) -> str:
    """One row per measure, one column per block."""
    count = len(next(iter(rows.values())))
    return table(["block", *range(1, count + 1)], [[name, *values] for name, values in rows.items()])


def emergence(figures: dict[str, Any]) -> str:
    columns = figures["emergence"]
    return by_block(
        {
            "answer first": [c["top1"] for c in columns],
            "among the first ten": [c["top10"] for c in columns],
            "median rank": [c["median_rank"] for c in columns],
        }
    )


def summary(figures: dict[str, Any]) -> str:
    quality = figures["quality"]["story about a concept, T=0.0"]
    caps, kinds = figures["capitals"], figures["hypernyms"]
    tree = figures["tree_probes"]
    key = "templates and words held out"
    rows = [
        ["capitals: completion, chat, reverse", f"{caps['completion']}, {caps['chat']}, {caps['reverse']}", ">= 0.98"],
        ["direct hypernym of the 300 most frequent nouns", kinds["direct"], ">= 0.95"],
        ["opposites", figures["opposites"]["accuracy"], ">= 0.95"],
        ["stories on request: on topic", quality["on_topic"], ">= 0.95"],
        ["stories on request: repeated 6-grams", quality["repeated_6grams"], "<= 0.01"],
        [
            f"{tree['concepts']} concepts at the word, linear probe, {key}, best block",
            max(tree["model"][key]),
            ">= 0.90",
        ],
        ["the same on a random-weight twin", max(tree["random_twin"][key]), "<= 0.60"],
        ["held-out text, nats per token; bits per byte", _held(figures), ""],
    ]
    return table(["measure", "figure", "wanted"], rows)


def _held(figures: dict[str, Any]) -> str:
    found = figures["validation"]
    return f"{found['nats_per_token']}; {found['bits_per_byte']}"


def knowledge(figures: dict[str, Any]) -> str:
    kinds = figures["hypernyms"]
    bands = [[f"{name}", b["direct"], b["ancestor"]] for name, b in kinds["by_frequency_rank"].items()]
    tracked = figures["tracking"]
    return "\n\n".join(
        [
            "The corpus states these facts, common ones often: the figures measure recall, not reasoning.",
            f"### Capitals ({figures['capitals']['n']})",
            emergence(figures["capitals"]),
            f'### "X is a kind of": the {kinds["n"]} most frequent nouns',
            emergence(kinds),
            "By rank of frequency:",
            table(
                ["nouns", "direct hypernym", "any ancestor"],
                [[f"0 to {kinds['n']}", kinds["direct"], kinds["ancestor"]], *bands],
            ),
            f"### Opposites ({figures['opposites']['n']})",
            emergence(figures["opposites"]),
            f"### Yes or no ({figures['membership']['n']} questions of each kind)",
            f'"Is a salmon a fish?" gets a yes for members in {figures["membership"]["yes_for_members"]}, a no for '
            f"strangers in {figures['membership']['no_for_strangers']}.",
            "### Who has what",
            table(
                ["people", "right", "chance"], [[name, row["accuracy"], row["chance"]] for name, row in tracked.items()]
            ),
        ]
    )


def probes(figures: dict[str, Any]) -> str:
    tree, families = figures["tree_probes"], figures["family_probes"]
    parts = [
        f"### Concepts of the everyday tree, state at the word ({tree['concepts']} concepts, {tree['words']} words)",
        "Closed-form ridge classifier on the residual stream at the last token of the word; macro AUROC. "
        f"{tree['words_held_out']} words are kept out of the fit and share no part and no last token with its "
        "words (the model itself was taught all words); the mean is over the concepts with at least three of them. "
        "With words known, a classifier can remember them: the honest row has templates *and* words held out.",
        by_block(
            {
                f"{who.replace('_', ' ')}, {name}": values
                for who in ("model", "random_twin")
                for name, values in tree[who].items()
            }
        ),
        f"### {families['concepts']} families, mean-pooled state of a sentence",
        "Logistic regression; macro AUC. TF-IDF reads the same sentences.",
    ]
    for name in ("templates and words held out", "templates held out"):
        row = families[name]
        parts += [
            f"{name} (TF-IDF {row['tfidf']}):",
            by_block({"model": row["model"], "random twin": row["random_twin"]}),
        ]
    return "\n\n".join(parts)


def steering(figures: dict[str, Any]) -> str:
    found = figures["steering"]
    names = ["concept", "share of the norm", "of words, plain", "steered", "multiple", "perplexity"]
    rows = [
        [
            one["concept"],
            one["share_of_norm"],
            f"{one['base_rate']:.3%}",
            f"{one['rate']:.2%}",
            one["multiple"],
            f"{one['perplexity_ratio']} times",
        ]
        for one in found["concepts"]
    ]
    others = [
        [f"{factor} times", f"{one['rate']:.2%}", f"{one['perplexity_ratio']} times"]
        for factor, one in found["other_strengths"].items()
    ]
    wanted = found["wanted"]
    return "\n\n".join(
        [
            f"Along the gradient of the concept's words, after block {found['block']} (counted from 0) at every "
            f"position, at the default strength {found['strength']}. {found['texts']} sampled continuations of neutral "
            f"prompts per concept against {found['base_texts']} plain ones, under a seed that no gain was searched "
            "with. Perplexity is that of the steered text under the unsteered model, over that of plain text. "
            f"{found['good']} of {len(found['concepts'])} concepts come at least {wanted['multiple']:g} times as "
            f"often at {wanted['perplexity_ratio']} times the perplexity or less.",
            table(names, rows),
            "Mean of the twelve at other strengths:",
            table(["of the default strength", "of words", "perplexity"], others),
        ]
    )


def text(figures: dict[str, Any]) -> str:
    rows = [
        [
            name,
            row["n"],
            row.get("on_topic", ""),
            row["sentences"],
            row["repeated_6grams"],
            row["distinct_texts"],
            "{} of {}".format(*row["pronouns_fit_first_name"]),
            "{} of {}".format(*row["at_most_two_names"]),
        ]
        for name, row in figures["quality"].items()
    ]
    head = [
        "texts",
        "n",
        "on topic",
        "sentences",
        "repeated 6-grams",
        "distinct",
        "pronouns fit the first name",
        "at most two names",
    ]
    refused = figures["refusals"]
    return "\n\n".join(
        [
            table(head, rows),
            'Questions it cannot know, answered with "I do not know that": '
            + "; ".join(f"{name} {row['refused']} of {row['n']}" for name, row in refused.items())
            + ".",
        ]
    )


def held_out(figures: dict[str, Any]) -> str:
    found = figures["validation"]
    kinds = [[k, r["nats_per_token"], r["bits_per_byte"], r["tokens"]] for k, r in found["by_kind"].items()]
    lens = found["lens"]
    return "\n\n".join(
        [
            table(["kind", "nats per token", "bits per byte", "tokens"], kinds),
            "Read through the final norm and the unembedding at every block:",
            by_block(
                {
                    "nats per token": [r["nats_per_token"] for r in lens],
                    "same first token": [r["agrees_with_final"] for r in lens],
                }
            ),
        ]
    )


def samples(figures: dict[str, Any]) -> str:
    return "\n".join(
        f"- T = {s['temperature']}, `{s['prompt']}`\n  > {' '.join(s['text'].split())}" for s in figures["samples"]
    )


def training(report: dict[str, Any], command: str) -> str:
    recipe, made = report["recipe"], report["corpus"]
    total = sum(made["tokens_by_kind"].values())
    rows = [
        [k, f"{n:,}", f"{n / total:.1%}", KINDS[k]]
        for k, n in sorted(made["tokens_by_kind"].items(), key=lambda p: -p[1])
    ]
    return "\n\n".join(
        [
            f"{recipe['steps']:,} steps of {recipe['batch_tokens'] * recipe['processes']:,} tokens "
            f"({report['tokens']:,} in "
            f"all), {report['minutes']} minutes on {recipe['processes']} CPU cores. Muon (lr "
            f"{recipe['lr']}) for the matrices "
            f"of the blocks, AdamW (lr {recipe['lr_embedding']}) for embedding and norms; warm-up "
            f"{recipe['warmup']} steps, "
            f"constant to {recipe['plateau']:.0%}, then linear to zero. bf16 autocast over fp32 "
            "weights. Attention never "
            "crosses a document. The loss is next-token prediction at the last block alone: nothing "
            "trains the inner blocks "
            "to be readable.",
            f"```\n{command}\n```",
            "The text is written by the project, from WordNet 3.0 and a hand-written lexicon; one "
            "seed gives one corpus "
            f"(sha256 `{made['sha256'][:16]}…`). Rounding differs between processors, so a rerun "
            "elsewhere gives these figures "
            "within noise, not these bits.",
            table(["kind", "tokens", "share", "what"], rows),
            f"{made['held_out_documents']:,} documents are held out; "
            f"{made['held_out_copies_removed']} more stood word for "
            "word in the training text and were removed.",
        ]
    )


LIMITS = """- It knows its corpus and nothing else: templates, 195 capitals, common hypernyms, opposites, the words of
  the everyday tree. The same question in other words ("What's France's capital city?") gets nonsense.
- It refuses what it cannot know ("I do not know that"), and with it most questions it was not taught to expect.
- Yes-or-no questions about kinds are unreliable and at times contradict themselves (see below).
- It cannot keep track of who has what (about chance, see below), and it cannot reason.
- Greedy stories resemble each other; things and actions fit in grammar, not always in sense.
- Hypernyms of rare nouns are often wrong; definitions are remembered loosely.
- Steering well above the default strength breaks the text (see below).
- English only; contexts above 512 tokens were never seen, and few documents had more than 256.
- It is a subject for interpretability tools, not an assistant."""


def card(figures: dict[str, Any], report: dict[str, Any], command: str) -> str:
    """The whole card as Markdown."""
    shape = report["shape"]
    return f"""# The reference model

A language model of {report["parameters"]:,} parameters that ships with the package, so that every feature shows
real results with no network and no GPU. It tells short stories, names capitals, hypernyms and opposites, and holds
the concepts of the everyday tree.

`LlamaForCausalLM`: {shape["blocks"]} blocks, width {shape["width"]}, {shape["heads"]} heads with
{shape["kv_heads"]} key-value heads, MLP {shape["hidden"]}, context {shape["context"]}, vocabulary {shape["vocab"]:,},
tied embedding, bf16. `AutoModelForCausalLM.from_pretrained` loads it.

Every figure below was measured on {figures["measured"]} on the weights in this folder (sha256
`{figures["weights_sha256"]}`),
computed in fp32, and this page is generated from `eval.json` and `training.json`.

## In short

{summary(figures)}

## What it cannot do

{LIMITS}

## What it knows, and at which block

{knowledge(figures)}

## Concepts in the residual stream

{probes(figures)}

## Steering

{steering(figures)}

## The text it writes

{text(figures)}

## Held-out text

{held_out(figures)}

## How it was trained

{training(report, command)}

## Samples

Verbatim.

{samples(figures)}

## Licence

Weights, tokenizer, corpus generator and lexicon: Apache-2.0. The corpus draws on WordNet 3.0, copyright 2006 by
Princeton
University; its licence is in `WORDNET-LICENSE`.
"""


def write(folder: Path, command: str) -> None:
    """Write ``MODEL_CARD.md`` from the records in the folder."""
    figures = json.loads((folder / "eval.json").read_text())
    report = json.loads((folder / "training.json").read_text())
    (folder / "MODEL_CARD.md").write_text(card(figures, report, command))
