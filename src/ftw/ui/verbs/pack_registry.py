"""Packs that come and go: status, pull, push, fork, lock, verify and diff, as a person reads them."""

from dataclasses import asdict
from pathlib import Path

from rich.text import Text

from ftw.map.registry import Listed, Pulled, Registry, Status
from ftw.map.registry.backends import is_source, split_revision
from ftw.map.registry.names import KINDS, Kind, key_of
from ftw.map.registry.pull import Wish, listing
from ftw.substrate.config import Settings
from ftw.substrate.errors import ConfigError, NotThere, PackError, UsageError
from ftw.ui.cli.output import Out
from ftw.ui.visualization.figure import count, facts, foot, size, title

MEANS = {
    "ok": "as it was pulled, and the newest there is",
    "modified": "files were changed here",
    "outdated": "its source has a newer revision",
    "partial": "some of its levels are not here",
    "local": "made here, in no other place",
    "broken": "it cannot be read",
    "unknown": "its source could not be asked",
}


def run_status(out: Out, names: list[str], *, offline: bool) -> None:
    """How each pack stands, with a word on what each state means."""
    registry = _registry()
    with out.bar("Checking") as bar:
        found = registry.status(names, offline=offline, tell=bar)
    wrong = [each for each in found if not set(each.conditions) <= {"ok", "local", "partial"}]
    if not found:
        reading = "No pack was pulled; those that ship are in `ftw pack list`"
    elif wrong:
        reading = f"{count(len(wrong), 'pack')} of {len(found)} to look at"
    else:
        known = "as they were pulled" if offline else "as they were pulled, and the newest"
        reading = f"{count(len(found), 'pack')}, all {known}"
    out.show(title(reading))
    if found:
        out.show(Text(), facts({each.name: _state(each) for each in found}), sep="\n")
        used = dict.fromkeys(condition for each in found for condition in each.conditions)
        out.show(Text(), foot(*(f"{name}: {MEANS[name]}" for name in used)), sep="\n")
    out.document({"command": "pack status", "packs": [asdict(each) for each in found]})


def run_pull(
    out: Out,
    name: str | None,
    *,
    version: str | None,
    revision: str | None,
    source: str | None,
    levels: tuple[int, ...] | None,
    kind: str | None,
    force: bool,
    update: bool,
) -> None:
    """Installs one pack, or every pack that packs.lock pins."""
    registry = _registry()
    chosen = any(each is not None for each in (version, revision, source, levels, kind))
    if name is None:
        if chosen or update:
            raise UsageError(
                "without a pack's name all of packs.lock is pulled, exactly as pinned: leave the options out"
            )
        pins = registry.ground.lock().packs
        if not pins:
            raise UsageError("name a pack, or make a packs.lock with `ftw pack lock`: there is none here")
        wishes = [Wish(pin.kind, pin.name, force=force) for pin in pins]
    else:
        if source is None and is_source(name):
            name, source = _name_in(name), name
        meant = _kind(kind) or registry.kind_of(name, source)
        wishes = [Wish(meant, name, version, revision, source, levels, force, update)]
    done = []
    for wish in wishes:
        with out.bar(f"Looking for {wish.name}", "B") as bar:
            done.append(_pull(registry, wish, bar))
    for each in done:
        _tell_pulled(out, each)
    out.document({"command": "pack pull", "packs": [_pulled(each) for each in done]})


def run_push(
    out: Out, name: str, *, to: str | None, levels: tuple[int, ...] | None, message: str | None, kind: str | None
) -> None:
    """Puts a pack where others can pull it."""
    registry = _registry()
    meant = _kind(kind) or registry.kind_here(name)
    with out.busy(f"Pushing {name}"):
        if meant == "lens":
            done = registry.push_lens_pack(name, to, levels=levels, message=message)
        elif levels is not None:
            raise UsageError("a concept pack goes whole: levels can be chosen for lens packs")
        else:
            done = registry.push_concept_pack(name, to, message=message)
    if done.is_new:
        reading = f"Pushed {done.name} {done.version}"
        rows = {
            "to": done.source,
            "revision": _short(done.revision),
            "size": f"{count(done.n_files, 'file')}, {size(done.n_bytes)}",
        }
    else:
        reading = f"{done.name} {done.version} is there already, byte for byte"
        rows = {"at": done.source, "revision": _short(done.revision)}
    out.show(title(reading), Text(), facts(rows), sep="\n")
    out.document({"command": "pack push", **asdict(done)})


