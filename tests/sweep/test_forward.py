"""forward.read: a prompt's states depend on that prompt alone, whatever shares its pass."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ftw.substrate.errors import ConfigError, PromptTooLong, SiteError
from ftw.substrate.model import Model, from_net
from ftw.substrate.reference import tiny
from ftw.substrate.taps import tap
from ftw.substrate.types import Site
from ftw.sweep.forward import batches, every_site, first_of_its_kind, read
from tests.substrate.families import build

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10], [11, 12], [1, 2, 3], [13] * 20]


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


def alone(model: Model, ids: list[int], **options: Tensor) -> Tensor:
    """[layer, pos, d_model] of one prompt, without company."""
    sites = every_site(model)
    with torch.no_grad(), tap(model, reads=sites) as trace:
        model.net(input_ids=torch.tensor([ids]), use_cache=False, **options)
        return torch.stack([trace[site][0] for site in sites])


def test_every_state_is_that_of_the_prompt_alone(model: Model) -> None:
    found = read(model, PROMPTS, positions="all")
    for index, ids in enumerate(PROMPTS):
        if index == 3:  # the same ids as prompt 0
            continue
        torch.testing.assert_close(found.states[:, found.prompt == index], alone(model, ids), rtol=1e-5, atol=1e-5)


def test_rows_are_sorted_by_prompt_and_position_and_equal_prompts_share_them(model: Model) -> None:
    found = read(model, PROMPTS, positions="all")
    lengths = [len(ids) for index, ids in enumerate(PROMPTS) if index != 3]
    assert found.prompt.tolist() == [index for index, n in zip([0, 1, 2, 4], lengths, strict=True) for _ in range(n)]
    assert found.pos.tolist() == [pos for n in lengths for pos in range(n)]
    assert first_of_its_kind(PROMPTS) == (0, 1, 2, 0, 4)


def test_equal_prompts_with_other_positions_are_read_once_at_both(model: Model) -> None:
    found = read(model, [[1, 2, 3], [1, 2, 3]], positions=[[0], [2, 0]])
    assert (found.prompt.tolist(), found.pos.tolist()) == ([0, 0], [0, 2])


@given(
    prompts=st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=12), min_size=1, max_size=7),
    budget=st.integers(1, 10**6),
)
@settings(max_examples=25)
def test_neither_company_nor_budget_change_a_state(model: Model, prompts: list[list[int]], budget: int) -> None:
    together = read(model, prompts, budget=budget)
    assert len(together) == len({tuple(ids) for ids in prompts})
    for row, index in enumerate(together.prompt.tolist()):
        single = read(model, [prompts[index]])
        torch.testing.assert_close(together.states[:, row], single.states[:, 0], rtol=1e-5, atol=2e-5)


def test_padding_on_the_left_with_a_mask_gives_the_same_states(model: Model) -> None:
    ids, pad = [4, 5, 6], [0, 0, 0, 0]
    mask = torch.tensor([[0] * len(pad) + [1] * len(ids)])
    left = alone(model, pad + ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp_min(0))
    right = read(model, [ids, [9] * 5], positions="all")
    torch.testing.assert_close(right.states[:, right.prompt == 0], left[:, len(pad) :], rtol=1e-5, atol=1e-5)


def test_a_prompt_runs_with_or_without_bos_as_it_was_given(model: Model) -> None:
    with_bos = model.encode("a storm")
    found = read(model, [with_bos, with_bos[1:]])
    torch.testing.assert_close(found.states[:, 0], alone(model, with_bos)[:, -1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.states[:, 1], alone(model, with_bos[1:])[:, -1], rtol=1e-5, atol=1e-5)


def test_only_the_sites_and_positions_asked_for_are_kept(model: Model) -> None:
    found = read(model, [[1, 2, 3, 4]], [Site(2), Site(-1)], positions=[[1, 3]])
    assert found.states.shape == (2, 2, model.d_model)
    torch.testing.assert_close(found.states, alone(model, [1, 2, 3, 4])[[3, 0]][:, [1, 3]])


def test_a_small_budget_makes_more_passes_and_one_prompt_always_runs(model: Model) -> None:
    passes = [part.prompt.tolist() for part in batches(model, [[1] * 30, [2] * 30, [3] * 30], budget=1)]
    assert passes == [[0], [1], [2]]
    assert len(list(batches(model, [[1] * 30, [2] * 30, [3] * 30]))) == 1


def test_prompts_of_very_different_length_do_not_share_a_pass(model: Model) -> None:
    passes = [part.prompt.tolist() for part in batches(model, [[1] * 2, [2] * 100, [3] * 2, [4] * 90])]
    assert sorted(map(sorted, passes)) == [[0, 2], [1, 3]]


def test_where_rotary_scaling_looks_at_the_pass_only_equal_lengths_share_one() -> None:
    net = build("llama")
    model = from_net(net)
    prompts = [[5] * 9, [6] * 10, [7] * 9]
    assert len(list(batches(model, prompts))) == 1
    net.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    assert sorted(part.prompt.tolist() for part in batches(model, prompts)) == [[0, 2], [1]]


def test_no_hook_survives_reading(model: Model) -> None:
    read(model, PROMPTS)
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in model.arch.blocks)


def test_no_prompts_are_an_error(model: Model) -> None:
    with pytest.raises(ConfigError, match="there are no prompts to read"):
        read(model, [])


def test_an_empty_prompt_is_an_error_that_names_it(model: Model) -> None:
    with pytest.raises(ConfigError, match="prompt 1 is empty"):
        read(model, [[1], []])


def test_a_prompt_beyond_the_context_is_an_error_with_both_sizes(model: Model) -> None:
    with pytest.raises(PromptTooLong, match="prompt 0 is 257 tokens long: tiny holds 256"):
        read(model, [[1] * 257])


@pytest.mark.parametrize("token", [-1, 259])
def test_an_unknown_token_is_an_error(model: Model, token: int) -> None:
    with pytest.raises(ConfigError, match=f"prompt 0 has token id {token}: tiny has ids 0..258"):
        read(model, [[token]])


def test_a_position_outside_the_prompt_is_an_error(model: Model) -> None:
    with pytest.raises(ConfigError, match="prompt 0 has no position 2: it is 2 tokens long"):
        read(model, [[1, 2]], positions=[[2]])


def test_positions_for_another_number_of_prompts_are_an_error(model: Model) -> None:
    with pytest.raises(ConfigError, match="positions are given for 2 prompts, there are 1"):
        read(model, [[1, 2]], positions=[[0], [0]])


def test_a_site_that_does_not_exist_is_an_error(model: Model) -> None:
    with pytest.raises(SiteError, match="no such site: 4"):
        read(model, [[1]], [Site(4)])
