"""Efficiency: what reading every lens costs per token, beside what the model itself costs, on this machine.

The rule of the file: medians of timed runs with the 95th percentile, the device named in the report's setting, and no
figure of another machine.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from ftw.hat.classifiers.bank import LensBank
from ftw.map.training.compliance.records import Figure, Property, measured
from ftw.map.training.neutral import neutral_texts
from ftw.substrate.engine import Request, Sampling, TransformersEngine
from ftw.substrate.model import Model
from ftw.substrate.types import Site

Clock = Callable[[], float]
"""Seconds, monotonic."""
RUNS, WARM = 40, 5
TOKENS = 24
"""Tokens that the model writes while it is timed."""
SHARE = 0.5
"""Of the model's own time per token that all lenses may take."""
TARGET_MS = 10.0
TOP = 10


def efficiency(model: Model, bank: LensBank, folder: Path, states: dict[Site, Tensor], clock: Clock) -> Property:
    """Milliseconds per token and bytes. `states` are raw ones to read, a row each."""
    one = {site: x[:1].to(bank.device) for site, x in states.items()}
    full = timed(lambda: bank.score(one, full=True).top(TOP), clock, model.device)
    usual = timed(lambda: bank.score(one).top(TOP), clock, model.device)
    model_ms = _model_ms(model, clock)
    share = median(usual) / model_ms
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors") if file.name != "directions.safetensors")
    return Property(
        name="efficiency",
        says="Reading the lenses at every token costs a known time and a known memory.",
        figures=(
            _ms("ms_per_token", "every lens, one token, ten highest", median(full)),
            _ms("ms_per_token_p95", "… of 100 tokens, 95 are faster than", _p95(full)),
            _ms("ms_usual", "as it is served: screened, one token", median(usual)),
            _ms("ms_usual_p95", "… of 100 tokens, 95 are faster than", _p95(usual)),
            _ms("model_ms_per_token", "the model itself, writing one token", model_ms),
            measured(
                "overhead",
                "lenses as served, of the model's own time",
                share,
                "share of time",
                n=RUNS,
                at_most=SHARE,
            ),
            measured(
                "lenses_in_10_ms",
                f"lenses that {TARGET_MS:g} ms would read in full, in proportion",
                len(bank) * TARGET_MS / median(full),
                "lenses",
            ),
            measured("stored_bytes", "lens weights on disk", float(stored), "bytes", n=len(bank)),
        ),
        notes=("Times are of one state at a time; many requests in one call cost less each.",),
    )


def timed(work: Callable[[], object], clock: Clock, device: torch.device) -> list[float]:
    """Milliseconds of each of several runs, after some that are not counted."""
    out = []
    for at in range(WARM + RUNS):
        began = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if at >= WARM:
            out.append(1000 * (clock() - began))
    return out


def _model_ms(model: Model, clock: Clock) -> float:
    """One token of the model alone, prompt included."""
    engine = TransformersEngine(model)
    request = Request(tuple(model.encode(neutral_texts("fit", 1)[0])), TOKENS, Sampling(temperature=1.0, seed=0))
    engine.generate(request)
    began = clock()
    done = engine.generate(request)
    return 1000 * (clock() - began) / max(1, sum(len(one.tokens) for one in done))


def _ms(name: str, label: str, value: float) -> Figure:
    return measured(name, label, value, "ms", n=RUNS)


def _p95(times: list[float]) -> float:
    return sorted(times)[int(0.95 * (len(times) - 1))]
