"""What a source may send to harm: paths, sizes, links, files that break readers; and what may change here meanwhile."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftw.map.registry import Ground, Registry
from ftw.map.registry.backends import RemoteFile
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import DEEPEST, ConceptRecord, PackRecord
from ftw.map.registry.fetch import Counter, nobody, side_by_side
from ftw.map.registry.hub import HubBackend
from ftw.map.registry.opened import OpenedLens
from ftw.substrate.errors import NotThere, PackError, RemoteError, StorageError, UsageError
from tests.hub_server import Hub
from tests.map.registry.packs import concept_pack, lens_pack, tree_of
from tests.map.registry.test_folder_git import bare, git

__all__ = ["bare"]
SHA = "0" * 64


class Source:
    """A source that lists and sends what a test says."""

    source = "file:/hostile"

    def __init__(self, tree: dict[str, bytes], *extra: RemoteFile) -> None:
        self.tree, self.extra = tree, extra

    def versions(self) -> dict[str, str]:
        return {}

    def commit(self, revision: str | None) -> str:
        return "c" * 40

    def files(self, commit: str) -> tuple[RemoteFile, ...]:
        return (*(RemoteFile(path, len(data)) for path, data in self.tree.items()), *self.extra)

    def stream(self, commit: str, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        yield self.tree.get(file.path, b"")[start:stop]

    def push(self, upload: object) -> str:
        return ""


@pytest.fixture
def pulled_from(registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Pulls a lens pack from a source whose files a test turns."""
    tree = tree_of(lens_pack(tmp_path / "made"))

    def pull(*extra: RemoteFile, **files: bytes) -> object:
        turned = {**tree, **{name.replace("__", "."): data for name, data in files.items()}}
        monkeypatch.setattr("ftw.map.registry.pull.open_backend", lambda text, work: Source(turned, *extra))
        return registry.pull_lens_pack("toy_small", source="file:/hostile")

    yield pull
    assert registry.ground.homes["lens"].names() == []


@pytest.mark.parametrize(
    ("file", "error", "told"),
    [
        (RemoteFile("a" * 300, 1), StorageError, "File name too long"),
        (RemoteFile("/".join(["a" * 200] * 30), 1), StorageError, "File name too long"),
        (RemoteFile("pack.json", 1), PackError, r"lists pack\.json twice"),
        (RemoteFile("x", -5), PackError, "lists x twice, or with no size"),
        (RemoteFile("x", 10**15), StorageError, "MB free, the pull needs 1000000017 MB"),
        (RemoteFile("x", 5), RemoteError, "ended x at 0 of 5 bytes, 3 times in a row"),
        (RemoteFile("a\udcffb", 1), PackError, "a pack holds plain relative paths only"),
    ],
)
def test_a_listing_that_cannot_be_is_refused(pulled_from, file: RemoteFile, error: type[Exception], told: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=told):
        pulled_from(file)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("pack__json", b"[" * 100_000),
        ("index__json", b"[" * 100_000),
        ("pack__json", b"\xff\xfe"),
        ("level0__safetensors", (100_000).to_bytes(8, "little") + b"[" * 100_000),
        ("level0__safetensors", (2**63).to_bytes(8, "little") + b"{}"),
    ],
)
def test_a_file_that_would_break_its_reader_is_told_and_not_installed(pulled_from, name: str, data: bytes) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PackError, match="is broken and not installed"):
        pulled_from(**{name: data})


def test_a_header_of_absurd_length_is_not_read_into_memory(registry: Registry, tmp_path: Path) -> None:
    shared = lens_pack(tmp_path / "shared", storage="float32")
    registry.pull_lens_pack("toy_small", source=str(shared))
    lens_pack(shared, "1.1.0", changed=("Food03",), storage="float32")
    file = shared / "level1.safetensors"
    file.write_bytes((2**40).to_bytes(8, "little") + file.read_bytes()[8:])
    with pytest.raises(PackError, match="has a header of 1099511627784 bytes: it is damaged there"):
        registry.pull_lens_pack("toy_small")


def test_the_registrys_own_files_are_not_taken_from_a_source(registry: Registry, tmp_path: Path) -> None:
    shared = lens_pack(tmp_path / "shared")
    for name in (".registry.json", ".entry.json", ".git"):
        (shared / name).write_text("{")
    pulled = registry.pull_lens_pack("toy_small", source=str(shared))
    assert not [each.name for each in pulled.path.iterdir() if each.name.startswith(".")]
    assert registry.status()[0].conditions == ("ok",)


@pytest.mark.parametrize("term", ["../../x", "a/b", "a\\b", ".hidden", "a\nb"])
def test_a_term_that_would_be_a_path_is_refused(tmp_path: Path, term: str) -> None:
    made = concept_pack(tmp_path / "made")
    file = made / "concepts" / "layer1" / "food00.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"term": term}))
    with pytest.raises(PackError, match="a term names a file: no slashes"):
        ConceptPack.load(made)


