"""The proof API's answers, key by key.

The rule of the file: a request without `stat_test` gets counts and no conclusion; with one, the verdict repeats the
parameters that it was reached by, and gives a reason for every nonce that failed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ftw.poc.deployment import Deployment
from ftw.poc.jobs import JobResult, Start
from ftw.poc.records import RoundState
from ftw.poc.rounds import Status
from ftw.poc.verify import Verdict

AT_ONCE = 500
"""Members of a list that are written in one go: between two goes other threads get their turn."""


def result_of(result: JobResult, k_dim: int) -> dict[str, Any]:
    """What a completed request gave."""
    head = {"status": "completed", "request_id": result.request_id}
    if result.verdict is not None:
        return head | _verdict(result.verdict, concludes=result.concludes)
    made = [asdict(one) for one in result.artifacts or ()]
    return head | {"artifacts": made, "encoding": {"dtype": "f16", "k_dim": k_dim, "endian": "le"}}


def config_of(start: Start, deployment: Deployment) -> dict[str, Any]:
    """The round of `/status`. Groups and the wider seeds are shown where they are used."""
    found: dict[str, Any] = {
        "block_hash": start.block_hash,
        "block_height": start.block_height,
        "public_key": start.public_key,
        "node_id": start.node_id,
        "node_count": start.node_count,
        "seq_len": deployment.seq_len,
        "k_dim": deployment.k_dim,
    }
    if start.n_groups > 1:
        found |= {"group_id": start.group_id, "n_groups": start.n_groups}
    if start.stronger_rng:
        found["poc_stronger_rng"] = True
    return found


def stats_of(now: Status) -> dict[str, Any]:
    """How a running round goes."""
    return {"total_processed": now.total_processed, "nonces_per_second": round(now.nonces_per_second, 3)}


def round_of(state: RoundState) -> dict[str, Any]:
    """A round of the journal. Its callback url is its owner's business and stays out."""
    key = {name: value for name, value in asdict(state.key).items() if name != "url"}
    return {"round": state.round_id, "count": state.count, "created_at": state.created_at, **key}


def pieces(body: Mapping[str, Any]) -> bytes:
    """The JSON text of an answer. Long lists are written bit by bit, so that no other thread waits for all of it."""
    members = []
    for key, value in body.items():
        if isinstance(value, list) and len(value) > AT_ONCE:
            runs = (_text(value[at : at + AT_ONCE])[1:-1] for at in range(0, len(value), AT_ONCE))
            members.append(f"{_text(key)}:[{','.join(runs)}]")
        else:
            members.append(f"{_text(key)}:{_text(value)}")
    return f"{{{','.join(members)}}}".encode()


def _verdict(verdict: Verdict, *, concludes: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "n_total": verdict.n_total,
        "n_mismatch": verdict.n_mismatch,
        "mismatch_nonces": list(verdict.mismatch_nonces),
    }
    if concludes:
        found |= {
            "p_value": verdict.p_value,
            "fraud_detected": verdict.fraud_detected,
            "stat_test": asdict(verdict.test),
            "mismatches": [asdict(one) for one in verdict.mismatches],
        }
    return found


def _text(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
