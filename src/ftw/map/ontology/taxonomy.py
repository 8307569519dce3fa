"""A big taxonomy cut down to a tree of concepts: chosen roots, a chosen size, and nothing left to chance.

A source (WordNet, SUMO) is read into nodes. What is chosen is what weighs most: a node weighs as much as the uses of
all words at or below it, so that what people speak of wins over what only a catalogue lists, and whatever is above a
chosen node weighs at least as much and is chosen too.
The rule of the file: the same nodes, roots and limits give the same tree, whatever the order of the input.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from ftw.substrate.errors import ConfigError, UsageError


@dataclass(frozen=True)
class Node:
    """One kind of thing in a source."""

    key: str
    """Its name in the source, unique there: `dog.n.01`, `Canine`."""
    parents: tuple[str, ...]
    """Keys of the nodes right above, the source's first choice first."""
    label: str
    """As a person would write it."""
    definition: str
    pos: str = "n"
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Words that mean exactly this node, by the synset that they come from."""
    uses: Mapping[str, float] = field(default_factory=dict)
    """How common each of these words is; what is not listed counts nothing."""
    examples: tuple[str, ...] = ()
    """Sentences that use one of the words."""
    related: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Keys of other nodes by relation: `antonyms`, `has_part`, `part_of`."""

    @property
    def weight(self) -> float:
        """What the node counts by itself: a tenth for being there, and the uses of its words."""
        return 0.1 + sum(self.uses.values())


