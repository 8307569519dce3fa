"""`ftw sweep` at the command line: every option reaches the worker, every way to end is told, nothing is half done."""

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from rich.console import Console
from rich.progress import Progress

from ftw.substrate.config import Settings
from ftw.substrate.manifest import save_artifact
from ftw.sweep.files.parquet import read_rows
from ftw.sweep.files.rundir import open_run, read_document, write_document
from ftw.sweep.job import Job
from ftw.sweep.many import Ended, Listener
from ftw.ui.cli import app
from ftw.ui.cli.output import _Rate
from ftw.ui.verbs import sweep as verb
from tests.ui.conftest import Ftw

BATTERY = "text,answer,relation,fact\nthe cat sat on,mat,r,a\none two three,four,r,b\nred and blue,green,r,c\n"
GIVEN: dict[str, tuple[str, ...]] = {
    "battery": ("--battery", "germany"),
    "lens": ("--lens", "logit,raw"),
    "positions": ("--positions", "last"),
    "device": ("--device", "map"),
    "dtype": ("--dtype", "bfloat16"),
    "heldout": ("--heldout", "texts.jsonl"),
    "resume": ("--resume",),
    "legacy": ("--legacy-schema", "extended"),
    "precision": ("--precision", "fast"),
    "seed": ("--seed", "7"),
    "tuned": ("--tuned", "some-lens"),
    "prism": ("--prism", "other-lens"),
    "lens_folder": ("--lens-folder", "tuned=some-lens"),
    "top": ("--top", "9"),
    "threshold": ("--threshold", "copy_p=0.9"),
    "keep_states": ("--keep-states",),
    "threads": ("--threads", "2"),
}
"""Every option of the verb that a job must know of, with another value than its default."""
ELSEWHERE = {"models", "out", "json", "help"}
"""What is no part of a job, or only of where it lies."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything happens in the test's own folder."""
    monkeypatch.setenv("FTW_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.jsonl").write_text('{"text": "a text"}\n')
    for folder, name in (("some-lens", "tuned"), ("other-lens", "prism")):
        save_artifact(tmp_path / folder, {"kind": f"{name}-lens"}, {"a": torch.zeros(1)})
    return tmp_path


