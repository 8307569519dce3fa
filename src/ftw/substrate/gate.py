"""The identity gate: proof, on an input the search never saw, that decoding the last block gives the model's logits.

The rule of the file: exact, or refused by name. There is nothing in between.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ftw.substrate.anatomy import Arch, replay
from ftw.substrate.errors import Refused, SiteError
from ftw.substrate.probe import FORWARD_ERRORS, at_rest, look, probe_ids
from ftw.substrate.transform import tolerance
from ftw.substrate.unembed import unembed
from ftw.substrate.watch import watch

POSITIONS = 16
"""Length of the gate's input."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The verdict on one model."""

    model: str
    """Its name."""
    architecture: str
    """The class that runs it, for example `LlamaForCausalLM`."""
    exact: bool
    """Whether the decoded logits are the model's own, up to rounding."""
    max_abs_error: float
    """Largest difference between the two, over positions and vocabulary. NaN where nothing could be compared."""
    kl_bits: float
    """Largest divergence KL(model || decoded) of a next-token distribution, in bits. NaN likewise."""
    refused: str | None
    """The reason, where it is not exact."""

    def require(self) -> None:
        """Raises Refused, with the reason and both numbers, unless the gate is exact."""
        if not self.exact:
            raise Refused(
                f"{self.model} ({self.architecture}) fails the identity gate: {self.refused} "
                f"(max abs error {self.max_abs_error:.3g}, KL {self.kl_bits:.3g} bits). "
                "Its blocks cannot be decoded into words; generating and watching it still work"
            )


def gate(net: nn.Module, arch: Arch, *, model: str = "", seed: int = 2) -> Gate:
    """Decodes the last block of one pass over 16 tokens through `unembed` and compares with the model's logits.

    fp32 (and wider): exact means within rounding (`transform.tolerance`). Half precision: the replay in the
    model's own dtype must be that close, and the fp32 decode as close as half-precision rounding allows.
    """
    name = type(net).__name__
    try:
        error, kl, reason = _compare(net, arch, seed)
    except Refused as refusal:
        error, kl, reason = math.nan, math.nan, str(refusal)
    reason = arch.doubt or reason
    return Gate(model or name, name, reason is None, error, kl, reason)


def _compare(net: nn.Module, arch: Arch, seed: int) -> tuple[float, float, str | None]:
    with at_rest(net), watch((), keep=(arch.blocks[-1],)) as witness:
        own = look(net, probe_ids(net, POSITIONS, seed=seed))
        resid = witness.calls[-1].gave if witness.calls else None
        if resid is None:
            raise Refused("the last block did not run")
        if not torch.isfinite(own).all():
            raise Refused("the model's own logits are not finite")
        try:
            decoded = unembed(arch, resid).to(own.device)
            replayed = replay(arch, resid).to(own.device)
        except (*FORWARD_ERRORS, SiteError) as error:
            raise Refused(f"what runs after the last block cannot be replayed: {error}") from error
        return _verdict(own, decoded, replayed)


def _verdict(own: Tensor, decoded: Tensor, replayed: Tensor) -> tuple[float, float, str | None]:
    error = _distance(decoded, own)
    kl = kl_bits(own, decoded)
    bound, seen = tolerance(own if own.dtype != torch.float64 else own.float()), error
    if torch.finfo(own.dtype).bits == 16:
        # the fp32 decode is the better one; it may stand off by the rounding of the model's own norm and head
        seen = max(_distance(replayed, own), error / 2)
    if math.isfinite(error) and math.isfinite(kl) and seen <= bound:
        return error, kl, None
    return error, kl, f"the decoded logits differ from the model's own by {error:.3g}, rounding allows {bound:.3g}"


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().max())


def kl_bits(own: Tensor, decoded: Tensor) -> float:
    """Largest KL(own || decoded) over positions, in bits, of logits [*batch, vocab]. Computed in fp64."""
    p, q = own.double().log_softmax(-1), decoded.double().log_softmax(-1)
    return max(0.0, float((p.exp() * (p - q)).sum(-1).max())) / math.log(2)
