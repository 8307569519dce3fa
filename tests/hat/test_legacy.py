from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ftw.hat.classifiers import MLP, LinearProbe, TripoleLens, load_classifier, normalise, save_classifier
from ftw.substrate.errors import NumericError, PackError, StorageError, UsageError

D = 24


def legacy(norm: bool = False, sizes: tuple[int, ...] = (128, 64, 1)) -> nn.Sequential:
    """A lens as older programs built it: LayerNorm or none, linear layers with ReLU and dropout between."""
    torch.manual_seed(5)
    layers: list[nn.Module] = []
    if norm:
        layers.append(nn.LayerNorm(D))
        nn.init.normal_(layers[0].weight, 1, 0.3)
        nn.init.normal_(layers[0].bias, 0, 0.3)
    width = D
    for at, size in enumerate(sizes):
        layers.append(nn.Linear(width, size))
        if at < len(sizes) - 1:
            layers += [nn.ReLU(), nn.Dropout(0.1)]
        width = size
    return nn.Sequential(*layers).eval()


def saved(module: nn.Module, file: Path, prefix: str = "") -> Path:
    torch.save({prefix + name: tensor for name, tensor in module.state_dict().items()}, file)
    return file


@pytest.mark.parametrize("prefix", ["net.", ""])
@pytest.mark.parametrize("norm", [False, True])
def test_every_key_form_of_an_mlp_gives_its_logits(tmp_path: Path, prefix: str, norm: bool) -> None:
    old = legacy(norm)
    lens = load_classifier(saved(old, tmp_path / "Food.pt", prefix))
    assert isinstance(lens, MLP)
    assert not lens.training
    x = normalise(50 * torch.randn(64, D) + 3)
    # a norm of normalised input divides once more by sqrt(1 + eps)
    assert torch.allclose(lens(x), old(x).squeeze(-1), atol=1e-5)


def test_a_folded_norm_reads_raw_states_as_the_norm_did(tmp_path: Path) -> None:
    old = legacy(norm=True)
    raw = 3000 * torch.randn(64, D) - 70
    lens = load_classifier(saved(old, tmp_path / "Food.pt", "net."))
    assert torch.allclose(lens(normalise(raw)), old(raw).squeeze(-1), atol=1e-5)


def test_a_lens_with_one_hidden_layer_is_expressed_exactly(tmp_path: Path) -> None:
    old = legacy(sizes=(128, 1))
    lens = load_classifier(saved(old, tmp_path / "Food.pt", "net."))
    x = torch.randn(64, D)
    assert torch.allclose(lens(x), old(x).squeeze(-1), atol=1e-6)


@pytest.mark.parametrize("norm", [False, True])
def test_a_bf16_file_gives_a_bf16_lens(tmp_path: Path, norm: bool) -> None:
    old = legacy(norm).to(torch.bfloat16)
    lens = load_classifier(saved(old, tmp_path / "Food.pt", "net."))
    assert {parameter.dtype for parameter in lens.parameters()} == {torch.bfloat16}
    if not norm:
        assert torch.equal(lens.first.weight, old[0].weight)


def test_probes_and_simplexes_are_told_by_their_rows(tmp_path: Path) -> None:
    probe, tripole = LinearProbe(D), TripoleLens(D)
    read = load_classifier(saved(probe, tmp_path / "a.pt"))
    assert isinstance(read, LinearProbe)
    assert torch.equal(read.linear.weight, probe.linear.weight)
    torch.save({**tripole.state_dict(), "log_margins": torch.zeros(3)}, tmp_path / "b.pt")
    three = load_classifier(tmp_path / "b.pt", classifier_type="tripole")
    assert isinstance(three, TripoleLens)
    x = torch.randn(4, D)
    assert torch.equal(three(x), tripole(x))


def test_a_probe_as_an_mlp_gives_the_same_logits() -> None:
    probe = LinearProbe(D)
    x = torch.randn(32, D)
    assert torch.allclose(probe.as_mlp()(x), probe(x), atol=1e-6)


@pytest.mark.parametrize("made", [MLP(D), LinearProbe(D), TripoleLens(D), MLP(D).to(torch.bfloat16)])
def test_a_saved_lens_loads_back(tmp_path: Path, made: Any) -> None:
    save_classifier(made, tmp_path / "x.pt")
    back = load_classifier(tmp_path / "x.pt")
    assert type(back) is type(made)
    assert all(torch.equal(one, two) for one, two in zip(made.parameters(), back.parameters(), strict=True))


def test_what_is_saved_has_the_legacy_keys(tmp_path: Path) -> None:
    save_classifier(MLP(D), tmp_path / "x.pt")
    state = torch.load(tmp_path / "x.pt", weights_only=True)
    assert sorted(state) == sorted(f"net.{at}.{name}" for at in (0, 3, 6) for name in ("weight", "bias"))
    old = legacy()
    old.load_state_dict({name.removeprefix("net."): tensor for name, tensor in state.items()})


def test_another_kind_than_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds a lens of kind linear, mlp was asked for"):
        load_classifier(saved(LinearProbe(D), tmp_path / "a.pt"), classifier_type="mlp")


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("/tmp/never").touch, ())


def test_nothing_pickled_is_run(tmp_path: Path) -> None:
    torch.save(Trap(), tmp_path / "a.pt")
    with pytest.raises(PackError, match="holds more than tensors"):
        load_classifier(tmp_path / "a.pt")


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    file = saved(legacy(), tmp_path / "Food.pt")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(PackError, match=r"Food\.pt is truncated"):
        load_classifier(file)
    file.write_bytes(b"")
    with pytest.raises(PackError, match=r"Food\.pt is truncated"):
        load_classifier(file)
    with pytest.raises(StorageError, match="cannot be read"):
        load_classifier(tmp_path / "nothing.pt")


def test_a_nan_names_file_and_lens(tmp_path: Path) -> None:
    old = legacy()
    old[3].bias.data[7] = float("nan")
    with pytest.raises(NumericError, match=r"Food\.pt: net\.3\.bias of lens 'Food' holds"):
        load_classifier(saved(old, tmp_path / "Food.pt", "net."))


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({"model": 1}, "holds no state dict"),
        ({}, "holds no state dict"),
        ({"a.weight": torch.zeros(2)}, r"no known layout \(a\.weight\)"),
        ({"0.weight": torch.zeros(2, 2, dtype=torch.int64)}, "a lens is made of floats"),
        ({"linear.weight": torch.zeros(2, D)}, "1 row, or 3 poles"),
        ({"linear.weight": torch.zeros(1, D)}, r"linear\.bias is missing"),
        ({"0.weight": torch.zeros(128, D)}, "every layer needs a weight and a bias"),
        (
            {name: tensor.new_zeros(tensor.shape) for name, tensor in legacy(sizes=(512, 1)).state_dict().items()},
            "a lens of layers 24-512-1",
        ),
        ({**legacy().state_dict(), "0.bias": torch.zeros(3)}, r"a bias is \[3\], its layer has 128"),
        ({**legacy(norm=True).state_dict(), "0.weight": torch.zeros(3)}, r"LayerNorm has width \[3\]"),
    ],
)
def test_what_is_no_lens_of_ours_is_refused(tmp_path: Path, state: dict[str, Any], match: str) -> None:
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(PackError, match=match):
        load_classifier(tmp_path / "a.pt")
