"""What one attempt to send a request came to, in the same words for http and gRPC; made by the transports."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol


class Fault(enum.StrEnum):
    """Why an attempt failed."""

    REFUSED = "connection refused"
    NAME = "the host's name can't be resolved"
    UNREACHABLE = "unreachable"
    TIMEOUT = "no answer in time"
    TLS = "TLS failed"
    LOST = "the connection was closed without an answer"
    FOREIGN = "the answer isn't of the protocol"
    STATUS = "refused by the receiver"


NO_CONNECTION = frozenset({Fault.REFUSED, Fault.NAME, Fault.UNREACHABLE, Fault.TIMEOUT})
"""Faults that another batch would meet as well."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one attempt came to."""

    fault: Fault | None = None
    """None: the receiver took the request, but for `rejected` spans."""
    detail: str = ""
    """What the system, the library or the receiver said."""
    status: str = ""
    """``503``, or gRPC's ``UNAVAILABLE``; empty where nothing answered."""
    retryable: bool = False
    """By the rules of the OTLP specification (Failures, https://opentelemetry.io/docs/specs/otlp/)."""
    retry_after_s: float | None = None
    """``Retry-After``, or gRPC's ``RetryInfo``."""
    rejected: int = 0
    message: str = ""
    """Both of ``ExportTracePartialSuccess``."""

    def __str__(self) -> str:
        said = self.fault.value if self.fault else "delivered"
        return ": ".join(part for part in (said, self.status, self.detail) if part)


class Transport(Protocol):
    """Sends requests to one receiver, one at a time; one attempt each, no retries."""

    def send(self, request: bytes, timeout_s: float) -> Answer:
        """Send an encoded ``ExportTraceServiceRequest`` and wait for the answer."""

    def abort(self) -> None:
        """From another thread: make a running `send` return at once where that is possible, and later ones fail."""

    def close(self) -> None:
        """Close the connection."""


def accepted(response: bytes, status: str) -> Answer:
    """Read an ``ExportTraceServiceResponse``; what can't be read counts as full success, as the status says."""
    if len(response) <= 2:  # nothing, or an empty partial_success
        return Answer(status=status)
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - 6 MB, wanted for a partial success only
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415 - the same

    try:
        partial = trace_service_pb2.ExportTraceServiceResponse.FromString(response).partial_success
    except DecodeError:
        return Answer(status=status)
    return Answer(status=status, rejected=max(partial.rejected_spans, 0), message=partial.error_message)
