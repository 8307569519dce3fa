"""Models check: the identity gate's verdict on each model, its anatomy, and what it takes."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from ftw.substrate.device import estimate
from ftw.substrate.errors import FtwError, NotCausalLM, Refused
from ftw.substrate.gate import Gate, gate
from ftw.substrate.model import Model
from ftw.ui.app import open_model
from ftw.ui.cli.output import Out
from ftw.ui.visualization.figure import count, facts, title


def run(out: Out, names: Sequence[str]) -> None:
    """Check each model. The document lists all verdicts; models that could not be loaded are told, then raised."""
    rows: list[Gate] = []
    failed: list[FtwError] = []
    for name in names:
        try:
            model, verdict = judge(name, out)
        except FtwError as error:
            failed.append(error)
            continue
        rows.append(verdict)
        draw(out, model, verdict)
    out.document(rows)
    for one in failed[:-1]:
        out.tell(f"ftw: {one}")
    if failed:
        raise failed[-1]


def judge(name: str, out: Out) -> tuple[Model | None, Gate]:
    """The model and the gate's verdict. A model whose anatomy cannot be found is refused with that reason."""
    try:
        model = open_model(name, out, fingerprint=False)
    except (Refused, NotCausalLM) as refusal:
        return None, Gate(name, architecture(name), False, math.nan, math.nan, str(refusal))
    with out.busy(f"Checking {model.name}"):
        return model, gate(model.net, model.arch, model=name)


def architecture(name: str) -> str:
    """The class that a folder's config names; empty where it names none (hub ids are not asked a second time)."""
    folder = Path(name).expanduser()
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    named = config.get("architectures") if isinstance(config, dict) else None
    return str(named[0]) if isinstance(named, list) and named else ""


def draw(out: Out, model: Model | None, verdict: Gate) -> None:
    """The verdict as a title, the reason or the anatomy under it."""
    out.show(title(f"{verdict.model}: {'exact' if verdict.exact else 'refused'}"))
    rows = {"reason": verdict.refused} if verdict.refused else {}
    rows |= {"architecture": verdict.architecture} if verdict.architecture else {}
    if not math.isnan(verdict.max_abs_error):
        rows["max error"] = f"{verdict.max_abs_error:.1e} logits, {verdict.kl_bits:.1e} bits"
    if model is not None:
        rows |= anatomy(model)
    out.show(facts(rows), Text(), sep="\n")


def anatomy(model: Model) -> dict[str, str]:
    """What was found in a model, in words."""
    arch = model.arch
    return {
        "blocks": f"{arch.n_layers} of width {arch.d_model}, at {arch.blocks_path}",
        "after them": ", ".join(arch.tail_paths) or "nothing",
        "head": f"{arch.head_path}, {count(arch.vocab_size, 'token')}{', tied to the embedding' * arch.is_tied}",
        "logit transform": f"{arch.transform}",
        "context": count(model.context, "token"),
        "dtype, device": f"{str(model.dtype).removeprefix('torch.')}, {model.device}",
        "memory": memory(model),
    }


def memory(model: Model) -> str:
    """What the model takes: weights, cache per token, and a pass over 512 tokens."""
    if model.checkpoint is None:
        return size(sum(p.numel() * p.element_size() for p in model.net.parameters())) + " of weights"
    cost = estimate(model.checkpoint, model.net.config, model.dtype)
    cache = f"{size(cost.kv_per_token)} per token of context, " if cost.kv_per_token else ""
    return f"{size(cost.weights)} of weights, {cache}{size(cost.total)} for {cost.tokens} tokens"


def size(n_bytes: int) -> str:
    """`16 MB`, `2.1 GB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            value = n_bytes / factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{n_bytes} B"
