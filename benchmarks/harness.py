"""How benchmarks are measured and written down.

A benchmark is a file `bench_NAME.py` with `def run(context: Context) -> Iterable[Figure]`. Both sides of a figure are
run in turn, round by round, so that what else the machine does hits both; the figure is a median over rounds of a ratio
or a difference within one round. An absolute time is kept beside it, but belongs to its machine.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch
import transformers

HEADER = "| date | benchmark | figure | value | goal | met | medians | device | dtype | threads | rounds |"
"""The first line of the table in docs/benchmarks.md. Rows are added at its end."""

Side = Callable[[], float | None]
"""One side of a comparison. Gives the seconds that count, or None: then the whole call counts."""


@dataclass(frozen=True)
class Goal:
    """What a figure should be."""

    bound: float
    at_least: bool

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"

    def met(self, value: float) -> bool:
        """Whether `value` reaches it."""
        return value >= self.bound if self.at_least else value <= self.bound


def at_least(bound: float) -> Goal:
    """More is better."""
    return Goal(bound, at_least=True)


def at_most(bound: float) -> Goal:
    """Less is better."""
    return Goal(bound, at_least=False)


@dataclass(frozen=True)
class Figure:
    """One line of a report."""

    benchmark: str
    claim: str
    """What is measured, against what."""
    value: float | None
    """None when it could not be measured; `note` says why."""
    unit: str
    goal: Goal | None = None
    medians: Mapping[str, str] = field(default_factory=dict)
    """Each side's own median, for the reader."""
    dtype: str = "float32"
    rounds: int = 0
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None without a goal or a value."""
        return None if self.goal is None or self.value is None else self.goal.met(self.value)


@dataclass(frozen=True)
class Context:
    """How to measure."""

    device: str = "cpu"
    rounds: int = 9
    """How often each side runs. Short things are run more often: see `scaled`."""
    clock: Literal["wall", "cpu"] = "wall"
    """`cpu` counts the process's own processor time, of all its threads: for a crowded machine and one thread."""

    def now(self) -> float:
        """Seconds on the clock, when the device has done its work."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.process_time() if self.clock == "cpu" else time.perf_counter()

    def scaled(self, factor: float) -> int:
        """Rounds for something that takes a fraction of the usual time."""
        return max(3, int(self.rounds * factor))


@dataclass(frozen=True)
class Timing:
    """Seconds of each side, one per round."""

    seconds: Mapping[str, Sequence[float]]

    @property
    def rounds(self) -> int:
        """How many there were."""
        return len(next(iter(self.seconds.values())))

    def median(self, side: str) -> float:
        """Median seconds of a side."""
        return statistics.median(self.seconds[side])

    def ratio(self, over: str, under: str) -> float:
        """Median over rounds of seconds of `over` divided by seconds of `under`."""
        pairs = zip(self.seconds[over], self.seconds[under], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def extra(self, side: str, base: str) -> float:
        """Median over rounds of the seconds that `side` takes more than `base`."""
        pairs = zip(self.seconds[side], self.seconds[base], strict=True)
        return statistics.median(a - b for a, b in pairs)

    def shown(self, work: float = 1.0, unit: str = "ms") -> dict[str, str]:
        """Each side's median: `ms` or `us` per call, or any other unit as `work` units per second."""
        scale = {"ms": 1e3, "us": 1e6}.get(unit)
        if scale is not None:
            return {side: f"{self.median(side) * scale:.4g} {unit}" for side in self.seconds}
        return {side: f"{work / self.median(side):.4g} {unit}" for side in self.seconds}


def interleave(sides: Mapping[str, Side], context: Context, *, rounds: int | None = None, warmup: int = 1) -> Timing:
    """Run all sides in turn, `rounds` times; who goes first changes from round to round."""
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, rounds if rounds is not None else context.rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            start = context.now()
            own = sides[name]()
            spent = context.now() - start
            if turn >= 0:
                seconds[name].append(spent if own is None else own)
    return Timing(seconds)


def table(figures: Iterable[Figure], context: Context) -> str:
    """The rows of the report, without the header."""
    today = datetime.now(UTC).date().isoformat()
    rows = []
    for one in figures:
        value = f"{one.value:.3g} {one.unit}".strip() if one.value is not None else f"not measured: {one.note}"
        met = {None: "", True: "yes", False: "**no**"}[one.is_met]
        medians = ", ".join(f"{side} {shown}" for side, shown in one.medians.items())
        claim = f"{one.claim} ({one.note})" if one.note and one.value is not None else one.claim
        where = device_name(context.device) + (" (processor time)" if context.clock == "cpu" else "")
        cells = [today, one.benchmark, claim, value, str(one.goal or ""), met, medians, where]
        cells += [one.dtype, str(torch.get_num_threads()), str(one.rounds or "")]
        rows.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(rows)


def records(figures: Iterable[Figure], context: Context) -> list[dict[str, object]]:
    """The same as data: one JSON object per figure."""
    common = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name(context.device),
        "clock": context.clock,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return [
        {**common, **asdict(one), "goal": str(one.goal) if one.goal else None, "met": one.is_met} for one in figures
    ]


def append(figures: Sequence[Figure], context: Context, root: Path) -> None:
    """Add the rows to docs/benchmarks.md and the records to benchmarks/results/DATE.jsonl."""
    page = root / "docs" / "benchmarks.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    if HEADER not in lines:
        lines += ["", HEADER, "|" + "---|" * HEADER.strip("|").count("|") + "---|"]
    end = lines.index(HEADER)
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    lines[end:end] = table(figures, context).splitlines()
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    log = root / "benchmarks" / "results" / f"{datetime.now(UTC).date().isoformat()}.jsonl"
    log.parent.mkdir(exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records(figures, context))


def device_name(device: str) -> str:
    """What people call it."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"CPU {models[0]}" if models else "CPU"
