"""Audits that run the model: on the bundled one, and on models that are broken on purpose."""

import copy
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ftw.substrate.errors import UsageError
from ftw.substrate.model import Model, from_net
from ftw.sweep import forward
from ftw.sweep.audits import Audit, of
from ftw.sweep.audits.again import last_layer, repeatability, temperature_to
from ftw.sweep.audits.catalogue import CATALOGUE
from ftw.sweep.audits.grid import Grids
from ftw.sweep.audits.learned import calibrate, learned_lens
from ftw.sweep.audits.norms import ignored_ids, unembed_bias
from ftw.sweep.audits.positions import position_stability, shifted
from ftw.sweep.audits.states import Ends
from ftw.sweep.lenses.views import view
from ftw.sweep.milestones import Thresholds
from ftw.sweep.milestones.grid import LOGIT
from ftw.sweep.run import Sweep
from ftw.sweep.table import SweepTable, is_word
from tests.substrate.families import build
from tests.sweep.audits.conftest import Turned

LIMITS = Thresholds()


@pytest.fixture(scope="module")
def audit(sweep: Sweep, table: SweepTable, heldout: Tensor) -> Audit:
    return of(sweep, table, heldout=heldout, sample=4)


def test_every_audit_of_the_catalogue_is_made_or_says_why_not(audit: Audit) -> None:
    assert [finding.name for finding in audit.findings] == list(CATALOGUE)
    for finding in audit.findings:
        assert re.search(r"[^.]\.$", finding.reading)
        assert (finding.severity is None) == (finding.why is not None)
    assert [finding.name for finding in audit.findings if finding.severity is None] == []


def test_the_document_is_plain_json_without_nan(audit: Audit) -> None:
    document = {"audit": audit.document(), "guidance": audit.guidance.document()}
    again = json.loads(json.dumps(document, allow_nan=False))
    assert again["audit"]["findings"][0]["formula"] == CATALOGUE["last_layer"].formula
    for finding in again["audit"]["findings"]:
        for figure in finding["figures"].values():
            assert (figure["value"] is None) == (figure["why"] is not None)


def test_the_bundled_model_draws_no_serious_finding_but_for_the_lens_that_only_cools(audit: Audit) -> None:
    serious = {reason.code for reason in audit.guidance.reasons if reason.severity == "serious"}
    assert serious <= {"learned_lens"}
    assert audit["last_layer"].severity == "fine"
    assert audit["numeric_health"].severity == "fine"
    assert audit["repeatability"].severity == "fine"
    assert not audit.guidance.suppress_abs_probs


def test_without_the_model_only_the_rows_are_audited(table: SweepTable) -> None:
    audit = of(None, table)
    missing = {finding.name for finding in audit.findings if finding.why == "not_asked"}
    assert missing == {name for name, entry in CATALOGUE.items() if entry.needs_model} - {"temperature", "learned_lens"}
    assert audit["temperature"].why == "no_text"
    assert audit["learned_lens"].figures["rotation_p50"].why == "no_text"
    assert audit["learned_lens"].figures["total_p50"].value is not None


def test_the_last_row_is_the_models_own(sweep: Sweep, table: SweepTable) -> None:
    found = last_layer(sweep, Ends(sweep.model, table), Grids(table), LIMITS, [0, 2])
    assert float(found.figures["max_kl_bits"].value or 0) < 1e-5
    assert found.figures["share_top1_agrees"].value == 1.0
    assert found.figures["temperature"].value == pytest.approx(1.0, abs=0.01)


def test_a_scale_that_is_left_out_shows_as_a_temperature() -> None:
    z = torch.randn(3, 50, generator=torch.Generator().manual_seed(1)) * 4
    tau, left = temperature_to(z / 2.5, z)
    assert tau == pytest.approx(2.5, rel=0.01)
    assert left < 1e-4
    assert temperature_to(z, z)[0] == 1.0


def test_a_second_run_gives_the_same_bits(sweep: Sweep, table: SweepTable) -> None:
    found = repeatability(sweep, Grids(table), LIMITS, [0, 2])
    assert found.figures["bits_equal"].value is True
    assert found.figures["share_onset_moved"].value == 0.0
    assert float(found.figures["max_logprob_change"].value or 0) < 1e-2


