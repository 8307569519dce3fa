"""A first proof: eight vectors of a round, made twice in different company, and once by a cheaper copy of the model.

What must hold: the same model gives the same bits whatever its batches look like, and a model in four bits gives
others. No network, no service.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float16
from torch import Tensor
from torch.func import functional_call

from ftw.poc.codec import Artifact, encode
from ftw.poc.forward import ROWS, Prover, Round, fingerprint_for
from ftw.poc.profiles import ARTIFACT_K12, Profile
from ftw.poc.readout import chord
from ftw.poc.reflections import LayerVectors
from ftw.poc.verify import StatTest, Verdict, validate
from ftw.substrate.errors import ConfigError
from ftw.substrate.model import Model

SEQ_LEN = 256
CHEAT_BYTES = 2 << 30
"""The cheaper copy holds as many blocks, from the first on, as fit into this much memory (one at least)."""


@dataclass(frozen=True, slots=True)
class Check:
    """Another computation of the same nonces, measured against the first."""

    what: str
    distances: tuple[float, ...]
    """L2 distance per nonce, in the order of the nonces."""
    max_abs_difference: float
    """The largest difference of one coordinate, after rounding to binary16."""
    identical: bool
    """Whether every vector is equal to the last bit."""
    verdict: Verdict
    """What a validator says of the vectors as a prover's claim."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What `hello` found."""

    model: str
    fingerprint: str
    profile: str
    device: str
    dtype: str
    block_hash: str
    public_key: str
    seq_len: int
    k_dim: int
    rows: int
    artifacts: tuple[Artifact, ...]
    recomputed: Check
    """The same model, the nonces in another order and beside other rows."""
    cheaper: Check
    """The same weights rounded to four bits: what a node might run to save memory."""
    seconds: float
    """Time of the first computation, inputs to encoded vectors."""
    total_seconds: float

    @property
    def nonces_per_second(self) -> float:
        """Of the first computation."""
        return len(self.artifacts) / self.seconds

    @property
    def ok(self) -> bool:
        """The honest recomputation agrees to the last bit, and the cheaper copy is told apart."""
        return self.recomputed.identical and self.cheaper.verdict.fraud_detected

    def record(self) -> dict[str, Any]:
        """The whole result as plain JSON values, units in the names."""
        return {
            "ok": self.ok,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "profile": self.profile,
            "device": self.device,
            "dtype": self.dtype,
            "block_hash": self.block_hash,
            "public_key": self.public_key,
            "seq_len": self.seq_len,
            "k_dim": self.k_dim,
            "rows_per_forward": self.rows,
            "artifacts": [{"nonce": one.nonce, "vector_b64": one.vector_b64} for one in self.artifacts],
            "recomputed": _check_record(self.recomputed),
            "cheaper": _check_record(self.cheaper),
            "seconds": self.seconds,
            "total_seconds": self.total_seconds,
            "nonces_per_second": self.nonces_per_second,
        }


def hello(
    model: Model,
    *,
    n: int = 8,
    profile: Profile = ARTIFACT_K12,
    block_hash: str | None = None,
    public_key: str = "hello",
    seq_len: int | None = None,
    rows: int = ROWS,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int, int], None] | None = None,
) -> Hello:
    """Proves a round of n nonces, recomputes it in other batches and with a cheaper copy, and judges both.

    A fresh random `block_hash` is drawn where none is given. `seq_len` is 256, or the model's context if that is less;
    k is the profile's, or the model's width if that is less. `progress` is told (steps done, steps) after each step.
    Raises ConfigError for n below 1; otherwise like `Prover`.
    """
    if n < 1:
        raise ConfigError(f"n is {n}: a proof needs 1 nonce or more")
    told = progress or (lambda _done, _all: None)
    began = clock()
    length = min(SEQ_LEN, model.context) if seq_len is None else seq_len
    k = min(profile.k_dim, model.d_model)
    round_ = Round(
        block_hash or secrets.token_hex(32), public_key, profile, length, k, fingerprint=fingerprint_for(model, profile)
    )
    layers = LayerVectors()
    prover = Prover(model, round_, rows, layers)
    nonces = list(range(n))
    start = clock()
    claim = prover.vectors(nonces)
    made = tuple(Artifact(*pair) for pair in zip(nonces, encode(claim), strict=True))
    seconds = clock() - start
    told(1, 3)
    again = _regrouped(prover, n)
    told(2, 3)
    blocks, weights = four_bits(model)
    cheat = _with_weights(prover, weights, nonces)
    told(3, 3)
    return Hello(
        model=model.name,
        fingerprint=model.fingerprint,
        profile=profile.id,
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        block_hash=round_.block_hash,
        public_key=public_key,
        seq_len=length,
        k_dim=k,
        rows=rows,
        artifacts=made,
        recomputed=_check("the same model, other batches", claim, again),
        cheaper=_check(f"blocks 0..{blocks - 1} of {model.n_layers} in 4 bits", cheat, claim),
        seconds=seconds,
        total_seconds=clock() - began,
    )


