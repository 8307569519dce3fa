"""`/v1`: models, chat completions and completions, as OpenAI's clients speak to them.

The rule of the file: routes translate. What is written is the engine's matter, who may write now the lease's.
"""

import itertools
import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response

from ftw.poc.deployment import Deployment
from ftw.substrate.engine import Chunk, Request, Sampling
from ftw.substrate.errors import FtwError, NotThere, PromptTooLong
from ftw.substrate.model import Model
from ftw.ui.api.body import body_of, described
from ftw.ui.api.chat_wire import ChatRequest, Common, CompletionRequest
from ftw.ui.api.connection import ClientLeft, EventStream, in_thread, while_connected
from ftw.ui.api.problems import BadBody, Complaint, openai_error, status_of
from ftw.ui.serving import Serving, Ticket

MAX_BODY = 8 << 20
"""Bytes of a request at most."""


@dataclass(frozen=True)
class ChatDesk:
    """What the routes work with."""

    model: Model
    deployment: Deployment
    serving: Serving
    tokenizing: Executor
    """One thread: a tokenizer is not shared between two that encode."""
    clock: Callable[[], float] = time.time

    @property
    def fingerprint(self) -> str:
        """OpenAI's `system_fingerprint`: which weights wrote this."""
        return f"fp_{self.deployment.fingerprint[:12]}"

    def require(self, name: str) -> None:
        """Raises NotThere for a model that is not the one served."""
        if name not in self.deployment.names:
            raise NotThere(f"the model {name[:200]!r} does not exist: this server has {self.deployment.names[0]!r}")

    async def submit(self, asked: Common, encode: Callable[[], list[int]]) -> "Writing":
        """Encodes and hands to the engine. Raises what is wrong with it."""
        self.require(asked.model)
        ids = await in_thread(self.tokenizing, encode)
        room = self.model.context - len(ids)
        if room < 1:
            raise PromptTooLong(
                f"the prompt is {len(ids)} tokens: {self.model.name} holds {self.model.context}, and at least one must "
                "be free to write in. Shorten the prompt"
            )
        sampling = Sampling(
            temperature=1.0 if asked.temperature is None else asked.temperature, top_p=asked.top_p, seed=asked.seed
        )
        wanted = room if asked.wanted is None else asked.wanted
        request = Request(tuple(ids), max_new_tokens=wanted, sampling=sampling, stop=asked.stops)
        return Writing(self, asked, self.serving.submit(request), len(ids), int(self.clock()))

    def encode_chat(self, asked: ChatRequest) -> list[int]:
        """The conversation in the model's template, with the opening of the answer."""
        tokenizer: Any = self.model.tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise _bad("messages", f"{self.model.name} has no chat template: use /v1/completions")
        turns = [message.turn for message in asked.messages]
        try:
            shown = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # a template is code of its model: it refuses in any way it likes
            raise _bad("messages", f"the model's chat template refuses them: {str(error)[:300]}") from error
        return list(tokenizer(shown, add_special_tokens=False)["input_ids"])  # the template writes its own

    def encode_prompt(self, asked: CompletionRequest) -> list[int]:
        """The prompt's tokens."""
        prompt = asked.one_prompt
        return prompt if isinstance(prompt, list) else self.model.encode(prompt)


@dataclass
class Writing:
    """One answer under way."""

    desk: ChatDesk
    asked: Common
    ticket: Ticket
    prompt_tokens: int
    created: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def drop(self) -> None:
        """Nobody waits for it any more. Idempotent."""
        self.desk.serving.drop(self.ticket)

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The engine's chunks, with their tokens counted."""
        async with aclosing(self.desk.serving.chunks(self.ticket)) as chunks:
            async for chunk in chunks:
                if chunk.token >= 0:
                    self.tokens.append(chunk.token)
                    self.logprobs.append(chunk.logprob)
                yield chunk

    async def whole(self) -> tuple[str, str]:
        """All of the text, and why it ended."""
        text, reason = "", "stop"
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                text += chunk.text
                reason = chunk.finished or reason
        return text, reason

    @property
    def usage(self) -> dict[str, int]:
        """Tokens read and written."""
        written = len(self.tokens)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": written,
            "total_tokens": self.prompt_tokens + written,
        }

    def head(self, prefix: str, kind: str) -> dict[str, Any]:
        """What every answer begins with."""
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.asked.model,
            "system_fingerprint": self.desk.fingerprint,
        }


