"""Spread over devices, memory and disk: a plan that fits, every weight placed once, and not one bit changed."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftw.substrate import offload as room
from ftw.substrate.bundled import reference_dir
from ftw.substrate.checkpoint import open_checkpoint
from ftw.substrate.config import ModelSpec, Settings
from ftw.substrate.errors import MissingExtra, ModelBroken, ModelError, Refused
from ftw.substrate.files import empty_net, load_config
from ftw.substrate.gate import gate
from ftw.substrate.model import from_net, load
from ftw.substrate.offload import DISK, Sizes, Slot, block_list, device_map, here, load_mapped, plan, sizes
from tests.substrate.families import build

pytestmark = pytest.mark.filterwarnings("ignore")


class _Small:
    """An estimate of a pass that takes nothing."""

    total = weights = 0


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "opt-projected", "mixtral", "falcon", "phi", "mamba", "cohere"])
def test_architectures_keep_their_numbers_when_every_block_lies_on_the_disk(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "estimate", lambda *_: _Small())
    net = build(family)
    net.save_pretrained(tmp_path / "model")
    spec = ModelSpec(name=str(tmp_path / "model"), device="map")
    checkpoint = open_checkpoint(tmp_path / "model")
    config = load_config(spec, checkpoint)
    empty = empty_net(spec, config)
    need = sizes(empty, block_list(empty)[1], torch.float32)
    slots = (Slot("cpu", need.rest + need.norms + max(need.blocks)), Slot(DISK, None))
    spread = load_mapped(spec, checkpoint, config, tmp_path / "offload", slots=slots)
    assert any(weight.device.type == "meta" for weight in spread.parameters())
    ids = torch.randint(0, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(spread(ids).logits, net(ids).logits)
    mine, whole = from_net(spread, name=family), from_net(net, name=family)
    assert gate(spread, mine.arch) == gate(net, whole.arch, model=gate(spread, mine.arch).model)
    assert mine.arch.blocks_path == block_list(empty)[0]


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=12),
    st.integers(0, 20),
    st.integers(0, 20),
    st.lists(st.integers(0, 200), min_size=1, max_size=4),
)
def test_a_plan_fills_no_place_beyond_its_room_and_keeps_the_order(
    blocks: list[int], norms: int, rest: int, rooms: list[int]
) -> None:
    need = Sizes(tuple(blocks), norms, rest)
    slots = (*(Slot(f"cuda:{index}", size) for index, size in enumerate(rooms)), Slot(DISK, None))
    must = rest + norms + max(blocks) + 3
    if must > rooms[0]:
        with pytest.raises(ModelError, match=r"big needs .* on cuda:0 for embedding, .* can be used"):
            plan(need, slots, name="big", working=3)
        return
    places = plan(need, slots, name="big", working=3)
    names = [slot.name for slot in slots]
    order = [names.index(place) for place in places]
    assert order == sorted(order)
    assert len(places) == len(blocks)
    for index, size in enumerate(rooms):
        taken = sum(block for block, at in zip(blocks, order, strict=True) if at == index)
        assert taken + (must if index == 0 else 0) <= size


def test_blocks_that_fit_nowhere_are_an_error_that_says_which() -> None:
    slots = (Slot("cuda:0", 100), Slot("cpu", 5))
    with pytest.raises(ModelError, match=r"big: block 1 of 2 .* fits on none of cuda:0, cpu: free some memory"):
        plan(Sizes((40, 40), 0, 10), slots, name="big")


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3-multimodal", "mamba", "bloom", "opt-projected"])
def test_every_weight_has_one_entry_of_the_map_above_it(family: str) -> None:
    net = build(family)
    path, blocks = block_list(net)
    places = ["cuda:0", *["cpu"] * (len(blocks) - 2), DISK]
    entries = device_map(net, path, places, "cuda:0")
    for name, _ in (*net.named_parameters(), *net.named_buffers()):
        above = [entry for entry in entries if name == entry or name.startswith(f"{entry}.")]
        assert len(above) == 1, name
        if not name.startswith(f"{path}."):
            assert entries[above[0]] == "cuda:0"
    assert {entries[entry] for entry in entries if entry.startswith(f"{path}.{len(blocks) - 1}.")} >= {DISK}


def test_sizes_count_each_weight_once_in_the_dtype_it_is_loaded_in() -> None:
    net = build("llama-tied")
    found = sizes(net, block_list(net)[1], torch.bfloat16)
    whole = sum(weight.numel() for weight in {id(w): w for w in (*net.parameters(), *net.buffers())}.values())
    assert sum(found.blocks) + found.rest == 2 * whole
    assert 0 < found.norms < sum(found.blocks)


def test_this_machine_ends_with_the_disk() -> None:
    places = here()
    assert places[-1] == Slot(DISK, None)
    assert places[-2].name == "cpu"
    assert all(slot.room is not None and slot.room > 0 for slot in places[:-1])


def test_without_accelerate_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(room, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'ftw-transparency\[offload\]'"):
        load(ModelSpec(name="reference", device="map"), settings=Settings(cache_dir=tmp_path))


def test_a_net_without_blocks_and_a_config_without_a_net_are_refused() -> None:
    with pytest.raises(Refused, match="Linear has no list of blocks to spread over devices"):
        block_list(torch.nn.Linear(2, 2))
    spec = ModelSpec(name="reference")
    config = load_config(spec, open_checkpoint(reference_dir()))
    config.hidden_act = "loud"
    with pytest.raises(ModelBroken, match="the config of reference makes no model"):
        empty_net(spec, config)