def test_a_tree_that_is_too_deep_is_refused_and_the_deepest_one_loads(tmp_path: Path) -> None:
    chain = [
        {"term": f"T{n}", "layer": n, "definition": "x", "parent_concepts": [f"T{n - 1}"] if n else []}
        for n in range(DEEPEST + 2)
    ]
    records = [ConceptRecord.model_validate(each) for each in chain[:-1]]
    pack = ConceptPack(PackRecord(pack_id="deep", version="1"), records)
    assert len(pack.descendants("T0")) == len(pack.ancestors(f"T{DEEPEST}")) == DEEPEST
    pack.save(tmp_path / "deep")
    (tmp_path / "deep" / "concepts" / f"layer{DEEPEST + 1}").mkdir()
    (tmp_path / "deep" / "concepts" / f"layer{DEEPEST + 1}" / "x.json").write_text(json.dumps(chain[-1]))
    with pytest.raises(PackError, match="layer: Input should be less than or equal to 99"):
        ConceptPack.load(tmp_path / "deep")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        (
            "parent_to_children",
            {"Food": ["Food00"], "Weather": ["Food00"]},
            "gives Food00 two parents, Food and Weather",
        ),
        ("root_concepts", ["Food00"], "root_concepts names Food00, which is no root"),
    ],
)
def test_a_hierarchy_that_tells_another_story_is_refused(tmp_path: Path, field: str, value: object, told: str) -> None:
    made = concept_pack(tmp_path / "made")
    file = made / "hierarchy.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(PackError, match=told):
        ConceptPack.load(made)


