"""Pack meld: what is wrong with a meld, the pack that it makes, and what changed between two packs."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ftw.map.meld.apply import Melded, apply, next_version, write
from ftw.map.meld.diff import PackDiff, diff_packs
from ftw.map.meld.impact import Impact, PendingTraining, impact_of
from ftw.map.meld.policy import Protection
from ftw.map.meld.request import MeldRequest, read_meld
from ftw.map.meld.synsets import Synsets
from ftw.map.meld.validate import Finding, Verdict, validate
from ftw.map.ontology.wordnet import HOME
from ftw.map.registry.concept_pack import ConceptPack
from ftw.ui.app import concept_folder, open_concepts
from ftw.ui.cli.output import Out
from ftw.ui.visualization.figure import count, facts, foot, title
from ftw.ui.visualization.palette import grey

SHOWN = 12
"""Findings, reasons or changes of one kind that are named; the rest is counted."""
NAMED = 8
"""Concepts that stand in one row."""


def run_validate(out: Out, file: Path, name: str, *, wordnet: Path | None) -> bool:
    """Draw the verdict on a meld, or give its document. True where it can be applied."""
    request, _, pack = _read(file, name)
    verdict = _judge(request, pack, file.name, wordnet)
    impact = impact_of(pack, verdict.draft.pack(pack.meta)) if verdict.is_valid else None
    _draw_verdict(out, verdict, impact)
    out.document({"command": "pack meld validate", **_verdict_record(verdict, impact)})
    return verdict.is_valid


def run_apply(out: Out, file: Path, name: str, folder: Path, *, wordnet: Path | None) -> bool:
    """Write the melded pack and say what it changes. False, and nothing written, where the meld is not valid."""
    request, source, pack = _read(file, name)
    verdict = _judge(request, pack, file.name, wordnet)
    if not verdict.is_valid:
        _draw_verdict(out, verdict, None)
        out.document({"command": "pack meld apply", **_verdict_record(verdict, None), "folder": None})
        return False
    melded = apply(verdict, now=datetime.now(UTC))
    pending = write(melded, source, folder.expanduser())
    _draw_applied(out, melded, folder, pending)
    record = {"folder": folder, "pack": _named(melded.pack), "pending_training": pending.model_dump()}
    out.document(
        {"command": "pack meld apply", **_verdict_record(verdict, melded.impact), **record}
        | {"diff": melded.diff.model_dump()}
    )
    return True


def run_diff(out: Out, before: str, after: str) -> None:
    """Draw what changed between two packs, or give its document."""
    old, new = (open_concepts(name) for name in (before, after))
    found = diff_packs(old, new)
    impact = impact_of(old, new, found)
    told = f"{found.before.name} {found.before.version} and {found.after.name} {found.after.version}"
    if found.is_empty:
        out.show(title(f"{told} say the same of the same {count(len(old.concepts), 'concept')}"))
    else:
        out.show(title(f"{told}: {_changes(found)}"), Text(), *_difference(found), Text(), sep="\n")
        out.show(*_lenses(impact), sep="\n")
    out.show(Text(), foot(f"sha256 {found.before.sha256[:8]}, {found.after.sha256[:8]}", out.command), sep="\n")
    out.document({"command": "pack meld diff", **found.model_dump(), "impact": _impact_record(impact)})


def _read(file: Path, name: str) -> tuple[MeldRequest, Path, ConceptPack]:
    request = read_meld(file.expanduser())
    source = concept_folder(name)
    return request, source, ConceptPack.load(source)


def _judge(request: MeldRequest, pack: ConceptPack, file_name: str, wordnet: Path | None) -> Verdict:
    return validate(request, pack, file_name=file_name, synsets=_synsets(request, wordnet))


def _synsets(request: MeldRequest, folder: Path | None) -> Synsets | None:
    """Where synsets are looked up: in the named WordNet, else in Debian's if it is there and the meld names any."""
    names_any = any(each.wordnet.synsets or each.wordnet.canonical_synset for each in request.candidates)
    if folder is None and not (names_any and (HOME / "index.noun").is_file()):
        return None
    return Synsets(folder or HOME)


def _draw_verdict(out: Out, verdict: Verdict, impact: Impact | None) -> None:
    pack, name, level = verdict.pack, verdict.request.meld_request_id, verdict.protection.level.word
    found = f"{count(len(verdict.errors), 'error')}, {count(len(verdict.warnings), 'warning')}"
    if verdict.is_valid:
        reading = f"{name} can be applied to {pack.name} {pack.version}: {count(len(verdict.warnings), 'warning')}, "
        reading += f"protection {level}"
    else:
        reading = f"{name} cannot be applied to {pack.name} {pack.version}: {found}"
    parts = [*_findings(verdict.errors), *_findings(verdict.warnings), *_reasons(verdict)]
    parts += _lenses(impact) if impact is not None else []
    out.show(title(reading), *(line for part in parts for line in (Text(), part)), sep="\n")
    version = f"next version {next_version(verdict)}" if verdict.is_valid else ""
    out.show(Text(), foot(_size(verdict.request), version, out.command), sep="\n")


