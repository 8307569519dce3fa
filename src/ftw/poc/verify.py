"""Judges claimed vectors against recomputed ones: per-nonce reasons, distances, a binomial test, a verdict.

The rule of the file: whatever cannot be compared is a mismatch with a reason, found before a forward pass is spent on
it, and the verdict counts what was asked for, not what was delivered.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ftw.poc.binomial import log_tail
from ftw.poc.codec import Artifact, Fault, Half, read
from ftw.substrate.errors import ConfigError

Reason = Fault | Literal["duplicate", "distance"]
"""Why a nonce is a mismatch: a fault of its text, more than one claim for it, or too far from what was recomputed."""


@dataclass(frozen=True, slots=True)
class StatTest:
    """The parameters of a verdict. Raises ConfigError for values that no test can be made with."""

    dist_threshold: float = 0.02
    """Distance above which a claimed vector is a mismatch. Depends on model and hardware: calibrate it."""
    p_mismatch: float = 0.001
    """How often an honest node mismatches at that threshold."""
    fraud_threshold: float = 0.01
    """The verdict is fraud where the p-value is below this."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.dist_threshold <= 2.0:  # a NaN fails all three
            raise ConfigError(f"dist_threshold is {self.dist_threshold}: distances of unit vectors lie in 0..2")
        if not 0.0 < self.p_mismatch < 1.0:
            raise ConfigError(f"p_mismatch is {self.p_mismatch}: it must lie between 0 and 1, both excluded")
        if not 0.0 < self.fraud_threshold < 1.0:
            raise ConfigError(f"fraud_threshold is {self.fraud_threshold}: it must lie between 0 and 1, both excluded")


@dataclass(frozen=True, slots=True)
class Claims:
    """Claims sorted before any forward pass: those that can be compared, and those that already failed."""

    asked: tuple[int, ...]
    vectors: Mapping[int, Half]
    faults: Mapping[int, Reason]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One nonce that failed. `distance` is None where there was nothing to measure."""

    nonce: int
    reason: Reason
    distance: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a validation found, with the parameters that it was judged by."""

    n_total: int
    n_mismatch: int
    mismatches: tuple[Mismatch, ...]
    """In the order in which the nonces were asked for."""
    distances: Mapping[int, float]
    """Of every nonce that was compared."""
    p_value: float
    """P(at least so many mismatches from an honest node). 1 where nothing was asked."""
    log_p_value: float
    """The same in nats: it does not underflow."""
    fraud_detected: bool
    test: StatTest

    @property
    def mismatch_nonces(self) -> tuple[int, ...]:
        """Which nonces failed."""
        return tuple(one.nonce for one in self.mismatches)


def sort_claims(asked: Sequence[int], claimed: Sequence[Artifact], k: int) -> Claims:
    """Reads every claim and names what is wrong with it; no forward pass is needed for that.

    Raises ConfigError where a nonce is asked for twice or a claim is for a nonce that was not asked for: then the
    request is wrong, not the prover.
    """
    twice = sorted(nonce for nonce, times in Counter(asked).items() if times > 1)
    if twice:
        raise ConfigError(f"nonces {twice[:5]} are asked for more than once: each counts once in a verdict")
    strange = sorted({one.nonce for one in claimed} - set(asked))
    if strange:
        raise ConfigError(f"there are claims for nonces {strange[:5]}, which were not asked for")
    times = Counter(one.nonce for one in claimed)
    texts = {one.nonce: one.vector_b64 for one in claimed}
    vectors: dict[int, Half] = {}
    faults: dict[int, Reason] = {}
    for nonce in asked:
        if times[nonce] > 1:
            faults[nonce] = "duplicate"
            continue
        found = read(texts.get(nonce), k)
        if isinstance(found, str):
            faults[nonce] = found
        else:
            vectors[nonce] = found
    return Claims(tuple(asked), vectors, faults)


def distance(a: Half, b: Half) -> float:
    """The L2 distance of two vectors, both in binary16, computed in fp32."""
    return float(np.linalg.norm(a.astype(np.float32) - b.astype(np.float32)))


def judge(claims: Claims, computed: Mapping[int, Half], test: StatTest) -> Verdict:
    """The verdict on sorted claims, given the vectors recomputed for those that can be compared.

    Raises ConfigError where one of these is not in `computed`: a nonce that was not recomputed may not pass.
    """
    absent = sorted(claims.vectors.keys() - computed.keys())
    if absent:
        raise ConfigError(f"nonces {absent[:5]} were not recomputed: without that there is no verdict on them")
    distances = {nonce: distance(vector, computed[nonce]) for nonce, vector in claims.vectors.items()}
    mismatches = []
    for nonce in claims.asked:
        if nonce in claims.faults:
            mismatches.append(Mismatch(nonce, claims.faults[nonce], None))
        elif not distances[nonce] <= test.dist_threshold:  # written so that a NaN would not pass
            mismatches.append(Mismatch(nonce, "distance", distances[nonce]))
    total = len(claims.asked)
    log_p = log_tail(len(mismatches), total, test.p_mismatch)
    return Verdict(
        n_total=total,
        n_mismatch=len(mismatches),
        mismatches=tuple(mismatches),
        distances=distances,
        p_value=math.exp(log_p),
        log_p_value=log_p,
        fraud_detected=log_p < math.log(test.fraud_threshold),
        test=test,
    )


def validate(
    asked: Sequence[int],
    claimed: Sequence[Artifact],
    k: int,
    recompute: Callable[[Sequence[int]], Sequence[Half]],
    test: StatTest | None = None,
) -> Verdict:
    """Sorts the claims, recomputes only those that can be compared, and judges."""
    claims = sort_claims(asked, claimed, k)
    nonces = list(claims.vectors)
    vectors = recompute(nonces) if nonces else ()
    return judge(claims, dict(zip(nonces, vectors, strict=True)), test or StatTest())
