"""Lenses of the tuned-lens package are read as that package reads them, or refused by file and number.

`tests/data/sweep/tuned-lens-0.2.0` was written by version 0.2.0 of that package for the random tiny model, with what it
decodes there.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ftw.substrate.errors import ConfigError, FingerprintMismatch, PackError, StorageError
from ftw.substrate.model import Model, load
from ftw.sweep import forward
from ftw.sweep.decode import decode
from ftw.sweep.fitting.accept import accept, compare
from ftw.sweep.fitting.foreign import head_hashes, is_foreign, judged, open_tuned, read_foreign
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.lenses.tuned import TunedLens, save_tuned

GOLDEN = Path(__file__).parents[2] / "data" / "sweep" / "tuned-lens-0.2.0"


@pytest.fixture(scope="module")
def model() -> Model:
    return load("tiny")


def test_it_decodes_what_the_package_decodes(model: Model) -> None:
    expected = json.loads((GOLDEN / "expected.json").read_text())
    lens = read_foreign(GOLDEN, model)
    states = forward.read(model, [expected["ids"]]).states
    found = decode(model, [LogitLens(model.arch), lens], states, k=5, wanted=())
    rows = [index for index, view in enumerate(found.views) if view.lens == "tuned"][
        :-1
    ]  # that package has no last one
    assert found.top_ids[rows, 0].tolist() == expected["top_ids"]
    np.testing.assert_allclose(found.top_logprobs[rows, 0].numpy(), expected["top_logprobs"], atol=2e-5)


def test_its_hash_of_the_head_is_checked(model: Model) -> None:
    assert json.loads((GOLDEN / "config.json").read_text())["unembed_hash"] == head_hashes(model)[0]


def test_it_becomes_a_lens_of_ours(model: Model, tmp_path: Path) -> None:
    lens = read_foreign(GOLDEN, model)
    assert lens.manifest is not None
    assert not lens.manifest.accepted
    assert lens.manifest.source["how"] == "imported from the tuned-lens package"
    states = torch.randn(5, 20, 32, generator=torch.Generator().manual_seed(0))
    verdict = accept(compare(model, lens, states))
    save_tuned(tmp_path / "ours", judged(lens, verdict))
    assert is_foreign(GOLDEN)
    assert not is_foreign(tmp_path / "ours")
    read = open_tuned(tmp_path / "ours", model)
    assert open_tuned(GOLDEN, model).digest == lens.digest
    assert read.digest == lens.digest
    assert read.manifest is not None
    assert read.manifest.acceptance == verdict.document()


def test_a_verdict_needs_a_manifest_to_stand_in(model: Model) -> None:
    lens = read_foreign(GOLDEN, model)
    verdict = accept(compare(model, lens, torch.randn(5, 20, 32)))
    with pytest.raises(ConfigError, match="has no manifest that a verdict could stand in"):
        judged(TunedLens(model.arch, lens.bias), verdict)


def written(folder: Path, model: Model, state: dict[str, torch.Tensor] | None = None, **config: Any) -> Path:
    """A folder in that format."""
    n, d = model.n_layers, model.d_model
    layers = nn.ModuleList(nn.Linear(d, d) for _ in range(n))
    folder.mkdir()
    body = {"base_model_name_or_path": "some/model", "d_model": d, "num_hidden_layers": n, **config}
    (folder / "config.json").write_text(json.dumps(body))
    torch.save(dict(layers.state_dict()) if state is None else state, folder / "params.pt")
    return folder


def linear(model: Model, **changes: torch.Tensor) -> dict[str, torch.Tensor]:
    d = model.d_model
    weights = {f"{layer}.weight": torch.zeros(d, d) for layer in range(model.n_layers)}
    return {**weights, **{f"{layer}.bias": torch.zeros(d) for layer in range(model.n_layers)}, **changes}


def test_a_lens_without_bias_or_hash_is_read(model: Model, tmp_path: Path) -> None:
    state = {key: tensor for key, tensor in linear(model).items() if key.endswith("weight")}
    lens = read_foreign(written(tmp_path / "lens", model, state, bias=False), model)
    states = torch.randn(5, 3, 32)
    assert torch.equal(lens.head_inputs(states, range(5)), LogitLens(model.arch).head_inputs(states, range(5)))
    assert lens.manifest is not None
    assert lens.manifest.source["head_hash"] == "none given"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"dropout": 0.1}, "dropout"),
        ({"lens_type": "mlp"}, "lens_type"),
        ({"num_hidden_layers": 5}, r"5 layers of 32 \(made for some/model\), tiny has 4 of 32"),
        ({"d_model": 64}, "4 layers of 64"),
    ],
)
def test_a_config_that_does_not_fit_is_named(model: Model, config: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(PackError, match=f"config.json.*{told}"):
        read_foreign(written(tmp_path / "lens", model, **config), model)


def test_another_models_hash_is_refused_with_both(model: Model, tmp_path: Path) -> None:
    folder = written(tmp_path / "lens", model, unembed_hash="cd" * 32)
    with pytest.raises(
        FingerprintMismatch, match=rf"hash cdcdcdcd .some/model., that of tiny is {head_hashes(model)[0][:8]}"
    ):
        read_foreign(folder, model)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"4.weight": torch.zeros(32, 32)}, "unknown key '4.weight'; a lens of 4 layers"),
        ({"1.weight": torch.zeros(32, 31)}, r"1.weight is \[32, 31\], config.json says \[32, 32\]"),
        ({"2.bias": torch.full((32,), torch.nan)}, "2.bias holds a NaN"),
    ],
)
def test_wrong_tensors_are_named(model: Model, changes: dict[str, torch.Tensor], told: str, tmp_path: Path) -> None:
    with pytest.raises(PackError, match=f"params.pt.*{told}"):
        read_foreign(written(tmp_path / "lens", model, linear(model, **changes)), model)


def test_a_missing_tensor_is_named(model: Model, tmp_path: Path) -> None:
    state = linear(model)
    del state["3.bias"]
    with pytest.raises(PackError, match=r"'3.bias' is missing, 7 of 8 tensors are there"):
        read_foreign(written(tmp_path / "lens", model, state), model)


class Trap:
    """Would run code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("trapped"),))


def test_a_file_that_would_run_code_is_refused_and_nothing_is_run(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = written(tmp_path / "lens", model)
    torch.save({"0.weight": Trap()}, folder / "params.pt")
    with pytest.raises(PackError, match=r"params.pt is not a file of tensors alone"):
        read_foreign(folder, model)
    assert not (tmp_path / "trapped").exists()


def test_damaged_and_missing_files_are_named(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "lens"
    shutil.copytree(GOLDEN, folder)
    whole = (folder / "params.pt").read_bytes()
    (folder / "params.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PackError, match=r"params.pt is not a file of tensors alone"):
        read_foreign(folder, model)
    torch.save([1], folder / "params.pt")
    with pytest.raises(PackError, match=r"params.pt holds a list, not tensors by name"):
        read_foreign(folder, model)
    (folder / "params.pt").unlink()
    with pytest.raises(StorageError, match=r"params.pt: No such file"):
        read_foreign(folder, model)
    (folder / "config.json").write_text("[]")
    with pytest.raises(PackError, match=r"config.json holds a list"):
        read_foreign(folder, model)
    (folder / "config.json").write_text("{")
    with pytest.raises(PackError, match=r"config.json is not valid JSON"):
        read_foreign(folder, model)
    with pytest.raises(StorageError, match=r"config.json: No such file"):
        read_foreign(tmp_path / "nothing", model)
