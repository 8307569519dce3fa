"""A pack larger than memory is read within a budget: what a parent asks for comes beside the steps, or is said late."""

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from ftw.hat.classifiers import LensRow, LensTensors, ModelId, PackInfo, load_bank, load_pack, save_pack
from ftw.hat.classifiers.forms.slots import Slots
from ftw.hat.classifiers.index import ConceptPackId, read_info
from ftw.hat.classifiers.layout import Header
from ftw.hat.classifiers.modules import HIDDEN, NARROW
from ftw.hat.monitoring.asked import Asked, lacks
from ftw.hat.monitoring.manifest import DeploymentManifest, DynamicLoading, LayerBounds
from ftw.hat.monitoring.monitor import Bank, Monitor, Warms
from ftw.hat.monitoring.resident import ROOTS_FIRST, ResidentBank
from ftw.substrate.errors import ConfigError, FingerprintMismatch, NumericError, SiteError, UnknownConcept, UsageError
from ftw.substrate.types import Site, Step

D = 64
PRINT = "ab" * 32
SITES = (Site(1), Site(3))
TREE = {"A": None, "B": None} | {f"{r}{i}": r for r in "AB" for i in range(3)}
TREE |= {f"{c}{i}": c for c in [t for t, p in TREE.items() if p] for i in range(2)}
EACH = Slots.bytes_of(D, 1, torch.float32)
"""These lenses need one unit in their second layer."""


def channel(term: str) -> int:
    return list(TREE).index(term)


def index() -> list[LensRow]:
    """Twenty concepts on three levels; those below B read another block."""
    rows = [
        LensRow(term=term, block=3 if term[0] == "B" else 1, row=0, level=len(term) - 1, parent=parent)
        for term, parent in TREE.items()
    ]
    return sorted(rows, key=lambda row: (row.block, row.level or 0))


def weights(rows: list[LensRow]) -> LensTensors:
    """Lenses that each listen to one channel: the logit is above 1 where the state says the concept, -3 elsewhere."""
    n = len(rows)
    w1, w2, w3 = torch.zeros(n, HIDDEN, D), torch.zeros(n, NARROW, HIDDEN), torch.zeros(n, NARROW)
    for at, row in enumerate(rows):
        w1[at, at, channel(row.term)], w2[at, 5, at], w3[at, 5] = 1.0, 1.0, 1.0
    return LensTensors(
        w1=w1,
        b1=torch.zeros(n, HIDDEN),
        w2=w2,
        b2=torch.zeros(n, NARROW),
        w3=w3,
        b3=torch.full((n,), -3.0),
        screen_w=torch.zeros(n, D),
        screen_b=torch.zeros(n),
        screen_threshold=torch.full((n,), float("-inf")),
    )


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "pack"
    rows = [row.model_copy(update={"row": 0}) for row in index()]
    numbered = [
        row.model_copy(update={"row": at - next(i for i, r in enumerate(rows) if r.block == row.block)})
        for at, row in enumerate(rows)
    ]
    info = PackInfo(
        name="tiny_tree",
        version="1.0.0",
        model=ModelId(name="tiny", fingerprint=PRINT, d_model=D, n_layers=4),
        concept_pack=ConceptPackId(name="tree", version="1.0.0", sha256="cd" * 32),
        sites=(1, 3),
    )
    blocks = {block: weights([row for row in numbered if row.block == block]) for block in (1, 3)}
    save_pack(folder, info, numbered, blocks, storage="float32")
    return folder


def said(*terms: str, rows: int = 1) -> dict[Site, torch.Tensor]:
    """States that say these concepts, all of them at every row."""
    x = torch.zeros(rows, D)
    for term in terms:
        x[:, channel(term)] = 30.0
    return dict.fromkeys(SITES, x)


@pytest.fixture
def bank(pack: Path) -> Iterator[ResidentBank]:
    """Room for eight lenses of twenty: the two roots and two groups of children."""
    with ResidentBank(pack, fingerprint=PRINT, budget=8 * EACH + 5, dtype=torch.float32) as made:
        yield made


def test_the_roots_are_there_and_the_budget_is_kept(bank: ResidentBank) -> None:
    assert bank.resident == ("A", "B")
    assert bank.nbytes <= 8 * EACH + 5
    assert isinstance(bank, Bank)
    assert isinstance(bank, Warms)


