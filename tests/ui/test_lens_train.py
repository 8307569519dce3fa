"""`ftw lens train`: shares and their merging, options that do not go together, folders that are not free."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from ftw.map.training.fit import FitConfig
from ftw.map.training.fits import TrainConfig
from ftw.substrate.errors import ConfigError
from ftw.ui.cli.output import Bar
from ftw.ui.verbs.lens_train import Ask, blocks_of, kept, shard_of
from tests.map.training.small_packs import concepts
from tests.ui.conftest import Ftw

SMALL = TrainConfig(fit=FitConfig(epochs=2, batch=512), growth=0)
QUICK = ("--model", "tiny", "--blocks", "1", "--no-directions")


@pytest.fixture(scope="module", autouse=True)
def little_text() -> Iterator[None]:
    """Little is read and fitted, and measured at the end: what that comes to is shown elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ftw.map.training.compliance.reading.NEUTRAL", 12)
        patch.setattr("ftw.map.training.compliance.efficiency.RUNS", 4)
        patch.setattr("ftw.ui.verbs.lens_train.TrainConfig", lambda: SMALL)
        yield


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("lens-train") / "four"
    concepts().save(folder)
    return str(folder)


def test_two_shares_make_a_pack(ftw: Ftw, tree: str, tmp_path: Path) -> None:
    more = ("--out", str(tmp_path / "p"), "--concepts", tree, *QUICK)
    told = ftw("lens", "train", *more, "--shard", "1/2").out
    assert "batches of prompts are left for the other shares" in " ".join(told.split())
    record = ftw("lens", "train", *more, "--shard", "2/2", "--json").document
    assert record["batches_left"] == 0
    assert record["fits"] > 0
    ran = ftw("lens", "train", *more)
    assert ran.code == 0, ran.err
    assert "macro AUROC" in ran.out
    assert (tmp_path / "p" / "compliance.json").is_file()
    assert not (tmp_path / "p.training").exists()


def test_shares_of_other_folders_are_merged(ftw: Ftw, tree: str, tmp_path: Path) -> None:
    for part in ("1/2", "2/2"):
        ftw("lens", "train", "--out", str(tmp_path / part[0]), "--concepts", tree, *QUICK, "--shard", part)
    more = ("--out", str(tmp_path / "p"), "--concepts", tree, *QUICK)
    told = ftw(
        "lens", "train", *more, "--merge", str(tmp_path / "1"), "--merge", str(tmp_path / "2"), "--json"
    ).document
    assert (told["batches_left"], told["fits_left"]) == (0, 4)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (("--shard", "1/2", "--ray", "2"), "three ways to share the work"),
        (("--shard", "3/2"), "give the share and how many there are"),
        (("--form", "round"), "--form is 'round': shared or separate"),
        (("--blocks", "4-2"), "give numbers and ranges"),
        (("--false-alarms", "0.9"), "a share above 0 and at most 0.5"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(
    ftw: Ftw, tmp_path: Path, more: tuple[str, ...], match: str
) -> None:
    told = ftw("lens", "train", "--out", str(tmp_path / "p"), "--model", "tiny", *more).failed(2)
    assert match in " ".join(told.split())


def test_a_folder_that_holds_something_is_not_trained_into(ftw: Ftw, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    told = ftw("lens", "train", "--out", str(tmp_path), "--model", "tiny").failed(1)
    assert "is not an empty folder: name a new one with --out" in " ".join(told.split())


def test_shares_and_blocks_are_read_as_people_write_them() -> None:
    assert shard_of("2/4") == (1, 4)
    assert blocks_of("3,5-7") == (3, 5, 6, 7)
    for text in ("", "0/2", "a/b", "2"):
        with pytest.raises(ConfigError, match="for example 2/4"):
            shard_of(text)


def test_rate_and_time_left_are_those_of_the_stage() -> None:
    now = [0.0]
    progress = Progress(get_time=lambda: now[0], console=Console(file=io.StringIO()))
    bar = Bar(progress, "Training")
    for what, seconds in (("one fit", 1), ("the next fit", 10)):
        for done in (0, 1, 2, 4):
            bar(what, done, 4)
            now[0] += seconds
    bar("a third fit", 0, 4)
    left = [progress.tasks[0].time_remaining]
    for done in (1, 2):
        now[0] += 20
        bar("a third fit", done, 4)
    left.append(progress.tasks[0].time_remaining)
    assert left == [None, 40]  # 0 and 3 by the rate of the fits before
    assert progress.tasks[0].description == "a third fit"


def test_ctrl_c_tells_what_was_kept_and_how_to_go_on(
    ftw: Ftw, tree: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def called_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    more = ("lens", "train", "--out", str(tmp_path / "p"), "--concepts", tree, *QUICK)
    with monkeypatch.context() as patch:
        patch.setattr("ftw.map.training.session.Session.fit", called_off)
        ran = ftw(*more)
    assert ran.code == 130
    told = " ".join(ran.err.split())
    assert f"is kept in {tmp_path}/p.training; the same command goes on from there" in told
    with monkeypatch.context() as patch:
        patch.setattr("ftw.ui.verbs.lens_train.measure_compliance", called_off)
        ran = ftw(*more)
    assert ran.code == 130
    assert f"`ftw lens report {tmp_path / 'p'} --measure` measures it" in " ".join(ran.err.split())
    (tmp_path / "q").mkdir()
    assert kept(Ask("tiny", tree, tmp_path / "q")) == "stopped: nothing was kept"
