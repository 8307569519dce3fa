"""The live lens: each glance is the sweep of the text so far, and the text is what it would have been without."""

from collections.abc import Sequence

import pytest
import torch

from ftw.substrate.engine import Request, Sampling, TransformersEngine
from ftw.substrate.errors import ConfigError
from ftw.substrate.model import Model, load
from ftw.sweep.lenses.views import view
from ftw.sweep.live import Glance, LiveLens
from ftw.sweep.run import Sweep

TEXTS = ("The capital of France is", "The opposite of hot is", "Once upon a time there was a dog")


@pytest.fixture(scope="module")
def model() -> Model:
    return load("reference")


def write(model: Model, texts: Sequence[str], live: LiveLens | None = None, new: int = 4) -> list[tuple[int, ...]]:
    controllers = () if live is None else (live,)
    greedy = Sampling(temperature=0.0)
    requests = [
        Request(tuple(model.encode(text)), max_new_tokens=new, sampling=greedy, controllers=controllers)
        for text in texts
    ]
    return [done.tokens for done in TransformersEngine(model).generate(requests)]


def test_a_glance_is_the_sweep_of_the_text_so_far(model: Model) -> None:
    live = LiveLens(model, k=3, precision="exact")
    written = write(model, TEXTS[:1], live)[0]
    assert [glance.token for glance in live.glances] == list(written)
    for glance in live.glances:
        rows = Sweep(model, k=3).run([[*model.encode(TEXTS[0]), *written[: glance.index]]])
        torch.testing.assert_close(glance.top_logprobs, torch.as_tensor(rows["top_logprobs"]), rtol=0, atol=2e-3)
        assert glance.views[-1].layer == model.n_layers
        assert int(glance.token_rank[-1]) == 1  # greedy
        assert glance.first_from is not None
        assert (glance.token_rank[glance.first_from :] == 1).all()


def test_reading_changes_nothing_of_what_is_written(model: Model) -> None:
    assert write(model, TEXTS, LiveLens(model)) == write(model, TEXTS)


def test_requests_in_company_are_read_as_they_are_alone(model: Model) -> None:
    together = LiveLens(model, precision="exact")
    write(model, TEXTS, together)
    for text in TEXTS:
        alone = LiveLens(model, precision="exact")
        write(model, [text], alone)
        first = alone.glances[0]
        twin = next(each for each in together.glances if each.index == 0 and each.token == first.token)
        torch.testing.assert_close(twin.top_logprobs, first.top_logprobs, rtol=0, atol=2e-3)


def test_other_lenses_are_read_beside_the_logit_lens_and_each_glance_is_told(model: Model) -> None:
    told: list[Glance] = []
    live = LiveLens(model, [view(model, "next"), view(model, "raw")], on_glance=told.append, keep=2)
    write(model, TEXTS[:1], live)
    assert [each.index for each in told] == [0, 1, 2]
    assert [each.index for each in live.glances] == [1, 2]
    assert {each.lens for each in told[0].views} == {"next", "raw"}


def test_a_token_that_is_not_first_at_the_end_is_first_from_nowhere(model: Model) -> None:
    live = LiveLens(model)
    write(model, TEXTS[:1], live, new=1)
    glance = live.glances[0]
    ranks = glance.token_rank.clone()
    ranks[-1] = 2
    other = Glance(
        glance.request_id, 0, glance.token, glance.views, glance.top_ids, glance.top_logprobs, ranks,
        glance.token_logprob,
    )  # fmt: skip
    assert other.first_from is None


def test_nothing_is_kept_where_nothing_is_asked_for(model: Model) -> None:
    live = LiveLens(model, keep=0)
    write(model, TEXTS[:1], live)
    assert live.glances == []


def test_sizes_that_make_no_sense_are_errors(model: Model) -> None:
    with pytest.raises(ConfigError, match="k is 0"):
        LiveLens(model, k=0)
    with pytest.raises(ConfigError, match="keep is -1"):
        LiveLens(model, keep=-1)
