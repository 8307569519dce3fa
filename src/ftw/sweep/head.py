"""The product of lens states with the model's head: in fp32, or in bf16 with exact scores where they are reported.

`exact`: one fp32 product. A head in half precision is read as fp32 chunk by chunk of the vocabulary.
`fast`: the product runs in bf16 (two to four times as fast on processors that have it; half the bytes to stream). What
rounding took from a state is put back along the head's few strongest directions, where it would shift whole groups of
tokens; what is left is an error in each logit that `Head.error` bounds. Tokens that are reported are scored in fp32.
Sums over all tokens (entropy, divergences, masses) and ranks far down are those of the fast logits.

The rule of the file: which precision a number has is said with the number.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ftw.substrate.anatomy import Arch
from ftw.substrate.errors import ConfigError, SiteError

Precision = Literal["exact", "fast"]
"""`exact`: fp32 throughout. `fast`: bf16 product, fp32 for what is reported."""
CONVERT = 64 << 20
"""Bytes of fp32 that a chunk of a half-precision head takes."""
FEW = 64
"""Rows up to which streaming the head is what a product costs."""
NEAR = 2 << 20
"""Bytes of such a product's chunks: they stay in the cache while they are packed (23 ms instead of 38 for 17 rows of a
32,000 x 1024 head on one core)."""
DIRECTIONS = 4
"""Along how many directions the rounding of states is undone. 4 did as well as 64 on a trained model; none, ten times
worse: the mean of the head's rows is the strongest direction, and shifts every token but those scored again."""
HALF_ULP = 2.0**-8
"""A number rounded to bf16 is off by at most this share of itself."""


