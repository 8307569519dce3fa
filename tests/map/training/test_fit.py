"""Fitted lenses: they learn, they are the same for the same seed, and what is shipped is exactly what was fitted."""

import pytest
import torch

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.classifiers.index import LensRow
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord
from ftw.map.training.evaluate import auroc, macro
from ftw.map.training.fit import FitConfig, Lenses, fit_lenses, fit_ridge
from ftw.map.training.targets import POSITIVE, Targets
from ftw.substrate.types import Site

QUICK = FitConfig(epochs=30, batch=128)


def targets() -> Targets:
    records = [ConceptRecord(term=t, layer=0, definition=f"a {t}") for t in "ABCDE"]
    records += [ConceptRecord(term=t, layer=1, parent_concepts=["A"], definition=f"a {t}") for t in "FG"]
    return Targets.of(ConceptPack(PackRecord(pack_id="p", version="1"), records))


def sample(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States that stand around one centre per home, 16 channels with uneven scales."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(7, 16, generator=torch.Generator().manual_seed(9))
    home = torch.randint(0, 7, (n,), generator=rng)
    x = (centres[home] + 0.6 * torch.randn(n, 16, generator=rng)) * torch.linspace(0.1, 10, 16) + 3
    return x, home


@pytest.fixture(scope="module")
def lenses() -> Lenses:
    return fit_lenses(*sample(600, 0), targets(), QUICK, seed=1, progress=lambda done, total: None)


def test_lenses_tell_new_states_of_their_concepts_apart(lenses: Lenses) -> None:
    x, home = sample(300, 1)
    assert macro(auroc(lenses(x), targets().labels(home))) > 0.95


def test_plain_states_are_learnt_as_negatives() -> None:
    x, home = sample(400, 0)
    plain = torch.full((100, 16), 3.0) + torch.randn(100, 16, generator=torch.Generator().manual_seed(3))
    both, homes = torch.cat([x, plain]), torch.cat([home, targets().plain(100)])
    fitted = fit_lenses(both, homes, targets(), QUICK, seed=1, progress=lambda done, total: None)
    labels = targets().labels(homes)
    own = fitted(both)[labels == POSITIVE].mean()
    assert float(fitted(plain).mean()) < float(own)


def test_the_same_seed_gives_the_same_lenses_and_leaves_the_global_state_alone(lenses: Lenses) -> None:
    before = torch.random.get_rng_state()
    again = fit_lenses(*sample(600, 0), targets(), QUICK, seed=1, progress=lambda done, total: None)
    assert torch.equal(again.head, lenses.head)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_separate_mlps_give_the_logits_that_were_fitted(lenses: Lenses) -> None:
    x, _ = sample(50, 2)
    x = torch.nn.functional.layer_norm(x, (16,))
    screen = fit_ridge(x, lenses(x))
    tensors = lenses.tensors(screen, torch.full((7,), float("-inf")))
    rows = [LensRow(term=term, block=0, row=at) for at, term in enumerate(targets().terms)]
    bank = LensBank.from_tensors({0: tensors}, rows, dtype=torch.float32)
    assert torch.allclose(bank.score({Site(0): x}, full=True).logit, lenses(x), atol=1e-3)


def test_ridge_is_the_closed_form_solution() -> None:
    x, home = sample(200, 0)
    wanted = (targets().labels(home) == POSITIVE).float()
    found = fit_ridge(x, wanted, ridge=2.0)
    z = (x - x.mean(0)) / (x.std(0) + 1e-6)
    weight = torch.linalg.solve(z.T @ z / 200 + 2 * torch.eye(16), z.T @ (wanted - wanted.mean(0)) / 200)
    assert torch.allclose(found(x), z @ weight + wanted.mean(0), atol=1e-4)


def test_progress_counts_the_steps() -> None:
    told: list[tuple[int, int]] = []
    fit_lenses(
        *sample(100, 0), targets(), FitConfig(epochs=2, batch=50), 0, lambda done, total: told.append((done, total))
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
