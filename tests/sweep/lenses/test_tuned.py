"""A tuned lens is an affine map and the model's own tail, and what is stored is what is read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ftw.substrate.errors import ConfigError, FingerprintMismatch, PackError, StorageError
from ftw.substrate.manifest import save_artifact
from ftw.substrate.model import Model, load
from ftw.substrate.unembed import head_input
from ftw.sweep.lenses import VocabLens
from ftw.sweep.lenses.fitted import ModelOf
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.lenses.tuned import KINDS, TunedKind, TunedLens, TunedManifest, load_tuned, save_tuned
from ftw.sweep.run import Sweep

RANK = 5


@pytest.fixture(scope="module")
def model() -> Model:
    return load("tiny")


def parts(model: Model, kind: TunedKind, scale: float = 0.1) -> dict[str, Tensor]:
    n, d = model.n_layers, model.d_model
    draw = torch.Generator().manual_seed(3)
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "bias": {"bias": (n, d)},
        "rank": {"bias": (n, d), "down": (n, d, RANK), "up": (n, RANK, d)},
        "full": {"bias": (n, d), "weight": (n, d, d)},
    }
    return {name: scale * torch.randn(shape, generator=draw) for name, shape in shapes[kind].items()}


def lens_of(model: Model, kind: TunedKind, tensors: dict[str, Tensor] | None = None) -> TunedLens:
    tensors = parts(model, kind) if tensors is None else tensors
    manifest = TunedManifest(
        model=ModelOf(name=model.name, fingerprint=model.fingerprint),
        d_model=model.d_model,
        n_layers=model.n_layers,
        lens=kind,
        rank=RANK if kind == "rank" else None,
        accepted=True,
        source={"how": "made up"},
    )
    return TunedLens(
        model.arch,
        tensors["bias"],
        tensors.get("down"),
        tensors.get("up"),
        tensors.get("weight"),
        manifest=manifest,
    )


def states(model: Model, rows: int = 6) -> Tensor:
    return 2 * torch.randn(model.n_layers + 1, rows, model.d_model, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_each_layer_has_its_own_map_on_the_stream_before_the_models_tail(model: Model, kind: TunedKind) -> None:
    lens, x = lens_of(model, kind), states(model)
    found = lens.head_inputs(x, lens.layers)
    t = parts(model, kind)
    for layer in range(model.n_layers):
        matrix = {"bias": lambda at: 0 * torch.eye(model.d_model), "full": lambda at: t["weight"][at]}
        a = t["down"][layer] @ t["up"][layer] if kind == "rank" else matrix[kind](layer)
        y = x[layer] + x[layer] @ a + t["bias"][layer]
        torch.testing.assert_close(found[layer], head_input(model.arch, y))


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_of_zeros_is_the_logit_lens_bit_for_bit(model: Model, kind: TunedKind) -> None:
    lens, x = lens_of(model, kind, parts(model, kind, scale=0.0)), states(model)
    assert torch.equal(lens.head_inputs(x, lens.layers), LogitLens(model.arch).head_inputs(x, lens.layers))


def test_at_the_last_layer_it_is_the_model(model: Model) -> None:
    lens, x = lens_of(model, "full"), states(model)
    n = model.n_layers
    assert lens.layers == range(n + 1)
    assert torch.equal(lens.head_inputs(x[n:], [n]), LogitLens(model.arch).head_inputs(x[n:], [n]))
    table = Sweep(model, [lens]).run(["abc", "hello there"])
    last = table.columns["layer"] == n
    assert (table.columns["kl_bits"][last & (table.columns["lens"] == "tuned")] == 0).all()


def test_a_layer_is_read_the_same_alone_and_among_others(model: Model) -> None:
    lens, x = lens_of(model, "rank"), states(model)
    whole = lens.head_inputs(x, lens.layers)
    torch.testing.assert_close(lens.head_inputs(x[2:3], [2])[0], whole[2])
    torch.testing.assert_close(lens.head_inputs(x[[3, 1]], [3, 1]), whole[[3, 1]])


def test_it_reads_half_precision_in_fp32(model: Model) -> None:
    assert lens_of(model, "full").head_inputs(states(model).to(torch.bfloat16), range(5)).dtype == torch.float32


def test_it_is_a_vocabulary_lens_whose_digest_is_its_tensors(model: Model) -> None:
    lens = lens_of(model, "rank")
    assert isinstance(lens, VocabLens)
    assert lens.digest == lens_of(model, "rank").digest
    digests = {lens.digest, lens_of(model, "bias").digest, lens_of(model, "full").digest}
    for name in ("bias", "down", "up"):
        tensors = parts(model, "rank")
        tensors[name].view(-1)[0] += 1e-3
        digests.add(lens_of(model, "rank", tensors).digest)
    assert len(digests) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_what_is_read(model: Model, kind: TunedKind, tmp_path: Path) -> None:
    lens = lens_of(model, kind)
    save_tuned(tmp_path / "lens", lens)
    read = load_tuned(tmp_path / "lens", model)
    assert read.digest == lens.digest
    assert read.kind == kind
    assert read.manifest is not None
    assert read.manifest.accepted
    assert torch.equal(read.head_inputs(states(model), lens.layers), lens.head_inputs(states(model), lens.layers))


def test_half_precision_on_disk_is_read_as_fp32(model: Model, tmp_path: Path) -> None:
    lens = lens_of(model, "full")
    save_tuned(tmp_path / "lens", lens, stored="bfloat16")
    read = load_tuned(tmp_path / "lens", model)
    assert read.bias.dtype == torch.float32
    assert torch.equal(read.bias, lens.bias.to(torch.bfloat16).float())
    save_tuned(tmp_path / "whole", lens)
    size = [(tmp_path / name / "tensors.safetensors").stat().st_size for name in ("lens", "whole")]
    assert size[0] < 0.6 * size[1]


def test_a_lens_without_a_manifest_cannot_be_saved(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no manifest to be saved with"):
        save_tuned(tmp_path / "lens", replace(lens_of(model, "bias"), manifest=None))


def test_another_models_lens_is_refused_with_both_fingerprints(model: Model, tmp_path: Path) -> None:
    lens = lens_of(model, "bias")
    assert lens.manifest is not None
    other = lens.manifest.model_copy(update={"model": ModelOf(name="other", fingerprint="ab" * 32)})
    save_tuned(tmp_path / "lens", replace(lens, manifest=other))
    with pytest.raises(FingerprintMismatch, match=rf"made for other \(abababab\).*is tiny \({model.fingerprint[:8]}\)"):
        load_tuned(tmp_path / "lens", model)


def stored(
    model: Model, kind: TunedKind, folder: Path, tensors: dict[str, Tensor], changes: dict[str, Any] | None = None
) -> Path:
    manifest = lens_of(model, kind).manifest
    assert manifest is not None
    save_artifact(folder, {**manifest.model_dump(mode="json", by_alias=True), **(changes or {})}, tensors)
    return folder


@pytest.mark.parametrize(
    ("kind", "spoil", "told"),
    [
        ("bias", {"bias": torch.zeros(4, 31)}, r"bias is \[4, 31\], the manifest says \[4, 32\]"),
        ("rank", {"up": torch.zeros(4, 4, 32)}, r"up is \[4, 4, 32\], the manifest says \[4, 5, 32\]"),
        ("full", {"weight": torch.full((4, 32, 32), torch.nan)}, "weight has 4096 NaN or infinite of 4096 numbers"),
        ("bias", {"bias": torch.full((4, 32), torch.inf)}, "bias has 128 NaN or infinite"),
        (
            "bias",
            {"bias": torch.zeros(4, 32, dtype=torch.int32)},
            "bias is torch.int32: a translator is made of floats",
        ),
        ("bias", {"extra": torch.zeros(1)}, r"holds \['bias', 'extra'\].*has \['bias'\]"),
    ],
)
def test_wrong_tensors_are_named_with_their_numbers(
    model: Model, kind: TunedKind, spoil: dict[str, Tensor], told: str, tmp_path: Path
) -> None:
    folder = stored(model, kind, tmp_path / "lens", {**parts(model, kind), **spoil})
    with pytest.raises(PackError, match=f"tensors.safetensors.*{told}"):
        load_tuned(folder, model)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "prism-lens"}, "is of kind 'prism-lens', not 'tuned-lens'"),
        ({"schema": 2}, "schema"),
        ({"flavour": "sweet"}, "flavour.*written by another version, or changed by hand"),
        ({"rank": 5}, "a lens of kind 'bias' cannot have rank 5"),
        ({"n_layers": 3}, "3 layers of 32, tiny has 4 of 32"),
        ({"model": {"name": "x", "fingerprint": "short"}}, "fingerprint"),
    ],
)
def test_a_manifest_that_says_something_else_is_named(
    model: Model, changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    folder = stored(model, "bias", tmp_path / "lens", parts(model, "bias"), changes)
    with pytest.raises(PackError, match=f"manifest.json.*{told}"):
        load_tuned(folder, model)


def test_a_damaged_file_is_named(model: Model, tmp_path: Path) -> None:
    save_tuned(tmp_path / "lens", lens_of(model, "bias"))
    file = tmp_path / "lens" / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(PackError, match=r"tensors.safetensors is not what was saved"):
        load_tuned(tmp_path / "lens", model)
    (tmp_path / "lens" / "manifest.json").write_text("{")
    with pytest.raises(PackError, match=r"manifest.json is not valid JSON"):
        load_tuned(tmp_path / "lens", model)
    with pytest.raises(StorageError, match=r"nothing.manifest\.json"):
        load_tuned(tmp_path / "nothing", model)


def test_the_manifest_on_disk_is_plain_json_with_its_schema(model: Model, tmp_path: Path) -> None:
    save_tuned(tmp_path / "lens", lens_of(model, "rank"))
    body = json.loads((tmp_path / "lens" / "manifest.json").read_text())
    assert (body["kind"], body["schema"], body["lens"], body["rank"]) == ("tuned-lens", 1, "rank", RANK)
