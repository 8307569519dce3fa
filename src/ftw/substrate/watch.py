"""Watches one forward pass: which modules ran, in which order, on what. The eyes of `arch`.

The rule of the file: it only looks. Reading and editing a running model belongs to `taps`.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ftw.substrate.anatomy import first_tensor


@dataclass(frozen=True, slots=True)
class Call:
    """One run of one module. `began` and `ended` count the watched beginnings and endings in order."""

    module: nn.Module
    began: int
    ended: int
    given: Tensor | None
    """The first tensor it was given (position or `hidden_states`); None where it was not asked for."""
    gave: Tensor | None
    """The (first) tensor it returned."""


@dataclass
class Witness:
    """What was seen: the calls in the order in which they ended."""

    calls: list[Call] = field(default_factory=list)

    def of(self, module: nn.Module) -> list[Call]:
        """The calls of one module."""
        return [call for call in self.calls if call.module is module]


@contextmanager
def watch(modules: Iterable[nn.Module], *, keep: Iterable[nn.Module] = ()) -> Iterator[Witness]:
    """Notes every call of `modules`, and for those in `keep` also the tensors. No hook outlives the block."""
    witness = Witness()
    kept = {id(module) for module in keep}
    clock = 0
    open_calls: dict[int, list[tuple[int, Tensor | None]]] = {}

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        nonlocal clock
        given = _given(args, kwargs) if id(module) in kept else None
        open_calls.setdefault(id(module), []).append((clock, given))
        clock += 1

    def after(module: nn.Module, _args: Any, output: Any) -> None:
        nonlocal clock
        began, given = open_calls[id(module)].pop()
        # A copy: a model may go on writing into a tensor after it was seen.
        gave = first_tensor(output) if id(module) in kept else None
        witness.calls.append(Call(module, began, clock, given, None if gave is None else gave.detach().clone()))
        clock += 1

    handles = []
    try:
        for module in {id(m): m for m in [*modules, *keep]}.values():
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
        yield witness
    finally:
        for handle in handles:
            handle.remove()


def _given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    for value in (args[0] if args else None, kwargs.get("hidden_states"), *kwargs.values()):
        if isinstance(value, Tensor) and torch.is_floating_point(value):
            return value.detach().clone()
    return None
