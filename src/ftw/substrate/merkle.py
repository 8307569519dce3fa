"""Merkle trees after RFC 6962: roots, inclusion proofs, consistency proofs, and a tree that grows leaf by leaf.

SHA-256 throughout; a leaf hash begins with the byte 0, a node hash with the byte 1, so neither can pass for the other.
An odd node is carried up, never paired with itself. The rule of the file: proofs are checked from what is given alone,
by functions that answer yes or no and never raise on what a stranger sent.
"""

import hashlib
from collections.abc import Sequence

from ftw.substrate.errors import ProofError

HASH_BYTES = 32
MOST_LEAVES = 1 << 62
"""Sizes above this are no tree: a proof for one is refused before anything is computed."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over the data of all leaves; SHA-256 of nothing for no leaves."""
    tree = Tree()
    for data in leaves:
        tree.append(data)
    return tree.root()


class Tree:
    """A tree that grows at its right end and gives every root that it ever had. Keeps every node: 64 bytes a leaf."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]

    def __len__(self) -> int:
        return len(self._levels[0])

    def append(self, data: bytes) -> int:
        """Adds a leaf with this data and gives its index. Amortised two hashes."""
        index = len(self)
        node, level = leaf_hash(data), 0
        self._levels[0].append(node)
        while len(self._levels[level]) % 2 == 0:
            node = node_hash(*self._levels[level][-2:])
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(node)
        return index

    def root(self, size: int | None = None) -> bytes:
        """The root over the first `size` leaves, all of them unless told. Raises ProofError for more than there are."""
        size = self._sized(size)
        return self._range(0, size) if size else hashlib.sha256(b"").digest()

    def inclusion_proof(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """The audit path of a leaf in the tree of the first `size` leaves, from the leaf up (RFC 6962, 2.1.1).

        Raises ProofError for a leaf that this tree does not have.
        """
        size = self._sized(size)
        if not 0 <= index < size:
            raise ProofError(f"there is no leaf {index}: the tree has leaves 0 to {size - 1}")
        path: list[bytes] = []
        start, stop = 0, size
        while stop - start > 1:
            middle = start + _split(stop - start)
            if index < middle:
                path.append(self._range(middle, stop))
                stop = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        return tuple(reversed(path))

    def consistency_proof(self, old: int, size: int | None = None) -> tuple[bytes, ...]:
        """That the tree of `size` leaves begins with the tree of the first `old` (RFC 6962, 2.1.2).

        Empty where both are the same. Raises ProofError where `old` is 0 (everything begins with nothing) or larger.
        """
        size = self._sized(size)
        if not 1 <= old <= size:
            raise ProofError(f"no proof leads from {old} to {size} leaves: the older tree has 1 to {size}")
        path: list[bytes] = []
        start, stop, is_known = 0, size, True
        while old != stop:
            middle = start + _split(stop - start)
            if old <= middle:
                path.append(self._range(middle, stop))
                stop = middle
            else:
                path.append(self._range(start, middle))
                start, is_known = middle, False
        if not is_known:
            path.append(self._range(start, stop))
        return tuple(reversed(path))

    def _sized(self, size: int | None) -> int:
        size = len(self) if size is None else size
        if not 0 <= size <= len(self):
            raise ProofError(f"there is no tree of {size} leaves: this one has {len(self)}")
        return size

    def _range(self, start: int, stop: int) -> bytes:
        """The hash over leaves start..stop-1, where `start` is a multiple of the power of two that spans them."""
        count = stop - start
        if count & (count - 1) == 0:
            level = count.bit_length() - 1
            return self._levels[level][start >> level]
        middle = start + _split(count)
        return node_hash(self._range(start, middle), self._range(middle, stop))


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The audit path of one leaf among the data of all leaves. Raises ProofError for a leaf that is not there."""
    return _grown(leaves).inclusion_proof(index)


def consistency_proof(leaves: Sequence[bytes], old: int) -> tuple[bytes, ...]:
    """That the tree over `leaves` begins with the tree over the first `old`. Raises like `Tree.consistency_proof`."""
    return _grown(leaves).consistency_proof(old)


def verify_inclusion(data: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` shows that leaf `index` of the tree with this size and root has this data (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size <= MOST_LEAVES or not _are_hashes(path):
        return False
    node, place, last = leaf_hash(data), index, size - 1
    for sibling in path:
        if last == 0:
            return False
        if place % 2 or place == last:
            node = node_hash(sibling, node)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and node == root


def verify_consistency(old: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` shows that the tree of `size` leaves begins with that of `old` leaves (RFC 9162, 2.1.4.2)."""
    if not 1 <= old <= size <= MOST_LEAVES or not _are_hashes(path):
        return False
    if old == size:
        return not path and old_root == root
    nodes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not nodes:
        return False
    place, last = old - 1, size - 1
    while place % 2:
        place, last = place >> 1, last >> 1
    older = newer = nodes[0]
    for sibling in nodes[1:]:
        if last == 0:
            return False
        if place % 2 or place == last:
            older, newer = node_hash(sibling, older), node_hash(sibling, newer)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            newer = node_hash(newer, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and older == old_root and newer == root


def _grown(leaves: Sequence[bytes]) -> Tree:
    tree = Tree()
    for data in leaves:
        tree.append(data)
    return tree


def _split(count: int) -> int:
    """The largest power of two below `count`, which is 2 or more."""
    return 1 << (count - 1).bit_length() - 1


def _are_hashes(path: Sequence[bytes]) -> bool:
    return len(path) <= 2 * 64 and all(len(node) == HASH_BYTES for node in path)
