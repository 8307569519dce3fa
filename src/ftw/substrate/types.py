"""The nouns that every room shares: shapes, Site, Edit, Step, Controller.

Shape names: `row` requests of a batch, `pos` positions, `d_model` the residual width, `vocab` token ids.

Semantics that decide correctness (each is a test in tests/substrate):
reads at a site happen before edits there; edits apply in list order; edits returned for step t act on step t+1 and
never rewrite past cache entries; standing edits of a request act from its first prompt token; one request's edit never
touches another's rows; controllers are called in order, the last one's edits apply last.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

Resid = Float[Tensor, "*batch d_model"]
Logits = Float[Tensor, "*batch vocab"]
TokenIds = Int[Tensor, "*batch"]


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """An address: the residual stream after block `layer`, counted from 0. -1 is the embedding output."""

    layer: int

    def __str__(self) -> str:
        return "embedding" if self.layer < 0 else f"block {self.layer}"


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of the residual stream at a site.

    `apply` maps [..., pos, d_model] to the same shape, dtype and device, and must not write into its argument.
    """

    site: Site
    apply: Callable[[Tensor], Tensor]
    label: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One request's share of one forward pass, given to its controllers after the next token was chosen.

    A reading belongs to the token whose forward pass made it: `resid` is the state that chose `token`.
    """

    request_id: str
    """Which request this is."""
    index: int
    """0 for the pass over the prompt, then 1, 2, … for each decode step; equals the number of tokens written before."""
    phase: Literal["prompt", "generate"]
    """`prompt`: `input_ids` is the whole prompt. `generate`: it is the one token written last."""
    input_ids: Int[Tensor, " pos"]
    """The tokens whose forward pass this was (no padding)."""
    resid: Mapping[Site, Float[Tensor, "pos d_model"]]
    """The residual stream at the controller's sites for exactly these positions, before edits at that site."""
    logits: Float[Tensor, " vocab"]
    """The model's scores for the next token, after the last position. Not yet shaped by the sampler."""
    token: int
    """The next token that the sampler chose from `logits`."""


@runtime_checkable
class Controller(Protocol):
    """Watches a generation and may change its next step."""

    @property
    def sites(self) -> Sequence[Site]:
        """What it wants to read."""
        ...

    def __call__(self, step: Step) -> Sequence[Edit]:
        """Answer a step with the edits that act on the next one (none: an empty sequence)."""
        ...


@runtime_checkable
class BatchController(Protocol):
    """A controller that many requests share and that reads all of them in one go.

    `resid[site]` has one row per step: the state at its last position. It answers one sequence of edits per step.
    """

    @property
    def sites(self) -> Sequence[Site]: ...

    def __call__(self, step: Step) -> Sequence[Edit]: ...

    def many(
        self, steps: Sequence[Step], resid: Mapping[Site, Float[Tensor, "row d_model"]]
    ) -> Sequence[Sequence[Edit]]: ...
