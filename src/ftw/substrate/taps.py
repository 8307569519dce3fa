"""Reads and edits the residual stream while a model runs. The only file that registers hooks.

`tap` is one visit: enter, run the model, look at the trace. `Taps` is the form that stays between passes (the
engine's): what it reads and edits changes from pass to pass, and its hooks exist only while there is something to do.

The rule of the file: a hook acts only inside the context (thread or task) that armed it, and never outlives it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ftw.substrate.errors import EditError, NumericError, SiteError
from ftw.substrate.types import Edit, Site


@runtime_checkable
class Anatomy(Protocol):
    """What a tap must know of a model: its blocks in order and the width of the stream between them."""

    @property
    def blocks(self) -> nn.ModuleList: ...

    @property
    def d_model(self) -> int: ...


@runtime_checkable
class HasAnatomy(Protocol):
    """A loaded model: it knows its own anatomy."""

    @property
    def arch(self) -> Anatomy: ...


@dataclass(frozen=True, slots=True)
class RowEdit:
    """An edit for these rows of the batch only. It sees [len(rows), pos, d_model]."""

    edit: Edit
    rows: Sequence[int]


class Trace(Mapping[Site, Tensor]):
    """What a tap read: the residual stream at each site, before that tap's edits there, in the last pass it saw."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self.sites = tuple(sites)
        """The sites that are read, whether or not the model ran yet."""
        self._seen: dict[int, tuple[Tensor, int]] = {}  # by layer: hashing a Site costs more than the rest of a read

    def __getitem__(self, site: Site) -> Float[Tensor, "batch pos d_model"]:
        if site.layer in self._seen:
            stream, version = self._seen[site.layer]
            if _version(stream) != version:
                raise SiteError(f"{site} was overwritten in place after it was read: clone it inside an edit instead")
            return stream
        if site in self.sites:
            raise SiteError(f"{site} was not reached: no forward pass ran through it inside this tap and its thread")
        raise SiteError(f"{site} was not read: this tap reads {', '.join(map(str, self.sites)) or 'nothing'}")

    def __iter__(self) -> Iterator[Site]:
        return map(Site, sorted(self._seen))

    def __len__(self) -> int:
        return len(self._seen)

    def __contains__(self, site: object) -> bool:
        return isinstance(site, Site) and site.layer in self._seen

    def _record(self, layer: int, stream: Tensor) -> None:
        self._seen[layer] = stream, _version(stream)


_ARMED: ContextVar[tuple[object, ...]] = ContextVar("ftw_armed_taps", default=())
"""The taps that are armed in this thread or task, outermost first. Other threads start with none."""


def any_armed() -> bool:
    """Whether some tap of this thread or task is at work."""
    return bool(_ARMED.get())


