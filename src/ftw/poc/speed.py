"""How fast this machine proves with this model: nonces per second, where the time goes, and how near the bare pass.

The rule of the file: proof and bare forward pass are run in turn, so that what else the machine does hits both; figures
are medians over rounds. The bare pass has the same model, batch and positions, but no inputs to make, no hooks, and no
readout.
"""

import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftw.poc.events import Split
from ftw.poc.forward import ROWS, Prover, Round, fingerprint_for
from ftw.poc.profiles import ARTIFACT_K12, Profile
from ftw.substrate.errors import ConfigError
from ftw.substrate.model import Model

SEQ_LEN = 256


@dataclass(frozen=True, slots=True)
class Speed:
    """What `measure` found. Seconds are medians per batch."""

    model: str
    profile: str
    device: str
    dtype: str
    threads: int
    seq_len: int
    rows: int
    """Nonces per batch."""
    rounds: int
    batch_s: float
    bare_s: float
    ratio: float
    """Nonces per second over those of the bare pass: median over rounds."""
    split: Split

    @property
    def nonces_per_second(self) -> float:
        """Of whole batches, inputs to encoded vectors."""
        return self.rows / self.batch_s

    @property
    def bare_nonces_per_second(self) -> float:
        """What the bare pass would give."""
        return self.rows / self.bare_s

    def record(self) -> dict[str, Any]:
        """The result as plain JSON values, units in the names."""
        return {
            "model": self.model,
            "profile": self.profile,
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.threads,
            "seq_len": self.seq_len,
            "rows_per_forward": self.rows,
            "rounds": self.rounds,
            "nonces_per_second": self.nonces_per_second,
            "bare_nonces_per_second": self.bare_nonces_per_second,
            "ratio_to_bare": self.ratio,
            "batch_seconds": self.batch_s,
            "split_seconds": self.split._asdict(),
        }


def measure(
    model: Model,
    *,
    profile: Profile = ARTIFACT_K12,
    seq_len: int | None = None,
    rows: int = ROWS,
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int, int], None] | None = None,
) -> Speed:
    """Runs `rounds` batches of a fresh round and as many bare passes, in turn, after one of each that does not count.

    `seq_len` is 256, or the model's context if that is less; k is the profile's, or the model's width if that is less.
    `progress` is told (rounds done, rounds) after each. Raises ConfigError for rounds below 1; otherwise like `Prover`.
    """
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}: measure 1 or more")
    length = min(SEQ_LEN, model.context) if seq_len is None else seq_len
    k = min(profile.k_dim, model.d_model)
    round_ = Round(secrets.token_hex(32), "bench", profile, length, k, fingerprint=fingerprint_for(model, profile))
    prover = Prover(model, round_, rows)
    bare = bare_pass(prover)
    batches: list[float] = []
    bares: list[float] = []
    splits: list[Split] = []
    for turn in range(-1, rounds):
        start = clock()
        bare()
        between = clock()
        first = (turn + 1) * rows
        made = prover.batch(range(first, first + rows), range(first + rows, first + 2 * rows))
        end = clock()
        if turn >= 0:
            bares.append(between - start)
            batches.append(end - between)
            splits.append(made.seconds)
            if progress is not None:
                progress(turn + 1, rounds)
    return Speed(
        model=model.name,
        profile=profile.id,
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        seq_len=length,
        rows=rows,
        rounds=rounds,
        batch_s=statistics.median(batches),
        bare_s=statistics.median(bares),
        ratio=statistics.median(b / a for a, b in zip(batches, bares, strict=True)),
        split=Split(*(_median(splits, stage) for stage in range(len(Split._fields)))),
    )


def bare_pass(prover: Prover) -> Callable[[], None]:
    """One forward pass of the prover's model and shape over embeddings that are there already, waited for."""
    model, round_ = prover.model, prover.round
    width = prover.inputs_width
    x = torch.randn(prover.rows, round_.seq_len, width, device=model.device).to(model.dtype)

    def run() -> None:
        with torch.inference_mode():
            hidden: Tensor = model.net.base_model(inputs_embeds=x, use_cache=False).last_hidden_state
            hidden[:, -1, :1].cpu()  # waits for the device

    return run


def _median(splits: Sequence[Split], stage: int) -> float:
    return statistics.median(split[stage] for split in splits)
