"""Lenses that read a trunk: each state is projected once, and every lens is as wide as the trunk."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.forms.separate import Separate
from ftw.hat.classifiers.gate import Gate
from ftw.hat.classifiers.modules import normalise
from ftw.hat.classifiers.tensors import LensTensors
from ftw.hat.classifiers.trunk import Trunk
from ftw.substrate.errors import PackError


class Trunked(Separate):
    """Lenses of one or more sites that were re-expressed on the trunk of their site."""

    _ready = True

    def __init__(
        self, parts: Sequence[LensTensors], trunks: Sequence[Trunk], device: torch.device, dtype: torch.dtype
    ) -> None:
        """`parts` as `reexpress` gives them. Raises PackError for trunks of different shapes: one bank, one width."""
        shapes = {(trunk.rank, trunk.d_model) for trunk in trunks}
        if len(shapes) != 1 or len(trunks) != len(parts):
            raise PackError(
                f"{len(parts)} sites and trunks of [rank, width] {sorted(shapes)}: one each, all of one shape"
            )
        super().__init__(parts, device, dtype)
        self.trunks = tuple(trunk.to(device) for trunk in trunks)
        self.d_model = trunks[0].d_model

    def _read(self, states: Float[Tensor, "site row d_model"]) -> Float[Tensor, "site row rank"]:
        return torch.stack([trunk(each) for trunk, each in zip(self.trunks, normalise(states), strict=True)])

    def gated(self, gate: Gate, site: int) -> "Separate":
        """As for others; the gate's probes come to read the trunk as well."""
        trunk = self.trunks[site]
        weight, bias = gate.weight.to(trunk.back), gate.bias.to(trunk.back)
        return super().gated(replace(gate, weight=weight @ trunk.back, bias=bias + weight @ trunk.mean), site)

    def all(self, states: Float[Tensor, "site row d_model"], memory: int) -> Float[Tensor, "row lens"]:
        """Logits of every pair. One state on a CPU goes through the tables: such narrow products are slower."""
        if states.shape[1] == 1 and not states.is_cuda and self._dtype != torch.float32:
            return self.pairs.every(self._read(states))
        return super().all(states, memory)