def run_fork(out: Out, name: str, new_name: str, *, kind: str | None) -> None:
    """Copies a pack under another name."""
    registry = _registry()
    meant = _kind(kind) or registry.kind_here(name)
    folder = registry.fork(name, new_name, kind=meant)
    entry = registry.ground.homes[meant].state().packs[new_name]
    out.show(title(f"{new_name} is a {meant} pack of its own, based on {entry.based_on}"), Text(), sep="\n")
    out.show(facts({"folder": str(folder), "size": size(entry.size_bytes)}))
    document = {"name": new_name, "kind": meant, "based_on": entry.based_on, "path": folder, "sha256": entry.sha256}
    out.document({"command": "pack fork", **document})


def run_lock(out: Out, *, check: bool, file: Path) -> None:
    """Writes packs.lock, or holds what is installed against it. Raises PackError where they differ."""
    registry = _registry(file)
    if check:
        if not file.is_file():
            raise NotThere(f"there is no {file}: make it with `ftw pack lock`")
        with out.busy("Hashing"):
            wrong = registry.check_lock()
        if wrong:
            raise PackError(f"what is installed is not what {file} pins: {'; '.join(wrong)}")
        pins = registry.ground.lock().packs
        out.show(title(f"{count(len(pins), 'pack')} as {file} pins them"))
    else:
        with out.busy("Hashing"):
            pins = registry.lock().packs
        out.show(title(f"{file} pins {count(len(pins), 'pack')}"))
    if pins:
        out.show(
            Text(), facts({pin.name: f"{pin.version}, {_short(pin.sha256)}, {pin.source}" for pin in pins}), sep="\n"
        )
    out.document({"command": "pack lock", "file": file, "packs": [pin.model_dump() for pin in pins]})


def run_verify(out: Out, name: str, *, kind: str | None) -> None:
    """Reads every byte of a pack. Raises PackError where it is not as it was pulled."""
    registry = _registry()
    with out.busy(f"Hashing {name}"):
        changed = registry.verify(name, kind=_kind(kind))
    if changed:
        raise PackError(
            f"{name} is not as it was recorded: {listing(changed)} differ. Pull it again with --force, or fork it"
        )
    out.show(title(f"{name} is byte for byte what it was"))
    out.document({"command": "pack verify", "name": name, "changed_files": list(changed)})


def run_diff(
    out: Out, name: str, *, version: str | None, revision: str | None, source: str | None, kind: str | None
) -> None:
    """What a pull would change."""
    registry = _registry()
    meant = _kind(kind) or registry.kind_of(name, source)
    wish = Wish(meant, name, version, revision, source, force=True, update=True)
    with out.busy(f"Comparing {name}"):
        commit, plan = registry.plan(wish)
    lenses = plan.lenses
    if plan.is_empty:
        reading = f"{name} is what its source has at {_short(commit)}"
    else:
        share = f" of {size(plan.n_bytes_whole)}" if plan.n_bytes < plan.n_bytes_whole else ""
        reading = f"A pull of {name} would fetch {size(plan.n_bytes)}{share}"
    rows = {
        "revision": _short(commit),
        "fetched whole": listing([file.path for file in plan.fetch], 6) or "nothing",
        "in parts": listing([patch.file.path for patch in plan.patches], 6) or "nothing",
        "removed": listing(plan.removed, 6) or "nothing",
    }
    if plan.patches or lenses != type(lenses)():
        gone = f"{len(lenses.removed)} gone, {lenses.n_same} the same"
        rows["lenses"] = f"{len(lenses.changed)} changed, {len(lenses.added)} new, {gone}"
        rows |= {"changed": listing(lenses.changed, 6)} if lenses.changed else {}
    out.show(title(reading), Text(), facts(rows), sep="\n")
    out.document(
        {
            "command": "pack diff",
            "name": name,
            "kind": meant,
            "revision": commit,
            "bytes": plan.n_bytes,
            "bytes_whole": plan.n_bytes_whole,
            "fetch": [file.path for file in plan.fetch],
            "parts": [patch.file.path for patch in plan.patches],
            "removed": plan.removed,
            "lenses": asdict(lenses),
        }
    )


