"""Runs prompts through the model in few padded passes and keeps the residual stream where it was asked for.

Prompts with the same token ids run once. Prompts of similar length share a pass, padded on the right: what follows a
position cannot change it in a causal model, so no mask is needed, and this holds for state-space models and hybrids
as well as for attention.

The rule of the file: what a prompt's states are depends on that prompt alone, never on its company.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ftw.substrate.errors import ConfigError, PromptTooLong
from ftw.substrate.model import Model
from ftw.substrate.probe import text_config
from ftw.substrate.taps import tap
from ftw.substrate.types import Site

BUDGET = 128 << 20
"""Bytes that the activations and readings of one pass may take."""
WASTE = 1.25
"""Positions of a pass, padding included, over those of its prompts: at most this."""
STRETCHY = ("dynamic", "longrope")
"""Rotary scalings that look at the length of the whole pass: there only prompts of one length share it."""

Positions = Literal["last", "all"] | list[Sequence[int]]
"""Which positions to keep: of every prompt the last one or all, or for each prompt its own (counted from 0)."""


@dataclass(frozen=True, slots=True)
class Residuals:
    """The residual stream at some sites, one row for each position that was asked for."""

    sites: tuple[Site, ...]
    states: Float[Tensor, "layer row d_model"]
    """In the model's dtype, in the order of `sites`."""
    prompt: Int[Tensor, " row"]
    """Which prompt a row belongs to: an index into the prompts that were given. Prompts with equal ids share rows,
    which then carry the first one's index."""
    pos: Int[Tensor, " row"]
    """The position in the prompt, counted from 0. Rows are sorted by prompt, then position."""

    def __len__(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True, slots=True)
class _Run:
    """One distinct sequence of token ids, with what is to be kept of it."""

    prompt: int
    ids: tuple[int, ...]
    keep: tuple[int, ...]


def every_site(model: Model) -> tuple[Site, ...]:
    """The embedding output and the stream after each block: n + 1 sites for n blocks."""
    return tuple(Site(layer) for layer in range(-1, model.n_layers))


