"""How requests share forward passes: lanes. A lane holds rows that are decoded together, and their cache.

`SlotLane` holds many requests of any lengths; `SoloLane` holds one, with the model's own cache, for models whose state
is not a plain key-value cache (Mamba, hybrids) or that lose track in a padded batch. Which one a model gets is not
looked up in a table of model types: `study` runs a few tiny passes both ways and compares.

The rule of the file: a pass changes a lane only when it is complete.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ftw.substrate.engine_cache import SlotCache
from ftw.substrate.errors import ModelError

Mode = Literal["prepared", "padded", "solo", "serial"]
"""`prepared`: batched, with a mask that is kept from step to step. `padded`: batched, with the plain 0/1 mask of
transformers' `generate` (position biases are derived from it). `solo`: one pass per request. `serial`: one request at a
time, because the model keeps state in itself."""

_PROBE_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 1e-2}
"""Largest difference to a request that runs alone, as a share of the spread of its logits; 0.05 for other dtypes."""

_UNFIT = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, AssertionError)
"""What a model raises that was not built for what a trial asks of it."""


@dataclass(frozen=True, slots=True)
class Traits:
    """How a model takes batches."""

    mode: Mode
    windows: tuple[int | None, ...] = ()
    """Per block: how many columns attention sees, None for all. Empty when the state is not a plain key-value cache."""
    mask_names: tuple[tuple[str, int | None], ...] = ()
    """The kinds of mask that the model takes by name, with their windows. Empty: it takes one tensor."""
    accepts: frozenset[str] = frozenset()
    """Names of the parameters of the model's forward."""
    makes_state: bool = True
    """Alone, the model makes its own state and hands it back. Otherwise it is given a DynamicCache."""
    why: str = ""
    """What ruled out the faster modes."""


@runtime_checkable
class Lane(Protocol):
    """Rows that are decoded together. Logits come out as [row, vocab], rows in the order of joining."""

    @property
    def rows(self) -> int: ...

    def expect(self, rows: int, columns: int) -> None:
        """A hint: so many rows will soon be here, and each may write so many tokens."""
        ...

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "row vocab"]:
        """Run the prompts in one pass, padded on the left to the longest. They join with `join`."""
        ...

    def join(self) -> None:
        """Take in the rows of the last prefill, behind those already here."""
        ...

    def decode(self, tokens: Sequence[int]) -> Float[Tensor, "row vocab"]:
        """Run one token of every row."""
        ...

    def leave(self, row: int, *, wipe: bool = False) -> None:
        """Free a row; the last row takes its place."""
        ...


@dataclass
class SlotLane:
    """Many requests in one slot cache."""

    net: PreTrainedModel
    traits: Traits
    _prefilled: tuple[DynamicCache, list[int]] | None = None
    _cache: SlotCache = field(init=False)

    def __post_init__(self) -> None:
        self._cache = SlotCache(self.traits.windows)

    @property
    def rows(self) -> int:
        return self._cache.rows

    def expect(self, rows: int, columns: int) -> None:
        self._cache.expect(rows, columns)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "row vocab"]:
        lengths = [len(prompt) for prompt in prompts]
        width = max(lengths)
        device = self.net.device
        cache = DynamicCache()  # without a config: sliding layers keep every position until they are in the slots
        options: dict[str, Any] = {}
        padded = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        if min(lengths) < width:
            mask = torch.tensor([[0] * (width - n) + [1] * n for n in lengths], device=device)
            options["attention_mask"] = mask
            if "position_ids" in self.traits.accepts:
                options["position_ids"] = (mask.cumsum(-1) - 1).clamp_(min=0)
        out = self.net(
            input_ids=torch.tensor(padded, device=device),
            past_key_values=cache,
            use_cache=True,
            **options,
            **_last_only(self.traits),
        )
        self._prefilled = cache, lengths
        return _last_logits(out)

    def join(self) -> None:
        if self._prefilled is not None:
            self._cache.join(*self._prefilled)
            self._prefilled = None

    def decode(self, tokens: Sequence[int]) -> Float[Tensor, "row vocab"]:
        cache = self._cache
        cache.reserve()
        ids = torch.tensor(tokens, device=self.net.device)[:, None]
        out = self.net(input_ids=ids, past_key_values=cache, use_cache=True, **self._padding())
        cache.tick()
        return _last_logits(out)

    def leave(self, row: int, *, wipe: bool = False) -> None:
        self._cache.leave(row, wipe=wipe)

    def _padding(self) -> dict[str, Any]:
        """Mask and positions of the next step; nothing where all rows are equally long: the plain forward pass."""
        cache, traits = self._cache, self.traits
        if cache.is_even:
            return {}
        options: dict[str, Any] = {}
        if "position_ids" in traits.accepts:
            options["position_ids"] = cache.positions
        if traits.mode == "padded":
            mask = cache.mask()
            options["attention_mask"] = None if mask is None else (mask[:, 0, 0] == 0).long()
        elif traits.mask_names:
            options["attention_mask"] = {name: cache.mask(window) for name, window in traits.mask_names}
        else:
            options["attention_mask"] = cache.mask(traits.windows[0])
        return options


