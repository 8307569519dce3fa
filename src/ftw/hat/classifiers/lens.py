"""Records that say what a lens is: which concept, at which blocks, how good. No weights live here."""

from dataclasses import dataclass, field
from typing import Literal

from ftw.substrate.errors import UsageError
from ftw.substrate.types import Site

Depth = Literal["early", "mid", "late"]
"""Which third of the model's blocks."""


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

    @property
    def site(self) -> Site:
        """The address that it reads."""
        return Site(self.block)


@dataclass(frozen=True, slots=True)
class ConceptLens:
    """A concept and its classifiers, one per block that was trained."""

    term: str
    classifiers: tuple[ClassifierInfo, ...]

    def __post_init__(self) -> None:
        blocks = [info.block for info in self.classifiers]
        if not blocks or len(set(blocks)) != len(blocks):
            raise UsageError(f"lens {self.term!r} has classifiers at blocks {blocks}: at least one, each block once")

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