def four_bits(model: Model) -> tuple[int, dict[str, Tensor]]:
    """The matrices of the first blocks rounded to 4 bits (absmax per 32 inputs), by parameter name; how many blocks."""
    prefix = {id(parameter): name for name, parameter in model.net.base_model.named_parameters()}
    weights: dict[str, Tensor] = {}
    room = CHEAT_BYTES
    for count, block in enumerate(model.arch.blocks):
        mine = [p for p in block.parameters() if p.ndim >= 2 and p.is_floating_point() and id(p) in prefix]
        room -= sum(p.numel() * p.element_size() for p in mine)
        if room < 0 and count:
            return count, weights
        weights.update({prefix[id(p)]: _rounded(p.detach()) for p in mine})
    return len(model.arch.blocks), weights


def _rounded(weight: Tensor) -> Tensor:
    """Symmetric 4-bit rounding in groups of 32 along the last axis (the whole axis where 32 does not divide it)."""
    group = 32 if weight.shape[-1] % 32 == 0 else weight.shape[-1]
    grouped = weight.float().reshape(*weight.shape[:-1], -1, group)
    scale = grouped.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 7.0
    rounded: Tensor = (grouped / scale).round() * scale
    return rounded.reshape(weight.shape).to(weight.dtype)


def _regrouped(prover: Prover, n: int) -> Float16[Tensor, "n k"]:
    """The vectors of 0..n-1 again: last nonce first, in two calls, so that rows, neighbours and dummies differ."""
    order = list(reversed(range(n)))
    half = (n + 1) // 2
    vectors = torch.cat([prover.vectors(order[:half]), prover.vectors(order[half:])])
    return vectors.flip(0)


def _with_weights(prover: Prover, weights: Mapping[str, Tensor], nonces: list[int]) -> Float16[Tensor, "n k"]:
    """The vectors that the model gives with some of its weights replaced for the time of the call."""

    class Cheaper(Prover):
        def _run(self, embeddings: Tensor) -> Tensor:
            given = {"inputs_embeds": embeddings, "use_cache": False}
            output: Any = functional_call(self.model.net.base_model, dict(weights), args=(), kwargs=given)
            hidden: Tensor = output.last_hidden_state
            return hidden

    return Cheaper(prover.model, prover.round, prover.rows, prover.layers).vectors(nonces)


def _check(what: str, claim: Float16[Tensor, "n k"], truth: Float16[Tensor, "n k"]) -> Check:
    """`claim` judged by a validator that computed `truth`."""
    artifacts = [Artifact(nonce, text) for nonce, text in enumerate(encode(claim))]
    mine = truth.numpy()
    verdict = validate(range(len(claim)), artifacts, claim.shape[1], lambda asked: [mine[i] for i in asked], StatTest())
    return Check(
        what=what,
        distances=tuple(chord(claim, truth).tolist()),
        max_abs_difference=float((claim.float() - truth.float()).abs().max()),
        identical=torch.equal(claim, truth),
        verdict=verdict,
    )


def _check_record(check: Check) -> dict[str, Any]:
    verdict = check.verdict
    return {
        "what": check.what,
        "distances_l2": list(check.distances),
        "max_abs_difference": check.max_abs_difference,
        "identical": check.identical,
        "n_total": verdict.n_total,
        "n_mismatch": verdict.n_mismatch,
        "mismatch_nonces": list(verdict.mismatch_nonces),
        "p_value": verdict.p_value,
        "fraud_detected": verdict.fraud_detected,
        "dist_threshold_l2": verdict.test.dist_threshold,
        "p_mismatch": verdict.test.p_mismatch,
        "fraud_threshold": verdict.test.fraud_threshold,
    }
