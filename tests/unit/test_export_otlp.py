"""The exporter against real receivers: every span is counted exactly once, whatever they answer."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import pytest
from export_harness import BATCH, PROTOCOLS, counts, exporting, otlp, receiver, send, spans
from export_receivers import Reply, free_port, grpc_receiver, http_receiver, partial

from otel_goprobe.config import Config, OtlpConfig, Selection
from otel_goprobe.errors import UsageError
from otel_goprobe.export import make_exporter
from otel_goprobe.export.otlp import connect
from otel_goprobe.telemetry import Telemetry


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_spans_arrive_once(protocol: str) -> None:
    """What is submitted is what the receiver got; small requests are joined."""
    with receiver(protocol) as received, exporting(otlp(received.port, protocol)) as (exporter, telemetry):
        assert send(exporter, telemetry, 23, 1, 7)
        assert counts(telemetry) == (31, {})
        assert received.spans == 31
        assert len(received.accepted) <= 2


def test_batches_keep_the_limit_of_spans() -> None:
    """Requests are joined up to max_batch_spans only."""
    batch = replace(BATCH, max_batch_spans=10, schedule_delay_s=5)
    with http_receiver() as received, exporting(otlp(received.port), batch) as (exporter, telemetry):
        assert send(exporter, telemetry, 4, 4, 4, 10, 3)
        sizes = [sum(len(rs.scope_spans[0].spans) for rs in request.resource_spans) for request in received.accepted]
        assert sum(sizes) == 25
        assert max(sizes) <= 10
        assert counts(telemetry) == (25, {})
        assert received.connections == 1


def test_the_queue_is_free_again_after_each_batch() -> None:
    """A long run through a queue that holds one request."""
    batch = replace(BATCH, max_queue_bytes=len(spans(3).data))
    with http_receiver() as received, exporting(otlp(received.port), batch) as (exporter, telemetry):
        for _ in range(20):
            assert send(exporter, telemetry, 3)
        assert counts(telemetry) == (60, {})


def test_what_is_sent_is_delayed_no_longer_than_asked() -> None:
    """Without a flush, a batch goes out after schedule_delay_s."""
    with http_receiver() as received, exporting(otlp(received.port)) as (exporter, telemetry):
        exporter.submit(spans(2))
        telemetry.started(2)
        deadline = time.monotonic() + 2
        while telemetry.snapshot().exported < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert counts(telemetry) == (2, {})


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_headers_and_compression_are_sent(protocol: str, compression: Any) -> None:
    """Both protocols send the configured headers, and compress when asked."""
    with receiver(protocol) as received:
        config = otlp(received.port, protocol, compression=compression, headers=(("X-Tenant", "shop, one"),))
        with exporting(config) as (exporter, telemetry):
            assert send(exporter, telemetry, 23)
            assert counts(telemetry) == (23, {})
        assert received.spans == 23
        (headers,) = received.headers
        assert headers["x-tenant"] == "shop, one"
        assert "otel-goprobe/" in headers["user-agent"]
        if protocol == "http/protobuf":
            assert received.paths == ["/v1/traces"]
            assert headers["content-type"] == "application/x-protobuf"
            assert headers.get("content-encoding", "none") == compression


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_http_retries_what_the_specification_names(status: int) -> None:
    """After a retryable status the same batch is sent again, and counted once."""
    with http_receiver(Reply(status), Reply(status)) as received, exporting(otlp(received.port)) as (exporter, tally):
        assert send(exporter, tally, 11)
        assert counts(tally) == (11, {})
        assert len(received.times) == 3


@pytest.mark.parametrize("status", ["CANCELLED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"])
def test_grpc_retries_what_the_specification_names(status: str) -> None:
    """The same for gRPC's codes."""
    with grpc_receiver(Reply(status)) as received, exporting(otlp(received.port, "grpc")) as (exporter, telemetry):
        assert send(exporter, telemetry, 11)
        assert counts(telemetry) == (11, {})
        assert len(received.times) == 2


