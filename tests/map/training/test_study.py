"""The study: no fit sees a held carrier, nor a word of the fold that it is measured on."""

import torch
from torch import Tensor

from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord
from ftw.map.training.collect import States
from ftw.map.training.study import BlockScore, Exam, best_block, held_out, score_blocks
from ftw.map.training.targets import PLAIN, Targets

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
    )


def test_a_fit_sees_neither_held_carriers_nor_words_of_the_fold() -> None:
    one = exam()
    seen: list[set[int]] = []

    def fit(x: Tensor, home: Tensor, fold: int) -> object:
        seen.append({round(float(v) * 8) for v in x[home != PLAIN][:, 0]})
        return lambda x: x[:, :3]

    read = held_out(one, targets(), 3, fit, range(3))  # type: ignore[arg-type]
    for fold, rows in enumerate(seen):
        assert not rows & set((one.held | (one.fold == fold)).nonzero()[:, 0].tolist())
    assert sorted(read.rows.tolist()) == one.held.nonzero()[:, 0].tolist()
    assert torch.equal(read.labels, targets().labels(one.home[read.rows]))


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


def test_of_equal_blocks_the_earlier_is_chosen() -> None:
    none = torch.zeros(1)
    assert best_block([BlockScore(b, 0.9, 0.9, 0.9, none, none) for b in (4, 2, 3)]) == 2
