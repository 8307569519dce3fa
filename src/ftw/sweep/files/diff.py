"""The difference of two runs: what made them, which rows they share, and how far numbers and milestones moved.

Rows are matched by prompt id, position, lens and layer. Prompts that have one id but other tokens are named and not
compared row by row.

The rule of the file: everything is read from the two folders, nothing is measured again.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from ftw.substrate.errors import ConfigError
from ftw.sweep.files.difference import Change, Diff, Moved, Shift, Token, Tolerance, Verdict, Where
from ftw.sweep.files.finished import read_finished
from ftw.sweep.files.parquet import ROWS
from ftw.sweep.files.rundir import read_document
from ftw.sweep.table import COLUMNS, SweepTable

__all__ = ["Diff", "Tolerance", "compare", "diff", "pairs"]

MADE = ("provenance", "model", "battery", "thresholds", "gate", "sweep")
"""The parts of a run's document that say what made it."""
APART = ("prompt", "lens", "logsumexp_bound")
"""Columns that are not compared: two say which row it is, and the third repeats which precision made the run."""


def pairs(run_a: Path, run_b: Path) -> list[tuple[Path, Path]]:
    """The folders to compare: the runs themselves, or, of runs of many models, those of one name in both.

    Raises ConfigError where there is nothing to compare.
    """
    models_a, models_b = _models(run_a), _models(run_b)
    if not models_a and not models_b:
        return [(run_a, run_b)]
    if models_a and models_b:
        if both := sorted(models_a.keys() & models_b.keys()):
            return [(models_a[name], models_b[name]) for name in both]
        raise ConfigError(
            f"{run_a} has {', '.join(sorted(models_a))}, {run_b} has {', '.join(sorted(models_b))}: no model is in "
            "both. Give two of their folders"
        )
    many, models = (run_a, models_a) if models_a else (run_b, models_b)
    raise ConfigError(f"{many} is a run of many models: give the folder of one of {', '.join(sorted(models))}")


def diff(run_a: Path, run_b: Path, *, tolerance: Tolerance | None = None, listed: int = 20) -> Diff:
    """What differs from the run in one folder to that in another. `listed` tokens are named at most.

    Raises ConfigError and StorageError as `read_finished` does.
    """
    (document_a, a), (document_b, b) = read_finished(run_a), read_finished(run_b)
    return compare((a, b), (document_a, document_b), (str(run_a), str(run_b)), tolerance, listed)


def compare(
    tables: tuple[SweepTable, SweepTable],
    documents: tuple[Mapping[str, Any], Mapping[str, Any]],
    names: tuple[str, str],
    tolerance: Tolerance | None = None,
    listed: int = 20,
) -> Diff:
    """What differs from one run in memory to another."""
    tolerance = tolerance or Tolerance()
    a, b = tables
    prompts_a, prompts_b = _prompts(a), _prompts(b)
    both = [key for key in prompts_a if key in prompts_b]
    same = [key for key in both if a.items[prompts_a[key]].ids == b.items[prompts_b[key]].ids]
    views = sorted({*a.lenses, *b.lenses})
    keys_a = _keys(a, {prompts_a[key]: at for at, key in enumerate(same)}, views)
    keys_b = _keys(b, {prompts_b[key]: at for at, key in enumerate(same)}, views)
    common, at_a, at_b = np.intersect1d(keys_a, keys_b, return_indices=True)
    is_known = int(common[0] < 0) if len(common) else 0  # one key stands for every prompt that is not in both
    at_a, at_b = at_a[is_known:], at_b[is_known:]
    beyond = np.zeros(len(at_a), dtype=bool)
    moved = tuple(each for name in COLUMNS if (each := _moved(name, a, b, at_a, at_b, tolerance, beyond)) is not None)
    tokens = _tokens(a, b, at_a, at_b)
    shifts = tuple(sorted(_shifts(*documents, tolerance), key=lambda each: (not each.is_layer, -each.n_changed)))
    found = Diff(
        a=names[0],
        b=names[1],
        verdict="different",
        made=tuple(_changes(documents)),
        prompts_only_a=tuple(key[0] for key in prompts_a if key not in prompts_b),
        prompts_only_b=tuple(key[0] for key in prompts_b if key not in prompts_a),
        prompts_changed=tuple(key[0] for key in both if key not in same),
        n_common=len(at_a),
        n_only_a=len(a) - len(at_a),
        n_only_b=len(b) - len(at_b),
        n_beyond=int(beyond.sum()),
        columns_only_a=tuple(name for name in a.columns if name not in b.columns),
        columns_only_b=tuple(name for name in b.columns if name not in a.columns),
        moved=moved,
        n_tokens=len(tokens),
        tokens=tuple(tokens[:listed]),
        shifts=shifts,
        tolerance=tolerance,
    )
    return replace(found, verdict=_verdict(found))


