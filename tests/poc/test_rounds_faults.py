"""What breaks under a round ends it with a reason, or is tried again, and leaves no wrong or half-written artifact."""

import threading
from dataclasses import replace

import pytest
import torch

from ftw.poc.events import BatchMade, NotFinite, RoundEnded
from ftw.poc.forward import Prover, Round
from ftw.poc.worker import MEMORY_TRIES, Line, Passes, Worker
from ftw.substrate.engine import Request, TransformersEngine
from ftw.substrate.errors import NumericError, ProofError
from ftw.substrate.lease import Lease
from ftw.substrate.reference import tiny
from tests.poc.service import PATIENCE_S, ROWS, START, Ear, ask, service, until


@pytest.fixture
def model():
    """A model of its own: these tests spoil it."""
    return tiny()


@pytest.fixture
def one(model, tmp_path):
    with service(model, tmp_path) as one:
        yield one


class Poison:
    """Puts a NaN into a block, and takes it out again."""

    def __init__(self, model) -> None:
        self._weight = model.net.base_model.layers[1].mlp.down_proj.weight.data
        self._kept = self._weight[0, 0].clone()

    def give(self) -> None:
        self._weight[0, 0] = float("nan")

    def heal(self) -> None:
        self._weight[0, 0] = self._kept


def failed(one):
    until(lambda: one.rounds.status().state == "FAILED")
    one.rounds._generation.ended.wait(PATIENCE_S)
    return one.rounds.status()


# --- NaN


def test_a_poisoned_model_fails_the_round_after_so_many_batches_and_proves_nothing(one, model):
    poison = Poison(model)
    poison.give()
    one.rounds.start(START)
    status = failed(one)
    assert status.reason.startswith("3 batches in a row were rejected, the last one because")
    assert (status.not_finite, status.total_processed, one.made()) == (3, 0, 0)
    assert [event.in_a_row for event in one.ear.of(NotFinite)] == [1, 2, 3]
    until(lambda: bool(one.ear.of(RoundEnded)))
    assert one.ear.of(RoundEnded)[0].state == "FAILED"
    assert not one.lease.claimed("proof")


def test_a_failed_round_can_be_started_again_and_passes_over_nothing(one, model):
    poison = Poison(model)
    poison.give()
    one.rounds.start(START)
    failed(one)
    poison.heal()
    assert one.rounds.start(START).state == "GENERATING"
    until(lambda: one.made() >= 8)
    assert one.rounds.stop().reason == ""
    assert one.nonces()[:3] == [1, 4, 7]


def test_a_batch_that_is_not_finite_is_rejected_and_the_round_goes_on(one, model):
    poison = Poison(model)

    def hear(event):
        one.ear.events.append(event)
        if isinstance(event, BatchMade) and len(one.ear.of(BatchMade)) == 1:
            poison.give()
        if isinstance(event, NotFinite) and event.in_a_row == 2:
            poison.heal()

    one.rounds._sink = one.rounds._passes.sink = hear
    one.rounds.start(START)
    until(lambda: one.made() >= 16)
    status = one.rounds.stop()
    good = [1 + 3 * x for x in (*range(4), *range(12, 100_000))]  # the second and third pass of 4 nonces are gone
    assert one.nonces() == good[: one.made()]
    assert (status.state, status.not_finite, status.total_processed) == ("STOPPED", 2, one.made())
    rows = one.journal.artifacts(status.round_id, limit=8)
    assert [row.artifact.vector_b64 for row in rows] == one.expected([row.nonce for row in rows])


def test_the_threshold_is_a_setting(model, tmp_path):
    Poison(model).give()
    with service(model, tmp_path, nan_kill_threshold=1) as one:
        one.rounds.start(START)
        assert failed(one).reason.startswith("1 batches in a row")
        assert len(one.ear.of(NotFinite)) == 1


def test_a_request_to_a_poisoned_model_fails_with_the_reason(one, model):
    Poison(model).give()
    request_id, _ = one.rounds.enqueue(ask(1, 2))
    until(lambda: one.rounds.result(request_id).status == "failed")
    assert "not finite" in one.rounds.result(request_id).error
    with pytest.raises(NumericError, match="not finite"):
        one.rounds.run(ask(1, 2), threading.Event())


# --- the medium


def test_a_full_disk_fails_the_round_with_a_reason_and_leaves_nothing_half_written(model, tmp_path):
    with service(model, tmp_path, max_pages=13) as one:
        one.rounds.start(replace(START, batch_size=16))
        status = failed(one)
        nonces = one.nonces(replace(START, batch_size=16))
        assert "database or disk is full" in status.reason
        assert status.total_processed == len(nonces) == one.made()
        assert nonces == [1 + 3 * x for x in range(len(nonces))]
        assert len(nonces) % 16 == 0
        assert len(nonces) > 0


