"""Sweep: prompts in, table out. One forward per distinct prompt, every layer and lens decoded, only numbers kept.

The rule of the file: the identity gate comes first. A model whose last row would not be its own logits is refused.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from traceback import clear_frames
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ftw.substrate.errors import ConfigError, NumericError
from ftw.substrate.gate import Gate, gate
from ftw.substrate.model import Model
from ftw.sweep import ends, forward
from ftw.sweep.decode import METRICS, Decoded, Targets, View, decode
from ftw.sweep.files.cache import PassCache
from ftw.sweep.files.states import StateFolder
from ftw.sweep.head import Head, Precision
from ftw.sweep.identity import attention, code_sha256, config_sha256
from ftw.sweep.items import Asked, items_of
from ftw.sweep.lenses import VocabLens
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.plan import Cell, Plan, Role
from ftw.sweep.table import COLUMNS, SCALES, SCHEMA, Item, SweepTable, is_word

NAMES = {"entropy": "entropy_bits", "kl": "kl_bits", "js": "js_bits", "cosine": "cos_logits"}
ROLES: tuple[Role, ...] = ("answer", "control")
Columns = dict[str, np.ndarray]
_Place = tuple[int, int, int]
"""Row of a pass's states, item, position."""


class Sweep:
    """Reads every layer of a model at every prompt.

    The logit lens is always among `lenses`, first: at the last layer it is the model itself. Lenses `at_end` are read
    at each prompt's last position only. `precision` is `exact` (fp32) or `fast` (bf16 product, exact for what is
    reported; see `head`). Raises Refused when the gate fails, ConfigError where two lenses have one name.
    """

    def __init__(
        self,
        model: Model,
        lenses: Sequence[VocabLens] = (),
        *,
        at_end: Sequence[VocabLens] = (),
        k: int = 5,
        precision: Precision = "exact",
        wanted: Collection[str] = METRICS,
    ) -> None:
        self.model = model
        self.gate: Gate = gate(model.net, model.arch, model=model.name)
        self.gate.require()
        own = [] if any(type(lens) is LogitLens for lens in lenses) else [LogitLens(model.arch)]
        self.lenses: tuple[VocabLens, ...] = (*own, *lenses)
        self.at_end = tuple(at_end)
        self.k = k
        self.precision: Precision = precision
        self.wanted = frozenset(wanted)
        names = [lens.name for lens in self.all_lenses]
        if len(set(names)) < len(names):
            raise ConfigError(f"lenses are {names}: give each a name of its own")

    @property
    def all_lenses(self) -> tuple[VocabLens, ...]:
        """Those that are read everywhere, then those `at_end`."""
        return (*self.lenses, *self.at_end)

    @cached_property
    def head(self) -> Head:
        """The model's head, prepared once."""
        return Head(self.model.arch, self.precision)

    @cached_property
    def scope(self) -> dict[str, Any]:
        """Everything besides the prompts that decides a number, as JSON values: what a cache is scoped to."""
        return {
            "fingerprint": self.model.fingerprint,
            "config": config_sha256(self.model),
            "attention": attention(self.model),
            "code": code_sha256(),
            "dtype": str(self.model.dtype),
            "device": self.model.device.type,
            "lenses": [[lens.name, lens.digest] for lens in self.lenses],
            "at_end": [[lens.name, lens.digest] for lens in self.at_end],
            "k": self.k,
            "precision": self.precision,
            "wanted": sorted(self.wanted),
            "schema": SCHEMA,
            "versions": {name: version(name) for name in ("ftw-transparency", "torch", "transformers")},
        }

    def run(
        self,
        asked: Asked,
        *,
        positions: Literal["last", "all"] = "last",
        budget: int = forward.BUDGET,
        progress: Callable[[int, int], None] | None = None,
        cache: PassCache | None = None,
        keep: StateFolder | None = None,
        rescue: Callable[[SweepTable], None] | None = None,
    ) -> SweepTable:
        """The table. `progress` is told how many of how many positions are done after each pass.

        Passes that `cache` holds are not measured again, and those that are, are put into it. `keep` is given the
        residual stream of every prompt at the positions that are read: for that, passes of the cache run once more.
        Where an error or Ctrl-C ends the sweep, `rescue` is first given the table of the prompts that were finished,
        if there are any. Raises ConfigError and PromptTooLong as `forward.passes` and the
        battery's alignment do, NumericError where the model's own distribution (not just a lens's) is not finite, and
        StorageError where cache or folder cannot be written.
        """
        plan = Plan(items_of(self.model, asked), positions)
        parts: list[Columns] = []
        done = 0
        try:
            for run in forward.passes(self.model, plan.sequences, positions=plan.positions, budget=budget):
                cells = plan.of(run)
                parts += _placed(plan, self._read(plan, run, cells, cache, keep), cells)
                plan.finish(cells)
                done += len(cells)
                if progress is not None:
                    progress(done, len(plan.cells))
        except BaseException as error:
            if rescue is not None and (finished := plan.finished):
                clear_frames(error.__traceback__)  # the states of the pass that broke: it may be memory that is short
                rescue(self._table(plan, parts, finished))
            raise
        return self._table(plan, parts, range(len(plan.items)))

    def _read(
        self, plan: Plan, run: forward.Pass, cells: Sequence[Cell], cache: PassCache | None, keep: StateFolder | None
    ) -> Columns:
        """What a pass gives, out of the cache where it holds it. States that are to be kept are read in any case."""
        key = plan.key(run) if cache is not None else None
        found = None if cache is None else cache.get(key)
        if found is not None and keep is None:
            return found
        states = run.read().states
        if keep is not None:
            _keep(keep, plan, states, cells)
        if found is None:
            found = self._measure(plan, states, cells)
            if cache is not None:
                cache.put(key, found)
        return found

    def _measure(self, plan: Plan, states: Tensor, cells: Sequence[Cell]) -> Columns:
        """What a pass gives: `all/…` columns at every position, `end/…` of the lenses at the end, and `forced` tokens.

        Rows stand position by position, and within one view by view. `forced` is [view, token].
        """
        at, last = _asked(plan, cells)
        found: Columns = {}
        if at:
            found |= {f"all/{name}": value for name, value in self._rows(plan, states, at, self.lenses).items()}
        if last and self.at_end:
            found |= {f"end/{name}": value for name, value in self._rows(plan, states, last, self.at_end).items()}
        forced = [(row, token) for row, cell in enumerate(cells) for _, _, token in cell.forced]
        if forced:
            targets = Targets({"forced": torch.tensor([token for _, token in forced])})
            chosen = states[:, [row for row, _ in forced]]
            result = decode(self.model, self.all_lenses, chosen, targets, k=1, wanted=(), head=self.head)
            found["forced"] = result.logprobs["forced"].cpu().numpy()
        return found

    def _rows(self, plan: Plan, states: Tensor, at: Sequence[_Place], lenses: Sequence[VocabLens]) -> Columns:
        """The columns of these places through these lenses."""
        rows = [row for row, _, _ in at]
        chosen = states if rows == list(range(states.shape[1])) else states[:, rows]
        targets, ids = self._targets(plan.items, [(item, pos) for _, item, pos in at])
        found = decode(self.model, lenses, chosen, targets, k=self.k, wanted=self.wanted, head=self.head)
        if lenses is self.lenses:
            self._require_finite(found, plan.items, at)
        columns = _columns(found, torch.linalg.vector_norm(chosen.float(), dim=-1), ids)
        columns["lens"] += 0 if lenses is self.lenses else len(self.lenses)
        is_end = [plan.is_end(item, pos) for _, item, pos in at]
        pool = _padded((plan.items[item].pool for _, item, _ in at), plan.pool_size)
        return columns | self._at_ends(chosen, targets, pool, lenses, torch.tensor(is_end))

    def _at_ends(
        self,
        states: Float[Tensor, "layer row d_model"],
        targets: Targets,
        pool: Int[Tensor, "row p"],
        lenses: Sequence[VocabLens],
        is_end: Bool[Tensor, " row"],
    ) -> Columns:
        """The columns of `ends` for all rows: those that end no prompt have none of these numbers."""
        n_views, n_rows = sum(len(lens.layers) for lens in lenses), len(is_end)
        columns = {name: np.full((n_rows, n_views), np.nan, np.float32) for name in ends.COLUMNS}
        columns["answer_logprob_scaled"] = np.full((n_rows, n_views, len(SCALES)), np.nan, np.float32)
        columns["pool_ranks"] = np.zeros((n_rows, n_views, pool.shape[1]), np.int32)
        if bool(is_end.any()):
            base = next(lens for lens in self.lenses if type(lens) is LogitLens)
            chosen = states[:, is_end.to(states.device)]
            asked = (targets.ids["answer"][is_end], targets.sets["echo"][is_end], pool[is_end])
            for name, value in ends.measure(self.head, lenses, base, chosen, *asked).items():
                columns[name][is_end.numpy()] = value.cpu().numpy().swapaxes(0, 1)
        return {name: value.reshape(n_rows * n_views, *value.shape[2:]) for name, value in columns.items()}

    def _targets(self, items: Sequence[Item], at: Sequence[tuple[int, int]]) -> tuple[Targets, Columns]:
        first = {
            "answer": [items[item].answer[:1] for item, _ in at],
            "control": [items[item].control[:1] for item, _ in at],
            "next": [(*items[item].ids, *items[item].answer[:1])[pos + 1 : pos + 2] for item, pos in at],
        }
        ids = {name: torch.tensor([one[0] if one else -1 for one in each]) for name, each in first.items()}
        sets = {
            "answer": _padded([items[item].accepted for item, _ in at]),
            "echo": _padded([self._words(items[item].ids[: pos + 1]) for item, pos in at]),
        }
        known = {f"{name}_id": each.numpy().astype(np.int32) for name, each in ids.items()}
        known["token_id"] = np.array([items[item].ids[pos] for item, pos in at], dtype=np.int32)
        return Targets(ids, sets), known

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset() if self.model.tokenizer is None else frozenset(self.model.tokenizer.all_special_ids)

    def _words(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The distinct ids of a text that stand for words: no special tokens, no blanks, no punctuation."""
        return tuple(
            token for token in dict.fromkeys(ids) if token not in self._special and is_word(self._piece(token))
        )

    @cached_property
    def _known(self) -> dict[int, str]:
        return {}

    def _piece(self, token: int) -> str:
        if token not in self._known:
            has_words = self.model.tokenizer is not None
            self._known[token] = self.model.pieces([token])[0] if has_words else f"#{token}"
        return self._known[token]

    def _require_finite(self, found: Decoded, items: Sequence[Item], at: Sequence[_Place]) -> None:
        """The model's own row must be a distribution. A lens's row that is not only says so."""
        name = next(lens.name for lens in self.lenses if type(lens) is LogitLens)
        own = found.views.index(View(name, self.model.n_layers))
        bad = (~found.is_finite[own]).nonzero()
        if len(bad):
            _, item, pos = at[int(bad[0])]
            raise NumericError(
                f"{self.model.name} gives no finite distribution after position {pos} of prompt {items[item].id}: "
                "load it in float32 (or bfloat16 instead of float16), or leave the prompt out"
            )

    def _table(self, plan: Plan, parts: list[Columns], chosen: Sequence[int]) -> SweepTable:
        """The table of the chosen items, which are counted anew from 0. All their rows are in `parts`."""
        items = tuple(plan.items[item] for item in chosen)
        place = np.full(len(plan.items), -1, np.int32)
        place[list(chosen)] = np.arange(len(chosen), dtype=np.int32)
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        columns["prompt"] = place[columns["prompt"]]
        order = np.lexsort((columns["layer"], columns["lens"], columns["pos"], columns["prompt"]))
        order = order[columns["prompt"][order] >= 0]
        columns = {name: column[order] for name, column in columns.items()}
        ends_at = np.array([len(item.ids) - 1 for item in items])
        is_end = columns["pos"] == ends_at[columns["prompt"]]
        for role in ROLES:
            whole = np.full(len(is_end), np.nan, np.float32)
            whole[is_end] = np.concatenate([plan.whole[role, item] for item in chosen])
            columns[f"{role}_whole_logprob"] = whole
        names = [lens.name for lens in self.all_lenses]
        columns["lens"] = np.array(names)[columns["lens"]]
        return SweepTable(
            columns={name: columns[name] for name in COLUMNS if name in columns},
            items=items,
            pieces={token: self._piece(token) for token in sorted(_used(columns, items))},
            model=self.model.name,
            n_layers=self.model.n_layers,
            vocab_size=self.model.vocab_size,
            lenses=tuple(names),
            precision=self.precision,
            gate=self.gate,
            special_ids=self._special,
        )


def _asked(plan: Plan, cells: Sequence[Cell]) -> tuple[list[_Place], list[_Place]]:
    """Row, item and position of what a pass is read for, and of those the last positions."""
    at = [(row, item, pos) for row, cell in enumerate(cells) for item, pos in cell.base]
    return at, [one for one in at if plan.is_end(*one[1:])]


def _placed(plan: Plan, found: Columns, cells: Sequence[Cell]) -> list[Columns]:
    """A pass's columns with the prompts and positions they belong to. Its answers' tokens go into the plan's sums."""
    at, last = _asked(plan, cells)
    parts = []
    of_item: dict[tuple[Role, int], list[np.ndarray]] = {}
    for group, places in (("all", at), ("end", last)):
        columns = {key.partition("/")[2]: value for key, value in found.items() if key.startswith(f"{group}/")}
        if not columns:
            continue
        n_views = len(columns["layer"]) // len(places)
        columns["prompt"] = np.repeat(np.array([item for _, item, _ in places], np.int32), n_views)
        columns["pos"] = np.repeat(np.array([pos for _, _, pos in places], np.int32), n_views)
        parts.append(columns)
        for row, (_, item, pos) in enumerate(places):
            if plan.is_end(item, pos):
                for role in ROLES:
                    first = columns[f"{role}_logprob"][row * n_views : (row + 1) * n_views]
                    of_item.setdefault((role, item), []).append(first)
    for (role, item), values in of_item.items():
        plan.add(role, item, np.concatenate(values))
    forced = [(item, role) for cell in cells for item, role, _ in cell.forced]
    for column, (item, role) in enumerate(forced):
        plan.add(role, item, found["forced"][:, column])
    return parts


def _keep(folder: StateFolder, plan: Plan, states: Tensor, cells: Sequence[Cell]) -> None:
    at, _ = _asked(plan, cells)
    rows: dict[int, list[tuple[int, int]]] = {}
    for row, item, pos in at:
        rows.setdefault(item, []).append((row, pos))
    for item, each in rows.items():
        folder.put(item, plan.items[item], [pos for _, pos in each], states[:, [row for row, _ in each]])


def _columns(found: Decoded, norms: Float[Tensor, "layer row"], ids: Mapping[str, np.ndarray]) -> Columns:
    """The columns of decoded states, row by row, and within a row view by view. Numbers leave the device here."""
    n_views, n_rows = found.logsumexp.shape

    def flat(value: Tensor) -> np.ndarray:
        array: np.ndarray = value.cpu().numpy()
        return array.swapaxes(0, 1).reshape(n_views * n_rows, *array.shape[2:])

    names = list(dict.fromkeys(view.lens for view in found.views))
    layers = np.array([view.layer for view in found.views], dtype=np.int16)
    columns = {
        "lens": np.tile(np.array([names.index(view.lens) for view in found.views]), n_rows),
        "layer": np.tile(layers, n_rows),
        "top_ids": flat(found.top_ids).astype(np.int32),
        "top_logprobs": flat(found.top_logprobs),
        "logsumexp": flat(found.logsumexp),
        "logsumexp_bound": flat(found.logsumexp_bound),
        "cos_state": flat(found.state_cosine),
        "state_norm": flat(found.state_norm),
        "resid_norm": flat(norms.cpu()[layers.astype(int)]),
        "is_finite": flat(found.is_finite),
    }
    columns |= {NAMES[name]: flat(value) for name, value in found.values.items()}
    columns |= {f"{name}_rank": flat(value).astype(np.int32) for name, value in found.ranks.items()}
    columns |= {f"{name}_logprob": flat(value) for name, value in found.logprobs.items()}
    columns |= {f"{name}_mass": flat(value) for name, value in found.masses.items()}
    columns |= {name: np.repeat(value, n_views) for name, value in ids.items()}
    columns["answer_mass"] = np.where(columns["answer_id"] < 0, np.float32(np.nan), columns["answer_mass"])
    return columns


def _used(columns: Columns, items: Sequence[Item]) -> set[int]:
    """Every token id that occurs in a table."""
    used = {int(token) for name in ("top_ids", "control_id", "next_id") for token in np.unique(columns[name])}
    for item in items:
        used.update(item.ids, item.answer, item.control, item.pool, item.accepted)
    return {token for token in used if token >= 0}


def _padded(sets: Iterable[Sequence[int]], width: int = 1) -> Tensor:
    """Id sets of different sizes as one matrix, at least `width` wide, filled up with -1."""
    rows = [list(one) for one in sets]
    width = max(width, *map(len, rows)) if rows else width
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows])
