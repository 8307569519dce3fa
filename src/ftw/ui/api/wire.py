"""The proof API's requests as they come in, field by field, and what they ask of the service.

The rule of the file: strict types, no unknown keys, bounds on every number. The names are those of the network's
artifact API, with the few keys that its live clients send beyond it.
"""

from collections import Counter
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ftw.poc.codec import Artifact
from ftw.poc.deployment import Deployment
from ftw.poc.jobs import MAX_BATCH, MAX_INT, MAX_NODES, Ask, Start
from ftw.poc.verify import StatTest
from ftw.substrate.errors import ConfigError, ParamsMismatch
from ftw.ui.api.problems import NotMatching

Name = Annotated[str, Field(min_length=1, max_length=1024)]
Whole = Annotated[int, Field(ge=0, le=MAX_INT)]
USUAL = StatTest()
"""The parameters of a verdict where a request names none."""
DEFAULT_K = 12
"""`params.k_dim` where a request has none."""
GENERATE_BATCH = 20
"""`batch_size` where a `/generate` request has none."""


class Wire(BaseModel):
    """The base of all requests: frozen, strict, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Params(Wire):
    """What the request believes is deployed."""

    model: Name
    seq_len: int = Field(ge=1, le=MAX_INT)
    k_dim: int = Field(DEFAULT_K, ge=1, le=MAX_INT)
    decode: bool = False
    """Of another scheme, where the proof is a decoding. True is refused with what is deployed."""
    max_tokens: int | None = Field(None, ge=0, le=MAX_INT)
    """Of the same scheme. Any number is refused."""

    def check(self, deployment: Deployment) -> None:
        """Raises ParamsMismatch, with both sides, unless this is what is deployed."""
        if not self.decode and self.max_tokens is None:
            deployment.check(self.model, self.seq_len, self.k_dim)
            return
        scheme = {"decode": self.decode} | ({} if self.max_tokens is None else {"max_tokens": self.max_tokens})
        requested = {"model": self.model, "seq_len": self.seq_len, "k_dim": self.k_dim} | scheme
        raise NoSuchScheme(requested, deployment.deployed | {"schemes": schemes(deployment)})


class NoSuchScheme(ParamsMismatch):
    """A proof of another scheme is asked for than those deployed."""

    def __str__(self) -> str:
        there = ", ".join(self.deployed["schemes"])
        return f"proofs by decoding are not deployed here (deployed: {there}): leave out decode and max_tokens"


def schemes(deployment: Deployment) -> list[str]:
    """The schemes that a deployment proves by, as `/versions` lists them."""
    return [f"prefill:{deployment.profile.id}"]


class RoundRequest(Wire):
    """What every request says about the round."""

    block_hash: Name
    block_height: Whole
    public_key: Name
    node_id: int = Field(ge=0, lt=MAX_NODES)
    node_count: int = Field(ge=1, le=MAX_NODES)
    group_id: int = Field(0, ge=0, lt=MAX_NODES)
    """Which of the replicas behind one node this is; the node's proxy sends it."""
    n_groups: int = Field(1, ge=1, le=MAX_NODES)
    params: Params
    batch_size: int | None = Field(None, ge=1, le=MAX_BATCH)
    url: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    """Base of the callbacks: `/generated` and `/validated` are added to it."""
    poc_stronger_rng: bool = False

    @model_validator(mode="after")
    def _numbers_fit(self) -> "RoundRequest":
        if self.node_id >= self.node_count:
            raise ValueError(f"node_id is {self.node_id} and node_count {self.node_count}: nodes count from 0")
        if self.group_id >= self.n_groups:
            raise ValueError(f"group_id is {self.group_id} and n_groups {self.n_groups}: groups count from 0")
        return self

    def identity(self, batch_size: int) -> dict[str, Any]:
        """The fields that a start and an ask share."""
        return {
            "block_hash": self.block_hash,
            "block_height": self.block_height,
            "public_key": self.public_key,
            "node_id": self.node_id,
            "node_count": self.node_count,
            "group_id": self.group_id,
            "n_groups": self.n_groups,
            "batch_size": batch_size if self.batch_size is None else self.batch_size,
            "url": self.url,
            "stronger_rng": self.poc_stronger_rng,
        }


