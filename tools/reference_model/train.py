"""Training from scratch on a CPU: a pure function of the windows, the seed, the step count and the number of processes.

Windows are packed, but attention stays inside each document: names are only copied over short distances when no other
document offers its own. Two processes with one thread each beat one process with two threads on a two-core machine.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tools.reference_model.decoder import Decoder, Shape, document_mask, rope_table
from tools.reference_model.optimizer import Muon, schedule
from tools.reference_model.packing import IGNORE, Windows, plan


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result, apart from the data and the shape."""

    steps: int
    seed: int = 0
    processes: int = 2
    batch_tokens: int = 4096
    """Tokens per process and step."""
    lr: float = 0.02
    lr_embedding: float = 0.004
    warmup: int = 40
    plateau: float = 0.3


@dataclass(frozen=True)
class Outlet:
    """Where a run writes, how often it logs and how often it saves; none of it changes the result."""

    folder: Path
    compile: bool = True
    log_every: int = 25
    validate_every: int = 250
    save_minutes: float = 8.0
    port: int = 29611


class LogRow(TypedDict, total=False):
    step: int
    tokens: int
    loss: float
    validation: float
    tokens_per_s: int
    minutes: float


class Marks(TypedDict):
    """Ids of the special tokens."""

    bos: int
    eos: int
    pad: int


def rows_of(windows: Windows, batch: int, seed: int) -> Iterator[NDArray[np.uint16]]:
    """Endless batches of windows, shuffled anew on every pass."""
    epoch = 0
    pending: list[int] = []
    while True:
        if len(pending) < batch:
            pending += np.random.default_rng([seed, epoch]).permutation(len(windows)).tolist()
            epoch += 1
        yield windows.ids[pending[:batch]]
        pending = pending[batch:]


def targets_of(ids: Tensor, marks: Marks) -> Tensor:
    """The next token at every position, or -100 where a document has ended or the window is padded."""
    following = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], marks["pad"])], dim=1)
    return following.masked_fill((following == marks["pad"]) | (following == marks["bos"]), IGNORE)


def average_gradients(params: list[Tensor], world: int) -> None:
    """One flat all-reduce: many small ones cost far more."""
    flat = torch.cat([p.grad.flatten() for p in params])  # type: ignore[union-attr]
    dist.all_reduce(flat)
    flat /= world
    offset = 0
    for p in params:
        p.grad.copy_(flat[offset : offset + p.numel()].view_as(p))  # type: ignore[union-attr]
        offset += p.numel()


@torch.no_grad()
def validate(model: Decoder, windows: Windows, marks: Marks, limit: int) -> float:
    """Nats per token over the first windows."""
    cos, sin = rope_table(model.shape, windows.ids.shape[1])
    total, count = 0.0, 0
    for at in range(0, min(len(windows), limit), 8):
        ids = torch.from_numpy(windows.ids[at : at + 8].astype(np.int64))
        targets = targets_of(ids, marks)
        known = int((targets != IGNORE).sum())
        with torch.autocast("cpu", torch.bfloat16):
            stream = model(ids, cos, sin, document_mask(ids, marks["bos"]))
            total += known * float(model.loss(stream, targets))
        count += known
    return total / count


