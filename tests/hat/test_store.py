import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ftw.hat.classifiers import LensRow, LensTensors, PackInfo, load_bank, load_pack, save_pack
from ftw.hat.classifiers.layout import Header
from ftw.hat.classifiers.packfile import empty, fill
from ftw.hat.classifiers.quantise import dequantise_rows, quantise_rows
from ftw.substrate.errors import FingerprintMismatch, NumericError, PackError, StorageError
from ftw.substrate.types import Site

Blocks = dict[int, LensTensors]
Rows = tuple[LensRow, ...]


@pytest.fixture
def folder(tmp_path: Path, info: PackInfo, rows: Rows, blocks: Blocks) -> Path:
    save_pack(tmp_path / "pack", info, rows, blocks)
    return tmp_path / "pack"


def bare(rows: Rows) -> Rows:
    return tuple(row.model_copy(update={"sha256": None}) for row in rows)


def change_json(file: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def change_tensors(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], None], name: str = "level0.safetensors"
) -> None:
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name)


@pytest.mark.parametrize("storage", ["int8", "bfloat16", "float32"])
def test_a_saved_pack_loads_back(tmp_path: Path, info: PackInfo, rows: Rows, blocks: Blocks, storage: Any) -> None:
    save_pack(tmp_path, info, rows, blocks, storage=storage)
    files = load_pack(tmp_path)
    assert (files.info, bare(files.rows)) == (info, rows)
    bound = {"int8": 1 / 200, "bfloat16": 1 / 200, "float32": 0.0}[storage]
    for block, part in blocks.items():
        assert float((files.blocks[block].w1 - part.w1).abs().max()) <= bound * float(part.w1.abs().max())
        assert torch.equal(files.blocks[block].b1, part.b1)
        assert torch.allclose(files.blocks[block].screen_w, part.screen_w, atol=1e-3)


def test_saving_what_was_loaded_gives_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    files = load_pack(folder)
    save_pack(tmp_path / "again", files.info, files.rows, files.blocks)
    for name in ("pack.json", "index.json", "level0.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_the_index_has_a_line_per_lens(folder: Path) -> None:
    assert len((folder / "index.json").read_text().splitlines()) == 12 + 2


def test_int8_rows_are_off_by_half_a_step_at_most() -> None:
    weight = torch.randn(50, 32) * torch.logspace(-3, 2, 50)[:, None]
    rows = quantise_rows(weight)
    assert rows.values.dtype == torch.int8
    assert bool(((dequantise_rows(rows) - weight).abs() <= 0.51 * rows.scales.float()[:, None] + 1e-7).all())
    assert bool((dequantise_rows(quantise_rows(torch.zeros(2, 4))) == 0).all())


def test_what_cannot_be_quantised_is_refused() -> None:
    with pytest.raises(NumericError, match="NaN or an infinity"):
        quantise_rows(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(NumericError, match="too large"):
        quantise_rows(torch.tensor([[1e9]]))


def test_a_bank_scores_states_of_its_own_model(folder: Path, info: PackInfo) -> None:
    bank = load_bank(folder, fingerprint=info.model.fingerprint)
    assert bank.sites == (Site(1), Site(2))
    assert len(bank) == 12


def test_a_pack_for_another_model_is_refused_with_both_fingerprints(folder: Path) -> None:
    with pytest.raises(FingerprintMismatch, match=r"abababab.*this model is 12121212"):
        load_bank(folder, fingerprint="12" * 32)


def test_an_unknown_key_in_a_row_is_named_with_its_row(folder: Path) -> None:
    change_json(folder / "index.json", lambda rows: rows[3].update(treshold=1))
    with pytest.raises(PackError, match=r"index\.json row 3: treshold"):
        load_pack(folder)


def test_a_row_that_is_no_object_is_named(folder: Path) -> None:
    change_json(folder / "index.json", lambda rows: rows.insert(2, "Food"))
    with pytest.raises(PackError, match=r"index\.json row 2 is str, not an object"):
        load_pack(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda rows: rows[2].update(term="b1r0"), "row 2: 'b1r0' at block 1 stands in row 0 already"),
        (lambda rows: rows[2].update(row=4), "row 2: 'B1R2' is row 4 of block 1, expected 2"),
        (lambda rows: rows.reverse(), "is row 6 of block 2, expected 0"),
        (lambda rows: rows.extend([dict(rows[0], term="X")]), "block 1 comes after block 2"),
        (lambda rows: rows[0].update(calibration={"slope": -1, "offset": 0}), r"row 0: calibration\.slope"),
    ],
)
def test_rows_out_of_order_or_twice_are_named(folder: Path, change: Callable[[Any], None], match: str) -> None:
    change_json(folder / "index.json", change)
    with pytest.raises(PackError, match=match):
        load_pack(folder)


