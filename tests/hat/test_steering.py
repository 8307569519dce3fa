from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ftw.hat.classifiers import MLP, normalise
from ftw.hat.steering import (
    DEFAULT_STRENGTH,
    Direction,
    Steer,
    difference_of_means,
    lens_gradient,
    steer_edit,
    steer_edits,
    word_gradient,
    word_tokens,
)
from ftw.substrate.errors import NumericError, UsageError
from ftw.substrate.model import Model, from_net, load
from ftw.substrate.reference import tiny
from ftw.substrate.taps import tap
from ftw.substrate.types import Site

States = Callable[[int], Tensor]


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


def test_each_state_moves_by_a_tenth_of_its_norm_times_the_strength(states: States) -> None:
    h, v = states(6).view(2, 3, 32), torch.randn(32)
    moved = steer_edit(Site(1), v, 0.8).apply(h) - h
    assert torch.allclose(moved.norm(dim=-1), 0.08 * h.norm(dim=-1), rtol=1e-4)
    assert torch.allclose(torch.cosine_similarity(moved, v.expand_as(moved), dim=-1), torch.ones(2, 3), atol=1e-4)


def test_a_negative_strength_pushes_the_other_way_and_none_changes_nothing(states: States) -> None:
    h, v = states(3), torch.randn(32)
    there, back = steer_edit(Site(1), v, 0.5).apply(h), steer_edit(Site(1), v, -0.5).apply(h)
    assert torch.allclose(there - h, h - back, atol=1e-4)
    assert torch.equal(steer_edit(Site(1), v, 0.0).apply(h), h)


def test_an_edit_keeps_dtype_and_leaves_its_argument_alone(states: States) -> None:
    h = states(3).bfloat16()
    before = h.clone()
    edit = steer_edit(Site(1), torch.randn(32), 0.5)
    assert edit.apply(h).dtype == torch.bfloat16
    assert edit.apply(h.float()).dtype == torch.float32
    assert torch.equal(h, before)


def test_concepts_at_one_site_are_one_edit_whose_pushes_add_up(states: States) -> None:
    h = states(4)
    eye = torch.eye(32)
    one, two = (Direction(name, Site(1), eye[at], gain=0.2) for at, name in enumerate("ab"))
    edits = steer_edits([Steer(one, 0.5), Steer(two, -1.0), Steer(Direction("c", Site(0), eye[2]))])
    assert [edit.site for edit in edits] == [Site(0), Site(1)]
    assert edits[1].label == "steer a +0.5, steer b -1"
    share = (edits[1].apply(h) - h) / h.norm(dim=-1, keepdim=True)
    assert torch.allclose(share, (0.1 * eye[0] - 0.2 * eye[1]).expand(4, 32), atol=1e-5)


def test_the_default_strength_is_where_the_gain_was_made_for() -> None:
    assert Steer(Direction("a", Site(1), torch.eye(4)[0], gain=0.5)).share == pytest.approx(0.5 * DEFAULT_STRENGTH)


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), -float("inf")])
def test_a_strength_that_is_no_number_is_refused(strength: float) -> None:
    with pytest.raises(UsageError, match="a finite number"):
        steer_edit(Site(1), torch.ones(4), strength)
    with pytest.raises(UsageError, match="a finite number"):
        Steer(Direction("a", Site(1), torch.ones(4)), strength)


def test_a_direction_that_is_none_is_refused() -> None:
    with pytest.raises(NumericError, match="not a way"):
        steer_edit(Site(1), torch.zeros(4), 0.5)
    with pytest.raises(NumericError, match="steer a"):
        steer_edits([Steer(Direction("a", Site(1), torch.full((4,), float("nan"))))])


def test_a_difference_of_means_points_from_the_others_to_the_concept() -> None:
    torch.manual_seed(0)
    ways = torch.eye(16)[:3]
    states = {name: 5 * way + 0.5 * torch.randn(200, 16) for name, way in zip("abc", ways, strict=True)}
    for found in (difference_of_means(states), difference_of_means(states, whiten=0.3)):
        assert torch.allclose(found.norm(dim=-1), torch.ones(3), atol=1e-5)
        assert found.argmax(-1).tolist() == [0, 1, 2]