class Fake:
    """Stands in for the workers: remembers the jobs, and ends each as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **ends: Any) -> None:
        self.jobs: list[Job] = []
        self._ends = ends
        monkeypatch.setattr(verb, "run_all", self.run_all)

    def run_all(self, jobs: Sequence[Job], listener: Listener) -> Iterator[Ended]:
        for index, job in enumerate(jobs):
            self.jobs.append(job)
            listener.began(job, index, len(jobs))
            job.folder.mkdir(exist_ok=True)
            end = self._ends.get(job.model.name) or Ended("", job.folder, "failed", 1.0, "Boom", "it broke", 1)
            if isinstance(end, BaseException):
                raise end
            write_document(job.folder, {"schema": 1, "status": end.status, "error": None, "model": {"name": "m"}})
            yield Ended(job.model.name, job.folder, end.status, 1.0, end.kind, end.message, end.code)


def asked(ftw: Ftw, monkeypatch: pytest.MonkeyPatch, *argv: str) -> Job:
    """The one job of a command line."""
    fake = Fake(monkeypatch)
    ran = ftw("sweep", *argv)
    assert len(fake.jobs) == 1, ran.err
    return fake.jobs[0]


def options() -> set[str]:
    group: Any = typer.main.get_command(app)
    return {param.name for param in group.commands["sweep"].commands["run"].params}


def test_every_option_is_one_that_a_job_knows_of() -> None:
    assert options() - ELSEWHERE == set(GIVEN)


@pytest.mark.parametrize("name", GIVEN)
def test_every_option_reaches_the_job(ftw: Ftw, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plain = asked(ftw, monkeypatch, "tiny", "--battery", "reference").model_dump(exclude={"folder", "command"})
    changed = asked(ftw, monkeypatch, "tiny", "--battery", "reference", *GIVEN[name])
    differ = {key for key, value in changed.model_dump(exclude={"folder", "command"}).items() if value != plain[key]}
    assert len(differ) == 1, differ


def test_a_job_has_the_values_that_were_given(ftw: Ftw, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: words for name, words in GIVEN.items() if name not in ("lens", "lens_folder")}
    more = ("--lens", "logit,raw,tuned,prism")
    job = asked(ftw, monkeypatch, "tiny", *more, *(word for words in given.values() for word in words))
    assert (job.model.name, job.model.device, job.model.dtype) == ("tiny", "map", "bfloat16")
    assert (job.battery, job.lenses, job.positions, job.precision, job.k) == (
        "germany", ("logit", "raw", "tuned", "prism"), "last", "fast", 9,
    )  # fmt: skip
    assert (job.legacy, job.seed, job.threads, job.resume, job.keep_states) == ("extended", 7, 2, True, True)
    assert job.folders == {"tuned": Path("some-lens"), "prism": Path("other-lens")}
    assert job.heldout == "texts.jsonl"
    assert job.thresholds.copy_p == 0.9
    assert job.cache_dir == Settings.from_env().cache_dir


def test_the_bundled_model_has_its_own_battery_and_others_the_published_one(
    ftw: Ftw, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(monkeypatch)
    ftw("sweep")
    ftw("sweep", "tiny")
    assert [(job.model.name, job.battery) for job in fake.jobs] == [("reference", "reference"), ("tiny", "germany")]


def test_device_and_dtype_of_the_settings_hold_where_none_is_given(ftw: Ftw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTW_MODEL", "tiny")
    monkeypatch.setenv("FTW_DTYPE", "float16")
    assert asked(ftw, monkeypatch).model.dtype == "float16"
    job = asked(ftw, monkeypatch, "--dtype", "float32")
    assert (job.model.name, job.model.dtype) == ("tiny", "float32")


@pytest.mark.parametrize("argv", [["tiny"], ["run", "tiny"], ["--seed", "0", "tiny"], ["tiny", "--seed", "0"]])
def test_a_model_an_option_or_run_itself_may_come_first(
    ftw: Ftw, monkeypatch: pytest.MonkeyPatch, argv: list[str]
) -> None:
    assert asked(ftw, monkeypatch, *argv).model.name == "tiny"


def test_help_of_the_group_shows_the_options_of_run_and_the_other_verbs(ftw: Ftw) -> None:
    text = ftw("sweep", "--help").out
    for word in ("--battery", "--legacy-schema", "fit-tuned", "fit-prism", "report", "diff"):
        assert word in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tiny", "tiny"], "name each once"),
        (["tiny", "--battery", "no-such"], "is no battery"),
        (["tiny", "--positions", "some"], "--positions: Input should be 'last' or 'all'"),
        (["tiny", "--legacy-schema", "old"], "--legacy-schema: Input should be 'seed', 'extended' or 'none'"),
        (["tiny", "--precision", "low"], "--precision: Input should be 'exact' or 'fast'"),
        (["tiny", "--dtype", "float99"], "--dtype: Input should be"),
        (["tiny", "--top", "1"], "--top: Input should be greater than or equal to 2"),
        (["tiny", "--threads", "0"], "--threads: Input should be greater"),
        (["tiny", "--lens", ","], "--lens names nothing"),
        (["tiny", "--lens", "foo"], "there is no lens 'foo': use logit, next, own, raw, tuned, prism"),
        (["tiny", "--lens", "raw,raw"], "name at least one, each once"),
        (["tiny", "--lens", "logit", "--tuned", "some-lens"], "tuned is not among the lenses logit: add it"),
        (["tiny", "--device", "gpu"], "device 'gpu' does not exist: use auto, cpu, cuda, cuda:N or map"),
        (["tiny", "--device", "cuda:99"], "device 'cuda:99' does not exist"),
        (["tiny", "--heldout", "./nofile.txt"], "there is no text at ./nofile.txt"),
        (["tiny", "--tuned", "nowhere"], "there is no folder nowhere: give that of a tuned lens, or fit one"),
        (["tiny", "--prism", "."], ". holds no prism lens: it has no manifest.json"),
        (["tiny", "--lens-folder", "tuned"], "--lens-folder 'tuned' names no folder: give NAME=FOLDER"),
        (["tiny", "--lens-folder", "foo=some-lens"], "there is no lens 'foo'"),
        (["tiny", "--lens-folder", "tuned=a", "--tuned", "b"], "there are two folders for the lens tuned, b and a"),
        (["tiny", "--threshold", "copy_p"], "--threshold 'copy_p' sets nothing: give NAME=VALUE"),
        (["tiny", "--threshold", "copy_q=1"], "did you mean copy_p"),
        (["tiny", "--threshold", "copy_p=much"], "copy_p"),
        (["--json", "diff", "a", "b"], "a verb comes first, as in `ftw sweep diff"),
        (["tiny", "--postions", "all"], "--help"),
    ],
)
def test_what_is_wrong_with_a_request_is_told_before_a_run_begins(ftw: Ftw, argv: list[str], message: str) -> None:
    assert message in ftw("sweep", *argv).failed(2)
    assert not Path("sweeps").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tiny", "--prism", "some-lens"], "is of kind 'tuned-lens', not 'prism-lens'"),
        (["tiny", "--tuned", "broken"], "is not what was saved"),
        (["reference", "--tuned", "some-lens"], "this tuned lens was made for None, the model is"),
    ],
)
def test_a_lens_that_cannot_be_the_models_is_told_before_a_run_begins(
    ftw: Ftw, home: Path, argv: list[str], message: str
) -> None:
    shutil.copytree(home / "some-lens", home / "broken")
    with (home / "broken" / "tensors.safetensors").open("ab") as file:
        file.write(b"more")
    assert message in ftw("sweep", *argv).failed(1)
    assert not Path("sweeps").exists()


def test_a_lens_of_one_of_many_models_leaves_the_others_alone(ftw: Ftw, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch)
    ftw("sweep", "tiny", "reference", "--tuned", "some-lens", "--battery", "germany")
    assert [job.model.name for job in fake.jobs] == ["tiny", "reference"]


def test_what_goes_wrong_before_the_first_row_leaves_the_last_good_run_in_its_place(
    ftw: Ftw, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Path("sweeps") / "run-latest"
    with open_run(Path("sweeps")) as run:
        (run.folder / "rows.parquet").write_text("rows")
    Fake(monkeypatch, tiny=Ended("", Path(), "failed", 1.0, "ModelError", "it broke", 1))
    ran = ftw("sweep", "tiny")
    assert "it broke (see sweeps/run-2" in ran.failed(1)
    assert "lies in" not in ran.out  # the error names the folder: once is enough
    assert (good / "rows.parquet").read_text() == "rows"


def test_out_that_is_a_file_is_told_so(ftw: Ftw, home: Path) -> None:
    (home / "file").write_text("")
    assert "it is a file: give another folder for the runs with --out" in ftw("sweep", "tiny", "--out", "file").failed(
        1
    )


def test_thresholds_that_are_lists_take_commas(ftw: Ftw, monkeypatch: pytest.MonkeyPatch) -> None:
    job = asked(ftw, monkeypatch, "tiny", "--threshold", "soft_extra=0.5,0.7", "--threshold", "soft_windows=2")
    assert (job.thresholds.soft_extra, job.thresholds.soft_windows) == ((0.5, 0.7), (2,))


def test_one_model_that_fails_ends_with_its_error_and_its_exit_code(ftw: Ftw, monkeypatch: pytest.MonkeyPatch) -> None:
    Fake(monkeypatch, tiny=Ended("", Path(), "failed", 1.0, "ConfigError", "no such key", 2))
    line = ftw("sweep", "tiny").failed(2)
    assert "no such key (see sweeps/run-latest)" in line
    document = read_document(Path("sweeps/run-latest"))
    assert document["status"] == "failed"
    assert document["error"] == {"type": "ConfigError", "message": "no such key"}


def test_of_many_that_all_fail_each_is_told(ftw: Ftw, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch)
    ran = ftw("sweep", "tiny", "org/tiny", "./a b", "--battery", "germany")
    assert ran.code == 1
    assert ran.err.strip().splitlines()[-1].startswith("ftw: 3 of 3 models failed: tiny, org/tiny, ")
    assert "0 of 3 models swept" in ran.out
    assert ran.out.count("Boom: it broke") == 3
    assert [job.folder.name for job in fake.jobs] == ["tiny", "tiny-2", "a-b"]
    document = read_document(Path("sweeps/run-latest"))
    assert document["status"] == "failed"
    assert [(one["name"], one["folder"], one["status"]) for one in document["models"]] == [
        ("tiny", "tiny", "failed"),
        ("org/tiny", "tiny-2", "failed"),
        ("./a b", "a-b", "failed"),
    ]


def test_an_interrupt_leaves_a_run_that_says_so_and_ends_with_130(ftw: Ftw, monkeypatch: pytest.MonkeyPatch) -> None:
    Fake(monkeypatch, other=KeyboardInterrupt())
    ran = ftw("sweep", "tiny", "other", "third", "--json")
    assert ran.code == 130
    document = read_document(Path("sweeps/run-latest"))
    assert document["status"] == "partial"
    assert [one["name"] for one in ran.document["models"]] == ["tiny"]


def test_a_report_that_cannot_be_made_is_told_and_takes_nothing_from_the_run(
    ftw: Ftw, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fake(monkeypatch, tiny=Ended("", Path(), "ok", 1.0))
    ran = ftw("sweep", "tiny", "--json")
    assert ran.code == 0, ran.err
    assert "no report:" in ran.err
    assert ran.document["models"][0]["status"] == "ok"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real run of two models, one of which does not exist: `sweeps/run-latest`, told in `said.json`."""
    home = tmp_path_factory.mktemp("swept")
    (home / "facts.csv").write_text(BATTERY)
    command = "sweep tiny ./missing --battery facts.csv --lens logit,raw --legacy-schema none --threads 1 --json"
    ran = subprocess.run(
        [sys.executable, "-m", "ftw", *command.split()],
        cwd=home, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    (home / "said.json").write_text(json.dumps({"code": ran.returncode, "out": ran.stdout, "err": ran.stderr}))
    return home


def test_many_models_run_apart_and_a_failure_leaves_the_others_alone(swept: Path) -> None:
    said = json.loads((swept / "said.json").read_text())
    assert said["code"] == 1
    assert "1 of 2 models failed: ./missing" in said["err"]
    good, bad = json.loads(said["out"])["models"]
    assert (good["status"], bad["status"]) == ("ok", "failed")
    assert bad["error"]["type"] == "ModelNotFound"
    run = swept / "sweeps" / "run-latest"
    assert read_document(run)["status"] == "partial"
    assert read_document(run / "tiny")["status"] == "ok"
    assert read_document(run / "missing")["error"]["type"] == "ModelNotFound"
    assert "<html" in (run / "tiny" / "report.html").read_text()
    assert (run / "tiny" / "rows.parquet").exists()


def test_a_report_is_made_again_without_the_model(ftw: Ftw, swept: Path) -> None:
    run = swept / "sweeps" / "run-latest" / "tiny"
    ran = ftw("sweep", "report", str(run), "--to", "again.html", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["reports"][0]["model"] == "tiny"
    assert Path("again.html").read_text() == (run / "report.html").read_text()


def test_a_run_is_like_itself_and_differs_from_one_that_was_changed(ftw: Ftw, swept: Path) -> None:
    run = swept / "sweeps" / "run-latest"
    ran = ftw("sweep", "diff", str(swept / "sweeps"), str(run), "--exit-code")
    assert ran.code == 0, ran.err
    assert "the same, bit for bit" in ran.out
    shutil.copytree(run / "tiny", "other")
    document = read_document(Path("other"))
    document["prompts"][0]["milestones"]["logit"]["semantic"] = {"value": 2, "why": None}
    write_document(Path("other"), document)
    ran = ftw("sweep", "diff", str(run / "tiny"), "other", "--exit-code")
    assert ran.code == 1
    assert ran.err == ""
    assert "semantic" in ran.out
    assert ftw("sweep", "diff", str(run / "tiny"), "other", "--json").document["runs"][0]["verdict"] == "different"


def test_there_is_nothing_to_compare_where_there_is_no_run(ftw: Ftw, swept: Path, tmp_path: Path) -> None:
    assert "there is no folder nowhere" in ftw("sweep", "diff", "nowhere", str(swept)).failed(1)
    (tmp_path / "empty").mkdir()
    ftw("sweep", "diff", "empty", str(swept / "sweeps")).failed(2)
    assert "the tolerance absolute is -1" in ftw("sweep", "diff", "a", "b", "--tolerance", "-1").failed(2)


def test_a_tuned_lens_is_fitted_judged_and_found_again(ftw: Ftw, home: Path) -> None:
    text = home / "text.txt"
    text.write_text("\n\n".join(f"Number {n} is a number, and {n + 1} comes after it." for n in range(60)))
    ran = ftw("sweep", "fit-tuned", "tiny", "--corpus", str(text), "--steps", "3", "--kind", "all", "--json")
    assert ran.code == 0, ran.err
    assert set(ran.document["fits"]) == {"bias", "rank", "full"}
    assert set(ran.document["attribution"]) >= {"by_kind"}
    folder = Path(ran.document["folder"])
    assert folder.parent == home / "cache" / "vocab-lenses"
    assert json.loads((folder / "manifest.json").read_text())["kind"] == "tuned-lens"
    ran = ftw("sweep", "fit-tuned", "tiny", "--corpus", str(text), "--steps", "2", "--out", "lens")
    assert ran.code == 0, ran.err
    assert "KL gain, bits" in ran.out
    assert "gate A" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fit-tuned", "tiny", "--kind", "some"], "--kind is 'some': use bias, rank, full or all"),
        (["fit-tuned", "tiny", "--dtype", "int8"], "--dtype: Input should be"),
        (["fit-tuned", "tiny", "--steps", "0"], "--steps: Input should be greater than or equal to 1"),
        (["fit-tuned", "tiny", "--threads", "0"], "--threads is 0: it must be at least 1"),
        (["fit-tuned", "tiny", "--corpus", "./no-such-text"], "there is no text at ./no-such-text"),
        (["fit-prism", "tiny", "--target", "x"], "--target is 'x': use head or states"),
        (["fit-prism", "tiny", "--covariance", "x"], "--covariance is 'x': use diagonal or full"),
    ],
)
def test_what_cannot_be_fitted_is_told(ftw: Ftw, argv: list[str], message: str) -> None:
    assert message in ftw("sweep", *argv).failed(2)


