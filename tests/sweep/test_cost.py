"""A model is placed by the bytes of its files, where they fit, or refused with every place that was tried."""

from pathlib import Path

import pytest
import torch

from ftw.substrate.bundled import tiny_net, tiny_tokenizer
from ftw.substrate.checkpoint import open_checkpoint
from ftw.substrate.config import ModelSpec
from ftw.substrate.errors import ConfigError, ModelError, ModelNotFound
from ftw.substrate.files import load_config, locate
from ftw.substrate.manifest import save_artifact
from ftw.substrate.model import load
from ftw.sweep import decode, ends, forward
from ftw.sweep.battery import Battery
from ftw.sweep.cost import HELD_OUT, Cost, Held, cost, held, place
from ftw.sweep.job import Job
from ftw.sweep.run import Sweep


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
    assert found.total == found.weights + found.head + found.passes + found.lenses + found.rows


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
    assert found.passes >= forward.BUDGET + decode.BUDGET[0] + ends.BUDGET
    assert cost(checkpoint, config, torch.float32, precision="exact", on_cuda=True).passes > found.passes


def counted(half: Path, beside: Held, *, on_cuda: bool = False) -> Cost:
    checkpoint = open_checkpoint(half)
    config = load_config(ModelSpec(name=str(half)), checkpoint)
    return cost(checkpoint, config, torch.bfloat16, precision="exact", on_cuda=on_cuda, beside=beside)


def lens(folder: Path, *, accepted: bool = True, n_layers: int = 4, d_model: int = 64) -> Path:
    """A full tuned lens in bfloat16, with the shape of the tiny model."""
    tensors = {"weight": torch.zeros(n_layers, d_model, d_model), "bias": torch.zeros(n_layers, d_model)}
    manifest = {"kind": "tuned-lens", "n_layers": n_layers, "d_model": d_model, "accepted": accepted}
    save_artifact(folder, manifest, {name: tensor.bfloat16() for name, tensor in tensors.items()})
    return folder


def test_a_fitted_lens_is_counted_in_fp32_from_its_header_before_it_is_read(half: Path, tmp_path: Path) -> None:
    net = tiny_net()
    n, d = net.config.num_hidden_layers, net.config.hidden_size
    whole = 4 * n * d * (d + 1)
    folder = lens(tmp_path / "home" / "a", n_layers=n, d_model=d)
    lens(tmp_path / "home" / "deeper", n_layers=n + 1, d_model=d)  # another model's
    assert counted(half, Held(named={"tuned": folder})).lenses == whole
    assert counted(half, Held(homes=(tmp_path / "home",))).lenses == whole
    assert counted(half, Held(names=("logit",), homes=(tmp_path / "home",))).lenses == 0
    doubtful = lens(tmp_path / "other" / "a", accepted=False, n_layers=n, d_model=d)
    assert counted(half, Held(homes=(doubtful.parent,))).lenses == 0
    assert counted(half, Held(names=("tuned",), homes=(doubtful.parent,))).lenses == whole
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "params.pt").write_bytes(bytes(1234))
    assert counted(half, Held(named={"tuned": tmp_path / "foreign"}), on_cuda=True).lenses == 1234


def test_the_table_and_the_states_of_held_out_text_are_counted_where_they_lie(half: Path) -> None:
    net = tiny_net()
    layers, d = net.config.num_hidden_layers + 1, net.config.hidden_size
    states = counted(half, Held(heldout=HELD_OUT))
    assert states.rows == 2 * HELD_OUT * layers * d * 2
    one = counted(half, Held(names=("logit",), positions=100, ends=10, k=20)).rows
    assert counted(half, Held(names=("logit", "raw"), positions=100, ends=10, k=20)).rows == 2 * one
    assert counted(half, Held(positions=100, ends=10, k=20)).rows == pytest.approx(1.3 * one)  # three views at the end
    assert counted(half, Held(positions=100, ends=10, k=20), on_cuda=True).rows == 0


def test_a_jobs_table_is_no_larger_than_was_counted(tmp_path: Path) -> None:
    battery = tmp_path / "facts.csv"
    battery.write_text("text,answer\nthe cat sat on,mat\none two three,four\n")
    job = Job(model=ModelSpec(name="tiny"), battery=str(battery), folder=tmp_path, heldout="self", k=20)
    asked = held(job)
    assert (asked.ends, asked.heldout, asked.k) == (2, HELD_OUT, 20)
    assert held(job.model_copy(update={"positions": "last", "heldout": None})).positions == 2
    model = load("reference")
    prompts = Battery.read(str(battery)).prompts()
    table = Sweep(model, k=20).run(prompts)
    n_bytes = sum(column.nbytes for column in table.columns.values())
    checkpoint = locate(ModelSpec(name="reference"))
    config = load_config(ModelSpec(name="reference"), checkpoint)
    only = Held(names=("logit",), positions=asked.positions, ends=2, k=20)
    found = cost(checkpoint, config, torch.float32, precision="exact", on_cuda=False, beside=only)
    assert n_bytes <= found.rows


def test_what_does_not_fit_for_its_lens_or_its_table_is_told_so(half: Path, tmp_path: Path) -> None:
    folder = lens(tmp_path / "a", n_layers=50, d_model=512)
    beside = Held(named={"tuned": folder}, positions=1 << 14, k=20)
    spec = ModelSpec(name=str(half), dtype="bfloat16")
    room = cost_of(half, torch.bfloat16)
    assert place(spec, free=lambda _: room).cost is not None
    with pytest.raises(ModelError, match=r"of it weights, .* fitted lenses, .* the table\), .* are free"):
        place(spec, beside=beside, free=lambda _: room)


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
    with pytest.raises(ConfigError, match=r"device 'gpu' does not exist: use auto, cpu, cuda, cuda:N or map"):
        place(ModelSpec(name="reference", device="gpu"))
    with pytest.raises(ConfigError, match=r"device 'meta' does not hold weights: use .* or map"):
        place(ModelSpec(name="reference", device="meta"))


def cost_of(folder: Path, dtype: torch.dtype) -> int:
    checkpoint = open_checkpoint(folder)
    config = load_config(ModelSpec(name=str(folder)), checkpoint)
    return cost(checkpoint, config, dtype, precision="exact", on_cuda=False).total
