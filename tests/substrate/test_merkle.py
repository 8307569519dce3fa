"""Roots and proofs are those of RFC 6962, and no proof shows what is not so."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.substrate import merkle
from ftw.substrate.errors import ProofError
from ftw.substrate.merkle import (
    Tree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

# The reference vectors of Certificate Transparency (transparency-dev/merkle, testonly/constants.go).
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
A, B, C = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7", ROOTS[1], ROOTS[2]
D = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
E = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
F = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
G = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
H = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
INCLUSIONS = [
    (0, 1, []), (0, 2, [A]), (1, 2, [B]), (2, 3, [C]), (1, 5, [B, D, E]), (0, 8, [A, D, F]), (5, 8, [E, G, ROOTS[4]]),
]  # fmt: skip
CONSISTENCIES = [(1, 1, []), (1, 8, [A, D, F]), (6, 8, [H, G, ROOTS[4]]), (2, 5, [D, E])]

SIZES = st.integers(1, 70)


def data(n):
    return [i.to_bytes(2, "big") * (i % 3) for i in range(n)]


def hexes(path):
    return [node.hex() for node in path]


@pytest.mark.parametrize("n", range(9))
def test_roots_equal_certificate_transparency(n):
    assert root(LEAVES[:n]).hex() == ROOTS[n]


@pytest.mark.parametrize(("index", "size", "path"), INCLUSIONS)
def test_inclusion_proofs_equal_certificate_transparency(index, size, path):
    assert hexes(inclusion_proof(LEAVES[:size], index)) == path
    assert verify_inclusion(LEAVES[index], index, size, list(map(bytes.fromhex, path)), bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "size", "path"), CONSISTENCIES)
def test_consistency_proofs_equal_certificate_transparency(old, size, path):
    assert hexes(consistency_proof(LEAVES[:size], old)) == path
    roots = bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[size])
    assert verify_consistency(old, roots[0], size, roots[1], list(map(bytes.fromhex, path)))


def defined(leaves):
    """The root as RFC 6962, 2.1, defines it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return node_hash(defined(leaves[:k]), defined(leaves[k:]))


@given(st.lists(st.binary(max_size=9), max_size=40))
def test_a_grown_tree_has_every_root_of_the_definition(leaves):
    tree = Tree()
    assert [tree.append(leaf) for leaf in leaves] == list(range(len(leaves)))
    assert [tree.root(n) for n in range(len(leaves) + 1)] == [defined(leaves[:n]) for n in range(len(leaves) + 1)]
    assert (tree.root(), len(tree)) == (defined(leaves), len(leaves))


@given(SIZES, st.data())
def test_every_leaf_of_every_size_is_proved(size, draw):
    leaves = data(size)
    index = draw.draw(st.integers(0, size - 1))
    path = inclusion_proof(leaves, index)
    assert verify_inclusion(leaves[index], index, size, path, defined(leaves))


@given(SIZES, st.data())
def test_every_older_tree_is_proved(size, draw):
    leaves = data(size)
    old = draw.draw(st.integers(1, size))
    path = consistency_proof(leaves, old)
    assert verify_consistency(old, defined(leaves[:old]), size, defined(leaves), path)


@given(SIZES, st.data())
def test_a_proof_shows_nothing_else(size, draw):
    leaves = [i.to_bytes(2, "big") for i in range(size)]
    index = draw.draw(st.integers(0, size - 1))
    path, top = list(inclusion_proof(leaves, index)), root(leaves)
    other = draw.draw(st.integers(0, size).filter(lambda i: i != index))
    assert not verify_inclusion(leaves[index], other, size, path, top)
    assert not verify_inclusion(leaves[index] + b"x", index, size, path, top)
    assert not verify_inclusion(leaves[index], index, size, path, leaf_hash(top))
    assert not verify_inclusion(leaves[index], index, size, [*path, top], top)
    if path:
        at = draw.draw(st.integers(0, len(path) - 1))
        bad = path[at][:-1] + bytes([path[at][-1] ^ 1])
        assert not verify_inclusion(leaves[index], index, size, [*path[:at], bad, *path[at + 1 :]], top)
        assert not verify_inclusion(leaves[index], index, size, path[:-1], top)
        assert not verify_inclusion(leaves[index], index, size, [b"short", *path[1:]], top)


@given(st.integers(2, 70), st.data())
def test_a_rewritten_history_has_no_proof(size, draw):
    leaves = data(size)
    old = draw.draw(st.integers(1, size - 1))
    at = draw.draw(st.integers(0, old - 1))
    forged = [*leaves[:at], b"forged", *leaves[at + 1 :]]
    path = consistency_proof(forged, old)
    assert not verify_consistency(old, root(leaves[:old]), size, root(forged), path)
    assert not verify_consistency(old, root(leaves[:old]), size, root(leaves), [*path, root(leaves)])
    assert not verify_consistency(old, root(leaves[:old]), size, root(leaves), path[:-1])


def test_a_leaf_is_no_node_and_an_odd_node_is_not_doubled():
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert root([left + right]) != root([b"a", b"b"])
    assert root([b"a", b"b", b"c"]) != root([b"a", b"b", b"c", b"c"])


def test_equal_sizes_need_equal_roots_and_no_path():
    top = root(LEAVES)
    assert verify_consistency(8, top, 8, top, [])
    assert not verify_consistency(8, top, 8, root(LEAVES[:7]), [])
    assert not verify_consistency(8, top, 8, top, [top])


@pytest.mark.parametrize(("old", "size"), [(0, 3), (4, 3), (1, merkle.MOST_LEAVES + 1), (-1, 3), (3, 8)])
def test_sizes_that_no_tree_has_are_a_no(old, size):
    assert not verify_consistency(old, b"r", size, b"r", [])
    assert not verify_inclusion(b"", size, size, [], b"r")
    assert not verify_inclusion(b"", -1, size, [], b"r")


def test_a_leaf_that_is_not_there_is_an_error():
    with pytest.raises(ProofError, match="there is no leaf 3: the tree has leaves 0 to 2"):
        inclusion_proof(LEAVES[:3], 3)


@pytest.mark.parametrize("old", [0, 4])
def test_an_older_tree_that_is_not_older_is_an_error(old):
    with pytest.raises(ProofError, match=f"no proof leads from {old} to 3 leaves"):
        consistency_proof(LEAVES[:3], old)


def test_a_tree_larger_than_it_is_is_an_error():
    with pytest.raises(ProofError, match="there is no tree of 1 leaves: this one has 0"):
        Tree().root(1)
