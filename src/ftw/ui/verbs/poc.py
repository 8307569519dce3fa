"""Poc hello: a round's first vectors, computed again in other batches, and told from those of a cheaper copy."""

from rich.text import Text

from ftw.poc.codec import decode
from ftw.poc.hello import Check, Hello, hello
from ftw.substrate.errors import ProofError
from ftw.substrate.model import Model
from ftw.ui.app import open_model
from ftw.ui.cli.output import Out
from ftw.ui.visualization.figure import count, figure
from ftw.ui.visualization.palette import HUES, grey

SHOWN = 5
"""Coordinates of a vector that are printed."""


def run(out: Out, *, model: str | None, n: int) -> None:
    """Prove, draw, give the document. Raises ProofError where what must hold does not."""
    opened = open_model(model, out)
    found = prove(out, opened, n)
    draw(out, found, command=out.command)
    out.document({"command": "poc hello", **found.record()})
    if not found.ok:
        raise ProofError(f"{reading(found)}. Run it again on an idle machine; if it stays, report the JSON document")


def prove(out: Out, model: Model, n: int) -> Hello:
    """The first vectors of a fresh round, with a bar on stderr."""
    with out.bar("Proving") as bar:
        return hello(model, n=n, progress=lambda done, steps: bar("Proving", done, steps))


def draw(out: Out, found: Hello, *, command: str) -> None:
    """One row per vector, and both comparisons."""
    rows = [Text(f"nonce  first of {found.k_dim} coordinates{'':<24}again     in 4 bits", grey(), no_wrap=True)]
    for place, artifact in enumerate(found.artifacts):
        vector = decode(artifact.vector_b64, found.k_dim)
        row = Text(f"{artifact.nonce:>5}  ", no_wrap=True)
        row.append("".join(f"{float(x):>8.4f}" for x in vector[:SHOWN]) + " …", HUES[0] if out.has_colour else "")
        row.append("   " + _distance(found.recomputed.distances[place]).ljust(10))
        row.append(_distance(found.cheaper.distances[place]))
        rows.append(row)
    out.show(
        figure(
            reading(found),
            rows,
            f"distances are L2 between unit vectors, mismatch above {found.recomputed.verdict.test.dist_threshold:g}",
            f"cheaper copy: {found.cheaper.what}",
            f"{found.model} {found.fingerprint[:8]}",
            f"profile {found.profile}, {found.seq_len} positions, {found.dtype} on {found.device}",
            f"block {found.block_hash[:8]}…, key {found.public_key}",
            f"{found.nonces_per_second:.1f} nonces/s",
            command,
        )
    )


def _distance(distance: float) -> str:
    return "0" if distance == 0 else f"{distance:.4f}"


def reading(found: Hello) -> str:
    """The claim: both comparisons in one sentence."""
    n = len(found.artifacts)
    same = found.recomputed
    agree = f"{count(n, 'vector')} equal to the last bit in other batches"
    if not same.identical:
        agree = f"{count(n, 'vector')} computed again differ by up to {max(same.distances):.2g}"
    return f"{agree}; a 4-bit copy {_caught(found.cheaper)}"


def _caught(check: Check) -> str:
    missed = f"{check.verdict.n_mismatch} of {check.verdict.n_total} differ"
    return f"is caught, {missed}" if check.verdict.fraud_detected else f"passes, {missed}"
