"""One request: what is asked, what comes back, and the record of a request while it is being written."""

import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from ftw.substrate.engine_text import Decoder, Detokenizer, StopGate
from ftw.substrate.errors import ConfigError
from ftw.substrate.sampling import Dice, Sampling
from ftw.substrate.types import BatchController, Controller, Edit, Site

Reason = Literal["stop", "length", "cancelled", "error"]
"""`stop`: an end token or a stop string. `length`: max_new_tokens are written. `cancelled`: someone called it off.
`error`: its controller, its edit or its numbers failed."""


def _new_id() -> str:
    return f"r-{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True, slots=True)
class Request:
    """What to continue, and how. Raises ConfigError for values that cannot be meant."""

    ids: tuple[int, ...]
    """The prompt."""
    max_new_tokens: int = 128
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    """Strings that end the text. They and what follows are never shown."""
    edits: tuple[Edit, ...] = ()
    """Standing edits: they act from the first prompt token to the last token written."""
    controllers: tuple[Controller, ...] = ()
    """Called in order after each token. Their edits act on the next pass, after the standing ones."""
    id: str = field(default_factory=_new_id)
    ignore_eos: bool = False
    """Write on after an end token (for measurements)."""

    def __post_init__(self) -> None:
        if not self.ids:
            raise ConfigError("the prompt is empty: a model continues at least one token")
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}: at least 1 token is written")
        if not all(self.stop):
            raise ConfigError("a stop string is empty: it would stop everything; leave it out")


@dataclass(frozen=True, slots=True)
class Chunk:
    """One token of one request, or the end of a request that got no token in this step."""

    request_id: str
    token: int
    """The token written; -1 when the request ended without one (cancelled)."""
    text: str
    """Text that is now safe to show: whole characters, nothing of a stop string. May be empty."""
    logprob: float
    """Natural logarithm of the model's own probability of `token`, before temperature and filters."""
    finished: Reason | None = None
    error: Exception | None = None
    """Why, when `finished` is `error`."""


@dataclass(frozen=True, slots=True)
class Completion:
    """All that was written for one request. `tokens` includes the end token, `text` does not."""

    request_id: str
    tokens: tuple[int, ...]
    text: str
    reason: Reason
    logprobs: tuple[float, ...]


class Run:
    """A request under way."""

    def __init__(self, request: Request, decoder: Decoder | None, *, shows: bool) -> None:
        self.request = request
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.text: list[str] = []
        self.reason: Reason | None = None
        """Set when the last token is known."""
        self.is_over = False
        """Set when all is told: its chunks are out and its row is free."""
        self.error: Exception | None = None
        self.dice = Dice(request.sampling.seed)
        self.edits: tuple[Edit, ...] = request.edits
        """What acts on the next pass."""
        self.controllers = tuple((each, isinstance(each, BatchController)) for each in request.controllers)
        self.sites: frozenset[Site] = frozenset(site for each in request.controllers for site in each.sites)
        self.is_plain = not request.controllers and not request.edits
        self.mail: deque[Chunk] | None = None
        """Where a stream collects its chunks."""
        self._fresh_text = ""
        self._is_fresh = False
        self._gate = StopGate(request.stop)
        self._decoder = decoder
        self._detokenizer = Detokenizer(decoder) if decoder is not None and (shows or request.stop) else None

    @property
    def id(self) -> str:
        return self.request.id

    def write(self, token: int, logprob: float, eos_ids: frozenset[int]) -> None:
        """Take a token in; set `reason` if it is the last one."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        self._is_fresh = True
        if self._detokenizer is not None:
            self._fresh_text += self._gate.push(self._detokenizer.push(token))
        if self._gate.is_closed or (token in eos_ids and not self.request.ignore_eos):
            self.reason = "stop"
        elif len(self.tokens) >= self.request.max_new_tokens:
            self.reason = "length"

    def end(self) -> None:
        """Let go of the text that was held back. Call once, when `reason` is set."""
        if self._detokenizer is not None:
            self._fresh_text += self._gate.push(self._detokenizer.flush())
            if self._gate.is_closed and self.reason == "length":
                self.reason = "stop"  # the last character completed a stop string
            self._fresh_text += self._gate.flush()
        elif self._decoder is not None:
            self._fresh_text += Detokenizer(self._decoder).whole(self.tokens)

    def chunk(self) -> Chunk:
        """What is new since the last chunk."""
        text, self._fresh_text = self._fresh_text, ""
        self.text.append(text)
        token, logprob = (self.tokens[-1], self.logprobs[-1]) if self._is_fresh else (-1, 0.0)
        self._is_fresh = False
        return Chunk(self.id, token, text, logprob, self.reason, self.error)

    def completion(self) -> Completion:
        """What was written. Only for a request that ended."""
        reason: Reason = self.reason or "cancelled"
        return Completion(self.id, tuple(self.tokens), "".join(self.text), reason, tuple(self.logprobs))