def test_children_come_after_their_parent_was_read_and_until_then_are_lacking(bank: ResidentBank) -> None:
    first = bank.score(said("A", "A1"))
    assert float(first.logit[0, bank.index("A1")]) == float("-inf")
    assert bank.loading == ("A",)
    bank.settle()
    second = bank.score(said("A", "A1"))
    assert float(second.logit[0, bank.index("A1")]) > 0
    assert float(second.logit[0, bank.index("A2")]) < 0
    assert set(bank.resident) == {"A", "B", "A0", "A1", "A2"}


def test_what_is_resident_reads_as_the_whole_bank_does(bank: ResidentBank, pack: Path) -> None:
    whole = load_bank(pack, fingerprint=PRINT, dtype=torch.float32)
    order = [whole.index(term) for term in bank.terms]
    torch.manual_seed(3)
    for rows in (1, 5, 40):
        states = {site: 20 * torch.randn(rows, D) + 3 for site in SITES}
        for _ in range(3):
            bank.score(said("A", "B", "A1"))
            bank.settle()
        mine, full = bank.score(states).logit, whole.score(states, full=True).logit[:, order]
        there = [at for at, term in enumerate(bank.terms) if term in bank.resident]
        assert len(there) >= 7
        torch.testing.assert_close(mine[:, there], full[:, there], atol=1e-5, rtol=1e-5)
        assert bool(mine[:, [at for at in range(len(bank)) if at not in there]].isneginf().all())


def test_a_full_bank_lets_a_quiet_group_go_for_one_that_is_asked_for(bank: ResidentBank) -> None:
    for _ in range(2):
        bank.score(said("A"))
        bank.settle()
        bank.score(said("B"))
        bank.settle()
    assert set(bank.resident) == {"A", "B", "A0", "A1", "A2", "B0", "B1", "B2"}  # full
    bank.score(said("B", "B1"))
    bank.settle()
    bank.score(said("B", "B1"))
    bank.settle()
    assert {"B10", "B11"} <= set(bank.resident)
    assert "A0" not in bank.resident
    figures = bank.counters()
    assert figures["evictions"] == 1
    assert figures["resident"] <= figures["slots"] == 8
    assert figures["load_ms_median"] >= 0
    assert figures["hits"] > 0 < figures["misses"]


def test_a_quiet_group_goes_after_the_cooldown(pack: Path) -> None:
    manifest = DeploymentManifest(
        manifest_id="short",
        layer_bounds=LayerBounds(default_max_layer=0, always_load_layers=(0,)),
        dynamic_loading=DynamicLoading(cooldown_ticks=2),
    )
    with ResidentBank(pack, fingerprint=PRINT, budget=20 * EACH, manifest=manifest) as bank:
        bank.score(said("A"))
        bank.settle()
        seen = []
        for _ in range(4):
            bank.score(said("B"))
            seen.append("A1" in bank.resident)
        assert seen == [True, True, False, False]


