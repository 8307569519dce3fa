"""int8 rows: each row of a matrix as 8-bit integers and one scale.

The rule of the file: symmetric, so zero stays zero; a row's largest magnitude maps to 127 and the error of a weight is
at most half its row's scale.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, no_type_check

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from ftw.substrate.errors import NumericError

_STEP = 1 << 22
"""Weights that are widened at a time."""


class QuantisedRows(NamedTuple):
    """`values * scales[..., None]` gives the matrix back."""

    values: Int8[Tensor, "*rows channel"]
    scales: Float[Tensor, "*rows"]


def quantise_rows(weight: Float[Tensor, "*rows channel"], scale_dtype: torch.dtype = torch.float16) -> QuantisedRows:
    """A matrix as int8 rows. Scales are rounded first, then used, so no error comes from their dtype.

    Raises NumericError for what is not finite.
    """
    weight = weight.float()
    largest = torch.maximum(weight.amax(-1), -weight.amin(-1))  # carries a NaN, and is quicker than to look at each
    if not bool(largest.isfinite().all()):
        raise NumericError("a weight to be quantised is a NaN or an infinity")
    tiny = torch.finfo(scale_dtype).smallest_normal
    scales = (largest / 127).clamp(min=tiny).to(scale_dtype)
    if not bool(scales.isfinite().all()):
        raise NumericError(f"a weight of {float(largest.max()):g} is too large for {scale_dtype} scales")
    values = (weight / scales.float().unsqueeze(-1)).round_().clamp_(-127, 127)
    return QuantisedRows(values.to(torch.int8), scales)


def dequantise_rows(rows: QuantisedRows) -> Float[Tensor, "*rows channel"]:
    """The matrix of int8 rows, fp32."""
    return rows.values.float() * rows.scales.float().unsqueeze(-1)


class Int8Tensor(Tensor):
    """A matrix of int8 rows that is fp32 wherever it is used: a pack's stored weights without four times their bytes.

    What cuts, picks or reshapes whole rows gives another one, over the same bytes where torch gives views; everything
    else is computed on the fp32 matrix, which is made for that and not kept.
    """

    rows: QuantisedRows

    @staticmethod
    @no_type_check  # torch gives the maker of wrappers no types
    def __new__(cls, rows: QuantisedRows) -> "Int8Tensor":
        """Of these very rows: nothing is copied that lies in one piece."""
        rows = QuantisedRows(rows.values.contiguous(), rows.scales.contiguous())
        made = Tensor._make_wrapper_subclass(cls, rows.values.shape, dtype=torch.float32, device=rows.values.device)
        made.rows = rows
        return made

    @no_type_check
    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Int8Tensor({list(self.shape)})"

    @classmethod
    @no_type_check  # torch types its hooks as if they were no class's
    def __torch_function__(
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What torch calls for each operation."""
        own, more, named = args[0], args[1:], dict(kwargs or {})
        if func in _FACTS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **named)
        if isinstance(own, cls) and named in ({}, {"dim": 0}):
            if func is Tensor.__getitem__ and _takes_rows(more[0], own.ndim):
                return cls(QuantisedRows(own.rows.values[more[0]], own.rows.scales[more[0]]))
            if func in _VIEWS and _sizes(more)[-1:] == own.shape[-1:] and len(_sizes(more)) > 1:
                sizes = _sizes(more)
                return cls(QuantisedRows(own.rows.values.reshape(sizes), own.rows.scales.reshape(sizes[:-1])))
            if func in _SPLITS and len(more) == 1:
                return tuple(own[at : at + more[0]] for at in range(0, len(own), more[0]))
            if func is Tensor.to:
                dtype = next((one for one in more if isinstance(one, torch.dtype)), torch.float32)
                return _widened(own.rows, dtype).to(*more)
        return func(*_plain(args), **_plain(named))

    @classmethod
    @no_type_check
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """For what is called past the hook above."""
        return func(*_plain(args), **_plain(dict(kwargs or {})))


_FACTS = frozenset(
    {getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "is_cuda", "layout")}
    | {getattr(Tensor, name) for name in ("__len__", "__repr__", "size", "dim", "numel", "stride", "is_floating_point")}
)
"""What is known without a look at a weight."""
_VIEWS = frozenset({Tensor.view, Tensor.reshape})
_SPLITS = frozenset({Tensor.split, torch.split})


def _takes_rows(key: object, ndim: int) -> bool:
    """Whether an index leaves every row whole."""
    parts = key if isinstance(key, tuple) else (key,)
    plain = all(isinstance(one, int | slice | list) or (isinstance(one, Tensor) and one.ndim == 1) for one in parts)
    return plain and len(parts) < ndim


def _sizes(more: tuple[Any, ...]) -> tuple[int, ...]:
    """The shape that a view is asked for, given as numbers or as one sequence; () for a view of another kind."""
    sizes = tuple(more[0]) if more and isinstance(more[0], tuple | list) else more
    return sizes if all(isinstance(one, int) for one in sizes) else ()


def _plain(tree: Any) -> Any:
    """Arguments with int8 tensors as fp32 ones."""
    return torch.utils._pytree.tree_map_only(Int8Tensor, lambda one: _widened(one.rows), tree)


def _widened(rows: QuantisedRows, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix in a float dtype, through fp32 a part at a time."""
    out = torch.empty(rows.values.shape, dtype=dtype, device=rows.values.device)
    width = out.shape[-1]
    step = max(1, _STEP // width)
    parts = zip(
        torch.split(out.view(-1, width), step),
        torch.split(rows.values.reshape(-1, width), step),
        torch.split(rows.scales.reshape(-1), step),
        strict=True,
    )
    for into, values, scales in parts:
        into.copy_(dequantise_rows(QuantisedRows(values, scales)))
    return out


def stored_rows(weight: Float[Tensor, "*rows channel"]) -> QuantisedRows:
    """A matrix as int8 rows: those that it is stored in, or new ones. Raises NumericError as `quantise_rows`."""
    return weight.rows if isinstance(weight, Int8Tensor) else quantise_rows(weight)
