"""A proof service that is made to be killed: one is forked for every line on stdin, and goes on until then.

The model is loaded once, before. Arguments: the journal's path, the log's path.

It logs what it "sends" (each parcel, before the journal hears of the delivery) and how much it claims to have made.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

import torch

from ftw.poc.deployment import Deployment
from ftw.poc.journal import Journal
from ftw.poc.rounds import Rounds
from ftw.substrate.lease import Lease
from ftw.substrate.model import Model
from ftw.substrate.reference import tiny
from tests.poc.service import SETTINGS, started

URL = "http://receiver"


def serve(model: Model, deployment: Deployment, path: Path, log: int, seed: int) -> None:
    """Generates and delivers until it is killed."""

    def write(**record: object) -> None:
        os.write(log, (json.dumps(record) + "\n").encode())

    rng = random.Random(seed)
    journal = Journal(path)
    rounds = Rounds(model, deployment, SETTINGS, journal, Lease(), sink=lambda event: None)
    rounds.start(started(url=URL))
    told = -1
    while True:
        made = rounds.status().total_processed
        if made != told:
            write(made=made)
            told = made
        parcel = journal.pending(rng.randint(1, 20))
        if parcel is None:
            time.sleep(0.001)
        elif rng.random() < 0.3:
            journal.failed(parcel.parcel_id, "down", 0.0)
        else:
            nonces = [row.nonce for row in parcel.rows]
            write(key=parcel.idempotency_key, sequence=parcel.sequence, nonces=nonces)
            journal.delivered(parcel.parcel_id)


def main() -> None:
    """One fork per line: prints its pid, and waits for its end before the next."""
    torch.set_num_threads(1)
    model = tiny()
    deployment = Deployment.of(model, SETTINGS)
    path, log = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(1, b"ready\n")
    for seed, _ in enumerate(sys.stdin):
        pid = os.fork()
        if pid == 0:
            serve(model, deployment, path, log, seed)
        os.write(1, f"{pid}\n".encode())
        os.waitpid(pid, 0)
        os.write(1, b"gone\n")


if __name__ == "__main__":
    main()