@pytest.mark.parametrize("target", ["git", "folder"])
def test_a_push_follows_no_link_that_lies_at_its_target(
    registry: Registry, tmp_path: Path, bare: str, target: str
) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    there = lens_pack(tmp_path / "there")
    (there / "level0.safetensors").unlink()
    (there / "level0.safetensors").symlink_to(tmp_path / "mine.txt")
    git("init", "-q", "-b", "main", at=there)
    git("add", "-A", at=there)
    git("commit", "-qm", "x", at=there)
    git("push", "-q", bare.removeprefix("git+"), "main", at=there)
    made = str(lens_pack(tmp_path / "made"))
    if target == "folder":
        with pytest.raises(PackError, match="is a link: a pack holds plain files"):
            registry.push_lens_pack(made, str(there), levels=[0])
    else:
        registry.push_lens_pack(made, bare, levels=[0])
        assert registry.pull_lens_pack("toy_small", source=bare).levels == (0, 1)
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_a_push_goes_byte_for_byte_and_leaves_what_is_no_part_of_a_pack(
    registry: Registry, tmp_path: Path, bare: str
) -> None:
    there = concept_pack(tmp_path / "there", "0.9.0")
    (there / ".gitattributes").write_text("* text=auto eol=lf\n")
    (there / ".gitignore").write_text("*.json\n")
    (there / "old.md").write_text("old")
    git("init", "-q", "-b", "main", at=there)
    git("add", "-Af", at=there)
    git("commit", "-qm", "x", at=there)
    git("push", "-q", bare.removeprefix("git+"), "main", at=there)
    made = concept_pack(tmp_path / "made")
    (made / "notes.md").write_bytes(b"a\r\nb\r\n")
    registry.push_concept_pack(str(made), bare)
    registry.push_concept_pack(str(made), str(there))
    back = registry.pull_concept_pack("small", source=bare).path
    assert {k: v for k, v in tree_of(back).items() if k != "README.md"} == tree_of(made)
    listed = subprocess.run(
        ["git", "-C", bare.removeprefix("git+file://"), "ls-tree", "-r", "--name-only", "main"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert {".gitattributes", ".gitignore"} <= set(listed)
    assert (there / ".git").is_dir()
    assert not {"old.md"} & {*listed, *(p.name for p in there.iterdir())}


def test_a_push_that_fails_leaves_nothing_beside_its_target(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    made, target = lens_pack(tmp_path / "made"), tmp_path / "shared" / "pack"
    monkeypatch.setattr("ftw.map.registry.folder.shutil.copyfile", full)
    with pytest.raises(StorageError, match="No space left on device"):
        registry.push_lens_pack(str(made), str(target))
    assert list(target.parent.iterdir()) == []


def test_a_push_that_another_one_overtook_is_refused(
    hub: Hub, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = concept_pack(tmp_path / "made")
    repo = hub.repo("org/concept-pack-small")
    files = HubBackend.files

    def overtaken(backend: HubBackend, commit: str) -> tuple[RemoteFile, ...]:
        found = files(backend, commit)
        repo.commit({"pack.json": b"theirs"})
        return found

    monkeypatch.setattr(HubBackend, "files", overtaken)
    with pytest.raises(RemoteError, match=r"got another push meanwhile \(412\)"):
        registry.push_concept_pack(str(made), "org/concept-pack-small")
    assert repo.trees[repo.commits[-1]] == {"pack.json": b"theirs"}
    assert repo.tags == {}


def test_what_was_staged_and_changed_since_is_fetched_again(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    shared = lens_pack(tmp_path / "shared")
    pulled = registry.pull_lens_pack("toy_small", source=str(shared))
    lens_pack(shared, "1.1.0", changed=("Food03",))
    kept = {path for path, data in tree_of(shared).items() if tree_of(pulled.path).get(path) == data}
    assert "level0.safetensors" in kept
    registry.ground.homes["lens"].install, install = _fails, registry.ground.homes["lens"].install  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="not now"):
        registry.pull_lens_pack("toy_small")
    registry.ground.homes["lens"].install = install  # type: ignore[method-assign]
    data = bytearray((pulled.path / "level0.safetensors").read_bytes())
    data[-1] ^= 1  # in place: what was staged may be the same file under another name
    (pulled.path / "level0.safetensors").write_bytes(data)
    again = registry.pull_lens_pack("toy_small", force=True)
    assert tree_of(again.path) == tree_of(shared)
    assert registry.verify("toy_small") == ()


def _fails(*args: object) -> Path:
    raise StorageError("not now")


@pytest.mark.parametrize("call", ["find", "names"])
def test_a_pack_whose_swap_was_cut_off_is_found_by_the_first_call(
    registry: Registry, tmp_path: Path, call: str
) -> None:
    home = registry.ground.homes["lens"]
    pulled = registry.pull_lens_pack("toy_small", source=str(lens_pack(tmp_path / "made")))
    (pulled.path / "index.json").write_text("changed here")
    pulled.path.rename(home.folder / ".toy_small.old")
    if call == "names":
        assert registry.status(offline=True)[0].conditions == ("modified",)
    else:
        with pytest.raises(PackError, match="toy_small was changed here since it was pulled"):
            registry.pull_lens_pack("toy_small")


def test_an_interrupt_stops_what_is_under_way() -> None:
    counter = Counter(1, nobody, "x")

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            side_by_side([lambda: _until(counter)] * 20, counter)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert counter.stopped.is_set()


def _until(counter: Counter) -> None:
    counter.stopped.wait(20)
    time.sleep(0)


def test_a_name_that_is_not_here_is_told_without_a_source_being_asked(hub: Hub, registry: Registry) -> None:
    for call in (registry.verify, registry.kind_here):
        with pytest.raises(NotThere, match="no pack typo is here: `ftw pack list`"):
            call("typo")
    with pytest.raises(NotThere, match="no pack typo is here"):
        registry.fork("typo", "mine")
    assert hub.requests == []


def test_a_folder_whose_name_holds_an_at_is_one_source(registry: Registry, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "lenses@2")
    assert registry.pull_lens_pack("toy_small", source=str(made)).source == f"file:{made}"
    lens_pack(made, "1.1.0", changed=("Food03",))
    assert registry.status()[0].conditions == ("outdated",)
    assert registry.pull_lens_pack("toy_small").version == "1.1.0"


def test_levels_that_are_asked_for_come_beside_those_that_are_here(registry: Registry, tmp_path: Path) -> None:
    shared = str(lens_pack(tmp_path / "shared"))
    assert registry.pull_lens_pack("toy_small", source=shared, levels=[0]).levels == (0,)
    assert registry.pull_lens_pack("toy_small", levels=[1]).levels == (0, 1)


def test_a_lens_on_a_level_that_is_not_here_brings_it_at_the_revision_that_is_here(
    hub: Hub, registry: Registry, tmp_path: Path
) -> None:
    repo = hub.repo("org/lens-toy-small")
    first = repo.commit(tree_of(lens_pack(tmp_path / "1")))
    registry.pull_lens_pack("toy_small", levels=[0])
    repo.commit(tree_of(lens_pack(tmp_path / "2", "1.1.0", changed=("Food03",))))
    lens = registry.load_lens_pack("toy_small", concept="Food03")
    assert isinstance(lens, OpenedLens)
    assert registry.list_lens_packs()[0]["revision"] == first
    assert registry.status()[0].conditions == ("outdated",)


def test_a_pin_stands_for_its_levels_and_no_others(ground: Ground, tmp_path: Path) -> None:
    registry = Registry(ground)
    registry.pull_lens_pack("toy_small", source=str(lens_pack(tmp_path / "shared")))
    registry.lock()
    elsewhere = Registry(Ground(tmp_path / "other", "org", ground.lockfile, pause=lambda s: None))
    with pytest.raises(UsageError, match=r"packs\.lock pins all levels of toy_small: leave --levels out"):
        elsewhere.pull_lens_pack("toy_small", levels=[0])
    elsewhere.load_lens_pack("toy_small", layer=0)
    assert elsewhere.check_lock() == []


def test_both_kinds_of_one_name_are_told(registry: Registry, tmp_path: Path) -> None:
    registry.pull_concept_pack("twin", source=str(concept_pack(tmp_path / "c", name="twin")))
    registry.pull_lens_pack("twin", source=str(lens_pack(tmp_path / "l", name="twin")))
    assert [each.kind for each in registry.status(["twin"], offline=True)] == ["concept", "lens"]
    with pytest.raises(UsageError, match="there is a concept pack and a lens pack twin: say which with --kind"):
        registry.kind_here("twin")
