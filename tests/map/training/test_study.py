"""The study: no fit sees a held carrier, nor a word of the fold that it is measured on."""

from dataclasses import replace

import torch
from torch import Tensor

from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord
from ftw.map.training.fit import fit_ridge
from ftw.map.training.states import States
from ftw.map.training.study import (
    BlockScore,
    Exam,
    best_block,
    best_per_depth,
    choice_of,
    held_out,
    score_blocks,
)
from ftw.map.training.targets import PLAIN, POSITIVE, UNSAID, Targets

N = 240


def targets() -> Targets:
    return Targets.of(
        ConceptPack(PackRecord(pack_id="p", version="1"), [ConceptRecord(term=t, layer=0, definition=t) for t in "ABC"])
    )


def states(n: int, x: Tensor | None = None) -> States:
    x = torch.randn(2, n, 8, generator=torch.Generator().manual_seed(0)) if x is None else x
    return States((3, 5), x.half(), torch.zeros(2, n), torch.ones(2, n))


def exam() -> Exam:
    """States whose first channel is their own number, so that a fit's rows can be told. Block 5 holds the home."""
    home = torch.arange(N) % 3
    x = torch.randn(2, N, 8, generator=torch.Generator().manual_seed(0))
    x[0, :, 0] = torch.arange(N) / 8
    x[1, :, 1:4] += 4 * torch.eye(3)[home]
    return Exam(
        states(N, x),
        home,
        torch.arange(N) % 4 == 0,
        (torch.arange(N) // 12) % 3,
        torch.ones(N, dtype=torch.bool),
        states(6),
        torch.arange(N) // 12,
        torch.arange(N) % 4,
        ("carrier",) * N,
    )


def test_a_fit_sees_neither_held_carriers_nor_words_of_the_fold() -> None:
    one = exam()
    for fold in range(3):
        x, home = one.fit_set(3, targets(), fold)
        seen = {round(float(v) * 8) for v in x[home != PLAIN][:, 0]}
        assert not seen & set((one.held | (one.fold == fold)).nonzero()[:, 0].tolist())


def test_each_fold_is_read_by_the_reader_that_did_not_see_it() -> None:
    one = exam()
    read = held_out(one, targets(), 3, [lambda x, fold=fold: x[:, :3] * 0 + fold for fold in range(3)])
    assert sorted(read.rows.tolist()) == one.held.nonzero()[:, 0].tolist()
    assert torch.equal(read.labels, targets().labels(one.home[read.rows]))
    assert torch.equal(read.logits[:, 0].long(), one.fold[read.rows])


def test_a_ridge_from_sums_of_folds_is_the_ridge_of_the_fit_set() -> None:
    one = exam()
    for fold, sums in enumerate(one.fit_sums(5, targets())):
        x, home = one.fit_set(5, targets(), fold)
        wanted = fit_ridge(x, (targets().labels(home) == POSITIVE).float())
        assert torch.allclose(sums.solve().weight, wanted.weight, atol=1e-5)
        assert torch.allclose(sums.solve().bias, wanted.bias, atol=1e-5)


def test_what_may_be_decided_by_is_read_in_fit_carriers_only() -> None:
    one = exam()
    told = torch.where(one.held, -1.0, 1.0)  # a reader that is right in fit carriers and wrong in held ones
    home = one.home

    def reader(x: Tensor) -> Tensor:
        at = (x[:, 0] * 8).round().long()
        return torch.nn.functional.one_hot(home[at], 3) * told[at, None]

    assert choice_of(one, targets(), 3, [reader] * 3).tolist() == [1, 1, 1]


def test_more_prompts_are_added_to_the_states_of_one_block() -> None:
    more = exam().with_more(exam(), 5)
    assert len(more.states) == len(more.home) == 2 * N
    assert more.states.blocks == (5,)
    assert torch.equal(more.states.at(5)[N:], exam().states.at(5))


def test_plain_text_is_about_a_tenth_of_a_fit() -> None:
    x, home = exam().fit_set(3, targets(), None)
    assert 0.05 < float((home == PLAIN).float().mean()) < 0.15
    assert len(x) == len(home)


def test_the_block_that_holds_the_concept_is_chosen() -> None:
    told: list[int] = []
    scores = score_blocks(exam(), targets(), [3, 5], told.append)
    assert best_block(scores) == 5
    assert told == [1, 2]
    assert scores[1].words > 0.95 > scores[0].words


def test_a_lens_whose_words_stand_in_one_fold_has_no_figure_about_words() -> None:
    """Where its words are left out, nothing is left to fit it on: such a fit tells nothing of the lens that ships."""
    one, all_of = exam(), targets()
    fold = torch.where(one.home == 2, 1, one.fold)
    one = replace(one, fold=fold)
    assert one.taught(all_of).tolist() == [True, True, False]
    readers = [fit_ridge(one.states.at(5), torch.rand(N, 3)) for _ in range(3)]
    study = held_out(one, all_of, 5, readers)
    assert bool((study.labels[:, 2] == UNSAID).all())
    for figures in (study.per_lens, choice_of(one, all_of, 5, readers)):
        assert figures.isnan().tolist() == [False, False, True]
    (score,) = score_blocks(one, all_of, [5], lambda done: None)
    assert score.per_lens.isnan().tolist() == [False, False, True]
    assert score.templates > 0.9


def test_where_no_word_can_be_held_out_held_carriers_choose_the_block() -> None:
    none, nan = torch.zeros(1), float("nan")
    assert best_block([BlockScore(b, nan, nan, v, none, none) for b, v in ((1, 0.7), (2, 0.9), (3, 0.8))]) == 2


def test_of_equal_blocks_the_earlier_is_chosen() -> None:
    none = torch.zeros(1)
    assert best_block([BlockScore(b, 0.9, 0.9, 0.9, none, none) for b in (4, 2, 3)]) == 2


def test_the_best_block_of_each_third_is_found_among_those_read() -> None:
    none = torch.zeros(1)
    scores = [BlockScore(b, v, v, v, none, none) for b, v in ((0, 0.8), (1, 0.9), (4, 0.7), (8, 0.6), (7, 0.5))]
    assert best_per_depth(scores, 9) == {"early": 1, "mid": 4, "late": 8}
    assert best_per_depth(scores[:2], 9) == {"early": 1}
