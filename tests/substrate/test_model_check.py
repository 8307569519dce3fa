"""Identity of weights, and the verdict of `ftw models check`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel

from ftw.substrate.bundled import tiny_net
from ftw.substrate.check import check_model, check_models
from ftw.substrate.checkpoint import open_checkpoint
from ftw.substrate.config import ModelSpec, Settings
from ftw.substrate.errors import (
    ConfigError,
    ModelBroken,
    ModelError,
    Refused,
    StorageError,
)
from ftw.substrate.model import from_net, load
from ftw.substrate.reference import tiny
from tests.substrate.families import build


def edit_json(file: Path, **changes: Any) -> None:
    table = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in {**table, **changes}.items() if value is not ...}))


def test_the_fingerprint_is_the_same_for_every_dtype_and_way_of_sharding(folder: Path, sharded: Path) -> None:
    one = load(str(folder)).fingerprint
    assert one == load(ModelSpec(name=str(folder), dtype="bfloat16")).fingerprint
    assert one == tiny().fingerprint


def test_shards_have_the_fingerprint_of_the_whole(sharded: Path) -> None:
    assert load(str(sharded)).fingerprint == tiny().fingerprint


def test_one_changed_number_changes_the_fingerprint(folder: Path) -> None:
    before = load(str(folder)).fingerprint
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] += 1e-6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(str(folder)).fingerprint != before


def test_tied_weights_count_once() -> None:
    net = build("llama-tied")
    twin = build("llama-tied")
    twin.lm_head.weight = torch.nn.Parameter(twin.lm_head.weight.clone())  # type: ignore[union-attr]
    assert from_net(net).fingerprint != from_net(twin).fingerprint


def test_a_tied_model_has_the_same_fingerprint_in_memory_and_on_disk(tmp_path: Path) -> None:
    net = build("llama-tied")
    net.save_pretrained(tmp_path)
    assert load(str(tmp_path)).fingerprint == from_net(net).fingerprint


def test_a_model_without_weights_has_no_fingerprint() -> None:
    model = tiny()
    model.net = model.net.to("meta")
    with pytest.raises(ModelBroken, match="is not in memory"):
        _ = model.fingerprint


def test_a_large_fingerprint_is_remembered_until_the_files_change(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftw.substrate.fingerprint.REMEMBER_ABOVE", 0)
    settings = Settings(cache_dir=tmp_path / "cache")
    first = load(str(folder), settings=settings).fingerprint
    (memo,) = (tmp_path / "cache" / "fingerprints").iterdir()
    memo.write_text("f" * 64)
    assert load(str(folder), settings=settings).fingerprint == "f" * 64
    (folder / "model.safetensors").touch()
    assert load(str(folder), settings=settings).fingerprint == first


def test_a_file_that_shrinks_while_it_is_read_is_broken(folder: Path) -> None:
    model = load(str(folder))
    assert model.checkpoint is not None
    assert model.checkpoint.entries
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelBroken, match="became shorter while it was read"):
        _ = model.fingerprint


def test_weights_that_vanish_cannot_be_identified(folder: Path) -> None:
    model = load(str(folder))
    assert model.checkpoint is not None
    assert model.checkpoint.entries
    (folder / "model.safetensors").unlink()
    with pytest.raises(StorageError, match=r"model\.safetensors cannot be read: No such file"):
        _ = model.fingerprint


def test_a_check_tells_verdict_anatomy_and_memory(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    check = check_model(ModelSpec(name=str(folder), device="cpu"))
    assert check.summary == {
        "model": str(folder),
        "architecture": "LlamaForCausalLM",
        "exact": True,
        "max_abs_error": 0.0,
        "kl_bits": 0.0,
        "refused": None,
    }
    assert check.anatomy is not None
    assert (check.anatomy.blocks, check.anatomy.tail, check.anatomy.head) == (
        "model.layers",
        ("model.norm",),
        "lm_head",
    )
    assert (check.anatomy.is_tied, check.anatomy.transform, check.anatomy.has_tokenizer) == (False, "none", False)
    assert check.memory is not None
    assert 0 < check.memory.total < check.free_bytes
    assert (check.dtype, check.device) == ("float32", "cpu")


def test_a_refused_model_is_a_result_with_null_for_its_numbers(tmp_path: Path) -> None:
    build("hrm-text").save_pretrained(tmp_path)
    exact, refused = check_models(["tiny", str(tmp_path)])
    assert exact.summary["exact"]
    assert exact.memory is None
    assert refused.summary["exact"] is False
    assert refused.summary["architecture"] == "HrmTextForCausalLM"
    assert refused.summary["max_abs_error"] is None
    assert "times in one pass" in refused.summary["refused"]
    assert refused.anatomy is None


def test_another_kind_of_model_is_a_result_too(tmp_path: Path) -> None:
    shape = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(**shape, intermediate_size=24)).save_pretrained(tmp_path)
    (check,) = check_models([str(tmp_path)])
    assert check.summary["architecture"] == "BertForMaskedLM"
    assert "does not predict a next token" in check.summary["refused"]


def test_a_model_that_cannot_be_read_is_an_error(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelBroken, match="is missing"):
        check_models(["tiny", str(folder)])


def test_a_net_that_is_refused_is_refused_when_wrapped() -> None:
    net: PreTrainedModel = build("hrm-text")
    with pytest.raises(Refused, match="times in one pass"):
        from_net(net)


def test_a_device_that_does_not_exist_stops_the_load(folder: Path) -> None:
    with pytest.raises(ConfigError, match="device 'cuda:99' does not exist"):
        load(ModelSpec(name=str(folder), device="cuda:99"))


def test_a_model_that_does_not_fit_is_refused_before_its_weights_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftw.substrate.device.free_bytes", lambda _: 1 << 10)
    with pytest.raises(ModelError, match=r"needs .* MiB .*cpu has 0 MiB free: use a smaller dtype"):
        load(str(folder))


def test_a_device_that_runs_out_after_all_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("out")

    monkeypatch.setattr(torch.nn.Module, "to", fail)
    with pytest.raises(ModelError, match="the weights do not fit on cpu"):
        load(str(folder))


def test_a_checkpoint_knows_its_dtype(folder: Path) -> None:
    assert open_checkpoint(folder).dtype == torch.float32
    tiny_net().half().save_pretrained(folder)
    assert open_checkpoint(folder).dtype == torch.float16
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert open_checkpoint(folder).dtype == torch.float16
    edit_json(folder / "config.json", dtype=...)
    assert open_checkpoint(folder).dtype == torch.float32
