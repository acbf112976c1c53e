"""Whether a collector takes spans, and what to do if it doesn't; called by ``otel-goprobe doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from otel_goprobe.export.answer import Answer, Fault

if TYPE_CHECKING:
    from otel_goprobe.config import OtlpConfig


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What an empty export came to."""

    ok: bool
    detail: str
    """What was seen, with the endpoint."""
    remedy: str
    """One sentence that says what to do; empty if `ok`."""


def probe(otlp: OtlpConfig, timeout_s: float) -> ProbeResult:
    """Export nothing, for real: connect, send an empty request, read the answer.

    Raises:
        UsageError: endpoint, headers, certificate or key can't be used.
    """
    from otel_goprobe.export.otlp import connect  # noqa: PLC0415 - otlp.py needs `remedy` from here

    transport = connect(otlp)
    try:
        answer = transport.send(b"", timeout_s)
    finally:
        transport.close()
    where = f"{otlp.endpoint} ({otlp.protocol})"
    if answer.fault is None:
        return ProbeResult(ok=True, detail=f"{where} takes spans", remedy="")
    return ProbeResult(ok=False, detail=f"{where}: {answer}", remedy=remedy(otlp, answer))


def remedy(otlp: OtlpConfig, answer: Answer) -> str:
    """Say in one sentence what a user can do about a failed attempt."""
    if answer.fault is Fault.STATUS:
        return _status_remedy(otlp, answer.status)
    if answer.fault in (Fault.FOREIGN, Fault.LOST):
        return _other_protocol(otlp)
    host = urlsplit(otlp.endpoint).hostname or otlp.endpoint
    return {
        Fault.REFUSED: "start a collector there, set OTEL_EXPORTER_OTLP_ENDPOINT to where one listens, "
        "or try --exporter console",
        Fault.NAME: f"check the spelling of {host!r} in OTEL_EXPORTER_OTLP_ENDPOINT, and the resolver of this host",
        Fault.UNREACHABLE: f"check the route from here to {host!r}",
        Fault.TIMEOUT: f"check that nothing between here and {host!r} drops the packets, "
        "or raise OTEL_EXPORTER_OTLP_TIMEOUT (milliseconds)",
        Fault.TLS: "name the collector's CA in OTEL_EXPORTER_OTLP_CERTIFICATE, "
        "or write http:// if it doesn't speak TLS",
    }[answer.fault or Fault.TIMEOUT]


def _status_remedy(otlp: OtlpConfig, status: str) -> str:
    if status in ("401", "403", "UNAUTHENTICATED", "PERMISSION_DENIED"):
        return "give the receiver its credentials in OTEL_EXPORTER_OTLP_HEADERS"
    if status in ("404", "405"):
        return (
            "check the path: OTEL_EXPORTER_OTLP_ENDPOINT gets /v1/traces appended, "
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is used as it is"
        )
    if status in ("415", "UNIMPLEMENTED") or status.startswith("3"):
        return _other_protocol(otlp)
    return "look into the receiver's own log"


def _other_protocol(otlp: OtlpConfig) -> str:
    """Most collectors take gRPC on 4317 and http on 4318."""
    if otlp.protocol == "grpc":
        return (
            "if that is an http port, set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or use the gRPC port, often 4317"
        )
    return "if that is a gRPC port, set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or use the http port, often 4318"
