"""The report of a training run: what was measured, on what, and what it says. As data, as JSON and as Markdown.

The rule of the file: a figure that could not be measured is null and stays visible as such.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ftw.hat.steering.evaluation import MULTIPLE, PERPLEXITY_RATIO
from ftw.map.training.bootstrap import Interval
from ftw.map.training.calibrate import CalibrationFigures
from ftw.substrate.manifest import canonical_json, write_atomically

WEAKEST = 12
"""Lenses listed at the end of the text."""


@dataclass(frozen=True)
class BlockFigures:
    """The linear baseline on one block."""

    block: int
    auroc_words: float
    """Macro AUROC with carriers and words held out."""
    auroc_templates: float
    """… with carriers held out."""


@dataclass(frozen=True)
class SizeFigures:
    """One way to store the lenses."""

    form: str
    megabytes: float
    auroc_words: float
    """Macro AUROC with carriers and words held out, on one fold."""


@dataclass(frozen=True)
class Contrast:
    """The same measurement for the lenses and for what they must beat."""

    lenses: float
    linear: float
    """Ridge regression on the same states."""
    centroid: float
    """The cosine with the centroid of each concept's states, channels weighted by rarity. Nothing is fitted."""
    random_twin: float
    """The same lenses fitted on a model with random weights."""
    tfidf: float
    """The text alone."""


@dataclass(frozen=True)
class LensFigures:
    """One lens, measured on what it was not fitted on."""

    term: str
    auroc_templates: float | None
    auroc_words: float | None
    fpr: float
    n_words: int


@dataclass(frozen=True)
class SteeringFigures:
    """What pushing one concept at the default strength does to text, under a seed that no gain was searched with."""

    term: str
    rate: float
    """Share of all words that are words of the concept."""
    base_rate: float
    """The same without steering."""
    multiple: float
    perplexity_ratio: float
    """Of the steered text under the unsteered model, over that of unsteered text."""
    is_good: bool
    """At least five times the rate, at a perplexity of at most 1.6 times."""


