"""Study: a table with everything that is concluded from it, as one document.

The rule of the file: nothing is measured here. What the table does not hold, the audits ask the model for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.substrate.model import Model
from ftw.substrate.probe import text_config
from ftw.sweep import audits, milestones, statistics
from ftw.sweep.audits.audit import Audit
from ftw.sweep.audits.provenance import capture
from ftw.sweep.battery import Aligned, Battery, Prompt, align_all
from ftw.sweep.battery.gold import Gold
from ftw.sweep.milestones import summary
from ftw.sweep.milestones.reading import Found
from ftw.sweep.milestones.summary import Summary
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.run import Sweep
from ftw.sweep.statistics import Statistics
from ftw.sweep.table import Item, SweepTable

LISTED = 15
"""Tokens that are listed at another temperature."""


@dataclass(frozen=True)
class Study:
    """A finished run in memory."""

    table: SweepTable
    thresholds: Thresholds
    milestones: Found
    """By prompt (an index into the table's items) and lens."""
    summary: Summary
    statistics: Statistics
    audit: Audit
    about: Mapping[str, Any]
    """What the document says of model, battery, prompts and provenance."""

    def document(self) -> dict[str, Any]:
        """The run's document (`run.json`): plain JSON values, no NaN; see `docs/sweep.md`."""
        of_prompt: dict[int, dict[str, Any]] = {}
        for (prompt, lens), found in self.milestones.items():
            of_prompt.setdefault(prompt, {})[lens] = found.document()
        prompts = [
            {**entry, "milestones": of_prompt.get(index, {})} for index, entry in enumerate(self.about["prompts"])
        ]
        return {
            **self.about,
            "thresholds": self.thresholds.document(),
            "prompts": prompts,
            **self.summary.document(),
            "statistics": self.statistics.document(),
            "audit": self.audit.document(),
            "guidance": self.audit.guidance.document(),
        }


def study(
    sweep: Sweep,
    table: SweepTable,
    *,
    battery: Battery | None = None,
    thresholds: Thresholds | None = None,
    seed: int = 0,
    heldout: Float[Tensor, "layer row d_model"] | None = None,
) -> Study:
    """Milestones, statistics and audits of the table that `sweep` made.

    `heldout` are states of text that is not in the table, at layers 0 to n: temperatures are fitted on them. `seed` is
    that of the bootstrap and of the permutations.
    """
    thresholds = thresholds or Thresholds()
    found = milestones.of(table, thresholds)
    return Study(
        table=table,
        thresholds=thresholds,
        milestones=found,
        summary=summary.of(table, found, thresholds),
        statistics=statistics.of(table, found, thresholds, seed=seed),
        audit=audits.of(sweep, table, found, thresholds, heldout=heldout),
        about=_about(sweep, table, battery, seed),
    )


def _about(sweep: Sweep, table: SweepTable, battery: Battery | None, seed: int) -> dict[str, Any]:
    named = None
    if battery is not None:
        named = {"name": battery.name, "version": battery.version, "digest": battery.digest, "about": battery.about}
    model = sweep.model
    return {
        "provenance": capture(model, sweep.all_lenses, seed=seed, battery=named),
        "gate": {key: _finite(value) for key, value in asdict(sweep.gate).items()},
        "model": _model(model),
        "battery": named,
        "sweep": {
            "lenses": [lens.name for lens in sweep.lenses],
            "at_end": [lens.name for lens in sweep.at_end],
            "k": sweep.k,
            "precision": sweep.precision,
            "rows": len(table),
        },
        "prompts": prompts(model, table.items),
        "temperatures": tempered(sweep, table, battery.temperatures if battery is not None else ()),
    }


def _model(model: Model) -> dict[str, Any]:
    config = text_config(model.net)
    return {
        "name": model.name,
        "fingerprint": model.fingerprint,
        "architecture": type(model.net).__name__,
        "n_layers": model.n_layers,
        "d_model": model.d_model,
        "n_heads": getattr(config, "num_attention_heads", None),
        "vocab_size": model.vocab_size,
        "context": model.context,
    }


def prompts(model: Model, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Each prompt with its answers as the model's tokens, without its milestones."""
    sources = [item.source for item in items if isinstance(item.source, Prompt)]
    aligned = iter(align_all(sources, model) if sources else ())
    return [_entry(item, next(aligned) if isinstance(item.source, Prompt) else None) for item in items]


def _entry(item: Item, one: Aligned | None) -> dict[str, Any]:
    source = one.prompt if one is not None else None
    return {
        "id": item.id,
        "kind": source.kind if source else "probe",
        "relation": source.relation if source else "",
        "fact_id": source.fact_id if source else "",
        "fact_index": source.fact_index if source else None,
        "template": source.template if source else "",
        "variant": source.variant if source else "",
        "language": source.language if source else None,
        "text": source.text if source else None,
        "ids": list(item.ids),
        "answer": _gold(one.gold) if one else None,
        "aliases": [_gold(alias) for alias in one.aliases] if one else [],
        "control": _gold(one.control) if one else None,
        "is_told_apart": one.is_told_apart if one else True,
    }


def _gold(gold: Gold | None) -> dict[str, Any] | None:
    if gold is None:
        return None
    return {"text": gold.answer, "ids": list(gold.ids), "pieces": list(gold.pieces), "how": gold.how}


@torch.inference_mode()
def tempered(sweep: Sweep, table: SweepTable, temperatures: Sequence[float]) -> list[dict[str, Any]]:
    """The model's own next-token distribution after the first prompt with its logits divided by each temperature.

    Entropy in bits and the 15 best tokens with their probabilities. Nothing without temperatures.
    """
    if not temperatures:
        return []
    model = sweep.model
    ids = torch.tensor([table.items[0].ids], device=model.device)
    z = model.net(input_ids=ids, use_cache=False).logits[0, -1, : model.vocab_size].float()
    out = []
    for temperature in temperatures:
        logprobs = (z / temperature).double().log_softmax(-1)
        best = logprobs.topk(min(LISTED, model.vocab_size))
        entropy = -(logprobs.exp() * logprobs.clamp_min(torch.finfo(torch.float64).min)).sum() / math.log(2)
        tokens = [model.pieces([token])[0] if model.tokenizer else f"#{token}" for token in best.indices.tolist()]
        shares = best.values.exp().tolist()
        listed = [{"token": token, "p": p} for token, p in zip(tokens, shares, strict=True)]
        out.append({"temperature": temperature, "entropy_bits": float(entropy), "top": listed})
    return out


def _finite(value: Any) -> Any:
    """A value as JSON can say it: no NaN, no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