@dataclass(frozen=True, slots=True)
class Limits:
    """What a chosen tree may look like."""

    size: int
    """Concepts at most. A few less where the last one would stand alone below its parent."""
    most_children: int = 31
    deepest: int = 12
    """Levels at most."""
    fewest_words: int = 5
    """A concept with fewer words at and below it is not chosen: a lens cannot be trained on it."""
    most_words: int = 25
    """Direct words that a concept keeps, the most common ones."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.most_children < 2 or self.deepest < 1:
            raise ConfigError(
                f"size {self.size}, children {self.most_children}, levels {self.deepest}: at least 1, 2 and 1"
            )
        if not 1 <= self.fewest_words <= self.most_words:
            raise ConfigError(
                f"fewest words {self.fewest_words}, most words {self.most_words}: at least 1, and no more than the most"
            )


@dataclass(frozen=True)
class Chosen:
    """A node of the tree that was cut out."""

    node: Node
    parent: str | None
    """Key of the chosen node above; None for a root."""
    words: Mapping[str, tuple[str, ...]]
    """Direct words by synset: its own and those of nodes below that were not chosen, the most common first."""


class Taxonomy:
    """Nodes by key, each under one parent."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        """Raises ConfigError for a key that stands twice. Parents that are not among the nodes are left out."""
        self.nodes: dict[str, Node] = {}
        for node in sorted(nodes, key=lambda node: node.key):
            if node.key in self.nodes:
                raise ConfigError(f"{node.key} stands twice in the taxonomy: keys are unique")
            self.nodes[node.key] = node

    def choose(self, roots: Sequence[str], limits: Limits) -> list[Chosen]:
        """The tree below `roots`, a parent before its children. Raises UsageError for a root that is no node.

        Of several parents, the one nearest to a root counts, then the source's first. A root below another root stands
        by itself.
        """
        unknown = [root for root in roots if root not in self.nodes]
        if unknown or not roots:
            near = [name for root in unknown for name in get_close_matches(root, self.nodes, n=3, cutoff=0.5)]
            hint = f"; nearest: {', '.join(dict.fromkeys(near))}" if near else "; a root is a key of the taxonomy"
            raise UsageError(f"no such root: {', '.join(unknown) or 'none named'}{hint}")
        parent, order = self._reach(roots)
        mass, words = self._sums(parent, order, limits)
        kept = self._grown(roots, parent, mass, words, limits)
        spliced = _spliced(parent, kept, set(roots))
        return self._written(parent, order, spliced, limits)

    def _reach(self, roots: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
        """The one parent of everything below the roots, and all of it in order of depth."""
        below: dict[str, list[str]] = defaultdict(list)
        for node in self.nodes.values():
            for above in dict.fromkeys(node.parents):
                below[above].append(node.key)
        parent: dict[str, str | None] = dict.fromkeys(roots)
        order = list(parent)
        level = list(parent)
        while level:
            offers: dict[str, list[str]] = defaultdict(list)
            for key in level:
                for child in below[key]:
                    if child not in parent:
                        offers[child].append(key)
            level = sorted(offers)
            for child in level:
                parent[child] = min(offers[child], key=self.nodes[child].parents.index)
            order += level
        return parent, order

    def _sums(
        self, parent: Mapping[str, str | None], order: Sequence[str], limits: Limits
    ) -> tuple[dict[str, float], dict[str, int]]:
        """The weight at and below each node, and how many words."""
        mass = {key: self.nodes[key].weight for key in order}
        words = {key: sum(map(len, self.nodes[key].words.values())) for key in order}
        for key in reversed(order):
            above = parent[key]
            if above is not None:
                mass[above] += mass[key]
                words[above] += words[key]
        return mass, words

    def _grown(
        self,
        roots: Sequence[str],
        parent: Mapping[str, str | None],
        mass: Mapping[str, float],
        words: Mapping[str, int],
        limits: Limits,
    ) -> set[str]:
        """The heaviest nodes whose spliced tree keeps the limits."""
        fit = [key for key in parent if key not in roots and words[key] >= limits.fewest_words]
        fit.sort(key=lambda key: (-mass[key], key))
        fit = [*dict.fromkeys(roots), *_parents_first(fit, parent)]
        low, high = len(set(roots)), len(fit)
        while low < high:  # splicing takes away a few, so the number to take is searched
            middle = (low + high + 1) // 2
            if len(_spliced(parent, _limited(fit[:middle], parent, limits), set(roots))) <= limits.size:
                low = middle
            else:
                high = middle - 1
        return _limited(fit[:low], parent, limits)

    def _written(
        self, parent: Mapping[str, str | None], order: Sequence[str], tree: Mapping[str, str | None], limits: Limits
    ) -> list[Chosen]:
        """The chosen nodes with their direct words, those of a nearest chosen node below left to it."""
        found: dict[str, list[tuple[float, int, str, str]]] = defaultdict(list)
        taken: set[str] = set()
        for at, key in enumerate(order):
            home: str | None = key
            while home is not None and home not in tree:
                home = parent[home]
            if home is None:
                continue
            node = self.nodes[key]
            for synset, listed in node.words.items():
                for word in listed:
                    if word not in taken:  # one home for a word: the highest that has it
                        taken.add(word)
                        found[home].append((-node.uses.get(word, 0.0), at, synset, word))
        out = []
        for key in (key for key in order if key in tree):
            groups: dict[str, list[str]] = defaultdict(list)
            for _, _, synset, word in sorted(found[key])[: limits.most_words]:
                groups[synset].append(word)
            out.append(Chosen(self.nodes[key], tree[key], {name: tuple(listed) for name, listed in groups.items()}))
        return _depth_first(out)


def _parents_first(keys: Sequence[str], parent: Mapping[str, str | None]) -> list[str]:
    """`keys`, heaviest first, with whatever stands above a key before it (equal weights may have it otherwise)."""
    allowed, out = set(keys), dict[str, None]()
    for key in keys:
        chain, at = [], key
        while at in allowed and at not in out:
            chain.append(at)
            at = parent[at] or ""
        out.update(dict.fromkeys(reversed(chain)))
    return list(out)


def _limited(keys: Sequence[str], parent: Mapping[str, str | None], limits: Limits) -> set[str]:
    """The keys that can be taken in order without too many children or too many levels."""
    taken: dict[str, int] = {}
    children: dict[str, int] = defaultdict(int)
    for key in keys:
        above = parent[key]
        if above is None:
            taken[key] = 1
        elif above in taken and taken[above] < limits.deepest and children[above] < limits.most_children:
            taken[key] = taken[above] + 1
            children[above] += 1
    return set(taken)


def _spliced(parent: Mapping[str, str | None], kept: set[str], roots: set[str]) -> dict[str, str | None]:
    """The chosen parent of each kept node, without those that have one child only: it takes their place.

    A root stays, and an only child of a root goes up with its words instead, until the root has two children or none.
    """
    tree: dict[str, str | None] = {key: parent[key] for key in sorted(kept)}
    below: dict[str, list[str]] = defaultdict(list)
    for key, above in tree.items():
        if above is not None:
            below[above].append(key)
    waiting = [key for key in tree if len(below[key]) == 1]
    while waiting:
        key = waiting.pop()
        if key not in tree or len(below[key]) != 1:
            continue
        (child,) = below[key]
        gone, stays = (child, key) if key in roots or not below[child] else (key, child)
        if gone == child:  # the child is absorbed: its own children hang on the node itself
            below[key] = below.pop(child, [])
            for grandchild in below[key]:
                tree[grandchild] = key
            waiting += [key] * (len(below[key]) == 1)
        else:
            above = tree[key]
            tree[stays] = above
            if above is not None:
                below[above] = [stays if other == key else other for other in below[above]]
        del tree[gone]
    return tree


def _depth_first(chosen: Sequence[Chosen]) -> list[Chosen]:
    """A parent, then each child with what is below it, by key."""
    below: dict[str | None, list[Chosen]] = defaultdict(list)
    for one in chosen:
        below[one.parent].append(one)
    out: list[Chosen] = []
    waiting = sorted(below[None], key=lambda one: one.node.key, reverse=True)
    while waiting:
        one = waiting.pop()
        out.append(one)
        waiting += sorted(below[one.node.key], key=lambda each: each.node.key, reverse=True)
    return out
