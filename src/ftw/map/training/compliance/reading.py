"""What a compliance report reads: words of the concept pack in held templates and neutral text, once, by all lenses.

The rule of the file: texts run as a person's do, and the lenses read the raw residual stream through the bank that
serves, so that what is reported is what is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.steering.directions import padded
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.bootstrap import Interval, areas, auroc_draws, draws, placements, share_interval
from ftw.map.training.collect import Progress
from ftw.map.training.heldout import HeldOutMatrix
from ftw.map.training.neutral import neutral_numbers, neutral_texts
from ftw.map.training.plan import token_ids
from ftw.map.training.prompts import Prompt, Word, bundled_carriers, prompts_of, words_of
from ftw.map.training.targets import Targets
from ftw.substrate.errors import NumericError, PackError
from ftw.substrate.model import Model
from ftw.substrate.taps import tap
from ftw.substrate.types import Edit, Site

ROWS = 128
"""Texts per forward pass."""
TOGETHER = 1024
"""Texts whose states are held at once."""
MOST_PAIRS = 60_000_000
"""Logits that are held at once."""
NEUTRAL = 160
"""Neutral texts of each part."""


@dataclass(frozen=True)
class Read:
    """The states and logits of a report."""

    matrix: HeldOutMatrix
    prompts: tuple[Prompt, ...]
    words: tuple[Word, ...]
    siblings: tuple[tuple[int, ...], ...]
    """Columns of one parent; the roots first."""
    roots: tuple[int, ...]
    """For each column, the number of its root."""


@dataclass(frozen=True)
class Judged:
    """A reading with what several figures need of it, computed once."""

    bank: LensBank
    read: Read

    @property
    def matrix(self) -> HeldOutMatrix:
        return self.read.matrix

    @cached_property
    def p(self) -> Float[Tensor, "prompt lens"]:
        """Probabilities by the pack's maps."""
        return mapped(self.bank, self.matrix.logits)

    @cached_property
    def marks(self) -> Float[Tensor, " lens"]:
        """The pack's thresholds, in logits."""
        return torch.tensor([row.threshold_logit for row in self.bank.rows])

    @cached_property
    def group_draws(self) -> Float[Tensor, "draw group"]:
        return draws(int(self.matrix.dense_group.max()) + 1)

    @cached_property
    def placed(self) -> Float[Tensor, "prompt lens"]:
        return placements(self.matrix.logits, self.matrix.labels)

    @cached_property
    def area_draws(self) -> Float[Tensor, "draw lens"]:
        return auroc_draws(self.placed, self.matrix.labels, self.matrix.dense_group, self.group_draws)

    @cached_property
    def areas(self) -> Float[Tensor, " lens"]:
        """AUROC of each lens; NaN where there are too few prompts."""
        return areas(self.placed, self.matrix.labels)

    def share(self, hits: Float[Tensor, " prompt"]) -> Interval:
        """The mean of what is counted per prompt, with its interval over synsets."""
        return share_interval(hits, self.matrix.dense_group, self.group_draws)


def mapped(bank: LensBank, logits: Float[Tensor, "row lens"]) -> Float[Tensor, "row lens"]:
    """Probabilities by the pack's maps."""
    slope = torch.tensor([row.calibration.slope for row in bank.rows])
    offset = torch.tensor([row.calibration.offset for row in bank.rows])
    return torch.sigmoid(logits * slope + offset)


def last_states(model: Model, texts: Sequence[str], sites: Sequence[Site]) -> dict[Site, Float[Tensor, "text d"]]:
    """The raw residual stream at the last token of each text, fp32, on the model's device."""
    return _run(model, texts, sites, every=False)[0]


def all_states(
    model: Model, texts: Sequence[str], sites: Sequence[Site], edits: Sequence[Edit] = ()
) -> tuple[dict[Site, Float[Tensor, "state d"]], list[int]]:
    """… at every token, text after text, and how many each text has. With `edits`, while these act."""
    return _run(model, texts, sites, every=True, edits=edits)


def labels_of(pack: ConceptPack, terms: Sequence[str]) -> tuple[Targets, Int8[Tensor, "home lens"]]:
    """The labels of the pack's homes for lenses of `terms`. Raises PackError for a lens of no concept of the pack."""
    targets = Targets.of(pack)
    missing = [term for term in terms if term not in targets.homes]
    if missing:
        raise PackError(
            f"{len(missing)} lenses read concepts that {pack.name} {pack.version} lacks, {missing[0]!r} first: name "
            "the concept pack that they were trained on with --concepts"
        )
    return targets, targets.table[:, [targets.homes[term] for term in terms]]


