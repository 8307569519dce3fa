"""Sweep: prompts in, a table out; its rows are the model's numbers, prompt by prompt."""

import math
import sys
from pathlib import Path
from traceback import walk_tb

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ftw.substrate.errors import ConfigError, NumericError, Refused, StorageError
from ftw.substrate.model import Model, from_net, load
from ftw.substrate.reference import tiny
from ftw.sweep.battery import Battery, Prompt, align_all
from ftw.sweep.files.cache import PassCache
from ftw.sweep.files.states import StateFolder
from ftw.sweep.items import items_of
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.lenses.views import view
from ftw.sweep.run import Sweep
from ftw.sweep.table import COLUMNS, SweepTable

FACTS = [
    Prompt("fr", "The capital of France is", "Paris", control_answer="Berlin"),
    Prompt("de", "The capital of Germany is called", "Berlin", aliases=("Bonn",)),
    Prompt("both", "The capital of France is", "Paris Berlin", control_answer="Berlin Paris"),
    Prompt("story", "Once upon a time", kind="probe"),
]


@pytest.fixture(scope="module")
def model() -> Model:
    return load("reference")


@pytest.fixture(scope="module")
def table(model: Model) -> SweepTable:
    return Sweep(model, [view(model, "own"), view(model, "raw")]).run(FACTS)


