"""Writes text for many requests at once: prefill, decode, sampling, controllers, streaming, cancellation.

Requests of any length join and leave between steps. Each step is one forward pass per lane (`engine_lanes`), one choice
of tokens for all rows (`sampling`), then every request's controllers, whose edits act on the next step (`taps`).

The rule of the file: what happens to one request, a bad edit, a failing controller, a NaN, a cancellation, is never
felt by another one. With no controllers and no edits there is no hook, and the pass is the model's own, bit for bit.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from ftw.substrate.engine_controllers import Asked, ask
from ftw.substrate.engine_lanes import Lane, SlotLane, SoloLane, Traits, study
from ftw.substrate.engine_plan import PATIENCE, SPARE, acting, alike
from ftw.substrate.engine_request import Chunk, Completion, Reason, Request, Run
from ftw.substrate.errors import ConfigError, NumericError, PromptTooLong, SiteError
from ftw.substrate.events import Event, Finished, Requested, Sink, Steered, StepSeen, fan_out
from ftw.substrate.model import Model
from ftw.substrate.sampling import Sampling, choose
from ftw.substrate.taps import RowEdit, Taps, Trace, any_armed
from ftw.substrate.types import Step

__all__ = ["Chunk", "Completion", "Engine", "Reason", "Request", "Sampling", "TransformersEngine"]


@runtime_checkable
class Engine(Protocol):
    """Writes text, step by step, for all requests that were submitted."""

    def submit(self, request: Request) -> str:
        """Queue a request and give its id. Raises what is wrong with it: PromptTooLong, SiteError, ConfigError."""

    def step(self) -> list[Chunk]:
        """Write one token of every running request; let waiting ones join. Empty when there is nothing to do."""

    def cancel(self, request_id: str) -> None:
        """End a request at the next step. An id that is unknown or has ended is ignored."""

    @property
    def has_work(self) -> bool:
        """Whether a request is waiting or running."""


@dataclass(eq=False)
class _Live:
    """A lane and the requests in its rows, in order."""

    lane: Lane
    runs: list[Run] = field(default_factory=list)

    def leave(self, run: Run) -> None:
        row = self.runs.index(run)
        self.lane.leave(row, wipe=run.reason == "error")
        self.runs[row] = self.runs[-1]
        self.runs.pop()


@dataclass(eq=False)
class _Pass:
    """One forward pass: logits of each row's last position, and what was read."""

    runs: Sequence[Run]
    phase: Literal["prompt", "generate"]
    inputs: Sequence[Tensor]
    """Each row's tokens in this pass, without padding."""
    logits: Tensor
    trace: Trace


