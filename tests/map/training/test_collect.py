"""Collecting: each text runs once, sharing what a carrier's prompts have in common changes nothing."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from ftw.hat.classifiers.modules import normalise
from ftw.map.training.collect import collect, collect_text
from ftw.map.training.plan import Plan, Pool, plan_of
from ftw.map.training.states import States
from ftw.substrate.errors import NumericError, PromptTooLong, SiteError, UsageError
from ftw.substrate.model import Model, load
from ftw.substrate.taps import tap
from ftw.substrate.types import Site

SAID = [(c, w) for w in ("owl", "ox", "grey wolf", "hen") for c in ("They saw the", "So it was a", "")]


def quiet(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def model() -> Model:
    return load("tiny")


@pytest.fixture(autouse=True)
def shares_for_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftw.map.training.plan.SHARED", 2)


def alone(model: Model, text: str, block: int) -> torch.Tensor:
    with torch.inference_mode(), tap(model, [Site(block)]) as trace:
        model.net(input_ids=torch.tensor([model.encode(text)]))
        return trace[Site(block)][0]


def text_of(said: tuple[str, str]) -> str:
    return " ".join(part for part in said if part)


def read(model: Model, blocks: Sequence[int], pools: Sequence[Pool] = ("last",)) -> tuple[Plan, States]:
    plan = plan_of(model, SAID, blocks=len(blocks), pools=pools)
    return plan, collect(model, plan, blocks, quiet)


def close(states: States, block: int, wanted: Sequence[torch.Tensor]) -> None:
    assert torch.allclose(states.resid(block), torch.stack(list(wanted)), atol=2e-2)
    assert torch.allclose(states.at(block), normalise(torch.stack(list(wanted))), atol=5e-3)


def test_states_are_those_of_each_text_run_alone(model: Model) -> None:
    plan, states = read(model, [0, 2])
    assert {bool(batch.head) for batch in plan.batches} == {True, False}
    own = states.of(torch.tensor(plan.first_row))
    for block in (0, 2):
        close(own, block, [alone(model, text_of(said), block)[-1] for said in SAID])


def test_a_model_without_a_cache_to_share_gives_the_same_states(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    _, shared = read(model, [1])
    monkeypatch.setattr("ftw.map.training.collect.callable", lambda what: False, raising=False)
    _, whole = read(model, [1])
    assert torch.allclose(whole.at(1), shared.at(1), atol=5e-3)


def test_carriers_that_few_words_share_run_within_their_texts(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    _, shared = read(model, [1])
    monkeypatch.setattr("ftw.map.training.plan.SHARED", 9)
    plan, whole = read(model, [1])
    assert not any(batch.head for batch in plan.batches)
    order = torch.tensor(plan_of(model, SAID, blocks=1).first_row)
    monkeypatch.setattr("ftw.map.training.plan.SHARED", 2)
    again = torch.tensor(plan_of(model, SAID, blocks=1).first_row)
    assert torch.allclose(whole.of(order).at(1), shared.of(again).at(1), atol=5e-3)


@pytest.mark.parametrize("pools", [("span", "last"), ("text",), ("last", "span", "text")])
def test_pools_are_means_over_the_word_and_over_the_text(model: Model, pools: tuple[Pool, ...]) -> None:
    plan, states = read(model, [1], pools)
    for at, said in enumerate(SAID):
        whole = alone(model, text_of(said), 1)
        start = plan.texts[at].word
        wanted = {"last": whole[-1], "span": whole[start:].mean(0), "text": whole.mean(0)}
        rows = torch.tensor(list(plan.rows_of(at)))
        close(states.of(rows), 1, [wanted[pool] for pool in pools])


def test_each_text_runs_once_and_each_shared_carrier_once(model: Model) -> None:
    rows: list[int] = []
    handle = model.arch.blocks[0].register_forward_hook(
        lambda _m, _a, out: rows.append(len(out if isinstance(out, torch.Tensor) else out[0]))
    )
    plan, _ = read(model, [0])
    handle.remove()
    heads = {batch.head for batch in plan.batches if batch.head}
    assert sum(rows) == len(SAID) + len(heads)


def test_a_text_that_stands_twice_is_an_error(model: Model) -> None:
    with pytest.raises(UsageError, match="2 prompts, 1 of them distinct"):
        plan_of(model, [("So", "be"), ("So", "be")], blocks=1)


def test_wide_passes_are_cut_smaller_and_give_the_same_states(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    _, one = read(model, [1])
    monkeypatch.setattr("ftw.map.training.plan.VALUES", 1)
    plan, many = read(model, [1])
    assert {len(batch.texts) for batch in plan.batches} == {1}
    assert torch.allclose(many.at(1), one.at(1), atol=5e-3)


def test_progress_ends_at_the_number_of_texts(model: Model) -> None:
    told: list[tuple[int, int]] = []
    plan = plan_of(model, SAID, blocks=1)
    collect(model, plan, [0], lambda what, done, total: told.append((done, total)))
    assert told[-1] == (len(SAID), len(SAID))


def test_plain_text_is_read_at_every_token(model: Model) -> None:
    states = collect_text(model, ["So be it.", "No."], [1])
    wanted = [*alone(model, "So be it.", 1), *alone(model, "No.", 1)]
    assert len(states) == len(wanted)
    close(states, 1, wanted)


def test_a_block_that_was_not_collected_is_an_error(model: Model) -> None:
    with pytest.raises(SiteError, match="block 3 was not collected: there are 0, 1"):
        collect_text(model, ["So."], [0, 1]).at(3)


def test_a_prompt_beyond_the_context_is_an_error(model: Model) -> None:
    with pytest.raises(PromptTooLong, match=r"tokens, tiny takes 256"):
        plan_of(model, [("so " * 200, "owl")], blocks=1)


def test_states_that_are_not_finite_are_an_error() -> None:
    model = replace(load("tiny"))
    with torch.no_grad():
        model.net.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(NumericError, match="states that are not finite"):
        collect_text(model, ["So."], [0])
