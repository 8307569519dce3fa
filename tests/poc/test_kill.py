"""Kill -9 at a random moment, again and again: no artifact is lost, and none is made or sent twice as another one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from ftw.poc.deployment import Deployment
from ftw.poc.forward import Prover, Round
from ftw.poc.journal import Journal
from ftw.substrate.reference import tiny
from tests.poc.killed import URL
from tests.poc.service import ROWS, SETTINGS, started

ROOT = Path(__file__).parents[2]


@contextmanager
def nursery(journal: Path, log: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """The process that forks services: its stdin and stdout."""
    command = [sys.executable, "-m", "tests.poc.killed", str(journal), str(log)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.stdin, process.stdout
        process.stdin.close()


def records(log: Path) -> list[dict[str, object]]:
    """What the services logged; a kill may have cut the last line of one."""
    found = []
    for line in log.read_text().splitlines() if log.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_kill_at_a_random_moment_loses_nothing_and_repeats_nothing(tmp_path: Path, kills: int) -> None:
    path, log = tmp_path / "poc.sqlite", tmp_path / "log"
    start, rng = started(url=URL), random.Random(kills)
    model = tiny()
    deployment = Deployment.of(model, SETTINGS)
    round_id, key = deployment.key(start).round_id, deployment.key(start)
    counts = [0]
    with nursery(path, log) as (orders, answers):
        for _ in range(kills):
            orders.write("go\n")
            pid = int(answers.readline())
            while max([0, *(one.get("made", 0) for one in records(log))]) <= counts[-1]:  # until it is at work
                time.sleep(0.005)
            time.sleep(rng.uniform(0.0, 0.25))
            os.kill(pid, signal.SIGKILL)
            assert answers.readline() == "gone\n"
            journal = Journal(path)
            rows = journal.artifacts(round_id, limit=1_000_000)
            counts.append(len(rows))
            # nothing lost, nothing repeated: the nonces of the node without a gap, up to the mark
            assert [row.nonce for row in rows] == [key.nonce(x) for x in range(len(rows))]
            assert journal.open_round(key) == len(rows)
            told = records(log)
            assert max(one.get("made", 0) for one in told) <= len(rows)
            sent = [one for one in told if "key" in one]
            assert {nonce for one in sent for nonce in one["nonces"]} <= {row.nonce for row in rows}
            journal.close()
    assert counts == sorted(set(counts))
    journal = Journal(path)
    while (parcel := journal.pending(50)) is not None:
        sent.append({"key": parcel.idempotency_key, "nonces": [row.nonce for row in parcel.rows]})
        journal.delivered(parcel.parcel_id)
    parcels = {one["key"]: one["nonces"] for one in sent}
    assert all(parcels[one["key"]] == one["nonces"] for one in sent)  # sent again, a parcel is the same
    assert sorted(nonce for nonces in parcels.values() for nonce in nonces) == [row.nonce for row in rows]
    expected = Prover(model, Round("block", "key", seq_len=8), ROWS).artifacts([row.nonce for row in rows[-64:]])
    assert [row.artifact for row in rows[-64:]] == expected
    journal.close()