def test_a_step_does_not_wait_for_a_file_and_its_readings_say_what_they_lack(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    with ResidentBank(pack, fingerprint=PRINT, budget=20 * EACH, dtype=torch.float32) as bank:
        read = bank._read
        monkeypatch.setattr(bank, "_read", lambda places: (gate.wait(20), read(places))[1])
        monitor = Monitor(bank, scope=bank.scope)

        def step(index: int, *terms: str) -> None:
            phase: Literal["prompt", "generate"] = "prompt" if index == 0 else "generate"
            monitor(Step("r", index, phase, torch.tensor([1]), said(*terms), torch.zeros(9), 2))

        step(0)
        step(1, "A", "A1")
        step(2, "A", "A1")  # still on its way, and both steps came back
        gate.set()
        bank.settle()
        step(3, "A", "A1")
        readings = monitor.readings("r")
        assert [reading.late for reading in readings] == [(), ("A",), ("A",), ("A1",)]
        assert [[score.term for score in reading.scores] for reading in readings] == [[], ["A"], ["A"], ["A1"]]
        assert bank.tally.load_steps[-1] == 1


def test_each_state_says_what_it_lacked_itself(bank: ResidentBank) -> None:
    bank.late()
    rows = [said("A"), said("B1"), said("B")]
    states = {site: torch.cat([row[site] for row in rows]) for site in SITES}
    bank.score(states)
    bank.settle()
    bank.score(said("A", "B"))
    of = bank.late()
    assert [of(row) for row in range(4)] == [("A",), (), ("B",), ()]
    with pytest.raises(UsageError, match="no such row"):
        of(4)


def test_what_was_opened_on_request_is_lacking_at_every_state_until_it_is_there(bank: ResidentBank) -> None:
    bank.late()
    bank.scope.add([bank.index(term) for term in ("A0", "A1", "A2")])
    bank.score(said("B1", rows=2))
    assert bank.late()(1) == ("A",)


def test_what_a_device_has_not_sent_yet_is_waited_for_when_it_is_asked() -> None:
    first = Asked(torch.zeros(2), torch.tensor([[True, False]]), None)
    second = Asked(torch.zeros(2), torch.tensor([[False, True], [True, True]]), None)
    first.lack([0], [False], ["A"])
    waited = []

    def decide() -> None:
        waited.append(1)
        second.lack([1], [False], ["B"])

    assert lacks([first, second], 0, decide) == ("A",)
    assert not waited
    assert [lacks([first, second], row, decide) for row in (1, 2)] == [("B",), ("B",)]
    assert len(waited) == 1


def test_a_monitor_is_told_only_of_what_it_scored_itself(pack: Path) -> None:
    with ResidentBank(pack, fingerprint=PRINT, budget=20 * EACH, dtype=torch.float32) as bank:
        bank.score(said("A", "B", rows=3))
        bank.settle()
        monitor = Monitor(bank, scope=bank.scope)
        monitor(Step("r", 0, "prompt", torch.tensor([1]), said("A", "A1"), torch.zeros(9), 2))
        assert [reading.late for reading in monitor.readings("r")] == [("A1",)]


def test_after_a_prompt_what_it_asked_for_is_waited_for(pack: Path) -> None:
    with ResidentBank(pack, fingerprint=PRINT, budget=20 * EACH, dtype=torch.float32) as bank:
        monitor = Monitor(bank, scope=bank.scope)
        states = said("A", "A1")
        monitor(Step("r", 0, "prompt", torch.tensor([1]), states, torch.zeros(9), 2))
        monitor(Step("r", 1, "generate", torch.tensor([2]), states, torch.zeros(9), 3))
        assert [reading.late for reading in monitor.readings("r")] == [("A",), ("A1",)]


def test_what_is_opened_on_request_is_fetched_and_what_is_closed_cools(bank: ResidentBank) -> None:
    opened = [bank.index(term) for term in ("A0", "A1", "A2")]
    bank.scope.add(opened)
    bank.score(said("B"))
    bank.settle()
    assert {"A0", "A1", "A2"} <= set(bank.resident)


def test_pinned_concepts_must_be_always_there(bank: ResidentBank) -> None:
    assert bank.reading(["a"]) is bank
    with pytest.raises(UsageError, match=r"A1 may leave memory.*always_include"):
        bank.reading(["A1"])
    with pytest.raises(UnknownConcept, match="no lens for 'Q' among 20"):
        bank.index("Q")


def test_a_broken_lens_ends_the_next_step_with_its_name(pack: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(pack, folder)
    file = folder / "level1.safetensors"
    span = Header.of(file).spans["block1.w1"]
    content = bytearray(file.read_bytes())
    content[span.start : span.start + 4] = b"\x00\x00\xc0\x7f"  # a NaN
    file.write_bytes(content)
    with ResidentBank(folder, fingerprint=PRINT, budget=20 * EACH) as bank:
        bank.score(said("A"))
        with pytest.raises(NumericError, match="A0"):
            bank.settle()


def test_a_broken_group_does_not_take_a_sound_one_with_it(pack: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(pack, folder)
    file = folder / "level1.safetensors"
    span = Header.of(file).spans["block3.w1"]
    content = bytearray(file.read_bytes())
    content[span.start : span.start + 4] = b"\x00\x00\xc0\x7f"
    file.write_bytes(content)
    with ResidentBank(folder, fingerprint=PRINT, budget=20 * EACH, dtype=torch.float32) as bank:
        bank.score(said("A", "B"))
        with pytest.raises(NumericError, match="B0"):
            bank.settle()
        assert float(bank.score(said("A", "A1")).logit[0, bank.index("A1")]) > 0


def test_the_manifest_s_bytes_count_where_they_are_less(pack: Path) -> None:
    dynamic = DynamicLoading(max_loaded_bytes=5 * EACH)
    manifest = ROOTS_FIRST.model_copy(update={"dynamic_loading": dynamic})
    with ResidentBank(pack, fingerprint=PRINT, budget=20 * EACH, manifest=manifest, dtype=torch.float32) as bank:
        assert bank.counters()["slots"] == 5


def test_a_first_layer_that_lenses_share_is_held_once(pack: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    info, files = read_info(pack), load_pack(pack)
    w1 = torch.randn(HIDDEN, D) / 8
    blocks = {
        block: replace(
            part,
            w1=w1.expand(len(part.b3), -1, -1),
            b1=torch.zeros(HIDDEN).expand(len(part.b3), -1),
            w2=torch.randn(len(part.b3), 3, HIDDEN) / 8,
            b2=torch.randn(len(part.b3), 3),
            w3=torch.randn(len(part.b3), 3),
        )
        for block, part in files.blocks.items()
    }
    folder = tmp_path / "shared"
    save_pack(folder, info, files.rows, blocks, storage="float32")
    always = LayerBounds(default_max_layer="all", always_load_layers=(0, 1, 2))
    manifest = DeploymentManifest(manifest_id="all", layer_bounds=always)
    budget = 20 * Slots.bytes_of(0, 3, torch.float32) + 2 * 4 * (HIDDEN * D + HIDDEN)
    with ResidentBank(folder, fingerprint=PRINT, budget=budget, manifest=manifest, dtype=torch.float32) as bank:
        assert bank.nbytes == budget
        whole = load_bank(folder, fingerprint=PRINT, dtype=torch.float32)
        order = [whole.index(term) for term in bank.terms]
        for rows in (1, 70):
            states = {site: 20 * torch.randn(rows, D) for site in SITES}
            wanted = whole.score(states, full=True).logit[:, order]
            torch.testing.assert_close(bank.score(states).logit, wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match=r"holds no lens: each takes .* what all share 66560; allow more"):
        ResidentBank(folder, fingerprint=PRINT, budget=66560, dtype=torch.float32)


def test_what_cannot_be_is_refused(pack: Path, bank: ResidentBank) -> None:
    with pytest.raises(ConfigError, match="holds no lens"):
        ResidentBank(pack, fingerprint=PRINT, budget=10)
    with pytest.raises(ConfigError, match="2 lenses must always be in memory"):
        ResidentBank(pack, fingerprint=PRINT, budget=EACH, dtype=torch.float32)
    with pytest.raises(FingerprintMismatch, match="was made for tiny"):
        ResidentBank(pack, fingerprint="ff" * 32, budget=20 * EACH)
    with pytest.raises(SiteError, match="was not given"):
        bank.score({SITES[0]: torch.zeros(1, D)})
    with pytest.raises(UsageError, match="these lenses take"):
        bank.score(dict.fromkeys(SITES, torch.zeros(1, D + 1)))


def test_slots_of_another_size_are_refused() -> None:
    slots = Slots(2, D + 1, NARROW, torch.device("cpu"), torch.float32)
    with pytest.raises(UsageError, match="do not fit slots of width"):
        slots.staged(weights([LensRow(term="A", block=1, row=0)]))


@pytest.mark.parametrize("rows", [0, 1, 8, 9, 70])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_states_and_many_read_alike(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    n = 6
    part = LensTensors(
        w1=torch.randn(n, HIDDEN, D) / 8,
        b1=torch.randn(n, HIDDEN),
        w2=torch.randn(n, NARROW, HIDDEN) / 11,
        b2=torch.randn(n, NARROW),
        w3=torch.randn(n, NARROW) / 8,
        b3=torch.randn(n),
        screen_w=torch.zeros(n, D),
        screen_b=torch.zeros(n),
        screen_threshold=torch.zeros(n),
    )
    slots = Slots(9, D, NARROW, torch.device("cpu"), dtype)
    slots.put([7, 2, 3, 8, 0, 5], slots.staged(part))
    x = torch.randn(rows, D)
    z = torch.relu(torch.einsum("nhd,rd->nrh", part.w1, x) + part.b1[:, None])
    z = torch.relu(torch.einsum("nkh,nrh->nrk", part.w2, z) + part.b2[:, None])
    wanted = (torch.einsum("nrk,nk->rn", z, part.w3) + part.b3)[:, [1, 0, 5]]
    found = slots.logits(x, torch.tensor([2, 7, 5]))
    torch.testing.assert_close(found, wanted, atol=1e-5 if dtype == torch.float32 else 0.08, rtol=0)
