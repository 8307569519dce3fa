"""Random 32-bit words from a 256-bit seed, in counter mode: Threefry-4x32 with 20 rounds.

The rule of the file: additions, rotations and xors of 32-bit words only, so every device gives the same bits. Words are
int32 tensors of the same bits, for these wrap by themselves. Source: Salmon et al., "Parallel Random Numbers: As Easy
as 1, 2, 3", 2011 (Random123), whose known answers the tests hold.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

ROUNDS = 20
ROTATIONS = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))
PARITY = 0x1BD11BDA
LANES = 4
"""Words per counter."""


def signed(word: int) -> int:
    """The int32 with the bits of this unsigned word."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >> 31 else word


def threefry(key: Int[Tensor, "row 4"], counter: Sequence[Int[Tensor, "..."]]) -> list[Int[Tensor, "row n"]]:
    """The four words of each counter under each row's key (int32 bits). Counters broadcast."""
    schedule = _schedule(key)
    shape = torch.broadcast_tensors(key[:, :1], *counter)[0].shape  # type: ignore[no-untyped-call]
    x = [(word + part).expand(shape).contiguous() for word, part in zip(counter, schedule[:LANES], strict=True)]
    spare = torch.empty_like(x[0])
    for turn in range(ROUNDS):
        first, second = ROTATIONS[turn % 8]
        one, other = (1, 3) if turn % 2 == 0 else (3, 1)
        _mix(x[0], x[one], first, spare)
        _mix(x[2], x[other], second, spare)
        if turn % 4 == 3:
            step = turn // 4 + 1
            for lane in range(LANES):
                x[lane].add_(schedule[(step + lane) % 5])
            x[3].add_(step)
    return x


def stream(seeds: Int[Tensor, "row 8"], start: int, stop: int) -> list[Int[Tensor, "row n"]]:
    """The words of counters start..stop-1 of each seed's stream, as four tensors.

    Words 0..3 of a seed are the key, words 4..6 the last three of the counter; word 7 is added to the running first.
    """
    running = torch.arange(start, stop, dtype=torch.int32, device=seeds.device)
    return threefry(seeds[:, :4], [running + seeds[:, 7:8], seeds[:, 4:5], seeds[:, 5:6], seeds[:, 6:7]])


def _schedule(key: Int[Tensor, "row 4"]) -> list[Int[Tensor, "row 1"]]:
    parts = [key[:, at : at + 1] for at in range(LANES)]
    return [*parts, parts[0] ^ parts[1] ^ parts[2] ^ parts[3] ^ PARITY]


def _mix(a: Tensor, b: Tensor, by: int, spare: Tensor) -> None:
    """a += b; b = rotl(b, by) ^ a. int32 shifts bring the sign in: it is masked away."""
    a.add_(b)
    torch.bitwise_right_shift(b, 32 - by, out=spare)
    spare.bitwise_and_((1 << by) - 1)
    b.bitwise_left_shift_(by).bitwise_or_(spare).bitwise_xor_(a)
