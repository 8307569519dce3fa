"""The tree of a bank's lenses on the device: who stands above whom, who stands beside whom.

The rule of the file: what a step calls is plain torch of fixed shapes, with no look at a value on the host, so that a
CUDA graph can hold it. Names are resolved once, when the tree is made.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ftw.hat.classifiers.index import LensRow
from ftw.substrate.errors import PackError, UsageError


class Tree:
    """Parents, levels and sibling groups of lenses in bank order.

    A lens whose parent has no lens here has parent -1, but still belongs with those that name the same parent. Lenses
    without a parent are siblings of those on their level. Made by `of`.
    """

    def __init__(
        self, parents: Sequence[int], levels: Sequence[int], groups: Sequence[int], device: torch.device
    ) -> None:
        """For the class's own use: see `of`."""
        self.parents = tuple(parents)
        """Place of each lens's parent, -1 for none, on the host."""
        self.levels = tuple(levels)
        self.groups = tuple(groups)
        """Number of each lens's sibling group, counted from 0, on the host."""
        n, count = len(self.parents), max(groups, default=-1) + 1
        self.parent: Int[Tensor, " lens"] = torch.tensor(self.parents, dtype=torch.int64, device=device)
        """The same on the device."""
        self.level: Int[Tensor, " lens"] = torch.tensor(self.levels, dtype=torch.int64, device=device)
        self.group: Int[Tensor, " lens"] = torch.tensor(self.groups, dtype=torch.int64, device=device)
        self._slot = torch.where(self.parent < 0, n, self.parent)  # what has no parent writes to a slot of its own
        self._count = count
        children: dict[int, list[int]] = {}
        for at, above in enumerate(self.parents):
            children.setdefault(above, []).append(at)
        self._children = {above: tuple(below) for above, below in children.items()}
        members: dict[int, list[int]] = {}
        for at, group in enumerate(self.groups):
            members.setdefault(group, []).append(at)
        self._members = {group: tuple(among) for group, among in members.items()}

    @classmethod
    def of(cls, rows: Sequence[LensRow], device: torch.device | str = "cpu") -> "Tree":
        """The tree that the `parent` and `level` of lens rows say, names in any case.

        A level that a row does not give is counted from its parents. Raises PackError for parents in a circle.
        """
        place: dict[str, int] = {}
        for at, row in enumerate(rows):
            place.setdefault(row.term.casefold(), at)
        parents = [-1 if row.parent is None else place.get(row.parent.casefold(), -1) for row in rows]
        depths = _depths(parents, [row.term for row in rows])
        levels = [depth if row.level is None else row.level for row, depth in zip(rows, depths, strict=True)]
        keys = [
            row.parent.casefold() if row.parent is not None else level for row, level in zip(rows, levels, strict=True)
        ]
        number = {key: at for at, key in enumerate(dict.fromkeys(keys))}
        return cls(parents, levels, [number[key] for key in keys], torch.device(device))

    def __len__(self) -> int:
        return len(self.parents)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.parent.device

    def to(self, device: torch.device | str) -> "Tree":
        """The same tree on another device."""
        return Tree(self.parents, self.levels, self.groups, torch.device(device))

    def children(self, at: int) -> tuple[int, ...]:
        """Places of a lens's children; of -1, of the lenses without a parent."""
        return self._children.get(at, ())

    def siblings(self, at: int) -> tuple[int, ...]:
        """Places of a lens's sibling group, itself among them."""
        return self._members[self.groups[at]]

    def branch(self, at: int, depth: int | None = None) -> tuple[int, ...]:
        """A lens and what stands below it, level by level, at most `depth` levels down. Raises UsageError."""
        if depth is not None and depth < 0:
            raise UsageError(f"depth is {depth}: it counts levels below a concept, 0 or more")
        found, level = [at], [at]
        while level and (depth is None or depth > 0):
            level = [child for above in level for child in self.children(above)]
            found += level
            depth = None if depth is None else depth - 1
        return tuple(found)

    def path(self, at: int) -> tuple[int, ...]:
        """What stands above a lens, from its root down to its parent."""
        above: list[int] = []
        while (at := self.parents[at]) >= 0:
            above.append(at)
        return tuple(reversed(above))

    def visible(
        self, p: Float[Tensor, "row lens"], above: Bool[Tensor, "row lens"], *, margin: float
    ) -> Bool[Tensor, "row lens"]:
        """Which readings above their thresholds are to be shown: those that no child explains.

        `p` is calibrated, `above` says which readings reach their thresholds. A child explains its parent if it is
        above its own threshold and its p is at least the parent's minus `margin`. So nothing vanishes for nothing: of
        what is hidden, something below is visible.
        """
        best = self._most(torch.where(above, p, float("-inf")))
        return above & ~(best >= p - margin)

    def sibling_softmax(self, logit: Float[Tensor, "row lens"]) -> Float[Tensor, "row lens"]:
        """Softmax over each lens's sibling group, fp32: which of the siblings it is, if it is one of them.

        For calibrated log-odds, which can be compared across lenses. -inf (not scored) gives 0, also where no sibling
        was scored. On CUDA the sums are atomic, so the last bit may differ between runs.
        """
        logit = logit.float()
        group = self.group.expand_as(logit)
        top = logit.new_full((logit.shape[0], self._count), float("-inf")).scatter_reduce_(1, group, logit, "amax")
        top = top.masked_fill(top.isneginf(), 0.0)
        e = (logit - top.gather(1, group)).exp()
        total = e.new_zeros((e.shape[0], self._count)).scatter_add_(1, group, e)
        return e / total.gather(1, group).clamp_min(torch.finfo(torch.float32).tiny)

    def _most(self, value: Float[Tensor, "row lens"]) -> Float[Tensor, "row lens"]:
        """The largest value among each lens's children, -inf without any."""
        rows, n = value.shape
        most = value.new_full((rows, n + 1), float("-inf"))
        return most.scatter_reduce_(1, self._slot.expand(rows, n), value, "amax")[:, :n]


def _depths(parents: Sequence[int], terms: Sequence[str]) -> list[int]:
    """How many parents stand above each. Raises PackError for a circle."""
    depths = [-1] * len(parents)
    for at in range(len(parents)):
        chain: list[int] = []
        here = at
        while here >= 0 and depths[here] < 0:
            if here in chain:
                circle = " > ".join(terms[each] for each in [*chain[chain.index(here) :], here])
                raise PackError(f"the parents of {terms[here]!r} go in a circle ({circle}): a tree has a root")
            chain.append(here)
            here = parents[here]
        depth = depths[here] if here >= 0 else -1
        for each in reversed(chain):
            depth += 1
            depths[each] = depth
    return depths
