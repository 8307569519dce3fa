"""Applying a meld: any order of candidates, all levels, the right version, a whole pack or none."""

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftw.map.meld.apply import Melded, apply, bumped, migration, next_version, write
from ftw.map.meld.diff import diff_packs
from ftw.map.meld.impact import PendingTraining
from ftw.map.registry.concept_pack import ConceptPack
from ftw.substrate.errors import PackError, StorageError
from tests.map.meld.test_perform import deprecate, merge, move, split
from tests.map.meld.zoo import NOW, candidate, meld, melded, operations, verdict, zoo

CHAIN = [candidate(f"C{n}", f"C{n - 1}" if n else "Speck") for n in range(6)]
"""Six candidates, each under the one before, below the deepest concept of the pack."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    zoo().save(tmp_path / "zoo")
    (tmp_path / "zoo" / "LICENCE").write_text("as you like")
    return tmp_path / "zoo"


def written(found: Melded, source: Path, name: str = "new") -> ConceptPack:
    write(found, source, source.parent / name)
    return ConceptPack.load(source.parent / name)


@settings(max_examples=20)
@given(st.permutations(range(len(CHAIN))))
def test_candidates_come_in_any_order_and_give_the_same_pack(order: list[int]) -> None:
    found = melded(meld(*[CHAIN[n] for n in order])).pack
    assert found.sha256 == melded(meld(*CHAIN)).pack.sha256
    assert found.concepts["C5"].level == 12


def test_counts_cover_every_level_however_deep() -> None:
    counts = melded(meld(*CHAIN)).pack.meta.concept_metadata
    assert counts["total_concepts"] == 15 + 6
    assert counts["layers"] == list(range(13))
    assert counts["layer_distribution"] == {"0": 3, "1": 4, "2": 4} | {str(n): 1 for n in range(3, 13)}
    assert "domain_distribution" not in counts


def test_counts_of_domains_and_words_are_kept_true_where_a_pack_gives_them() -> None:
    pack = zoo()
    meta = pack.meta.model_copy(update={"concept_metadata": {"domain_distribution": {}, "total_words": 1, "x": "kept"}})
    found = melded(meld(candidate("Bird", domain="")), ConceptPack(meta, pack.records.values()))
    counts = found.pack.meta.concept_metadata
    assert counts["domain_distribution"] == {"World": 16}
    assert counts["total_words"] == 30
    assert counts["x"] == "kept"


def test_a_candidate_without_a_domain_takes_that_of_its_branch() -> None:
    pack = melded(meld(candidate("Hen", "Bird", domain=""), candidate("Bird", domain=""))).pack
    assert pack.records["Hen"].domain == "World"


# version and history


@pytest.mark.parametrize(
    ("request_", "version"),
    [
        (meld(candidate("Bird")), "1.2.4"),
        (meld(candidate("Bird", examples=9, safety_tags={"risk_level": "medium"})), "1.2.4"),
        (meld(candidate("Bird", examples=9, safety_tags={"risk_level": "high"})), "1.3.0"),
        (meld(candidate("Bird", examples=9, safety_tags={"risk_level": "critical"})), "2.0.0"),
        (operations(move("Lion", "Cat", "Dog")), "1.3.0"),
        (operations(deprecate("Lion", "orphan_check")), "1.3.0"),
        (operations(split()), "2.0.0"),
        (operations(merge("Kitten", "Lion", to="Lion")), "2.0.0"),
    ],
)
def test_the_version_counts_by_protection_and_by_operation(request_: Any, version: str) -> None:
    found = verdict(request_)
    assert next_version(found) == version
    assert apply(found, now=NOW).pack.version == version


def test_a_version_that_does_not_count_is_an_error() -> None:
    with pytest.raises(PackError, match=r"zoo has the version 1\.0: a meld counts on from major\.minor\.patch"):
        bumped("1.0", 0, "zoo")


def test_the_pack_remembers_the_meld_and_refuses_it_again() -> None:
    request = meld(candidate("Bird"), metadata={"source": "external"})
    found = melded(request).pack
    assert found.meta.spec_id == "test/zoo@1.2.4"
    assert found.meta.base_version == "1.2.3"
    assert found.meta.melds_applied == [
        {
            "meld_result_id": "test/zoo@1.2.4::meld/test/more@1.0.0",
            "meld_request_id": "test/more@1.0.0",
            "melded_at": "2026-01-02T03:04:05+00:00",
            "concepts_added": 1,
            "source": "external",
            "protection_level": "standard",
        }
    ]
    assert found.records["Bird"].meld_source == "test/more@1.0.0"
    with pytest.raises(PackError, match="is among melds_applied"):
        melded(request, found)


def test_a_meld_with_errors_is_not_applied() -> None:
    bad = meld(*(candidate(f"Bird{n}", "Nowhere") for n in range(7)))
    with pytest.raises(PackError, match=r"test/more@1\.0\.0 cannot be applied to zoo: Bird0 has .* and 2 more"):
        apply(verdict(bad), now=NOW)


# the folder


def test_the_written_pack_loads_as_the_melded_one(source: Path) -> None:
    found = melded(
        meld(candidate("Bird"), candidate("Hen", "Bird"), structural_operations=[move("Lion", "Cat", "Dog")])
    )
    pack = written(found, source)
    assert pack.sha256 == found.pack.sha256
    assert dict(pack.concepts) == dict(found.pack.concepts)
    assert (source.parent / "new" / "LICENCE").read_text() == "as you like"
    assert not list(source.parent.glob(".new-*"))


def test_the_source_is_left_as_it_was(source: Path) -> None:
    before = {file: file.read_bytes() for file in source.rglob("*") if file.is_file()}
    written(melded(operations(split())), source)
    assert {file: file.read_bytes() for file in source.rglob("*") if file.is_file()} == before


def test_an_empty_folder_is_filled_and_a_full_one_is_refused(source: Path) -> None:
    (source.parent / "new").mkdir()
    written(melded(meld(candidate("Bird"))), source)
    with pytest.raises(StorageError, match="is not an empty folder"):
        written(melded(meld(candidate("Bird"))), source)
    (source.parent / "file").touch()
    with pytest.raises(StorageError, match="is not an empty folder"):
        written(melded(meld(candidate("Bird"))), source, "file")


@pytest.mark.parametrize("after", [0, 1, 5, 12])
def test_a_disk_that_fills_leaves_nothing_behind(source: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    left = iter(range(after))
    write_text = Path.write_text

    def full(self: Path, *args: Any, **kwargs: Any) -> int:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        write(melded(meld(candidate("Bird"))), source, source.parent / "new")
    assert sorted(path.name for path in source.parent.iterdir()) == ["zoo"]


KILLED = """
import os, signal, sys
from pathlib import Path
from ftw.map.meld import apply, read_meld, validate, write
from ftw.map.registry.concept_pack import ConceptPack
source, load = Path(sys.argv[1]), ConceptPack.load
verdict = validate(read_meld(Path(sys.argv[2])), load(source))
from datetime import UTC, datetime
melded = apply(verdict, now=datetime(2026, 1, 1, tzinfo=UTC))
ConceptPack.load = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
write(melded, source, Path(sys.argv[3]))
"""


def test_a_process_that_is_killed_leaves_no_half_pack(source: Path) -> None:
    file = source.parent / "more.json"
    file.write_text(meld(candidate("Bird")).model_dump_json(exclude_defaults=True))
    out = source.parent / "new"
    ran = subprocess.run([sys.executable, "-c", KILLED, str(source), str(file), str(out)], check=False)
    assert ran.returncode == -signal.SIGKILL
    assert not out.exists()
    written(melded(meld(candidate("Bird"))), source)


def test_a_folder_that_cannot_be_made_is_named(source: Path) -> None:
    (source.parent / "file").touch()
    with pytest.raises(StorageError, match=r"file/new: .*check the path"):
        write(melded(meld(candidate("Bird"))), source, source.parent / "file" / "new")


def test_what_is_written_is_read_back_before_it_counts(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = melded(meld(candidate("Bird")))
    monkeypatch.setattr(ConceptPack, "load", lambda folder: zoo())
    with pytest.raises(StorageError, match="what was written is not what was melded"):
        write(found, source, source.parent / "new")
    assert not (source.parent / "new").exists()


def test_steering_targets_of_the_hierarchy_are_kept(source: Path) -> None:
    file = source / "hierarchy.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"steering_targets": {"Cat": "Dog"}}))
    written(melded(meld(candidate("Bird"))), source)
    hierarchy = json.loads((source.parent / "new" / "hierarchy.json").read_text())
    assert hierarchy["steering_targets"] == {"Cat": "Dog"}
    assert "Bird" in hierarchy["parent_to_children"]["Animal"]


def test_steering_targets_name_what_stands_in_the_place_of_a_concept_that_is_gone(source: Path) -> None:
    file = source / "hierarchy.json"
    targets = {"Kitten": "Dog", "Dog": {"target": "Kitten:2", "weight": 1.0}, "Cat": ["Kitten", "Tool"]}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"steering_targets": targets}))
    written(melded(operations(merge("Kitten", "Lion", to="Lion"))), source)
    hierarchy = json.loads((source.parent / "new" / "hierarchy.json").read_text())
    assert hierarchy["steering_targets"] == {
        "Lion": "Dog",
        "Dog": {"target": "Lion", "weight": 1.0},
        "Cat": ["Lion", "Tool"],
    }


def test_migration_tells_where_things_went(source: Path) -> None:
    found = melded(
        operations(merge("Kitten", "Lion", to="Lion"), move("Lion", "Cat", "Dog"), deprecate("Cat", "orphan_check"))
    )
    assert migration(found) == {
        "from_version": "1.2.3",
        "to_version": "2.0.0",
        "replaced": {"Kitten": ["Lion"]},
        "moved": {"Lion": "Dog"},
        "deprecated": ["Cat"],
    }
    written(found, source)
    assert json.loads((source.parent / "new" / "migration.json").read_text()) == migration(found)


def test_a_meld_that_only_adds_needs_no_migration(source: Path) -> None:
    written(melded(meld(candidate("Bird"))), source)
    assert not (source.parent / "new" / "migration.json").exists()


# what waits for training


def test_pending_training_is_written_and_read_back(source: Path) -> None:
    found = melded(meld(candidate("Bird")))
    pending = write(found, source, source.parent / "new")
    assert PendingTraining.of(source.parent / "new") == pending == found.pending
    assert pending.needed == ["Bird", "Animal"]
    assert PendingTraining.of(source) is None


def test_two_melds_without_training_between_wait_together(source: Path) -> None:
    one = melded(meld(candidate("Bird", relationships={"antonyms": ["Tool"]}), candidate("Hen", "Bird")))
    first = written(one, source, "one")
    second = meld(meld_request_id="test/next@1.0.0", structural_operations=[merge("Bird", "Hen", to="Bird")])
    pending = write(melded(second, first), source.parent / "one", source.parent / "two")
    assert (pending.from_version, pending.to_version) == ("1.2.3", "2.0.0")
    assert pending.melds == ["test/more@1.0.0", "test/next@1.0.0"]
    assert pending.new == ["Bird"]
    assert pending.removed == []
    assert pending.must_retrain == ["Animal"]
    assert "Tool" in pending.should_retrain


def test_a_pending_file_that_is_malformed_is_named(source: Path) -> None:
    (source / "pending_training.json").write_text("{}")
    with pytest.raises(PackError, match=r"pending_training\.json: concept_pack: Field required"):
        write(melded(meld(candidate("Bird"))), source, source.parent / "new")


# simplexes


def test_a_meld_brings_its_simplexes_into_the_pack(source: Path) -> None:
    poles = {name: {"examples": [f"{name} {n}" for n in range(15)]} for name in ("negative", "null", "positive")}
    binding = {"simplex_term": "Calm", "poles": poles, "monitoring": {"baseline_window": 60}}
    request = meld(
        candidate("Bird", simplex_binding=binding),
        candidate("Mood", None, role="simplex", simplex_binding={"poles": poles}, related_concept="Cat"),
    )
    found = melded(request)
    assert found.pending.simplexes == ["Calm", "Mood"]
    assert found.diff.simplexes_added == ["Calm", "Mood"]
    assert "Mood" not in found.pack.records
    calm, mood = written(found, source).simplexes
    assert (calm.name, calm.concept, calm.monitoring.baseline_window) == ("Calm", "Bird", 60)
    assert (mood.name, mood.concept) == ("Mood", "Cat")
    again = meld(meld_request_id="test/next@1.0.0", structural_operations=[merge("Dog", "Cat", to="Dog")])
    renamed = melded(again, ConceptPack.load(source.parent / "new"))
    pack = renamed.pack
    assert renamed.diff.simplexes_changed == ["Mood"]
    assert diff_packs(pack, zoo()).simplexes_removed == ["Calm", "Mood"]
    assert {simplex.name: simplex.concept for simplex in pack.simplexes} == {"Calm": "Bird", "Mood": "Dog"}


def test_a_pack_is_not_written_into_the_one_that_it_comes_from(source: Path) -> None:
    with pytest.raises(StorageError, match=r"lies in .*, the pack that is melded"):
        write(melded(meld(candidate("Bird"))), source, source / "new")
    assert not (source / "new").exists()
