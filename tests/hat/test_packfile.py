from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ftw.hat.classifiers import (
    LensRow,
    LensTensors,
    PackInfo,
    load_bank,
    load_pack,
    open_level,
    read_level,
    save_pack,
    select,
)
from ftw.hat.classifiers.packfile import open_lens, read_tensors, require_fresh, write_tensors
from ftw.substrate.errors import NumericError, PackError, StorageError, UnknownConcept, UsageError
from ftw.substrate.types import Site

Blocks = dict[int, LensTensors]


@pytest.fixture
def rows() -> tuple[LensRow, ...]:
    """Seven concepts on three levels; five of them have a second lens at block 1."""
    parents = [None, None, "A", "A", "B", "C", "C"]
    levels = [0, 0, 1, 1, 1, 2, 2]
    made = [
        LensRow(term=term, block=1, row=at, level=levels[at], parent=parents[at], primary=False, auroc_words=0.5)
        for at, term in enumerate("ABCDE")
    ]
    made += [
        LensRow(term=term, block=2, row=at, level=levels[at], parent=parents[at], auroc_words=0.9)
        for at, term in enumerate("ABCDEFG")
    ]
    return tuple(made)


@pytest.fixture(params=["float32", "bfloat16", "int8"])
def folder(request: Any, tmp_path: Path, info: PackInfo, rows: tuple[LensRow, ...], blocks: Blocks) -> Path:
    save_pack(tmp_path, info, rows, blocks, storage=request.param)
    return tmp_path


def test_a_level_file_gives_what_loading_the_pack_gives(folder: Path, rows: tuple[LensRow, ...]) -> None:
    whole = load_pack(folder)
    for level in (0, 1, 2):
        file = open_level(folder, level)
        for block in file.blocks:
            at = [row.row for row in whole.rows if row.block == block and row.level == level]
            part = file.rows(block)
            for name in LensTensors.__slots__:
                assert torch.equal(getattr(part, name), getattr(whole.blocks[block], name)[at])
    one = open_level(folder, 1).lens("d")
    place = next(row.row for row in whole.rows if row.term == "D" and row.block == 2)
    assert torch.equal(one.w1[0], whole.blocks[2].w1[place])


def test_bf16_stays_bf16(tmp_path: Path, info: PackInfo, rows: tuple[LensRow, ...], blocks: Blocks) -> None:
    save_pack(tmp_path, info, rows, blocks, storage="bfloat16")
    assert load_pack(tmp_path).blocks[2].w1.dtype == torch.bfloat16
    file = open_level(tmp_path, 1)
    assert file.rows(2, slice(1, 3)).w2.dtype == torch.bfloat16
    assert file.lens("D").module().first.weight.dtype == torch.float32  # its biases are not exact in bf16
    assert file.rows(2).w1.data_ptr() == file.raw("block2.w1").data_ptr()


def test_a_slice_of_a_level_is_a_slice_of_its_rows(folder: Path) -> None:
    file = open_level(folder, 1)
    some = file.rows(2, slice(1, 3))
    assert [row.term for row in file.rows_of(2)[1:3]] == ["D", "E"]
    assert torch.equal(some.w2, file.rows(2).w2[1:3])
    file.willneed(2, slice(1, 3))
    assert file.lens_bytes("D") * 3 + file.lens_bytes("D", 1) * 3 == file.header.size - file.header.start


def test_what_a_level_does_not_hold_is_named(folder: Path) -> None:
    file = open_level(folder, 2)
    with pytest.raises(UnknownConcept, match="holds no lens of 'A'"):
        file.lens("A")
    with pytest.raises(UnknownConcept, match="holds no lens of 'F' at 1"):
        file.lens("F", 1)
    with pytest.raises(UsageError, match="none at 1"):
        file.rows(1)
    with pytest.raises(UsageError, match="takes no run of the 2 lenses"):
        file.rows(2, slice(2, 2))
    with pytest.raises(UsageError, match="takes no run"):
        file.rows(2, slice(0, 2, 2))
    with pytest.raises(UsageError, match=r"holds no block2\.w9"):
        file.raw("block2.w9")


def test_the_fast_reader_gives_the_stored_tensors(folder: Path) -> None:
    read, stored = read_level(folder, 1), load_file(folder / "level1.safetensors")
    assert read.keys() == stored.keys()
    assert all(read[name].dtype == stored[name].dtype and torch.equal(read[name], stored[name]) for name in read)


def test_the_fast_reader_names_a_nan(folder: Path) -> None:
    tensors = load_file(folder / "level1.safetensors")
    tensors["block2.b2"][1, 0] = float("nan")
    save_file(tensors, folder / "level1.safetensors")
    with pytest.raises(NumericError, match=r"level1\.safetensors: block2\.b2 holds"):
        read_level(folder, 1)
    with pytest.raises(NumericError, match=r"level1\.safetensors: block2\.b2 of lens 'D'"):
        open_level(folder, 1).lens("D")
    open_level(folder, 1).lens("E")
    with pytest.raises(NumericError, match=r"level1\.safetensors: block2\.b2 of lens 'D'"):
        load_pack(folder)


