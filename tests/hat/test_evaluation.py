import math

import pytest
import torch

from ftw.hat.steering import Direction, Evaluator, Steer, calibrated, expected, word_gradient, word_rate
from ftw.hat.steering.evaluation import continuation_nats
from ftw.substrate.errors import UsageError
from ftw.substrate.model import Model
from ftw.substrate.reference import tiny
from ftw.substrate.types import Site


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


@pytest.fixture(scope="module")
def evaluator(model: Model) -> Evaluator:
    return Evaluator(model, prompts=("One day,", "Then"), repeats=3, tokens=12)


@pytest.fixture(scope="module")
def to_x(model: Model) -> Direction:
    """Towards writing the byte x."""
    contexts = [model.encode("One day, there was"), model.encode("Then they")]
    return Direction("X", Site(2), word_gradient(model, Site(2), {"X": [ord("x")]}, contexts)[0], gain=1.0)


def test_the_word_rate_is_the_share_of_words_that_are_the_concepts() -> None:
    assert word_rate(["The Dogs saw a cat.", "no-one"], ["dog", "cat", "sea gull"]) == (2 / 7, 7)
    assert word_rate([], ["dog"]) == (0.0, 0)


def test_no_steering_has_no_effect_and_no_damage(evaluator: Evaluator, to_x: Direction) -> None:
    (effect,) = evaluator.measure([Steer(to_x, 0.0)], {"X": ["x"]})
    assert effect.rate == effect.base_rate
    assert effect.perplexity_ratio == pytest.approx(1, abs=1e-4)
    assert not effect.is_good
    assert effect.texts == 6
    assert effect.sample.startswith("One day,")


def test_more_strength_writes_less_likely_text(evaluator: Evaluator, to_x: Direction) -> None:
    weak, strong = evaluator.measure([Steer(to_x, 0.5), Steer(to_x, 8.0)], {"X": ["x"]})
    assert 1 < weak.perplexity_ratio < strong.perplexity_ratio


def test_the_same_seed_gives_the_same_figures(model: Model, evaluator: Evaluator, to_x: Direction) -> None:
    again = Evaluator(model, prompts=("One day,", "Then"), repeats=3, tokens=12)
    words = {"X": ["x"]}
    assert again.measure([Steer(to_x, 1.0)], words) == evaluator.measure([Steer(to_x, 1.0)], words)


def test_nats_are_those_of_each_continuation_alone(model: Model) -> None:
    pairs = [([1, 2, 3], [4, 5]), ([9], [8, 7, 6, 5])]
    for (prompt, rest), found in zip(pairs, continuation_nats(model, pairs), strict=True):
        with torch.inference_mode():
            logp = model.net(torch.tensor([[*prompt, *rest]])).logits[0].log_softmax(-1)
        expected = [-float(logp[len(prompt) + at - 1, token]) for at, token in enumerate(rest)]
        assert found.tolist() == pytest.approx(expected, abs=1e-4)


X = (ord("x"),)


def test_nothing_is_expected_of_no_push_and_more_of_a_stronger_one(model: Model, to_x: Direction) -> None:
    contexts = [model.encode("One day, there was"), model.encode("Then")]
    none, some, more = expected(model, to_x, X, [0.0, 0.5, 1.0], contexts)
    assert (none.damage, none.multiple) == (pytest.approx(0, abs=1e-5), pytest.approx(1))
    assert 0 < some.damage < more.damage
    assert 1 < some.multiple < more.multiple
    assert (some.share, more.share) == (0.5, 1.0)


def test_calibration_finds_the_share_with_the_effect_asked_for(model: Model, to_x: Direction) -> None:
    contexts = [model.encode("One day, there was"), model.encode("Then")]
    shares = (0.25, 0.5, 0.75, 1.0)
    wanted = expected(model, to_x, X, [0.65], contexts)[0]

    def share(multiple: float, damage: float) -> float:
        found = calibrated(model, to_x, X, contexts, multiple=multiple, damage=damage, shares=shares)
        return Steer(found).share

    assert share(wanted.multiple, 1e9) == pytest.approx(0.65, rel=0.1)
    assert share(1e9, wanted.damage) == pytest.approx(0.65, rel=0.1)
    assert share(wanted.multiple, 1e-9) == pytest.approx(0.25)
    assert share(1e9, 1e9) == pytest.approx(1.0)


def test_there_must_be_something_to_write_and_to_count(model: Model, evaluator: Evaluator, to_x: Direction) -> None:
    with pytest.raises(UsageError, match="nothing to write"):
        Evaluator(model, prompts=())
    with pytest.raises(UsageError, match="no words of X"):
        evaluator.measure([Steer(to_x)], {"X": []})


def test_contexts_are_prompts_with_what_the_model_wrote(model: Model, evaluator: Evaluator) -> None:
    contexts = evaluator.contexts(2)
    assert len(contexts) == 2
    assert all(math.isfinite(len(context)) and len(context) > 5 for context in contexts)
    assert model.decode(contexts[0]).startswith("One day,")