class Taps:
    """Reads and edits of one model that stay in place between forward passes.

    `set` says what to do, `armed` lets it happen. Where nothing is to be done there is no hook. After an exception
    inside an edit, `acting` names the edit that was at work.
    """

    def __init__(self, model: Anatomy | HasAnatomy, *, grad: bool = False) -> None:
        arch = cast(Anatomy, getattr(model, "arch", model))
        self._blocks = arch.blocks
        self._d_model = arch.d_model
        self._grad = grad
        self._reads: frozenset[Site] = frozenset()
        self._plan: dict[int, tuple[bool, tuple[_Placed, ...]]] = {}
        """By layer: whether to read there, and the edits."""
        self._handles: dict[Site, RemovableHandle] = {}
        self._trace = Trace(())
        self._watch: Callable[[Site, str, Tensor], None] | None = None
        self.acting: RowEdit | Edit | None = None

    @property
    def hook_count(self) -> int:
        """How many hooks are on the model for these taps."""
        return len(self._handles)

    def set(self, reads: Iterable[Site] = (), edits: Sequence[Edit | RowEdit] = ()) -> None:
        """Decide what the next armed passes read and edit. Edits at one site apply in the order given.

        Raises SiteError for a site that the model does not have, EditError for rows that are negative or repeated.
        """
        wanted = frozenset(reads)
        placed: dict[Site, list[_Placed]] = {}
        for one in edits:
            item = _place(one)
            placed.setdefault(item.edit.site, []).append(item)
        sites = wanted | placed.keys()
        self.check(sites)
        for site in [site for site in self._handles if site not in sites]:
            self._handles.pop(site).remove()
        for site in sorted(sites - self._handles.keys()):
            self._handles[site] = self._hook(site)
        self._reads = wanted
        self._plan = {site.layer: (site in wanted, tuple(placed.get(site, ()))) for site in sites}

    def check(self, sites: Iterable[Site]) -> None:
        """Raise SiteError if one of `sites` does not exist in this model."""
        last = len(self._blocks) - 1
        bad = sorted(site.layer for site in sites if not -1 <= site.layer <= last)
        if bad:
            named = ", ".join(map(str, bad))
            raise SiteError(f"no such site: {named}. This model has blocks 0..{last}, and -1 for the embedding output")

    @contextmanager
    def armed(self) -> Iterator[Trace]:
        """Let forward passes of this thread or task be read and edited. Gives the trace of the last of them."""
        self._trace = Trace(sorted(self._reads))
        self.acting = None
        outer = _ARMED.get()
        if outer and self._handles:  # hooks fire in the order of registration: the inner taps' must come last
            for site in self._handles:
                self._handles[site].remove()
                self._handles[site] = self._hook(site)
        _ARMED.set((*outer, self))
        try:
            yield self._trace
        finally:
            # not reset(token): a generator may be closed in another context than it was opened in
            _ARMED.set(tuple(taps for taps in _ARMED.get() if taps is not self))

    def close(self) -> None:
        """Remove every hook."""
        self.set()

    def _hook(self, site: Site) -> RemovableHandle:
        if site.layer < 0:
            return self._blocks[0].register_forward_pre_hook(self._entry_hook(site), with_kwargs=True)
        return self._blocks[site.layer].register_forward_hook(self._block_hook(site))

    def _block_hook(self, site: Site) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
        """What is only read takes this one function: between two blocks of a real model its code is never in a cache,
        so that every further call would cost a microsecond or two."""
        layer, d_model, is_grad = site.layer, self._d_model, self._grad

        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
            if self not in _ARMED.get():
                return None
            stream = output if isinstance(output, Tensor) else _first_of(output, site)
            shape = stream.shape
            if len(shape) != 3 or shape[2] != d_model:
                raise SiteError(_other_shape(site, shape, d_model))
            reads, edits = self._plan[layer]
            if reads:
                version = 0 if stream.is_inference() else stream._version
                self._trace._seen[layer] = stream if is_grad else stream.detach(), version
            if not edits:
                return None
            item = edits[0]
            if len(edits) == 1 and item.rows is None and self._watch is None:
                self.acting = item.origin
                changed = item.checked(stream, stream)
                self.acting = None
            else:
                changed = self._edited(site, stream, edits)
            if changed is stream:
                return None
            if stream is output:
                return changed
            return [changed, *output[1:]] if isinstance(output, list) else (changed, *output[1:])

        return hook

    def _entry_hook(self, site: Site) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]:
        """The residual stream that enters block 0: with positions, scale and norm of the embedding already in it."""

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self not in _ARMED.get():
                return None
            stream = args[0] if args else kwargs["hidden_states"]
            if stream.ndim != 3 or stream.shape[-1] != self._d_model:
                raise SiteError(_other_shape(site, stream.shape, self._d_model))
            reads, edits = self._plan[site.layer]
            if reads:
                self._trace._record(site.layer, stream if self._grad else stream.detach())
            changed = self._edited(site, stream, edits)
            if changed is stream:
                return None
            return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

        return hook

    def _edited(self, site: Site, stream: Tensor, edits: Sequence["_Placed"]) -> Tensor:
        for item in edits:
            self.acting = item.origin
            stream = item.checked(stream, stream) if item.rows is None else item.on_rows(stream)
            if self._watch is not None:
                self._watch(site, item.edit.label, stream)
        self.acting = None
        return stream


