"""The book of requests: in order, bounded, each with one end, forgotten when its time is over."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.poc.jobs import Job, JobBook, JobResult
from ftw.substrate.errors import QueueFull
from tests.poc.service import ask

LIMIT, TTL_S = 10, 5.0


@given(st.lists(st.sampled_from(["add", "add big", "take", "complete", "fail", "cancel", "wait"]), max_size=60))
def test_whatever_happens_requests_come_in_order_and_end_once(steps):
    now = [0.0]
    book = JobBook(LIMIT, TTL_S, lambda: now[0])
    waiting, running = deque[Job](), list[Job]()
    ended = dict[str, tuple[float, str]]()
    for step in steps:
        live = sum(job.weight for job in (*waiting, *running))
        assert book.queued_nonces == live
        if step.startswith("add"):
            wanted = ask(*range(4)) if step == "add big" else ask()
            if live + max(1, len(wanted.nonces)) > LIMIT:
                with pytest.raises(QueueFull, match="nonces are queued"):
                    book.add(wanted, None)
            else:
                waiting.append(book.add(wanted, None))
        elif step == "take":
            job = book.take()
            assert job is (waiting.popleft() if waiting else None)
            running += [job] if job else []
        elif step in ("complete", "fail") and running:
            job = running.pop()
            ended[job.request_id] = (now[0], "completed" if step == "complete" else "failed")
            book.complete(job, JobResult("r", job.ask)) if step == "complete" else book.fail(job, "why")
            book.fail(job, "again")
        elif step == "cancel":
            ended |= {job.request_id: (now[0], "cancelled") for job in (*waiting, *running)}
            book.cancel_all("stop")
            waiting.clear()
            running.clear()
        elif step == "wait":
            now[0] += 2.0
        for request_id, (at, status) in ended.items():
            state = book.state(request_id)
            assert (state is None) if now[0] - at >= TTL_S else (state is not None and state.status == status)
    left = [at + TTL_S - now[0] for at, _ in ended.values() if now[0] - at < TTL_S]
    assert book.sweep() == (min(left) if left else None)
    assert len(book) == len(left) + len(waiting) + len(running)


def test_a_request_that_nobody_made_is_unknown():
    assert JobBook(LIMIT, TTL_S, lambda: 0.0).state("nobody") is None