class InitRequest(RoundRequest):
    """`POST /init/generate`: a round to generate until it is stopped."""

    def start(self, batch_size: int) -> Start:
        """The round. `batch_size` stands in where the request has none."""
        return Start(**self.identity(batch_size))


class ClaimedArtifact(Wire):
    """One claim. A vector that is missing or wrong in itself is a mismatch with a reason, not a bad request."""

    nonce: Whole
    vector_b64: str | None = None


class Validation(Wire):
    """What is to be validated."""

    artifacts: list[ClaimedArtifact]


class StatTestRequest(Wire):
    """The parameters of the verdict. `p_value_threshold` is the live network's name of `fraud_threshold`."""

    dist_threshold: float = Field(USUAL.dist_threshold, ge=0, le=2)
    p_mismatch: float = Field(USUAL.p_mismatch, gt=0, lt=1)
    fraud_threshold: float | None = Field(None, gt=0, lt=1)
    p_value_threshold: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="after")
    def _says_one_thing(self) -> "StatTestRequest":
        one, other = self.fraud_threshold, self.p_value_threshold
        if one is not None and other is not None and one != other:
            raise ValueError(
                f"fraud_threshold is {one} and p_value_threshold {other}: both name the same cutoff, give one of them"
            )
        return self

    @property
    def test(self) -> StatTest:
        """The test to judge by."""
        given = [one for one in (self.fraud_threshold, self.p_value_threshold) if one is not None]
        return StatTest(self.dist_threshold, self.p_mismatch, *given[:1])


class GenerateRequest(RoundRequest):
    """`POST /generate`: nonces to compute, or claims about them to judge."""

    nonces: list[Whole]
    wait: bool = False
    validation: Validation | None = None
    stat_test: StatTestRequest | None = None

    @model_validator(mode="after")
    def _nonces_are_distinct(self) -> "GenerateRequest":
        if len(set(self.nonces)) != len(self.nonces):
            twice = Counter(self.nonces).most_common(1)[0][0]
            raise ValueError(f"nonces holds {twice} more than once: each counts once")
        if self.stat_test is not None and self.validation is None:
            raise ValueError("stat_test judges a validation, and there is none: leave it out, or give validation")
        return self

    def ask(self, max_nonces: int) -> Ask:
        """What is asked of the service.

        Raises ConfigError for more nonces than the server takes, NotMatching for claims about other nonces.
        """
        if len(self.nonces) > max_nonces:
            raise ConfigError(f"nonces holds {len(self.nonces)}: at most {max_nonces} (POC_MAX_QUEUED_NONCES)")
        claims = None if self.validation is None else self._claims(self.validation.artifacts)
        test = None if self.stat_test is None else self.stat_test.test
        return Ask(**self.identity(GENERATE_BATCH), nonces=tuple(self.nonces), claims=claims, test=test)

    def _claims(self, given: list[ClaimedArtifact]) -> tuple[Artifact, ...]:
        claimed, asked = Counter(one.nonce for one in given), set(self.nonces)
        if claimed.keys() != asked:
            more, less = sorted(claimed.keys() - asked)[:5], sorted(asked - claimed.keys())[:5]
            raise NotMatching(
                "validation.artifacts nonces must match nonces field: "
                + " and ".join([f"there are claims for {more}"] * bool(more) + [f"none for {less}"] * bool(less))
            )
        # a lone claim without a vector is left out, and found missing; a second one has to be seen as a second one
        return tuple(
            Artifact(one.nonce, one.vector_b64 or "")
            for one in given
            if one.vector_b64 is not None or claimed[one.nonce] > 1
        )
