"""The speed of proving, as a figure and as a document."""

from tests.ui.conftest import Ftw

QUICK = ("--seq-len", "8", "--rows", "2", "--rounds", "1")


def test_the_figure_fits_80_columns_and_names_every_stage(ftw: Ftw) -> None:
    ran = ftw("poc", "bench", *QUICK)
    lines = ran.out.splitlines()
    assert "nonces/s" in lines[0]
    assert "of the bare forward pass" in lines[0]
    assert [line.split("  ")[0] for line in lines[3:7]] == ["inputs", "forward pass", "readout", "encoding"]
    assert max(map(len, lines)) <= 80


def test_the_document_holds_rate_split_and_ratio(ftw: Ftw) -> None:
    document = ftw("poc", "bench", "--profile", "ftw-1", *QUICK, "--json").document
    assert document["profile"] == "ftw-1/1"
    assert document["rows_per_forward"] == 2
    assert set(document["split_seconds"]) == {"rng", "forward", "readout", "encode"}
    assert 0 < sum(document["split_seconds"].values()) <= document["batch_seconds"]
    assert document["nonces_per_second"] == 2 / document["batch_seconds"]
    assert document["ratio_to_bare"] > 0


def test_what_cannot_be_measured_is_said(ftw: Ftw) -> None:
    assert "--rounds is 0" in ftw("poc", "bench", "--rounds", "0").failed(2)
    assert "no proof profile 'other'" in ftw("poc", "bench", "--profile", "other").failed(2)
