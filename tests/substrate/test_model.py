"""Loading by name, folder and hub id, and what a model says about itself."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, LlavaConfig

from ftw.substrate import files
from ftw.substrate.arch import gate
from ftw.substrate.bundled import EOS, tiny_net
from ftw.substrate.config import ModelSpec
from ftw.substrate.errors import (
    UsageError,
)
from ftw.substrate.model import UNBOUNDED, Model, from_net, load
from ftw.substrate.reference import tiny
from tests.substrate.families import PLAIN, VISION, build


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.net(input_ids=torch.tensor([[1, 2, 3]])).logits
    return out


def test_the_bundled_model_loads_by_its_name_and_is_exact() -> None:
    model = load("reference")
    assert model.name == "reference"
    assert model.tokenizer is not None
    assert (model.d_model, model.context) == (256, 512)
    assert model.vocab_size == model.arch.embed.weight.shape[0]  # type: ignore[union-attr, index]
    assert len(model.arch.blocks) == model.n_layers
    assert gate(model.net, model.arch).exact
    assert not any(weight.requires_grad for weight in model.net.parameters())


def test_the_tiny_model_needs_no_files() -> None:
    model = load("tiny")
    assert (model.n_layers, model.d_model, model.vocab_size, model.context) == (4, 32, 259, 256)
    assert model.eos_ids == {EOS}
    assert torch.equal(logits(model), logits(tiny()))
    assert not torch.equal(logits(tiny(seed=1)), logits(tiny()))


def test_a_folder_gives_the_model_that_was_saved_there(folder: Path) -> None:
    model = load(str(folder))
    assert model.name == "model"
    assert model.dtype == torch.float32
    assert torch.equal(logits(model), logits(tiny()))
    assert model.encode("hi") == [256, 104, 105]


def test_shards_are_one_model(sharded: Path) -> None:
    assert len(list(sharded.glob("model-*.safetensors"))) > 2
    assert torch.equal(logits(load(str(sharded))), logits(tiny()))


def test_a_folder_without_a_tokenizer_loads_without_one(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    model = load(str(folder))
    assert model.tokenizer is None
    for use in (lambda: model.encode("x"), lambda: model.decode([1]), lambda: model.pieces([1])):
        with pytest.raises(UsageError, match=r"has no tokenizer: give it token ids, or add tokenizer\.json"):
            use()


def test_dtype_auto_is_fp32_on_a_cpu_and_a_named_dtype_is_obeyed(folder: Path) -> None:
    tiny_net().to(torch.bfloat16).save_pretrained(folder)
    assert load(str(folder)).dtype == torch.float32
    assert load(ModelSpec(name=str(folder), dtype="bfloat16")).dtype == torch.bfloat16
    assert load(ModelSpec(name="tiny", dtype="float16")).dtype == torch.float16


def test_old_pytorch_weights_load(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    model = load(str(folder))
    assert torch.equal(logits(model), logits(tiny()))
    assert len(model.fingerprint) == 64


def test_a_model_in_memory_is_wrapped() -> None:
    net = tiny_net().train()
    model = from_net(net, name="mine")
    assert not net.training
    assert (model.name, model.tokenizer, model.checkpoint) == ("mine", None, None)
    assert from_net(net).name == "LlamaForCausalLM"


def test_a_model_without_a_limit_has_an_unbounded_context() -> None:
    assert from_net(build("mamba")).context == UNBOUNDED
    assert from_net(build("gpt2")).context == 64


def test_loading_leaves_the_log_and_the_progress_bars_of_transformers_as_they_were(folder: Path) -> None:
    before = files.transformers_logging.get_verbosity(), files.transformers_logging.is_progress_bar_enabled()
    load(str(folder))
    assert before == (
        files.transformers_logging.get_verbosity(),
        files.transformers_logging.is_progress_bar_enabled(),
    )


TEXTS = ["The capital of France", " leading and trailing ", "née 東京 🙂 — ok", "", "line\nline\ttab"]


@pytest.mark.parametrize("text", TEXTS)
def test_decode_of_encode_is_the_identity(text: str) -> None:
    model = tiny()
    assert model.decode(model.encode(text)) == text


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["tiny", "reference"])
def test_pieces_join_to_the_text(name: str, text: str) -> None:
    model = load(name)
    ids = model.encode(text)[1:]
    assert "".join(model.pieces(ids)) == model.decode(ids)
    assert len(model.pieces(ids)) == len(ids)


def test_pieces_name_special_tokens_and_keep_broken_bytes() -> None:
    model = tiny()
    assert model.pieces([256, 65, 0xC3, 0xA9]) == ["<s>", "A", "", "é"]
    assert model.pieces([0xE6]) == ["\ufffd"]
    assert model.pieces([0xFF] * 6 + [65])[-1].endswith("A")
    assert model.pieces([]) == []


def test_a_chat_is_wrapped_in_the_template() -> None:
    model = tiny()
    ids = model.encode("hi", chat=True)
    assert model.decode(ids) == "[user]hi\n[assistant]"
    assert 256 not in ids


def test_a_chat_without_a_template_is_an_error() -> None:
    model = tiny()
    assert model.tokenizer is not None
    model.tokenizer.chat_template = None
    with pytest.raises(UsageError, match="tiny has no chat template: give it plain text"):
        model.encode("hi", chat=True)


def test_every_source_of_end_tokens_counts() -> None:
    model = tiny()
    model.net.generation_config.eos_token_id = [3, 4]  # type: ignore[union-attr]
    assert model.eos_ids == {3, 4, EOS}


def test_a_vision_language_model_loads_and_its_text_trunk_is_found(tmp_path: Path) -> None:
    text = {"model_type": "llama", **PLAIN}
    config = LlavaConfig(
        text_config=text, vision_config={"model_type": "siglip_vision_model", **VISION}, image_token_index=97
    )
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path)
    model = load(str(tmp_path))
    assert model.arch.blocks_path == "model.language_model.layers"
    assert model.context == 64
    assert gate(model.net, model.arch).exact