def test_whitening_turns_away_from_what_varies_anyway() -> None:
    torch.manual_seed(0)
    noise = torch.randn(2, 4000, 8) * torch.tensor([3.0, 1, 1, 1, 1, 1, 1, 1])
    centre = torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0])
    states = {"a": noise[0] + centre, "b": noise[1] - centre}
    plain, white = difference_of_means(states)[0].abs(), difference_of_means(states, whiten=0.05)[0].abs()
    assert float(white[0] / white[1]) < float(plain[0] / plain[1])


def test_bad_means_are_refused() -> None:
    with pytest.raises(UsageError, match="at least two concepts"):
        difference_of_means({"a": torch.ones(3, 4)})
    with pytest.raises(UsageError, match="whiten is 0"):
        difference_of_means({"a": torch.ones(3, 4), "b": -torch.ones(3, 4)}, whiten=0.0)
    with pytest.raises(NumericError, match="no direction for 'a'"):
        difference_of_means({"a": torch.ones(3, 4), "b": torch.ones(3, 4)})


def test_the_lens_gradient_equals_autograd(states: States) -> None:
    torch.manual_seed(0)
    lens, h = MLP(32), states(7).requires_grad_()
    lens(normalise(h)).sum().backward()
    assert h.grad is not None
    assert torch.allclose(lens_gradient(lens, h.detach()), h.grad, atol=1e-7, rtol=1e-3)


def test_the_word_gradient_raises_the_words_it_is_made_for(model: Model) -> None:
    contexts = [model.encode("one two three"), model.encode("four")]
    words = {"a": [10, 11], "b": [200]}
    found = word_gradient(model, Site(1), words, contexts)
    assert torch.allclose(found.norm(dim=-1), torch.ones(2), atol=1e-5)

    def probability(tokens: list[int], strength: float, row: int) -> float:
        edit = steer_edit(Site(1), found[row], strength)
        with torch.inference_mode(), tap(model, edits=[edit]):
            logits = model.net(torch.tensor([contexts[0]])).logits
        return float(logits[0, 1:].log_softmax(-1)[:, tokens].logsumexp(-1).mean())

    for row, tokens in enumerate(words.values()):
        down, none, up = (probability(tokens, strength, row) for strength in (-0.3, 0.0, 0.3))
        assert down < none < up


def test_the_word_gradient_leaves_the_model_as_it_was(model: Model) -> None:
    before = [parameter.requires_grad for parameter in model.net.parameters()]
    word_gradient(model, Site(0), {"a": [1]}, [[5, 6, 7]])
    assert [parameter.requires_grad for parameter in model.net.parameters()] == before
    assert all(parameter.grad is None for parameter in model.net.parameters())


def test_words_and_contexts_are_needed(model: Model) -> None:
    with pytest.raises(UsageError, match="no words of 'b'"):
        word_gradient(model, Site(0), {"a": [1], "b": []}, [[1, 2]])
    with pytest.raises(UsageError, match="no contexts"):
        word_gradient(model, Site(0), {"a": [1]}, [])


def test_words_are_told_by_the_tokens_that_stand_for_them(model: Model) -> None:
    assert word_tokens(model, ["food", "fish"]) == ()  # bytes: no word is one token, and none begins with three letters
    with pytest.raises(UsageError, match="has no tokenizer"):
        word_tokens(from_net(model.net), ["food"])


def test_first_parts_of_words_count_only_where_whole_ones_are_few() -> None:
    bundled = load("reference")
    whole = word_tokens(bundled, ["river", "sea", "lake", "paleontologist"])
    assert [bundled.decode([token]) for token in whole] == [" river", " sea", " lake"]
    parts = word_tokens(bundled, ["river", "fundamentalist"])
    assert [bundled.decode([token]) for token in parts] == [" river", " fundamental"]
