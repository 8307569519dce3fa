"""A meld applied: a new pack with a new version, its history, and what is still to be trained.

The rule of the file: the source pack is never touched, and the new one appears whole or not at all.
"""

import errno
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import JsonValue

from ftw.map.meld.diff import PackDiff, diff_packs
from ftw.map.meld.draft import Draft, followed
from ftw.map.meld.impact import PENDING, Impact, PendingTraining, impact_of, pending_of
from ftw.map.meld.operations import Merge, Split
from ftw.map.meld.policy import Protection
from ftw.map.meld.rules import VERSION
from ftw.map.meld.validate import Finding, Verdict
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import Hierarchy, PackRecord, bare, read_record
from ftw.map.registry.simplex_record import SIMPLEXES
from ftw.substrate.errors import PackError, StorageError

MIGRATION = "migration.json"
WRITTEN = frozenset({"pack.json", "hierarchy.json", PENDING, MIGRATION, SIMPLEXES})
"""Files that a melded pack writes anew; other files beside pack.json are copied."""
SHOWN = 5
"""Errors that a message quotes."""


@dataclass(frozen=True)
class Melded:
    """A pack with a meld in it, not yet written."""

    verdict: Verdict
    before: ConceptPack
    pack: ConceptPack
    diff: PackDiff
    impact: Impact
    pending: PendingTraining
    replaced: Mapping[str, tuple[str, ...]]
    """What stands in the place of each concept that is gone."""


def apply(verdict: Verdict, *, now: datetime) -> Melded:
    """The pack that a verdict is on, with the meld in it, one version on. Raises PackError where there are errors."""
    request, pack, draft = verdict.request, verdict.pack, verdict.draft
    if not verdict.is_valid:
        raise PackError(f"{request.meld_request_id} cannot be applied to {pack.name}: {_told(verdict.errors)}")
    after = draft.pack(_meta(verdict, now))
    diff = diff_packs(pack, after)
    impact = impact_of(pack, after, diff)
    known = {simplex.name for simplex in pack.simplexes}
    names = [simplex.name for simplex in after.simplexes if simplex.name not in known]
    pending = pending_of(pack, after, impact, meld=request.meld_request_id, simplexes=names)
    return Melded(verdict, pack, after, diff, impact, pending, dict(draft.replaced))


