"""Growth: only lenses that miss the target get more prompts, and what does not help is not kept."""

from collections.abc import Sequence

import pytest
import torch

from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord
from ftw.map.training.fit import FitConfig, Lenses
from ftw.map.training.fits import Fitter, TrainConfig
from ftw.map.training.growth import grow
from ftw.map.training.negatives import Kin
from ftw.map.training.states import States
from ftw.map.training.study import Exam, choice_of
from ftw.map.training.targets import Targets
from ftw.map.training.work import Job

PACK = ConceptPack(
    PackRecord(pack_id="p", version="1"), [ConceptRecord(term=t, layer=0, definition=f"a {t}") for t in "ABC"]
)
TARGETS = Targets.of(PACK)
CENTRES = 3 * torch.eye(3, 8)


def exam(n: int, seed: int, noise: float) -> Exam:
    """States around a centre per concept; C's are hard to see at a high noise."""
    rng = torch.Generator().manual_seed(seed)
    home = torch.arange(n) % 3
    spread = torch.where(home == 2, noise, 0.3)[:, None]
    x = (CENTRES[home] + spread * torch.randn(n, 8, generator=rng))[None].half()
    flat = torch.zeros(1, n)
    return Exam(
        States((0,), x, flat, flat + 1),
        home,
        torch.arange(n) % 5 == 0,
        (torch.arange(n) // 3) % 2,
        torch.ones(n, dtype=torch.bool),
        States((0,), torch.zeros(1, 4, 8).half(), flat[:, :4], flat[:, :4] + 1),
        torch.arange(n) // 3,
        torch.arange(n) % 5,
        ("carrier",) * n,
    )


def fitter(first: Exam, **more: object) -> Fitter:
    config = TrainConfig(folds=2, fit=FitConfig(epochs=20, batch=32, dropout_in=0.0, dropout=0.0), **more)  # type: ignore[arg-type]
    return Fitter(first, TARGETS, Kin.of(PACK, TARGETS), config, 0, "origin")


def lenses(one: Fitter) -> tuple[list[Lenses], Lenses]:
    made = [one.do(Job("x", 0, fold), lambda done, total: None) for fold in (0, 1, None)]
    return [m for m in made[:2] if isinstance(m, Lenses)], made[2]  # type: ignore[return-value]


def quiet(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def weak() -> tuple[Fitter, list[Lenses], Lenses]:
    one = fitter(exam(60, 0, 3.0), growth=2)
    made = lenses(one)
    figures = choice_of(one.exam, TARGETS, 0, made[0])
    target = float((figures[2] + figures[:2].min()) / 2)  # between C and the others
    assert float(figures[2]) < target
    return fitter(one.exam, target=target, growth=2), *made


def test_only_lenses_below_the_target_get_more_prompts(weak: tuple[Fitter, list[Lenses], Lenses]) -> None:
    one, folds, shipped = weak
    asked: list[tuple[int, tuple[str, ...]]] = []

    def more(number: int, terms: Sequence[str]) -> Exam:
        asked.append((number, tuple(terms)))
        return one.exam.with_more(exam(300, 7 + number, 3.0), 0)

    grown = grow(one, 0, folds, shipped, more, quiet)
    assert asked[0] == (1, ("C",))
    assert grown.rounds[0].prompts == 300
    assert grown.rounds[0].after >= grown.rounds[0].before
    assert isinstance(grown.shipped, Lenses)
    assert torch.equal(grown.shipped.head[:2], shipped.head[:2])  # A and B stay as they were


def test_a_lens_that_more_prompts_do_not_help_is_stuck_and_stays_as_it_was(
    weak: tuple[Fitter, list[Lenses], Lenses],
) -> None:
    one, folds, shipped = weak
    wrong = exam(600, 9, 0.1)
    wrong.states.x.neg_()  # prompts that teach the opposite
    grown = grow(one, 0, folds, shipped, lambda number, terms: one.exam.with_more(wrong, 0), quiet)
    assert grown.stuck == {"C"}
    assert len(grown.rounds) == 1
    assert grown.shipped is shipped


def test_without_more_carriers_there_is_no_growth(weak: tuple[Fitter, list[Lenses], Lenses]) -> None:
    one, folds, shipped = weak
    assert grow(one, 0, folds, shipped, lambda number, terms: None, quiet).rounds == ()


def test_where_every_lens_reaches_the_target_nothing_grows() -> None:
    one = fitter(exam(120, 0, 0.3), target=0.6)
    folds, shipped = lenses(one)
    grown = grow(one, 0, folds, shipped, lambda number, terms: pytest.fail("asked for more"), quiet)
    assert grown.rounds == ()