def _size(request: MeldRequest) -> str:
    parts = [count(len(request.candidates), "candidate")]
    if request.structural_operations:
        parts.append(count(len(request.structural_operations), "operation"))
    return ", ".join(parts)


def _findings(findings: Sequence[Finding]) -> Iterable[Text | Table]:
    if not findings:
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style=grey(), no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings[:SHOWN]:
        table.add_row(Text(f"  {finding.kind}"), Text(str(finding)))
    if len(findings) > SHOWN:
        table.add_row(Text(""), Text(f"and {len(findings) - SHOWN} more: --json lists them", grey()))
    yield table


def _reasons(verdict: Verdict) -> Iterable[Text | Table]:
    """Why the level is what it is: the reasons of that level."""
    level = verdict.protection.level
    if level == Protection.STANDARD:
        return
    reasons = [reason for reason in verdict.protection.reasons if reason.level == level]
    shown = [f"{reason.concept} {reason.what}".strip() for reason in reasons[:NAMED]]
    more = [f"and {len(reasons) - NAMED} more"] * (len(reasons) > NAMED)
    yield facts({f"{level.word} because": "\n".join([*shown, *more])})


def _lenses(impact: Impact, first: Mapping[str, str] | None = None) -> Iterable[Text | Table]:
    """What has to happen to which lenses, in one table with what is to stand `first`."""
    rows = {
        "train": impact.new,
        "must retrain": impact.must,
        "should retrain": impact.should,
        "may retrain": impact.optional,
        "lenses to drop": impact.removed,
    }
    told = {name: _terms(terms) for name, terms in rows.items() if terms}
    yield facts({**(first or {}), **(told or {"lenses": "none is called into question"})})


def _terms(terms: Sequence[str]) -> str:
    more = f" and {len(terms) - NAMED} more" if len(terms) > NAMED else ""
    return f"{len(terms)}: {', '.join(terms[:NAMED])}{more}"


def _draw_applied(out: Out, melded: Melded, folder: Path, pending: PendingTraining) -> None:
    reading = f"{melded.pack.name} {melded.pack.version} is written: {_changes(melded.diff)}"
    out.show(title(reading), Text(), *_lenses(melded.impact, {"folder": str(folder)}), sep="\n")
    verdict = melded.verdict
    told = f"{count(len(verdict.warnings), 'warning')}, protection {verdict.protection.level.word}"
    lenses = f"pending_training.json waits for {count(len(pending.needed), 'lens', 'lenses')}"
    out.show(Text(), foot(f"from {melded.before.version}", told, lenses, out.command), sep="\n")


def _changes(found: PackDiff) -> str:
    parts = {
        "added": len(found.added),
        "removed": len(found.removed),
        "moved": len(found.moved),
        "changed": len(found.changed),
    }
    told = [f"{n} {what}" for what, n in parts.items() if n]
    if not told:
        return "no concept changed"
    first, _, rest = told[0].partition(" ")
    return ", ".join([f"{count(int(first), 'concept')} {rest}", *told[1:]])


def _difference(found: PackDiff) -> Iterable[Table]:
    rows: list[tuple[str, list[str]]] = [
        ("added", [f"{each.concept} under {each.parent or 'nothing'}: {each.definition}" for each in found.added]),
        ("removed", found.removed),
        (
            "moved",
            [f"{m.concept} from {m.from_parent or 'nothing'} to {m.to_parent or 'nothing'}" for m in found.moved],
        ),
        ("changed", [f"{each.concept}: {', '.join(each.fields)}" for each in found.changed]),
        ("simplexes added", found.simplexes_added),
        ("simplexes removed", found.simplexes_removed),
        ("simplexes changed", found.simplexes_changed),
    ]
    table = Table.grid(padding=(0, 2))
    table.add_column(style=grey(), no_wrap=True)
    table.add_column(overflow="fold")
    for what, lines in rows:
        for number, line in enumerate(lines[:SHOWN]):
            table.add_row(Text(f"  {'' if number else what}"), Text(line))
        if len(lines) > SHOWN:
            table.add_row(Text(""), Text(f"and {len(lines) - SHOWN} more: --json lists them", grey()))
    yield table


def _verdict_record(verdict: Verdict, impact: Impact | None) -> dict[str, object]:
    protection = verdict.protection
    return {
        "meld": verdict.request.meld_request_id,
        "for": _named(verdict.pack),
        "valid": verdict.is_valid,
        "protection": {
            "level": protection.level.word,
            "reasons": [
                {"concept": r.concept, "trigger": r.trigger, "level": r.level.word, "what": r.what}
                for r in protection.reasons
            ],
        },
        "errors": verdict.errors,
        "warnings": verdict.warnings,
        "next_version": next_version(verdict) if verdict.is_valid else None,
        "impact": None if impact is None else _impact_record(impact),
    }


def _impact_record(impact: Impact) -> dict[str, object]:
    return {
        "train": impact.new,
        "must_retrain": impact.must,
        "should_retrain": impact.should,
        "optional_retrain": impact.optional,
        "removed": impact.removed,
    }


def _named(pack: ConceptPack) -> dict[str, str]:
    return {"name": pack.name, "version": pack.version, "sha256": pack.sha256}
