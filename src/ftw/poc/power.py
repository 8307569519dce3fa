"""How often the binomial test of a verdict flags a node that mismatches at a given rate: false alarms and power.

The rule of the file: exact, from the binomial's tail; nothing is drawn.
"""

import math

from ftw.poc.binomial import log_tail, tail
from ftw.substrate.errors import ConfigError


def reject_from(n: int, p_mismatch: float, cutoff: float) -> int:
    """The fewest mismatches of n that make a verdict fraud: p-value below the cutoff. n + 1 where none do.

    Raises ConfigError for an n below 1 and for a probability that is not between 0 and 1.
    """
    if n < 1:
        raise ConfigError(f"a test of {n} nonces cannot be made: check at least 1")
    for name, value in (("p_mismatch", p_mismatch), ("the p cutoff", cutoff)):
        if not 0.0 < value < 1.0:  # a NaN fails this too
            raise ConfigError(f"{name} is {value}: it must lie between 0 and 1, both excluded")
    low, high = 0, n + 1  # the tail falls in m; m = 0 has tail 1 and never rejects
    while high - low > 1:
        middle = (low + high) // 2
        if log_tail(middle, n, p_mismatch) < math.log(cutoff):
            high = middle
        else:
            low = middle
    return high


def flagged(n: int, p_mismatch: float, cutoff: float, rate: float) -> float:
    """P(fraud) for a node whose nonces mismatch at `rate`: power for a cheat, false alarms for an honest node."""
    least = reject_from(n, p_mismatch, cutoff)
    return tail(least, n, rate) if least <= n else 0.0


def mixed(honest: float, cheat: float, share: float) -> float:
    """The mismatch rate of a node that cheats on a share of its nonces."""
    return (1.0 - share) * honest + share * cheat