def own_logprobs(model: Model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.net(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)


def test_there_is_a_row_for_every_prompt_lens_and_layer_in_order(table: SweepTable, model: Model) -> None:
    n = model.n_layers
    views = [("logit", at) for at in range(n + 1)] + [("own", at) for at in range(1, n + 1)]
    views += [("raw", at) for at in range(n + 1)]
    assert list(zip(table["lens"].tolist(), table["layer"].tolist(), strict=True)) == views * 4
    assert table["prompt"].tolist() == [prompt for prompt in range(4) for _ in views]
    assert set(table.columns) == set(COLUMNS)
    for name, (kind, _) in COLUMNS.items():
        assert table[name].dtype == kind or (kind == "str" and table[name].dtype.kind == "U")


def test_the_last_layer_says_what_the_model_says_of_answer_and_control(table: SweepTable, model: Model) -> None:
    last = next(table.where(prompt=0, lens="logit", layer=model.n_layers).rows())
    own = own_logprobs(model, model.encode(FACTS[0].text))[-1]
    assert last["top_tokens"][0].strip() == "Paris"
    assert last["answer_rank"] == 1
    assert last["answer_logprob"] == pytest.approx(float(own[last["answer_id"]]), abs=1e-4)
    assert last["control_logprob"] == pytest.approx(float(own[last["control_id"]]), abs=1e-4)
    assert last["answer_mass"] == pytest.approx(math.exp(last["answer_logprob"]), abs=1e-4)
    assert last["entropy_bits"] == pytest.approx(float(-(own.exp() * own).sum() / math.log(2)), abs=1e-3)
    assert (last["kl_bits"], last["prompt_id"], last["token"].strip()) == (0.0, "fr", "is")
    assert (last["next_id"], last["next_rank"]) == (last["answer_id"], 1)


def test_a_whole_answer_is_the_sum_over_its_tokens_as_they_are_forced(table: SweepTable, model: Model) -> None:
    aligned = align_all(FACTS[2:3], model)[0]
    last = next(table.where(prompt=2, lens="logit", layer=model.n_layers).rows())
    for gold, found in (
        (aligned.gold, last["answer_whole_logprob"]),
        (aligned.control, last["control_whole_logprob"]),
    ):
        assert gold is not None
        assert len(gold.ids) > 1
        own = own_logprobs(model, list(gold.forced_ids))[len(gold.prompt_ids) - 1 :]
        assert found == pytest.approx(float(sum(own[at, token] for at, token in enumerate(gold.ids))), abs=1e-3)


def test_a_whole_answer_of_one_token_is_that_token(table: SweepTable) -> None:
    fact = table.where(prompt=0)
    np.testing.assert_array_equal(fact["answer_whole_logprob"], fact["answer_logprob"])


def test_all_first_tokens_that_count_as_right_are_summed(table: SweepTable, model: Model) -> None:
    rows = table.where(prompt=1, lens="logit")
    accepted = table.items[1].accepted
    assert len(accepted) == 2
    own = own_logprobs(model, model.encode(FACTS[1].text))[-1]
    assert rows["answer_mass"][-1] == pytest.approx(float(own[list(accepted)].exp().sum()), abs=1e-5)


def test_a_probe_has_no_answer_and_says_so(table: SweepTable) -> None:
    probe = table.where(prompt=3)
    assert (probe["answer_id"] == -1).all()
    assert (probe["answer_rank"] == 0).all()
    for name in ("answer_logprob", "answer_whole_logprob", "answer_mass", "control_logprob", "control_whole_logprob"):
        assert np.isnan(probe[name]).all()
    assert np.isfinite(probe["entropy_bits"]).all()


def test_at_every_position_the_next_token_is_the_prompts_own(model: Model) -> None:
    table = Sweep(model).run(FACTS, positions="all")
    ids = list(table.items[0].ids)
    last = table.where(prompt=0, layer=model.n_layers)
    own = own_logprobs(model, ids)
    assert last["pos"].tolist() == list(range(len(ids)))
    assert last["token_id"].tolist() == ids
    assert last["next_id"].tolist() == [*ids[1:], table.items[0].answer[0]]
    expected = own.gather(-1, torch.tensor(last["next_id"].tolist())[:, None])[:, 0]
    np.testing.assert_allclose(last["next_logprob"], expected, atol=1e-4)
    assert np.isnan(last["answer_whole_logprob"][:-1]).all()
    assert len(table.last()) == len(FACTS) * (model.n_layers + 1)


def test_the_last_position_has_the_same_numbers_whether_or_not_the_others_are_read(
    model: Model, table: SweepTable
) -> None:
    everywhere = Sweep(model, [view(model, "own"), view(model, "raw")]).run(FACTS, positions="all").last()
    for name in ("entropy_bits", "kl_bits", "answer_logprob", "answer_whole_logprob", "echo_mass", "state_norm"):
        np.testing.assert_allclose(everywhere[name], table[name], rtol=1e-3, atol=1e-3)


def test_the_words_of_the_prompt_do_not_count_blanks_and_punctuation(model: Model) -> None:
    sweep = Sweep(model)
    ids = model.encode("The dog, the dog. A cat!")
    words = {model.pieces([token])[0].strip() for token in sweep._words(ids)}
    assert words == {"The", "dog", "the", "A", "cat"}


def test_echo_is_the_probability_of_the_prompts_words(model: Model, table: SweepTable) -> None:
    words = list(Sweep(model)._words(table.items[3].ids))
    own = own_logprobs(model, list(table.items[3].ids))[-1]
    last = table.where(prompt=3, lens="logit", layer=model.n_layers)
    assert last["echo_mass"][0] == pytest.approx(float(own[words].exp().sum()), abs=1e-5)


def test_two_sweeps_give_the_same_bits(model: Model, table: SweepTable) -> None:
    again = Sweep(model, [view(model, "own"), view(model, "raw")]).run(FACTS)
    for name, column in table.columns.items():
        np.testing.assert_array_equal(column, again[name])


def test_prompts_with_equal_ids_run_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    own = model.net.forward

    def spy(**options: torch.Tensor) -> object:
        seen.append(tuple(options["input_ids"].shape))
        return own(**options)

    sweep = Sweep(model)
    monkeypatch.setattr(model.net, "forward", spy)
    table = sweep.run(["The capital of France is"] * 3)
    assert [rows for rows, _ in seen] == [1]
    assert len(table) == 3 * (model.n_layers + 1)


def test_fast_says_how_far_it_can_be_off_and_names_the_same_tokens(model: Model, table: SweepTable) -> None:
    fast = Sweep(model, [view(model, "own"), view(model, "raw")], precision="fast").run(FACTS)
    np.testing.assert_array_equal(fast["top_ids"], table["top_ids"])
    assert (table["logsumexp_bound"] == 0).all()
    assert (fast["logsumexp_bound"] > 0).any()
    gap = np.abs(fast["logsumexp"] - table["logsumexp"])
    assert (gap <= fast["logsumexp_bound"] + 2.0**-20 * (1 + np.abs(table["logsumexp"]))).all()


def test_progress_is_told_pass_by_pass() -> None:
    told: list[tuple[int, int]] = []
    Sweep(tiny()).run([[1, 2], [3] * 40, [4, 5]], budget=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_texts_ids_prompts_and_aligned_prompts_can_all_be_swept() -> None:
    model = tiny()
    prompt = Prompt("p", "ab", "c")
    given = [items_of(model, [prompt])[0], items_of(model, align_all([prompt], model))[0]]
    assert given[0] == given[1]
    assert items_of(model, ["ab"])[0].ids == items_of(model, [model.encode("ab")])[0].ids == given[0].ids


def test_a_bundled_battery_is_swept_prompt_by_prompt(model: Model) -> None:
    battery = Battery.read("germany")
    table = Sweep(model).run(battery)
    assert [item.id for item in table.items] == [prompt.id for prompt in battery.prompts()]
    assert len(table) == len(table.items) * (model.n_layers + 1)
    assert [item.source for item in table.items] == list(battery.prompts())


def test_a_model_without_a_tokenizer_shows_ids() -> None:
    model = from_net(tiny().net)
    row = next(Sweep(model).run([[1, 2]]).rows())
    assert row["token"] == "#2"


def test_a_lens_that_makes_no_numbers_is_marked_and_the_rest_stands() -> None:
    class Broken(LogitLens):
        def head_inputs(self, resid: torch.Tensor, layers: object) -> torch.Tensor:
            return torch.full_like(resid, math.nan)

    model = tiny()
    table = Sweep(model, [Broken(model.arch, "broken")]).run([[1, 2]])
    assert table.where(lens="logit")["is_finite"].all()
    assert not table.where(lens="broken")["is_finite"].any()


def test_a_model_whose_own_distribution_is_not_finite_is_an_error_that_names_the_prompt() -> None:
    model = tiny()
    sweep = Sweep(model)
    with torch.no_grad():
        model.arch.embed.weight[7] = math.nan  # type: ignore[index, operator]
    with pytest.raises(NumericError, match="tiny gives no finite distribution after position 1 of prompt 1"):
        sweep.run([[1, 2], [3, 7]])


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

    broken.net.model.norm = Twisted(broken.net.model.norm)
    model = Model(net=broken.net, tokenizer=broken.tokenizer, arch=broken.arch, spec=broken.spec, name="broken")
    with pytest.raises(Refused, match=r"broken .* fails the identity gate"):
        Sweep(model)


def test_nothing_to_sweep_is_an_error() -> None:
    with pytest.raises(ConfigError, match="there is nothing to sweep"):
        Sweep(tiny()).run([])


def test_other_answers_of_the_relation_are_ranked_beside_the_answer(model: Model) -> None:
    table = Sweep(model).run(Battery.read("germany"))
    fact = next(at for at, item in enumerate(table.items) if item.answer)
    pool = table.items[fact].pool
    assert pool
    assert not set(pool) & set(table.items[fact].accepted)
    last = table.view("logit", fact).where(layer=model.n_layers)
    own = own_logprobs(model, list(table.items[fact].ids))[-1]
    expected = [1 + int((own > own[token]).sum()) for token in pool]
    assert last["pool_ranks"][0][: len(pool)].tolist() == expected


def test_two_lenses_of_one_name_are_an_error(model: Model) -> None:
    with pytest.raises(ConfigError, match="a name of its own"):
        Sweep(model, [view(model, "raw")], at_end=[view(model, "raw")])


def test_passes_that_the_cache_holds_are_not_run_again_and_give_the_same_bits(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(model, at_end=[view(model, "own")])
    told: list[int] = []
    plain = sweep.run(FACTS, positions="all", budget=1, progress=lambda done, total: told.append(done))
    cache = PassCache(tmp_path, sweep.scope)
    own = model.net.forward
    left = 2

    def dies(**options: torch.Tensor) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return own(**options)

    monkeypatch.setattr(model.net, "forward", dies)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(FACTS, positions="all", budget=1, cache=cache)
    left = len(told) - 2  # as many as are missing: a pass that ran before would be one too many
    again = sweep.run(FACTS, positions="all", budget=1, cache=PassCache(tmp_path, sweep.scope))
    left = 0
    once_more = sweep.run(FACTS, positions="all", budget=1, cache=PassCache(tmp_path, sweep.scope))
    for name, column in plain.columns.items():
        np.testing.assert_array_equal(again[name], column, err_msg=name)
        np.testing.assert_array_equal(once_more[name], column, err_msg=name)


def test_a_cache_of_other_lenses_is_not_used(model: Model, tmp_path: Path) -> None:
    one, two = Sweep(model), Sweep(model, at_end=[view(model, "raw")])
    one.run(FACTS, cache=PassCache(tmp_path, one.scope))
    cache = PassCache(tmp_path, two.scope)
    assert len(two.run(FACTS, cache=cache)) == len(two.run(FACTS))
    assert cache.hits == 0


def test_states_are_kept_as_the_stream_was(model: Model, tmp_path: Path) -> None:
    keep = StateFolder(tmp_path / "states", model=model.name, fingerprint=model.fingerprint)
    table = Sweep(model).run(FACTS, positions="all", keep=keep)
    for index, item in enumerate(table.items):
        kept = load_file(keep.file(index))
        assert kept["pos"].tolist() == list(range(len(item.ids)))
        rows = table.where(prompt=index, lens="logit", pos=len(item.ids) - 1)
        norms = torch.linalg.vector_norm(kept["resid"][:, -1].float(), dim=-1)
        np.testing.assert_allclose(norms, rows["resid_norm"], rtol=1e-5)


def test_states_need_a_folder_that_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="give another folder for the states"):
        StateFolder(tmp_path / "file" / "states", model="m", fingerprint="f")


def breaking(sweep: Sweep, monkeypatch: pytest.MonkeyPatch, *, after: int, error: BaseException) -> None:
    """From now on a pass of this sweep ends with an error once so many were measured."""
    own, left = sweep._measure, after

    def measure(*args: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise error
        return own(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(sweep, "_measure", measure)


@pytest.mark.parametrize("after", range(1, 6))
def test_prompts_that_were_finished_are_handed_out_before_the_error(
    monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """One pass for each sequence: a prompt with a control of many tokens is finished with its second pass only."""
    model = tiny()
    sweep = Sweep(model, [view(model, "raw")], at_end=[view(model, "own")])
    whole = sweep.run(FACTS, positions="all", budget=1)
    breaking(sweep, monkeypatch, after=after, error=KeyboardInterrupt())
    kept: list[SweepTable] = []
    with pytest.raises(KeyboardInterrupt):
        sweep.run(FACTS, positions="all", budget=1, rescue=kept.append)
    prompts = [whole.items.index(item) for table in kept for item in table.items]
    assert len(kept) == (1 if prompts else 0)
    assert len(prompts) <= after
    assert len(prompts) == {1: 1, 5: 3}.get(after, len(prompts))
    for place, prompt in enumerate(prompts):
        ours, wanted = kept[0].where(prompt=place), whole.where(prompt=prompt)
        assert list(ours.columns) == list(wanted.columns)
        for name in wanted.columns:
            if name != "prompt":
                np.testing.assert_array_equal(ours[name], wanted[name], err_msg=name)
    assert not kept or set(kept[0].pieces) <= set(whole.pieces)


def test_a_prompt_whose_control_has_not_run_is_not_finished(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    both = FACTS[2]
    for after, finished in ((1, []), (2, [["both"]])):
        sweep = Sweep(model)
        breaking(sweep, monkeypatch, after=after, error=MemoryError())
        kept: list[list[str]] = []
        with pytest.raises(MemoryError):
            sweep.run([both, "a"], budget=1, rescue=lambda table: kept.append([item.id for item in table.items]))  # noqa: B023
        assert kept == finished


def test_what_broke_is_out_of_memory_before_the_finished_prompts_are_handed_out(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(model)
    own, held = sweep._measure, []

    def measure(plan: object, states: torch.Tensor, cells: object) -> object:
        if held:
            raise MemoryError
        held.append(None)
        return own(plan, states, cells)  # type: ignore[arg-type]

    def rescue(table: SweepTable) -> None:
        frames = [frame for frame, _ in walk_tb(sys.exception().__traceback__) if frame.f_code.co_name == "_read"]  # type: ignore[union-attr]
        assert frames
        assert not any(isinstance(value, torch.Tensor) for frame in frames for value in frame.f_locals.values())
        held.append(table)

    monkeypatch.setattr(sweep, "_measure", measure)
    with pytest.raises(MemoryError):
        sweep.run(["one", "one two three four"], budget=1, rescue=rescue)
    assert len(held) == 2


def test_states_are_kept_of_passes_that_the_cache_holds_and_nothing_is_measured_again(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(model)
    first = sweep.run(FACTS, cache=PassCache(tmp_path / "cache", sweep.scope))
    breaking(sweep, monkeypatch, after=0, error=AssertionError("measured again"))
    cache = PassCache(tmp_path / "cache", sweep.scope)
    keep = StateFolder(tmp_path / "states", model=model.name, fingerprint=model.fingerprint)
    again = sweep.run(FACTS, cache=cache, keep=keep)
    assert (cache.hits > 0, cache.misses) == (True, 0)
    assert all(again[name].tobytes() == first[name].tobytes() for name in first.columns)
    assert all(keep.file(index).exists() for index in range(len(FACTS)))