@dataclass(frozen=True)
class Report:
    """Everything that a training run measured."""

    model: str
    concept_pack: str
    block: int
    concepts: int
    words: int
    synsets: int
    prompts: int
    plain_states: int
    folds: int
    seed: int
    templates: Contrast
    """Carriers held out."""
    words_held: Contrast
    """Carriers and words held out."""
    words_apart: Contrast
    """… and only words that share no part with a fitted one, as `foot soldier` does with `soldier`."""
    strict_words: float
    """`words_held.lenses` with the words of the concepts above counted as negatives."""
    sibling_top1: Interval
    """Among siblings, how often the word's own concept reads highest, words held out."""
    calibration: CalibrationFigures
    screen_recall: float
    screen_pass_rate: float
    one_block_per_lens: float
    """The linear baseline where each lens reads its own best block, chosen in fit carriers."""
    blocks: Sequence[BlockFigures]
    sizes: Sequence[SizeFigures]
    lenses: Sequence[LensFigures]
    steering: Sequence[SteeringFigures]
    """Of concepts drawn evenly from the table; empty where the tokenizer lets no concept be steered."""
    steering_texts: int
    """Texts written for each of them."""
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes null."""
        return _plain(asdict(self))  # type: ignore[no-any-return]

    def as_markdown(self) -> str:
        """The report for a reader."""
        return "\n".join([*_head(self), *_quality(self), *_choices(self), *_weakest(self), *_steering(self)]) + "\n"


def write_report(report: Report, folder: Path) -> None:
    """report.md and report.json in `folder`. Raises StorageError."""
    write_atomically(folder / "report.json", canonical_json(report.as_json()) + b"\n")
    write_atomically(folder / "report.md", report.as_markdown().encode())


def _head(r: Report) -> list[str]:
    return [
        f"# Lenses for {r.concept_pack} on {r.model}",
        "",
        f"{r.concepts} concepts, {r.words} words of {r.synsets} synsets, {r.prompts} prompts and {r.plain_states}",
        f"states of plain text, read after block {r.block}. Seed {r.seed}, {r.seconds:.0f} s.",
        "",
        "A state is read at the last token of the concept's word. A word of a concept is a positive for it and for",
        "every concept above it, and a negative for all others except those below it. The lenses of this pack were",
        "fitted on all words, in fit carriers only.",
        "*Carriers held out* reads the very lenses of the pack in carriers that no fit saw.",
        f"*Carriers and words held out* comes from {r.folds} fits that each left out a part of the words by whole",
        "synsets, and reads those words in held carriers: no carrier, word or synonym was seen. Calibration uses these",
        "readings too. The baselines leave out the first part of the words only. Intervals hold 95 % of 500 drawings",
        "of the synsets with replacement.",
        "",
    ]


def _quality(r: Report) -> list[str]:
    rows = [
        ("carriers held out", r.templates),
        ("carriers and words held out", r.words_held),
        ("… words that share no part with a fitted one", r.words_apart),
    ]
    lines = [
        "| macro AUROC | lenses | linear (ridge) | centroid | random-weight twin | TF-IDF |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {_f(c.lenses)} | {_f(c.linear)} | {_f(c.centroid)} | {_f(c.random_twin)} | {_f(c.tfidf)} |"
        for name, c in rows
    ]
    c = r.calibration
    return [
        *lines,
        "",
        f"- The mean over lenses of the AUROC with carriers and words held out is {_between(c.auroc)}.",
        f"- With the words of the concepts above counted as negatives too: {_f(r.strict_words)}.",
        f"- Among siblings, the word's own concept reads highest in {_between(r.sibling_top1)} of readings (words held "
        "out).",
        f"- Expected calibration error: {_f(c.ece_before)} before, {_f(c.ece_after)} after (maps fitted on other "
        f"synsets), over all pairs of prompt and lens, nearly all of which are rightly near 0. Over the readings above "
        f"threshold {_f(c.ece_shown)}. Over the one that leads each prompt {_f(c.ece_leading)}: a map of one logit "
        "cannot know that all other lenses are lower, so the leading reading's score is not how often it is right.",
        f"- Brier score: {_f(c.brier_before)} before, {_f(c.brier_after)} after. F1 at a probability of a half: "
        f"{_f(c.f1)}.",
        f"- Plain-text states above a lens's threshold: {c.false_alarms:.4f} of {c.neutral_states[1]} states of text "
        f"that set no threshold; at most {c.false_alarms_chosen:g} was chosen.",
        f"- The screen keeps {_f(r.screen_recall)} of readings above threshold and lets {_f(r.screen_pass_rate)} of "
        "pairs pass (states that it was not fitted on).",
        "",
    ]


def _choices(r: Report) -> list[str]:
    lines = ["| linear baseline, block | carriers and words held out | carriers held out |", "|---|---|---|"]
    lines += [
        f"| {b.block}{' (chosen)' if b.block == r.block else ''} | {_f(b.auroc_words)} | {_f(b.auroc_templates)} |"
        for b in r.blocks
    ]
    lines += [f"| each lens its own best | {_f(r.one_block_per_lens)} | |", ""]
    lines += ["| how the lenses are stored | MB | carriers and words held out (one fold) |", "|---|---|---|"]
    lines += [f"| {s.form} | {s.megabytes:.2f} | {_f(s.auroc_words)} |" for s in r.sizes]
    return [*lines, ""]


def _weakest(r: Report) -> list[str]:
    known = sorted((lens for lens in r.lenses if lens.auroc_words is not None), key=lambda lens: lens.auroc_words or 0)
    lines = [f"The {min(WEAKEST, len(known))} weakest lenses (carriers and words held out):", ""]
    lines += [f"- {lens.term}: {_f(lens.auroc_words)} ({lens.n_words} words)" for lens in known[:WEAKEST]]
    without = len(r.lenses) - len(known)
    return [*lines, *([f"- {without} without a figure: too few words to hold out"] if without else [])]


def _steering(r: Report) -> list[str]:
    if not r.steering:
        return []
    enough = sum(one.multiple >= MULTIPLE for one in r.steering)
    good = sum(one.is_good for one in r.steering)
    return [
        "",
        f"Steering at the default strength, {len(r.steering)} concepts drawn evenly, {r.steering_texts} texts each:",
        f"{enough} come at least {MULTIPLE:g} times as often, {good} of them at {PERPLEXITY_RATIO} times the "
        "perplexity or less.",
        f"Medians: {median(one.multiple for one in r.steering):.1f} times as often, at "
        f"{median(one.perplexity_ratio for one in r.steering):.2f} times the perplexity.",
    ]


def _between(value: Interval) -> str:
    return f"{_f(value.value)} ({_f(value.low)} to {_f(value.high)})"


def _f(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
