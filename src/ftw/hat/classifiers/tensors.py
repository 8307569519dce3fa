"""The weights of all lenses of one block, as training gives them and files hold them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.modules import HIDDEN, MLP, NARROW, LinearProbe
from ftw.substrate.errors import PackError, UsageError


@dataclass(frozen=True, slots=True)
class LensTensors:
    """The weights of all lenses that read one block, in the order of the index. Any float dtype.

    Each lens is D -> 128 -> unit -> 1 with at most 64 units. Where all lenses have the same first layer, w1 and b1 may
    be expanded views of it: banks then compute it once, and packs hold it once.
    """

    w1: Float[Tensor, "lens 128 d_model"]
    b1: Float[Tensor, "lens 128"]
    w2: Float[Tensor, "lens unit 128"]
    b2: Float[Tensor, "lens unit"]
    w3: Float[Tensor, "lens unit"]
    b3: Float[Tensor, " lens"]
    screen_w: Float[Tensor, "lens d_model"]
    screen_b: Float[Tensor, " lens"]
    screen_threshold: Float[Tensor, " lens"]
    """A pair passes when its screen score is at or above this. -inf: always."""

    @classmethod
    def stack(
        cls, lenses: Sequence[MLP], screens: Sequence[LinearProbe], thresholds: Float[Tensor, " lens"] | None = None
    ) -> "LensTensors":
        """The tensors of single modules, in order. Without thresholds every pair passes."""
        if len(lenses) != len(screens) or not lenses:
            raise UsageError(f"{len(lenses)} lenses and {len(screens)} screens: one screen per lens, at least one lens")
        return cls(
            w1=torch.stack([lens.first.weight.detach() for lens in lenses]),
            b1=torch.stack([lens.first.bias.detach() for lens in lenses]),
            w2=torch.stack([lens.second.weight.detach() for lens in lenses]),
            b2=torch.stack([lens.second.bias.detach() for lens in lenses]),
            w3=torch.stack([lens.last.weight.detach()[0] for lens in lenses]),
            b3=torch.stack([lens.last.bias.detach()[0] for lens in lenses]),
            screen_w=torch.stack([screen.linear.weight.detach()[0] for screen in screens]),
            screen_b=torch.stack([screen.linear.bias.detach()[0] for screen in screens]),
            screen_threshold=torch.full((len(lenses),), float("-inf")) if thresholds is None else thresholds,
        )

    def module(self, at: int = 0) -> MLP:
        """One lens as a module of its own; units that were trimmed come back as zeros.

        In the dtype of its first layer if that holds every number of it exactly, else in fp32.
        """
        made = MLP(self.w1.shape[-1])
        for parameter in made.parameters():
            parameter.data.zero_()
        units = self.w3.shape[-1]
        made.first.weight.data.copy_(self.w1[at])
        made.first.bias.data.copy_(self.b1[at])
        made.second.weight.data[:units] = self.w2[at].float()
        made.second.bias.data[:units] = self.b2[at].float()
        made.last.weight.data[0, :units] = self.w3[at].float()
        made.last.bias.data[0] = self.b3[at].float()
        dtype = self.w1.dtype
        exact = all(bool((w == w.to(dtype).float()).all()) for w in made.parameters())
        return made.to(dtype if exact else torch.float32).eval()

    @property
    def is_shared(self) -> bool:
        """Whether all lenses have the same first layer."""
        return all(_all_alike(w) for w in (self.b1, self.w1))

    def trimmed(self) -> "LensTensors":
        """The same lenses without the second-layer units that none of them listens to. Exact."""
        used = (self.w3 != 0).any(0)
        if bool(used.all()) or not bool(used.any()):
            return self
        return replace(self, w2=self.w2[:, used], b2=self.b2[:, used], w3=self.w3[:, used])

    def require(self, block: int, count: int, d_model: int) -> None:
        """Raise PackError unless every tensor has the shape that `count` lenses of width `d_model` need."""
        units = self.w3.shape[-1]
        if not 1 <= units <= NARROW:
            raise PackError(f"the lenses of block {block} have {units} units in their second layer: 1 to {NARROW}")
        for name, shape in shapes(count, units, d_model).items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise PackError(f"{name} of block {block} is {list(found)}: {count} lenses need {list(shape)}")


def shapes(count: int, units: int, d_model: int) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of `count` lenses."""
    return {
        "w1": (count, HIDDEN, d_model),
        "b1": (count, HIDDEN),
        "w2": (count, units, HIDDEN),
        "b2": (count, units),
        "w3": (count, units),
        "b3": (count,),
        "screen_w": (count, d_model),
        "screen_b": (count,),
        "screen_threshold": (count,),
    }


def _all_alike(w: Tensor) -> bool:
    """Whether all entries along the first axis are equal; stops at the first that is not."""
    return w.stride(0) == 0 or all(bool(torch.equal(w[at], w[0])) for at in range(1, len(w)))
