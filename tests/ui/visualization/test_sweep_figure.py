"""The figure of a sweep in a terminal: it fits, it says the claim first, and the same without colour."""

import copy
import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from ftw.substrate.model import load
from ftw.sweep.battery import Battery
from ftw.sweep.run import Sweep
from ftw.sweep.study import study
from ftw.ui.visualization.sweep_figure import reading, sweep_figure
from ftw.ui.visualization.sweep_numbers import ONSET, Run
from tests.ui.visualization.conftest import Finished, head


def printed(run: Run, *, width: int = 80, colour: bool = False) -> list[str]:
    console = Console(
        file=io.StringIO(), width=width, record=True, force_terminal=colour, highlight=False, markup=False
    )
    console.print(sweep_figure(run, width=width, colour=colour))
    return console.export_text().splitlines()


def changed(finished: Finished, median: float | None, low: float | None, high: float | None, missing: int) -> Run:
    """The run with another median onset of all its facts and of each group."""
    document = copy.deepcopy(finished.document)
    for one in document["statistics"]["onsets"]:
        if one["milestone"] == ONSET:
            one["median"] |= {"value": median, "low": low, "high": high}
            one["n_missing"] = missing if one["by"] == "all" else 0
    return Run(document, finished.table)


def deep(finished: Finished, layers: int) -> Run:
    """The run as if the model had so many blocks."""
    document = copy.deepcopy(finished.document)
    for one in document["statistics"]["curves"]:
        one["share"] = [layer / layers for layer in range(layers + 1)]
    table = copy.copy(finished.table)
    object.__setattr__(table, "n_layers", layers)
    return Run(document, table)


@pytest.mark.parametrize("layers", [2, 8, 35, 36, 126])
def test_every_line_fits_whatever_the_depth(ends: Finished, layers: int) -> None:
    run = deep(ends, layers)
    for colour in (False, True):
        lines = printed(run, colour=colour)
        assert max(cell_len(line) for line in lines) <= 80
    ribbon = next(line for line in lines if line.startswith("capital"))
    assert "█" in ribbon


def test_colour_changes_nothing_of_what_is_said(ends: Finished) -> None:
    assert printed(Run(*ends), colour=True) == printed(Run(*ends))


def test_a_row_says_median_interval_and_how_many_facts_have_an_onset(ends: Finished) -> None:
    run = changed(ends, 6.5, 5.0, None, 0)
    row = next(line for line in printed(run) if line.startswith("opposite"))
    assert row.split()[-3:] == ["6.5", "(5–never)", "2/2"]
    assert "in brackets: 95 % interval" in " ".join(line.strip() for line in printed(run))


def test_the_height_of_a_ribbon_is_the_share_of_facts_at_that_block(ends: Finished) -> None:
    run = Run(*ends)
    row = next(line for line in printed(run) if line.startswith("capital"))
    group = run.spread(by="relation", name="capital")
    assert group is not None
    cells = row[20 : 20 + 4 * (run.n + 1)]
    for layer, share in enumerate(group.shares):
        assert len(set(cells[4 * layer : 4 * layer + 4])) == 1
        assert (cells[4 * layer] == " ") == (share == 0)
        assert (cells[4 * layer] == "█") == (share > 7 / 8)


FIRST = "The median answer is first from block 7 of 8 on"
CLAIMS: list[tuple[tuple[Any, ...], str]] = [
    ((7.0, 7.0, 8.0, 0), f"{FIRST} (95 % interval 7 to 8)"),
    ((7.0, None, None, 0), FIRST),
    ((7.0, 6.0, None, 2), f"{FIRST} (95 % interval 6 to never); 2 of 5 never are"),
    ((None, None, None, 3), "The answers of 3 of 5 facts are first at no block"),
    (
        (None, None, None, 5),
        "At no block is the answer of any of the 5 facts first: the median rank is at best 1 (block 7, chance 2560)",
    ),
]


@pytest.mark.parametrize(("found", "claim"), CLAIMS)
def test_the_claim_says_where_how_sure_and_for_how_many_it_fails(
    ends: Finished, found: tuple[Any, ...], claim: str
) -> None:
    run = changed(ends, *found)
    assert reading(run) == claim
    assert max(map(cell_len, printed(run))) <= 80


def test_texts_without_answers_show_how_sure_each_block_is(probes: Finished) -> None:
    run = Run(*probes)
    lines = printed(run)
    assert lines[0] == "2 prompts read at 5 layers, none with an answer to find"
    assert any(line.startswith("median entropy") and line.endswith("bits") for line in lines)


def test_answers_whose_first_token_is_a_blank_are_not_taken_for_none() -> None:
    sweep = Sweep(load("tiny"), k=5)
    table = sweep.run(Battery.read("germany").prompts()[:2])
    run = Run(head(study(sweep, table).document()), table)
    assert run.facts
    claim = "2 prompts read at 5 layers, whose answers begin with a bare blank: only whole answers tell"
    assert reading(run) == claim


def test_the_foot_names_model_battery_gate_audits_and_command(ends: Finished) -> None:
    foot = " ".join(line.strip() for line in printed(Run(*ends))[-6:])
    for said in ("98b1c611", "battery reference 1", "identity gate exact", "Of 19 audits", "ftw sweep reference"):
        assert said in foot
