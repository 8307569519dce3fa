import json
import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftw.hat.classifiers import (
    ConceptPackId,
    Header,
    LensRow,
    LensTensors,
    ModelId,
    PackInfo,
    load_pack,
    places,
    save_pack,
    verify_pack,
)
from ftw.hat.classifiers.layout import bank_bytes, level_of, sort_rows
from ftw.substrate.errors import PackError, StorageError

D, LAYERS = 8, 6


def test_a_bank_is_about_as_large_as_its_tensors_in_bf16(tmp_path: Path) -> None:
    n = 5
    w1, w3 = torch.randn(n, 128, D), torch.randn(n, 2)
    small = {name: torch.randn(n) for name in ("b3", "screen_b", "screen_threshold")}
    own = {"w1": w1, "b1": torch.randn(n, 128), "w2": torch.randn(n, 2, 128), "b2": torch.randn(n, 2), "w3": w3}
    part = LensTensors(**own, screen_w=torch.randn(n, D), **small)
    rows = [LensRow(term=f"T{at}", block=0, row=at) for at in range(n)]
    info = PackInfo(
        name="p",
        version="1",
        model=ModelId(name="m", fingerprint="ab" * 32, d_model=D, n_layers=LAYERS),
        concept_pack=ConceptPackId(name="c", version="1"),
        sites=(0,),
    )
    save_pack(tmp_path / "own", info, rows, {0: part}, storage="int8")
    about = n * (2 * (128 * D + 2 * 128) + 4 * (128 + 2 + 2 + 3 + D))
    assert about <= bank_bytes(tmp_path / "own") <= about + 4 * n * (128 + 2)  # and the scales of int8
    alike = replace(part, w1=w1[:1].expand(n, -1, -1), b1=part.b1[:1].expand(n, -1))
    save_pack(tmp_path / "shared", info, rows, {0: alike}, storage="float32")
    assert bank_bytes(tmp_path / "shared") == 4 * (128 * D + 128 + n * (2 * 128 + 2 + 2 + 3 + D))


@st.composite
def trees(draw: st.DrawFn) -> list[LensRow]:
    """An index of concepts in a tree, in no order, each at one or two blocks."""
    rows: list[LensRow] = []
    levels: dict[str, int] = {}
    for at in range(draw(st.integers(1, 12))):
        parent = draw(st.sampled_from([None, *levels]))
        term, level = f"C{at}", None if parent is None else levels[parent] + 1
        levels[term] = level or 0
        blocks = draw(st.sampled_from([(1,), (4,), (1, 4), (4, 1)]))
        for block in blocks:
            rows.append(LensRow(term=term, block=block, row=0, level=level, parent=parent, primary=block == blocks[0]))
    shuffled: list[LensRow] = draw(st.permutations(rows))
    return [
        row.model_copy(update={"row": at})
        for block in (1, 4)
        for at, row in enumerate(each for each in shuffled if each.block == block)
    ]


def info_of(rows: list[LensRow]) -> PackInfo:
    return PackInfo(
        name="p",
        version="1",
        model=ModelId(name="m", fingerprint="ab" * 32, d_model=D, n_layers=LAYERS),
        concept_pack=ConceptPackId(name="c", version="1"),
        sites=tuple(sorted({row.block for row in rows})),
    )


def random_part(n: int) -> LensTensors:
    return LensTensors(
        torch.randn(n, 128, D),
        torch.randn(n, 128),
        torch.randn(n, 3, 128),
        torch.randn(n, 3),
        torch.randn(n, 3),
        torch.randn(n),
        torch.randn(n, D).half().float(),
        torch.randn(n),
        torch.randn(n),
    )


@given(trees())
@settings(deadline=None)
def test_siblings_stand_together_below_their_parents_order(rows: list[LensRow]) -> None:
    order = sort_rows(rows)
    assert sorted(order) == list(range(len(rows)))
    placed = [rows[at] for at in order]
    keys = [(row.block, level_of(row)) for row in placed]
    assert keys == sorted(keys)
    families = [(row.block, level_of(row), row.parent) for row in placed]
    runs = [family for at, family in enumerate(families) if not at or families[at - 1] != family]
    assert len(runs) == len(set(runs))


