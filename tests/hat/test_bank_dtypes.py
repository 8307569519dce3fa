"""Every lens at once equals the modules one after another, in each dtype, however many there are."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ftw.hat.classifiers import MLP, LensBank, LensRow, LensTensors, normalise
from ftw.hat.classifiers.forms.dense import Dense
from ftw.hat.classifiers.gate import Gate
from ftw.hat.classifiers.quantise import quantise_rows
from ftw.substrate.errors import NumericError, PackError, UsageError
from ftw.substrate.types import Site

D = 24
CPU = torch.device("cpu")
SITE = Site(3)


def random_lenses(count: int, d_model: int = D, seed: int = 0, scale: float = 3.0) -> LensTensors:
    """Lenses that fire on some states and not on others."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    return LensTensors(
        w1=draw(count, 128, d_model) / d_model**0.5,
        b1=0.3 * draw(count, 128),
        w2=draw(count, 64, 128) / 11,
        b2=0.3 * draw(count, 64),
        w3=scale * draw(count, 64) / 8,
        b3=draw(count),
        screen_w=torch.zeros(count, d_model),
        screen_b=torch.zeros(count),
        screen_threshold=torch.full((count,), float("-inf")),
    )


def rows_for(count: int) -> list[LensRow]:
    return [LensRow(term=f"C{at}", block=3, row=at) for at in range(count)]


def one_after_another(part: LensTensors, states: Tensor) -> Tensor:
    """Logits of sequential modules: one module that takes each lens's weights in turn."""
    lens, x = MLP(part.w1.shape[2]).eval(), normalise(states)
    out = []
    with torch.no_grad():
        for at in range(len(part.b3)):
            weights = (part.w1[at], part.b1[at], part.w2[at], part.b2[at], part.w3[at][None], part.b3[at : at + 1])
            for parameter, value in zip(lens.parameters(), weights, strict=True):
                parameter.copy_(value)
            out.append(lens(x))
    return torch.stack(out, 1)


def some_states(count: int, d_model: int = D, seed: int = 1) -> Tensor:
    return 40 * torch.randn(count, d_model, generator=torch.Generator().manual_seed(seed)) + 5


@pytest.mark.parametrize("count", [1, 5, 50, 1000, pytest.param(8000, marks=pytest.mark.slow)])
def test_any_number_of_lenses_reads_as_the_modules_one_after_another(count: int) -> None:
    part, states = random_lenses(count), some_states(6)
    wanted = one_after_another(part, states).sigmoid()
    for dtype, error in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.int8, 2e-2)):
        bank = LensBank.from_tensors({3: part}, rows_for(count), dtype=dtype)
        for given_rows in (states, states[:1]):
            p = bank.score({SITE: given_rows}, full=True).p
            assert float((p - wanted[: len(p)]).abs().max()) <= error, (count, dtype, len(p))
        del bank


def test_weights_in_bf16_are_taken_as_they_are() -> None:
    part = random_lenses(9)
    half = LensTensors(
        part.w1.bfloat16(), part.b1, part.w2.bfloat16(), *(part.b2, part.w3, part.b3),
        part.screen_w, part.screen_b, part.screen_threshold,
    )  # fmt: skip
    states = some_states(5)
    rows = rows_for(9)
    one = LensBank.from_tensors({3: part}, rows, refined=0).score({SITE: states}, full=True).logit
    other = LensBank.from_tensors({3: half}, rows, refined=0).score({SITE: states}, full=True).logit
    assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalising_after_the_product_changes_nothing(dtype: torch.dtype) -> None:
    part, states = random_lenses(30), some_states(7)[None]
    exact = one_after_another(part, states[0])
    later = Dense([part], CPU, dtype, postponed=True).all(states, 1 << 20)
    assert torch.allclose(later.sigmoid(), exact.sigmoid(), atol=1e-5 if dtype == torch.float32 else 1e-2)


def test_normalising_after_the_product_works_with_int8() -> None:
    part, states = random_lenses(30), some_states(7)[None]
    before = Dense([part], CPU, torch.int8).all(states, 1 << 20)
    later = Dense([part], CPU, torch.int8, postponed=True).all(states, 1 << 20)
    assert torch.allclose(later.sigmoid(), before.sigmoid(), atol=1e-2)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 40), st.integers(1, 12), st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 1 << 24),
)  # fmt: skip
def test_chunks_of_lenses_and_a_budget_of_memory_change_no_reading(
    rows: int, lenses: int, chunk: int, dtype: torch.dtype, memory: int
) -> None:
    part, states = random_lenses(lenses, 16), some_states(rows, 16)[None]
    whole = Dense([part], CPU, dtype).all(states, 1 << 28)
    parts = Dense([part], CPU, dtype, lenses=chunk).all(states, memory)
    assert torch.allclose(whole, parts, atol=1e-4 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_a_row_reads_the_same_alone_and_among_others(dtype: torch.dtype) -> None:
    part, states = random_lenses(40), some_states(20)
    states[7] *= 1000  # what one request holds changes nothing for the others
    bank = LensBank.from_tensors({3: part}, rows_for(40), dtype=dtype)
    together = bank.score({SITE: states}, full=True).logit
    alone = torch.cat([bank.score({SITE: one[None]}, full=True).logit for one in states])
    assert torch.allclose(together, alone, atol=0.05 if dtype == torch.bfloat16 else 2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_a_number_cannot_hide(dtype: torch.dtype, bad: float) -> None:
    bank = LensBank.from_tensors({3: random_lenses(40)}, rows_for(40), dtype=dtype)
    states = some_states(6)
    states[2, 5] = bad
    scores = bank.score({SITE: states}, full=True)
    with pytest.raises(NumericError, match="not finite"):
        _ = scores.logit
    assert scores.raw.isnan().all(1).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 0.02), (torch.int8, 0.03)])
