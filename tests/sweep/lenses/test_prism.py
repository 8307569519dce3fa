"""A Prism on disk is what was fitted, for the model it was fitted on; anything else is an error that names the file."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ftw.substrate.errors import ConfigError, FingerprintMismatch, ModelError, PackError
from ftw.substrate.manifest import save_artifact
from ftw.substrate.model import Model, from_net, load
from ftw.substrate.reference import tiny
from ftw.sweep.decode import decode
from ftw.sweep.head import Head
from ftw.sweep.lenses import VocabLens
from ftw.sweep.lenses.fitted import ModelOf
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.lenses.prism import PrismLens, PrismManifest, load_prism, of_tensors, save_prism


@cache
def model() -> Model:
    return load("tiny")


def lens(*, full: bool = False) -> PrismLens:
    draw = torch.Generator().manual_seed(1)
    vector = torch.rand(3, 32, generator=draw) + 0.5
    tensors = {"mean": vector[0], "deviation": vector[1], "offset": vector[2]}
    tensors["rotation"] = torch.linalg.qr(torch.randn(32, 32, generator=draw)).Q
    if full:
        square = torch.randn(32, 32, generator=draw)
        tensors["decorrelate"] = square @ square.T
    manifest = PrismManifest(
        model=ModelOf(name="tiny", fingerprint=model().fingerprint),
        width=32,
        n_layers=4,
        target="states",
        covariance="full" if full else "diagonal",
        k=30,
        scale=0.5,
        accepted=False,
        source={"how": "test"},
        acceptance={"gates": {}},
    )
    return replace(of_tensors(model().arch, tensors, 0.5), manifest=manifest)


def states() -> Tensor:
    return torch.randn(5, 6, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("full", [False, True])
def test_every_layer_goes_through_one_map_of_rows(full: bool) -> None:
    prism = lens(full=full)
    x = LogitLens(model().arch).head_inputs(states(), range(5))
    found = prism.head_inputs(states(), range(5))
    for layer in range(5):
        for row in range(6):
            white = (x[layer, row] - prism.mean) / prism.deviation
            white = white if prism.decorrelate is None else white @ prism.decorrelate
            wanted = 0.5 * white @ prism.rotation + prism.offset
            torch.testing.assert_close(found[layer, row], wanted, atol=1e-4, rtol=1e-4)
    assert prism.layers == range(5)
    assert isinstance(prism, VocabLens)


def test_it_decodes_beside_the_logit_lens() -> None:
    both = decode(model(), [LogitLens(model().arch), lens()], states(), k=3)
    assert [view.lens for view in both.views] == ["logit"] * 5 + ["prism"] * 5
    z = Head(model().arch).logits(lens().head_inputs(states()[2:3], [2])[0]).log_softmax(-1)
    torch.testing.assert_close(both.top_logprobs[7], z.topk(3).values)


def test_half_precision_is_read_in_fp32() -> None:
    half = states().to(torch.bfloat16)
    assert torch.equal(lens().head_inputs(half, range(5)), lens().head_inputs(half.float(), range(5)))


@pytest.mark.parametrize("full", [False, True])
def test_what_is_saved_is_what_is_read(tmp_path: Path, full: bool) -> None:
    prism = lens(full=full)
    save_prism(tmp_path / "p", prism)
    back = load_prism(tmp_path / "p", model(), name="again")
    assert torch.equal(back.head_inputs(states(), range(5)), prism.head_inputs(states(), range(5)))
    assert back.digest == prism.digest
    assert back.name == "again"
    assert back.manifest is not None
    assert back.manifest.model_dump(exclude={"tensors_sha256"}) == prism.manifest.model_dump(exclude={"tensors_sha256"})  # type: ignore[union-attr]


def test_the_digest_is_that_of_all_its_numbers() -> None:
    digests = {lens().digest, lens(full=True).digest, replace(lens(), scale=0.6).digest}
    digests |= {replace(lens(), **{name: getattr(lens(), name) * 1.5}).digest for name in lens().tensors}
    assert len(digests) == 3 + 4


def test_a_map_that_cannot_be_moved_names_both_devices() -> None:
    lost = replace(lens(), rotation=lens().rotation.to("meta"))
    with pytest.raises(ModelError, match=r"the rotation of lens 'prism' cannot be moved from meta to cpu: .*leave the"):
        lost.head_inputs(states(), range(5))


def test_a_lens_of_another_model_is_refused(tmp_path: Path) -> None:
    save_prism(tmp_path / "p", lens())
    with pytest.raises(FingerprintMismatch, match=r"made for tiny \(.*\), the model is tiny .*ftw sweep fit-prism"):
        load_prism(tmp_path / "p", tiny(seed=1))


def written(folder: Path, changes: Mapping[str, Any], tensors: Mapping[str, Tensor | None] | None = None) -> Path:
    """The folder of a lens, with keys of its manifest and tensors changed."""
    prism = lens()
    assert prism.manifest is not None
    body = prism.manifest.model_dump(mode="json", by_alias=True, exclude={"tensors_sha256"}) | changes
    parts = {name: part for name, part in {**prism.tensors, **(tensors or {})}.items() if part is not None}
    save_artifact(folder, body, parts)
    return folder


@pytest.mark.parametrize(
    ("changes", "tensors", "complaint"),
    [
        (
            {"kind": "tuned-lens"},
            {},
            r"manifest.json is of kind 'tuned-lens', not 'prism-lens': name the folder",
        ),
        ({"ranks": 3}, {}, r"manifest.json: ranks is not a known key.* written by another version"),
        ({"schema": 2}, {}, r"manifest.json: schema.*\(got 2\)"),
        ({"scale": 0.0}, {}, r"manifest.json: scale.*\(got 0.*\)"),
        ({"width": 16}, {}, r"manifest.json: 4 layers of 16, tiny has 4 of 32"),
        ({}, {"mean": torch.ones(31)}, r"tensors.safetensors: mean is \[31\], the manifest says \[32\]"),
        ({}, {"mean": torch.ones(32, dtype=torch.int32)}, r"mean is torch.int32: a Prism is made of floats"),
        ({}, {"offset": torch.full((32,), torch.nan)}, r"offset has 32 NaN or infinite of 32 numbers: fit it anew"),
        ({}, {"deviation": torch.zeros(32)}, r"deviation goes down to 0: it must be above 0"),
        ({}, {"rotation": torch.ones(32, 32)}, r"rotation is off by 32 from orthogonal, 0.001 is allowed"),
        ({}, {"offset": None}, r"holds \['deviation', 'mean', 'rotation'\]: a Prism of diagonal covariance has \["),
        ({"covariance": "full"}, {}, r"a Prism of full covariance has \['decorrelate', "),
    ],
)
def test_a_damaged_folder_is_named(
    tmp_path: Path, changes: dict[str, Any], tensors: dict[str, Tensor | None], complaint: str
) -> None:
    folder = written(tmp_path / "p", changes, tensors)
    with pytest.raises(PackError, match=complaint):
        load_prism(folder, model())


def test_a_manifest_that_was_changed_by_hand_still_names_its_tensors(tmp_path: Path) -> None:
    folder = written(tmp_path / "p", {})
    body = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    (folder / "tensors.safetensors").write_bytes((folder / "tensors.safetensors").read_bytes()[:-4])
    with pytest.raises(PackError, match="is not what was saved"):
        load_prism(folder, model())
    assert body["accepted"] is False


def test_a_lens_without_a_manifest_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this Prism has no manifest to be saved with"):
        save_prism(tmp_path / "p", replace(lens(), manifest=None))


def test_a_model_in_memory_can_have_one(tmp_path: Path) -> None:
    same = from_net(load("tiny").net, name="mine")
    save_prism(tmp_path / "p", lens())
    assert load_prism(tmp_path / "p", same).digest == lens().digest


def test_the_bundled_lens_is_the_reference_models_and_says_that_it_was_not_accepted() -> None:
    reference = load("reference")
    folder = Path(str(files("ftw"))) / "bundled" / "vocab-lenses" / "reference-prism"
    prism = load_prism(folder, reference)
    assert prism.manifest is not None
    assert prism.manifest.source["positions"] >= 10_000
    gate = prism.manifest.acceptance["gates"]["A"]
    assert (
        prism.manifest.accepted
        == gate["passed"]
        == all(found >= wanted for found, wanted in zip(gate["measured"], gate["wanted"], strict=True))
    )
    assert prism.manifest.accepted is False
