"""Closing the exporter: in time whatever the collector does, and every span accounted for."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from export_harness import BATCH, PROTOCOLS, counts, exporting, otlp, receiver, spans
from export_receivers import Reply, blackhole, free_port, http_receiver


@pytest.mark.parametrize("connects", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_dead_collector_fills_the_queue_and_stops_nobody(protocol: str, connects: bool) -> None:
    """`submit` returns at once, what the queue doesn't hold is counted, and close ends in time."""
    one = spans(8)
    batch = replace(BATCH, max_queue_bytes=10 * len(one.data), max_batch_spans=8)
    with blackhole(connects=connects) as port:
        with exporting(otlp(port, protocol, timeout_s=30), batch, close_s=1.0) as (exporter, telemetry):
            telemetry.started(8 * 50)
            began = time.monotonic()
            taken = [exporter.submit(one) for _ in range(50)]
            assert time.monotonic() - began < 0.2
            assert taken.count(True) == 10
            assert telemetry.snapshot().dropped == {"export_queue_full": 8 * 40}
            time.sleep(0.2)  # the first batch is under way, with all of its time
        assert counts(telemetry) == (0, {"export_failed": 8, "export_queue_full": 320, "shutdown": 72})
        assert exporter._thread.is_alive() != (connects or protocol == "grpc")  # only a connect can't be cut off


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_close_delivers_what_is_queued(protocol: str) -> None:
    """Without a flush, and without waiting for the delay."""
    with receiver(protocol) as received:
        with exporting(otlp(received.port, protocol), replace(BATCH, schedule_delay_s=30)) as (exporter, telemetry):
            telemetry.started(12)
            exporter.submit(spans(12))
        assert counts(telemetry) == (12, {})
        assert received.spans == 12


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_close_is_quick_where_nobody_listens(protocol: str) -> None:
    """One last attempt, not one per batch, and no wait for a back-off."""
    one = spans(8)
    batch = replace(BATCH, max_batch_spans=8)
    with exporting(otlp(free_port(), protocol), batch, close_s=5.0) as (exporter, telemetry):
        telemetry.started(160)
        for _ in range(20):
            exporter.submit(one)
        time.sleep(0.4)
        began = time.monotonic()
        assert exporter.close(5.0)
        assert time.monotonic() - began < 1
    assert counts(telemetry) == (0, {"export_failed": 160})


def test_close_does_not_wait_for_every_batch_to_time_out() -> None:
    """After one batch has found nobody, those behind it are given up."""
    batch = replace(BATCH, max_batch_spans=8)
    with blackhole() as port, exporting(otlp(port, timeout_s=0.4), batch, close_s=5.0) as (exporter, telemetry):
        telemetry.started(160)
        for _ in range(20):
            exporter.submit(spans(8))
        began = time.monotonic()
        assert exporter.close(5.0)
        assert time.monotonic() - began < 2
        assert counts(telemetry) == (0, {"export_failed": 160})


def test_close_waits_for_a_busy_receiver_within_its_time() -> None:
    """A 503 during the close is tried again, if the time allows."""
    with http_receiver(Reply(503), Reply(503)) as received, exporting(otlp(received.port)) as (exporter, telemetry):
        telemetry.started(4)
        exporter.submit(spans(4))
        assert exporter.close(3.0)
        assert counts(telemetry) == (4, {})


def test_close_cuts_a_slow_receiver_off() -> None:
    """The batch under way counts as failed, though it may have arrived; those behind it as shut down."""
    batch = replace(BATCH, max_batch_spans=4)
    with http_receiver(Reply(delay_s=3)) as received:
        with exporting(otlp(received.port, timeout_s=30), batch, close_s=0.6) as (exporter, telemetry):
            telemetry.started(8)
            exporter.submit(spans(4))
            exporter.submit(spans(4))
            time.sleep(0.1)
            assert not exporter.close(0.6)
            assert counts(telemetry) == (0, {"export_failed": 4, "shutdown": 4})
        assert counts(telemetry) == (0, {"export_failed": 4, "shutdown": 4})


def test_what_is_submitted_after_the_close_is_counted() -> None:
    """A late drain doesn't upset the balance; a second close does nothing."""
    with http_receiver() as received, exporting(otlp(received.port)) as (exporter, telemetry):
        assert exporter.close(1)
        telemetry.started(3)
        assert not exporter.submit(spans(3))
        assert exporter.close(1)
        assert counts(telemetry) == (0, {"shutdown": 3})