def test_the_top_ten_are_exact_where_one_channel_outweighs_all_others(dtype: torch.dtype, error: float) -> None:
    part, states = random_lenses(1000, 64), some_states(20, 64)
    states[:, 11] *= 60
    rows = rows_for(1000)
    exact = LensBank.from_tensors({3: part}, rows, dtype=torch.float32).score({SITE: states}, full=True)
    bank = LensBank.from_tensors({3: part}, rows, dtype=dtype)
    small = bank.score({SITE: states}, full=True)
    same = [{t for t, _ in a} == {t for t, _ in b} for a, b in zip(exact.top(10), small.top(10), strict=True)]
    assert all(same)
    once = LensBank.from_tensors({3: part}, rows, dtype=dtype, refined=0).score({SITE: states}, full=True)
    assert not torch.equal(once.logit, small.logit)
    spread = float(exact.logit.std())
    assert float((once.logit - exact.logit).std()) < error * spread


def test_int8_without_fbgemm_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    part, states = random_lenses(40), some_states(5)
    first = LensBank.from_tensors({3: part}, rows_for(40), dtype=torch.int8).score({SITE: states}, full=True).logit
    monkeypatch.setattr("ftw.hat.classifiers.forms.products.has_fbgemm", lambda: False)
    other = LensBank.from_tensors({3: part}, rows_for(40), dtype=torch.int8).score({SITE: states}, full=True).logit
    assert torch.allclose(first, other, atol=1e-5)


def test_bf16_on_a_cpu_without_bf16_products_is_computed_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    part, states = random_lenses(40), some_states(5)
    monkeypatch.setattr("ftw.hat.classifiers.forms.products.Packed.is_possible", lambda: False)
    p = LensBank.from_tensors({3: part}, rows_for(40)).score({SITE: states}, full=True).p
    assert float((p - one_after_another(part, states).sigmoid()).abs().max()) < 1e-2


def test_a_lens_that_came_with_layernorm_terms_reads_the_same_once_they_are_folded() -> None:
    part, states = random_lenses(12), some_states(5)
    gain, shift = 1 + 0.3 * torch.randn(12, D), 0.2 * torch.randn(12, D)
    gain[::2], shift[::2] = 1, 0  # a mixed pack: every other lens has none
    x = F.layer_norm(states, (D,))[:, None] * gain + shift
    z = torch.einsum("rnd,nhd->rnh", x, part.w1).add(part.b1).relu()
    z = torch.einsum("rnh,nkh->rnk", z, part.w2).add(part.b2).relu()
    wanted = torch.einsum("rnk,nk->rn", z, part.w3) + part.b3
    folded = LensTensors(
        part.w1 * gain[:, None], part.b1 + torch.einsum("nhd,nd->nh", part.w1, shift), part.w2, part.b2, part.w3,
        part.b3, part.screen_w, part.screen_b, part.screen_threshold,
    )  # fmt: skip
    bank = LensBank.from_tensors({3: folded}, rows_for(12), dtype=torch.float32)
    assert torch.allclose(bank.score({SITE: states}, full=True).p, wanted.sigmoid(), atol=1e-5)


def test_a_dtype_that_no_bank_holds_is_refused() -> None:
    with pytest.raises(UsageError, match="float64: a bank holds them in float32, bfloat16 or int8"):
        LensBank.from_tensors({3: random_lenses(2)}, rows_for(2), dtype=torch.float64)


def a_gate(block: int, lenses: int) -> Gate:
    """One branch that is always open."""
    return Gate(block, torch.zeros(1, D), torch.ones(1), torch.zeros(lenses, dtype=torch.int64))


def test_a_bank_behind_an_open_gate_reads_as_without_it() -> None:
    bank, states = LensBank.from_tensors({3: random_lenses(6)}, rows_for(6), dtype=torch.float32), some_states(4)
    assert torch.equal(bank.gated(a_gate(3, 6)).score({SITE: states}).raw, bank.score({SITE: states}).raw)


def test_a_gate_of_another_bank_is_refused() -> None:
    bank = LensBank.from_tensors({3: random_lenses(6)}, rows_for(6))
    for gate in (a_gate(3, 5), a_gate(2, 6)):
        with pytest.raises(UsageError, match=r"does not fit: this bank has 6 at block 3"):
            bank.gated(gate)


def test_a_block_without_a_trunk_is_named() -> None:
    with pytest.raises(PackError, match=r"the lenses read blocks \[3\], the trunks \[\]"):
        LensBank.from_tensors({3: random_lenses(2)}, rows_for(2), trunks={})


def test_what_int8_cannot_hold_is_refused() -> None:
    weight = torch.ones(3, 4)
    for bad in (float("nan"), float("-inf")):
        weight[1, 2] = bad
        with pytest.raises(NumericError, match="to be quantised is a NaN or an infinity"):
            quantise_rows(weight)
    weight[1, 2] = -1e9
    with pytest.raises(NumericError, match=r"a weight of 1e\+09 is too large"):
        quantise_rows(weight)