@pytest.mark.parametrize("status", [301, 400, 401, 404, 413, 415, 500])
def test_http_gives_up_at_once_on_the_others(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """Another status is final; said once until one is taken; the next batch is tried."""
    script = [Reply(status, {"Location": "/elsewhere"})] * 2
    with http_receiver(*script, Reply(), script[0]) as received:
        with exporting(otlp(received.port)) as (exporter, telemetry):
            for count in (5, 6, 7):
                assert send(exporter, telemetry, count)
            assert counts(telemetry) == (7, {"export_failed": 11})
            assert caplog.text.count(f"refused by the receiver: {status}") == 1
            assert send(exporter, telemetry, 1)
            assert caplog.text.count(f"refused by the receiver: {status}") == 2
        assert len(received.times) == 4


@pytest.mark.parametrize("status", ["INVALID_ARGUMENT", "UNIMPLEMENTED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"])
def test_grpc_gives_up_at_once_on_the_others(status: str) -> None:
    """RESOURCE_EXHAUSTED is final without RetryInfo."""
    with grpc_receiver(Reply(status)) as received, exporting(otlp(received.port, "grpc")) as (exporter, telemetry):
        assert send(exporter, telemetry, 5)
        assert counts(telemetry) == (0, {"export_failed": 5})
        assert len(received.times) == 1


@pytest.mark.parametrize(
    ("protocol", "reply"),
    [
        ("http/protobuf", Reply(503, {"Retry-After": "1"})),
        ("grpc", Reply("RESOURCE_EXHAUSTED", retry_after_s=0.75)),
        ("grpc", Reply("UNAVAILABLE", retry_after_s=0.75)),
    ],
)
def test_the_receivers_own_delay_is_kept(protocol: str, reply: Reply) -> None:
    """Retry-After and RetryInfo win over our back-off."""
    with receiver(protocol, reply) as received, exporting(otlp(received.port, protocol)) as (exporter, telemetry):
        assert send(exporter, telemetry, 3)
        assert counts(telemetry) == (3, {})
        first, second = received.times
        assert 0.7 < second - first < 2


def test_a_delay_beyond_the_export_timeout_gives_up() -> None:
    """A Retry-After that can't be kept is not waited for."""
    with http_receiver(Reply(429, {"Retry-After": "3600"})) as received:
        began = time.monotonic()
        with exporting(otlp(received.port)) as (exporter, telemetry):
            assert send(exporter, telemetry, 3)
            assert counts(telemetry) == (0, {"export_failed": 3})
        assert time.monotonic() - began < 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rejected_spans_of_a_partial_success_are_dropped(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    """The rejected are counted, the rest is exported, nothing is sent again, the message is said once."""
    script = [partial(4, "too old"), partial(2, "too old")]
    with receiver(protocol, *script) as received, exporting(otlp(received.port, protocol)) as (exporter, telemetry):
        assert send(exporter, telemetry, 10)
        assert send(exporter, telemetry, 10)
        assert counts(telemetry) == (14, {"rejected_by_collector": 6})
        assert len(received.times) == 2
    assert caplog.text.count("too old") == 1


@pytest.mark.parametrize(("rejected", "dropped"), [(1000, {"rejected_by_collector": 10}), (0, {}), (-5, {})])
def test_absurd_partial_successes_keep_the_balance(rejected: int, dropped: dict[str, int]) -> None:
    """A receiver can't reject more than it was sent, nor less than nothing."""
    with http_receiver(partial(rejected, "odd")) as received, exporting(otlp(received.port)) as (exporter, telemetry):
        assert send(exporter, telemetry, 10)
        assert counts(telemetry) == (10 - sum(dropped.values()), dropped)


def test_a_response_that_is_no_protobuf_counts_as_success() -> None:
    """The status says that the spans were taken."""
    with http_receiver(Reply(body=b"<html>OK</html>")) as received, exporting(otlp(received.port)) as (exporter, tally):
        assert send(exporter, tally, 3)
        assert counts(tally) == (3, {})


def test_resets_and_closed_connections_are_retried() -> None:
    """A kept connection that the receiver has closed costs nothing; a reset one is tried again."""
    script = [Reply(close=True), Reply(), Reply(reset=True), Reply(reset=True), Reply()]
    with http_receiver(*script) as received, exporting(otlp(received.port)) as (exporter, telemetry):
        for _ in range(3):
            assert send(exporter, telemetry, 3)
            time.sleep(0.05)
        assert counts(telemetry) == (9, {})
        assert received.spans == 9


def test_a_kept_connection_that_was_closed_is_no_failed_attempt() -> None:
    """It is opened anew at once, without a back-off."""
    with http_receiver(Reply(close=True)) as received:
        with exporting(otlp(received.port), first_backoff_s=60) as (exporter, telemetry):
            assert send(exporter, telemetry, 3)
            time.sleep(0.1)
            assert send(exporter, telemetry, 3)
            assert counts(telemetry) == (6, {})
        assert received.connections == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_slow_receiver_times_out_and_is_tried_again(protocol: str) -> None:
    """An attempt ends after timeout_s; the batch is sent again, and counted once."""
    with receiver(protocol, Reply(delay_s=0.6)) as received:
        with exporting(otlp(received.port, protocol, timeout_s=0.3)) as (exporter, telemetry):
            assert send(exporter, telemetry, 3)
            assert counts(telemetry) == (3, {})
        assert len(received.times) == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_that_comes_back_gets_what_was_queued(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its absence and its return are each said once; nothing is lost in between."""
    caplog.set_level(logging.INFO)
    port = free_port()
    with exporting(otlp(port, protocol), export_timeout_s=20) as (exporter, telemetry):
        for _ in range(3):
            telemetry.started(5)
            assert exporter.submit(spans(5))
        time.sleep(0.5)
        assert not exporter.flush(0.01)
        with receiver(protocol, port=port) as received:
            assert exporter.flush(10)
            assert received.spans == 15
        assert counts(telemetry) == (15, {})
    assert caplog.text.count("connection refused") == 1
    assert caplog.text.count("takes spans again") == 1


def test_no_collector_and_nothing_configured_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The sentence offers what a newcomer can do; every batch is given up after its time."""
    config = replace(otlp(free_port()), configured=False)
    with exporting(config, export_timeout_s=0.2) as (exporter, telemetry):
        for _ in range(3):
            assert send(exporter, telemetry, 4)
        assert counts(telemetry) == (0, {"export_failed": 12})
    assert caplog.text.count("no collector at http://127.0.0.1") == 1
    assert "try --exporter console or set OTEL_EXPORTER_OTLP_ENDPOINT" in caplog.text


def test_many_submitters_keep_the_balance_under_random_answers() -> None:
    """Statuses of all kinds, resets and delays: exported is what the receiver acknowledged."""
    odd = [Reply(503), Reply(400), Reply(reset=True), partial(1, "no"), Reply(), Reply(delay_s=0.05), Reply(429)]
    batch = replace(BATCH, max_batch_spans=6, schedule_delay_s=0.001)
    with http_receiver(*odd * 6) as received, exporting(otlp(received.port), batch) as (exporter, telemetry):
        assert send(exporter, telemetry, *[1, 2, 3, 5] * 10)
        exported, dropped = counts(telemetry)
        assert received.spans == exported + dropped.get("rejected_by_collector", 0)
        assert exported + sum(dropped.values()) == 110


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "localhost:4318"},
        {"endpoint": "http://"},
        {"endpoint": "http://a:99999/"},
        {"endpoint": "ftp://a/"},
        {"endpoint": "https://a/", "certificate": "/nonexistent.pem"},
        {"endpoint": "https://a:1", "certificate": "/nonexistent.pem", "protocol": "grpc"},
        {"endpoint": "http://", "protocol": "grpc"},
        {"endpoint": "http://a/", "headers": (("x", "a\nb"),)},
        {"endpoint": "http://a/", "headers": (("é", "b"),)},
    ],
)
def test_what_cannot_be_used_is_told_before_anything_starts(options: dict[str, Any]) -> None:
    """Endpoint, certificate and headers: a sentence with a remedy."""
    with pytest.raises(UsageError) as raised:
        connect(OtlpConfig(**options))
    assert raised.value.remedy


def test_none_counts_spans_as_exported() -> None:
    """``--exporter none`` does what was asked for, and the balance holds."""
    telemetry = Telemetry()
    exporter = make_exporter(Config(Selection(), OtlpConfig(""), exporter="none"), telemetry)
    telemetry.started(3)
    assert exporter.submit(spans(3))
    assert exporter.flush(1)
    assert exporter.close(1)
    assert counts(telemetry) == (3, {})
