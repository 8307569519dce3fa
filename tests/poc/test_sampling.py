"""Samples are drawn without replacement, evenly, and in one way that others can repeat."""

import hashlib
import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.poc.sampling import Pick, sample, seed_of, stratified
from ftw.substrate.errors import ConfigError

SEED = seed_of(bytes.fromhex("00000000000000000001"), [b"r" * 32], "val")


def test_the_golden_values_stand():
    assert SEED.hex() == "bf2ed3028011210b8880c2fb6b572be8da4af3ef69d422a1ffb634564132ac04"
    assert seed_of(b"\0").hex() == "11e3713092cdeea99ae74815df7c7654dd2021065cf6371beb6710e164a25598"
    assert sample(SEED, 100, 10) == (75, 97, 58, 90, 55, 59, 32, 0, 54, 62)
    assert sample(SEED, 1 << 40, 3) == (160194051635, 188944531411, 662452346446)
    assert sample(bytes(32), 10, 10) == (9, 0, 1, 2, 5, 7, 3, 6, 4, 8)
    assert stratified(SEED, [1, 5, 10, 84], 8) == tuple(
        Pick(*pair) for pair in [(1, 0), (2, 8), (3, 60), (3, 62), (3, 58), (3, 18), (3, 6), (3, 56)]
    )


class Plain:
    """The five steps as the module's text spells them, on whole lists."""

    def __init__(self, seed):
        blocks = (hashlib.sha256(b"ftw.poc.sample/1" + seed + j.to_bytes(8, "little")).digest() for j in range(9999))
        self.words = (int.from_bytes(block[8 * i : 8 * i + 8], "little") for block in blocks for i in range(4))

    def draw(self, m):
        while True:
            word = next(self.words)
            if word < 2**64 - 2**64 % m:
                return word % m

    def sample(self, n, size):
        places = list(range(n))
        for i in range(size):
            j = i + self.draw(n - i)
            places[i], places[j] = places[j], places[i]
        return tuple(places[:size])


@given(st.binary(min_size=32, max_size=32), st.integers(0, 60), st.data())
def test_a_sample_is_the_plain_shuffle(seed, n, draw):
    size = draw.draw(st.integers(0, n))
    found = sample(seed, n, size)
    assert found == Plain(seed).sample(n, size)
    assert len(set(found)) == size
    assert all(0 <= i < n for i in found)


@given(st.binary(min_size=32, max_size=32), st.lists(st.integers(1, 30), min_size=1, max_size=8), st.data())
def test_each_batch_gives_its_share_rounded_down_or_up(seed, counts, draw):
    n = sum(counts)
    size = draw.draw(st.integers(0, n))
    picks = stratified(seed, counts, size)
    assert len(set(picks)) == len(picks) == size
    given_ = Counter(pick.batch for pick in picks)
    for which, count in enumerate(counts):
        assert size * count // n <= given_[which] <= -(-size * count // n)
    assert all(0 <= pick.leaf < counts[pick.batch] for pick in picks)


def test_every_set_is_equally_likely():
    drawn = Counter(frozenset(sample(i.to_bytes(32, "big"), 5, 2)) for i in range(4000))
    expected = 4000 / 10
    assert set(drawn) == {frozenset(pair) for pair in itertools.combinations(range(5), 2)}
    assert sum((count - expected) ** 2 / expected for count in drawn.values()) < 27.9  # chi-squared, 9 df, p = 0.001


def test_every_artifact_of_every_batch_is_equally_likely():
    drawn = Counter(pick for i in range(4000) for pick in stratified(i.to_bytes(32, "big"), [1, 2, 5], 3))
    expected = 4000 * 3 / 8
    assert len(drawn) == 8
    assert all(abs(count - expected) < 4.5 * (expected * 5 / 8) ** 0.5 for count in drawn.values())


def test_randomness_roots_and_validator_each_draw_another_seed():
    seeds = {
        seed_of(b"a"), seed_of(b"b"), seed_of(b"a", [b"r"]), seed_of(b"a", [b"r", b"s"]), seed_of(b"a", [b"rs"]),
        seed_of(b"a", [b"r"], "v"), seed_of(b"a", [], "v"), seed_of(b"ar"),
    }  # fmt: skip
    assert len(seeds) == 8


@pytest.mark.parametrize(("n", "size"), [(5, 6), (5, -1), (0, 1), ((1 << 53) + 1, 1)])
def test_more_than_there_is_cannot_be_drawn(n, size):
    with pytest.raises(ConfigError, match=f"a sample of {size} from {n} cannot be drawn"):
        sample(SEED, n, size)


def test_strata_together_bound_the_sample():
    with pytest.raises(ConfigError, match="a sample of 4 from 3 cannot be drawn"):
        stratified(SEED, [1, 2], 4)


def test_an_empty_batch_is_an_error():
    with pytest.raises(ConfigError, match="has no share in a sample"):
        stratified(SEED, [1, 0], 1)


def test_a_seed_of_nothing_is_an_error():
    with pytest.raises(ConfigError, match="the seed of a sample is empty"):
        seed_of(b"", [b"r"])