@given(trees(), st.sampled_from(["float32", "int8"]))
@settings(deadline=None, max_examples=20)
def test_a_lens_keeps_its_weights_wherever_the_pack_puts_it(
    tmp_path_factory: pytest.TempPathFactory, rows: list[LensRow], storage: str
) -> None:
    folder = tmp_path_factory.mktemp("pack")
    blocks = {block: random_part(sum(r.block == block for r in rows)) for block in {row.block for row in rows}}
    save_pack(folder, info_of(rows), rows, blocks, storage=storage)  # type: ignore[arg-type]
    files = load_pack(folder)
    found = {(row.term, row.block): row for row in files.rows}
    assert len(found) == len(rows)
    for row in rows:
        there = found[row.term, row.block]
        same = there.model_copy(update={"row": row.row, "sha256": None})
        assert same == row
        for name in ("w1", "b3", "screen_w"):
            before = getattr(blocks[row.block], name)[row.row]
            after = getattr(files.blocks[row.block], name)[there.row]
            assert torch.allclose(before, after, atol=0 if storage == "float32" else 0.03)
    assert verify_pack(folder) == ()


@given(trees())
@settings(deadline=None, max_examples=20)
def test_the_runs_of_all_lenses_are_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[LensRow]
) -> None:
    folder = tmp_path_factory.mktemp("pack")
    blocks = {block: random_part(sum(r.block == block for r in rows)) for block in {row.block for row in rows}}
    save_pack(folder, info_of(rows), rows, blocks)
    index = load_pack(folder).rows
    for level in {level_of(row) for row in index}:
        header = Header.of(folder / f"level{level}.safetensors")
        own = [row for row in index if level_of(row) == level]
        runs = sorted((r.start, r.stop) for row in own for r in header.runs(places(index)[row.term, row.block]))
        assert (runs[0][0], runs[-1][1]) == (header.start, header.size)
        assert all(one[1] == two[0] for one, two in pairwise(runs))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        LensRow(term="Animal", block=0, row=0, level=0),
        LensRow(term="Dog", block=0, row=1, level=1, parent="Animal"),
        LensRow(term="Cat", block=0, row=2, level=1, parent="Animal"),
        LensRow(term="Plant", block=0, row=3, level=0),
    ]
    save_pack(tmp_path, info_of(rows), rows, {0: random_part(4)})
    return tmp_path


def test_a_changed_byte_names_its_lens_and_no_other(folder: Path) -> None:
    file = folder / "level1.safetensors"
    run = Header.of(file).runs(places(load_pack(folder).rows)["Cat", 0])[-1]
    data = bytearray(file.read_bytes())
    data[run.start] ^= 1
    file.write_bytes(bytes(data))
    assert verify_pack(folder) == ("'Cat' at block 0",)
    assert verify_pack(folder, [0]) == ()


def test_a_lens_without_a_hash_is_not_verified(folder: Path) -> None:
    value = json.loads((folder / "index.json").read_text())
    del value[0]["sha256"]
    (folder / "index.json").write_text(json.dumps(value))
    assert verify_pack(folder) == ("'Animal' at block 0",)


def test_a_hash_does_not_depend_on_where_a_lens_lies(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    files = load_pack(folder)
    other = tmp_path_factory.mktemp("other")
    order = [3, 1, 0, 2]
    rows = [files.rows[at].model_copy(update={"row": to}) for to, at in enumerate(order)]
    part = LensTensors(*(getattr(files.blocks[0], name)[order] for name in LensTensors.__slots__))
    save_pack(other, files.info, rows, {0: part})
    hashes = [{row.term: row.sha256 for row in load_pack(where).rows} for where in (folder, other)]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "no whole header"),
        (struct.pack("<Q", 50) + b"{}", "no whole header"),
        (struct.pack("<Q", 2) + b"[]", "cannot be read"),
        (struct.pack("<Q", 9) + b'{"a": {} ', "cannot be read"),
        (
            struct.pack("<Q", 57) + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}   ',
            "entry for a does not fit",
        ),
        (
            struct.pack("<Q", 57) + b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}   ',
            "entry for a does not fit",
        ),
    ],
)
def test_a_header_that_is_none_is_refused(data: bytes, match: str) -> None:
    with pytest.raises(PackError, match=match):
        Header.parse(data, "some file")


def test_a_header_of_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        Header.of(tmp_path / "level0.safetensors")


def test_rows_that_lenses_do_not_share_evenly_are_named(folder: Path) -> None:
    header = Header.of(folder / "level0.safetensors")
    with pytest.raises(PackError, match=r"block0\.b1 is \[2, 128\], which 3 lenses"):
        header.runs_of(0, 0, 1, 3)
    with pytest.raises(PackError, match="holds no tensor of block 5"):
        header.runs_of(5, 0, 1, 1)


def test_a_file_cut_before_any_lens_names_the_tensor(folder: Path) -> None:
    file = folder / "level0.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(PackError, match=r"is truncated.*block0\.\w+ is cut off"):
        Header.of(file)
