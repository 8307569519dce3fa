"""States: each prompt runs once, sharing what a carrier's prompts have in common changes nothing, the word is read."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from ftw.hat.classifiers.modules import normalise
from ftw.map.training.collect import States, collect, collect_text
from ftw.map.training.prompts import Prompt, Word
from ftw.substrate.errors import NumericError, PromptTooLong, SiteError
from ftw.substrate.model import Model, load
from ftw.substrate.taps import tap
from ftw.substrate.types import Site

WORDS = tuple(Word(text, f"{text}.n.01", "A", "noun") for text in ("owl", "ox", "grey wolf", "hen"))
PROMPTS = [Prompt(c, w, held=False) for w in range(4) for c in ("They saw the", "So it was a")]


def quiet(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def model() -> Model:
    return load("tiny")


def alone(model: Model, text: str, block: int) -> torch.Tensor:
    with torch.inference_mode(), tap(model, [Site(block)]) as trace:
        model.net(input_ids=torch.tensor([model.encode(text)]))
        return trace[Site(block)][0]


def close(states: States, block: int, wanted: Sequence[torch.Tensor]) -> None:
    assert torch.allclose(states.resid(block), torch.stack(list(wanted)), atol=2e-2)
    assert torch.allclose(states.at(block), normalise(torch.stack(list(wanted))), atol=5e-3)


def test_states_are_those_of_each_prompt_run_alone(model: Model) -> None:
    states = collect(model, PROMPTS, WORDS, [0, 2], quiet)
    for block in (0, 2):
        close(states, block, [alone(model, p.text(WORDS), block)[-1] for p in PROMPTS])


def test_a_model_without_a_cache_to_share_gives_the_same_states(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = collect(model, PROMPTS, WORDS, [1], quiet)
    monkeypatch.setattr("ftw.map.training.collect._shared_head", lambda carrier, ids: [])
    assert torch.allclose(collect(model, PROMPTS, WORDS, [1], quiet).at(1), shared.at(1), atol=5e-3)


def test_each_prompt_runs_once(model: Model) -> None:
    rows: list[int] = []
    handle = model.arch.blocks[0].register_forward_hook(
        lambda _m, _a, out: rows.append(len(out if isinstance(out, torch.Tensor) else out[0]))
    )
    collect(model, PROMPTS, WORDS, [0], quiet)
    handle.remove()
    assert sum(rows) == len(PROMPTS) + 2  # and each carrier once


def test_progress_ends_at_the_number_of_prompts(model: Model) -> None:
    told: list[tuple[int, int]] = []
    collect(model, PROMPTS, WORDS, [0], lambda what, done, total: told.append((done, total)))
    assert told[-1] == (len(PROMPTS), len(PROMPTS))


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
        collect(model, [Prompt("so " * 200, 0, held=False)], WORDS, [0], quiet)


def test_states_that_are_not_finite_are_an_error() -> None:
    model = replace(load("tiny"))
    with torch.no_grad():
        model.net.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(NumericError, match="states that are not finite"):
        collect_text(model, ["So."], [0])