def save(model: Decoder, marks: Marks, folder: Path) -> None:
    """The weights in bf16 and the configuration, as transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"model.{k}": v.detach().to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it readable for its owner only
    shape = model.shape
    ids = {"bos_token_id": marks["bos"], "eos_token_id": marks["eos"], "pad_token_id": marks["pad"]}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.blocks,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "use_cache": True,
        "dtype": "bfloat16",
        **ids,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = ids | {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "max_new_tokens": 160}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


@dataclass(frozen=True)
class Data:
    """The windows of a run."""

    short: Windows
    long: Windows
    held: Windows


class Trainer:
    """One process of a run."""

    def __init__(self, rank: int, shape: Shape, recipe: Recipe, data: Data, marks: Marks, outlet: Outlet) -> None:
        self.rank, self.recipe, self.data, self.marks, self.outlet = rank, recipe, data, marks, outlet
        torch.manual_seed(recipe.seed)
        self.model = Decoder(shape)
        self.params: list[Tensor] = list(self.model.parameters())
        self._forward = torch.compile(self.model, dynamic=False) if outlet.compile else self.model
        self._loss = torch.compile(self.model.loss, dynamic=False) if outlet.compile else self.model.loss
        named = list(self.model.named_parameters())
        inside = [p for n, p in named if n.startswith("layers.") and p.ndim == 2]
        outside = [p for n, p in named if not (n.startswith("layers.") and p.ndim == 2)]
        self._muon = Muon(inside, recipe.lr)
        self._adam = torch.optim.AdamW(outside, lr=recipe.lr_embedding, betas=(0.9, 0.95), weight_decay=0.0)
        rows = {
            True: recipe.batch_tokens // data.long.ids.shape[1],
            False: recipe.batch_tokens // data.short.ids.shape[1],
        }
        world = recipe.processes
        self._feeds = {
            True: rows_of(data.long, rows[True] * world, recipe.seed),
            False: rows_of(data.short, rows[False] * world, recipe.seed + 1),
        }
        self._plan = plan(len(data.short), len(data.long), rows[False], rows[True], recipe.steps)
        self._ropes = {w.ids.shape[1]: rope_table(shape, w.ids.shape[1]) for w in (data.short, data.long)}

    def step(self, index: int) -> float:
        """One optimizer step; the loss of this process's rows before it."""
        recipe = self.recipe
        rows = next(self._feeds[self._plan[index]])[self.rank :: recipe.processes]
        ids = torch.from_numpy(rows.astype(np.int64))
        cos, sin = self._ropes[ids.shape[1]]
        with torch.autocast("cpu", torch.bfloat16):
            stream = self._forward(ids, cos, sin, document_mask(ids, self.marks["bos"]))
            loss = self._loss(stream, targets_of(ids, self.marks))
        loss.backward()
        if recipe.processes > 1:
            average_gradients(self.params, recipe.processes)
        scale = schedule(index, recipe.steps, recipe.warmup, recipe.plateau)
        self._muon.step(scale, self.rank, recipe.processes)
        for group in self._adam.param_groups:
            group["lr"] = recipe.lr_embedding * scale
        self._adam.step()
        for p in self.params:
            p.grad = None
        return float(loss.detach())

    def run(self) -> None:
        """All steps; the first process logs, saves checkpoints and writes the result."""
        recipe, outlet = self.recipe, self.outlet
        started = saved = time.monotonic()
        losses: list[float] = []
        log: list[LogRow] = []
        for index in range(recipe.steps):
            losses.append(self.step(index))
            done = index + 1
            if self.rank:
                continue
            if done % outlet.log_every == 0 or done <= 3 or done == recipe.steps:
                log.append(self._row(done, losses[-outlet.log_every :], time.monotonic() - started))
                print(json.dumps(log[-1]), flush=True)
            if time.monotonic() - saved > 60 * outlet.save_minutes:
                saved = time.monotonic()
                save(self.model, self.marks, outlet.folder / "checkpoint")
        if self.rank == 0:
            save(self.model, self.marks, outlet.folder)
            self._report(log, time.monotonic() - started)

    def _row(self, done: int, recent: list[float], took_s: float) -> LogRow:
        seen = done * self.recipe.batch_tokens * self.recipe.processes
        row: LogRow = {"step": done, "tokens": seen, "loss": round(float(np.mean(recent)), 4)}
        row |= {"tokens_per_s": round(seen / took_s), "minutes": round(took_s / 60, 2)}
        if done % self.outlet.validate_every == 0:
            row["validation"] = round(validate(self.model, self.data.held, self.marks, 40), 4)
        return row

    def _report(self, log: list[LogRow], took_s: float) -> None:
        seen = self.recipe.steps * self.recipe.batch_tokens * self.recipe.processes
        report = {
            "recipe": asdict(self.recipe),
            "shape": asdict(self.model.shape),
            "parameters": sum(p.numel() for p in self.params),
            "tokens": seen,
            "long_steps": sum(self._plan),
            "minutes": round(took_s / 60, 1),
            "torch": torch.__version__,
            "validation_nats_per_token": round(
                validate(self.model, self.data.held, self.marks, len(self.data.held)), 4
            ),
            "log": log,
        }
        (self.outlet.folder / "training.json").write_text(json.dumps(report, indent=1) + "\n")


def _worker(rank: int, shape: Shape, recipe: Recipe, data: Data, marks: Marks, outlet: Outlet) -> None:
    torch.set_num_threads(1)
    if recipe.processes == 1:
        Trainer(rank, shape, recipe, data, marks, outlet).run()
        return
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(outlet.port))
    dist.init_process_group("gloo", rank=rank, world_size=recipe.processes)
    Trainer(rank, shape, recipe, data, marks, outlet).run()
    dist.barrier()
    dist.destroy_process_group()


def train(shape: Shape, recipe: Recipe, data: Data, marks: Marks, outlet: Outlet) -> None:
    """Train and write weights, configuration and ``training.json`` to the outlet's folder."""
    outlet.folder.mkdir(parents=True, exist_ok=True)
    if recipe.processes == 1:
        _worker(0, shape, recipe, data, marks, outlet)
    else:
        mp.spawn(_worker, args=(shape, recipe, data, marks, outlet), nprocs=recipe.processes)