class TransformersEngine:
    """An Engine over a Hugging Face model in this process. Threads may submit, cancel and step at will: steps queue.

    Greedy text equals transformers' `generate` token for token (fp32), alone and in a batch. Sampled text depends on
    the request's seed alone. `max_batch` requests run at once, the others wait in order; where a batch is nearly full
    they are let in a few at a time, after at most `PATIENCE` steps.

    Controllers are called without autograd, on tensors that may be inference tensors: clone before differentiating.
    """

    def __init__(self, model: Model, *, max_batch: int = 64, sinks: Sequence[Sink] = ()) -> None:
        if max_batch < 1:
            raise ConfigError(f"max_batch is {max_batch}: at least one request runs at a time")
        self.model = model
        self.max_batch = max_batch
        self._sink = fan_out(sinks) if sinks else None
        self._taps = Taps(model)
        self._traits: Traits | None = None
        self._waiting: deque[Run] = deque()
        self._live: list[_Live] = []
        self._shared: _Live | None = None
        self._runs: dict[str, Run] = {}
        self._cancelled: deque[str] = deque()
        self._held = 0
        self._out: list[Chunk] = []
        self._events: list[Event] = []
        self._stepping = threading.RLock()
        self._intake = threading.Lock()

    @property
    def traits(self) -> Traits:
        """How this model takes batches, found by trial on first use."""
        if self._traits is None:
            self._traits = study(self.model.net)
        return self._traits

    @property
    def has_work(self) -> bool:
        """Whether a request is waiting or running."""
        return bool(self._runs)

    def submit(self, request: Request) -> str:
        """Queue a request and give its id. Raises PromptTooLong, SiteError or ConfigError for what cannot run."""
        return self._accept(request, shows=True).id

    def cancel(self, request_id: str) -> None:
        """End a request at the next step. An id that is unknown or has ended is ignored."""
        self._cancelled.append(request_id)

    def stream(self, request: Request) -> Iterator[Chunk]:
        """The chunks of one request as they are written. Leaving early cancels it; its error, if any, is raised."""
        return self._stream(self._accept(request, shows=True, mail=deque()))

    def generate(self, requests: Request | Sequence[Request]) -> list[Completion]:
        """Write all of them, in one batch as far as they fit. In the order given.

        When a request fails, the others are written to their end, then its error is raised.
        """
        runs: list[Run] = []
        try:
            for request in [requests] if isinstance(requests, Request) else requests:
                runs.append(self._accept(request, shows=False))
            while not all(run.is_over for run in runs):
                self.step()
        finally:
            self._drop(runs)
        for run in runs:
            if run.error is not None:
                run.error.add_note(f"(request {run.id}, after {len(run.tokens)} tokens)")
                raise run.error
        return [run.completion() for run in runs]

    def step(self) -> list[Chunk]:
        """Write one token of every running request; let waiting ones join. Empty when there is nothing to do.

        A failing sink, or a failure of the model that no single request caused (memory, a device), is raised here;
        the engine stays usable, and the chunks of that step come with the next one.
        """
        with self._stepping:
            self._drop_cancelled()
            passes: list[_Pass] = []
            try:
                for live in list(self._live):
                    self._decode(live, passes)
                self._admit(passes)
            finally:  # whatever breaks off: passes that were run count, their tokens are written
                self._settle(passes)
            if not self._runs:
                self._taps.close()
            self._tell_all()
            chunks, self._out = self._out, []
            return chunks

    def _accept(self, request: Request, *, shows: bool, mail: deque[Chunk] | None = None) -> Run:
        model = self.model
        total = len(request.ids) + request.max_new_tokens
        if total > model.context:
            raise PromptTooLong(
                f"{len(request.ids)} prompt tokens and {request.max_new_tokens} new ones are {total}: {model.name} "
                f"holds {model.context}. Shorten the prompt or lower max_new_tokens"
            )
        if not all(0 <= token < model.vocab_size for token in request.ids):
            raise ConfigError(
                f"the prompt has token ids outside 0..{model.vocab_size - 1}: was it encoded for {model.name}?"
            )
        if request.stop and model.tokenizer is None:
            raise ConfigError(f"{model.name} has no tokenizer: stop strings need one")
        run = Run(request, model.tokenizer, shows=shows)
        run.mail = mail
        self._taps.check({edit.site for edit in request.edits} | run.sites)
        with self._intake:
            if run.id in self._runs:
                raise ConfigError(f"request id {run.id!r} is already running: give each request its own")
            self._runs[run.id] = run
            self._waiting.append(run)
        if self._sink is not None:
            self._sink(Requested(run.id, len(request.ids), request.max_new_tokens))
        return run

    def _stream(self, run: Run) -> Iterator[Chunk]:
        mail = run.mail if run.mail is not None else deque()
        try:
            while not run.is_over or mail:  # in this order: what ends a run fills its mail first
                if not mail:
                    self.step()
                while mail:
                    yield mail.popleft()
        finally:
            self._drop([run])
        if run.error is not None:
            raise run.error

    def _drop(self, runs: Sequence[Run]) -> None:
        """Cancel those that have not ended, now."""
        if all(run.is_over for run in runs):
            return
        with self._stepping:
            self._cancelled.extend(run.id for run in runs)
            self._drop_cancelled()
            if not self._runs:
                self._taps.close()
            self._tell_all()

    def _drop_cancelled(self) -> None:
        while self._cancelled:
            run = self._runs.get(self._cancelled.popleft())
            if run is not None:
                self._end(run, "cancelled")

    def _decode(self, live: _Live, passes: list[_Pass]) -> None:
        """One token further for all rows of a lane. Rows whose edit fails leave, and the pass is run without them."""
        while live.runs:
            runs = list(live.runs)
            tokens = [run.tokens[-1] for run in runs]
            done = self._forward(runs, partial(live.lane.decode, tokens))
            if done is not None:
                ids = list(torch.tensor(tokens, device=done[0].device)[:, None])
                passes.append(_Pass(runs, "generate", ids, *done))
                return

    def _admit(self, passes: list[_Pass]) -> None:
        """Prefill waiting requests as far as there is room."""
        if not self._waiting:
            return
        busy = sum(len(live.runs) for live in self._live)
        room = self.max_batch - busy
        if self.traits.mode == "serial":
            room = min(room, int(not busy))
        if room < 1 or self._holds(room):
            return
        with self._intake:
            runs = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        if self.traits.windows:
            self._slots().lane.expect(busy + len(runs), min(SPARE, max(run.request.max_new_tokens for run in runs)))
        left = set(runs)
        try:
            for group in alike(runs, batched=bool(self.traits.windows)):
                self._prefill(group, passes)
                left -= set(group)
        finally:  # a failure of the model itself: they wait for another try
            with self._intake:
                self._waiting.extendleft(run for run in reversed(runs) if run in left and run.reason is None)

    def _holds(self, room: int) -> bool:
        """Whether to let a nearly full batch run on for a step: prompts that join together share a pass."""
        wanted = min(len(self._waiting), self.max_batch // 4)
        if self.traits.windows and self._live and room < wanted and self._held < PATIENCE:
            self._held += 1
            return True
        self._held = 0
        return False

    def _prefill(self, group: Sequence[Run], passes: list[_Pass]) -> None:
        """Run prompts in one pass and let them join a lane. Those whose edit fails leave, the others try again."""
        live = self._slots() if self.traits.windows else _Live(SoloLane(self.model.net, self.traits))
        while group := [run for run in group if run.reason is None]:
            prompts = [run.request.ids for run in group]
            done = self._forward(group, partial(live.lane.prefill, prompts))
            if done is not None:
                live.lane.join()
                live.runs += group
                if live not in self._live:
                    self._live.append(live)
                inputs = [torch.tensor(ids, device=done[0].device) for ids in prompts]
                passes.append(_Pass(group, "prompt", inputs, *done))
                return

    def _slots(self) -> _Live:
        """The lane that all requests share where the model can be batched."""
        if self._shared is None:
            self._shared = _Live(SlotLane(self.model.net, self.traits))
        return self._shared

    def _forward(self, runs: Sequence[Run], forward: Callable[[], Tensor]) -> tuple[Tensor, Trace] | None:
        """Logits and readings of a pass with these rows; None when an edit of one of them failed: it has ended."""
        edits = acting(runs)
        self._taps.set(frozenset().union(*(run.sites for run in runs)), edits)
        # inference mode saves 6 % of a small model's step, but hides writes of an edit into its argument; and a state
        # that was made in it (a solo lane's) can't be written to outside of it: there it is all or nothing
        is_pure = not edits if self.traits.windows else all(run.is_plain for run in runs)
        try:
            with (
                torch.inference_mode() if is_pure and not any_armed() else torch.no_grad(),
                self._taps.armed() as trace,
            ):
                return forward(), trace
        except Exception as error:
            failed = self._culprits(runs)
            if not failed:
                raise
            for run in failed:
                self._end(run, "error", error)
            return None

    def _culprits(self, runs: Sequence[Run]) -> list[Run]:
        """Whose fault a broken pass is: those whose edit was at work, or the one request that was alone in it."""
        at_work = self._taps.acting
        if isinstance(at_work, RowEdit):
            return [runs[row] for row in at_work.rows]
        return [] if self.traits.windows else list(runs)

    def _settle(self, passes: Sequence[_Pass]) -> None:
        """Choose the next tokens, ask the controllers, end what is complete, make the chunks."""
        asked: list[Asked] = []
        written: list[Run] = []
        for one in passes:
            logits = one.logits.float()
            chosen = choose(logits, [run.request.sampling for run in one.runs], [run.dice for run in one.runs])
            for row, (run, token, logprob) in enumerate(
                zip(one.runs, chosen.tokens.tolist(), chosen.logprobs.tolist(), strict=True)
            ):
                labels = tuple(edit.label for edit in run.edits)
                if not math.isfinite(logprob):
                    acted = f" after edits {', '.join(map(repr, labels))}" if labels else ""
                    self._end(
                        run, "error", NumericError(f"the logits of request {run.id} hold a NaN or infinity{acted}")
                    )
                    continue
                index = len(run.tokens)
                run.write(token, logprob, self.model.eos_ids)
                written.append(run)
                self._event(StepSeen, run.id, index, token, labels)
                if run.controllers:
                    resid = {site: one.trace[site][row, -len(one.inputs[row]) :] for site in run.sites}
                    step = Step(run.id, index, one.phase, one.inputs[row], resid, logits[row], token)
                    asked.append(Asked(run, step, one.trace, row))
        with torch.no_grad():
            ask(asked)
        for answer in asked:
            self._take(answer)
        for run in written:
            if run.reason is None:
                self._emit(run)
            elif run.error is None:
                self._end(run, run.reason)

    def _take(self, answer: Asked) -> None:
        """Plan what a request's controllers answered for its next pass."""
        run = answer.run
        try:
            self._taps.check(edit.site for edit in answer.edits)
        except SiteError as error:
            answer.fail(error)
        if answer.error is not None:
            self._end(run, "error", answer.error)
            return
        run.edits = (*run.request.edits, *answer.edits)
        if answer.edits and run.reason is None:
            self._event(Steered, run.id, answer.step.index, tuple(edit.label for edit in answer.edits))

    def _end(self, run: Run, reason: Reason, error: Exception | None = None) -> None:
        """A request is over: free its row, show what was held back, tell."""
        run.reason, run.error = reason, error
        for live in self._live:
            if run in live.runs:
                live.leave(run)
        self._live = [live for live in self._live if live.runs]
        with self._intake:
            self._runs.pop(run.id, None)
            if run in self._waiting:
                self._waiting.remove(run)
        run.end()
        self._emit(run)
        self._event(Finished, run.id, run.reason, len(run.tokens))
        run.is_over = True

    def _emit(self, run: Run) -> None:
        chunk = run.chunk()
        self._out.append(chunk)
        if run.mail is not None:
            run.mail.append(chunk)

    def _event(self, kind: Callable[..., Event], *values: object) -> None:
        if self._sink is not None:
            self._events.append(kind(*values))

    def _tell_all(self) -> None:
        """Tell the sinks what happened in this step, when the engine is in order again: a sink may raise."""
        events, self._events = self._events, []
        if self._sink is not None:
            for event in events:
                self._sink(event)