def test_a_fit_never_writes_over_what_is_no_lens(ftw: Ftw, home: Path) -> None:
    (home / "mine").mkdir()
    (home / "mine" / "letter.txt").write_text("dear")
    assert "neither empty nor a lens" in ftw("sweep", "fit-tuned", "tiny", "--out", "mine").failed(1)


def test_a_bar_shows_the_rate_once_it_is_known() -> None:
    now = [0.0]
    bar = Progress(_Rate("positions"), get_time=lambda: now[0], console=Console(file=io.StringIO()))
    task = bar.add_task("Reading", total=100)
    assert _Rate("positions").render(bar.tasks[0]).plain == ""
    for done in (0, 10, 20):
        bar.update(task, completed=done)
        now[0] += 2
    assert _Rate("positions").render(bar.tasks[0]).plain == "5 positions/s"


@pytest.mark.slow
def test_ctrl_c_ends_the_worker_and_leaves_a_partial_run_that_can_be_resumed(home: Path) -> None:
    start = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    start += "from ftw.ui.cli import main; main(sys.argv[1:])"
    argv = [sys.executable, "-c", start, "sweep", "reference", "--legacy-schema", "none", "--threads", "1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home) as process:
        passes = home / "cache" / "sweep-passes"
        while not list(passes.glob("*/*")) and process.poll() is None:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    run = home / "sweeps" / "run-latest"
    assert read_document(run)["status"] == "partial"
    with open_run(home / "sweeps"):  # nobody holds the folder any more
        pass


@pytest.mark.slow
def test_a_run_that_was_killed_leaves_no_worker_behind_and_is_resumed_with_the_same_rows(home: Path) -> None:
    words = ["sweep", "reference", "--lens", "logit,raw", "--legacy-schema", "none", "--threads", "1"]

    def ftw_at(out: str, *more: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "ftw", *words, "--out", out, *more]
        return subprocess.run(argv, cwd=home, capture_output=True, text=True, check=True, timeout=600)

    argv = [sys.executable, "-m", "ftw", *words, "--out", "sweeps"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home) as process:
        while not list((home / "cache" / "sweep-passes").glob("*/*.pass")) and process.poll() is None:
            time.sleep(0.02)
        worker = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
        process.kill()
    end = time.monotonic() + 120
    while Path(f"/proc/{worker}").exists() and time.monotonic() < end:
        time.sleep(0.2)
    assert not Path(f"/proc/{worker}").exists()
    assert not (home / "sweeps" / "run-latest").exists()
    resumed = ftw_at("sweeps", "--resume")
    assert "finished passes were taken up" in resumed.stderr
    ftw_at("fresh")
    a, b = (read_rows(home / out / "run-latest") for out in ("sweeps", "fresh"))
    assert all(a[name].tobytes() == b[name].tobytes() for name in a.columns)
    buried = [folder for folder in (home / "sweeps").glob("run-2*") if folder.is_dir()]
    assert [read_document(folder)["status"] for folder in buried] in (["failed"], ["partial"])