class Head:
    """A model's head on one device, ready to be multiplied."""

    def __init__(self, arch: Arch, precision: str = "exact") -> None:
        if precision not in ("exact", "fast"):
            raise ConfigError(f"precision is {precision!r}: use exact or fast")
        weight, bias = getattr(arch.head, "weight", None), getattr(arch.head, "bias", None)
        if not isinstance(weight, Tensor):
            raise SiteError(f"the head {arch.head_path} has no weight to decode with")
        self.precision: Precision = "fast" if precision == "fast" else "exact"
        self.transform = arch.transform
        self.vocab_size = arch.vocab_size
        self._weight = weight.detach()[: arch.vocab_size]
        self._bias = bias.detach()[: arch.vocab_size].float() if isinstance(bias, Tensor) else None
        self._packed: Tensor | None = None
        if precision == "fast":
            self._half = self._weight.to(torch.bfloat16)
            self._sizes = self._row_sizes(self._half)
            self._packed = _pack(self._half)
            self._basis = self._strongest()
            self._along = torch.cat([weight @ self._basis for _, weight in self._chunks()])

    @property
    def device(self) -> torch.device:
        """Where the product runs."""
        return self._weight.device

    @property
    def width(self) -> int:
        """How wide a state must be."""
        return int(self._weight.shape[1])

    @property
    def is_plain(self) -> bool:
        """Whether the product is the logits: fp32, no bias, no transform."""
        t = self.transform
        return self.precision == "exact" and self._bias is None and t.scale == 1.0 and t.softcap is None

    def product(self, h: Float[Tensor, "row width"], out: Tensor | None = None) -> Float[Tensor, "row vocab"]:
        """States times head, without bias and transform: fp32, or bf16 when fast on a CPU.

        `out` is memory to write into where that saves something: new memory costs a tenth of a large product.
        """
        if self.precision == "exact":
            return self._exact_product(h, out)
        low = h.to(torch.bfloat16)
        if self._packed is not None:
            z: Tensor = torch.ops.mkldnn._linear_pointwise(low, self._packed, None, "none", [], "")
            return z
        if h.device.type == "cuda":
            return torch.mm(low, self._half.T, out_dtype=torch.float32)
        return torch.mm(low, self._half.T)

    def logits(self, h: Float[Tensor, "row width"]) -> Float[Tensor, "row vocab"]:
        """All logits of some states in fp32, whatever the precision of the head."""
        z = self._exact_product(h)
        return self.transform(z if self._bias is None else z + self._bias)

    def scratch(self, rows: int) -> Tensor | None:
        """Memory for the products of up to `rows` states; None where a product takes none."""
        if self.precision == "fast":
            return None
        return torch.empty(rows, self.vocab_size, device=self.device)

    def _exact_product(self, h: Tensor, out: Tensor | None = None) -> Tensor:
        out = torch.empty(h.shape[0], self.vocab_size, device=h.device) if out is None else out[: h.shape[0]]
        if self._weight.dtype == torch.float32 and (h.shape[0] > FEW or h.device.type != "cpu"):
            return torch.mm(h, self._weight.T, out=out)
        for part, weight in self._chunks(CONVERT if h.shape[0] > FEW else NEAR):
            out[:, part] = torch.mm(h, weight.T)
        return out

    def finish(
        self, product: Float[Tensor, "*row vocab"], h: Float[Tensor, "*row width"]
    ) -> Float[Tensor, "*row vocab"]:
        """The logits of states `h` from their product, fp32: rounding partly undone, bias and logit transform applied.

        A view of `product` where there is nothing to do.
        """
        if self.is_plain:
            return product
        z = product
        if self.precision == "fast":
            z = product.to(torch.float32, copy=True)
            lost = (h - h.to(torch.bfloat16).float()) @ self._basis
            z.view(-1, self.vocab_size).addmm_(lost.reshape(-1, lost.shape[-1]), self._along.T)
        return self.transform(z if self._bias is None else z + self._bias)

    def score(self, h: Float[Tensor, "*row width"], ids: Int[Tensor, "*row m"]) -> Float[Tensor, "*row m"]:
        """The logits of some tokens, in fp32. Ids below 0 count as 0."""
        ids = ids.clamp_min(0)
        z: Tensor = torch.linalg.vecdot(self.rows(ids), h[..., None, :])  # twice as fast as a batched product
        return self.transform(z if self._bias is None else z + self._bias[ids])

    def rows(self, ids: Int[Tensor, "*row m"]) -> Float[Tensor, "*row m width"]:
        """The head's rows of some tokens, fp32. Ids below 0 count as 0."""
        return F.embedding(ids.clamp_min(0), self._weight).float()

    def error(self, h: Float[Tensor, "*row width"], size: Float[Tensor, "*row"]) -> Float[Tensor, "*row"]:
        """How far a fast logit can be from the exact one, at most. `size` is the largest |logit| of the row.

        Cauchy-Schwarz on what rounding took from state and head, rounding of the product, and summation in fp32; the
        logit transform stretches by its scale. Typical errors are a tenth of it. 0 where precision is exact.
        """
        if self.precision == "exact":
            return torch.zeros_like(size)
        low = h.to(torch.bfloat16).float()
        gone = h - low
        gone = gone - gone @ self._basis @ self._basis.T
        lost, kept = torch.linalg.vector_norm(gone, dim=-1), torch.linalg.vector_norm(low, dim=-1)
        weight, rounded = self._sizes
        off = lost * weight + kept * rounded + kept * weight * self.width * 2.0**-24
        scale = abs(self.transform.scale)
        # a cap only shrinks differences, but hides how large the product was: then the norms bound it
        product = kept * weight if self.transform.softcap is not None or self._bias is not None else size / scale
        bound: Tensor = (off + HALF_ULP * product) * scale
        return bound

    def _row_sizes(self, half: Tensor) -> tuple[float, float]:
        """The largest norm of a row of the head, and of what rounding took from it."""
        norms = [
            (torch.linalg.vector_norm(w, dim=-1).amax(), torch.linalg.vector_norm(w - half[part], dim=-1).amax())
            for part, w in self._chunks()
        ]
        weight, rounded = (torch.stack(column).amax() for column in zip(*norms, strict=True))
        return float(weight), float(rounded)

    def _strongest(self) -> Tensor:
        """An orthonormal basis [width, DIRECTIONS] of the head's strongest directions, by subspace iteration."""
        few = min(DIRECTIONS, self.width)
        basis: Tensor = torch.randn(self.width, few, generator=torch.Generator().manual_seed(0)).to(self.device)
        for _ in range(3):
            image = torch.zeros_like(basis)
            for _, weight in self._chunks():
                image += weight.T @ (weight @ basis)
            basis, _ = torch.linalg.qr(image)
        return basis

    def _chunks(self, size: int = CONVERT) -> Iterator[tuple[slice, Tensor]]:
        """The head in fp32, in pieces of `size` bytes."""
        step = max(1, size // (4 * self.width))
        for first in range(0, self.vocab_size, step):
            part = slice(first, min(first + step, self.vocab_size))
            yield part, self._weight[part].float()


def _pack(weight: Tensor) -> Tensor | None:
    """A bf16 head in the order in which oneDNN multiplies it: a third faster for few rows. None where that is not to be
    had, and then the plain product does it."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    try:
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, FEW)
    except (AttributeError, RuntimeError):  # not built in, or not for this processor
        return None
    return packed
