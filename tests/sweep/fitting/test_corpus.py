"""Text to fit on: every kind of file, the split by document, windows that keep documents apart."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from ftw.substrate.errors import ConfigError, StorageError, UsageError
from ftw.substrate.model import Model, from_net, load
from ftw.sweep.fitting import corpus as room
from ftw.sweep.fitting.corpus import SHORTEST, Corpus, open_corpus, own_text

TEXTS = [f"document {n} says {n * n} twice" for n in range(60)]
_ZIPPED = gzip.compress(json.dumps(TEXTS).encode(), mtime=0)
DAMAGED = _ZIPPED[:40] + bytes(20) + _ZIPPED[60:]


@cache
def model() -> Model:
    return load("tiny")


def write(folder: Path, kind: str) -> Path:
    file = folder / f"texts{kind}"
    if kind == ".parquet":
        pq.write_table(pa.table({"text": TEXTS, "n": list(range(60))}), file, row_group_size=7)
        return file
    if kind.startswith(".txt"):
        body = "\n\n".join(TEXTS)
    else:
        body = "\n".join(json.dumps({"text": text, "n": 1}) for text in TEXTS)
    file.write_bytes(gzip.compress(body.encode()) if kind.endswith(".gz") else body.encode())
    return file


@pytest.mark.parametrize("kind", room.SUFFIXES)
def test_every_kind_of_file_holds_the_same_documents(tmp_path: Path, kind: str) -> None:
    corpus = Corpus.read(write(tmp_path, kind))
    assert list(corpus.documents()) == TEXTS
    assert list(corpus.documents()) == TEXTS, "it can be read again"
    assert list(Corpus.read(tmp_path / f"texts{kind}", limit=5).documents()) == TEXTS[:5]


def test_a_folder_is_its_files_sorted_and_each_text_once(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.txt").write_text("second\nline\n\n\n\nthird\n \n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('"first"\n\n{"text": "second\\nline"}\n', encoding="utf-8")
    (tmp_path / "README.md").write_text("not text to fit on", encoding="utf-8")
    assert list(Corpus.read(tmp_path).documents()) == ["first", "second\nline", "third"]


def test_another_field_can_hold_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "here"}\n', encoding="utf-8")
    pq.write_table(pa.table({"body": pa.array(["there", None], pa.large_string())}), tmp_path / "b.parquet")
    assert list(Corpus.read(tmp_path, field="body").documents()) == ["here", "there"]


@given(st.lists(st.text(min_size=1, max_size=8), max_size=40))
def test_no_document_is_in_two_parts_and_none_is_lost(texts: list[str]) -> None:
    corpus = Corpus.of(texts, "drawn")
    parts = [list(corpus.documents(part)) for part in ("fit", "heldout")]
    assert not set(parts[0]) & set(parts[1])
    assert sorted(parts[0] + parts[1]) == sorted(corpus.documents())
    assert set(corpus.documents()) == {text for text in texts if text.strip()}


def test_a_document_stays_in_its_part_whatever_else_is_read() -> None:
    corpus = Corpus.of([f"text {n}" for n in range(2000)], "many")
    held = list(corpus.documents("heldout"))
    assert 0.07 < len(held) / 2000 < 0.13
    assert list(Corpus.of(held[::-1], "few").documents("heldout")) == held[::-1]


@given(st.lists(st.text("abc \n", min_size=1, max_size=50), min_size=1, max_size=8), st.integers(6, 20))
def test_a_window_is_a_piece_of_one_document_after_the_opening_mark(texts: list[str], length: int) -> None:
    corpus = Corpus.of(["always here", *texts], "drawn")
    windows = corpus.windows(model(), 10_000, length, part="all")
    ids = list(windows)
    left = [model().encode(text)[1:] for text in corpus.documents()]
    for window in ids:
        assert window[0] == model().tokenizer.bos_token_id
        assert SHORTEST + 1 <= len(window) <= length
        while left[0][: len(window) - 1] != window[1:]:
            assert len(left[0]) < SHORTEST  # only what is too short was dropped
            left.pop(0)
        left[0] = left[0][len(window) - 1 :]
    assert windows.n_tokens == sum(map(len, ids))
    assert windows.n_windows == len(ids)


def test_windows_stop_at_the_number_of_tokens_and_digest_what_was_read() -> None:
    corpus = Corpus.of(TEXTS, "texts")
    some = corpus.windows(model(), 100, 16)
    assert sum(map(len, some)) == some.n_tokens == 100
    again = corpus.windows(model(), 100, 16)
    more = corpus.windows(model(), 300, 16)
    assert list(again)
    assert list(more)
    assert some.digest == again.digest != more.digest
    assert some.n_documents < more.n_documents


def test_windows_of_a_model_without_an_opening_mark_begin_with_the_text() -> None:
    bare = load("tiny")
    tokenizer: Any = bare.tokenizer
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.add_bos_token = False
    windows = list(Corpus.of(["plain text"], "one").windows(bare, 100, 6, part="all"))
    assert windows == [list(b"plain "), list(b"text")]


def test_own_text_is_the_same_for_the_same_seed() -> None:
    first, again, other = (list(own_text(model(), 3, seed, max_new_tokens=6).documents()) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == 3
    assert open_corpus(model(), "self", limit=1, seed=1).name == "self"


def test_a_name_is_a_file_first(tmp_path: Path) -> None:
    file = write(tmp_path, ".txt")
    assert list(open_corpus(model(), file, limit=1).documents()) == TEXTS[:1]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub with one data set, `org/set`."""
    write(tmp_path, ".txt")
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", ".parquet")

    class Api:
        def list_repo_files(self, repo: str, **_: object) -> list[str]:
            if repo != "org/set":
                raise HfHubHTTPError("404 Client Error: not found", response=_response())  # type: ignore[arg-type]
            return ["README.md", "texts.txt", "deep/texts.parquet", "deep/gone.txt"]

    def download(repo: str, name: str, **_: object) -> str:
        if name.endswith("gone.txt"):
            raise OSError("it went away")
        return str(tmp_path / name)

    monkeypatch.setattr(room, "HfApi", Api)
    monkeypatch.setattr(room, "hf_hub_download", download)
    return tmp_path