def test_a_table_of_other_numbers_is_not_repeatable(sweep: Sweep, table: SweepTable) -> None:
    ids = table["top_ids"].copy()
    ids[:, :2] = ids[:, 1::-1]
    found = repeatability(sweep, Grids(replace(table, columns={**table.columns, "top_ids": ids})), LIMITS, [0])
    assert (found.figures["flip_share"].value, found.figures["max_rank_deviation"].value) == (1.0, 1)
    assert found.severity == "serious"


def test_a_prompt_moves_behind_the_tokens_that_begin_a_text(sweep: Sweep, table: SweepTable, model: Model) -> None:
    item = table.items[0]
    moved = shifted(sweep, table, 0, 4)
    assert len(moved) == len(item.ids) + 4
    assert moved[-len(item.ids) + 1 :] == list(item.ids[1:])
    special = model.tokenizer.all_special_ids if model.tokenizer is not None else []
    if item.ids[0] in special:
        assert moved[0] == item.ids[0]


def test_position_stability_can_reach_one(sweep: Sweep, table: SweepTable) -> None:
    """At the last layer the onset is stable wherever the model keeps its answer: the share is one by definition."""
    grid = Grids(table)
    last = np.full(len(table.items), table.n_layers)
    grid.onset = lambda lens: last  # type: ignore[method-assign]
    found = position_stability(sweep, grid, LIMITS, [0, 2, 4])
    assert found.figures["share_stable"].value == 1.0
    assert found.severity == "fine"


def test_a_lens_that_only_cools_is_called_a_calibration(sweep: Sweep, table: SweepTable, heldout: Tensor) -> None:
    calibration = calibrate(sweep, Ends(sweep.model, table), heldout, [LOGIT, "cooled"])
    grid = Grids(table)
    found = learned_lens(grid, "cooled", calibration, LIMITS, [0, 2, 4])
    rotation = float(found.figures["rotation_p50"].value or 0)
    assert abs(rotation) < 0.02
    assert found.figures["prefer"].value is False
    for each in found.tables["layers"]:
        parts = each["temperature"] + each["rotation"] + each["interaction"]
        assert math.isfinite(parts)


def test_a_lens_that_turns_is_preferred(model: Model, heldout: Tensor, table: SweepTable) -> None:
    own = forward.read(model, [item.ids for item in table.items], positions="all").states
    sweep = Sweep(model, [Turned(model, torch.cat([own, heldout], 1))], k=10)  # as many rows as d: it knows them all
    rows = sweep.run([item.source for item in table.items])
    calibration = calibrate(sweep, Ends(sweep.model, table), heldout, [LOGIT, "turned"])
    found = learned_lens(Grids(rows), "turned", calibration, LIMITS, [0, 2, 4])
    assert float(found.figures["rotation_50%"].value or 0) > 0.2
    assert found.figures["calibration_only"].value is False
    assert found.figures["prefer"].value is True
    assert found.figures["kl_bits_last"].value == pytest.approx(0.0, abs=1e-4)


def test_the_parts_of_a_gain_are_keyed_by_prompt(audit: Audit, table: SweepTable) -> None:
    found = audit["learned_lens"]
    assert set(found.prompts) <= {item.id for item in table.items}
    assert len({figures["total_p50"].value for figures in found.prompts.values()}) > 1
    rows = found.tables["prompts"]
    assert {row["prompt"] for row in rows} == set(found.prompts)
    assert len(rows) == len(found.prompts) * (table.n_layers + 1)
    assert found.subject == "cooled"


def test_the_layer_map_names_the_modules_that_each_layer_is_read_through(audit: Audit, table: SweepTable) -> None:
    rows = audit["norm_provenance"].tables["layer_map"]
    assert len(rows) == sum(len(table.layers_of(lens)) for lens in table.lenses)
    logit = [row for row in rows if row["lens"] == "logit"]
    assert {row["modules"] for row in logit} == {"model.norm"}
    assert logit[0]["stream"] == "embedding"
    following = [row for row in rows if row["lens"] == "next"]
    assert following[1]["modules"] == "model.layers.1.input_layernorm"
    assert next(row for row in rows if row["lens"] == "raw")["modules"] == ""


