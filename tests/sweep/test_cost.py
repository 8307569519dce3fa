"""A model is placed by the bytes of its files, where they fit, or refused with every place that was tried."""

from pathlib import Path

import pytest
import torch

from ftw.substrate.bundled import tiny_net, tiny_tokenizer
from ftw.substrate.checkpoint import open_checkpoint
from ftw.substrate.config import ModelSpec
from ftw.substrate.errors import ConfigError, ModelError, ModelNotFound
from ftw.substrate.files import load_config, locate
from ftw.sweep import decode, forward
from ftw.sweep.cost import cost, place


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in a folder, in bfloat16."""
    folder = tmp_path_factory.mktemp("half")
    tiny_net().to(torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_weights_are_counted_from_the_files_whatever_the_folder_is_called(half: Path) -> None:
    checkpoint = open_checkpoint(half)
    config = load_config(ModelSpec(name=str(half)), checkpoint)
    stored = sum(entry.n_bytes for entry in checkpoint.entries)
    found = cost(checkpoint, config, torch.bfloat16, precision="exact", on_cuda=False)
    assert found.weights == stored
    assert cost(checkpoint, config, torch.float32, precision="exact", on_cuda=False).weights == 2 * stored
    assert found.total == found.weights + found.head + found.passes


def test_the_head_is_counted_where_the_sweep_makes_copies_of_it() -> None:
    checkpoint = locate(ModelSpec(name="reference"))
    config = load_config(ModelSpec(name="reference"), checkpoint)
    wide = 4 * config.vocab_size * config.hidden_size

    def head(dtype: torch.dtype, precision: str) -> int:
        return cost(checkpoint, config, dtype, precision=precision, on_cuda=False).head

    assert head(torch.float32, "exact") == 0
    assert head(torch.bfloat16, "exact") == wide  # read as fp32, in pieces of at most 64 MiB
    assert head(torch.float32, "fast") == wide  # a bf16 copy, and one in the order of the processor


def test_the_budgets_of_a_sweep_are_counted(half: Path) -> None:
    checkpoint = open_checkpoint(half)
    config = load_config(ModelSpec(name=str(half)), checkpoint)
    found = cost(checkpoint, config, torch.float32, precision="exact", on_cuda=False)
    assert found.passes >= forward.BUDGET + decode.BUDGET[0]
    assert cost(checkpoint, config, torch.float32, precision="exact", on_cuda=True).passes > found.passes


def test_what_fits_goes_where_it_is_asked_to(half: Path) -> None:
    placed = place(ModelSpec(name=str(half), device="cpu", dtype="float16"), free=lambda _: 1 << 40)
    assert (placed.spec.device, placed.spec.dtype, placed.note) == ("cpu", "float16", "")
    assert placed.cost is not None


def test_without_room_for_fp32_the_files_own_dtype_is_taken_and_told(half: Path) -> None:
    spec = ModelSpec(name=str(half))
    whole, less = (cost_of(half, dtype) for dtype in (torch.float32, torch.bfloat16))
    placed = place(spec, free=lambda _: (whole + less) // 2)
    assert (placed.spec.device, placed.spec.dtype) == ("cpu", "bfloat16")
    assert "in float32 needs" in placed.note
    assert "it runs on cpu in bfloat16" in placed.note


def test_a_dtype_that_is_named_is_kept_or_refused(half: Path) -> None:
    with pytest.raises(ModelError, match=r"in float32 needs .* on cpu .* are free: use --dtype bfloat16, --device map"):
        place(ModelSpec(name=str(half), dtype="float32"), free=lambda _: cost_of(half, torch.float32) - 1)


def test_a_model_that_fits_nowhere_is_refused_with_every_place(half: Path) -> None:
    with pytest.raises(ModelError, match=r"in float32 needs .* 0 MiB are free; .* in bfloat16 needs"):
        place(ModelSpec(name=str(half)), free=lambda _: 0)


def test_what_is_spread_over_devices_is_not_held_against_one() -> None:
    placed = place(ModelSpec(name="reference", device="map"), free=lambda _: 0)
    assert (placed.spec.device, placed.cost) == ("map", None)


def test_a_model_that_is_not_there_or_a_device_that_is_not_is_an_error() -> None:
    with pytest.raises(ModelNotFound):
        place(ModelSpec(name="./no-such-folder"))
    with pytest.raises(ConfigError, match="device 'cuda:99' does not exist"):
        place(ModelSpec(name="reference", device="cuda:99"))


def cost_of(folder: Path, dtype: torch.dtype) -> int:
    checkpoint = open_checkpoint(folder)
    config = load_config(ModelSpec(name=str(folder)), checkpoint)
    return cost(checkpoint, config, dtype, precision="exact", on_cuda=False).total
