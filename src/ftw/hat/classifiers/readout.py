"""From scores to what is shown, on the device: calibrate, compare, hide what a child explains, keep the top, copy once.

The rule of the file: between the states and the copy nothing waits for the device and no shape depends on a value, so a
step with every lens can be captured as a CUDA graph. One packed tensor goes to the host, by an asynchronous copy into
pinned memory; who wants the reading waits then, and only then is a NaN complained about.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from ftw.hat.classifiers.hierarchy import Tree
from ftw.hat.classifiers.index import LensRow
from ftw.hat.classifiers.readout_host import Chosen, HostReadout
from ftw.hat.classifiers.scores import Scores, not_a_number
from ftw.substrate.errors import UsageError
from ftw.substrate.types import Site

Allow = Callable[[Float[Tensor, "row lens"]], Bool[Tensor, "row lens"]]
"""Given the calibrated p, which pairs may be shown at all. Plain torch; its masks may change in place between steps."""

_FIELDS = 5
_FEW = 32
"""On the host, steps of up to so many states wait for others, so that their readings are chosen together …"""
_STEPS = 64
"""… until there are so many of them …"""
_KEPT = 1 << 18
"""… or so many scores."""
_ROOM = 1 << 28
"""Bytes for what a readout makes of the scores, unless told: rows beyond that are read a part at a time."""
_HELD = 10
"""Numbers of 4 bytes per pair that are alive at once, at most."""


@runtime_checkable
class Scorer(Protocol):
    """What a readout reads with: a LensBank, or one that holds only some of its lenses at a time."""

    @property
    def rows(self) -> Sequence[LensRow]: ...
    @property
    def sites(self) -> Sequence[Site]: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def d_model(self) -> int: ...
    @property
    def is_shared(self) -> bool: ...

    def score(
        self, resid: Mapping[Site, Float[Tensor, "row d_model"]], *, full: bool = False, budget: int | None = None
    ) -> Scores: ...


class Readings(NamedTuple):
    """What each row reads, on the host: first the top, then the pinned lenses, [row, k + pinned] each."""

    lens: np.ndarray
    """Place in the bank, int32; -1 where fewer than k readings are visible."""
    logit: np.ndarray
    """fp32; -inf where it was not computed."""
    p: np.ndarray
    """Calibrated probability, fp32."""
    sibling_p: np.ndarray
    """Softmax of the calibrated log-odds over the lens and its siblings, fp32."""
    above: np.ndarray
    """Whether it is at or above its lens's threshold."""


class Here:
    """A readout that was made on the host: a `Pending` that never waits."""

    def __init__(self, parts: Sequence[Chosen], bad: bool, capped: int) -> None:
        self.capped = capped
        self._parts, self._bad = parts, bad

    @property
    def is_here(self) -> bool:
        """True."""
        return True

    def check(self) -> None:
        """Raise NumericError where a logit is a NaN."""
        if self._bad:
            raise not_a_number()

    def result(self) -> Readings:
        """What was read. Raises NumericError where a logit is a NaN."""
        self.check()
        return self._rows

    @cached_property
    def _rows(self) -> Readings:
        if len(self._parts) == 1:
            return Readings(*self._parts[0])
        return Readings(*(np.concatenate(fields) for fields in zip(*self._parts, strict=True)))


class Gathered:
    """Scores on the host whose readings are chosen when someone asks: those of many steps then cost what one costs.

    Steps come from one thread, and another may ask for their readings.
    """

    def __init__(self, host: HostReadout) -> None:
        self._host = host
        self._waiting: list[tuple[Soon, Tensor, Tensor | None]] = []
        self._held = 0
        self._lock = Lock()

    def later(self, raw: Float[Tensor, "row lens"], allowed: Bool[Tensor, "row lens"] | None, capped: int) -> "Soon":
        """Readings of these logits, which are kept until then; none of them is a NaN."""
        soon = Soon(self, capped)
        with self._lock:
            self._waiting.append((soon, raw, allowed))
            self._held += raw.numel()
            if len(self._waiting) >= _STEPS or self._held >= _KEPT:
                self._choose()
        return soon

    def choose(self) -> None:
        """Choose the readings of everything that waits."""
        with self._lock:
            if self._waiting:
                self._choose()

    def _choose(self) -> None:
        waiting, self._waiting, self._held = self._waiting, [], 0
        masks = [mask for _, _, mask in waiting if mask is not None]
        chosen = self._host(torch.cat([raw for _, raw, _ in waiting]), torch.cat(masks) if masks else None)
        start = 0
        for soon, raw, _ in waiting:
            end = start + len(raw)
            soon.made = Readings(*(field[start:end] for field in chosen))
            start = end


