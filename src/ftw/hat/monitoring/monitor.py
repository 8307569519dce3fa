"""The monitor: reads every concept of a bank at every token of every request that shares it, and remembers.

The rule of the file: inside a step it only asks for work, one scoring for all requests and one copy to the host.
Records are made from what arrived when someone asks (or at once for `on_reading`).
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.hierarchy import Tree
from ftw.hat.classifiers.index import LensRow
from ftw.hat.classifiers.readout import Here, Pending, Readings, Readout, Scorer, Soon
from ftw.hat.classifiers.tripole import TripoleBank
from ftw.hat.monitoring.hierarchy import Deployment, Scope
from ftw.hat.monitoring.records import Reading, Score, SimplexScore
from ftw.hat.monitoring.simplex import is_shown, simplex_score
from ftw.substrate.errors import NumericError, UsageError
from ftw.substrate.types import Edit, Site, Step

MARGIN = 0.15
"""A child explains its parent when its calibrated p is at most this much lower."""
_FLOOR = 0.01
"""The least standard deviation that z is counted in: a lens that never stirs on neutral text has one near 0."""
_SPARE_PAIRS = 8
"""A decode step runs this many MLPs, plus as many per request, at most."""


@runtime_checkable
class Bank(Scorer, Protocol):
    """What a monitor reads with: a LensBank, or one that holds only some of its lenses at a time."""

    @property
    def terms(self) -> Sequence[str]: ...

    def index(self, term: str) -> int: ...

    def reading(self, terms: Sequence[str]) -> "Bank": ...


@runtime_checkable
class Warms(Protocol):
    """A bank that loads lenses as they are needed."""

    def prewarm(self) -> None:
        """Told when a prompt was read and writing begins: what its readings asked for is fetched now."""

    def late(self) -> Callable[[int], tuple[str, ...]]:
        """By row of all scorings since the last call: the concepts whose children it lacked."""
        ...


@dataclass(slots=True)
class _Scoring:
    """One scoring of many states: what comes of it, and what it took."""

    pending: Pending | Here | Soon
    simplexes: Float[Tensor, "row simplex 3"] | None
    """On the host once `pending` is."""
    late: Callable[[int], tuple[str, ...]]
    """By row, the concepts whose children it lacked."""
    t_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Place:
    """One reading before it is made: which row of which scoring, and what token."""

    scoring: _Scoring
    row: int
    index: int
    phase: Literal["prompt", "generate"]
    position: int
    input_token: int
    token: int


@dataclass(slots=True)
class _Log:
    """What is remembered of a request."""

    places: list[_Place]
    position: int
    """Of the token that the next step will read."""
    token: int
    """That token."""
    spreads: list[list[float]]
    """Per simplex, p(positive) - p(negative) at each place that was looked at, in order."""


class Monitor:
    """A BatchController that reads and never edits. One monitor serves any number of requests at once.

    `top` concepts per token are shown, only those above their own baseline, and no parent that one of its children
    explains (within `margin`); `concepts` are scored and shown at every token whatever their score. `scope` restricts
    what is shown to what a manifest opens, and what may be asked for to what it may open. `simplexes` are read beside
    the concepts, those whose concept is never read without it. `on_reading` is told each reading when it happens. The
    last `keep` requests are remembered. Raises UsageError for a bad `top`, `keep` or `margin`, a scope of another bank,
    or a concept that the manifest never lets be read, UnknownConcept for a concept that the bank lacks.
    """

    def __init__(
        self,
        bank: Bank,
        *,
        top: int = 5,
        concepts: Sequence[str] | None = None,
        on_reading: Callable[[Reading], None] | None = None,
        full: bool = False,
        keep: int = 1024,
        margin: float = MARGIN,
        scope: Scope | None = None,
        simplexes: TripoleBank | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if top < 0 or keep < 1 or not 0 <= margin <= 1:
            raise UsageError(
                f"top is {top}, keep is {keep}, margin is {margin}: top is at least 0, keep at least 1, margin 0 to 1"
            )
        self._pinned = tuple(dict.fromkeys(bank.index(term) for term in concepts or ()))
        known = {term.casefold(): at for at, term in enumerate(bank.terms)}
        named = [row.binding.concept or "" for row in simplexes.rows] if simplexes is not None else []
        if scope is not None:
            _permitted(scope.deployment, self._pinned)
            known = {term: at for term, at in known.items() if scope.deployment.readable(at)}
        self._bound = [known.get(term.casefold()) for term in named]  # a pack of some levels may lack one
        self._columns = tuple(dict.fromkeys((*self._pinned, *(at for at in self._bound if at is not None))))
        # a bank of few lenses cannot hold a bound concept for ever: its simplex is then read without it at times
        always = self._pinned if isinstance(bank, Warms) else self._columns
        self.bank = bank.reading([bank.terms[at] for at in always]) if always else bank
        self._warms = self.bank if isinstance(self.bank, Warms) else None
        self.top = top
        self.capped = 0
        """How many (state, lens) pairs passed the screen but found no room among the MLPs of their step."""
        self._rows: Sequence[LensRow] = bank.rows if scope is None else scope.deployment.rows
        self._tree = Tree.of(self._rows, bank.device) if scope is None else scope.tree
        self._readout = Readout(
            self.bank,
            self._tree,
            k=top,
            margin=margin,
            pinned=self._columns,
            allow=None if scope is None else scope.allowed,
            rows=self._rows,
        )
        self._simplexes = simplexes
        self._on_reading = on_reading
        self._full = full
        self._keep = keep
        self._clock = clock
        self._logs: OrderedDict[str, _Log] = OrderedDict()
        self._last: _Scoring | None = None

    @property
    def sites(self) -> Sequence[Site]:
        """What its lenses and simplexes read, ascending."""
        more = () if self._simplexes is None else self._simplexes.sites
        return tuple(sorted({*self.bank.sites, *more}))

    def prewarm(self) -> None:
        """Score one made-up state, so that the first token does not wait for weights and kernels to be fetched."""
        blank = torch.zeros(1, self.bank.d_model, device=self.bank.device)
        self._scored(dict.fromkeys(self.sites, blank), None).pending.result()

    def __call__(self, step: Step) -> Sequence[Edit]:
        """Read one request's step. No edits."""
        self.many([step], {site: states[-1:] for site, states in step.resid.items()})
        return ()

    def many(
        self, steps: Sequence[Step], resid: Mapping[Site, Float[Tensor, "row d_model"]]
    ) -> Sequence[Sequence[Edit]]:
        """Read the steps of many requests in one scoring. No edits."""
        if all(step.phase == "generate" for step in steps):
            budget = _SPARE_PAIRS * (1 + len(steps)) + len(self._columns) * len(steps)
            self._read(steps, [1] * len(steps), resid, budget)
        else:  # prompts are read whole, and no pair of theirs is left out
            lengths = [len(step.input_ids) for step in steps]
            states = {site: torch.cat([step.resid[site] for step in steps]) for site in self.sites}
            self._read(steps, lengths, states, None)
        return [()] * len(steps)

    def readings(self, request_id: str) -> list[Reading]:
        """The readings of a request so far, one per prompt position and one per token whose pass was run.

        Raises UsageError for a request that it has not seen or no longer remembers.
        """
        log = self._logs.get(request_id)
        if log is None:
            raise UsageError(
                f"no readings of request {request_id!r}: it was not watched, or {self._keep} came after it"
            )
        return [self._made(request_id, log, at) for at in range(len(log.places))]

    def forget(self, request_id: str) -> None:
        """Let go of a request's readings. One that is unknown is ignored."""
        self._logs.pop(request_id, None)

    def _read(
        self, steps: Sequence[Step], lengths: Sequence[int], resid: Mapping[Site, Tensor], budget: int | None
    ) -> None:
        scoring = self._scored(resid, budget)
        self.capped += scoring.pending.capped
        row = 0
        for step, length in zip(steps, lengths, strict=True):
            places = (
                self._generated(step, scoring, row) if step.phase == "generate" else self._prompt(step, scoring, row)
            )
            row += length
            if self._on_reading is not None:
                log = self._logs[step.request_id]
                for at in range(len(log.places) - places, len(log.places)):
                    self._on_reading(self._made(step.request_id, log, at))
        if self._warms is not None and any(step.phase == "prompt" for step in steps):
            self._warms.prewarm()

    def _scored(self, resid: Mapping[Site, Tensor], budget: int | None) -> _Scoring:
        began = self._clock()
        t_ms, poles = {}, None
        if self._simplexes is not None:  # before the readout: when its copy has arrived, this one has
            poles = _on_its_way(self._simplexes.score(resid))
            t_ms["simplexes"] = 1e3 * (self._clock() - began)
            began = self._clock()
        if self._warms is not None:
            self._warms.late()  # what someone else scored is not ours
        pending = self._readout({site: resid[site] for site in self.bank.sites}, full=self._full, budget=budget)
        t_ms["score"] = 1e3 * (self._clock() - began)
        late = _never if self._warms is None else self._warms.late()
        scoring, earlier = _Scoring(pending, poles, late, t_ms), self._last
        if self.bank.device.type != "cuda":
            scoring.pending.check()
            return scoring
        if earlier is not None:  # by now it has arrived, and its buffers can be used again
            with suppress(NumericError):  # another request's, perhaps: raised where its readings are asked for
                self._arrived(earlier)
        self._last = scoring
        return scoring

    def _arrived(self, scoring: _Scoring) -> Readings:
        """The readings of a scoring on the host, and with them its simplexes."""
        if "wait" in scoring.t_ms:
            return scoring.pending.result()
        began = self._clock()
        readings = scoring.pending.result()
        scoring.t_ms["wait"] = 1e3 * (self._clock() - began)
        return readings

    def _prompt(self, step: Step, scoring: _Scoring, row: int) -> int:
        """Begin a request's log with one place per prompt position; how many."""
        ids = step.input_ids.tolist()
        nexts = [*ids[1:], step.token]
        places = [_Place(scoring, row + at, step.index, "prompt", at, ids[at], nexts[at]) for at in range(len(ids))]
        n = 0 if self._simplexes is None else len(self._simplexes)
        self._logs[step.request_id] = _Log(places, len(ids), step.token, [[] for _ in range(n)])
        self._logs.move_to_end(step.request_id)
        while len(self._logs) > self._keep:
            self._logs.popitem(last=False)
        return len(places)

    def _generated(self, step: Step, scoring: _Scoring, row: int) -> int:
        log = self._logs.get(step.request_id)
        if log is None:
            raise UsageError(
                f"step {step.index} of request {step.request_id!r} comes without its prompt: watch a request from its "
                f"start, and no more than {self._keep} at once"
            )
        # the token read is the one chosen last: known here, so no look at a tensor on the device
        log.places.append(_Place(scoring, row, step.index, "generate", log.position, log.token, step.token))
        log.position += 1
        log.token = step.token
        return 1

    def _made(self, request_id: str, log: _Log, at: int) -> Reading:
        place = log.places[at]
        seen = self._arrived(place.scoring)
        n = seen.lens.shape[1] - len(self._columns)
        made = [self._score(seen, place.row, column) for column in range(n) if seen.lens[place.row, column] >= 0]
        shown = {score.term for score in made}
        pinned = [self._score(seen, place.row, n + column) for column in range(len(self._pinned))]
        return Reading(
            request_id,
            place.index,
            place.phase,
            place.position,
            place.input_token,
            place.token,
            (*made, *(score for score in pinned if score.term not in shown)),
            self._moved(log, at, seen, n),
            place.scoring.late(place.row),
            place.scoring.t_ms,
        )

    def _moved(self, log: _Log, at: int, seen: Readings, n: int) -> tuple[SimplexScore, ...]:
        """The simplexes of one place, against the places before it."""
        if self._simplexes is None:
            return ()
        while len(log.spreads[0]) <= at:
            poles = _poles(log.places[len(log.spreads[0])])
            for spread, (negative, _, positive) in zip(log.spreads, poles.tolist(), strict=True):
                spread.append(positive - negative)
        here, made = _poles(log.places[at]).tolist(), []
        for row, poles, spread, bound in zip(self._simplexes.rows, here, log.spreads, self._bound, strict=True):
            p = None if bound is None else self._read_p(seen, log.places[at].row, n + self._columns.index(bound))
            back = max(row.binding.baseline_window, row.binding.trend_window)
            score = simplex_score(row, poles, spread[max(0, at - back) : at], p)
            if is_shown(row, score):
                made.append(score)
        return tuple(made)

    @staticmethod
    def _read_p(seen: Readings, row: int, column: int) -> float | None:
        """A calibrated p, None where the lens was not computed."""
        return float(seen.p[row, column]) if np.isfinite(seen.logit[row, column]) else None

    def _score(self, seen: Readings, row: int, column: int) -> Score:
        lens = int(seen.lens[row, column])
        about, logit = self._rows[lens], float(seen.logit[row, column])
        p, sibling_p = about.calibration(logit), float(seen.sibling_p[row, column])
        return Score(
            about.term,
            p,
            about.baseline.mean,
            (p - about.baseline.mean) / max(about.baseline.std, _FLOOR),
            logit,
            about.auroc,
            bool(seen.above[row, column]),
            self._tree.levels[lens],
            about.block,
            about.reliability,
            sibling_p if about.parent is not None and len(self._tree.siblings(lens)) > 1 and sibling_p > 0 else None,
        )


def _permitted(deployment: Deployment, places: Sequence[int]) -> None:
    """Raise UsageError for a concept that was asked for and that the manifest never lets be read."""
    for at in places:
        if at < len(deployment.rows) and not deployment.readable(at):
            term = deployment.rows[at].term
            raise UsageError(
                f"{term} is never read here: {deployment.why(term).rule} in manifest "
                f"{deployment.manifest.manifest_id}; leave it out, or take another manifest"
            )


def _never(row: int) -> tuple[str, ...]:
    """A bank that holds all of its lenses lacks none."""
    return ()


def _on_its_way(values: Tensor) -> Tensor:
    """A tensor that is being copied to the host."""
    if not values.is_cuda:
        return values
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)


def _poles(place: _Place) -> np.ndarray:
    """Probabilities of the poles at a place whose scoring has arrived or is older than one that has, [simplex, 3]."""
    if place.scoring.simplexes is None:
        raise UsageError("this scoring was made without simplexes")
    return place.scoring.simplexes[place.row].numpy()