def test_weights_whose_sum_overflows_are_still_finite(
    tmp_path: Path, info: PackInfo, rows: tuple[LensRow, ...], blocks: Blocks
) -> None:
    blocks[2].w1.fill_(3e38)
    save_pack(tmp_path, info, rows, blocks, storage="float32")
    assert float(load_pack(tmp_path).blocks[2].w1.max()) > 2e38


def test_a_partial_pack_loads_what_is_there_and_says_what_is_not(folder: Path, info: PackInfo) -> None:
    (folder / "level1.safetensors").unlink()
    files = load_pack(folder)
    assert files.missing == (1,)
    assert [(row.term, row.block, row.row) for row in files.rows] == [
        ("A", 1, 0),
        ("B", 1, 1),
        ("A", 2, 0),
        ("B", 2, 1),
        ("F", 2, 2),
        ("G", 2, 3),
    ]
    assert load_bank(folder, fingerprint=info.model.fingerprint).terms == ("A", "B", "F", "G")
    with pytest.raises(StorageError, match=r"level1\.safetensors.*levels that are: 0, 2"):
        load_pack(folder, [0, 1])
    for level in (0, 2):
        (folder / f"level{level}.safetensors").unlink()
    with pytest.raises(StorageError, match="levels that are: none"):
        load_pack(folder)


def test_levels_are_loaded_as_asked(folder: Path) -> None:
    assert [row.term for row in load_pack(folder, [2]).rows] == ["F", "G"]
    with pytest.raises(UsageError, match=r"no level 7: its lenses are of levels \[0, 1, 2\]"):
        load_pack(folder, [7])


def test_a_bank_has_one_lens_per_concept_at_the_depth_asked_for(folder: Path, info: PackInfo) -> None:
    primary = load_bank(folder, fingerprint=info.model.fingerprint)
    assert (primary.terms, primary.sites) == (tuple("ABCDEFG"), (Site(2),))
    early = load_bank(folder, fingerprint=info.model.fingerprint, which="early")
    assert (early.terms, early.sites) == (tuple("ABCDE"), (Site(1),))
    with pytest.raises(UsageError, match="has no late lenses"):
        select(load_pack(folder), "late")


def test_two_primary_lenses_of_a_concept_or_none_are_refused(
    tmp_path: Path, info: PackInfo, rows: tuple[LensRow, ...], blocks: Blocks
) -> None:
    both = (rows[0].model_copy(update={"primary": True}), *rows[1:])
    with pytest.raises(PackError, match="'A' at block 2 and 'A' at block 1 are both primary"):
        save_pack(tmp_path, info, both, blocks)
    none = (*rows[:-1], rows[-1].model_copy(update={"primary": False}))
    with pytest.raises(PackError, match="no lens of 'G' is primary"):
        save_pack(tmp_path, info, none, blocks)


def test_levels_of_two_packs_do_not_load_together(
    tmp_path: Path, info: PackInfo, rows: tuple[LensRow, ...], blocks: Blocks
) -> None:
    for storage in ("float32", "bfloat16"):
        save_pack(tmp_path / storage, info, rows, blocks, storage=storage)  # type: ignore[arg-type]
    (tmp_path / "float32/level1.safetensors").write_bytes((tmp_path / "bfloat16/level1.safetensors").read_bytes())
    with pytest.raises(PackError, match="the levels are not of one pack"):
        load_pack(tmp_path / "float32")


def test_a_smaller_pack_leaves_no_level_of_the_larger_one(
    tmp_path: Path, info: PackInfo, rows: tuple[LensRow, ...], blocks: Blocks
) -> None:
    save_pack(tmp_path, info, rows, blocks)
    flat = tuple(row.model_copy(update={"level": 0, "parent": None}) for row in rows)
    save_pack(tmp_path, info, flat, blocks)
    assert [file.name for file in tmp_path.glob("*.safetensors")] == ["level0.safetensors"]


def test_a_concept_s_lens_is_read_from_its_pack_when_it_is_loaded(folder: Path) -> None:
    lens = open_lens(folder, "c")
    assert (lens.term, lens.default.block, lens.best_blocks) == ("C", 2, {"early": 1, "mid": 2})
    assert lens.loaded == ()
    module = lens.load()
    assert lens.load(2) is module
    assert torch.equal(module.first.weight.float(), open_level(folder, 1).lens("C").w1[0].float())
    lens.load(1)
    assert lens.loaded == (1, 2)
    lens.unload(2)
    assert lens.loaded == (1,)
    with pytest.raises(UnknownConcept, match=r"no lens for 'Cx'.*nearest: C"):
        open_lens(folder, "Cx")


def test_small_tensor_files_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "trunk.safetensors"
    write_tensors(file, {"a": torch.ones(2)}, {"format": "x"})
    assert torch.equal(read_tensors(file, ("a",))["a"], torch.ones(2))
    with pytest.raises(PackError, match="holds a, expected b"):
        read_tensors(file, ("b",))
    with pytest.raises(NumericError, match="holds a NaN"):
        write_tensors(file, {"a": torch.tensor([float("nan")])}, {})


def test_a_folder_with_something_in_it_is_not_written_over(tmp_path: Path) -> None:
    require_fresh(tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="not an empty folder"):
        require_fresh(tmp_path)
    with pytest.raises(StorageError, match="cannot be made"):
        require_fresh(tmp_path / "file" / "x")