def _response() -> object:
    class Response:
        headers: dict[str, str] = {}  # noqa: RUF012
        request = None

    return Response()


@pytest.mark.usefixtures("hub")
def test_a_data_set_of_the_hub_is_read_file_by_file() -> None:
    documents = Corpus.read("org/set", limit=3).open()
    with pytest.raises(StorageError, match=r"deep/gone.txt of the data set org/set cannot be downloaded: it went away"):
        next(documents)
    with pytest.raises(ConfigError, match=r"the hub gives no data set org/none: 404 .*Check its id"):
        next(Corpus.read("org/none").open())
    with pytest.raises(ConfigError, match=r"the data set org/set holds no .txt, .* under nowhere/"):
        next(Corpus.read("org/set@main:nowhere").open())


@pytest.mark.usefixtures("hub")
def test_a_data_set_is_downloaded_no_further_than_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.HfApi, "list_repo_files", lambda *_, **__: ["texts.txt", "z/gone.txt"])
    assert list(Corpus.read("org/set@main", limit=3).open()) == TEXTS[:3]


def test_offline_a_data_set_comes_from_the_cache_or_the_error_says_so(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> list[str]:
        raise OfflineModeIsEnabled("offline mode is on")

    monkeypatch.setattr(room.HfApi, "list_repo_files", offline)
    with pytest.raises(ConfigError, match=r"org/never is no file or folder here, .*offline, .*local cache"):
        next(Corpus.read("org/never").open())
    monkeypatch.setattr(room, "snapshot_download", lambda *_, **__: str(hub))
    assert list(Corpus.read("org/set").documents()) == TEXTS
    with pytest.raises(ConfigError, match="local cache of the data set org/set holds no"):
        next(Corpus.read("org/set:nowhere").open())


@pytest.mark.parametrize(
    ("name", "body", "complaint"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": \n', r"a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b'{"body": "x", "n": 1}\n', r"a.jsonl, line 1 has no text under 'text': its keys are body, n"),
        ("a.jsonl", b"[1]\n", r"a.jsonl, line 1 has no text under 'text': it is no text"),
        ("a.txt", b"caf\xe9\n", r"a.txt is not UTF-8 text"),
        ("a.txt.gz", b"not zipped", r"a.txt.gz is no whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 99)[:-20], r"a.jsonl.gz is no whole gzip file"),
        ("b.jsonl.gz", DAMAGED, r"b.jsonl.gz is no whole gzip file"),
        ("a.parquet", b"PAR1 but no more", r"a.parquet is not a Parquet file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, body: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(ConfigError, match=complaint):
        list(Corpus.read(tmp_path).documents())


def test_a_parquet_column_must_be_there_and_hold_text(tmp_path: Path) -> None:
    file = write(tmp_path, ".parquet")
    with pytest.raises(ConfigError, match=r"has no column 'body': its columns are text, n"):
        list(Corpus.read(file, field="body").documents())
    with pytest.raises(ConfigError, match=r"column 'n' holds int64, not text"):
        list(Corpus.read(file, field="n").documents())


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"a.pdf is of no kind that can be read: give .txt"):
        Corpus.read(tmp_path / "a.pdf")
    with pytest.raises(ConfigError, match=r"holds no text to read: it takes .txt"):
        Corpus.read(tmp_path)
    with pytest.raises(ConfigError, match=r"no text at ./nowhere: give a file, a folder, or a hub data set"):
        Corpus.read("./nowhere")
    with pytest.raises(ConfigError, match="the limit is 0: read at least one"):
        Corpus.read(tmp_path, limit=0)
    gone = Corpus.read(write(tmp_path, ".txt"))
    (tmp_path / "texts.txt").unlink()
    with pytest.raises(StorageError, match=r"texts.txt cannot be read: No such file"):
        list(gone.documents())


def test_windows_that_cannot_be_are_refused() -> None:
    corpus = Corpus.of(TEXTS, "texts")
    with pytest.raises(ConfigError, match="n_tokens is 0"):
        corpus.windows(model(), 0, 16)
    with pytest.raises(ConfigError, match="windows are 999 tokens long: tiny takes 5 to 256"):
        corpus.windows(model(), 10, 999)
    with pytest.raises(ConfigError, match=r"texts holds no text of 4 tokens or more in its part 'heldout'"):
        list(Corpus.of(["document 0"], "texts").windows(model(), 10, 16, part="heldout"))
    marked = load("tiny")
    tokenizer: Any = marked.tokenizer
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> <s> $A", "$A $B", [("<s>", 256)])
    with pytest.raises(ConfigError, match="windows of 5 tokens leave no room: tiny begins with 2 marks"):
        list(corpus.windows(marked, 10, 5))


def test_text_needs_a_tokenizer_and_a_number() -> None:
    bare = from_net(load("tiny").net, name="bare")
    with pytest.raises(UsageError, match="bare has no tokenizer: text to fit on"):
        own_text(bare, 1, 0)
    with pytest.raises(UsageError, match="bare has no tokenizer: text to fit on"):
        list(Corpus.of(TEXTS, "texts").windows(bare, 10, 16))
    with pytest.raises(ConfigError, match="0 texts are asked for: at least one"):
        own_text(model(), 0, 0)
