"""Training of simplexes: one linear map to three poles each, from words of the poles in carriers.

The poles are balanced: each step draws as many states of each. Plain text stands with the middle. Words are dealt into
folds; figures and temperature come from words and carriers that the fit did not see.
The rule of the file: a fit never sees a word of the fold that it reads, nor a held carrier, nor neutral text to come.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ftw.hat.classifiers.tripole import NEUTRAL, POLES, SimplexBinding, SimplexRow, Spread, TripoleLens, tripole_loss
from ftw.map.registry.simplex_record import Pole, SimplexRecord
from ftw.map.training.collect import Progress, collect
from ftw.map.training.plan import plan_of
from ftw.map.training.prompts import Carriers, Kind, Prompt, Word, prompts_of
from ftw.map.training.sentences import HELD_EVERY, distinct_texts
from ftw.map.training.states import States
from ftw.substrate.model import Model

STEPS, BATCH = 300, 48
"""Steps of a fit, and states of each pole per step."""
LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 3e-3, 0.3, 0.4
CHECK, PATIENCE = 20, 4
PLAIN = 0.25
"""Share of the middle's states that are plain text."""
FOLDS = 5
"""One part of the words is read, the next one stops the fit, the others are learnt from."""
TEMPERATURES = 41
"""Tried from a tenth to ten."""
AS_GOOD = 0.02
"""F1 that is given up to read no further block."""


@dataclass(frozen=True)
class TrainedSimplexes:
    """What goes into a pack."""

    rows: list[SimplexRow]
    weight: Float[Tensor, "simplex 3 d_model"]
    bias: Float[Tensor, "simplex 3"]


@dataclass(frozen=True)
class _Poles:
    """States of one simplex, at every block that was read."""

    states: States
    label: Int[Tensor, " state"]
    fold: Int[Tensor, " state"]
    held: Bool[Tensor, " state"]


@dataclass(frozen=True)
class _Judged:
    """What lenses of one making do on words that they have not seen."""

    figures: dict[str, float]
    """In held carriers."""
    choice: float
    """F1 in fit carriers: what may be decided by, and is never reported."""
    temperature: float


