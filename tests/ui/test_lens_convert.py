"""The verbs that turn lens packs from one form into another."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ftw.hat.classifiers import load_pack
from ftw.ui.app import lens_folder
from tests.ui.conftest import Ftw


def test_a_pack_goes_out_and_comes_back(ftw: Ftw, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    told = ftw("lens", "export", "--out", str(old)).out
    assert "Exported 355 lenses" in told
    assert "screens are not part of legacy packs" in told
    record = ftw("lens", "import", str(old), "--out", str(new), "--concepts", "everyday", "--json").document
    before, after = load_pack(lens_folder(None)), load_pack(new)
    (block,) = before.info.sites
    assert (record["lenses"], record["blocks"], record["storage"]) == (355, [block], "float32")
    assert [row.term for row in before.rows] == [row.term for row in after.rows]
    assert torch.equal(before.blocks[block].w2, after.blocks[block].w2)


def test_an_import_for_a_model_of_another_width_names_both(ftw: Ftw, tmp_path: Path) -> None:
    ftw("lens", "export", "--out", str(tmp_path / "old"))
    (tmp_path / "old/ftw_index.json").unlink()
    told = ftw("lens", "import", str(tmp_path / "old"), "--out", str(tmp_path / "new"), "--model", "tiny").failed(1)
    assert "takes states of width 256, tiny has" in " ".join(told.split())


def test_a_conversion_says_what_it_changed(ftw: Ftw, tmp_path: Path) -> None:
    states = tmp_path / "states.safetensors"
    save_file({"states": torch.randn(5, 256)}, states)
    told = ftw("lens", "convert", "--to", "bf16", "--out", str(tmp_path / "a"), "--states", str(states)).out
    assert "5 states" in told
    assert "of states" in told
    record = ftw("lens", "convert", "--to", "int8", "--out", str(tmp_path / "b"), "--samples", "20", "--json").document
    assert record["parity"]["states"] == 20
    assert 0 < record["parity"]["max_p"] < 0.1
    assert record["parity"]["bytes_after"] < record["parity"]["bytes_before"]


@pytest.mark.parametrize(
    ("more", "code", "match"),
    [
        (("--to", "fp8"), 2, "--to is 'fp8': give one of fp32, bf16, int8"),
        (("--to", "int8", "--samples", "0"), 2, "--samples is 0"),
    ],
)
def test_a_conversion_that_cannot_be_meant_is_refused(
    ftw: Ftw, tmp_path: Path, more: tuple[str, ...], code: int, match: str
) -> None:
    assert match in ftw("lens", "convert", "--out", str(tmp_path / "a"), *more).failed(code)


def test_states_of_another_width_are_refused(ftw: Ftw, tmp_path: Path) -> None:
    states = tmp_path / "states.safetensors"
    save_file({"a": torch.randn(5, 3)}, states)
    told = ftw("lens", "convert", "--to", "int8", "--out", str(tmp_path / "a"), "--states", str(states)).failed(2)
    assert "a tensor `states` of [state, 256] is needed" in " ".join(told.split())


def test_a_full_folder_is_not_written_into(ftw: Ftw, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    for verb in (("export",), ("convert", "--to", "int8"), ("import", str(tmp_path))):
        assert "not an empty folder" in " ".join(ftw("lens", *verb, "--out", str(tmp_path)).failed(1).split())
