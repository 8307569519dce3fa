"""Seeds and hashes are integers, equal on every machine to those of the public reference."""

import json
from pathlib import Path

import pytest
import torch

from ftw.poc.seeds import SeedStrings, mix, mix_index, seed32, seed_tensor, seed_words

GOLDEN = json.loads((Path(__file__).parents[1] / "data/poc/poc_reference_vectors.json").read_text())
STRINGS = SeedStrings("block_alpha", "node_A")


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['block_hash']}-{case['public_key']}")
def test_input_seeds_equal_the_reference(case):
    strings = SeedStrings(case["block_hash"], case["public_key"])
    assert [seed32(strings.inputs(nonce)) for nonce in case["nonces"]] == case["input_seeds"]


def test_every_kind_of_seed_string_equals_the_reference():
    assert seed32(STRINGS.inputs(0)) == 0x0D11E7C0
    assert seed32(STRINGS.inputs(1)) == 0x3A493D8C
    assert seed32(STRINGS.layer(0)) == 0xF82800AF
    assert seed32(STRINGS.pick(0, 12)) == 0x4B63CB2B
    assert seed32(STRINGS.chain(0, 12)[0]) == 0xBE5EA55F
    assert seed32(STRINGS.target()) == 0x7CBB1599
    assert len(STRINGS.chain(0, 12)) == 11


def test_the_eight_words_of_a_digest_equal_the_reference():
    expected = (0x0D11E7C0, 0x9D03F9B3, 0x93F3B70C, 0x544A13DC, 0x901848A9, 0xF23261B0, 0x23CAD7DA, 0xE20C4525)
    assert seed_words(STRINGS.inputs(0)) == expected
    assert seed_words("x")[0] == seed32("x")


def test_the_hash_equals_the_reference():
    got = mix(torch.arange(4), torch.tensor(0x0D11E7C0)).tolist()
    assert got == [0xC8921CAF, 0x520B1D87, 0xDBBECA62, 0xC8A88389]


def test_the_hash_leaves_out_the_length_xor_of_murmur3():
    assert int(mix(torch.tensor(0), torch.tensor(0))) == 0xFF19274A  # a library's murmur3 of 00000000 gives 2362F9DE


def test_the_hash_agrees_with_plain_integers():
    def rotl(x: int, r: int) -> int:
        return ((x << r) | (x >> (32 - r))) & 0xFFFFFFFF

    def plain(index: int, seed: int) -> int:
        a = rotl(index * 0xCC9E2D51 & 0xFFFFFFFF, 15) * 0x1B873593 & 0xFFFFFFFF
        b = (rotl(seed ^ a, 13) * 5 + 0xE6546B64) & 0xFFFFFFFF
        b = (b ^ b >> 16) * 0x85EBCA6B & 0xFFFFFFFF
        b = (b ^ b >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
        return b ^ b >> 16

    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, 2**32, (500,), generator=generator)
    seed = torch.randint(0, 2**32, (500,), generator=generator)
    assert mix(index, seed).tolist() == [plain(i, s) for i, s in zip(index.tolist(), seed.tolist(), strict=True)]


def test_the_hash_never_ties_under_one_seed():
    assert mix(torch.arange(1 << 16), torch.tensor(7)).unique().numel() == 1 << 16


def test_the_hash_of_an_index_is_part_of_the_whole():
    assert int(mix_index(torch.tensor(0))) == 0


def test_seed_tensor_holds_the_seed_of_each_text():
    assert seed_tensor(["a", "b"]).tolist() == [seed32("a"), seed32("b")]
