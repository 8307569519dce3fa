"""What a sweep found: one row per prompt, position, lens and layer, in columns of numpy arrays.

Units and formulas of the numbers are those of `ftw.sweep.metrics`. Layers count the blocks that have run: 0 is the
embedding output, n the model itself. A number that does not exist for a row is NaN (a rank: 0, an id: -1).

The rule of the file: a column's name, type and meaning stand in `COLUMNS`, and nowhere else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ftw.substrate.gate import Gate
from ftw.sweep.head import Precision

COLUMNS: Mapping[str, tuple[str, str]] = {
    "prompt": ("int32", "which prompt: an index into `items`"),
    "pos": ("int32", "the position whose next token is read, from 0"),
    "token_id": ("int32", "the token at that position"),
    "lens": ("str", "the lens's name"),
    "layer": ("int16", "blocks that have run: 0 is the embedding output, n the model itself"),
    "top_ids": ("int32", "[k] the most likely tokens, best first; equal ones by id"),
    "top_logprobs": ("float32", "[k] their log-probabilities, nats"),
    "logsumexp": ("float32", "of all logits, nats"),
    "logsumexp_bound": ("float32", "how far `logsumexp` and log-probabilities can be off, nats; 0 is fp32 exact"),
    "entropy_bits": ("float32", "of the layer's distribution"),
    "kl_bits": ("float32", "KL(layer || the model's own)"),
    "js_bits": ("float32", "Jensen-Shannon divergence to the model's own, 0 to 1"),
    "cos_logits": ("float32", "cosine of centred logits to the model's own"),
    "cos_state": ("float32", "cosine of the head's input to its input at the end"),
    "state_norm": ("float32", "length of the head's input"),
    "resid_norm": ("float32", "length of the residual stream"),
    "answer_id": ("int32", "first token of the answer"),
    "answer_rank": ("int32", "its rank, 1 = first; ties share the better one"),
    "answer_logprob": ("float32", "its log-probability, nats"),
    "answer_whole_logprob": ("float32", "of the whole answer, token after token; last position only, nats"),
    "answer_mass": ("float32", "probability of all first tokens that count as right"),
    "control_id": ("int32", "first token of the answer that must not win"),
    "control_rank": ("int32", "its rank"),
    "control_logprob": ("float32", "its log-probability, nats"),
    "control_whole_logprob": ("float32", "of that whole answer; last position only, nats"),
    "next_id": ("int32", "what really follows: the prompt's next token, at its end the answer's first"),
    "next_rank": ("int32", "its rank"),
    "next_logprob": ("float32", "its log-probability, nats"),
    "echo_mass": ("float32", "probability of the words of the prompt up to here"),
    "is_finite": ("bool", "False where the lens made a NaN or infinity: then the row's numbers mean nothing"),
}
"""Every column with its type and meaning."""


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt as token ids, with what is looked for in it."""

    id: str
    ids: tuple[int, ...]
    """What the model reads, special tokens included."""
    answer: tuple[int, ...] = ()
    """The whole answer's tokens; empty where none is looked for."""
    accepted: tuple[int, ...] = ()
    """First tokens of everything that counts as right, the answer's among them."""
    control: tuple[int, ...] = ()
    """The whole answer that must not win; empty where there is none."""
    source: Any = None
    """The battery's prompt that it came from."""


@dataclass(frozen=True)
class SweepTable:
    """The rows of a sweep, sorted by prompt, position, lens (in the order of `lenses`) and layer."""

    columns: Mapping[str, np.ndarray]
    items: tuple[Item, ...]
    pieces: Mapping[int, str]
    """The text of every token id that occurs."""
    model: str
    n_layers: int
    vocab_size: int
    lenses: tuple[str, ...]
    precision: Precision
    gate: Gate

    def __len__(self) -> int:
        return len(self.columns["prompt"])

    def __getitem__(self, name: str) -> np.ndarray:
        """A column."""
        return self.columns[name]

    def where(self, **equals: int | str) -> "SweepTable":
        """The rows in which these columns have these values, for example `where(lens="logit", prompt=0)`."""
        mask = np.ones(len(self), dtype=bool)
        for name, value in equals.items():
            mask &= self.columns[name] == value
        return replace(self, columns={name: column[mask] for name, column in self.columns.items()})

    def last(self) -> "SweepTable":
        """The rows at each prompt's last position: its next token."""
        ends = np.array([len(item.ids) - 1 for item in self.items])
        mask = self.columns["pos"] == ends[self.columns["prompt"]]
        return replace(self, columns={name: column[mask] for name, column in self.columns.items()})

    def rows(self) -> Iterator[dict[str, Any]]:
        """Row by row as plain Python values, with `prompt_id`, `token` and `top_tokens` in words."""
        lists = {name: column.tolist() for name, column in self.columns.items()}
        for at in range(len(self)):
            row = {name: values[at] for name, values in lists.items()}
            row["prompt_id"] = self.items[row["prompt"]].id
            row["token"] = self.pieces[row["token_id"]]
            row["top_tokens"] = [self.pieces[token] for token in row["top_ids"]]
            yield row
