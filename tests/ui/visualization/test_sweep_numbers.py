"""What the report reads of a run: numbers as they stand in rows and document, and two that do not belong together."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.substrate.errors import ConfigError
from ftw.ui.visualization.sweep_numbers import ONSET, Asked, Curves, Run, first_stay, rounded, thinned
from tests.ui.visualization.conftest import Finished


def asked(row: int) -> Asked:
    return Asked(row, str(row), "fact", "", "", "", "", "a text", "", {})


@given(st.lists(st.booleans(), max_size=12))
def test_what_stays_so_is_so_at_every_place_from_there_and_at_none_before(flags: list[bool]) -> None:
    place = first_stay(np.array(flags, dtype=bool))
    if place is None:
        assert not flags or not flags[-1]
    else:
        assert all(flags[place:])
        assert place == 0 or not flags[place - 1]


@given(st.integers(0, 60), st.integers(1, 20))
def test_thinning_keeps_the_order_the_ends_and_no_more_than_asked_for(n: int, most: int) -> None:
    of = [asked(row) for row in range(n)]
    kept = [one.row for one in thinned(of, most)]
    assert kept == sorted(set(kept))
    assert len(kept) == min(n, most)
    if n and most > 1:
        assert {0, n - 1} <= set(kept)


@given(st.floats(-1e6, 1e6, width=32))
def test_rounding_keeps_five_digits_and_more(value: float) -> None:
    assert abs(rounded(value) - value) <= 5e-6 * abs(value)


def test_a_grid_holds_the_rows_of_the_prompts_ends(ends: Finished) -> None:
    run = Run(*ends)
    for lens in ("logit", "own"):
        grid = run.curves("entropy_bits", lens)
        assert grid is not None
        assert grid.layers.tolist() == list(run.table.layers_of(lens))
        for one, row in zip(run.facts, grid.values, strict=True):
            assert row.tolist() == run.table.view(lens, one.row)["entropy_bits"].astype(float).tolist()


def test_a_rank_that_there_is_not_and_a_row_that_is_not_finite_are_no_numbers(ends: Finished) -> None:
    table = copy.copy(ends.table)
    broken = {name: column.copy() for name, column in table.columns.items()}
    first = np.flatnonzero((broken["prompt"] == 0) & (broken["lens"] == "logit"))[0]
    broken["is_finite"][first] = False
    object.__setattr__(table, "columns", broken)
    run = Run(ends.document, table)
    entropy = run.curves("entropy_bits")
    assert entropy is not None
    assert np.isnan(entropy.values[0, 0])
    assert np.isfinite(entropy.values[0, 1:]).all()
    probes = [one for one in run.prompts if one.kind == "probe"]
    assert run.curves("answer_rank", of=probes) is None


def test_there_is_no_grid_of_a_lens_or_column_that_the_run_does_not_have(ends: Finished) -> None:
    assert Run(*ends).curves("entropy_bits", "tuned") is None
    assert Run(*ends).curves("no_such_number") is None


def test_a_layer_without_any_number_has_no_median() -> None:
    grid = Curves(np.arange(2), np.array([[np.nan, 1.0], [np.nan, 3.0]]))
    assert grid.median.tolist()[1] == 2.0
    assert np.isnan(grid.median[0])


def test_a_spread_says_what_the_statistics_say(ends: Finished) -> None:
    run = Run(*ends)
    whole = run.spread()
    assert whole is not None
    said = next(
        one
        for one in ends.document["statistics"]["onsets"]
        if (one["lens"], one["by"], one["milestone"]) == ("logit", "all", ONSET)
    )
    assert (whole.n_facts, whole.n_missing, whole.median) == (5, 0, said["median"]["value"])
    assert (whole.low, whole.high) == (said["median"]["low"], said["median"]["high"])
    assert [row.title for row in run.groups] == ["capital", "opposite", "variant orig", "variant no_filler"]
    assert run.spread("tuned") is None


def test_facts_stand_in_the_order_of_their_onsets_and_once_each(ends: Finished) -> None:
    run = Run(*ends)
    assert sorted(one.fact for one in run.by_onset) == sorted({one.fact for one in run.facts})
    onsets = [one.value(ONSET) for one in run.by_onset]
    assert onsets == sorted(onsets, key=lambda onset: float("inf") if onset is None else onset)


def test_a_text_that_the_document_does_not_hold_is_put_together_from_its_tokens(everywhere: Finished) -> None:
    document = copy.deepcopy(everywhere.document)
    document["prompts"][0]["text"] = None
    item = everywhere.table.items[0]
    assert Run(document, everywhere.table).prompts[0].text == "".join(everywhere.table.pieces[one] for one in item.ids)


def test_rows_and_document_of_two_runs_are_refused(ends: Finished, everywhere: Finished) -> None:
    with pytest.raises(ConfigError, match="they are not of one run"):
        Run(ends.document, everywhere.table)


def test_a_document_of_another_schema_is_refused(ends: Finished) -> None:
    with pytest.raises(ConfigError, match=r"run\.json has schema 7, and this version of ftw reads 1"):
        Run({**ends.document, "schema": 7}, ends.table)
