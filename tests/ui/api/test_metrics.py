"""What Prometheus sees."""

from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from tests.ui.api.conftest import POW, URL, Server, ask, body
from tests.ui.api.test_pow import claims, until


def values(server: Server) -> dict[str, float]:
    """All samples by name and labels."""

    def samples() -> Iterator[tuple[str, float]]:
        for family in text_string_to_metric_families(server.get("/metrics").text):
            for sample in family.samples:
                labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                yield f"{sample.name}{{{labels}}}" if labels else sample.name, sample.value

    return dict(samples())


def test_proofs_are_counted_with_their_stages_and_verdicts(server: Server) -> None:
    made = server.compute(1, 2, 3, 4, 5)
    server.ok(f"{POW}/generate", ask(1, 2, 3, validation=claims(made[:3], n2="AAAA"), stat_test={}))
    now = values(server)
    assert now["ftw_poc_nonces_total"] == 7  # a claim that cannot be compared costs no forward pass
    assert now["ftw_poc_batches_total"] == 3
    for stage in ("rng", "forward", "readout", "encode"):
        assert now[f"ftw_poc_batch_seconds_count{{stage={stage}}}"] == 3
    assert now["ftw_poc_batch_seconds_sum{stage=forward}"] > 0
    assert now["ftw_poc_validations_total"] == 1
    assert now["ftw_poc_mismatches_total{reason=short}"] == 1
    assert now["ftw_poc_distance_count"] == 2
    assert now["ftw_poc_distance_bucket{le=0.001}"] == 2
    assert now["ftw_poc_mismatch_share_bucket{le=0.5}"] == 1
    assert now["ftw_poc_not_finite_total"] == 0


def test_rounds_callbacks_and_levels_are_shown(server: Server) -> None:
    idle = values(server)
    assert idle["ftw_poc_generating"] == idle["ftw_poc_queue_nonces"] == idle["ftw_poc_outbox_artifacts"] == 0
    server.ok(f"{POW}/init/generate", body(url=URL))
    server.ok(f"{POW}/generate", ask(1, 2, wait=False))
    until(lambda: server.posted)
    now = values(server)
    assert now["ftw_poc_generating"] == 1
    assert now["ftw_poc_queue_nonces"] == 2
    assert now["ftw_poc_nonces_per_second"] > 0
    server.ok(f"{POW}/stop", {})
    until(lambda: values(server)["ftw_poc_outbox_artifacts"] == 0)
    after = values(server)
    assert after["ftw_poc_rounds_started_total"] == after["ftw_poc_rounds_ended_total{state=STOPPED}"] == 1
    assert after["ftw_poc_callback_artifacts_total"] == after["ftw_poc_nonces_total"]
    assert after["ftw_poc_callbacks_total{outcome=failed}"] == 0
    assert after["ftw_poc_outbox_age_seconds"] == 0


def test_chat_is_counted(server: Server) -> None:
    server.ok("/v1/completions", {"model": "tiny", "prompt": "hi", "max_tokens": 3, "temperature": 0})
    now = values(server)
    assert now["ftw_chat_requests_total"] == 1
    assert now["ftw_chat_tokens_total"] == 3
    assert now["ftw_chat_prompt_tokens_total"] == 3
    assert now["ftw_chat_finished_total{reason=length}"] == 1
    assert now["ftw_chat_running"] == 0


def test_no_label_comes_from_a_client(server: Server) -> None:
    server.compute(1, block_hash="from-a-client", public_key="from-a-client")
    assert "from-a-client" not in server.get("/metrics").text


def test_health_says_what_the_server_does(shared: Server) -> None:
    assert shared.get("/health").json()["status"] == "ok"
    probe = shared.client.head("/health")
    assert (probe.status_code, probe.content) == (200, b"")
