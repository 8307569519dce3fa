"""Which artifacts a validator recomputes: indices drawn without replacement from a seed that came after the commitment.

Everything is integers and SHA-256, so that a sample can be repeated in any language:

1. seed      = SHA-256("ftw.poc.sample.seed/1" || for each part: its length as 8 bytes, then the part), where the parts
               are the later randomness, the committed roots in order of sequence, and the validator's name in UTF-8.
2. stream    = words of 8 bytes: block j, from 0 on, is SHA-256("ftw.poc.sample/1" || seed || j as 8 bytes), four words.
3. draw(m)   = the next word w with w < 2^64 - (2^64 mod m), modulo m. Larger words are dropped, which keeps it fair.
4. sample    = the first `size` places of a list 0, 1, … n-1 shuffled so: for i = 0, 1, …, swap place i with place
               i + draw(n - i).
5. stratified: u = draw(N) from the stream of the seed, N artifacts in all; batch b, which ends before artifact C_b of
               the concatenation, gives floor((size C_b + u) / N) - floor((size C_(b-1) + u) / N) of them, chosen by
               step 4 with n = the batch's count and the seed SHA-256("ftw.poc.sample.stratum/1" || seed || b).

All integers are little-endian and unsigned; b counts from 0. The rule of the file: every artifact is equally likely,
and nobody who committed before the seed was known can tell which.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ftw.substrate.errors import ConfigError

SEED_TAG = b"ftw.poc.sample.seed/1"
STREAM_TAG = b"ftw.poc.sample/1"
STRATUM_TAG = b"ftw.poc.sample.stratum/1"
MOST = 1 << 53
"""More artifacts than this are no population."""


class Pick(NamedTuple):
    """One sampled artifact of several batches."""

    batch: int
    """Which of the batches, from 0 on."""
    leaf: int
    """Which leaf of that batch, from 0 on."""


def seed_of(randomness: bytes, roots: Sequence[bytes] = (), validator: str = "") -> bytes:
    """The 32-byte seed of a sample, from what nobody knew when the roots were signed (a later block's hash).

    The roots bind the seed to the commitments: changing one artifact draws another sample. Validators with different
    names draw different samples. Raises ConfigError for no randomness.
    """
    if not randomness:
        raise ConfigError("the seed of a sample is empty: give bytes that came after the commitment, as a block's hash")
    digest = hashlib.sha256(SEED_TAG)
    for part in (randomness, *roots, validator.encode("utf-8")):
        digest.update(_word(len(part)) + part)
    return digest.digest()


def sample(seed: bytes, n: int, size: int) -> tuple[int, ...]:
    """`size` different indices of 0..n-1, each set equally likely, in the order drawn.

    Raises ConfigError where there are not so many.
    """
    _require(n, size)
    words = _words(seed)
    moved: dict[int, int] = {}  # the places of the list that no longer hold their own number
    drawn = []
    for i in range(size):
        j = i + _draw(words, n - i)
        drawn.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return tuple(drawn)


def stratified(seed: bytes, counts: Sequence[int], size: int) -> tuple[Pick, ...]:
    """`size` different artifacts of several batches: each gives its share, rounded down or up by the seed.

    Every artifact is equally likely, and a batch that holds a part 1/size of all of them or more is never left out.
    Raises ConfigError where there are not so many, or a batch is empty.
    """
    if any(count < 1 for count in counts):
        raise ConfigError("a batch without artifacts has no share in a sample: leave it out")
    n = sum(counts)
    _require(n, size)
    offset = _draw(_words(seed), n)
    picks: list[Pick] = []
    end = taken = 0
    for which, count in enumerate(counts):
        end += count
        share = (size * end + offset) // n - taken
        inner = hashlib.sha256(STRATUM_TAG + seed + _word(which)).digest()
        picks.extend(Pick(which, leaf) for leaf in sample(inner, count, share))
        taken += share
    return tuple(picks)


def _require(n: int, size: int) -> None:
    if not 0 <= size <= n <= MOST:
        raise ConfigError(f"a sample of {size} from {n} cannot be drawn without replacement: ask for 0 to {n}")


def _words(seed: bytes) -> Iterator[int]:
    """The stream of 64-bit words of a seed. Does not end."""
    counter = 0
    while True:
        block = hashlib.sha256(STREAM_TAG + seed + _word(counter)).digest()
        yield from (int.from_bytes(block[at : at + 8], "little") for at in range(0, 32, 8))
        counter += 1


def _draw(words: Iterator[int], m: int) -> int:
    """A number in 0..m-1, each equally likely."""
    limit = (1 << 64) - (1 << 64) % m
    return next(word for word in words if word < limit) % m


def _word(number: int) -> bytes:
    return number.to_bytes(8, "little")