def test_an_empty_index_is_refused(folder: Path) -> None:
    (folder / "index.json").write_text("[]")
    with pytest.raises(PackError, match="not a list of lenses"):
        load_pack(folder)


def test_a_nan_in_the_index_is_refused(folder: Path) -> None:
    (folder / "index.json").write_text((folder / "index.json").read_text().replace("0.05", "NaN", 1))
    with pytest.raises(PackError, match="holds NaN"):
        load_pack(folder)


def test_broken_json_is_named(folder: Path) -> None:
    (folder / "pack.json").write_text("{")
    with pytest.raises(PackError, match=r"pack\.json is not valid JSON"):
        load_pack(folder)


def test_a_bad_identity_is_named(folder: Path) -> None:
    change_json(folder / "pack.json", lambda pack: pack.update(sites=[2, 1]))
    with pytest.raises(PackError, match=r"pack\.json: sites"):
        load_pack(folder)


def test_sites_that_differ_between_files_are_named(folder: Path) -> None:
    change_json(folder / "pack.json", lambda pack: pack.update(sites=[1]))
    with pytest.raises(PackError, match=r"pack\.json names blocks \[1\], index\.json \[1, 2\]"):
        load_pack(folder)
    change_json(folder / "pack.json", lambda pack: pack.update(sites=[2]))
    change_json(folder / "index.json", lambda rows: rows.__delitem__(slice(0, 5)))
    with pytest.raises(PackError, match=r"tensors that no lens of the index uses: block1\.b1"):
        load_pack(folder)


def test_a_block_that_the_model_lacks_is_named(folder: Path) -> None:
    change_json(folder / "pack.json", lambda pack: pack["model"].update(n_layers=2))
    with pytest.raises(PackError, match=r"index\.json row 5: 'B2R0' reads block 2 of 2"):
        load_pack(folder)


