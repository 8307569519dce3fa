"""Sweep: prompts in, table out. One forward per distinct prompt, every layer and lens decoded, only numbers kept.

The rule of the file: the identity gate comes first. A model whose last row would not be its own logits is refused.
"""

import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ftw.substrate.errors import ConfigError, NumericError
from ftw.substrate.gate import Gate, gate
from ftw.substrate.model import Model
from ftw.sweep import forward
from ftw.sweep.battery import Aligned, Battery, Prompt, align_all
from ftw.sweep.decode import METRICS, Decoded, Targets, decode
from ftw.sweep.head import Head, Precision
from ftw.sweep.lenses import VocabLens
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.table import COLUMNS, Item, SweepTable

Asked = Battery | Sequence[Prompt] | Sequence[Aligned] | Sequence[str] | Sequence[Sequence[int]]
"""What can be swept: a battery, its prompts, or plain texts or token ids without an answer."""
NAMES = {"entropy": "entropy_bits", "kl": "kl_bits", "js": "js_bits", "cosine": "cos_logits"}


class Sweep:
    """Reads every layer of a model at every prompt.

    The logit lens is always among `lenses`, first: at the last layer it is the model itself. `precision` is `exact`
    (fp32) or `fast` (bf16 product, exact for what is reported; see `head`). Raises Refused when the gate fails.
    """

    def __init__(
        self,
        model: Model,
        lenses: Sequence[VocabLens] = (),
        *,
        k: int = 5,
        precision: Precision = "exact",
        wanted: Collection[str] = METRICS,
    ) -> None:
        self.model = model
        self.gate: Gate = gate(model.net, model.arch, model=model.name)
        self.gate.require()
        own = [] if any(type(lens) is LogitLens for lens in lenses) else [LogitLens(model.arch)]
        self.lenses: tuple[VocabLens, ...] = (*own, *lenses)
        self.k = k
        self.precision: Precision = precision
        self.wanted = frozenset(wanted)

    @cached_property
    def head(self) -> Head:
        """The model's head, prepared once."""
        return Head(self.model.arch, self.precision)

    def run(
        self,
        asked: Asked,
        *,
        positions: Literal["last", "all"] = "last",
        budget: int = forward.BUDGET,
        progress: Callable[[int, int], None] | None = None,
    ) -> SweepTable:
        """The table. `progress` is told how many of how many positions are done after each pass.

        Raises ConfigError and PromptTooLong as `forward.batches` and the battery's alignment do, and NumericError where
        the model's own distribution (not just a lens's) is not finite.
        """
        items = items_of(self.model, asked)
        plan = _Plan(items, positions)
        parts: list[dict[str, np.ndarray]] = []
        done = 0
        for resid in forward.batches(self.model, plan.sequences, positions=plan.positions, budget=budget):
            cells = [
                plan.cells[prompt, pos] for prompt, pos in zip(resid.prompt.tolist(), resid.pos.tolist(), strict=True)
            ]
            if part := self._base(plan, items, resid.states, [cell.base for cell in cells]):
                parts.append(part)
            self._force(plan, resid.states, [cell.forced for cell in cells])
            done += len(cells)
            if progress is not None:
                progress(done, len(plan.cells))
        return self._table(items, plan, parts)

    def _base(
        self, plan: "_Plan", items: Sequence[Item], states: Tensor, wanted: Sequence[Sequence[tuple[int, int]]]
    ) -> dict[str, np.ndarray]:
        """The rows of the table for these states: `wanted[i]` are the prompts and positions that state i stands for."""
        at = [(row, item, pos) for row, cell in enumerate(wanted) for item, pos in cell]
        if not at:
            return {}
        rows = [row for row, _, _ in at]
        chosen = states if rows == list(range(states.shape[1])) else states[:, rows]
        targets, ids = self._targets(items, [(item, pos) for _, item, pos in at])
        found = decode(self.model, self.lenses, chosen, targets, k=self.k, wanted=self.wanted, head=self.head)
        self._require_finite(found, items, at)
        norms = torch.linalg.vector_norm(chosen.float(), dim=-1)
        columns = _columns(found, norms, ids, np.array([(item, pos) for _, item, pos in at]))
        for name in ("answer", "control"):
            first = found.logprobs[name].cpu().numpy()
            whole = np.full_like(first, np.nan)
            for column, (_, item, pos) in enumerate(at):
                if pos == len(items[item].ids) - 1:
                    plan.add(name, item, first[:, column])
            columns[f"{name}_whole_logprob"] = whole.T.reshape(-1)
        return columns

    def _force(self, plan: "_Plan", states: Tensor, wanted: Sequence[Sequence[tuple[int, str, int]]]) -> None:
        """Add the log-probabilities of an answer's later tokens to its sum, at every layer."""
        at = [(row, *forced) for row, cell in enumerate(wanted) for forced in cell]
        if not at:
            return
        targets = Targets({"forced": torch.tensor([token for *_, token in at])})
        rows = [row for row, *_ in at]
        found = decode(self.model, self.lenses, states[:, rows], targets, k=1, wanted=(), head=self.head)
        logprobs = found.logprobs["forced"].cpu().numpy()
        for column, (_, item, role, _) in enumerate(at):
            plan.add(role, item, logprobs[:, column])

    def _targets(self, items: Sequence[Item], at: Sequence[tuple[int, int]]) -> tuple[Targets, dict[str, np.ndarray]]:
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

    def _words(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The distinct ids of a text that stand for words: no special tokens, no blanks, no punctuation."""
        unique = dict.fromkeys(ids)
        if self.model.tokenizer is None:
            return tuple(unique)
        special = set(self.model.tokenizer.all_special_ids)
        return tuple(token for token in unique if token not in special and _is_word(self._piece(token)))

    @cached_property
    def _known(self) -> dict[int, str]:
        return {}

    def _piece(self, token: int) -> str:
        if token not in self._known:
            has_words = self.model.tokenizer is not None
            self._known[token] = self.model.pieces([token])[0] if has_words else f"#{token}"
        return self._known[token]

    def _require_finite(self, found: Decoded, items: Sequence[Item], at: Sequence[tuple[int, int, int]]) -> None:
        """The model's own row must be a distribution. A lens's row that is not only says so."""
        name = next(lens.name for lens in self.lenses if type(lens) is LogitLens)
        own = found.views.index((name, self.model.n_layers))
        bad = (~found.is_finite[own]).nonzero()
        if len(bad):
            _, item, pos = at[int(bad[0])]
            raise NumericError(
                f"{self.model.name} gives no finite distribution after position {pos} of prompt {items[item].id}: "
                "load it in float32 (or bfloat16 instead of float16), or leave the prompt out"
            )

    def _table(self, items: tuple[Item, ...], plan: "_Plan", parts: list[dict[str, np.ndarray]]) -> SweepTable:
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order = np.lexsort((columns["pos"], columns["prompt"]))  # stable: views stay as they are
        columns = {name: column[order] for name, column in columns.items()}
        ends = np.array([len(item.ids) - 1 for item in items])
        n_views = sum(len(lens.layers) for lens in self.lenses)
        heads = np.flatnonzero(columns["pos"] == ends[columns["prompt"]])[::n_views]
        for role in ("answer", "control"):
            for start in heads:
                total = plan.whole.get((role, int(columns["prompt"][start])))
                if total is not None:
                    columns[f"{role}_whole_logprob"][start : start + n_views] = total
        used = {int(token) for name in ("top_ids", "token_id") for token in np.unique(columns[name])}
        used |= {int(token) for name in ("answer_id", "control_id", "next_id") for token in np.unique(columns[name])}
        names = [lens.name for lens in self.lenses]
        columns["lens"] = np.array(names)[columns["lens"]]
        return SweepTable(
            columns={name: columns[name] for name in COLUMNS if name in columns},
            items=items,
            pieces={token: self._piece(token) for token in sorted(used) if token >= 0},
            model=self.model.name,
            n_layers=self.model.n_layers,
            vocab_size=self.model.vocab_size,
            lenses=tuple(names),
            precision=self.precision,
            gate=self.gate,
        )


def items_of(model: Model, asked: Asked) -> tuple[Item, ...]:
    """Whatever can be swept, as token ids. Raises ConfigError where there is nothing."""
    given: list[object] = list(asked.prompts() if isinstance(asked, Battery) else asked)
    if not given:
        raise ConfigError("there is nothing to sweep: the battery has no prompts")
    prompts = [one for one in given if isinstance(one, Prompt)]
    aligned = iter(align_all(prompts, model) if prompts else ())
    items = []
    for index, one in enumerate(given):
        one = next(aligned) if isinstance(one, Prompt) else one
        if isinstance(one, Aligned):
            items.append(_of_aligned(one))
        elif isinstance(one, str):
            items.append(Item(str(index), tuple(model.encode(one))))
        elif isinstance(one, Sequence):
            items.append(Item(str(index), tuple(int(token) for token in one)))
        else:
            raise ConfigError(f"prompt {index} is a {type(one).__name__}: give a Prompt, a text, or token ids")
    return tuple(items)


def _of_aligned(one: Aligned) -> Item:
    return Item(
        id=one.prompt.id,
        ids=one.ids,
        answer=one.gold.ids if one.gold else (),
        accepted=one.answer_ids,
        control=one.control.ids if one.control else (),
        source=one.prompt,
    )


class _Cell:
    """What one state of one sequence is read for."""

    def __init__(self) -> None:
        self.base: list[tuple[int, int]] = []
        """Item and position: a row of the table."""
        self.forced: list[tuple[int, str, int]] = []
        """Item, `answer` or `control`, and the token that follows here in it."""


class _Plan:
    """Which sequences run, and what each state is read for. An answer of many tokens runs with its prompt."""

    def __init__(self, items: Sequence[Item], positions: Literal["last", "all"]) -> None:
        self.sequences: list[tuple[int, ...]] = []
        self.cells: dict[tuple[int, int], _Cell] = {}
        self.whole: dict[tuple[str, int], np.ndarray] = {}
        first: dict[tuple[int, ...], int] = {}

        def cell(ids: tuple[int, ...], pos: int) -> _Cell:
            if ids not in first:
                first[ids] = len(self.sequences)
                self.sequences.append(ids)
            return self.cells.setdefault((first[ids], pos), _Cell())

        for index, item in enumerate(items):
            end = len(item.ids) - 1
            own = (*item.ids, *item.answer[:-1])
            for pos in range(end + 1) if positions == "all" else [end]:
                cell(own, pos).base.append((index, pos))
            for role, whole in (("answer", item.answer), ("control", item.control)):
                for step, token in enumerate(whole[1:], start=1):
                    cell((*item.ids, *whole[:-1]), end + step).forced.append((index, role, token))

    @property
    def positions(self) -> list[Sequence[int]]:
        """For each sequence the positions to read."""
        found: list[Sequence[int]] = [[] for _ in self.sequences]
        for sequence, pos in self.cells:
            found[sequence].append(pos)  # type: ignore[attr-defined]
        return found

    def add(self, role: str, item: int, logprobs: np.ndarray) -> None:
        """Add a token's log-probabilities (one per view) to the sum of its answer."""
        self.whole[role, item] = self.whole.get((role, item), 0) + logprobs


def _columns(
    found: Decoded, norms: Float[Tensor, "layer row"], ids: Mapping[str, np.ndarray], at: np.ndarray
) -> dict[str, np.ndarray]:
    """The columns of decoded states, row by row, and within a row view by view. Numbers leave the device here."""
    n_views, n_rows = len(found.views), len(at)

    def flat(value: Tensor) -> np.ndarray:
        array: np.ndarray = value.cpu().numpy()
        return array.swapaxes(0, 1).reshape(n_views * n_rows, *array.shape[2:])

    names = list(dict.fromkeys(view.lens for view in found.views))
    layers = np.array([view.layer for view in found.views], dtype=np.int16)
    columns = {
        "prompt": np.repeat(at[:, 0].astype(np.int32), n_views),
        "pos": np.repeat(at[:, 1].astype(np.int32), n_views),
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


def _padded(sets: Iterable[Sequence[int]]) -> Tensor:
    """Id sets of different sizes as one matrix, filled up with -1."""
    rows = [list(one) for one in sets]
    width = max(1, *map(len, rows)) if rows else 1
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows])


def _is_word(piece: str) -> bool:
    """Whether a piece holds anything but blanks, punctuation and symbols, of whatever script."""
    return any(unicodedata.category(char)[0] not in "ZPSC" for char in piece)
