"""OpenAI's requests as they come in: what is understood, what is ignored on purpose, what is refused.

The rule of the file: every field of OpenAI's schema that we know stands here in one of three groups, and a key that is
in none of them is an error that names it.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ftw.ui.api.problems import BadBody, Complaint

MAX_TOKENS = 1 << 20
Number = Annotated[float, Field(allow_inf_nan=False)]
Stop = Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=4)]


class ChatWire(BaseModel):
    """The base: strict types, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TextPart(ChatWire):
    """A part of a message. Only text is understood."""

    type: Literal["text"]
    text: str


class Message(ChatWire):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    """Ignored: chat templates have no place for it."""
    refusal: None = None
    annotations: list[Any] | None = Field(None, max_length=0)
    audio: None = None
    function_call: None = None
    tool_calls: list[Any] | None = Field(None, max_length=0)

    @property
    def turn(self) -> dict[str, str]:
        """As chat templates take it."""
        parts = [self.content] if isinstance(self.content, str) else [part.text for part in self.content or ()]
        return {"role": "system" if self.role == "developer" else self.role, "content": "".join(parts)}


class StreamOptions(ChatWire):
    """How to stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    """Ignored: nothing is padded."""


class TextFormat(ChatWire):
    """The one response format there is."""

    type: Literal["text"]


class Common(ChatWire):
    """What chat and completions share."""

    model: str = Field(min_length=1, max_length=1024)
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    temperature: Number | None = Field(None, ge=0, le=2)
    top_p: Number | None = Field(None, gt=0, le=1)
    stop: Annotated[str, Field(min_length=1)] | Stop | None = None
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Taken with the one value that changes nothing; another value is refused, for it would have to change the text.
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    presence_penalty: Annotated[Number, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=0, le=0)] | None = None
    logit_bias: dict[str, Any] | None = Field(None, max_length=0)
    # Ignored on purpose: they say nothing about the text.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> "Common":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed where stream is true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wanted(self) -> int | None:
        """How many tokens at most; None where the context decides."""
        return self.max_tokens

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatRequest(Common):
    """`POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    """The newer name of `max_tokens`. Both with different numbers: an error."""
    logprobs: Literal[False] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None
    response_format: TextFormat | None = None
    tools: list[Any] | None = Field(None, max_length=0)
    tool_choice: Literal["none", "auto"] | None = None
    functions: list[Any] | None = Field(None, max_length=0)
    function_call: Literal["none", "auto"] | None = None
    modalities: list[Literal["text"]] | None = None
    parallel_tool_calls: bool | None = None
    """Ignored, as the tools that it is about."""

    @model_validator(mode="after")
    def _one_limit(self) -> "ChatRequest":
        one, other = self.max_tokens, self.max_completion_tokens
        if one is not None and other is not None and one != other:
            raise ValueError(f"max_tokens is {one} and max_completion_tokens {other}: give one of them")
        return self

    @property
    def wanted(self) -> int | None:
        """How many tokens at most; None where the context decides."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(Common):
    """`POST /v1/completions`."""

    prompt: str | list[int] | list[str] | list[list[int]]
    """A text or its token ids; also as the one member of a list."""
    logprobs: Annotated[int, Field(ge=0, le=0)] | None = None
    """0 gives the log-probability of each token that was written; alternatives are not kept."""
    echo: Literal[False] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    suffix: None = None

    @property
    def one_prompt(self) -> str | list[int]:
        """The prompt. Raises BadBody for several."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return prompt
        if all(isinstance(one, int) for one in prompt):
            return [one for one in prompt if isinstance(one, int)]
        if len(prompt) != 1:
            raise BadBody([Complaint(("body", "prompt"), f"{len(prompt)} prompts: send one request for each")])
        only = prompt[0]
        return only if isinstance(only, str | list) else [only]