def _verdict(found: Diff) -> Verdict:
    if found.n_only_a or found.n_only_b or found.columns_only_a or found.columns_only_b or not found.n_common:
        return "different"
    if not found.moved and not found.shifts:
        return "identical"
    is_alike = not found.n_tokens and not found.shifts and not found.n_beyond
    return "alike" if is_alike else "different"


def _models(run: Path) -> dict[str, Path]:
    """The folders of a run of many models that ended well, by name; empty where its rows lie in the folder itself."""
    if (run / ROWS).exists():
        return {}
    folders = [file.parent for file in run.glob(f"*/{ROWS}")]
    found = {each.name: each for each in folders if read_document(each)["status"] == "ok"}
    if folders and not found:
        raise ConfigError(f"no model of the run in {run} ended well: sweep again, with --resume")
    return found


def _prompts(table: SweepTable) -> dict[tuple[str, int], int]:
    """Each prompt's index by its id, and by how many of that id stand before it."""
    found: dict[tuple[str, int], int] = {}
    seen: dict[str, int] = {}
    for index, item in enumerate(table.items):
        seen[item.id] = seen.get(item.id, -1) + 1
        found[item.id, seen[item.id]] = index
    return found


def _keys(table: SweepTable, prompts: Mapping[int, int], lenses: Sequence[str]) -> np.ndarray:
    """One number for each row's prompt, position, lens and layer, equal in both runs; −1 for a prompt of only one."""
    of_item = np.array([prompts.get(index, -1) for index in range(len(table.items))], np.int64)
    prompt = of_item[table["prompt"]]
    lens = np.searchsorted(np.array(lenses), table["lens"])
    key = (prompt << 40) | (table["pos"].astype(np.int64) << 20) | (lens << 12) | table["layer"]
    return np.where(prompt < 0, -1, key)


def _where(table: SweepTable, row: int) -> Where:
    item = table.items[int(table["prompt"][row])]
    return item.id, int(table["pos"][row]), str(table["lens"][row]), int(table["layer"][row])


def _moved(
    name: str,
    a: SweepTable,
    b: SweepTable,
    at_a: np.ndarray,
    at_b: np.ndarray,
    tolerance: Tolerance,
    beyond: Bool[np.ndarray, " row"],
) -> Moved | None:
    """How far a column moved; None where it did not, or one run does not have it. Marks its rows in `beyond`."""
    if name in APART or name not in a.columns or name not in b.columns:
        return None
    x, y = (_flat(one[name][at]) for one, at in ((a, at_a), (b, at_b)))
    width = min(x.shape[1], y.shape[1])
    x, y = x[:, :width], y[:, :width]
    differs = ~(_bits(x) == _bits(y)).all(axis=1)
    if not differs.any():
        return None
    first = _where(a, int(at_a[differs.argmax()]))
    if not _is_measure(name, x):
        beyond |= differs
        return Moved(name, int(differs.sum()), int(differs.sum()), None, first)
    far, distance = _apart(x, y, name, tolerance)
    beyond |= far.any(axis=1)
    most = distance.max(axis=1)
    largest = int(most.argmax())
    is_any = bool(most[largest] >= 0)
    where = _where(a, int(at_a[largest])) if is_any else first
    return Moved(name, int(differs.sum()), int(far.any(axis=1).sum()), float(most[largest]) if is_any else None, where)