class Soon:
    """Readings that are chosen together with those of other steps: a `Pending` that never waits."""

    def __init__(self, gathered: Gathered, capped: int) -> None:
        self.capped = capped
        self.made: Readings | None = None
        self._gathered = gathered

    @property
    def is_here(self) -> bool:
        """True."""
        return True

    def check(self) -> None:
        """Nothing: scores that hold a NaN do not come here."""

    def result(self) -> Readings:
        """What was read."""
        if self.made is None:
            self._gathered.choose()
        assert self.made is not None
        return self.made


class Pending:
    """A readout on its way to the host."""

    def __init__(self, packed: Int32[Tensor, " number"], shape: tuple[int, int], capped: int) -> None:
        """Starts the copy; it does not wait for it. Raises NumericError for a NaN at once where none is needed."""
        self.capped = capped
        """How many pairs passed the screen but not the budget."""
        self._shape = shape
        if not packed.is_cuda:
            self._host, self._done = packed, None
            _ = self._rows
            return
        self._host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
        self._host.copy_(packed, non_blocking=True)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._done.record()

    @property
    def is_here(self) -> bool:
        """Whether `result` would not wait."""
        return self._done is None or bool(self._done.query())  # type: ignore[no-untyped-call]

    def check(self) -> None:
        """Nothing: whether a logit is a NaN is known when the copy has arrived."""

    def result(self) -> Readings:
        """What was read. Waits for the copy where it must. Raises NumericError where a logit is a NaN."""
        return self._rows

    @cached_property
    def _rows(self) -> Readings:
        if self._done is not None:
            self._done.synchronize()
        numbers = self._host.numpy()
        if numbers[-1]:
            raise not_a_number()
        rows, columns = self._shape
        lens, *floats, above = numbers[:-1].reshape(_FIELDS, rows, columns)
        logit, p, sibling_p = (one.view(np.float32) for one in floats)
        return Readings(lens, logit, p, sibling_p, above.astype(bool))


