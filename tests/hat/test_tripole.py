import json
from pathlib import Path

import pytest
import torch

from ftw.hat.classifiers import (
    SimplexBinding,
    SimplexRow,
    Spread,
    TripoleBank,
    TripoleLens,
    load_simplexes,
    normalise,
    save_simplexes,
    tripole_loss,
)
from ftw.substrate.errors import NumericError, PackError, SiteError, StorageError, UsageError
from ftw.substrate.types import Site

D = 16
POLES = ("sorrow", "calm", "joy")


def rows() -> list[SimplexRow]:
    return [
        SimplexRow(name="mood", block=2, row=0, poles=POLES, temperature=2.0, baseline=Spread(mean=-0.1, std=0.2)),
        SimplexRow(name="trust", block=1, row=1, poles=("no", "some", "yes"), binding=SimplexBinding(concept="Trust")),
        SimplexRow(name="pace", block=2, row=2, poles=("slow", "steady", "fast")),
    ]


@pytest.fixture
def weights() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    return torch.randn(3, 3, D), torch.randn(3, 3)


def test_a_bank_reads_what_single_simplexes_read(weights: tuple[torch.Tensor, torch.Tensor]) -> None:
    bank = TripoleBank(rows(), *weights)
    resid = {Site(1): 30 * torch.randn(5, D) + 4, Site(2): torch.randn(5, D)}
    p = bank.score(resid)
    assert bank.sites == (Site(1), Site(2))
    for at, row in enumerate(rows()):
        logits = bank.module(row.name)(normalise(resid[Site(row.block)]))
        assert torch.allclose(p[:, at], (logits / row.temperature).softmax(-1), atol=1e-6)


def test_simplexes_that_are_saved_load_back(tmp_path: Path, weights: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert load_simplexes(tmp_path) is None
    save_simplexes(tmp_path, rows(), *weights)
    bank = load_simplexes(tmp_path)
    assert bank is not None
    assert list(bank.rows) == rows()
    assert torch.equal(bank.weight, weights[0])
    assert torch.equal(bank.bias, weights[1])


def test_training_balanced_poles_tells_them_apart() -> None:
    torch.manual_seed(0)
    means = 2 * torch.nn.functional.normalize(torch.randn(3, D), dim=1)
    labels = torch.arange(3).repeat(60)
    x = normalise(means[labels] + 0.3 * torch.randn(180, D))
    lens = TripoleLens(D)
    start = tripole_loss(lens, x, labels).item()
    optimiser = torch.optim.Adam(lens.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        tripole_loss(lens, x, labels).backward()
        optimiser.step()
    assert tripole_loss(lens, x, labels).item() < start / 3
    assert float((lens(x).argmax(1) == labels).float().mean()) > 0.98


def test_a_larger_margin_asks_for_more_until_it_is_met() -> None:
    lens = TripoleLens(2)
    lens.linear.weight.data = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    lens.linear.bias.data.zero_()
    x, labels = torch.tensor([[3.0, 0.0]]), torch.tensor([0])
    met = tripole_loss(lens, x, labels, margin=1.0)
    assert torch.equal(met, tripole_loss(lens, x, labels, margin=2.9))
    # logits 3, 0, -3 short of a margin of 5 by 2 at the neutral pole and by nothing at the far one
    assert (tripole_loss(lens, x, labels, margin=5.0) - met).item() == pytest.approx(0.5 * (2 + 0) / 2)


def test_states_that_are_not_given_or_of_another_width_are_refused(
    weights: tuple[torch.Tensor, torch.Tensor],
) -> None:
    bank = TripoleBank(rows(), *weights)
    with pytest.raises(SiteError, match="was not given"):
        bank.score({Site(1): torch.zeros(1, D)})
    with pytest.raises(UsageError, match=r"these simplexes take \[row, 16\]"):
        bank.score({Site(1): torch.zeros(1, 3), Site(2): torch.zeros(1, 3)})
    with pytest.raises(UsageError, match="no simplex 'x': there are mood, trust, pace"):
        bank.module("x")


def test_rows_and_tensors_that_do_not_fit_are_refused(
    tmp_path: Path, weights: tuple[torch.Tensor, torch.Tensor]
) -> None:
    weight, bias = weights
    with pytest.raises(PackError, match="3 simplexes need weight"):
        TripoleBank(rows(), weight[:2], bias[:2])
    with pytest.raises(PackError, match="rows count up, each name once"):
        TripoleBank([*rows()[:2], rows()[0]], weight, bias)
    with pytest.raises(NumericError, match="simplex 'trust' holds a NaN"):
        save_simplexes(tmp_path, rows(), weight, bias.index_fill(0, torch.tensor([1]), float("nan")))


def test_a_broken_file_of_simplexes_is_named(tmp_path: Path, weights: tuple[torch.Tensor, torch.Tensor]) -> None:
    save_simplexes(tmp_path, rows(), *weights)
    file = tmp_path / "simplexes.json"
    value = json.loads(file.read_text())
    value[1]["poles"] = ["a", "A", "b"]
    file.write_text(json.dumps(value))
    with pytest.raises(PackError, match=r"simplexes\.json row 1: poles.*three different names"):
        load_simplexes(tmp_path)
    file.write_text("{}")
    with pytest.raises(PackError, match="is dict, not a list of simplexes"):
        load_simplexes(tmp_path)
    save_simplexes(tmp_path, rows(), *weights)
    (tmp_path / "simplexes.safetensors").unlink()
    with pytest.raises(StorageError, match=r"simplexes\.safetensors cannot be read"):
        load_simplexes(tmp_path)


def test_a_nan_in_a_stored_simplex_names_it(tmp_path: Path, weights: tuple[torch.Tensor, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    save_simplexes(tmp_path, rows(), *weights)
    weights[0][2, 1, 3] = float("inf")
    save_file({"weight": weights[0], "bias": weights[1]}, tmp_path / "simplexes.safetensors")
    with pytest.raises(NumericError, match="weight of simplex 'pace' holds"):
        load_simplexes(tmp_path)
