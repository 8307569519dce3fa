"""One row of the legacy files as a record: tags, the tokens a layer would say with their probabilities, and the rest.

The rule of the file: a record is a plain dict of JSON values. Its best tokens are one list, `topk`; the cells of a CSV
row, and the probability that the list leaves over, are made from it when the row is written.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsFloat

from ftw.sweep.legacy.columns import LISTED

NEXT = "⟨NEXT⟩"
"""What stands for the token of a pure row: the one that would come next."""


def pack_topk(tokens: Iterable[str], probs: Iterable[SupportsFloat]) -> list[list[Any]]:
    """`[text, probability]` pairs, best first, of numbers in an array or tensor too. The shorter one ends the list."""
    return [[token, float(prob)] for token, prob in zip(tokens, probs, strict=False)]


def make_record(
    *,
    prompt_id: str,
    prompt_variant: str,
    layer: int,
    pos: int,
    token: str,
    entropy: float | None,
    tokens: Iterable[str],
    probs: Iterable[SupportsFloat],
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What one layer would say after one position. `entropy` in bits; `extra` is merged in last."""
    record = _record("record", prompt_id, prompt_variant, layer, pos, token, entropy)
    return {**record, "entropy_bits": entropy, "topk": pack_topk(tokens, probs), **(extra or {})}


def make_pure_record(
    *,
    prompt_id: str,
    prompt_variant: str,
    layer: int,
    pos: int,
    entropy: float | None,
    tokens: Iterable[str],
    probs: Iterable[SupportsFloat],
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What one layer would say next: the last position, with whatever is measured there in `extra`."""
    record = _record("pure_next_token_record", prompt_id, prompt_variant, layer, pos, NEXT, entropy)
    return {**record, "topk": pack_topk(tokens, probs), **(extra or {})}


def _record(
    kind: str, prompt_id: str, prompt_variant: str, layer: int, pos: int, token: str, entropy: float | None
) -> dict[str, Any]:
    return {
        "type": kind,
        "prompt_id": prompt_id,
        "prompt_variant": prompt_variant,
        "layer": layer,
        "pos": pos,
        "token": token,
        "entropy": entropy,
    }


def rest_mass(topk: Sequence[Sequence[Any]]) -> float:
    """The probability that the listed tokens leave over: max(0, 1 - their sum), 0 to 1."""
    listed: float = sum(prob for _, prob in topk)
    return min(1.0, max(0.0, 1.0 - listed))


def cells(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as the cells of a row, by column: `top1`, `prob1`, …, `rest_mass` in place of `topk`.

    Without listed tokens (a row that is not finite) nothing is said of the rest either.
    """
    row = {name: value for name, value in record.items() if name != "topk"}
    for at, (token, prob) in enumerate(record["topk"][:LISTED], start=1):
        row[f"top{at}"], row[f"prob{at}"] = token, prob
    row["rest_mass"] = rest_mass(record["topk"][:LISTED]) if record["topk"] else None
    return row