@contextmanager
def tap(
    model: Anatomy | HasAnatomy,
    reads: Sequence[Site] = (),
    edits: Sequence[Edit | RowEdit] = (),
    *,
    grad: bool = False,
) -> Iterator[Trace]:
    """Reads and edits every forward pass of this thread inside the `with` block; the trace holds the last one.

    At one site reads come before edits; later blocks show them. A tap inside another one sees the model as the outer
    one edits it. With `grad` the readings keep their autograd graph, otherwise they are detached. No copy is made.

    Raises SiteError for a site that does not exist, EditError when an edit gives back another shape, dtype or device
    or writes into its argument, and, on leaving, NumericError when an edit left a NaN or an infinity.
    """
    taps = Taps(model, grad=grad)
    extrema: list[tuple[Site, str, Tensor]] = []

    def watch(site: Site, label: str, stream: Tensor) -> None:
        if stream.numel():  # one small reduction per edit; looked at once, on leaving: no wait for the device here
            extrema.append((site, label, torch.stack(stream.detach().aminmax())))

    taps._watch = watch
    try:
        taps.set(reads, edits)
        with taps.armed() as trace:
            yield trace
    finally:
        taps.close()
    for site, label, ends in extrema:
        if not bool(ends.isfinite().all()):
            raise NumericError(
                f"the residual stream is not finite after edit {label!r} at {site} (min {float(ends[0])}, max "
                f"{float(ends[1])}): lower its strength, or look for a division by zero in it"
            )


class _Placed:
    """An edit at its rows, checked on each use."""

    __slots__ = ("apply", "edit", "index", "last", "origin", "prefix", "rows")

    def __init__(self, origin: Edit | RowEdit, edit: Edit, rows: tuple[int, ...] | None) -> None:
        self.origin = origin
        self.edit = edit
        self.apply = edit.apply
        self.rows = rows
        self.last = max(rows) if rows else -1
        self.prefix = len(rows) if rows is not None and rows == tuple(range(len(rows))) else -1
        """How many leading rows of the batch these are; -1 when they are others."""
        self.index: Tensor | None = None

    def on_rows(self, stream: Tensor) -> Tensor:
        """`stream` with the edit applied to its rows. A new tensor; `stream` is left as it was."""
        if self.rows is None or self.prefix == stream.shape[0]:
            return self.checked(stream, stream)
        if not self.rows:
            return stream
        if self.last >= stream.shape[0]:
            raise EditError(f"edit {self.edit.label!r} names row {self.last} of a batch of {stream.shape[0]} rows")
        if self.index is None or self.index.device != stream.device:
            self.index = torch.tensor(self.rows, device=stream.device)
        part = stream[: self.prefix] if self.prefix > 0 else self._select(stream, self.rows)
        return stream.index_copy(0, self.index, self.checked(part, stream))

    def _select(self, stream: Tensor, rows: tuple[int, ...]) -> Tensor:
        if len(rows) == 1:
            return stream[rows[0] : rows[0] + 1]
        return stream.index_select(0, self.index) if self.index is not None else stream[list(rows)]

    def checked(self, part: Tensor, owner: Tensor) -> Tensor:
        """What the edit makes of `part`, which is `owner` or rows of it. Raises EditError."""
        version = -1 if owner.is_inference() else owner._version
        new = self.apply(part)
        if version >= 0 and owner._version != version:
            raise EditError(
                f"edit {self.edit.label!r} at {self.edit.site} wrote into its argument: return a new tensor"
            )
        if not isinstance(new, Tensor):
            raise EditError(f"edit {self.edit.label!r} at {self.edit.site} returned {type(new).__name__}, not a tensor")
        if new.shape != part.shape or new.dtype != part.dtype or new.device != part.device:
            raise EditError(
                f"edit {self.edit.label!r} at {self.edit.site} got {_kind(part)} and returned {_kind(new)}: "
                "an edit keeps shape, dtype and device"
            )
        return new


def _place(item: Edit | RowEdit) -> _Placed:
    if isinstance(item, Edit):
        return _Placed(item, item, None)
    rows = tuple(item.rows)
    if any(row < 0 for row in rows) or len(set(rows)) != len(rows):
        raise EditError(f"edit {item.edit.label!r} names rows {list(rows)}: rows count from 0 and stand once")
    return _Placed(item, item.edit, rows)


def _first_of(output: Any, site: Site) -> Tensor:
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    raise SiteError(
        f"{site} of this model gives {type(output).__name__}, neither a tensor nor a tuple that starts with one"
    )


def _other_shape(site: Site, shape: torch.Size, d_model: int) -> str:
    return f"{site} gives {list(shape)}, not the [batch, pos, {d_model}] of its anatomy"


def _version(tensor: Tensor) -> int:
    """How often a tensor's memory was written to. Tensors made in inference mode do not count it."""
    return 0 if tensor.is_inference() else tensor._version


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} on {tensor.device}"
