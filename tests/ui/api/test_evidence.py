"""What `/evidence` answers is the file that the verbs of a validator read, page by page."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftw.poc.artifact_file import read_artifacts, verify_file
from tests.ui.api.conftest import POW, Open, Server, body
from tests.ui.api.test_pow import until
from tests.ui.conftest import Ftw

START = body(node_id=3, group_id=1, n_groups=2)


@pytest.fixture
def sealed(open_server: Open) -> tuple[Server, str]:
    """A server whose round has ended with three sealed batches or more, and the round's id."""
    server = open_server(callback_max_artifacts=4)
    round_: str = server.post(f"{POW}/init/generate", START).headers["x-ftw-round"]
    until(lambda: len(server.parts.pow.journal.sealed(round_)) >= 3)
    server.ok(f"{POW}/stop", {})
    return server, round_


def test_the_verbs_take_what_the_endpoint_answers(sealed: tuple[Server, str], ftw: Ftw, tmp_path: Path) -> None:
    server, round_ = sealed
    file = tmp_path / "artifacts.json"
    file.write_bytes(server.get(f"{POW}/evidence", round=round_).content)
    signer = server.get(f"{POW}/versions").json()["signer"]
    verified = ftw("poc", "verify-commitment", str(file), "--signer", signer, "--json").document
    assert verified["artifacts_included"] == server.parts.pow.journal.rounds()[0].count
    assert (verified["node_id"], verified["node_count"], verified["group_id"], verified["n_groups"]) == (3, 10, 1, 2)
    assert verified["rows"] == 4
    ran = ftw("poc", "validate", str(file), "-m", "tiny", "--sample", "4", "--seed", "f00d", "--json")
    assert ran.code == 0, ran.err
    assert (ran.document["n_total"], ran.document["n_mismatch"]) == (4, 0)
    assert {one["distance_l2"] for one in ran.document["distances_l2"]} == {0.0}


def test_links_lead_through_all_pages_and_each_verifies_alone(sealed: tuple[Server, str], tmp_path: Path) -> None:
    server, round_ = sealed
    path: str | None = f"{POW}/evidence?round={round_}&limit=1"
    nonces: list[int] = []
    sequences: list[int] = []
    while path is not None:
        answer = server.client.get(path)
        file = tmp_path / "page.json"
        file.write_bytes(answer.content)
        ((one, leaves),) = verify_file(read_artifacts(file))
        sequences.append(one.sequence)
        nonces += [leaf.nonce for leaf in leaves]
        path = answer.links["next"]["url"] if answer.links else None
    journal = server.parts.pow.journal
    assert sequences == [run.sequence for run in journal.sealed(round_)]
    assert nonces == [row.nonce for row in journal.artifacts(round_)]


def test_a_page_behind_the_last_batch_is_empty(sealed: tuple[Server, str]) -> None:
    server, round_ = sealed
    answer = server.get(f"{POW}/evidence", round=round_, after=10**6)
    found: dict[str, Any] = json.loads(answer.content)
    assert list(found) == ["format", "round", "encoding", "artifacts"]
    assert found["artifacts"] == []
    assert "link" not in answer.headers


@pytest.mark.parametrize("more", [{"limit": 0}, {"limit": 100_001}, {"after": -1}])
def test_bounds_out_of_range_are_refused(shared: Server, more: dict[str, int]) -> None:
    assert shared.get(f"{POW}/evidence", round="0" * 64, **more).status_code == 422