@dataclass
class SoloLane:
    """One request with the model's own cache, whatever that is."""

    net: PreTrainedModel
    traits: Traits
    rows: int = 0
    _state: Any = None

    def expect(self, rows: int, columns: int) -> None:
        pass

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "row vocab"]:
        ids = torch.tensor([list(prompt) for prompt in prompts], device=self.net.device)
        fresh = None if self.traits.makes_state else DynamicCache(config=self.net.config)
        return self._run(ids, {self._slot: fresh}, _last_only(self.traits))

    def join(self) -> None:
        self.rows = 1

    def decode(self, tokens: Sequence[int]) -> Float[Tensor, "row vocab"]:
        if self._state is None:
            raise ModelError("this request's state was lost when a pass was broken off: submit it again")
        ids = torch.tensor([list(tokens)], device=self.net.device)
        state, self._state = self._state, None  # the model writes into it: half written it is worth nothing
        return self._run(ids, {self._slot: state}, {})

    def leave(self, row: int, *, wipe: bool = False) -> None:
        self.rows = 0
        self._state = None

    @property
    def _slot(self) -> str:
        """What the model calls the state that it takes and gives back."""
        for name in ("past_key_values", "cache_params", "state"):
            if name in self.traits.accepts:
                return name
        raise ModelError(f"{type(self.net).__name__} keeps no state between tokens: the engine cannot write with it")

    def _run(self, ids: Tensor, state: dict[str, Any], options: dict[str, Any]) -> Tensor:
        slot = self._slot
        out = self.net(input_ids=ids, use_cache=True, **state, **options)
        self._state = getattr(out, slot) if self.traits.makes_state else state[slot]
        return _last_logits(out)


@torch.no_grad()
def study(net: PreTrainedModel) -> Traits:
    """Find the fastest mode in which batched requests get the logits that they get alone. About twenty tiny passes.

    Modes are tried from fastest to slowest on two prompts of different lengths that join and then decode. Differences
    are compared with `_PROBE_TOLERANCE`; the network's random state is not touched.
    """
    accepts = frozenset(inspect.signature(net.forward).parameters)
    vocab = int(net.config.get_text_config().vocab_size)
    prompts = [[(7 + 13 * i) % vocab for i in range(5)], [(3 + 11 * i) % vocab for i in range(9)]]
    follow = [[(17 + 5 * step + row) % vocab for row in range(2)] for step in range(3)]
    solo, alone = _alone(net, accepts, prompts, follow)
    slots = _slot_traits(net, accepts)
    why = slots.why
    for mode, names in _slot_modes(net, slots):
        traits = Traits(mode, slots.windows, names, accepts, why=why)
        failure = _trial([SlotLane(net, traits)], prompts, follow, alone)
        if not failure:
            return traits
        why = f"{mode}: {failure}"
    failure = _trial([SoloLane(net, solo), SoloLane(net, solo)], prompts, follow, alone)
    return replace(solo, mode="serial", why=f"solo: {failure}") if failure else replace(solo, why=why)