def _apart(x: np.ndarray, y: np.ndarray, name: str, tolerance: Tolerance) -> tuple[np.ndarray, np.ndarray]:
    """Which numbers are apart by more than the tolerance, and how far (−1 where not both are numbers)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    both = np.isfinite(x) & np.isfinite(y)
    distance = np.where(both, np.abs(np.where(both, y, 0) - np.where(both, x, 0)), -1.0)
    size = np.abs(np.where(both, x, 0))
    allowed = tolerance.ranks * size if "rank" in name else tolerance.absolute + tolerance.relative * size
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    return np.where(both, distance > allowed, ~same), distance


def _is_measure(name: str, column: np.ndarray) -> bool:
    """Whether a column holds amounts, not names of tokens or flags."""
    return column.dtype.kind == "f" or "rank" in name


def _flat(column: np.ndarray) -> np.ndarray:
    return column.reshape(len(column), math.prod(column.shape[1:]))


def _bits(column: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(column).view(f"u{column.itemsize}") if column.dtype.kind == "f" else column


def _tokens(a: SweepTable, b: SweepTable, at_a: np.ndarray, at_b: np.ndarray) -> list[Token]:
    first_a, first_b = a["top_ids"][at_a, 0], b["top_ids"][at_b, 0]
    rows = np.flatnonzero(first_a != first_b)
    rows = rows[np.argsort(-a["layer"][at_a[rows]], kind="stable")]
    return [
        Token(_where(a, int(at_a[row])), a.pieces[int(first_a[row])], b.pieces[int(first_b[row])])
        for row in rows.tolist()
    ]


def _changes(documents: tuple[Mapping[str, Any], Mapping[str, Any]]) -> list[Change]:
    a, b = ({key: value for part in MADE for key, value in _leaves(part, one.get(part))} for one in documents)
    found: dict[tuple[str, str, str], Change] = {}
    for key in dict.fromkeys([*a, *b]):
        x, y = a.get(key), b.get(key)
        if x != y:  # the model's name stands in two parts: told once
            found.setdefault((key.rpartition(".")[2], repr(x), repr(y)), Change(key, x, y))
    return list(found.values())


def _leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [leaf for key, each in value.items() for leaf in _leaves(f"{path}.{key}", each)]
    return [(path, value)]


def _shifts(a: Mapping[str, Any], b: Mapping[str, Any], tolerance: Tolerance) -> list[Shift]:
    ones, others = _milestones(a), _milestones(b)
    found = []
    for (lens, name), of_prompt in ones.items():
        other = others.get((lens, name), {})
        pairs = [(prompt, value, other[prompt]) for prompt, value in of_prompt.items() if prompt in other]
        changed = [(prompt, x, y) for prompt, x, y in pairs if not _is_alike(x, y, tolerance)]
        if not changed:
            continue
        moves = [(prompt, float(y) - float(x)) for prompt, x, y in pairs if _is_number(x) and _is_number(y)]
        moves_far = max(moves, key=lambda move: abs(move[1]), default=None)
        found.append(
            Shift(
                lens=lens,
                name=name,
                is_layer=not any(isinstance(value, float) for _, *both in pairs for value in both),
                n=len(pairs),
                n_changed=len(changed),
                n_gained=sum(x is None for _, x, y in changed),
                n_lost=sum(y is None for _, x, y in changed),
                median=statistics.median(move for _, move in moves) if moves else None,
                largest=moves_far,
            )
        )
    return found


def _is_alike(x: object, y: object, tolerance: Tolerance) -> bool:
    if isinstance(x, float) and isinstance(y, float):
        return abs(y - x) <= tolerance.absolute + tolerance.relative * abs(x)
    return x == y


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _milestones(document: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Each milestone's value by lens and name, then by prompt id."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for prompt in document.get("prompts", ()):
        for lens, milestones in prompt.get("milestones", {}).items():
            for name, outcome in milestones.items():
                found.setdefault((lens, name), {})[prompt["id"]] = outcome.get("value")
    return found
