"""A training spread over the machines of a Ray cluster, or over the cores and GPUs of one. Needs the extra `[ray]`.

Each share is `train_part` in a process of its own; the work folder is on a file system that all of them see, and the
end is done here. The pack is the same, bit for bit, as from one process on the same kind of machine.
The rule of the file: Ray only starts processes; what is done and what is left stands in the work folder.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.collect import Progress
from ftw.map.training.train import Part, TrainConfig, train_part
from ftw.substrate.config import ModelSpec
from ftw.substrate.errors import ConfigError, MissingExtra
from ftw.substrate.model import Model, load

CONCEPTS = "concepts"
"""Where in the work folder the workers find the concept pack."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker is asked to do. Goes over the wire."""

    model: ModelSpec
    concepts: Path
    out: Path
    work: Path
    part: int
    of: int
    seed: int
    blocks: tuple[int, ...] | None
    config: TrainConfig


def do(share: Share) -> Part:
    """The share, in this process: opens the model and the concept pack by name. Raises as `train_part`."""
    return train_part(
        load(share.model),
        ConceptPack.load(share.concepts),
        share.out,
        part=share.part,
        of=share.of,
        seed=share.seed,
        blocks=share.blocks,
        config=share.config,
        work=share.work,
    )


def run_on_ray(
    model: Model,
    concept_pack: ConceptPack,
    out: Path,
    *,
    work: Path,
    workers: int,
    seed: int = 0,
    blocks: Sequence[int] | None = None,
    config: TrainConfig | None = None,
    progress: Progress = lambda what, done, total: None,
) -> None:
    """Read all states and make all fits with `workers` processes. `train` on the same work folder then ends it.

    Raises MissingExtra without Ray, ConfigError for fewer than one worker, and what a worker raises.
    """
    if workers < 1:
        raise ConfigError(f"{workers} workers: at least one is needed")
    ray = _ray()
    concepts = work / CONCEPTS
    if not concepts.exists():
        concept_pack.save(concepts)
    shares = [
        Share(
            model.spec,
            concepts.absolute(),
            out.absolute(),
            work.absolute(),
            part,
            workers,
            seed,
            None if blocks is None else tuple(blocks),
            config or TrainConfig(),
        )
        for part in range(workers)
    ]
    own = not ray.is_initialized()
    if own:
        ray.init(include_dashboard=False, log_to_driver=False)
    try:
        remote = ray.remote(num_cpus=1, num_gpus=int(model.device.type == "cuda"))(do)
        for what in ("reading states on Ray", "fitting lenses on Ray"):
            _gather(ray, remote, shares, lambda done, what=what: progress(what, done, workers))  # type: ignore[misc]
    finally:
        if own:
            ray.shutdown()


def _gather(ray: Any, remote: Any, shares: Sequence[Share], seen: Callable[[int], None]) -> None:
    """Wait for all shares. Raises what the first that fails has raised."""
    waiting = [remote.remote(share) for share in shares]
    done = 0
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1)
        ray.get(ready)
        done += len(ready)
        seen(done)


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtra("--ray needs Ray: pip install 'ftw-transparency[ray]'") from error
