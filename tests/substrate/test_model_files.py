"""Every way in which the files of a model can be missing, broken, or those of something else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, T5Config, ViTConfig

from ftw.substrate import files
from ftw.substrate.bundled import reference_dir
from ftw.substrate.checkpoint import read_header
from ftw.substrate.config import ModelSpec
from ftw.substrate.errors import (
    MissingExtra,
    ModelBroken,
    ModelError,
    ModelNotFound,
    NotCausalLM,
    StorageError,
)
from ftw.substrate.model import Model, load
from ftw.substrate.reference import tiny


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.net(input_ids=torch.tensor([[1, 2, 3]])).logits
    return out


def edit_json(file: Path, **changes: Any) -> None:
    table = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in {**table, **changes}.items() if value is not ...}))


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/nothing-here", "what is this?"])
def test_a_folder_that_does_not_exist_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound, match=r"no folder .*give a folder, a hub id such as org/name, or `reference`"):
        load(name)


def test_a_file_is_not_a_model(folder: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"is a file: give the folder that holds config\.json"):
        load(str(folder / "config.json"))


def test_an_installation_without_the_bundled_model_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ftw.substrate.bundled.files", lambda _: tmp_path)
    with pytest.raises(ModelNotFound, match="reinstall ftw-transparency"):
        reference_dir()


def test_a_hub_id_loads_from_the_cache_when_offline(hub: Callable[[], Path]) -> None:
    hub()
    model = load("org/name")
    assert model.name == "org/name"
    assert model.tokenizer is not None
    assert torch.equal(logits(model), logits(tiny()))
    assert torch.equal(logits(load(ModelSpec(name="org/name", revision="main"))), logits(tiny()))


def test_a_hub_id_without_a_tokenizer_loads_without_one(hub: Callable[[], Path]) -> None:
    for file in hub().glob("*token*"):
        file.unlink()
    assert load("org/name").tokenizer is None


def test_a_sharded_hub_id_loads_and_names_a_missing_shard(hub: Callable[[Path], Path], sharded: Path) -> None:
    snapshot = hub(sharded)
    assert torch.equal(logits(load("org/name")), logits(tiny()))
    next(snapshot.glob("model-00002-*")).unlink()
    with pytest.raises(ModelBroken, match="org/name is only partly downloaded"):
        load("org/name")


def test_a_hub_id_outside_the_cache_is_not_found_when_offline(hub: Callable[[], Path]) -> None:
    with pytest.raises(ModelNotFound, match=r"org/other is no folder here and not in the hub's local cache .*offline"):
        load("org/other")


def test_a_half_downloaded_hub_id_names_the_missing_weights(hub: Callable[[], Path]) -> None:
    (hub() / "model.safetensors").unlink()
    with pytest.raises(ModelBroken, match=r"org/name: model\.safetensors is missing in .*repeat it online"):
        load("org/name")


def test_a_hub_repository_without_a_config_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "cached_file", lambda *_, **__: None)
    with pytest.raises(ModelNotFound, match=r"org/name on the hub has no config\.json"):
        load("org/name")


def test_a_truncated_file_is_named_with_both_sizes(folder: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(ModelBroken, match=rf"{file} is truncated: {len(whole) - 100} of {len(whole)} bytes"):
        load(str(folder))


@pytest.mark.parametrize("keep", [0, 5, 30])
def test_a_file_cut_inside_its_header_is_truncated(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelBroken, match=f"is truncated: {keep} bytes are there"):
        load(str(folder))


def test_a_file_that_is_too_long_is_damaged(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes() + b"junk")
    with pytest.raises(ModelBroken, match=r"is damaged: .* bytes on disk"):
        load(str(folder))


@pytest.mark.parametrize(
    ("header", "reason"), [(b"{oops", "unreadable"), (b"[1]", "malformed"), (b'{"a":1}', "malformed")]
)
def test_a_file_that_is_no_safetensors_is_named(folder: Path, header: bytes, reason: str) -> None:
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelBroken, match=f"is not a safetensors file: its header is {reason}"):
        load(str(folder))


def test_a_git_lfs_pointer_is_recognised(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(ModelBroken, match=r"is a Git LFS pointer.*git lfs pull"):
        load(str(folder))


def test_a_missing_config_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelBroken, match=r"config\.json is missing"):
        load(str(folder))


@pytest.mark.parametrize(("text", "reason"), [("{", "is not valid JSON"), ("[]", "is not a JSON object")])
def test_a_config_that_is_no_json_object_is_named(folder: Path, text: str, reason: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelBroken, match=rf"config\.json {reason}"):
        load(str(folder))


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelBroken, match=r"model\.safetensors is missing, and so is every other weight file"):
        load(str(folder))


def test_a_missing_shard_is_named(sharded: Path) -> None:
    shards = sorted(sharded.glob("model-*.safetensors"))
    shards[1].unlink()
    with pytest.raises(ModelBroken, match=rf"{shards[1]} missing: .* lists {len(shards)} shards"):
        load(str(sharded))
    shards[2].unlink()
    with pytest.raises(ModelBroken, match="and 1 more missing"):
        load(str(sharded))


def test_shards_without_their_index_are_recognised(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelBroken, match=r"model\.safetensors\.index\.json is missing: shards are there"):
        load(str(sharded))


def test_an_index_without_shards_is_named(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelBroken, match="lists no shards"):
        load(str(sharded))


def test_weights_without_tensors_are_named(folder: Path) -> None:
    save_file({}, folder / "model.safetensors")
    with pytest.raises(ModelBroken, match="the weight files hold no tensors"):
        load(str(folder))


def test_a_tensor_that_is_missing_is_never_made_up(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelBroken, match=r"lack 1 tensors .* first model\.layers\.1\.mlp\.up_proj\.weight"):
        load(str(folder))


def test_weights_of_another_shape_than_the_config_says_are_broken(folder: Path) -> None:
    edit_json(folder / "config.json", intermediate_size=48)
    with pytest.raises(ModelBroken, match="cannot be loaded"):
        load(str(folder))


def test_truncated_pytorch_weights_are_broken(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(ModelBroken, match="cannot be loaded"):
        load(str(folder))


def test_a_damaged_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(ModelBroken, match=r"the tokenizer in .* cannot be read"):
        load(str(folder))


def test_a_config_of_no_type_is_broken(folder: Path) -> None:
    edit_json(folder / "config.json", model_type=..., architectures=...)
    with pytest.raises(ModelBroken, match=r"config\.json names no model_type"):
        load(str(folder))


def test_a_config_with_a_bad_value_is_broken(folder: Path) -> None:
    edit_json(folder / "config.json", hidden_size="wide")
    with pytest.raises(ModelBroken, match=r"config\.json holds a bad value"):
        load(str(folder))


def test_a_type_that_transformers_does_not_know_says_so(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="martian")
    with pytest.raises(ModelError, match=r"is of type 'martian', unknown to transformers 5.*: upgrade it"):
        load(str(folder))


def test_code_of_its_own_is_not_run_unless_asked(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="martian", auto_map={"AutoConfig": "configuration.Config"})
    (folder / "configuration.py").write_text("raise SystemExit('code ran')")
    with pytest.raises(ModelError, match="needs code of its own: read it, then load with trust_remote_code"):
        load(str(folder))


def test_an_unreadable_file_is_a_storage_error(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(StorageError, match=r"config\.json cannot be read: Is a directory"):
        load(str(folder))
    with pytest.raises(StorageError, match="cannot be read: Is a directory"):
        read_header(folder)


def test_a_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImportError("needs the package sentencepiece")

    monkeypatch.setattr(files.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(
        MissingExtra, match=r"the tokenizer of .* needs another package: needs the package sentencepiece"
    ):
        load(str(folder))
    monkeypatch.setattr(files.AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(MissingExtra, match="needs another package"):
        load(str(folder))


def test_a_masked_model_is_not_causal(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(NotCausalLM, match="is a BertForMaskedLM: it does not predict a next token"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (T5Config(architectures=["T5ForConditionalGeneration"]), "T5ForConditionalGeneration.* is an encoder-decoder"),
        (ViTConfig(), "has no causal language model"),
    ],
)
def test_other_kinds_are_not_causal(folder: Path, config: Any, reason: str) -> None:
    config.save_pretrained(folder)
    with pytest.raises(NotCausalLM, match=reason):
        load(str(folder))
