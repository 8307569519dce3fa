"""From nonces to vectors: inputs, the model's forward pass with reflections, and the readout.

The rule of the file: a vector depends on its nonce alone. Every forward pass has the same shape: a part-filled one is
filled up with seeded dummies, so how many nonces are asked for, and beside which others, changes no bit on one engine.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float, Float16
from torch import Tensor

from ftw.poc.bound import BoundSeeds
from ftw.poc.codec import Artifact, encode
from ftw.poc.events import Split
from ftw.poc.inputs import input_embeddings
from ftw.poc.prefetch import Prefetch
from ftw.poc.profiles import ARTIFACT_K12, Profile
from ftw.poc.readout import readout
from ftw.poc.reflections import LayerVectors, Reflections
from ftw.poc.seeds import SeedStrings
from ftw.substrate.errors import ConfigError, PromptTooLong, ProofError
from ftw.substrate.model import Model
from ftw.substrate.taps import Taps
from ftw.substrate.types import Edit, Site

ROWS = 8
"""Nonces per forward pass unless told otherwise. Prover and validator of one engine must use the same number."""
EMBEDDING = Site(-1)
PROBE_POSITIONS = 4


@dataclass(frozen=True, slots=True)
class Round:
    """What all vectors of one generation have in common.

    Raises ConfigError for a length or k that no model has, a switch that the profile does not know, or no fingerprint
    where the profile binds one.
    """

    block_hash: str
    public_key: str
    profile: Profile = ARTIFACT_K12
    seq_len: int = 256
    k_dim: int = 0
    """Dimensions read; 0 stands for the profile's own number, which replaces it."""
    stronger_rng: bool = False
    """Inputs from all 256 bits of the digest: `poc_stronger_rng` on the wire."""
    fingerprint: str = ""
    """Of the model. Profiles whose seeds bind it need one; the others leave it out of their seeds."""

    def __post_init__(self) -> None:
        if self.k_dim == 0:
            object.__setattr__(self, "k_dim", self.profile.k_dim)
        if self.k_dim < 2:
            raise ConfigError(f"k_dim is {self.k_dim}: a vector has 2 dimensions or more")
        if self.seq_len < 1:
            raise ConfigError(f"seq_len is {self.seq_len}: a forward pass needs 1 position or more")
        if self.stronger_rng and not self.profile.wider_input_seeds:
            raise ConfigError(f"the profile {self.profile.id} has no poc_stronger_rng: only artifact-k12 has")
        if self.profile.seeds == "bound-256" and not self.fingerprint:
            raise ConfigError(f"the profile {self.profile.id} binds the model: give the round its fingerprint")

    @property
    def strings(self) -> SeedStrings | BoundSeeds:
        """The seeds of this round."""
        if self.profile.seeds == "bound-256":
            return BoundSeeds(self.fingerprint, self.block_hash, self.public_key, self.seq_len, self.k_dim)
        return SeedStrings(self.block_hash, self.public_key)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass gave."""

    nonces: tuple[int, ...]
    artifacts: tuple[Artifact, ...]
    """One per nonce, in their order."""
    seconds: Split
    """`rng` counts what the pass waited for its inputs: those made ahead cost it nothing."""


@dataclass
class Prover:
    """Computes vectors of one round with one model. Hooks are on the model only while it computes.

    Raises ConfigError and PromptTooLong where round and model do not fit, ProofError where the model's blocks are of a
    kind whose whole residual stream these hooks cannot reach.
    """

    model: Model
    round: Round
    rows: int = ROWS
    layers: LayerVectors = field(default_factory=LayerVectors)
    """Where the layer vectors of rounds are kept: share one among the provers of a process."""
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        model, round_ = self.model, self.round
        if self.rows < 1:
            raise ConfigError(f"rows is {self.rows}: a forward pass takes 1 nonce or more")
        if round_.seq_len > model.context:
            raise PromptTooLong(f"seq_len is {round_.seq_len}, and {model.name} takes {model.context} at most")
        if round_.k_dim > model.d_model:
            raise ConfigError(f"k_dim is {round_.k_dim}, and {model.name} has {model.d_model} dimensions: read fewer")
        if model.net.training:
            raise ProofError(f"{model.name} is in training mode, where dropout changes every pass: call net.eval()")
        weight: Tensor = model.arch.embed.weight  # type: ignore[assignment]
        self.inputs_width = weight.shape[-1]
        strings = round_.strings
        if isinstance(strings, BoundSeeds) and strings.fingerprint != model.fingerprint:
            raise ConfigError(
                f"the round binds the model {strings.fingerprint[:16]}, and {model.name} is {model.fingerprint[:16]}"
            )
        source = strings if isinstance(strings, BoundSeeds) else round_.block_hash
        vectors = self.layers.get(source, model.n_layers, model.d_model, model.device)
        self._reflections = Reflections(round_.profile, vectors, model.dtype)
        self._inputs: Tensor | None = None
        shape = (self.rows, round_.seq_len, self.inputs_width)
        self._ahead = Prefetch(self._make_inputs, shape, model.dtype, model.device)
        self._taps = Taps(model)
        edits = list(self._reflections.edits)
        given, entry, left = self._probe()
        if not torch.allclose(left, left[:, :1], rtol=1e-3, atol=1e-3):
            raise ProofError(
                f"the blocks of {model.name} pass on more than the stream that can be reflected here (a residual "
                "not yet summed?): such a model proves through its own engine"
            )
        if _is_scaled(entry, given):
            edits.insert(0, Edit(EMBEDDING, self._unscaled, "proof inputs"))
        self._edits = tuple(edits)

    def vectors(self, nonces: Sequence[int]) -> Float16[Tensor, "n k"]:
        """The vector of each nonce, in binary16 on the CPU.

        Raises ConfigError for a negative or repeated nonce, NumericError where a hidden state is not finite,
        ProofError where a block was not reflected exactly once.
        """
        _check(nonces)
        groups = [nonces[at : at + self.rows] for at in range(0, len(nonces), self.rows)]
        parts = [self._pass(group, then)[0] for group, then in pairwise([*groups, ()])]
        return torch.cat(parts) if parts else torch.empty(0, self.round.k_dim, dtype=torch.float16)

    def artifacts(self, nonces: Sequence[int]) -> list[Artifact]:
        """Nonces with their encoded vectors, in the order asked for. Raises like `vectors`."""
        texts = encode(self.vectors(nonces))
        return [Artifact(nonce, text) for nonce, text in zip(nonces, texts, strict=True)]

    def batch(self, nonces: Sequence[int], then: Sequence[int] = ()) -> Batch:
        """The artifacts of at most `rows` nonces, in one forward pass, and how long each stage took.

        Inputs for `then`, which the next call should ask for, are made while this pass runs where that is for free.
        Raises like `vectors`, and ConfigError for no nonces, or more than `rows`. After an error no hook is left, and
        the same prover can go on.
        """
        _check(nonces)
        if not 1 <= len(nonces) <= self.rows:
            raise ConfigError(f"a batch of {len(nonces)} nonces, and one forward pass takes 1..{self.rows}")
        y, seconds = self._pass(nonces, then)
        start = self.clock()
        texts = encode(y)
        seconds = seconds._replace(encode=self.clock() - start)
        made = tuple(Artifact(nonce, text) for nonce, text in zip(nonces, texts, strict=True))
        return Batch(tuple(nonces), made, seconds)

    @torch.inference_mode()
    def _pass(self, nonces: Sequence[int], then: Sequence[int]) -> tuple[Float16[Tensor, "row k"], Split]:
        """The vectors of at most `rows` nonces, on the CPU, and seconds by stage."""
        rows = self._filled(nonces)
        marks = [self.clock()]
        embeddings = self._ahead.take(rows)
        marks.append(self.clock())
        hidden = self._last_hidden(embeddings)
        if then:
            self._ahead.prepare(self._filled(then[: self.rows]))
        marks.append(self.clock())
        passed = _cuda_event(hidden.device)
        y = readout(hidden, self.round.strings, rows, self.round.profile, self.round.k_dim)
        ended = _cuda_event(hidden.device)
        halves = y[: len(nonces)].half().cpu()
        marks.append(self.clock())
        rng, forward, read = (b - a for a, b in pairwise(marks))
        if passed is not None and ended is not None:  # the pass was only launched when its mark was set
            own = passed.elapsed_time(ended) / 1e3
            forward, read = forward + read - own, own
        return halves, Split(rng, forward, read, 0.0)

    def _filled(self, nonces: Sequence[int]) -> list[int]:
        """The nonces of a whole pass: filled up with the dummies -1, -2, … (as no real nonce is)."""
        return [*nonces, *range(-1, len(nonces) - self.rows - 1, -1)]

    def _make_inputs(self, nonces: Sequence[int], out: Tensor) -> None:
        round_ = self.round
        device, dtype = out.device, out.dtype
        stronger = round_.stronger_rng
        input_embeddings(
            round_.strings,
            nonces,
            round_.seq_len,
            self.inputs_width,
            stronger=stronger,
            dtype=dtype,
            device=device,
            out=out,
        )

    def _last_hidden(self, embeddings: Float[Tensor, "row pos d_in"]) -> Float[Tensor, "row d_model"]:
        """The hidden state after the final norm at the last position, with every block reflected."""
        self._inputs = embeddings
        self._reflections.begin()
        try:
            self._taps.set(edits=self._edits)
            with self._taps.armed():
                hidden = self._run(embeddings)
        finally:
            self._taps.close()
            self._inputs = None
        self._reflections.check()
        return hidden[:, -1, :]

    def _run(self, embeddings: Float[Tensor, "row pos d_in"]) -> Float[Tensor, "row pos d_model"]:
        """The net without its head. Positions are 0..pos-1, which is what every net takes when it is told none."""
        hidden: Tensor = self.model.net.base_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        return hidden

    @torch.inference_mode()
    def _probe(self) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings, what of them enters block 0, and what is left when the stream after the last block is zeroed.

        Nothing that depends on the input may be left: else a part of the residual stream runs past the reflections.
        """
        strings = SeedStrings("probe", self.model.name)
        x = input_embeddings(
            strings, [0], PROBE_POSITIONS, self.inputs_width, dtype=self.model.dtype, device=self.model.device
        )
        taps = Taps(self.model)
        try:
            taps.set(reads=[EMBEDDING], edits=[Edit(Site(self.model.n_layers - 1), torch.zeros_like, "proof probe")])
            with taps.armed() as trace:
                left = self._run(x)
        finally:
            taps.close()
        return x, trace[EMBEDDING], left

    def _unscaled(self, stream: Tensor) -> Tensor:
        if self._inputs is None:
            raise ProofError("the proof's inputs are gone in mid-pass: one prover computes one batch at a time")
        return self._inputs.to(stream)


