"""Writes the legacy files of a run, and the one that says that a run failed.

| file | when | rows |
|---|---|---|
| output-M.json | always; of a failed run `status` and `error` | |
| output-M-records.csv | always | passes x positions x (n + 1); of facts after the first, positions that were read |
| output-M-pure-next-token.csv | always | passes x (n + 1) |
| output-M-{records,pure-next-token}-prism.csv | a Prism lens in the run | as above |
| output-M-{records,pure-next-token}-tuned.csv | extended, a tuned lens in the run | as above, without layer 0 |
| output-M-pure-next-token-rawlens.csv | extended, the raw view in the run | passes x (n + 1) |
| output-M-pure-next-token-rawlens-window.csv | extended, a window in the audit | 2 per layer |
| output-M-pure-next-token-tuned-variants.csv | extended, a tuned lens | n |
| output-M-positions-tuned-audit.csv | extended, a tuned lens | places read x n |
| output-M-milestones.csv | extended | 4 |
| output-M-artifact-audit.csv | extended, the raw view | 1 + n + 1 |
| evaluation-M.md | always | a stub to write into |

The rule of the file: a file is written whole under another name and then put in its place. JSON is always JSON.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ftw.substrate.errors import StorageError
from ftw.substrate.manifest import write_atomically
from ftw.sweep.legacy import columns, dialect, extended, pack, raw, seed, sidecar
from ftw.sweep.legacy.columns import Schema
from ftw.sweep.legacy.emit import Emitter
from ftw.sweep.legacy.everywhere import Everywhere
from ftw.sweep.legacy.names import file_name, model_part, stamp_name
from ftw.sweep.legacy.passes import Pass
from ftw.sweep.legacy.records import cells
from ftw.sweep.legacy.source import Source, Studied

Row = Mapping[str, Any]


def export(
    study: Studied,
    folder: Path,
    *,
    schema: Schema = "seed",
    began: datetime | None = None,
    everywhere: Everywhere | None = None,
) -> list[Path]:
    """Writes the files of a run into a folder, which is made where it is not there, and gives them in order.

    `began` adds the file that says when. `everywhere` are the baseline's prompts at all positions, for a run that read
    last ones only (see `read_everywhere`); left out, records hold what the run read. Raises StorageError that names the
    file, ConfigError for a document that is not of the study's table.
    """
    source = Source(study.table, study.thresholds, study.document())
    _make(folder)
    written = list(_tables(source, Emitter(source.table, source.thresholds, everywhere), folder, schema))
    document = (seed if schema == "seed" else extended).document(source)
    written.append(_json(folder, source.table.model, {"schema": schema, **document}))
    stub = folder / f"evaluation-{model_part(source.table.model)}.md"
    if not stub.exists():  # somebody may have written into it
        write_atomically(stub, f"# Evaluation of {source.table.model}\n\nTo be written.\n".encode())
    written.append(stub)
    if began is not None:
        written.append(folder / stamp_name(began))
        write_atomically(written[-1], f"Experiment started: {began:%Y-%m-%d %H:%M:%S}\n".encode())
    return written


def failed(folder: Path, model: str, error: BaseException, *, status: str = "failed") -> Path:
    """Writes the document of a run that did not finish: what it was, and what ended it. Raises StorageError."""
    _make(folder)
    told = {"type": type(error).__name__, "message": str(error) or type(error).__name__}
    return _json(folder, model, {"status": status, "model": model, "error": told})


def _tables(source: Source, emitter: Emitter, folder: Path, schema: Schema) -> Iterator[Path]:
    passes = source.suite.of(schema)
    sidecars = ("prism",) if schema == "seed" else ("prism", "tuned")
    for lens in (raw.NORM, *(name for name in sidecars if source.has(name))):
        end = "" if lens == raw.NORM else f"-{lens}"
        records = (row for one in passes for row in emitter.records(one, lens))
        pure = (row for one in passes for row in emitter.pure(one, lens))
        for kind, names, rows in (
            ("records", columns.records_columns(schema), records),
            ("pure-next-token", columns.pure_columns(schema, source.thresholds), pure),
        ):
            file = folder / file_name(source.table.model, f"{kind}{end}")
            yield dialect.write(file, names, map(cells, _below(rows) if lens == "tuned" else rows))
    if schema == "extended":
        for kind, names, found in _extras(source, emitter, passes):
            yield dialect.write(folder / file_name(source.table.model, kind), names, found)


def _extras(
    source: Source, emitter: Emitter, passes: Sequence[Pass]
) -> Iterator[tuple[str, Sequence[str], Iterable[Row]]]:
    """The files that only the extended set has: kind, columns and rows."""
    one, table = source.suite.baseline, source.table
    if source.has(raw.RAW):
        yield "pure-next-token-rawlens", columns.RAWLENS, (row for each in passes for row in raw.rawlens(table, each))
        windows = {row["prompt"]: row["layers"] for row in source.listed("raw_vs_norm", "windows")}
        if windows:
            near = (row for each in passes for row in raw.window(table, each, windows.get(each.entry["id"], ())))
            yield "pure-next-token-rawlens-window", columns.RAWLENS_WINDOW, near
        yield "artifact-audit", columns.ARTIFACT, pack.artifact(source)
    if source.has("tuned"):
        found = sidecar.variants(source, one, "tuned")
        yield "pure-next-token-tuned-variants", columns.TUNED_VARIANTS, found
        yield "positions-tuned-audit", columns.POSITIONS, sidecar.positions(*emitter.at_most(one), "tuned")
    yield "milestones", columns.MILESTONES, pack.milestones(source)


def _below(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Without layer 0, which the published tuned files do not have."""
    return (row for row in rows if row["layer"] > 0)


def _json(folder: Path, model: str, document: Mapping[str, Any]) -> Path:
    """Writes a document. NaN and infinity cannot be in it."""
    file = folder / file_name(model)
    text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False)
    write_atomically(file, text.encode("utf-8", errors="surrogatepass") + b"\n")
    return file


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror or error}: choose another --out") from error
