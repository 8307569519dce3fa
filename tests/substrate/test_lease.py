"""Chat and proof take turns at one model, and whoever goes first waits for at most one hold of the other."""

import threading
from contextlib import ExitStack

import pytest

from ftw.substrate.errors import Cancelled, LeaseTimeout
from ftw.substrate.lease import Lease

PATIENCE_S = 30.0
"""A failing test ends; no test's result depends on it."""


class Party:
    """A thread that holds the lease once, for as long as it is let."""

    def __init__(self, lease: Lease, who: str, log: list[str], name: str = "") -> None:
        self.goes = threading.Event()
        self.holds = threading.Event()
        self._lease, self._who, self._log, self._name = lease, who, log, name or who
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with self._lease.hold(self._who):
            self._log.append(self._name)
            self.holds.set()
            assert self.goes.wait(PATIENCE_S)

    def leave(self) -> None:
        self.goes.set()
        self.thread.join(PATIENCE_S)


def waiting(lease: Lease, n: int) -> None:
    """Until so many holds wait."""
    for _ in range(100_000):
        if len(lease._waiting) == n:
            return
        threading.Event().wait(0.001)
    raise AssertionError(f"{len(lease._waiting)} wait, not {n}")


def test_only_one_holds() -> None:
    lease, inside, most = Lease(), [0], [0]

    def work(who: str) -> None:
        for _ in range(200):
            with lease.hold(who):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work, args=(who,)) for who in ("chat", "proof", "proof", "chat")]
    for one in threads:
        one.start()
    for one in threads:
        one.join(PATIENCE_S)
    assert most == [1]


@pytest.mark.parametrize(("first", "second"), [("chat", "proof"), ("proof", "chat")])
def test_a_claim_of_the_first_party_keeps_the_other_waiting_even_between_its_holds(first: str, second: str) -> None:
    lease = Lease(first)
    with ExitStack() as claim:
        claim.enter_context(lease.claim(first))
        with (
            pytest.raises(LeaseTimeout, match=f"{second} waited 0 s and the model is still in use"),
            lease.hold(second, timeout_s=0.0),
        ):
            pass
        with lease.hold(first, timeout_s=0.0):
            pass
    with lease.hold(second, timeout_s=0.0):
        pass


def test_a_claim_of_the_second_party_keeps_nobody_waiting() -> None:
    lease = Lease("chat")
    with lease.claim("proof"), lease.hold("chat", timeout_s=0.0):
        assert lease.claimed("proof")
    assert not lease.claimed("proof")


def test_whoever_goes_first_is_next_after_the_hold_that_runs() -> None:
    lease, log = Lease("chat"), list[str]()
    running = Party(lease, "proof", log, "proof 1")
    running.holds.wait(PATIENCE_S)
    later = Party(lease, "proof", log, "proof 2")
    waiting(lease, 1)
    chat = Party(lease, "chat", log, "chat")
    waiting(lease, 2)
    running.leave()
    assert chat.holds.wait(PATIENCE_S)
    assert not later.holds.is_set()
    chat.leave()
    assert later.holds.wait(PATIENCE_S)
    later.leave()
    assert log == ["proof 1", "chat", "proof 2"]


def test_threads_of_one_party_take_turns_in_the_order_they_came() -> None:
    lease, log = Lease(), list[str]()
    parties = []
    for i in range(4):
        parties.append(Party(lease, "proof", log, str(i)))
        parties[0].holds.wait(PATIENCE_S)
        waiting(lease, i)
    for one in parties:
        one.leave()
    assert log == ["0", "1", "2", "3"]


def test_a_stop_ends_the_wait() -> None:
    lease, stop, seen = Lease(), threading.Event(), list[str]()

    def work() -> None:
        with (
            pytest.raises(Cancelled, match="proof was called off while it waited"),
            lease.hold("proof", stop=stop.is_set),
        ):
            pass
        seen.append("ended")

    with lease.hold("chat"):
        thread = threading.Thread(target=work)
        thread.start()
        waiting(lease, 1)
        stop.set()
        thread.join(PATIENCE_S)
        assert seen == ["ended"]
    with lease.hold("proof", timeout_s=0.0):
        pass


def test_a_wait_has_an_end_by_the_clock() -> None:
    ticks = iter(range(1000))
    lease = Lease(clock=lambda: float(next(ticks)))
    with (
        lease.hold("chat"),
        pytest.raises(LeaseTimeout, match=r"waited 1\.5 s"),
        lease.hold("proof", timeout_s=1.5, stop=lambda: False),
    ):
        pass


def test_a_hold_that_raises_gives_the_model_back() -> None:
    lease = Lease()
    with pytest.raises(RuntimeError, match="broken"), lease.hold("chat"), lease.claim("chat"):
        raise RuntimeError("broken")
    with lease.hold("proof", timeout_s=0.0):
        pass
