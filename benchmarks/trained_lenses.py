"""Lenses trained for benchmarks: small MLPs, each with a first layer of its own, on states at the words of a pack."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ftw.hat.classifiers import LensTensors, normalise
from ftw.hat.classifiers.modules import HIDDEN, NARROW
from ftw.map.registry.concept_pack import ConceptPack
from ftw.substrate.model import Model
from ftw.substrate.taps import tap
from ftw.substrate.types import Site

CARRIERS = ("We spoke about the", "She wrote about the", "He knew nothing of the")
STEPS = 200


class Words(NamedTuple):
    """States of the reference model at words, normalised, and which lens should read them."""

    fit: Tensor
    fit_labels: Tensor
    test: Tensor
    test_labels: Tensor


def word_states(model: Model, pack: ConceptPack, terms: list[str], block: int) -> Words:
    """The state at each word of the pack in three carriers; every fourth synset is kept for the test, in the third."""
    place = {term: at for at, term in enumerate(terms)}
    texts, labels, held = [], [], []
    synsets: dict[str, int] = {}
    for concept in pack.concepts.values():
        label = torch.zeros(len(terms), dtype=torch.int8)
        label[[place[one.term] for one in pack.concepts.values() if concept.term in pack.ancestors(one.term)]] = -1
        label[[place[term] for term in (concept.term, *pack.ancestors(concept.term))]] = 1
        for synset, group in concept.own_groups.items():
            test = synsets.setdefault(synset, len(synsets)) % 4 == 0
            for carrier in CARRIERS[2:] if test else CARRIERS[:2]:
                texts += [f"{carrier} {word}" for word in group]
                labels += [label] * len(group)
                held += [test] * len(group)
    x, y, is_test = normalise(last_states(model, texts, block)), torch.stack(labels), torch.tensor(held)
    return Words(x[~is_test], y[~is_test], x[is_test], y[is_test])


def last_states(model: Model, texts: list[str], block: int) -> Tensor:
    """The state after `block` at each text's last token."""
    ids = [list(model.encode(text)) for text in texts]
    ids = [row[:-1] if row[-1] in model.eos_ids else row for row in ids]
    order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
    out = torch.empty(len(ids), model.d_model)
    site = Site(block)
    with torch.inference_mode(), tap(model, [site]) as trace:
        for start in range(0, len(order), 256):
            some = order[start : start + 256]
            width = len(ids[some[-1]])
            model.net(input_ids=torch.tensor([ids[at] + ids[at][-1:] * (width - len(ids[at])) for at in some]))
            ends = torch.tensor([len(ids[at]) - 1 for at in some])
            out[some] = trace[site][torch.arange(len(some)), ends].float()
    return out


def trained(words: Words) -> LensTensors:
    """MLPs of their own first layers, fitted together by Adam; positives of a lens weigh as much as its negatives."""
    torch.manual_seed(0)
    n, d = words.fit_labels.shape[1], words.fit.shape[1]
    shapes = ((n, HIDDEN, d), (n, HIDDEN), (n, NARROW, HIDDEN), (n, NARROW), (n, NARROW), (n,))
    weights = [
        (torch.randn(shape) / shape[-1] ** 0.5 if len(shape) > 2 or at == 4 else torch.zeros(shape)).requires_grad_()
        for at, shape in enumerate(shapes)
    ]
    weight = ((words.fit_labels == 0).sum(0) / (words.fit_labels == 1).sum(0) / 4).clamp(max=20)
    optimiser = torch.optim.AdamW(weights, lr=2e-3, weight_decay=1e-2)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = 2e-3 * (1 - step / STEPS)
        some = torch.randint(0, len(words.fit), (384,))
        x, y = words.fit[some], words.fit_labels[some]
        logits = forward(weights, x + 0.1 * torch.randn_like(x))
        loss = F.binary_cross_entropy_with_logits(logits, (y == 1).float(), reduction="none")
        loss = (loss * torch.where(y == 1, weight, 1.0) * (y >= 0)).mean(0).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    w1, b1, w2, b2, w3, b3 = (each.detach() for each in weights)
    zero = torch.zeros(n)
    return LensTensors(w1, b1, w2, b2, w3, b3, torch.zeros(n, d), zero, zero.clone())


def forward(weights: list[Tensor], x: Tensor) -> Tensor:
    """Logits [row, lens] of stacked lenses."""
    w1, b1, w2, b2, w3, b3 = weights
    z = (torch.einsum("rd,nhd->nrh", x, w1) + b1[:, None]).relu()
    z = torch.baddbmm(b2[:, None], z, w2.transpose(1, 2)).relu()
    return torch.einsum("nrk,nk->rn", z, w3) + b3


def logits_of(part: LensTensors, x: Tensor) -> Tensor:
    """The same, 1,024 rows at a time."""
    weights = [part.w1, part.b1, part.w2, part.b2, part.w3, part.b3]
    return torch.cat([forward(weights, some) for some in torch.split(x, 1024)])