def chat_routes(desk: ChatDesk) -> APIRouter:
    """The routes below /v1."""
    router = APIRouter(prefix="/v1", tags=["openai"])
    chat_body, completion_body = body_of(ChatRequest, MAX_BODY), body_of(CompletionRequest, MAX_BODY)

    @router.get("/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [_card(desk, desk.deployment.names[0])]}

    @router.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """It again, by any of its names."""
        desk.require(name)
        return _card(desk, name)

    @router.post("/chat/completions", openapi_extra=described(ChatRequest))
    async def chat(request: HttpRequest, asked: Annotated[ChatRequest, Depends(chat_body)]) -> Response:
        """Answers a conversation."""
        writing = await desk.submit(asked, lambda: desk.encode_chat(asked))
        if asked.stream:
            return EventStream(_streamed(writing, _ChatChunks(writing)), writing.drop)
        return await _answered(request, writing, _chat_answer)

    @router.post("/completions", openapi_extra=described(CompletionRequest))
    async def completions(
        request: HttpRequest, asked: Annotated[CompletionRequest, Depends(completion_body)]
    ) -> Response:
        """Continues a text."""
        if asked.stream and asked.logprobs is not None:
            raise _bad("logprobs", "log-probabilities are given where stream is false")
        writing = await desk.submit(asked, lambda: desk.encode_prompt(asked))
        if asked.stream:
            return EventStream(_streamed(writing, _TextChunks(writing)), writing.drop)
        return await _answered(request, writing, _completion_answer)

    return router


async def _answered(
    request: HttpRequest, writing: Writing, form: Callable[[Writing, str, str], dict[str, Any]]
) -> Response:
    try:
        text, reason = await while_connected(request.receive, writing.whole())
    except ClientLeft:
        return Response(status_code=499)
    finally:
        writing.drop()
    return JSONResponse(form(writing, text, reason))


def _chat_answer(writing: Writing, text: str, reason: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return writing.head("chatcmpl", "chat.completion") | {"choices": [choice], "usage": writing.usage}


def _completion_answer(writing: Writing, text: str, reason: str) -> dict[str, Any]:
    wants = isinstance(writing.asked, CompletionRequest) and writing.asked.logprobs is not None
    choice = {"index": 0, "text": text, "logprobs": _logprobs(writing) if wants else None, "finish_reason": reason}
    return writing.head("cmpl", "text_completion") | {"choices": [choice], "usage": writing.usage}


def _logprobs(writing: Writing) -> dict[str, Any]:
    """Of every token written, also those of a stop string that the text does not show."""
    pieces = writing.desk.model.pieces(writing.tokens)
    starts = [0, *itertools.accumulate(map(len, pieces))][: len(pieces)]
    return {"tokens": pieces, "token_logprobs": writing.logprobs, "top_logprobs": None, "text_offset": starts}


class _ChatChunks:
    """The form of a chat's stream."""

    def __init__(self, writing: Writing) -> None:
        self.head = writing.head("chatcmpl", "chat.completion.chunk")
        self.first: dict[str, Any] | None = self._choice({"role": "assistant", "content": "", "refusal": None}, None)

    def text(self, text: str) -> dict[str, Any]:
        return self._choice({"content": text}, None)

    def last(self, reason: str) -> dict[str, Any]:
        return self._choice({}, reason)

    def _choice(self, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


class _TextChunks:
    """The form of a completion's stream."""

    first: dict[str, Any] | None = None

    def __init__(self, writing: Writing) -> None:
        self.head = writing.head("cmpl", "text_completion")

    def text(self, text: str) -> dict[str, Any]:
        return self._choice(text, None)

    def last(self, reason: str) -> dict[str, Any]:
        return self._choice("", reason)

    def _choice(self, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


async def _streamed(writing: Writing, form: _ChatChunks | _TextChunks) -> AsyncGenerator[str, None]:
    """The events of a stream: the role, the text in pieces, the reason, the usage where asked for, [DONE]."""
    usage: dict[str, Any] = {"usage": None} if writing.asked.includes_usage else {}

    def event(choice: dict[str, Any]) -> str:
        return json.dumps(form.head | {"choices": [choice]} | usage)

    reason = "stop"
    if form.first is not None:
        yield event(form.first)
    try:
        async with aclosing(writing.chunks()) as chunks:
            async for chunk in chunks:
                reason = chunk.finished or reason
                if chunk.text:
                    yield event(form.text(chunk.text))
    except FtwError as error:  # the status is out already: the error is an event of its own, and the last one
        yield json.dumps(openai_error(error, status_of(error)))
        return
    yield event(form.last(reason))
    if usage:
        yield json.dumps(form.head | {"choices": [], "usage": writing.usage})
    yield "[DONE]"


def _card(desk: ChatDesk, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "ftw"}


def _bad(param: str, what: str) -> BadBody:
    return BadBody([Complaint(("body", param), what)])
