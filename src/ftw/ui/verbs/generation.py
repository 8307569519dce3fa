"""What is asked of a model in a verb, and how it becomes a request of the engine."""

from collections.abc import Sequence
from dataclasses import dataclass

from ftw.substrate.engine import Request, Sampling
from ftw.substrate.errors import PromptTooLong
from ftw.substrate.model import Model
from ftw.substrate.types import Controller, Edit

DEFAULT_TOKENS = 96
"""Tokens to write when none are asked for; fewer where the context ends before."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt and how to answer it."""

    prompt: str
    max_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    is_chat: bool = True
    """Whether the prompt is a message to the model. A model without a chat template continues the text either way."""

    def request(self, model: Model, *, controllers: Sequence[Controller] = (), edits: Sequence[Edit] = ()) -> Request:
        """The engine's request. Raises PromptTooLong where nothing can be written after the prompt, ConfigError."""
        ids = model.encode(self.prompt, chat=self.is_chat and has_template(model))
        room = model.context - len(ids)
        if room < 1:
            raise PromptTooLong(
                f"the prompt is {len(ids)} tokens: {model.name} holds {model.context}, and at least "
                "one must be free to write in. Shorten the prompt"
            )
        wanted = min(DEFAULT_TOKENS, room) if self.max_tokens is None else self.max_tokens
        sampling = Sampling(temperature=self.temperature, seed=self.seed)
        return Request(
            tuple(ids), max_new_tokens=wanted, sampling=sampling, controllers=tuple(controllers), edits=tuple(edits)
        )

    @property
    def how(self) -> str:
        """How tokens are chosen, for the foot of a figure."""
        return "greedy" if self.temperature == 0 else f"temperature {self.temperature:g} · seed {self.seed}"

    @property
    def record(self) -> dict[str, object]:
        """The same for a JSON document."""
        return {"prompt": self.prompt, "temperature": self.temperature, "seed": self.seed, "is_chat": self.is_chat}


def has_template(model: Model) -> bool:
    """Whether the model's tokenizer brings a chat template."""
    return bool(getattr(model.tokenizer, "chat_template", None))