def installed_rows(packs: list[Listed]) -> dict[str, str]:
    """What a list says of packs that were pulled or made here, by name."""
    rows = {}
    for each in packs:
        if each["source"] == "bundled":
            continue
        have, there = each["levels_installed"], each["levels_available"]
        levels = f", levels {', '.join(map(str, have or []))} of {len(there or [])}" if have != there else ""
        changed = ", modified" if each["modified"] else ""
        base = f", based on {each['based_on']}" if each["based_on"] else ""
        rows[each["name"]] = f"{each['version']}, {size(each['size_bytes'])}, {each['source']}{base}{levels}{changed}"
    return rows


def _registry(file: Path | None = None) -> Registry:
    return Registry.of(Settings.from_env(), file)


def _pull(registry: Registry, wish: Wish, bar: object) -> Pulled:
    common = {"revision": wish.revision, "source": wish.source, "force": wish.force, "update": wish.update, "tell": bar}
    if wish.kind == "lens":
        return registry.pull_lens_pack(wish.name, wish.version, levels=wish.levels, **common)  # type: ignore[arg-type]
    if wish.levels is not None:
        raise UsageError("a concept pack comes whole: levels can be chosen for lens packs")
    return registry.pull_concept_pack(wish.name, wish.version, **common)  # type: ignore[arg-type]


def _tell_pulled(out: Out, done: Pulled) -> None:
    if not done.is_new:
        out.show(title(f"{done.name} {done.version} is here already, and is what its source has"))
        return
    lenses = done.plan.lenses
    was = f" in place of {done.was}" if done.was and done.was != done.version else ""
    out.show(title(f"Pulled {done.name} {done.version}{was}"), Text(), sep="\n")
    fetched = size(done.n_bytes)
    if done.saved > 0.005:
        fetched += f" of {size(done.n_bytes_whole)}: {100 * done.saved:.0f} % was here"
    rows = {"from": done.source, "revision": _short(done.revision), "fetched": fetched}
    if done.plan.patches:
        rows["lenses"] = f"{len(lenses.changed)} changed, {len(lenses.added)} new, {lenses.n_same} the same"
    if done.levels is not None:
        rows["levels"] = ", ".join(map(str, done.levels))
    out.show(facts({**rows, "folder": str(done.path), "sha256": _short(done.sha256)}))


def _pulled(done: Pulled) -> dict[str, object]:
    lenses = done.plan.lenses
    return {
        "name": done.name,
        "kind": done.kind,
        "version": done.version,
        "was": done.was,
        "source": done.source,
        "revision": done.revision,
        "sha256": done.sha256,
        "path": done.path,
        "levels": done.levels,
        "is_new": done.is_new,
        "bytes": done.n_bytes,
        "bytes_whole": done.n_bytes_whole,
        "lenses": {"changed": lenses.changed, "added": lenses.added, "removed": lenses.removed, "same": lenses.n_same},
    }


def _state(each: Status) -> str:
    said = ", ".join(each.conditions)
    files = f" ({listing(each.changed_files)})" if each.changed_files else ""
    note = f" ({each.note})" if each.note else ""
    return f"{each.version}, {said}{files}{note}"


def _short(revision: str) -> str:
    """As much of a revision as tells it from others; `--json` has all of it."""
    return revision[:12]


def _kind(text: str | None) -> Kind | None:
    if text is None:
        return None
    found = next((kind for kind in KINDS if kind == text), None)
    if found is None:
        raise ConfigError(f"--kind is {text!r}: use concept or lens")
    return found


def _name_in(source: str) -> str:
    """The pack's name that an address ends in."""
    last = split_revision(source)[0].rstrip("/").rsplit("/", 1)[-1]
    return key_of(last.removesuffix(".git"))
