"""Separate lenses: hundreds of steps together are each lens by itself, and every lens stops when it is best."""

import pytest
import torch
from torch import Tensor

from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord, Relationships
from ftw.map.training.evaluate import auroc, macro
from ftw.map.training.fit import Lenses, fit_ridge
from ftw.map.training.mlps import MlpConfig, Mlps, chunks_of, fit_mlps
from ftw.map.training.negatives import Drawer, Kin
from ftw.map.training.targets import NEGATIVE, POSITIVE, Targets
from ftw.map.training.work import mixed

QUICK = MlpConfig(steps=150, batch=48, check=10, patience=4, dropout_in=0.1, dropout=0.1)
PARENTS = {"A": None, "B": None, "C": None, "D": "A", "E": "A", "F": "D", "G": "D"}
TIES = Relationships(antonyms=["E", "Nowhere"], related=["A"])
LEVEL = {"A": 0, "B": 0, "C": 0, "D": 1, "E": 1, "F": 2, "G": 2}


def pack() -> ConceptPack:
    return ConceptPack(
        PackRecord(pack_id="p", version="1"),
        [
            ConceptRecord(
                term=term,
                layer=LEVEL[term],
                parent_concepts=[parent] if parent else [],
                definition=f"a {term}",
                relationships=TIES if term == "F" else Relationships(),
            )
            for term, parent in PARENTS.items()
        ],
    )


TARGETS = Targets.of(pack())
KIN = Kin.of(pack(), TARGETS)


def sample(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """States that stand around one centre per concept, those of a branch near each other."""
    rng = torch.Generator().manual_seed(seed)
    own = torch.randn(7, 16, generator=torch.Generator().manual_seed(9))
    centres = torch.stack(
        [
            sum((own[TARGETS.homes[t]] for t in [term, *pack().ancestors(term)]), torch.zeros(16))
            for term in TARGETS.terms
        ]
    )
    home = torch.randint(0, 7, (n,), generator=rng)
    return centres[home] + 0.5 * torch.randn(n, 16, generator=rng), home


def fitted(chunk: tuple[int, ...], config: MlpConfig = QUICK, seed: int = 1) -> tuple[Mlps, Tensor]:
    x, home = sample(500, 0)
    watched = torch.arange(500) % 5 == 0
    return fit_mlps(x, home, watched, TARGETS, KIN, chunk, config, seed, lambda done, total: None)


def test_lenses_tell_new_states_of_their_concepts_apart() -> None:
    x, home = sample(300, 1)
    lenses, _ = fitted(tuple(range(7)))
    assert macro(auroc(lenses(x), TARGETS.labels(home))) > 0.95


def test_the_same_chunk_gives_the_same_lenses_whoever_fits_the_others() -> None:
    chunks = chunks_of(TARGETS, together=2)
    assert chunks == [(0, 1, 2), (3, 4), (5, 6)]
    one = [fitted(chunk)[0] for chunk in chunks]
    other = [fitted(chunk)[0] for chunk in reversed(chunks)][::-1]
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.w1, b.w1)
        assert torch.equal(a.b3, b.b3)
    whole = Mlps.join([one[2], one[0], one[1]], [chunks[2], chunks[0], chunks[1]])
    assert torch.equal(whole.w1[3:5], one[1].w1)


def test_a_lens_that_gets_no_better_is_frozen_at_its_best_while_others_go_on() -> None:
    told: list[int] = []
    x, home = sample(400, 0)
    noise = torch.randn(400, 16, generator=torch.Generator().manual_seed(4))
    x = torch.where(((home == 1) | (home == 2))[:, None], noise, x)  # B and C cannot be told apart
    watched = torch.arange(400) % 5 == 0
    _, best = fit_mlps(
        x,
        home,
        watched,
        TARGETS,
        KIN,
        (0, 1, 2),
        MlpConfig(steps=400, batch=48, check=10),
        0,
        lambda d, t: told.append(d),
    )
    assert len(set(best.tolist())) > 1
    assert int(best.max()) < 400
    assert told[-1] == 400


def test_what_ships_is_exactly_what_was_fitted() -> None:
    lenses, _ = fitted((3, 4))
    x, _ = sample(20, 2)
    wanted = lenses(x)
    tensors = lenses.tensors(fit_ridge(x, wanted), torch.zeros(2))
    first = torch.relu(torch.einsum("sd,lhd->slh", x, tensors.w1) + tensors.b1)
    second = torch.relu(torch.einsum("slh,luh->slu", first, tensors.w2) + tensors.b2)
    assert torch.allclose((second * tensors.w3).sum(-1) + tensors.b3, wanted, atol=1e-5)


def test_half_of_the_negatives_are_the_familys_and_none_is_a_positive() -> None:
    _, home = sample(2000, 3)
    drawer, rng = Drawer(KIN, TARGETS, home), torch.Generator().manual_seed(0)
    lenses = torch.arange(7)
    own = home[drawer.positives(lenses, 200, rng)]
    assert bool((TARGETS.table[own, lenses[:, None]] == POSITIVE).all())
    family = home[drawer.families([TARGETS.siblings[1]], 400, rng)][0]
    assert {TARGETS.terms[at] for at in family.tolist()} == {"D", "E", "F", "G"}  # siblings with what is below them
    states, weight = drawer.negatives(lenses, 200, rng)
    label = TARGETS.table[home[states], lenses[:, None]]
    assert bool(((label == NEGATIVE) == (weight > 0)).all())


def test_a_lens_meets_its_nephews_and_confusables() -> None:
    _, home = sample(2000, 3)
    drawer, rng = Drawer(KIN, TARGETS, home), torch.Generator().manual_seed(0)
    at = TARGETS.homes
    states, _ = drawer.negatives(torch.tensor([at["E"], at["F"]]), 2000, rng)
    share = [torch.bincount(home[row], minlength=7) / 2000 for row in states]
    assert (
        float(share[0][at["F"]] + share[0][at["G"]]) > 0.3
    )  # below its sibling D: a fifth, and their share of the rest
    assert float(share[1][at["E"]]) > 0.3  # its antonym
    assert KIN.confusables[at["F"]].tolist() == [at["E"]]  # neither itself, nor what is above it, nor a name unknown


def test_lenses_of_two_fits_can_be_mixed() -> None:
    old, new = fitted((3, 4))[0], fitted((3, 4), seed=2)[0]
    one = mixed(old, new, torch.tensor([False, True]))
    assert isinstance(one, Mlps)
    assert torch.equal(one.w1[0], old.w1[0])
    assert torch.equal(one.w1[1], new.w1[1])
    shared = Lenses(torch.zeros(2, 4), torch.zeros(2), torch.zeros(3, 2), torch.zeros(3))
    other = Lenses(torch.ones(2, 4), torch.ones(2), torch.ones(3, 2), torch.ones(3))
    both = mixed(shared, other, torch.tensor([True, False, True]))
    assert isinstance(both, Lenses)
    assert both.head[:, 0].tolist() == [1, 0, 1]
    assert float(both.first.sum()) == 0  # what all lenses share is not touched


@pytest.mark.parametrize("n", [0, 3, 20])
def test_any_number_of_states_can_be_read(n: int) -> None:
    lenses, _ = fitted((3, 4), MlpConfig(steps=5, batch=12, check=5))
    x = torch.randn(n, 16)
    assert lenses(x).shape == (n, 2)