def write(melded: Melded, source: Path, out: Path) -> PendingTraining:
    """Write the pack into `out`, which must be new or empty, with what else `source` holds. Gives all pending training.

    Raises StorageError; then `out` is as it was.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StorageError(f"{out} is not an empty folder: a melded pack is written into a new one")
    if out.resolve().is_relative_to(source.resolve()):
        raise StorageError(f"{out} lies in {source}, the pack that is melded: choose a folder outside of it")
    pending = melded.pending.after(PendingTraining.of(source))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise StorageError(_medium(out, error)) from error
    try:
        inner = fresh / "pack"
        _fill(inner, melded, source, pending)
        if ConceptPack.load(inner).sha256 != melded.pack.sha256:
            raise StorageError(f"{out}: what was written is not what was melded; check the medium and try again")
        inner.replace(out)
    except OSError as error:
        raise StorageError(_medium(out, error)) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return pending


def next_version(verdict: Verdict) -> str:
    """The version that the pack will have. Raises PackError where it does not count as major.minor.patch."""
    return bumped(verdict.pack.version, _step(verdict), verdict.pack.name)


def bumped(version: str, step: int, name: str) -> str:
    """The next version: step 2 is major, 1 minor, 0 patch. Raises PackError unless it is major.minor.patch."""
    match = VERSION.fullmatch(version)
    if match is None:
        raise PackError(f"{name} has the version {version}: a meld counts on from major.minor.patch, such as 1.0.0")
    major, minor, patch = map(int, match.groups())
    return (f"{major}.{minor}.{patch + 1}", f"{major}.{minor + 1}.0", f"{major + 1}.0.0")[step]


def _step(verdict: Verdict) -> int:
    """Major: critical, or concepts split or merged. Minor: protected, or concepts moved or marked. Else patch."""
    level = verdict.protection.level
    operations = verdict.request.structural_operations
    if level == Protection.CRITICAL or any(isinstance(each, Split | Merge) for each in operations):
        return 2
    if level == Protection.PROTECTED or operations:
        return 1
    return 0


def _meta(verdict: Verdict, now: datetime) -> PackRecord:
    old, request, draft = verdict.pack.meta, verdict.request, verdict.draft
    version = next_version(verdict)
    added = [term for term in draft.records if term not in verdict.pack.records]
    spec = f"{old.spec_id.rpartition('@')[0]}@{version}" if "@" in old.spec_id else old.spec_id
    entry: dict[str, JsonValue] = {
        "meld_result_id": f"{spec or old.pack_id}::meld/{request.meld_request_id}",
        "meld_request_id": request.meld_request_id,
        "melded_at": now.isoformat(),
        "concepts_added": len(added),
        "source": request.metadata.source,
        "protection_level": verdict.protection.level.word,
    }
    applied = old.melds_applied if isinstance(old.melds_applied, list) else []
    return old.model_copy(
        update={
            "version": version,
            "spec_id": spec,
            "base_version": old.version,
            "melds_applied": [*applied, entry],
            "concept_metadata": _counts(old.concept_metadata, draft),
        }
    )


def _counts(old: Mapping[str, JsonValue], draft: Draft) -> dict[str, JsonValue]:
    """Every count that pack.json gives, for the tree as it is now: all levels, however deep."""
    levels = Counter(len(draft.ancestors(term)) for term in draft.records)
    domains = Counter(record.domain or "Unknown" for record in draft.records.values())
    layers: list[JsonValue] = [*sorted(levels)]
    spread: dict[str, JsonValue] = {str(level): levels[level] for level in sorted(levels)}
    counts: dict[str, JsonValue] = {
        "total_concepts": len(draft.records),
        "layers": layers,
        "layer_distribution": spread,
    }
    if "domain_distribution" in old:
        counts["domain_distribution"] = {domain: domains[domain] for domain in sorted(domains)}
    if "total_words" in old:
        counts["total_words"] = sum(len(record.wordnet.lemmas) for record in draft.records.values())
    return {**old, **counts}


def _fill(folder: Path, melded: Melded, source: Path, pending: PendingTraining) -> None:
    melded.pack.save(folder)
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name not in WRITTEN:
            shutil.copy2(file, folder / file.name)
    old = read_record(Hierarchy, source / "hierarchy.json")
    if old.steering_targets is not None:
        targets = _renamed(old.steering_targets, melded.replaced)
        kept = melded.pack.hierarchy().model_copy(update={"steering_targets": targets})
        _json(folder / "hierarchy.json", kept.model_dump(mode="json", exclude_defaults=True))
    _json(folder / PENDING, pending.model_dump(mode="json"))
    if melded.replaced or melded.diff.moved or melded.diff.deprecated:
        _json(folder / MIGRATION, migration(melded))


def _renamed(value: JsonValue, replaced: Mapping[str, tuple[str, ...]]) -> JsonValue:
    """A JSON value in which concepts that are gone, as keys too, are called what stands first in their place."""
    if isinstance(value, str):
        term = str(bare(value))
        return followed(term, replaced)[0] if term in replaced else value
    if isinstance(value, list):
        return [_renamed(each, replaced) for each in value]
    if isinstance(value, dict):
        return {str(_renamed(key, replaced)): _renamed(each, replaced) for key, each in value.items()}
    return value


def migration(melded: Melded) -> dict[str, JsonValue]:
    """What a user of the old version has to change: concepts that are gone with what stands instead, and new places."""
    gone: dict[str, JsonValue] = {term: [*instead] for term, instead in sorted(melded.replaced.items())}
    moved: dict[str, JsonValue] = {each.concept: each.to_parent for each in melded.diff.moved}
    return {
        "from_version": melded.before.version,
        "to_version": melded.pack.version,
        "replaced": gone,
        "moved": moved,
        "deprecated": [*melded.diff.deprecated],
    }


def _json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _told(errors: Sequence[Finding]) -> str:
    shown = "; ".join(str(error) for error in errors[:SHOWN])
    return shown + (f"; and {len(errors) - SHOWN} more" if len(errors) > SHOWN else "")


def _medium(path: Path, error: OSError) -> str:
    hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the path and its permissions"
    return f"{path}: {error.strerror or error}; {hint}"
