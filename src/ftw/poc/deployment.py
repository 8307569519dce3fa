"""What this server proves: which model, under which names, at which length and k, by which profile.

The rule of the file: a request that asks for something else is refused with both sides, never fitted.
"""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ftw.poc.forward import Round
from ftw.poc.jobs import Identity
from ftw.poc.profiles import Profile, profile
from ftw.poc.records import RoundKey
from ftw.substrate.config import PocSettings
from ftw.substrate.errors import ConfigError, ParamsMismatch, PromptTooLong
from ftw.substrate.model import Model


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployed model and the constants of its proofs."""

    names: tuple[str, ...]
    """Names that requests may give the model; the first is the one that answers show."""
    seq_len: int
    k_dim: int
    profile: Profile
    rows: int
    """Nonces per forward pass: a constant, for it decides bits."""
    fingerprint: str
    """SHA-256 of the weights."""

    @classmethod
    def of(cls, model: Model, settings: PocSettings) -> "Deployment":
        """The deployment of a loaded model: its spec's name, the last part of that, and its short name.

        Raises ConfigError for an unknown profile or a k that the model does not have, PromptTooLong for a length.
        """
        chosen = profile(settings.profile)
        k_dim = settings.k_dim or chosen.k_dim
        if settings.seq_len > model.context:
            raise PromptTooLong(f"POC_SEQ_LEN is {settings.seq_len}, and {model.name} takes {model.context} at most")
        if not 2 <= k_dim <= model.d_model:
            raise ConfigError(f"POC_K_DIM is {k_dim}: {model.name} has 2 to {model.d_model} dimensions to read")
        names = dict.fromkeys((model.spec.name, PurePath(model.spec.name).name or model.name, model.name))
        return cls(tuple(names), settings.seq_len, k_dim, chosen, settings.forward_rows, model.fingerprint)

    @property
    def deployed(self) -> dict[str, Any]:
        """What a request has to ask for, as the wire's `params`."""
        return {"model": self.names[0], "seq_len": self.seq_len, "k_dim": self.k_dim}

    def check(self, model: str, seq_len: int, k_dim: int) -> None:
        """Raises ParamsMismatch, with both sides, unless this is what is deployed."""
        if model not in self.names or seq_len != self.seq_len or k_dim != self.k_dim:
            deployed = self.deployed | ({"model": model} if model in self.names else {})
            raise ParamsMismatch({"model": model, "seq_len": seq_len, "k_dim": k_dim}, deployed)

    def round(self, block_hash: str, public_key: str, *, stronger_rng: bool = False) -> Round:
        """The round of this block and key. Raises ConfigError for a switch that the profile does not have."""
        bound = self.fingerprint if self.profile.seeds == "bound-256" else ""
        return Round(block_hash, public_key, self.profile, self.seq_len, self.k_dim, stronger_rng, bound)

    def key(self, who: Identity) -> RoundKey:
        """The key by which the journal knows this round."""
        return RoundKey(
            block_hash=who.block_hash,
            block_height=who.block_height,
            public_key=who.public_key,
            node_id=who.node_id,
            node_count=who.node_count,
            group_id=who.group_id,
            n_groups=who.n_groups,
            profile=self.profile.id,
            fingerprint=self.fingerprint,
            seq_len=self.seq_len,
            k_dim=self.k_dim,
            rows=self.rows,
            stronger_rng=who.stronger_rng,
            url=who.url,
        )
