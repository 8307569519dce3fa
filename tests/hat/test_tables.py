import pytest
import torch

from ftw.hat.classifiers.forms.tables import FloatTable, Int8Table, lay_out, table_of
from ftw.hat.classifiers.quantise import dequantise_rows, quantise_rows

CPU = torch.device("cpu")


def weights(lenses: int = 9, width: int = 16, inner: int = 24) -> torch.Tensor:
    return torch.randn(lenses, width, inner, generator=torch.Generator().manual_seed(lenses))


def expected(weight: torch.Tensor, x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
    return torch.einsum("pwi,pi->pw", weight.float()[lens], x)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_sums_are_each_lenss_product_with_its_own_state(dtype: torch.dtype, tolerance: float) -> None:
    weight, x = weights(), torch.randn(40, 24)
    lens = torch.randint(0, 9, (40,))
    table = table_of([weight[:4], weight[4:]], CPU, dtype)
    assert isinstance(table, FloatTable)
    assert torch.allclose(table.sums(x, lens).float(), expected(weight, x, lens), atol=tolerance, rtol=tolerance)
    assert torch.equal(table.weight(3, 6).float(), weight[3:6].to(dtype).float().transpose(1, 2))


def test_int8_sums_equal_the_stored_integers_times_their_scales_exactly_in_fp32() -> None:
    weight, x = weights(), torch.randn(40, 24)
    lens = torch.randint(0, 9, (40,))
    stored = dequantise_rows(quantise_rows(weight))
    table = table_of([weight[:4], weight[4:]], CPU, torch.int8)
    assert isinstance(table, Int8Table)
    assert torch.allclose(table.sums(x, lens), expected(stored, x, lens), atol=1e-4, rtol=1e-5)
    assert torch.equal(table.weight(2, 5), stored[2:5].transpose(1, 2))


def test_int8_pairs_gathered_as_on_other_devices_give_the_same() -> None:
    weight, x = weights(), torch.randn(6, 24)
    lens = torch.tensor([0, 3, 3, 8, 1, 2])
    table = Int8Table([weight], CPU)
    here = table.sums(x, lens)
    table.rows = (table.rows[:, : table.width] ^ 128).view(torch.int8)
    table._summed_in_place = False
    assert torch.allclose(table.sums(x, lens), here, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_no_pair_is_no_sum_and_many_pairs_are_summed_a_part_at_a_time(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of([weights()], CPU, dtype)
    assert table.sums(torch.empty(0, 24), torch.empty(0, dtype=torch.int64)).shape == (0, 16)
    x, lens = torch.randn(50, 24), torch.arange(50) % 9
    whole = table.sums(x, lens)
    monkeypatch.setattr("ftw.hat.classifiers.forms.tables._CHUNK", 24 * 7)
    assert torch.equal(table.sums(x, lens), whole)


def test_a_nan_in_a_state_is_a_nan_in_its_sums() -> None:
    x = torch.randn(2, 24)
    x[0, 0] = float("nan")
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        bad = table_of([weights()], CPU, dtype).sums(x, torch.tensor([1, 1])).isnan().any(1)
        assert bad.tolist() == [True, False]


def test_laying_out_transposes_each_lens() -> None:
    weight = weights(130)
    rows = torch.empty(130, 24, 16)
    lay_out(weight, rows)
    assert torch.equal(rows, weight.transpose(1, 2))