def test_the_mask_holds_special_tokens_and_no_words(sweep: Sweep, model: Model, audit: Audit) -> None:
    ignored = ignored_ids(sweep, frozenset(model.tokenizer.all_special_ids))
    assert model.tokenizer is not None
    special = set(model.tokenizer.all_special_ids)
    assert special <= set(ignored)
    assert not any(is_word(piece) for token, piece in ignored.items() if token not in special)
    for token in range(0, model.vocab_size, 37):
        assert (token in ignored) == (token in special or not is_word(model.pieces([token])[0]))
    assert len(str(audit["copy_mask"].figures["sha256"].value)) == 64
    assert len(audit["copy_mask"].tables["sample"]) == 16


def test_a_bias_that_favours_a_token_is_seen(sweep: Sweep, table: SweepTable) -> None:
    head = torch.nn.Linear(sweep.model.d_model, sweep.model.vocab_size)
    favoured = int(Grids(table).best(LOGIT)[0, 0])
    head.bias.data = torch.nn.functional.one_hot(torch.tensor(favoured), sweep.model.vocab_size) * 7.0
    biased = copy.copy(sweep)
    biased.model = replace(sweep.model, arch=replace(sweep.model.arch, head=head))
    found = unembed_bias(biased, Grids(table), LIMITS)
    assert (found.figures["max_abs"].value, found.severity) == (7.0, "serious")
    assert found.figures["favoured_id"].value == favoured
    assert float(found.figures["share_favoured"].value or 0) > 0


def test_another_sweep_than_the_one_that_made_the_table_is_an_error(model: Model, table: SweepTable) -> None:
    with pytest.raises(UsageError, match="the sweep has lenses logit, the table logit, cooled, next, raw"):
        of(Sweep(model), table)


def test_a_sample_of_nothing_is_an_error(sweep: Sweep, table: SweepTable) -> None:
    with pytest.raises(UsageError, match="sample is 0"):
        of(sweep, table, sample=0)


@pytest.mark.filterwarnings("ignore")  # transformers' own deprecations, model by model
@pytest.mark.parametrize("name", ["gpt2", "mamba", "gemma2", "cohere"])
def test_models_of_every_kind_are_audited(name: str) -> None:
    model = from_net(build(name))
    views = [view(model, each) for each in (("raw",) if name == "mamba" else ("next", "raw"))]
    sweep = Sweep(model, at_end=views)
    audit = of(sweep, sweep.run([[5, 6, 7, 8], [9, 10, 11]], positions="all"))
    assert float(audit["last_layer"].figures["max_kl_bits"].value or 0) < 1e-4
    capped = name in ("gemma2", "cohere")
    assert (float(audit["last_layer"].figures["kl_bits_untransformed"].value or 0) > 1e-4) is capped
    assert audit["repeatability"].figures["bits_equal"].value is True


def test_a_prompt_is_read_once_for_all_audits_that_look_at_it(
    sweep: Sweep, table: SweepTable, heldout: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, ...]] = []

    def counted(model: Model, prompts: Sequence[Sequence[int]]) -> forward.Residuals:
        read.extend(tuple(ids) for ids in prompts)
        return real(model, prompts)

    real = forward.read
    monkeypatch.setattr(forward, "read", counted)
    of(sweep, table, heldout=heldout[:, :4], sample=2)
    asked = {item.ids for item in table.items}
    own = [ids for ids in read if ids in asked]
    assert own
    assert len(own) == len(set(own))


def test_states_are_those_of_the_prompts_in_their_order(sweep: Sweep, table: SweepTable) -> None:
    ends = Ends(sweep.model, table)
    assert len(table.items) > 3
    for chosen in ([3, 0], [0, 2, 0]):
        found = ends.of(chosen)
        assert found.shape == (table.n_layers + 1, len(chosen), sweep.model.d_model)
        for at, prompt in enumerate(chosen):
            (alone,) = forward.read(sweep.model, [table.items[prompt].ids]).states.unbind(1)
            assert torch.allclose(found[:, at], alone, atol=1e-3)
