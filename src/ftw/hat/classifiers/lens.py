"""What a concept's lens is: its classifiers at one or more blocks, how good each is, and their weights when asked for.

The rule of the file: records first; weights are read by the one who uses them, and can be let go of again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ftw.hat.classifiers.index import LensRow
from ftw.hat.classifiers.modules import MLP
from ftw.substrate.errors import UsageError
from ftw.substrate.types import Site

Depth = Literal["early", "mid", "late"]
"""Which third of the model's blocks."""
PREFERENCE: tuple[Depth, Depth, Depth] = ("mid", "late", "early")
"""Where a lens is read when nobody says where: the middle of a model says most about meaning."""


def depth_of(block: int, n_layers: int) -> Depth:
    """The third of the model that a block lies in. Raises UsageError for a block that the model does not have."""
    if not 0 <= block < n_layers:
        raise UsageError(f"block {block} does not exist: this model has blocks 0..{n_layers - 1}")
    thirds: tuple[Depth, Depth, Depth] = ("early", "mid", "late")
    return thirds[3 * block // n_layers]


@dataclass(frozen=True, slots=True)
class ClassifierInfo:
    """One classifier of a concept: where it reads and how well it does."""

    block: int
    depth: Depth
    technique: Literal["mlp", "linear"] = "mlp"
    metrics: dict[str, float] = field(default_factory=dict)
    """Held-out figures by name, for example `auroc_words`."""
    primary: bool = False
    """Whether it is the one that speaks for the concept."""

    @property
    def site(self) -> Site:
        """The address that it reads."""
        return Site(self.block)

    @classmethod
    def of(cls, row: LensRow, n_layers: int) -> "ClassifierInfo":
        """The classifier that a row of a pack's index describes; the embedding (block -1) counts as early."""
        known = {"auroc": row.auroc, "auroc_words": row.auroc_words, "auroc_templates": row.auroc_templates}
        metrics = {**row.metrics, **{name: value for name, value in known.items() if value is not None}}
        return cls(row.block, depth_of(max(row.block, 0), n_layers), metrics=metrics, primary=row.primary)


def _nothing(block: int) -> MLP:
    raise UsageError(f"this lens is a record without weights: open it from its pack to read block {block}")


@dataclass(frozen=True, slots=True)
class ConceptLens:
    """A concept and its classifiers, one per block that was trained."""

    term: str
    classifiers: tuple[ClassifierInfo, ...]
    source: Callable[[int], MLP] = field(default=_nothing, compare=False, repr=False)
    """Reads the weights of the classifier at a block."""
    _loaded: dict[int, MLP] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        blocks = [info.block for info in self.classifiers]
        if not blocks or len(set(blocks)) != len(blocks):
            raise UsageError(f"lens {self.term!r} has classifiers at blocks {blocks}: at least one, each block once")

    @classmethod
    def of_rows(cls, rows: Sequence[LensRow], n_layers: int, source: Callable[[int], MLP] = _nothing) -> "ConceptLens":
        """The lens that the rows of one concept describe. Raises UsageError for rows of several concepts, or none."""
        terms = sorted({row.term for row in rows})
        if len(terms) != 1:
            raise UsageError(f"a lens is of one concept, these rows are of {', '.join(terms) or 'none'}")
        return cls(terms[0], tuple(ClassifierInfo.of(row, n_layers) for row in rows), source)

    @property
    def best_blocks(self) -> dict[Depth, int]:
        """The best block in each third of the model that has one, by AUROC."""
        depths = dict.fromkeys(info.depth for info in self.classifiers)
        return {depth: self.best("auroc", depth).block for depth in depths}

    @property
    def default(self) -> ClassifierInfo:
        """The classifier to read when nobody says which: the primary one, else the best of mid, late, early."""
        for info in self.classifiers:
            if info.primary:
                return info
        depth = next(depth for depth in PREFERENCE if depth in self.best_blocks)
        return self.best("auroc", depth)

    def best(self, metric: str = "auroc_words", depth: Depth | None = None) -> ClassifierInfo:
        """The classifier with the highest `metric`, in one third of the model if `depth` is given.

        A classifier that lacks the metric counts as worst. Raises UsageError when no classifier lies in that third.
        """
        among = [info for info in self.classifiers if depth is None or info.depth == depth]
        if not among:
            raise UsageError(
                f"lens {self.term!r} has no {depth} classifier: blocks {[i.block for i in self.classifiers]}"
            )
        return max(among, key=lambda info: info.metrics.get(metric, float("-inf")))

    def at(self, block: int) -> ClassifierInfo:
        """The classifier that reads a block. Raises UsageError where there is none."""
        for info in self.classifiers:
            if info.block == block:
                return info
        raise UsageError(
            f"lens {self.term!r} has no classifier at block {block}: blocks {[i.block for i in self.classifiers]}"
        )

    @property
    def loaded(self) -> tuple[int, ...]:
        """The blocks whose weights are in memory, ascending."""
        return tuple(sorted(self._loaded))

    def load(self, block: int | None = None) -> MLP:
        """The classifier at a block (the default one without) as a module, read once and kept. Raises UsageError."""
        info = self.default if block is None else self.at(block)
        if info.block not in self._loaded:
            self._loaded[info.block] = self.source(info.block)
        return self._loaded[info.block]

    def unload(self, block: int | None = None) -> None:
        """Let go of the weights at a block, or of all of them."""
        for each in list(self._loaded) if block is None else [block]:
            self._loaded.pop(each, None)