def test_a_callback_that_cannot_be_kept_fails_its_request(model, tmp_path):
    with service(model, tmp_path, max_pages=12) as one:
        request_id, _ = one.rounds.enqueue(ask(*range(100), url="http://x"))
        until(lambda: one.rounds.result(request_id).status == "failed")
        assert "database or disk is full" in one.rounds.result(request_id).error


# --- permanent and transient errors


def test_a_permanent_error_fails_the_round_at_once(one, model):
    model.net.train()
    one.rounds.start(START)
    assert "is in training mode" in failed(one).reason
    assert one.ear.of(BatchMade) == []


def test_an_error_that_nobody_foresaw_fails_the_round_with_its_name(one):
    def hear(event):
        raise RuntimeError("the sink broke")

    one.rounds._sink = hear
    one.rounds.start(START)
    assert failed(one).reason == "RuntimeError: the sink broke"


class Memory:
    """A prover whose device is out of memory for its first tries."""

    def __init__(self, prover: Prover, tries: int) -> None:
        self.left, self._prover = tries, prover

    def batch(self, nonces, then=()):
        if self.left:
            self.left -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._prover.batch(nonces, then)


@pytest.mark.parametrize("missing", [2, MEMORY_TRIES])
def test_a_full_device_is_tried_again_a_few_times(model, missing):
    pauses = list[float]()
    passes = Passes(model, ROWS, Lease(), Ear(), lambda: 0.0, 1.0, pause=pauses.append)
    round_ = Round("block", "key", seq_len=8)
    prover = Memory(Prover(model, round_, ROWS), missing)
    line = Line("r", round_)
    line.prover = prover
    if missing < MEMORY_TRIES:
        assert len(passes.make(line, [1], (), stop=lambda: False).artifacts) == 1
    else:
        with pytest.raises(ProofError, match=r"no memory for a pass of 4 nonces \(5 tries\): lower POC_FORWARD_ROWS"):
            passes.make(line, [1], (), stop=lambda: False)
    assert prover.left == 0
    assert len(pauses) == min(missing, MEMORY_TRIES - 1)
    assert all(0.5 * 0.05 * 2**i <= pause <= 0.05 * 2**i for i, pause in enumerate(pauses))


def test_a_busy_model_is_waited_for_however_long_it_takes_and_that_counts_as_no_fault(model):
    lease, pauses = Lease(), list[float]()
    chat = lease.claim("chat")

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 1500:
            chat.__exit__(None, None, None)

    passes = Passes(model, ROWS, lease, Ear(), lambda: 0.0, 0.0, pause=pause)
    line = Line("r", Round("block", "key", seq_len=8))
    line.prover = Memory(Prover(model, line.round, ROWS), 2)
    chat.__enter__()
    assert len(passes.make(line, [1], (), stop=lambda: False).artifacts) == 1
    assert len(pauses) == 1502
    assert max(pauses) <= 0.5


def test_a_failing_step_does_not_end_the_worker():
    steps, done = iter([True, False]), threading.Event()

    def step():
        if next(steps, None) is None:
            done.set()
            return False
        raise RuntimeError("broken")

    worker = Worker(step, lambda: 0.01, "test")
    worker.wake()
    assert done.wait(PATIENCE_S)
    worker.close(PATIENCE_S)


# --- chat and proof at once

PROMPTS = [(5, 6, 7), (100, 3), (9, 9, 9, 9), (42,)]


def write(prompt):
    return Request(prompt, max_new_tokens=6, ignore_eos=True, id=f"chat-{prompt[0]}")


def test_chat_and_proof_at_once_give_the_tokens_and_vectors_that_they_give_alone(one, model):
    alone = [TransformersEngine(model).generate(write(prompt))[0].tokens for prompt in PROMPTS]
    engine = TransformersEngine(model)
    together = {f"chat-{prompt[0]}": list[int]() for prompt in PROMPTS}
    waits = []
    one.rounds.start(START)
    for prompt in PROMPTS:
        made = len(one.ear.of(BatchMade))
        until(lambda made=made: len(one.ear.of(BatchMade)) > made)  # the proof goes on by itself after each chat
        with one.lease.claim("chat"):
            claimed = len(one.ear.of(BatchMade))
            engine.submit(write(prompt))
            held = None
            while engine.has_work:
                with one.lease.hold("chat", timeout_s=PATIENCE_S):
                    held = len(one.ear.of(BatchMade)) if held is None else held
                    for chunk in engine.step():
                        together[chunk.request_id].append(chunk.token)
            waits.append(held - claimed)
    one.rounds.stop()
    assert [tuple(tokens) for tokens in together.values()] == alone
    assert max(waits) <= 1
    nonces = one.nonces()
    assert len(nonces) >= 4 * len(PROMPTS)
    rows = one.journal.artifacts(one.deployment.key(START).round_id, limit=len(nonces))
    assert [row.artifact.vector_b64 for row in rows] == one.expected(nonces)