def first_of_its_kind(prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """For each prompt the index of the first one with the same token ids."""
    seen: dict[tuple[int, ...], int] = {}
    return tuple(seen.setdefault(tuple(ids), index) for index, ids in enumerate(prompts))


def read(
    model: Model,
    prompts: Sequence[Sequence[int]],
    sites: Sequence[Site] | None = None,
    *,
    positions: Positions = "last",
    budget: int = BUDGET,
) -> Residuals:
    """All of it at once: see `batches`. Rows of distinct prompts in the order given."""
    parts = list(batches(model, prompts, sites, positions=positions, budget=budget))
    prompt = torch.cat([part.prompt for part in parts])
    order = prompt.argsort(stable=True)  # within a prompt the positions already ascend
    states = torch.cat([part.states for part in parts], dim=1)[:, order.to(parts[0].states.device)]
    return Residuals(parts[0].sites, states, prompt[order], torch.cat([part.pos for part in parts])[order])


def batches(
    model: Model,
    prompts: Sequence[Sequence[int]],
    sites: Sequence[Site] | None = None,
    *,
    positions: Positions = "last",
    budget: int = BUDGET,
) -> Iterator[Residuals]:
    """The states of `prompts`, pass by pass: `passes`, each read."""
    for each in passes(model, prompts, sites, positions=positions, budget=budget):
        yield each.read()


def passes(
    model: Model,
    prompts: Sequence[Sequence[int]],
    sites: Sequence[Site] | None = None,
    *,
    positions: Positions = "last",
    budget: int = BUDGET,
) -> list["Pass"]:
    """The passes that `prompts` (token ids) need at `sites` (default: every site), the longest prompts first.

    A pass takes at most `budget` bytes beside the weights (one prompt always runs). Which prompts share one depends on
    the prompts alone, so the same call gives the same passes. Raises ConfigError for no prompts, an empty prompt, an id
    or position that does not exist, PromptTooLong, and SiteError.
    """
    where = tuple(sites) if sites is not None else every_site(model)
    runs = _runs(model, prompts, positions)
    limit = max(1, budget // _bytes_per_token(model, len(where)))
    groups = _groups(runs, limit, same_length=_looks_at_length(text_config(model.net)))
    return [Pass(model, tuple(group), where) for group in groups]


@dataclass(frozen=True, slots=True)
class Pass:
    """Some prompts of similar length that run together."""

    model: Model
    runs: tuple[_Run, ...]
    sites: tuple[Site, ...]

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Prompt and position of each row that `read` gives."""
        return [(run.prompt, at) for run in self.runs for at in run.keep]

    def read(self) -> Residuals:
        """Run them. States come on the device of the first block, `prompt` and `pos` on the CPU."""
        return _pass(self.model, self.runs, self.sites)


def _runs(model: Model, prompts: Sequence[Sequence[int]], positions: Positions) -> list[_Run]:
    if not prompts:
        raise ConfigError("there are no prompts to read")
    if isinstance(positions, list) and len(positions) != len(prompts):
        raise ConfigError(f"positions are given for {len(positions)} prompts, there are {len(prompts)}")
    if not isinstance(positions, list) and positions not in ("last", "all"):
        raise ConfigError(f"positions are {positions!r}: use last, all, or a list of positions for each prompt")
    first = first_of_its_kind(prompts)
    keep: dict[int, set[int]] = {}
    for index, ids in enumerate(prompts):
        _check(model, index, ids)
        if isinstance(positions, list):
            own = positions[index]
        else:
            own = range(len(ids)) if positions == "all" else (len(ids) - 1,)
        bad = [at for at in own if not 0 <= at < len(ids)]
        if bad:
            raise ConfigError(f"prompt {index} has no position {bad[0]}: it is {len(ids)} tokens long")
        keep.setdefault(first[index], set()).update(own)
    return [_Run(index, tuple(prompts[index]), tuple(sorted(own))) for index, own in keep.items()]


def _check(model: Model, index: int, ids: Sequence[int]) -> None:
    if not ids:
        raise ConfigError(f"prompt {index} is empty: there is no position whose next token could be asked for")
    if len(ids) > model.context:
        raise PromptTooLong(f"prompt {index} is {len(ids)} tokens long: {model.name} holds {model.context}. Shorten it")
    rows = int(model.arch.embed.weight.shape[0])  # type: ignore[index]
    bad = [token for token in ids if not 0 <= token < rows]
    if bad:
        raise ConfigError(f"prompt {index} has token id {bad[0]}: {model.name} has ids 0..{rows - 1}")


def _groups(runs: Sequence[_Run], limit: int, *, same_length: bool) -> Iterator[list[_Run]]:
    """The runs in groups of similar length, each of at most `limit` positions with its padding."""
    group: list[_Run] = []
    real = 0
    for run in sorted(runs, key=lambda run: -len(run.ids)):  # stable: equal lengths stay in order
        width = len(group[0].ids) if group else len(run.ids)
        padded = width * (len(group) + 1)
        is_alike = len(run.ids) == width if same_length else padded <= WASTE * (real + len(run.ids))
        if group and (padded > limit or not is_alike):
            yield group
            group, real = [], 0
        group.append(run)
        real += len(run.ids)
    if group:
        yield group


@torch.inference_mode()
def _pass(model: Model, group: Sequence[_Run], sites: tuple[Site, ...]) -> Residuals:
    width = len(group[0].ids)
    # padded with the row's own last token: an id that every model takes as text
    ids = torch.tensor([[*run.ids, *[run.ids[-1]] * (width - len(run.ids))] for run in group], device=model.device)
    rows = torch.tensor([row for row, run in enumerate(group) for _ in run.keep])
    pos = torch.tensor([at for run in group for at in run.keep])
    # the logits of a padded row's end are of no use, and all of them would be the largest tensor of the pass
    options: dict[str, Any] = {"logits_to_keep": 1} if _keeps_few_logits(model) else {}
    with tap(model, reads=sites) as trace:
        model.net(input_ids=ids, use_cache=False, **options)
        home = trace[sites[0]].device
        states = torch.stack([_rows(trace[site], rows, pos).to(home) for site in sites])
    return Residuals(sites, states, torch.tensor([group[row].prompt for row in rows.tolist()]), pos)


def _rows(stream: Tensor, rows: Tensor, pos: Tensor) -> Tensor:
    return stream[rows.to(stream.device), pos.to(stream.device)]


def _keeps_few_logits(model: Model) -> bool:
    return "logits_to_keep" in inspect.signature(model.net.forward).parameters


def _bytes_per_token(model: Model, n_sites: int) -> int:
    """The readings, and what a block holds at once: two dozen streams are a generous guess for one with a wide MLP."""
    logits = 0 if _keeps_few_logits(model) else model.vocab_size
    return ((n_sites + 24) * model.d_model + logits) * model.dtype.itemsize


def _looks_at_length(value: Any) -> bool:
    """Whether a config's rotary scaling depends on how long the pass is."""
    if isinstance(value, dict):
        return any(
            (key in ("rope_type", "type") and entry in STRETCHY) or _looks_at_length(entry)
            for key, entry in value.items()
        )
    keys = ("rope_parameters", "rope_scaling")
    return any(_looks_at_length(part) for key in keys if isinstance(part := getattr(value, key, None), dict))
