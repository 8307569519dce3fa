import gc
from pathlib import Path

import pytest
import torch

from ftw.hat.classifiers import LensRow, LensTensors, PackInfo, load_pack, save_pack
from ftw.hat.classifiers.layout import Header
from ftw.hat.classifiers.stitch import PAGE, Piece, can_stitch, stitch
from ftw.substrate.errors import NumericError, StorageError

WIDE = 256


def test_pieces_of_files_are_one_tensor(tmp_path: Path) -> None:
    data = [bytes([at]) * (3 * PAGE) for at in (1, 2)]
    for at, each in enumerate(data):
        (tmp_path / str(at)).write_bytes(each)
    pieces = [Piece(tmp_path / "1", PAGE, 3 * PAGE), Piece(tmp_path / "0", 0, PAGE)]
    assert can_stitch(pieces)
    found = stitch(pieces)
    assert found.numpy().tobytes() == data[1][: 2 * PAGE] + data[0][:PAGE]
    found[0] = 9
    assert (tmp_path / "1").read_bytes() == data[1]
    part = found[PAGE:]
    del found
    gc.collect()
    assert int(part[-1]) == 1


def test_what_is_no_whole_page_is_not_mapped(tmp_path: Path) -> None:
    assert not can_stitch([Piece(tmp_path, 8, 8 + PAGE)])
    assert not can_stitch([Piece(tmp_path, 0, 100)])
    assert not can_stitch([Piece(tmp_path, 0, 0)])


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="gone cannot be read"):
        stitch([Piece(tmp_path / "gone", 0, PAGE)])


@pytest.fixture
def large(tmp_path: Path, info: PackInfo) -> tuple[Path, LensTensors]:
    """A pack of 96 lenses on three levels, 12 MB in fp32."""
    torch.manual_seed(1)
    n = 96
    part = LensTensors(
        torch.randn(n, 128, WIDE),
        torch.randn(n, 128),
        torch.randn(n, 64, 128),
        torch.randn(n, 64),
        torch.randn(n, 64),
        torch.randn(n),
        torch.zeros(n, WIDE),
        torch.zeros(n),
        torch.full((n,), float("-inf")),
    )
    rows = [LensRow(term=f"C{at}", block=1, row=at, level=at // 32) for at in range(n)]
    wide = info.model_copy(update={"sites": (1,), "model": info.model.model_copy(update={"d_model": WIDE})})
    save_pack(tmp_path, wide, rows, {1: part}, storage="float32")
    return tmp_path, part


def test_levels_are_mapped_side_by_side(large: tuple[Path, LensTensors]) -> None:
    folder, part = large
    for level in range(3):
        assert Header.of(folder / f"level{level}.safetensors").spans["block1.w1"].start % PAGE == 0
    found = load_pack(folder).blocks[1]
    assert torch.equal(found.w1, part.w1)
    assert torch.equal(found.w2, part.w2)
    assert torch.equal(load_pack(folder, [2]).blocks[1].w1, part.w1[64:])


def test_a_change_of_loaded_weights_stays_in_memory(large: tuple[Path, LensTensors]) -> None:
    folder, part = large
    load_pack(folder).blocks[1].w1.zero_()
    assert torch.equal(load_pack(folder).blocks[1].w1, part.w1)


def test_a_nan_in_mapped_weights_is_found(large: tuple[Path, LensTensors]) -> None:
    folder, _ = large
    file = folder / "level1.safetensors"
    data = bytearray(file.read_bytes())
    span = Header.of(file).spans["block1.w1"]
    at = span.start + 5 * 128 * WIDE * 4
    data[at : at + 4] = b"\xff\xff\xff\x7f"
    file.write_bytes(bytes(data))
    with pytest.raises(NumericError, match=r"level1\.safetensors: block1\.w1 of lens 'C37' holds"):
        load_pack(folder)
