"""Decodes states into the vocabulary and measures the distributions, without ever holding them all.

Rows go through the head in chunks whose logits fit a budget, all layers and lenses of a few positions together (so the
final distribution is at hand); each chunk is measured in small tiles that stay in the processor's cache, then dropped.
Memory does not grow with prompts, layers or lenses; one row of logits is the least it takes.

The rule of the file: a chunk's size changes speed and memory, never a number beyond rounding.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ftw.substrate.errors import ConfigError, SiteError
from ftw.substrate.model import Model
from ftw.sweep import metrics
from ftw.sweep.head import Head
from ftw.sweep.lenses import VocabLens
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.metrics import Softmax

COARSE = 32.0
"""From here on neighbouring bf16 numbers are a quarter apart: too coarse for a sum over many tokens like that."""
SPREAD = 7.0
"""Nats below the best token within which such tokens count for the sum: a thousandth of its probability."""
Metric = Literal["entropy", "kl", "js", "cosine"]
"""`entropy` in bits; `kl` (layer || final) and `js` to the model's own final distribution in bits; `cosine` to it, of
centred logits. Log-sum-exp always comes; ranks, masses and the best tokens where they are asked for."""
METRICS: tuple[Metric, ...] = get_args(Metric)
BUDGET = (72 << 20, 1 << 30)
"""Bytes of logits at once, on a CPU and on a CUDA device. A few tiles come on top."""
TILE = 4 << 20
"""Bytes of one tile: it stays in a processor's cache while it is measured. Other devices take a chunk as one tile."""
CANDIDATES = 16
"""Tokens of a row that are scored again when fast, at least; four for each of the best that are asked for."""


class View(NamedTuple):
    """One way of looking at one layer."""

    lens: str
    layer: int
    """How many blocks have run."""


@dataclass(frozen=True)
class Targets:
    """What to look for in each row's distribution. Rows as in the states; -1 stands for nothing."""

    ids: Mapping[str, Int[Tensor, " row"]] = field(default_factory=dict)
    """Tokens whose rank and log-probability are followed, by name: `answer`, `control`, …"""
    sets: Mapping[str, Int[Tensor, "row m"]] = field(default_factory=dict)
    """Sets of tokens whose probability is summed, by name: `echo`, … No id twice in a row."""


@dataclass(frozen=True)
class Decoded:
    """The measurements: one row per view, one column per row of the states. fp32, on the head's device."""

    views: tuple[View, ...]
    logsumexp: Float[Tensor, "view row"]
    """In nats."""
    logsumexp_bound: Float[Tensor, "view row"]
    """How far `logsumexp` (so every log-probability) can be off beyond rounding in fp32, in nats. 0 in exact rows."""
    top_ids: Int[Tensor, "view row k"]
    top_logprobs: Float[Tensor, "view row k"]
    """In nats, best first; equal ones by id."""
    values: Mapping[str, Float[Tensor, "view row"]]
    """By name: the metrics asked for, in their units."""
    ranks: Mapping[str, Int[Tensor, "view row"]]
    """By target: 1 = first, ties share the better rank; 0 where a row has no such target."""
    logprobs: Mapping[str, Float[Tensor, "view row"]]
    """By target, in nats; NaN where a row has no such target."""
    masses: Mapping[str, Float[Tensor, "view row"]]
    """By set: 0 to 1."""
    state_norm: Float[Tensor, "view row"]
    """Length of what the head was given."""
    state_cosine: Float[Tensor, "view row"]
    """Cosine of what the head was given to what it is given at the end."""
    is_finite: Bool[Tensor, "view row"]
    """Whether the distribution is one: no NaN or infinity in its log-sum-exp."""


