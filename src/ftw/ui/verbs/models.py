"""Models check: the identity gate's verdict on each model, its anatomy, and what it takes."""

from collections.abc import Sequence

from rich.text import Text

from ftw.substrate.check import Anatomy, ModelCheck
from ftw.substrate.device import Memory
from ftw.substrate.errors import FtwError
from ftw.ui.app import judge_model
from ftw.ui.cli.output import Out
from ftw.ui.visualization.figure import count, facts, size, title


def run(out: Out, names: Sequence[str]) -> None:
    """Check each model. The document lists all verdicts; models that could not be loaded are told, then raised."""
    rows: list[ModelCheck] = []
    failed: list[FtwError] = []
    for name in names:
        try:
            rows.append(judge_model(name, out))
        except FtwError as error:
            failed.append(error)
            continue
        draw(out, rows[-1])
    out.document([row.summary for row in rows])
    for one in failed[:-1]:
        out.tell(f"ftw: {one}")
    if failed:
        raise failed[-1]


def draw(out: Out, check: ModelCheck) -> None:
    """The verdict as a title, the reason or the anatomy under it."""
    verdict = check.gate
    out.show(title(f"{verdict.model}: {'exact' if verdict.exact else 'refused'}"))
    rows = {"reason": verdict.refused} if verdict.refused else {}
    rows |= {"architecture": verdict.architecture} if verdict.architecture else {}
    if check.summary["max_abs_error"] is not None:
        rows["max error"] = f"{verdict.max_abs_error:.1e} logits, {verdict.kl_bits:.1e} bits"
    if check.anatomy is not None:
        rows |= anatomy(check.anatomy) | {"dtype, device": f"{check.dtype}, {check.device}"}
    if check.memory is not None:
        rows["memory"] = memory(check.memory)
    out.show(facts(rows), Text(), sep="\n")


def anatomy(found: Anatomy) -> dict[str, str]:
    """What was found in a model, in words."""
    return {
        "blocks": f"{found.n_layers} of width {found.d_model}, at {found.blocks}",
        "after them": ", ".join(found.tail) or "nothing",
        "head": f"{found.head}, {count(found.vocab_size, 'token')}{', tied to the embedding' * found.is_tied}",
        "logit transform": found.transform,
        "context": count(found.context, "token"),
    }


def memory(cost: Memory) -> str:
    """What the model takes: weights, cache per token, and a pass over the tokens that were assumed."""
    cache = f"{size(cost.kv_per_token)} per token of context, " if cost.kv_per_token else ""
    return f"{size(cost.weights)} of weights, {cache}{size(cost.total)} for {cost.tokens} tokens"
