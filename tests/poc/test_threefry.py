"""Threefry gives the words of its published known answers, for many counters and keys at once."""

import pytest
import torch

from ftw.poc.threefry import signed, stream, threefry

ONES = 0xFFFFFFFF
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)


def words(*values):
    return [torch.tensor([[signed(value)]], dtype=torch.int32) for value in values]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0, 0, 0), (0x9C6CA96A, 0xE17EAE66, 0xFC10ECD4, 0x5256A7D8)),
        ((ONES,) * 4, (ONES,) * 4, (0x2A881696, 0x57012287, 0xF6C7446E, 0xA16A6732)),
        (PI, (0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89), (0x59CD1DBB, 0xB8879579, 0x86B5D00C, 0xAC8B6D84)),
    ],
)
def test_the_published_known_answers(counter, key, expected):
    got = threefry(torch.cat(words(*key), dim=1), words(*counter))
    assert tuple(int(word) & ONES for word in got) == expected


def test_a_stream_is_threefry_of_running_counters_under_the_seed():
    seed = torch.tensor([[signed(0x9E3779B9 * i) for i in range(1, 9)]], dtype=torch.int32)
    whole = stream(seed, 0, 40)
    for at in (0, 17, 39):
        first = (int(seed[0, 7]) + at) & ONES
        counter = words(first, *(int(word) & ONES for word in seed[0, 4:7]))
        alone = threefry(seed[:, :4], counter)
        assert [int(word[0, at]) for word in whole] == [int(word) for word in alone]


def test_a_part_of_a_stream_and_a_row_among_others_are_the_same_words():
    seeds = torch.arange(24, dtype=torch.int32).view(3, 8) * 40503
    whole = torch.stack(stream(seeds, 0, 50))
    assert torch.equal(torch.stack(stream(seeds, 20, 30)), whole[:, :, 20:30])
    assert torch.equal(torch.stack(stream(seeds[1:2], 0, 50)), whole[:, 1:2])


def test_every_word_of_the_seed_counts():
    seed = torch.zeros(1, 8, dtype=torch.int32)
    plain = torch.stack(stream(seed, 0, 64))
    for word in range(8):
        other = seed.clone()
        other[0, word] = 1 << 20
        assert float((torch.stack(stream(other, 0, 64)) == plain).float().mean()) < 0.01
