"""A taxonomy is cut down to the heaviest tree that keeps its limits, and always to the same one."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.map.ontology.records import pack_of
from ftw.map.ontology.taxonomy import Chosen, Limits, Node, Taxonomy
from ftw.substrate.errors import ConfigError, UsageError


def node(key: str, *parents: str, words: int = 3, uses: float = 1.0, label: str = "") -> Node:
    own = tuple(f"{key} {at}" for at in range(words))
    return Node(key, parents, label or key, f"what {key} is", words={key: own}, uses=dict.fromkeys(own, uses))


def loose(size: int, **kept: int) -> Limits:
    return Limits(size, **({"fewest_words": 1} | kept))


Plan = list[tuple[list[int], int, float]]
"""Of each node but the root: its parents, how many words it has, how common they are."""


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Nodes of which each stands below one or two earlier ones: acyclic, with one root."""
    plan: Plan = []
    for at in range(1, draw(st.integers(1, 40))):
        parents = draw(st.lists(st.integers(0, at - 1), min_size=1, max_size=2, unique=True))
        plan.append((parents, draw(st.integers(0, 4)), draw(st.floats(0, 50))))
    return plan


def nodes_of(plan: Plan) -> list[Node]:
    rest = [
        node(f"n{at}", *(f"n{parent}" for parent in parents), words=words, uses=uses)
        for at, (parents, words, uses) in enumerate(plan, 1)
    ]
    return [node("n0"), *rest]


@given(plans(), st.integers(1, 30), st.integers(2, 5), st.integers(1, 6), st.integers(1, 6))
def test_the_tree_keeps_every_limit(plan: Plan, size: int, children: int, deepest: int, words: int) -> None:
    limits = Limits(size, most_children=children, deepest=deepest, fewest_words=words)
    tree = Taxonomy(nodes_of(plan)).choose(["n0"], limits)
    keys = [one.node.key for one in tree]
    below = Counter(one.parent for one in tree if one.parent is not None)
    depth: dict[str, int] = {}
    for one in tree:
        assert one.parent is None or one.parent in depth  # a parent stands before its children
        depth[one.node.key] = 1 if one.parent is None else depth[one.parent] + 1
    assert len(set(keys)) == len(keys) <= max(1, size)
    assert all(2 <= n <= children for n in below.values())
    assert max(depth.values()) <= deepest
    assert all(sum(map(len, one.words.values())) <= limits.most_words for one in tree)
    said = [word for one in tree for listed in one.words.values() for word in listed]
    assert len(said) == len(set(said))


@given(plans(), st.randoms(use_true_random=False))
def test_the_order_of_the_source_changes_nothing(plan: Plan, random: Random) -> None:
    nodes = nodes_of(plan)
    shuffled = list(nodes)
    random.shuffle(shuffled)
    assert Taxonomy(nodes).choose(["n0"], loose(10)) == Taxonomy(shuffled).choose(["n0"], loose(10))


def tree_of(*nodes: Node, size: int = 100, **kept: int) -> dict[str, Chosen]:
    return {one.node.key: one for one in Taxonomy(nodes).choose([nodes[0].key], loose(size, **kept))}


def test_what_is_said_more_often_wins() -> None:
    rare, common, dear = node("rare", "top"), node("common", "top", uses=9.0), node("dear", "top", uses=8.0)
    assert set(tree_of(node("top"), rare, common, dear, size=3)) == {"top", "common", "dear"}


def test_a_chain_becomes_one_step_and_its_words_stay() -> None:
    found = tree_of(node("top"), node("mid", "top"), node("a", "mid"), node("b", "mid"), node("c", "top"))
    assert {key: one.parent for key, one in found.items()} == {
        "top": None,
        "a": "mid",
        "b": "mid",
        "mid": "top",
        "c": "top",
    }
    alone = tree_of(node("top"), node("mid", "top"), node("a", "mid"), node("b", "mid"))
    assert {key: one.parent for key, one in alone.items()} == {"top": None, "a": "top", "b": "top"}
    assert alone["top"].words == {"top": ("top 0", "top 1", "top 2"), "mid": ("mid 0", "mid 1", "mid 2")}


def test_words_of_what_was_not_chosen_go_to_the_concept_above() -> None:
    found = tree_of(node("top"), node("a", "top", uses=5.0), node("b", "top", uses=5.0), node("c", "a"), size=3)
    assert set(found["a"].words) == {"a", "c"}


def test_the_parent_nearest_to_a_root_counts_then_the_sources_first() -> None:
    near = (node("a", "top"), node("b", "top"), node("c", "a"), node("d", "a"), node("e", "b"))
    assert tree_of(node("top"), *near, node("x", "c", "b", "a"))["x"].parent == "b"
    assert tree_of(node("top"), *near, node("x", "c", "a", "b"))["x"].parent == "a"


def test_a_root_below_a_root_stands_by_itself() -> None:
    taxonomy = Taxonomy([node("top"), node("a", "top"), node("b", "top"), node("c", "a"), node("d", "a")])
    parents = {one.node.key: one.parent for one in taxonomy.choose(["top", "a"], loose(9))}
    assert parents["a"] is None
    assert parents["c"] == "a"


@pytest.mark.parametrize("roots", [[], ["nowhere"]])
def test_a_root_that_is_not_there_is_named(roots: list[str]) -> None:
    with pytest.raises(UsageError, match=r"no such root: (none named|nowhere); a root is a key"):
        Taxonomy([node("top")]).choose(roots, loose(3))


def test_keys_are_unique() -> None:
    with pytest.raises(ConfigError, match="top stands twice"):
        Taxonomy([node("top"), node("top")])


@pytest.mark.parametrize("wrong", [{"size": 0}, {"most_children": 1}, {"deepest": 0}, {"fewest_words": 0}])
def test_limits_that_cannot_be_kept_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Limits(**({"size": 5} | wrong))


def test_two_concepts_of_one_label_get_two_terms() -> None:
    nodes = [
        node("top"),
        node("a", "top"),
        node("b", "top"),
        node("crane.1", "a", label="crane"),
        node("crane.2", "b", label="crane"),
        node("x", "a"),
        node("y", "b"),
        node("crane.3", "a", label="crane"),
    ]
    pack = pack_of(Taxonomy(nodes).choose(["top"], loose(20)), name="p", version="1", description="", source="s")
    assert {term for term in pack.concepts if "Crane" in term} == {"Crane", "CraneB", "CraneA"}
    assert {concept.level for concept in pack.concepts.values()} == {0, 1, 2}
