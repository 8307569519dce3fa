from dataclasses import replace
from pathlib import Path

import pytest

from ftw.hat.classifiers import LensRow, LensTensors, PackInfo, convert_pack, load_pack, parity, save_pack
from ftw.hat.classifiers.convert import random_states
from ftw.substrate.errors import PackError, StorageError

Blocks = dict[int, LensTensors]
D = 32


@pytest.fixture
def pack(tmp_path: Path, info: PackInfo, rows: tuple[LensRow, ...], blocks: Blocks) -> Path:
    """Two levels in fp32, with a report beside them."""
    kept = [row.model_copy(update={"level": row.row % 2}) for row in rows]
    save_pack(tmp_path / "pack", info, kept, blocks, storage="float32")
    (tmp_path / "pack/report.md").write_text("good")
    return tmp_path / "pack"


@pytest.mark.parametrize(("storage", "bound"), [("float32", 1e-6), ("bfloat16", 0.03), ("int8", 0.1)])
def test_a_converted_pack_reads_nearly_as_before(pack: Path, tmp_path: Path, storage: str, bound: float) -> None:
    convert_pack(pack, tmp_path / "new", storage)  # type: ignore[arg-type]
    steps: list[tuple[int, int]] = []
    found = parity(
        pack, tmp_path / "new", random_states(40, D), progress=lambda what, done, total: steps.append((done, total))
    )
    assert steps == [(1, 2), (2, 2)]
    assert (found.states, found.lenses) == (40, 12)
    assert found.max_p <= bound
    assert found.p99 <= found.max_p
    assert found.overlap >= 0.9
    assert (found.bytes_after < found.bytes_before) == (storage != "float32")
    assert (tmp_path / "new/report.md").read_text() == "good"
    assert load_pack(tmp_path / "new").info.provenance["storage"] == storage


def test_parity_sees_a_change_and_how_large_it_is(pack: Path, tmp_path: Path) -> None:
    files = load_pack(pack)
    turned = {block: replace(part, b3=-part.b3, w3=-part.w3) for block, part in files.blocks.items()}
    save_pack(tmp_path / "other", files.info, files.rows, turned, storage="float32")
    found = parity(pack, tmp_path / "other", random_states(40, D))
    assert found.max_p > 0.5
    assert found.same_top < 0.9


def test_the_top_ten_are_those_of_all_levels(pack: Path) -> None:
    found = parity(pack, pack, random_states(7, D))
    assert (found.same_top, found.overlap, found.max_p) == (1, 1, 0)


def test_packs_of_other_lenses_are_not_compared(pack: Path, tmp_path: Path) -> None:
    files = load_pack(pack)
    rows = [files.rows[0].model_copy(update={"term": "Other"}), *files.rows[1:]]
    save_pack(tmp_path / "other", files.info, rows, files.blocks)
    with pytest.raises(PackError, match="do not hold the same lenses"):
        parity(pack, tmp_path / "other", random_states(2, D))


def test_a_partial_pack_and_a_full_folder_are_refused(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not an empty folder"):
        convert_pack(pack, pack, "int8")
    (pack / "level0.safetensors").unlink()
    with pytest.raises(PackError, match="is partial: level 0"):
        convert_pack(pack, tmp_path / "new", "int8")
