"""peek: every block decoded in one pass, the last one being the model itself."""

import math

import pytest
import torch
from torch import nn

from ftw.substrate.errors import ConfigError, NumericError, PromptTooLong, Refused
from ftw.substrate.gate import Gate
from ftw.substrate.model import Model, load
from ftw.substrate.reference import tiny
from ftw.sweep.peek import BlockView, Guess, Peek, peek


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


def own_logprobs(model: Model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.net(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double().log_softmax(-1)


def test_the_last_block_says_what_the_model_says(model: Model) -> None:
    ids = model.encode("a storm")
    last = peek(model, ids, k=4).blocks[-1]
    own = own_logprobs(model, ids).exp()
    best = own.topk(4)
    assert [guess.id for guess in last.top] == best.indices.tolist()
    assert [guess.p for guess in last.top] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_every_block_has_a_view_in_order(model: Model) -> None:
    found = peek(model, model.encode("a"), k=2)
    assert [view.block for view in found.blocks] == list(range(model.n_layers))
    assert all(len(view.top) == 2 for view in found.blocks)


def test_without_an_answer_the_models_own_first_choice_is_followed(model: Model) -> None:
    ids = model.encode("a storm")
    found = peek(model, ids)
    assert found.answer_id == int(own_logprobs(model, ids).argmax())
    assert found.blocks[-1].answer_rank == 1
    assert found.answer == model.pieces([found.answer_id])[0]


def test_rank_and_probability_are_those_of_the_answer(model: Model) -> None:
    ids = model.encode("a storm")
    own = own_logprobs(model, ids)
    answer = int(own.argsort(descending=True)[6])
    last = peek(model, ids, answer_id=answer).blocks[-1]
    assert last.answer_rank == 7
    assert last.answer_p == pytest.approx(math.exp(float(own[answer])), abs=1e-5)


def test_entropy_is_that_of_the_distribution(model: Model) -> None:
    ids = model.encode("a storm")
    own = own_logprobs(model, ids)
    entropy = float(-(own.exp() * own).sum() / math.log(2))
    assert peek(model, ids).blocks[-1].entropy_bits == pytest.approx(entropy, abs=1e-3)


def test_the_gates_verdict_comes_with_it(model: Model) -> None:
    found = peek(model, model.encode("a"))
    assert found.gate.exact
    assert found.chance == 1 / model.vocab_size


def test_a_model_that_fails_the_gate_is_refused() -> None:
    broken = tiny(seed=1)

    class Twisted(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner
            self.calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.inner(x) * (1 + 0.1 * self.calls)

    net = broken.net
    net.model.norm = Twisted(net.model.norm)
    model = Model(net=net, tokenizer=broken.tokenizer, arch=broken.arch, spec=broken.spec, name="broken")
    with pytest.raises(Refused, match=r"broken .* fails the identity gate"):
        peek(model, [1, 2, 3])


def test_a_state_that_is_not_finite_is_an_error_that_names_its_block() -> None:
    model = tiny(seed=2)
    ids = [1, 2, 3]

    def poison(module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        return torch.full_like(output, math.nan) if output.shape[1] == len(ids) else output

    handle = model.arch.blocks[1].register_forward_hook(poison)
    try:
        with pytest.raises(NumericError, match="after block 1 decodes to numbers that are not finite"):
            peek(model, ids)
    finally:
        handle.remove()


def test_an_empty_prompt_is_an_error(model: Model) -> None:
    with pytest.raises(ConfigError, match="the prompt is empty"):
        peek(model, [])


def test_a_prompt_beyond_the_context_is_an_error_with_both_sizes(model: Model) -> None:
    with pytest.raises(PromptTooLong, match=rf"{model.context + 1} prompt tokens: tiny holds {model.context}"):
        peek(model, [1] * (model.context + 1))


@pytest.mark.parametrize("answer", [-1, 259])
def test_an_answer_outside_the_vocabulary_is_an_error(model: Model, answer: int) -> None:
    with pytest.raises(ConfigError, match=f"token id {answer}: tiny has ids 0..258"):
        peek(model, [1], answer_id=answer)


def test_peeking_leaves_no_hook_behind(model: Model) -> None:
    peek(model, [1, 2])
    assert not any(block._forward_hooks for block in model.arch.blocks)


@pytest.mark.parametrize(
    ("ranks", "first"), [([5, 1, 2, 1, 1], 3), ([1, 1, 1], 0), ([3, 2, 1], 2), ([1, 1, 2], None), ([9, 9], None)]
)
def test_an_answer_is_first_from_the_block_after_which_it_never_falls_back(ranks: list[int], first: int | None) -> None:
    views = tuple(BlockView(b, (Guess("x", 1, 0.5),), rank, 0.1, 1.0) for b, rank in enumerate(ranks))
    found = Peek((1,), "x", 1, views, Gate("m", "M", True, 0.0, 0.0, None), 10)
    assert found.first_from == first


def test_the_bundled_model_knows_a_capital_and_not_from_the_first_block_on() -> None:
    model = load("reference")
    ids = model.encode("The capital of France is")
    found = peek(model, ids, k=3)
    assert found.answer.strip() == "Paris"
    assert found.first_from is not None
    assert found.first_from > 0
    assert found.blocks[0].answer_rank > 1