def train_simplexes(
    model: Model,
    simplexes: Sequence[SimplexRecord],
    carriers: Carriers,
    plain: States,
    neutral: Callable[[int], Float[Tensor, "neutral d_model"]],
    *,
    primary: int,
    seed: int,
    progress: Progress,
) -> TrainedSimplexes:
    """A lens for every simplex, all at one block of those that `plain` has been read at.

    The block is one of the same third of the depth as `primary`, which the lenses read: the one that reads words held
    out best in fit carriers, and `primary` itself where it is about as good. (Shallow blocks may do better on single
    words, but know little of what stands around them.) `plain` are states of plain text to fit on; `neutral` gives
    others, that the baseline is taken on.
    """
    depth = [block for block in plain.blocks if block * 3 // model.n_layers == primary * 3 // model.n_layers]
    read = [_read(model, record, depth, carriers, seed) for record in simplexes]
    block = _best_block(read, plain, primary, seed, progress)
    rest = neutral(block)
    rows, modules = [], []
    for at, (record, poles) in enumerate(zip(simplexes, read, strict=True)):
        progress("fitting simplexes", at, len(simplexes))
        lens, judged = _fit_and_judge(poles, poles.states.at(block), plain.at(block), seed + at)
        p = (lens(rest) / judged.temperature).softmax(-1).detach()
        spread = p[:, POLES - 1] - p[:, 0]
        rows.append(
            SimplexRow(
                name=record.name,
                block=block,
                row=at,
                poles=(record.negative.name, record.neutral.name, record.positive.name),
                temperature=judged.temperature,
                baseline=Spread(mean=float(spread.mean()), std=float(spread.std(correction=0))),
                metrics=judged.figures,
                binding=_binding(record),
            )
        )
        modules.append(lens)
    weight = torch.stack([lens.linear.weight.detach() for lens in modules])
    return TrainedSimplexes(rows, weight, torch.stack([lens.linear.bias.detach() for lens in modules]))


def _best_block(read: Sequence[_Poles], plain: States, primary: int, seed: int, progress: Progress) -> int:
    """The block that reads poles best, in fit carriers."""
    blocks = read[0].states.blocks
    if len(blocks) == 1:
        return blocks[0]
    score: dict[int, float] = {}
    for done, block in enumerate(blocks):
        progress("comparing blocks for simplexes", done, len(blocks))
        judged = [_fit_and_judge(poles, poles.states.at(block), plain.at(block), seed)[1] for poles in read]
        score[block] = sum(each.choice for each in judged) / len(judged)
    best = max(score, key=lambda block: score[block])
    return primary if score.get(primary, 0) >= score[best] - AS_GOOD else best


def _read(model: Model, record: SimplexRecord, blocks: Sequence[int], carriers: Carriers, seed: int) -> _Poles:
    """The states of all poles' words and examples, each text run once."""
    words: list[Word] = []
    prompts: list[Prompt] = []
    label: list[int] = []
    for at, pole in enumerate(record.poles):
        own = [Word(text, text, pole.name, _kind(pole)) for text in pole.words]
        n = max(len(carriers.of(_kind(pole)).fit), len(carriers.of(_kind(pole)).held))
        for prompt in prompts_of(own, carriers, per_word=n, held_per_word=n, seed=seed):
            prompts.append(Prompt(prompt.carrier, len(words) + prompt.word, prompt.held))
            label.append(at)
        for number in range(len(pole.examples)):
            held = number % HELD_EVERY == HELD_EVERY - 1
            prompts.append(Prompt("", len(words) + len(own) + number, held))
            label.append(at)
        words += own + [Word(text, text, pole.name, "noun") for text in pole.examples]
    texts = list(distinct_texts(prompts, words))
    plan = plan_of(model, texts, blocks=len(blocks))
    states = collect(model, plan, blocks, lambda what, done, total: None)
    at_text = {text: plan.first_row[number] for number, text in enumerate(texts)}
    rows = [at_text[p.carrier, words[p.word].text] for p in prompts]
    folds = _dealt(words)
    return _Poles(
        states.of(torch.tensor(rows)),
        torch.tensor(label),
        torch.tensor([folds[p.word] for p in prompts]),
        torch.tensor([p.held for p in prompts]),
    )


def _dealt(words: Sequence[Word]) -> list[int]:
    """The fold of each word: the words of each pole in turn."""
    count: dict[str, int] = {}
    out = []
    for word in words:
        count[word.home] = count.get(word.home, -1) + 1
        out.append(count[word.home] % FOLDS)
    return out


def _fit_and_judge(poles: _Poles, x: Tensor, plain: Tensor, seed: int) -> tuple[TripoleLens, _Judged]:
    """The lens fitted on all words, and what lenses that left out a part of them make of it."""
    read, truth, chosen, steps = [], [], [], 0
    for fold in range(FOLDS):
        watch = poles.fold == (fold + 1) % FOLDS
        lens, best = _fit(poles, x, plain, (poles.fold != fold) & ~watch, watch, seed)
        steps += best
        unseen = poles.fold == fold
        with torch.no_grad():
            read.append(lens(x[unseen & poles.held]))
            said = lens(x[unseen & ~poles.held]).argmax(1)
        truth.append(poles.label[unseen & poles.held])
        chosen.append(_figures(said, poles.label[unseen & ~poles.held])["f1"])
    lens, _ = _fit(poles, x, plain, torch.ones_like(poles.held), None, seed, steps=max(CHECK, steps // FOLDS))
    logits, labels = torch.cat(read), torch.cat(truth)
    figures = _figures(logits.argmax(1), labels)
    return lens, _Judged(figures, sum(chosen) / FOLDS, _temperature(logits, labels))


def _temperature(logits: Float[Tensor, "state 3"], labels: Int[Tensor, " state"]) -> float:
    """What logits are best divided by; 1 where poles have too few examples to hold any out."""
    if not len(labels):
        return 1.0
    tried = torch.logspace(-1, 1, TEMPERATURES)
    return float(tried[int(torch.stack([F.cross_entropy(logits / t, labels) for t in tried]).argmin())])


def _fit(
    poles: _Poles,
    states: Tensor,
    plain: Tensor,
    which: Tensor,
    watch: Tensor | None,
    seed: int,
    steps: int | None = None,
) -> tuple[TripoleLens, int]:
    """A lens on some words in fit carriers; with `watch`, stopped where the words of that mask are read best.

    Gives the lens and the number of steps it took.
    """
    steps = steps or STEPS
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lens = TripoleLens(states.shape[1])
    pools = [(which & ~poles.held & (poles.label == pole)).nonzero()[:, 0] for pole in range(POLES)]
    optimizer = torch.optim.AdamW(lens.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best = (float("inf"), 0, {name: value.clone() for name, value in lens.state_dict().items()})
    for step in range(1, steps + 1):
        x = _drawn(states, plain, pools, rng)
        loss = tripole_loss(lens, x, torch.arange(POLES).repeat_interleave(BATCH))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if watch is not None and step % CHECK == 0:
            unseen = watch & ~poles.held
            with torch.no_grad():
                value = float(F.cross_entropy(lens(states[unseen]), poles.label[unseen]))
            if value < best[0]:
                best = (value, step, {name: tensor.clone() for name, tensor in lens.state_dict().items()})
            elif step - best[1] >= PATIENCE * CHECK:
                break
    if best[1]:
        lens.load_state_dict(best[2])
    return lens.eval(), best[1] or steps


def _drawn(states: Tensor, plain: Tensor, pools: Sequence[Tensor], rng: torch.Generator) -> Tensor:
    """As many states of each pole, with channels dropped; a share of the middle's are plain text."""
    x = torch.cat([states[pool[torch.randint(len(pool), (BATCH,), generator=rng)]] for pool in pools])
    n = int(PLAIN * BATCH) if len(plain) else 0
    if n:
        start = NEUTRAL * BATCH
        x[start : start + n] = plain[torch.randint(len(plain), (n,), generator=rng)]
    return x * (torch.rand(x.shape, generator=rng) >= DROPOUT) / (1 - DROPOUT)


def _figures(said: Int[Tensor, " state"], truth: Int[Tensor, " state"]) -> dict[str, float]:
    """F1 of each pole and their mean, with words and carriers held out."""
    out = {}
    for pole, name in enumerate(("negative", "neutral", "positive")):
        hits = int(((said == pole) & (truth == pole)).sum())
        total = int((said == pole).sum()) + int((truth == pole).sum())
        out[f"f1_{name}"] = 2 * hits / max(1, total)
    return {**out, "f1": sum(out.values()) / POLES, "n": float(len(truth))}


def _binding(record: SimplexRecord) -> SimplexBinding:
    watched = record.monitoring.model_dump()
    return SimplexBinding(concept=record.concept, always_on=record.always_on, **watched)


def _kind(pole: Pole) -> Kind:
    kinds: dict[str, Kind] = {"v": "verb", "a": "adjective"}
    return kinds.get(pole.pos[:1], "noun")