def fingerprint_for(model: Model, profile: Profile) -> str:
    """What a round of this profile needs as its fingerprint: nothing where its seeds do not bind the model."""
    return model.fingerprint if profile.seeds == "bound-256" else ""


def _cuda_event(device: torch.device) -> torch.cuda.Event | None:
    """A mark behind what was launched so far; None where nothing is launched ahead."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def _check(nonces: Sequence[int]) -> None:
    if len(set(nonces)) != len(nonces) or any(nonce < 0 for nonce in nonces):
        raise ConfigError("nonces are whole numbers from 0 on, and each stands once")


def _is_scaled(entry: Tensor, given: Tensor) -> bool:
    """Whether the net multiplied the embeddings that it was given by a number (Granite; Gemma in some versions).

    The reference feeds inputs past the embedding and whatever scales it, so then they replace the scaled ones.
    Positions that are added (GPT-2) are no scale and stay, as they do in the reference.
    """
    if entry.shape != given.shape or torch.equal(entry, given):
        return False
    ratio = entry.float() / given.float()
    return bool(((ratio / ratio.median() - 1.0).abs() < 0.02).all())  # the rounding of a 16-bit product is below this


def artifacts(
    model: Model,
    profile: Profile,
    block_hash: str,
    public_key: str,
    nonces: Sequence[int],
    seq_len: int = 256,
    *,
    k_dim: int = 0,
    stronger_rng: bool = False,
    rows: int = ROWS,
    layers: LayerVectors | None = None,
) -> list[Artifact]:
    """The artifacts of these nonces in one call. See `Round` and `Prover` for the arguments and what is raised."""
    round_ = Round(block_hash, public_key, profile, seq_len, k_dim, stronger_rng, fingerprint_for(model, profile))
    return Prover(model, round_, rows, layers or LayerVectors()).artifacts(nonces)
