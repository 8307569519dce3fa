"""Are concepts linearly readable? Probes on held-out templates and words, beside a random-weight twin and TF-IDF.

No template of this file is part of the corpus, and none serves for both fitting and testing.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from torch import Tensor

from tools.reference_model.grammar import article
from tools.reference_model.lexicon import families
from tools.reference_model.subject import Subject
from tools.reference_model.tree import Concept, all_words

FAMILIES = [
    "food",
    "wild animals",
    "birds",
    "flowers",
    "trees",
    "weather",
    "sea",
    "music",
    "painting",
    "communication",
    "money",
    "illness",
    "body",
    "war",
    "conflict",
    "deception",
    "crime",
    "religion",
    "family",
    "clothing",
    "tools",
    "vehicles",
    "school",
    "space",
    "emotion",
    "magic",
]
FIT_TEMPLATES = (
    "Somebody mentioned {a} again.",
    "My uncle knows everything about {the}.",
    "She was thinking about {the} while she waited.",
    "It all started with {a}.",
    "Without {the}, this place would be different.",
    "They argued about {the} for an hour.",
    "I had never seen {a} before that summer.",
    "He drew {a} in the sand.",
)
TEST_TEMPLATES = (
    "When I was a child, I often dreamed of {the}.",
    "The picture on the wall shows {a}.",
    "We walked back to {the} in silence.",
    "Please tell the others about {the}.",
    "Is that really {a}, or does it only look like one?",
    "After lunch, {the} was the only thing on our minds.",
)
# The state is read at the word, so what precedes it must say nothing about its kind.
WORD_FIT_TEMPLATES = (
    "We had a long talk about the {w}",
    "Nobody here mentioned the {w}",
    "It all started with the {w}",
)
WORD_TEST_TEMPLATES = ("My uncle has an opinion on the {w}",)
HELD_WORDS = 0.25
RIDGE = 10.0  # most concepts have about 20 words to fit on: without strong shrinkage the words are remembered instead
FEWEST_HELD = 3


@dataclass(frozen=True)
class Rows:
    texts: list[str]
    labels: NDArray[np.int64]


def family_rows(templates: Sequence[str], words: dict[str, list[str]]) -> Rows:
    texts, labels = [], []
    for label, name in enumerate(FAMILIES):
        for word in words[name]:
            bare = word.lstrip("~")
            texts += [t.replace("{the}", f"the {bare}").replace("{a}", article(word)) for t in templates]
            labels += [label] * len(templates)
    return Rows(texts, np.array(labels))


def pooled(subject: Subject, texts: list[str]) -> NDArray[np.float32]:
    """Mean state of each text after every block, ``[block, text, width]``, without the mark of the beginning."""
    means = []
    for states, mask in subject.streams(texts):
        keep = mask[None, :, :, None].float()
        keep[:, :, 0] = 0
        means.append(((states * keep).sum(2) / keep.sum(2)).numpy())
    return np.concatenate(means, 1)


def macro_auc(fit_x: Any, fit_y: NDArray[np.int64], test_x: Any, test_y: NDArray[np.int64]) -> float:
    """Mean over the classes of the one-against-rest AUC of a logistic regression."""
    scaler, c = (MaxAbsScaler(), 10.0) if issparse(fit_x) else (StandardScaler(), 0.1)
    model = make_pipeline(scaler, LogisticRegression(C=c, max_iter=300)).fit(fit_x, fit_y)
    score = model.predict_proba(test_x)
    return round(float(np.mean([roc_auc_score(test_y == k, score[:, k]) for k in np.unique(test_y)])), 3)


def family_probes(subject: Subject, twin: Subject) -> dict[str, Any]:
    """Mean-pooled states of 26 families: with templates held out, and with templates and words held out."""
    often = Counter(t for name in FAMILIES for t in set(families()[name].things))
    words = {name: sorted({t for t in families()[name].things if often[t] == 1}) for name in FAMILIES}
    rng = random.Random(5)
    shuffled = {name: rng.sample(found, len(found)) for name, found in words.items()}
    fit_words = {name: found[: len(found) * 5 // 8] for name, found in shuffled.items()}
    test_words = {name: found[len(found) * 5 // 8 :] for name, found in shuffled.items()}
    splits = {
        "templates held out": (family_rows(FIT_TEMPLATES, words), family_rows(TEST_TEMPLATES, words)),
        "templates and words held out": (
            family_rows(FIT_TEMPLATES, fit_words),
            family_rows(TEST_TEMPLATES, test_words),
        ),
    }
    out: dict[str, Any] = {"concepts": len(FAMILIES)}
    for name, (fit, test) in splits.items():
        vector = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        tfidf = macro_auc(vector.fit_transform(fit.texts), fit.labels, vector.transform(test.texts), test.labels)
        entry: dict[str, Any] = {"n_fit": len(fit.texts), "n_test": len(test.texts), "tfidf": tfidf}
        for who, model in (("model", subject), ("random_twin", twin)):
            x, y = pooled(model, fit.texts), pooled(model, test.texts)
            entry[who] = [macro_auc(x[b], fit.labels, y[b], test.labels) for b in range(model.blocks)]
        out[name] = entry
    return out


def states_at_end(subject: Subject, texts: list[str]) -> Tensor:
    """State after every block at the last token of each text, ``[block, text, width]``."""
    out = []
    for states, mask in subject.streams(texts, 256):
        out.append(states[:, torch.arange(mask.shape[0]), mask.sum(1) - 1])
    return torch.cat(out, 1)


def columns_auc(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """AUC of every column by the rank formula; NaN where a column has one class only."""
    ranks = rankdata(scores, axis=0)
    positive = truth.sum(0)
    negative = len(truth) - positive
    with np.errstate(invalid="ignore", divide="ignore"):
        auc: NDArray[np.float64] = ((ranks * truth).sum(0) - positive * (positive + 1) / 2) / (positive * negative)
    return auc


def unit_rms(x: Tensor) -> Tensor:
    return x / x.square().mean(-1, keepdim=True).sqrt()


def ridge_auc(fit: Tensor, fit_y: Tensor, test: Tensor, test_y: NDArray[np.bool_]) -> NDArray[np.float64]:
    """AUC per concept of the closed-form ridge classifier, all concepts fitted together. Computed in fp64.

    States are scaled to unit RMS, as every norm of the model does, and their dimensions to unit variance.
    """
    x, y, z = unit_rms(fit.double()), fit_y.double(), unit_rms(test.double())
    mean, std = x.mean(0), x.std(0) + 1e-6
    x = (x - mean) / std
    gram = x.T @ x / len(x) + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, x.T @ (y - y.mean(0)) / len(x))
    return columns_auc((((z - mean) / std) @ weights).numpy(), test_y)


def tree_probes(subject: Subject, twin: Subject, tree: dict[str, Concept]) -> dict[str, Any]:
    """Per-token states at the last token of a member word, for every concept of the tree.

    A quarter of the words is held out of the fit, all words with one last token together: else a random-weight twin
    tells people by their "-er". Those of them that share no part with a fitted word are tested.
    ``words held out`` tests them in the fitted templates, ``templates and words held out`` in new ones, and
    ``templates held out`` tests the fitted words in new templates.
    """
    words = sorted({w for c in tree.values() for w in c.words})
    members = {term: set(all_words(tree, term)) for term in tree}
    truth = np.array([[w in members[term] for term in tree] for w in words])
    endings = [subject.bare_ids(f" {w}")[-1] for w in words]
    kept_out = np.array([random.Random(f"held:{token}").random() < HELD_WORDS for token in endings])
    fitted_parts = {part for w, skipped in zip(words, kept_out, strict=True) if not skipped for part in w.split()}
    held = kept_out & np.array([fitted_parts.isdisjoint(w.split()) for w in words])
    known = (truth[held].sum(0) >= FEWEST_HELD) & (truth[~kept_out].sum(0) >= FEWEST_HELD)
    out: dict[str, Any] = {"concepts": int(known.sum()), "words": len(words), "words_held_out": int(held.sum())}
    for who, model in (("model", subject), ("random_twin", twin)):
        fit = [states_at_end(model, [t.format(w=w) for w in words]) for t in WORD_FIT_TEMPLATES]
        test = [states_at_end(model, [t.format(w=w) for w in words]) for t in WORD_TEST_TEMPLATES]
        y = torch.from_numpy(truth[:, known])
        entry: dict[str, list[float]] = {}
        for block in range(model.blocks):
            x = torch.cat([s[block][~kept_out] for s in fit])
            fit_y = torch.cat([y[~kept_out]] * len(fit))
            tests = {
                "words held out": (fit, held),
                "templates and words held out": (test, held),
                "templates held out": (test, ~kept_out),
            }
            for name, (source, rows) in tests.items():
                stacked = torch.cat([s[block][rows] for s in source])
                auc = ridge_auc(x, fit_y, stacked, np.concatenate([truth[rows][:, known]] * len(source)))
                entry.setdefault(name, []).append(round(float(np.nanmean(auc)), 4))
        out[who] = entry
    return out