def _slot_traits(net: PreTrainedModel, accepts: frozenset[str]) -> Traits:
    """Windows and mask names, if every block keeps plain keys and values."""
    config = net.config.get_text_config()
    if "past_key_values" not in accepts:
        return Traits("solo", why="the model takes no key-value cache")
    layers = DynamicCache(config=net.config).layers
    kinds: tuple[str, ...] = tuple(getattr(config, "layer_types", None) or ())
    odd = {type(layer).__name__ for layer in layers if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer)}
    if odd or not layers or not set(kinds) <= {"full_attention", "sliding_attention"}:
        return Traits("solo", why=f"the cache has other than key-value layers: {sorted(odd | set(kinds))}")
    windows = tuple(layer.sliding_window if isinstance(layer, DynamicSlidingWindowLayer) else None for layer in layers)
    names = dict(zip(kinds, windows, strict=False))
    return Traits("solo", windows, tuple(names.items()), accepts)


def _slot_modes(net: PreTrainedModel, slots: Traits) -> list[tuple[Mode, tuple[tuple[str, int | None], ...]]]:
    """The batched modes worth a trial, fastest first."""
    if not slots.windows:
        return []
    modes: list[tuple[Mode, tuple[tuple[str, int | None], ...]]] = [("padded", ())]
    if net.config._attn_implementation in ("sdpa", "eager"):  # others build their own masks
        if len(set(slots.windows)) == 1:
            modes.insert(0, ("prepared", ()))
        if slots.mask_names:
            modes.insert(0, ("prepared", slots.mask_names))
    return modes


def _alone(
    net: PreTrainedModel, accepts: frozenset[str], prompts: Sequence[Sequence[int]], follow: Sequence[Sequence[int]]
) -> tuple[Traits, list[list[Tensor]]]:
    """How one request runs, and the logits of each prompt alone. Raises ModelError for a model that keeps no state."""
    failure: Exception | None = None
    for makes_state in (True, False):  # RecurrentGemma fills the cache that it is given, but hands none back
        traits = Traits("solo", accepts=accepts, makes_state=makes_state)
        try:
            logits = []
            for row, prompt in enumerate(prompts):
                lane = SoloLane(net, traits)
                logits.append([lane.prefill([prompt])])
                lane.join()
                logits[row] += [lane.decode([pair[row]]) for pair in follow]
        except _UNFIT as error:
            failure = error
        else:
            return traits, logits
    raise ModelError(f"{type(net).__name__} cannot go on from a state, so the engine cannot write with it: {failure}")


def _trial(
    lanes: Sequence[Lane],
    prompts: Sequence[Sequence[int]],
    follow: Sequence[Sequence[int]],
    alone: Sequence[Sequence[Tensor]],
) -> str:
    """Why the lanes do not give the logits of requests that run alone; empty when they do."""
    try:
        if len(lanes) == 1:
            lane = lanes[0]
            got = [lane.prefill(prompts)]
            lane.join()
            got += [lane.decode(pair) for pair in follow]
        else:
            got = [torch.cat([lane.prefill([prompt]) for lane, prompt in zip(lanes, prompts, strict=True)])]
            for lane in lanes:
                lane.join()
            for pair in follow:
                got.append(torch.cat([lane.decode([token]) for lane, token in zip(lanes, pair, strict=True)]))
    except _UNFIT as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    limit = _PROBE_TOLERANCE.get(got[0].dtype, 0.05)
    for step, logits in enumerate(got):
        for row, one in enumerate(alone):
            want = one[step][0].float()
            off = float((logits[row].float() - want).abs().max() / (want.max() - want.min()))
            if not off <= limit:  # not `off > limit`: a NaN must fail
                return f"logits differ from a request alone by {off:.1e} of their spread"
    return ""


def _last_only(traits: Traits) -> dict[str, Any]:
    return {"logits_to_keep": 1} if "logits_to_keep" in traits.accepts else {}


def _last_logits(out: Any) -> Tensor:
    logits: Tensor = out.logits[:, -1]
    return logits
