import pytest
import torch

from tools.reference_model.optimizer import Muon, orthogonal, schedule


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 8, 24), (2, 24, 8)])
def test_updates_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
    assert values.min() > 0.3
    assert values.max() < 1.5


def test_muon_walks_downhill() -> None:
    weight = torch.nn.Parameter(torch.eye(8) * 3)
    muon = Muon([weight], lr=0.1)
    for _ in range(20):
        loss = (weight**2).sum()
        loss.backward()
        muon.step(1.0, rank=0, world=1)
        weight.grad = None
    assert (weight**2).sum() < 40


def test_the_schedule_warms_up_holds_and_falls_to_zero() -> None:
    factors = [schedule(step, 1000, 40, 0.3) for step in range(1000)]
    assert factors[0] == 1 / 40
    assert set(factors[40:300]) == {1.0}
    assert factors[650] == pytest.approx(0.5)
    assert factors[999] == pytest.approx(0, abs=0.002)
    assert factors[300:] == sorted(factors[300:], reverse=True)
