"""The live lens: what every layer would say next, at each token while a model writes it.

A BatchController: the engine hands it the states of all requests of a step, which are decoded together. It never edits.

The rule of the file: a step costs one product with the head, and one copy to the host.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ftw.substrate.errors import ConfigError
from ftw.substrate.gate import gate
from ftw.substrate.model import Model
from ftw.substrate.types import Edit, Site, Step
from ftw.sweep.decode import Targets, View, decode
from ftw.sweep.forward import every_site
from ftw.sweep.head import Head, Precision
from ftw.sweep.lenses import VocabLens
from ftw.sweep.lenses.logit import LogitLens


@dataclass(frozen=True, slots=True)
class Glance:
    """All layers at one step of one request."""

    request_id: str
    index: int
    """The step's: 0 is the pass over the prompt."""
    token: int
    """What the model wrote next: the state that was read chose it."""
    views: tuple[View, ...]
    top_ids: Int[Tensor, "view k"]
    """The best tokens of each view, best first, on the host."""
    top_logprobs: Float[Tensor, "view k"]
    """In nats."""
    token_rank: Int[Tensor, " view"]
    """The rank of `token` in each view, 1 = first."""
    token_logprob: Float[Tensor, " view"]
    """In nats."""

    @property
    def first_from(self) -> int | None:
        """The layer from which on the first lens ranks the written token first to the end; None where it never does."""
        own = [at for at, view in enumerate(self.views) if view.lens == self.views[0].lens]
        first = None
        for at in reversed(own):
            if int(self.token_rank[at]) != 1:
                break
            first = self.views[at].layer
        return first


class LiveLens:
    """Reads every layer at every step of every request that shares it.

    `on_glance` is told each reading when it happens; the last `keep` are in `glances`. The logit lens is used where no
    `lenses` are given. `fast` (the default) multiplies in bf16 and scores what is reported in fp32. Raises Refused
    where the identity gate fails, ConfigError for a bad `k` or `keep`.
    """

    def __init__(
        self,
        model: Model,
        lenses: Sequence[VocabLens] = (),
        *,
        k: int = 5,
        precision: Precision = "fast",
        on_glance: Callable[[Glance], None] | None = None,
        keep: int = 4096,
    ) -> None:
        gate(model.net, model.arch, model=model.name).require()
        if not 1 <= k <= model.vocab_size:
            raise ConfigError(f"k is {k}: it must be 1..{model.vocab_size}, the size of this model's vocabulary")
        if keep < 0:
            raise ConfigError(f"keep is {keep}: give 0 or more")
        self.model = model
        self.lenses: tuple[VocabLens, ...] = tuple(lenses) or (LogitLens(model.arch),)
        self.k = k
        self.glances: list[Glance] = []
        self._keep = keep
        self._on_glance = on_glance
        self._head = Head(model.arch, precision)

    @property
    def sites(self) -> Sequence[Site]:
        """The embedding output and the stream after every block."""
        return every_site(self.model)

    def __call__(self, step: Step) -> Sequence[Edit]:
        """Read one request's step."""
        return self.many([step], {site: step.resid[site][-1:] for site in self.sites})[0]

    def many(
        self, steps: Sequence[Step], resid: Mapping[Site, Float[Tensor, "row d_model"]]
    ) -> Sequence[Sequence[Edit]]:
        """Read the steps of several requests together."""
        home = self._head.device
        states = torch.stack([resid[site].to(home) for site in self.sites])
        written = Targets({"token": torch.tensor([step.token for step in steps])})
        found = decode(self.model, self.lenses, states, written, k=self.k, wanted=(), head=self._head)
        # one copy: numbers of a view and row side by side (ids are exact in fp64)
        parts = [found.top_ids, found.top_logprobs, found.ranks["token"][..., None], found.logprobs["token"][..., None]]
        host = torch.cat([part.double() for part in parts], -1).cpu()
        k = self.k
        for row, step in enumerate(steps):
            here = host[:, row]
            self._tell(
                Glance(
                    request_id=step.request_id,
                    index=step.index,
                    token=step.token,
                    views=found.views,
                    top_ids=here[:, :k].long(),
                    top_logprobs=here[:, k : 2 * k].float(),
                    token_rank=here[:, 2 * k].long(),
                    token_logprob=here[:, 2 * k + 1].float(),
                )
            )
        return [()] * len(steps)

    def _tell(self, glance: Glance) -> None:
        if self._on_glance is not None:
            self._on_glance(glance)
        if self._keep:
            self.glances.append(glance)
            del self.glances[: -self._keep]