@torch.inference_mode()
def decode(
    model: Model,
    lenses: Sequence[VocabLens],
    resid: Float[Tensor, "layer row d_model"],
    targets: Targets | None = None,
    *,
    k: int = 5,
    wanted: Collection[str] = METRICS,
    head: Head | None = None,
    precision: str = "exact",
    budget: int | None = None,
) -> Decoded:
    """Every lens at every layer it can decode, for states at layers 0 (embedding) to n, all rows.

    Views come lens by lens, layers ascending. A `head` made once (`Head(model.arch, precision)`) saves its preparation.
    Raises ConfigError for a bad k, metric, target or repeated lens name, SiteError for states of another shape.
    """
    head = head or Head(model.arch, precision)
    targets = targets or Targets()
    _check(model, lenses, resid, targets, k, wanted)
    views = [(lens, layer) for lens in lenses for layer in lens.layers]
    # slot 0 is the model's own distribution; a logit lens at the last layer is just that
    slots = [(lens, layer) for lens, layer in views if not (type(lens) is LogitLens and layer == model.n_layers)]
    where = {(lens.name, layer): slot for slot, (lens, layer) in enumerate(slots, start=1)}
    n_rows = resid.shape[1]
    chunk = max(1, (budget or BUDGET[head.device.type == "cuda"]) // (4 * head.vocab_size))  # rows of logits at once
    few = max(1, min(n_rows, chunk // (len(slots) + 1)))
    scratch = head.scratch(max(few, min(chunk, few * (len(slots) + 1))))
    found: dict[str, Tensor] = {}
    for start in range(0, n_rows, few):
        rows = slice(start, min(start + few, n_rows))
        asked = _Asked(targets, rows, head.device, k, wanted)
        states = _states(model, lenses, resid[:, rows].to(head.device))
        for at, tile in _measured(head, states, asked, chunk, scratch):
            for key, value in tile.items():
                if key not in found:
                    found[key] = value.new_empty(len(slots) + 1, n_rows, *value.shape[2:])
                found[key][:, rows][at] = value
    order = torch.tensor([where.get((lens.name, layer), 0) for lens, layer in views], device=head.device)
    picked = {key: value[order] for key, value in found.items()}
    return _decoded(tuple(View(lens.name, layer) for lens, layer in views), picked, targets)


def _states(
    model: Model, lenses: Sequence[VocabLens], resid: Float[Tensor, "layer row d_model"]
) -> Float[Tensor, "slot row width"]:
    """What the head is given: first the model's own, then view by view."""
    own: Tensor | None = None
    parts = []
    for lens in lenses:
        inputs = lens.head_inputs(resid[lens.layers.start : lens.layers.stop], lens.layers)
        if type(lens) is LogitLens:  # its last layer is the model's own
            own, inputs = inputs[-1:], inputs[:-1]
        parts.append(inputs)
    if own is None:
        own = LogitLens(model.arch).head_inputs(resid[-1:], [model.n_layers])
    return torch.cat([own, *parts])


def _check(
    model: Model,
    lenses: Sequence[VocabLens],
    resid: Tensor,
    targets: Targets,
    k: int,
    wanted: Collection[str],
) -> None:
    names = [lens.name for lens in lenses]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"lenses are {names}: give at least one, each with a name of its own")
    if not 1 <= k <= model.vocab_size:
        raise ConfigError(f"k is {k}: it must be 1..{model.vocab_size}, the size of this model's vocabulary")
    unknown = sorted(set(wanted) - set(METRICS))
    if unknown:
        raise ConfigError(f"there is no metric {unknown[0]!r}: use {', '.join(METRICS)}")
    if not resid.shape[1]:
        raise ConfigError("there are no states to decode")
    shape = (model.n_layers + 1, model.d_model)
    if (resid.shape[0], resid.shape[2]) != shape:
        raise SiteError(
            f"the states are {list(resid.shape)}: this model's are [{shape[0]} layers, row, {shape[1]}], from the "
            "embedding output to the last block"
        )
    for name, ids in {**targets.ids, **targets.sets}.items():
        if len(ids) != resid.shape[1]:
            raise ConfigError(f"target {name!r} has {len(ids)} rows, the states have {resid.shape[1]}")
        if len(ids) and not -1 <= int(ids.min()) <= int(ids.max()) < model.vocab_size:
            bad = int(ids.max()) if int(ids.max()) >= model.vocab_size else int(ids.min())
            raise ConfigError(f"target {name!r} has token id {bad}: {model.name} has ids 0..{model.vocab_size - 1}")


class _Asked:
    """The targets of one chunk of rows, on the device, and what else to measure."""

    def __init__(self, targets: Targets, rows: slice, device: torch.device, k: int, wanted: Collection[str]) -> None:
        self.k = k
        self.wanted = frozenset(wanted)
        self.needs_final = bool(self.wanted & {"kl", "js", "cosine"})
        self.sets = {name: ids[rows].to(device) for name, ids in targets.sets.items()}
        named = [ids[rows].to(device) for ids in targets.ids.values()]
        none = torch.empty(rows.stop - rows.start, 0, dtype=torch.long, device=device)
        self.ids = torch.stack(named, -1) if named else none


@dataclass(frozen=True)
class _Final:
    """The model's own distribution for a chunk of rows."""

    h: Tensor
    z: Tensor
    p: Softmax

    def part(self, rows: slice | Tensor) -> "_Final":
        return _Final(self.h[:, rows], self.z[:, rows], Softmax(*(each[:, rows] for each in self.p)))


_At = tuple[slice, slice] | tuple[Tensor, Tensor]
"""Slots and rows of a tile: a rectangle, or a list of cells."""


def _measured(
    head: Head, states: Float[Tensor, "slot row width"], asked: _Asked, chunk: int, scratch: Tensor | None
) -> Iterator[tuple[_At, dict[str, Tensor]]]:
    """The measurements of one chunk of rows, tile by tile, and where in the chunk they belong. Later ones count."""
    n_slots, n_rows, width = states.shape
    each = max(1, chunk // n_rows)
    final: _Final | None = None
    for first in range(0, n_slots, each):
        h = states[first : first + each]
        product = head.product(h.reshape(-1, width), scratch).view(h.shape[0], n_rows, head.vocab_size)
        if first == 0 and asked.needs_final:
            z = _logits(head, states[:1], product[:1], asked, slice(0, n_rows)).z
            final = _Final(states[:1], z.clone(), metrics.softmax(z))  # the product's memory is used again
        unsure = torch.zeros(h.shape[:2], dtype=torch.bool, device=head.device)
        for some, rows in _tiles(head, h.shape[0], n_rows):
            logits = _logits(head, h[some, rows], product[some, rows], asked, rows)
            tile = _tile(h[some, rows], logits, states[:1, rows], final.part(rows) if final else None, asked, rows)
            if logits.is_sure is not None:
                unsure[some, rows] = ~logits.is_sure
            yield (slice(first + some.start, first + some.stop), rows), tile
        del product
        if head.precision == "fast":
            for cells, tile in _again(head, h, unsure, states[:1], final, asked, chunk):
                yield (first + cells[0], cells[1]), tile


def _again(
    head: Head, h: Tensor, unsure: Tensor, end: Tensor, final: _Final | None, asked: _Asked, chunk: int
) -> Iterator[tuple[tuple[Tensor, Tensor], dict[str, Tensor]]]:
    """The rows that a fast product leaves unsure, with all their logits in fp32."""
    slots, rows = unsure.nonzero(as_tuple=True)
    for start in range(0, len(slots), chunk):
        some, at = slots[start : start + chunk], rows[start : start + chunk]
        state = h[some, at]
        logits = _Logits(head.logits(state)[None], None, None, None)
        tile = _tile(state[None], logits, end[:, at], final.part(at) if final else None, asked, at)
        yield (some, at), {key: value[0] for key, value in tile.items()}


def _tiles(head: Head, n_slots: int, n_rows: int) -> Iterator[tuple[slice, slice]]:
    """Slots and rows in pieces that fit the processor's cache."""
    size = n_slots * n_rows if head.device.type != "cpu" else max(1, TILE // (4 * head.vocab_size))
    wide = min(n_rows, size)
    high = max(1, size // wide)
    for start in range(0, n_rows, wide):
        for first in range(0, n_slots, high):
            yield slice(first, min(first + high, n_slots)), slice(start, min(start + wide, n_rows))


class _Logits(NamedTuple):
    """The logits of a tile. The rest is None where all of them are exact."""

    z: Tensor
    best: Tensor | None
    """The candidates for the best tokens: their logits, and the targets', are exact."""
    error: Tensor | None
    """How far the other logits can be off."""
    is_sure: Tensor | None
    """Whether the k best of the candidates are certain to be the k best of all, and the rest is not too coarse."""


def _logits(head: Head, h: Tensor, product: Tensor, asked: _Asked, rows: slice) -> _Logits:
    z = head.finish(product, h)
    if head.precision == "exact":
        return _Logits(z, None, None, None)
    count = min(max(CANDIDATES, 4 * asked.k), head.vocab_size - 1)
    rough, ids = metrics.candidates(z, count + 1)
    next_best, ids = rough[..., -1], ids[..., :-1]
    error = head.error(h, torch.maximum(rough[..., 0].abs(), z.amin(-1).abs()))
    wanted = asked.ids[rows].expand(*ids.shape[:-1], -1)
    some = torch.cat([ids, torch.where(wanted < 0, ids[..., :1], wanted)], -1)
    exact = head.score(h, some)
    last = exact[..., :count].topk(min(asked.k, count), -1).values[..., -1]
    is_coarse = (next_best.abs() > COARSE) & (rough[..., 0] - next_best < SPREAD)
    return _Logits(z.scatter_(-1, some, exact), ids, error, (last > next_best + error) & ~is_coarse)


def _tile(
    h: Tensor, logits: _Logits, end: Tensor, final: _Final | None, asked: _Asked, rows: slice | Tensor
) -> dict[str, Tensor]:
    z = logits.z
    if logits.best is None:
        values, ids = metrics.best(z, asked.k)
    else:
        values, ids = metrics.in_order(z.gather(-1, logits.best), logits.best)
    if asked.wanted:
        p = metrics.softmax(z)
        norm, mass = metrics.logsumexp(p), partial(metrics.mass, p)
        measured = _values(z, p, final, asked)
    else:
        shares, norm = metrics.probabilities(z, ids[..., 0])
        mass, measured = partial(metrics.share, shares), {}
    exact = None if logits.best is None else mass(logits.best)
    bound = torch.zeros_like(norm) if exact is None or logits.error is None else _bound(exact, logits.error)
    wanted = asked.ids[rows].expand(*z.shape[:-1], -1)
    has = wanted >= 0
    own = z.gather(-1, wanted.clamp_min(0))
    tile = {
        "logsumexp": norm,
        "bound": bound,
        "top_ids": ids[..., : asked.k],
        "top_logprobs": values[..., : asked.k] - norm[..., None],
        "ranks": metrics.rank(z, own) * has,
        "logprobs": (own - norm[..., None]).masked_fill(~has, torch.nan),
        "state_norm": torch.linalg.vector_norm(h, dim=-1),
        "state_cosine": metrics.cosine(h, end.expand_as(h)),
    }
    for name, ids in asked.sets.items():
        tile[f"mass {name}"] = mass(ids[rows].expand(*z.shape[:-1], -1))
    return tile | {f"value {name}": value for name, value in measured.items()}


def _bound(exact: Tensor, error: Tensor) -> Tensor:
    """How far a log-sum-exp can be off when a share `exact` of it is exact and each other logit is within `error`."""
    rest = (1 - exact).clamp(2e-7, 1)  # what fp32 cannot tell from nothing counts as something
    return torch.logaddexp(torch.log1p(-rest), rest.log() + error)


def _values(z: Tensor, p: Softmax, final: _Final | None, asked: _Asked) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    if "entropy" in asked.wanted:
        found["entropy"] = metrics.entropy_bits(p)
    if final is not None and "kl" in asked.wanted:
        found["kl"] = metrics.kl_bits(p, final.p)
    if final is not None and "js" in asked.wanted:
        found["js"] = metrics.js_bits(p, final.p)
    if final is not None and "cosine" in asked.wanted:
        found["cosine"] = metrics.cosine_of_logits(z, final.z)
    return found


def _decoded(views: tuple[View, ...], found: Mapping[str, Tensor], targets: Targets) -> Decoded:
    names = list(targets.ids)
    return Decoded(
        views=views,
        logsumexp=found["logsumexp"],
        logsumexp_bound=found["bound"],
        top_ids=found["top_ids"],
        top_logprobs=found["top_logprobs"],
        values={key.removeprefix("value "): value for key, value in found.items() if key.startswith("value ")},
        ranks={name: found["ranks"][..., at] for at, name in enumerate(names)},
        logprobs={name: found["logprobs"][..., at] for at, name in enumerate(names)},
        masses={key.removeprefix("mass "): value for key, value in found.items() if key.startswith("mass ")},
        state_norm=found["state_norm"],
        state_cosine=found["state_cosine"],
        is_finite=found["logsumexp"].isfinite(),
    )