def read_all(
    model: Model, bank: LensBank, pack: ConceptPack, *, most: int | None, seed: int, progress: Progress
) -> Read:
    """Run words in held templates and both parts of the neutral text, and score them with every lens."""
    targets, table = labels_of(pack, bank.terms)
    words = words_of(pack)
    prompts = held_prompts(words, len(bank), most=most, seed=seed)
    logits = prompt_logits(model, [bank], [prompt.text(words) for prompt in prompts], progress)[0]
    neutral, lengths = [], []
    for part in ("calibrate", "measure"):
        states, sizes = all_states(model, neutral_texts(part, NEUTRAL, seed), bank.sites)
        neutral.append(score(bank, states))
        lengths.append(sizes)
    home = targets.home_of(list(prompts), words)
    column = {term: at for at, term in enumerate(bank.terms)}
    synsets = {word.synset: at for at, word in enumerate(words)}
    templates = {prompt.carrier: at for at, prompt in enumerate(prompts)}
    matrix = HeldOutMatrix(
        terms=bank.terms,
        logits=logits,
        labels=table[home],
        home=torch.tensor([column.get(words[p.word].home, -1) for p in prompts]),
        group=torch.tensor([synsets[words[p.word].synset] for p in prompts]),
        template=torch.tensor([templates[p.carrier] for p in prompts]),
        kind=("carrier",) * len(prompts),
        neutral=torch.cat(neutral),
        neutral_text=neutral_numbers(*lengths),
    )
    families = [
        tuple(column[t] for t in (targets.terms[i] for i in group) if t in column) for group in targets.siblings
    ]
    roots = [(pack.ancestors(term) or (term,))[-1] for term in bank.terms]
    return Read(
        matrix,
        prompts,
        words,
        tuple(family for family in families if len(family) > 1),
        tuple(pack.roots.index(root) for root in roots),
    )


def held_prompts(words: Sequence[Word], lenses: int, *, most: int | None, seed: int) -> tuple[Prompt, ...]:
    """Each word in one held template; every so many only, where that is more than `most`, or too many readings."""
    prompts = prompts_of(words, bundled_carriers(), per_word=0, held_per_word=1, seed=seed)
    limit = min(MOST_PAIRS // lenses, len(prompts) if most is None else most)
    return tuple(prompts[:: max(1, -(-len(prompts) // max(1, limit)))])


def score(bank: LensBank, states: Mapping[Site, Tensor]) -> Float[Tensor, "row lens"]:
    """Logits of every pair, on the CPU. Raises NumericError for a NaN."""
    rows = len(next(iter(states.values())))
    parts = [
        bank.score({site: x[at : at + 1024] for site, x in states.items()}, full=True).logit.cpu()
        for at in range(0, rows, 1024)
    ]
    return torch.cat(parts)


def prompt_logits(
    model: Model, banks: Sequence[LensBank], texts: Sequence[str], progress: Progress
) -> list[Float[Tensor, "text lens"]]:
    """What each bank reads at the last token of each text. Every text runs once."""
    sites = tuple(sorted({site for bank in banks for site in bank.sites}))
    out: list[list[Tensor]] = [[] for _ in banks]
    for at in range(0, len(texts), TOGETHER):
        states = last_states(model, texts[at : at + TOGETHER], sites)
        for found, bank in zip(out, banks, strict=True):
            found.append(score(bank, states))
        progress("reading held templates", min(at + TOGETHER, len(texts)), len(texts))
    return [torch.cat(found) for found in out]


def _run(
    model: Model, texts: Sequence[str], sites: Sequence[Site], *, every: bool, edits: Sequence[Edit] = ()
) -> tuple[dict[Site, Tensor], list[int]]:
    ids = token_ids(model, texts)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found: dict[Site, list[Tensor]] = {site: [torch.empty(0)] * len(ids) for site in sites}
    with torch.inference_mode(), tap(model, sites, edits=edits) as trace:
        for at in range(0, len(order), ROWS):
            part = order[at : at + ROWS]
            batch, mask = padded([ids[i] for i in part], model.device)
            model.net(input_ids=batch, attention_mask=mask, use_cache=False, logits_to_keep=1)
            for site in sites:
                stream = trace[site]
                for row, i in enumerate(part):
                    last = len(ids[i])
                    found[site][i] = stream[row, 0 if every else last - 1 : last].float().clone()
    states = {site: torch.cat(rows) for site, rows in found.items()}
    if not all(bool(x.isfinite().all()) for x in states.values()):
        raise NumericError("the model gave states that are not finite: run `ftw models check` on it")
    return states, [len(row) for row in ids]