def test_a_missing_file_says_where_it_should_be(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(StorageError, match=r"pack\.json cannot be read"):
        load_pack(tmp_path / "nowhere")
    (folder / "level0.safetensors").unlink()
    with pytest.raises(StorageError, match=r"level0\.safetensors cannot be read"):
        load_pack(folder)


def test_a_truncated_weights_file_is_an_error(folder: Path) -> None:
    data = (folder / "level0.safetensors").read_bytes()
    (folder / "level0.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(PackError, match=r"level0\.safetensors is truncated.* is cut off at the lens 'B1R3' at block 1"):
        load_pack(folder)
    (folder / "level0.safetensors").write_bytes(data[:40])
    with pytest.raises(PackError, match="truncated or not a safetensors file"):
        load_pack(folder)
    (folder / "level0.safetensors").write_bytes(data + b"more")
    with pytest.raises(PackError, match="its header says"):
        load_pack(folder)


def test_a_nan_weight_names_the_lens(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors["block2.w3"].__setitem__((4, 0), float("nan")))
    with pytest.raises(NumericError, match=r"level0\.safetensors: block2\.w3 of lens 'B2R4' holds"):
        load_pack(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop("block1.b2"), r"lacks block1\.b2"),
        (lambda t: t.pop("block1.w1_scale"), "its scale is none"),
        (lambda t: t.update({"block9.b1": torch.zeros(1)}), r"no lens of the index uses: block9\.b1"),
        (lambda t: t.update({"block1.b3": torch.zeros(4)}), r"block1\.b3 is \[4\], 5 lenses need \[5\]"),
        (lambda t: t.update({"block1.b3": torch.zeros(5, dtype=torch.int64)}), "int8 with scales, or a float"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder: Path, change: Callable[[Any], None], match: str) -> None:
    change_tensors(folder, change)
    with pytest.raises(PackError, match=match):
        load_pack(folder)


def test_what_is_not_finite_is_not_saved(tmp_path: Path, info: PackInfo, rows: Rows, blocks: Blocks) -> None:
    bad = {**blocks, 1: replace(blocks[1], b1=blocks[1].b1 / 0)}
    with pytest.raises(NumericError, match=r"block1\.b1 of lens 'B1R0' holds a NaN"):
        save_pack(tmp_path, info, rows, bad)


def test_a_pack_that_does_not_fit_itself_is_not_saved(
    tmp_path: Path, info: PackInfo, rows: Rows, blocks: Blocks
) -> None:
    with pytest.raises(PackError, match=r"pack\.json names blocks \[1, 2\]"):
        save_pack(tmp_path, info, rows[:5], blocks)
    with pytest.raises(PackError, match="w1 of block 2"):
        save_pack(tmp_path, info, rows[:-1], blocks)


def test_a_folder_that_cannot_be_made_is_a_storage_error(
    tmp_path: Path, info: PackInfo, rows: Rows, blocks: Blocks
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        save_pack(tmp_path / "file" / "pack", info, rows, blocks)


def test_a_first_layer_that_all_share_is_stored_once(
    tmp_path: Path, info: PackInfo, rows: Rows, blocks: Blocks
) -> None:
    shared = {
        block: replace(
            part,
            w1=part.w1[:1].expand_as(part.w1),
            b1=part.b1[:1].expand_as(part.b1),
            w3=part.w3 * (torch.arange(64) < 2),
        )
        for block, part in blocks.items()
    }
    save_pack(tmp_path, info, rows, shared, storage="float32")
    assert load_file(tmp_path / "shared.safetensors")["block2.w1"].shape == (128, 32)
    stored = load_file(tmp_path / "level0.safetensors")
    assert "block2.w1" not in stored
    assert stored["block2.w2"].shape == (7 * 2, 128)
    loaded = load_pack(tmp_path).blocks
    assert torch.equal(loaded[2].w1, shared[2].w1)
    assert torch.equal(loaded[2].w2, shared[2].w2[:, :2])
    assert load_bank(tmp_path, fingerprint=info.model.fingerprint).is_shared


def test_a_nan_in_a_shared_layer_is_named(tmp_path: Path, info: PackInfo, rows: Rows, blocks: Blocks) -> None:
    one = {block: replace(p, w1=p.w1[:1].expand_as(p.w1), b1=p.b1[:1].expand_as(p.b1)) for block, p in blocks.items()}
    save_pack(tmp_path, info, rows, one)
    change_tensors(tmp_path, lambda tensors: tensors["block1.b1"].__setitem__(4, float("nan")), "shared.safetensors")
    with pytest.raises(NumericError, match=r"shared\.safetensors: block1\.b1 of lens '\(all\)'"):
        load_pack(tmp_path)


def test_a_pack_of_the_first_format_says_what_to_do(folder: Path) -> None:
    change_json(folder / "pack.json", lambda pack: pack.update(format="ftw-lens-pack/1"))
    with pytest.raises(PackError, match=r"the format ftw-lens-pack/1 is no longer read; fetch the pack again"):
        load_pack(folder)


def test_a_tensor_of_a_lens_that_no_lens_has_is_named(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.update({"block1.w9": torch.zeros(5)}))
    with pytest.raises(PackError, match=r"holds tensors that no lens uses: block1\.w9"):
        load_pack(folder)


def test_weights_of_another_width_than_the_model_s_are_refused(folder: Path) -> None:
    change_json(folder / "pack.json", lambda pack: pack["model"].update(d_model=64))
    with pytest.raises(PackError, match=r"lenses of block 1 take states of width 32, pack\.json says 64"):
        load_pack(folder)


def test_a_shared_layer_of_another_shape_is_refused(tmp_path: Path, info: PackInfo, rows: Rows, blocks: Blocks) -> None:
    one = {block: replace(p, w1=p.w1[:1].expand_as(p.w1), b1=p.b1[:1].expand_as(p.b1)) for block, p in blocks.items()}
    save_pack(tmp_path, info, rows, one)
    change_tensors(tmp_path, lambda tensors: tensors.update({"block1.b1": torch.zeros(3)}), "shared.safetensors")
    with pytest.raises(PackError, match=r"block1\.b1 is \[3\], 5 lenses need \[128\]"):
        load_pack(tmp_path)


def test_a_file_that_is_cut_while_it_is_read_is_an_error(folder: Path) -> None:
    file = folder / "level0.safetensors"
    header = Header.of(file)
    into = {name: empty(span) for name, span in header.spans.items()}
    file.write_bytes(file.read_bytes()[:9000])
    with pytest.raises(PackError, match=r"ends within block\d\.\w+: it was cut while it was read"):
        fill(file, header, into)
    file.unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        fill(file, header, into)
