"""The monitor: reads every concept of a bank at every token of every request that shares it, and remembers.

The rule of the file: inside a step it does only what must happen there, one scoring for all requests and one copy to
the host. Records are made from those arrays when someone asks (or at once for `on_reading`).
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.classifiers.scores import HostScores
from ftw.hat.monitoring.records import Reading, Score
from ftw.substrate.errors import UsageError
from ftw.substrate.types import Edit, Site, Step

_FLOOR = 0.01
"""The least standard deviation that z is counted in: a lens that never stirs on neutral text has one near 0."""
_SPARE_PAIRS = 8
"""A decode step runs this many MLPs, plus as many per request, at most."""


@dataclass(frozen=True, slots=True)
class _Place:
    """One reading before it is made: which row of which scoring, and what token."""

    host: HostScores
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


class Monitor:
    """A BatchController that reads and never edits. One monitor serves any number of requests at once.

    `top` concepts per token are shown, only those above their own baseline; `concepts` are scored and shown at every
    token whatever their score. `on_reading` is told each reading when it happens. The last `keep` requests are
    remembered. Raises UsageError for a bad `top` or `keep`, UnknownConcept for a concept that the bank lacks.
    """

    def __init__(
        self,
        bank: LensBank,
        *,
        top: int = 5,
        concepts: Sequence[str] | None = None,
        on_reading: Callable[[Reading], None] | None = None,
        full: bool = False,
        keep: int = 1024,
    ) -> None:
        if top < 0 or keep < 1:
            raise UsageError(f"top is {top}, keep is {keep}: top is at least 0, keep at least 1")
        self._pinned = tuple(dict.fromkeys(bank.index(term) for term in concepts or ()))
        self.bank = bank.reading([bank.terms[at] for at in self._pinned]) if self._pinned else bank
        self.top = top
        self.capped = 0
        """How many (state, lens) pairs passed the screen but found no room among the MLPs of their step."""
        self._on_reading = on_reading
        self._full = full
        self._keep = keep
        self._logs: OrderedDict[str, _Log] = OrderedDict()
        self._threshold = np.array([row.threshold_logit for row in bank.rows], dtype=np.float32)

    @property
    def sites(self) -> Sequence[Site]:
        """What its lenses read."""
        return self.bank.sites

    def __call__(self, step: Step) -> Sequence[Edit]:
        """Read one request's step. No edits."""
        self.many([step], {site: states[-1:] for site, states in step.resid.items()})
        return ()

    def many(
        self, steps: Sequence[Step], resid: Mapping[Site, Float[Tensor, "row d_model"]]
    ) -> Sequence[Sequence[Edit]]:
        """Read the steps of many requests in one scoring. No edits."""
        if all(step.phase == "generate" for step in steps):
            budget = _SPARE_PAIRS * (1 + len(steps)) + len(self._pinned) * len(steps)
            self._read(steps, [1] * len(steps), resid, budget)
        else:  # prompts are read whole, and no pair of theirs is left out
            lengths = [len(step.input_ids) for step in steps]
            states = {site: torch.cat([step.resid[site] for step in steps]) for site in self.bank.sites}
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
        return [self._made(request_id, place) for place in log.places]

    def forget(self, request_id: str) -> None:
        """Let go of a request's readings. One that is unknown is ignored."""
        self._logs.pop(request_id, None)

    def _read(
        self, steps: Sequence[Step], lengths: Sequence[int], resid: Mapping[Site, Tensor], budget: int | None
    ) -> None:
        scores = self.bank.score(resid, full=self._full, budget=budget)
        host = scores.host
        self.capped += scores.capped
        row = 0
        for step, length in zip(steps, lengths, strict=True):
            places = self._generated(step, host, row) if step.phase == "generate" else self._prompt(step, host, row)
            row += length
            if self._on_reading is not None:
                for place in places:
                    self._on_reading(self._made(step.request_id, place))

    def _prompt(self, step: Step, host: HostScores, row: int) -> list[_Place]:
        """Begin a request's log with one place per prompt position."""
        ids = step.input_ids.tolist()
        nexts = [*ids[1:], step.token]
        places = [_Place(host, row + at, step.index, "prompt", at, ids[at], nexts[at]) for at in range(len(ids))]
        self._logs[step.request_id] = _Log(list(places), len(ids), step.token)
        self._logs.move_to_end(step.request_id)
        while len(self._logs) > self._keep:
            self._logs.popitem(last=False)
        return places

    def _generated(self, step: Step, host: HostScores, row: int) -> list[_Place]:
        log = self._logs.get(step.request_id)
        if log is None:
            raise UsageError(
                f"step {step.index} of request {step.request_id!r} comes without its prompt: watch a request from its "
                f"start, and no more than {self._keep} at once"
            )
        # the token read is the one chosen last: known here, so no look at a tensor on the device
        place = _Place(host, row, step.index, "generate", log.position, log.token, step.token)
        log.places.append(place)
        log.position += 1
        log.token = step.token
        return [place]

    def _made(self, request_id: str, place: _Place) -> Reading:
        return Reading(
            request_id,
            place.index,
            place.phase,
            place.position,
            place.input_token,
            place.token,
            self._scores(place.host, place.row),
        )

    def _scores(self, host: HostScores, row: int) -> tuple[Score, ...]:
        n = len(self.bank)
        start, end = np.searchsorted(host.flat, (row * n, (row + 1) * n))
        logits = dict(zip((host.flat[start:end] - row * n).tolist(), host.logit[start:end].tolist(), strict=True))
        made = [self._score(lens, logit) for lens, logit in logits.items() if logit >= self._threshold[lens]]
        made.sort(key=lambda score: (-score.p, -score.z))
        shown = {score.term for score in made[: self.top]}
        pinned = [self._score(at, logits.get(at, -math.inf)) for at in self._pinned]
        return (*made[: self.top], *(score for score in pinned if score.term not in shown))

    def _score(self, lens: int, logit: float) -> Score:
        about = self.bank.rows[lens]
        p = about.calibration(logit)
        z = (p - about.baseline.mean) / max(about.baseline.std, _FLOOR)
        return Score(about.term, p, about.baseline.mean, z, logit, about.auroc, logit >= float(self._threshold[lens]))