class Readout:
    """The `k` highest visible readings of each row, and the `pinned` lenses whatever they read.

    Visible is what is at or above its threshold and allowed, and is not explained by a child (`Tree.visible`). The
    highest are those with the greatest calibrated log-odds. `rows` are the bank's where it has none of its own or
    other thresholds are meant; `room` is in bytes. Raises UsageError for a negative `k` and for parts that do not fit.
    """

    def __init__(
        self,
        bank: Scorer,
        tree: Tree,
        *,
        k: int,
        margin: float,
        pinned: Sequence[int] = (),
        allow: Allow | None = None,
        rows: Sequence[LensRow] | None = None,
        room: int = _ROOM,
    ) -> None:
        rows = bank.rows if rows is None else rows
        if k < 0:
            raise UsageError(f"k is {k}: a readout keeps 0 or more readings of each row")
        if not len(bank.rows) == len(rows) == len(tree):
            raise UsageError(
                f"a readout needs parts of one pack, not a bank of {len(bank.rows)} lenses, {len(rows)} rows, "
                f"a tree of {len(tree)}: make the tree from the bank's own rows"
            )
        self._bank = bank
        self._tree = tree.to(bank.device)
        self._k = min(k, len(rows))
        self._margin = margin
        self._at_once = max(1, room // (4 * _HELD * len(rows)))
        self._allow = allow
        self._pinned = torch.tensor(list(pinned), dtype=torch.int64, device=bank.device)
        self._host = HostReadout(self._tree, rows, k=self._k, margin=margin, pinned=pinned)
        self._gathered = Gathered(self._host)
        self._threshold = torch.tensor([row.threshold_logit for row in rows], device=bank.device)
        self._slope = torch.tensor([row.calibration.slope for row in rows], device=bank.device)
        self._offset = torch.tensor([row.calibration.offset for row in rows], device=bank.device)

    @property
    def columns(self) -> int:
        """How many readings a row has at most: k, or all there are, and the pinned ones."""
        return self._k + len(self._pinned)

    def __call__(
        self, resid: Mapping[Site, Float[Tensor, "row d_model"]], *, full: bool = False, budget: int | None = None
    ) -> Pending | Here | Soon:
        """Score raw states and start the copy of what is to be shown. Arguments and errors as `LensBank.score`.

        Lenses that share their first layer are all computed anyway, so all of them count among the siblings.
        """
        full = full or self._bank.is_shared
        rows = max(len(states) for states in resid.values())
        step = max(1, rows) if budget is not None else self._at_once
        capped, fields, chosen, bad = 0, [], [], []
        with torch.inference_mode():
            for at in range(0, max(1, rows), step):
                part = {site: x[at : at + step] for site, x in resid.items()} if step < rows else resid
                scores = self._bank.score(part, full=full, budget=budget)
                capped += scores.capped
                bad.append(scores.raw.isnan().any())
                if self._bank.device.type == "cpu":
                    if rows <= _FEW and step >= rows and not bool(bad[0]):
                        return self._gathered.later(scores.raw, self._allowed(scores.raw), capped)
                    chosen.append(self._host(scores.raw, self._allowed(scores.raw)))
                else:
                    fields.append(self._fields(scores))
            if chosen:
                return Here(chosen, any(map(bool, bad)), capped)
            return Pending(_packed(fields, bad), (rows, self.columns), capped)

    def _allowed(self, logit: Tensor) -> Bool[Tensor, "row lens"] | None:
        """Which pairs may be shown, for the host."""
        return None if self._allow is None else self._allow(torch.sigmoid(logit * self._slope + self._offset))

    def capture(self, rows: int, dtype: torch.dtype) -> "Captured":
        """The same for every lens of always `rows` states, as one CUDA graph. Raises UsageError without a GPU."""
        return Captured(self, self._bank, rows, dtype)

    def _whole(self, scores: Scores) -> Int32[Tensor, " number"]:
        """What goes to the host of one scoring."""
        return _packed([self._fields(scores)], [scores.raw.isnan().any()])

    def _fields(self, scores: Scores) -> Int32[Tensor, "5 row column"]:
        logit = scores.raw
        odds = logit * self._slope + self._offset
        p, above = torch.sigmoid(odds), logit >= self._threshold
        allowed = above if self._allow is None else above & self._allow(p)
        visible = self._tree.visible(p, allowed, margin=self._margin)
        top = odds.masked_fill(~visible, float("-inf")).topk(self._k)
        lens = top.indices.masked_fill(top.values == float("-inf"), -1)
        lens = torch.cat((lens, self._pinned.expand(len(lens), -1)), 1)
        at, none = lens.clamp(min=0), lens < 0
        return torch.stack(
            (
                lens.to(torch.int32),
                logit.gather(1, at).masked_fill(none, float("-inf")).view(torch.int32),
                p.gather(1, at).masked_fill(none, 0).view(torch.int32),
                self._tree.sibling_softmax(odds).gather(1, at).masked_fill(none, 0).view(torch.int32),
                above.gather(1, at).masked_fill(none, False).to(torch.int32),
            )
        )


class Captured:
    """A readout of a fixed number of rows as one CUDA graph: a step launches one thing."""

    def __init__(self, readout: Readout, bank: Scorer, rows: int, dtype: torch.dtype) -> None:
        """For `Readout.capture`."""
        if bank.device.type != "cuda":
            raise UsageError(f"a CUDA graph needs a GPU: this bank is on {bank.device}; call the readout itself")
        self._shape = (rows, readout.columns)
        self._states = {site: torch.zeros(rows, bank.d_model, dtype=dtype, device=bank.device) for site in bank.sites}
        side = torch.cuda.Stream(bank.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(bank.device))
        with torch.cuda.stream(side), torch.inference_mode():
            for _ in range(2):  # kernels are compiled and workspaces taken before the capture
                readout._whole(bank.score(self._states, full=True))
        torch.cuda.current_stream(bank.device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(self._graph):
            self._out = readout._whole(bank.score(self._states, full=True))

    def __call__(self, resid: Mapping[Site, Float[Tensor, "row d_model"]]) -> Pending:
        """Read these states: as many rows as were captured."""
        for site, states in self._states.items():
            states.copy_(resid[site], non_blocking=True)
        self._graph.replay()
        return Pending(self._out, self._shape, 0)


def _packed(fields: Sequence[Tensor], bad: Sequence[Tensor]) -> Int32[Tensor, " number"]:
    """All fields of all rows side by side as 32-bit words, and whether there was a NaN."""
    together = torch.cat(list(fields), 1) if len(fields) > 1 else fields[0]
    return torch.cat((together.view(-1), torch.stack(list(bad)).any().to(torch.int32).view(1)))
