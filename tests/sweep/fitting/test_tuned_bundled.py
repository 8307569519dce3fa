"""The tuned lens that ships with the reference model is small, accepted, and nearer to the model on other text too."""

from pathlib import Path

import pytest

import ftw
from ftw.substrate.model import Model, load
from ftw.sweep import forward
from ftw.sweep.battery import Battery
from ftw.sweep.fitting.accept import LAST_KL, compare, depth_layers
from ftw.sweep.lenses.tuned import TunedLens, load_tuned

FOLDER = Path(ftw.__file__).parent / "bundled" / "vocab-lenses" / "reference-tuned"
LARGEST = 1_500_000


@pytest.fixture(scope="module")
def model() -> Model:
    return load("reference")


@pytest.fixture(scope="module")
def lens(model: Model) -> TunedLens:
    return load_tuned(FOLDER, model)


def test_it_is_small(lens: TunedLens) -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < LARGEST


def test_it_was_accepted_on_held_out_text_and_says_by_how_much(lens: TunedLens) -> None:
    manifest = lens.manifest
    assert manifest is not None
    assert manifest.accepted
    assert manifest.acceptance is not None
    assert all(manifest.acceptance["gates"][name]["passed"] for name in "ACD")
    gains = manifest.acceptance["gates"]["A"]["measured"]
    assert gains[0] > 2
    assert gains[1] > 1
    assert gains[2] > 0.3
    assert manifest.source["corpus"]["positions"] > 100_000


def test_every_layer_was_moved(lens: TunedLens) -> None:
    assert lens.manifest is not None
    assert all(step > 0 for step in lens.manifest.source["kept_step"])
    assert all(bool(tensor[layer].any()) for tensor in lens.tensors.values() for layer in range(len(tensor)))


def test_it_is_nearer_to_the_model_on_prompts_that_it_never_saw(lens: TunedLens, model: Model) -> None:
    prompts = [model.encode(prompt.text) for prompt in Battery.read("reference").prompts()[::5]]
    states = forward.read(model, prompts, positions=[range(1, len(ids)) for ids in prompts]).states
    found = compare(model, lens, states)
    gains = found.gain_bits.mean(1)
    assert (gains[: model.n_layers] > 0).all()
    for layer, wanted in zip(depth_layers(model.n_layers), (2.0, 1.0, 0.5), strict=True):
        assert gains[layer] > wanted
    assert float(found.lens_kl_bits[-1].max()) <= LAST_KL
