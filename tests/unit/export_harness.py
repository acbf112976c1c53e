"""An exporter under test, with short waits, whose account is checked; for test_export_*.py."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from export_receivers import Received, Reply, grpc_receiver, http_receiver
from test_export_encode import RESOURCES, plain_columns

from otel_goprobe.config import BatchConfig, OtlpConfig
from otel_goprobe.export import Encoded, Encoder
from otel_goprobe.export.otlp import OtlpSink
from otel_goprobe.export.queued import QueuedExporter
from otel_goprobe.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH = BatchConfig(schedule_delay_s=0.02)
PROTOCOLS = ("http/protobuf", "grpc")


def spans(count: int) -> Encoded:
    """Encode `count` ordinary spans."""
    (encoded,) = Encoder().encode(plain_columns(count), RESOURCES)
    return encoded


def otlp(port: int, protocol: Any = "http/protobuf", **options: Any) -> OtlpConfig:
    """Configure a receiver on 127.0.0.1."""
    path = "/v1/traces" if protocol == "http/protobuf" else ""
    return OtlpConfig(f"http://127.0.0.1:{port}{path}", protocol, configured=True, **{"timeout_s": 2.0, **options})


@contextmanager
def receiver(protocol: str, *script: Reply, port: int = 0) -> Iterator[Received]:
    """Run a receiver of either protocol."""
    with (
        http_receiver(*script, port=port)
        if protocol == "http/protobuf"
        else grpc_receiver(*script, port=port) as received
    ):
        yield received


@contextmanager
def exporting(
    config: OtlpConfig,
    batch: BatchConfig = BATCH,
    *,
    export_timeout_s: float = 5.0,
    close_s: float = 2.0,
    first_backoff_s: float = 0.05,
) -> Iterator[tuple[QueuedExporter, Telemetry]]:
    """Run an exporter with short waits; on leaving, it is closed and the balance is checked."""
    telemetry = Telemetry()
    exporter = QueuedExporter(OtlpSink(config, export_timeout_s, first_backoff_s), batch, telemetry)
    try:
        yield exporter, telemetry
    finally:
        began = time.monotonic()
        exporter.close(close_s)
        assert time.monotonic() - began < close_s + 0.5


def send(exporter: QueuedExporter, telemetry: Telemetry, *counts: int) -> bool:
    """Submit one request per count, and flush."""
    for count in counts:
        telemetry.started(count)
        exporter.submit(spans(count))
    return exporter.flush(8)


def counts(telemetry: Telemetry) -> tuple[int, dict[str, int]]:
    """Return exported and dropped of a balanced account."""
    snapshot = telemetry.snapshot()
    assert snapshot.balanced, snapshot
    return snapshot.exported, snapshot.dropped
