"""Batches of encoded spans -> a collector, with the retries that the OTLP specification asks for.

`OtlpSink` runs on the thread of queued.py's `QueuedExporter`; made by `export.make_exporter`. What it says to the user
it says once per change: when the collector can't be reached, when it is back, when it refuses.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_goprobe.errors import UsageError
from otel_goprobe.export.answer import NO_CONNECTION, Answer, Fault, Transport
from otel_goprobe.export.queued import Outcome
from otel_goprobe.export.reachability import remedy

if TYPE_CHECKING:
    from otel_goprobe.config import OtlpConfig
    from otel_goprobe.export.encode import Encoded

_log = logging.getLogger(__name__)

_FIRST_BACKOFF_S = 1.0
_MAX_BACKOFF_S = 5.0
"""Our choice; the specification asks for exponential back-off with jitter and names no numbers."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What is sent."""

    name: str
    """In messages."""
    grpc_method: str


TRACES = Telemetry("spans", "/opentelemetry.proto.collector.trace.v1.TraceService/Export")
METRICS = Telemetry("metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
LOGS = Telemetry("log records", "/opentelemetry.proto.collector.logs.v1.LogsService/Export")
"""Full names of the methods: opentelemetry-proto v1, collector/{trace,metrics,logs}/v1/*_service.proto."""

_NO_TIME = Answer(Fault.TIMEOUT, "no time left")


def connect(config: OtlpConfig, telemetry: Telemetry = TRACES) -> Transport:
    """Make the transport that the protocol asks for; nothing is sent yet.

    Raises:
        UsageError: endpoint, headers, certificate or key can't be used.
    """
    for name, value in config.headers:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not re.fullmatch(r"[\x20-\x7e]*", value):
            raise UsageError(
                f"the header {name!r} for the collector holds characters that a header can't",
                "write OTEL_EXPORTER_OTLP_HEADERS as name=value,name=value in printable ASCII",
            )
    if config.protocol == "grpc":
        from otel_goprobe.export.transport_grpc import GrpcTransport  # noqa: PLC0415 - 20 MB, only when chosen

        return GrpcTransport(config, telemetry.grpc_method)
    from otel_goprobe.export.transport_http import HttpTransport  # noqa: PLC0415 - ssl isn't wanted for gRPC

    return HttpTransport(config)


class OtlpSink:
    """Sends batches to one collector.

    Drop reasons: ``rejected_by_collector`` (partial success), ``export_failed`` (refused, or given up).

    Args:
        config: where to and how; ``timeout_s`` bounds one attempt.
        export_timeout_s: bounds a batch, with all its attempts and the waits between them.
        first_backoff_s: wait after the first failed attempt; it doubles with each, up to 5 s, ±20 %.
        telemetry: what the batches hold; those of metrics count no spans.
    """

    def __init__(
        self,
        config: OtlpConfig,
        export_timeout_s: float = 30.0,
        first_backoff_s: float = _FIRST_BACKOFF_S,
        telemetry: Telemetry = TRACES,
    ) -> None:
        self._config = config
        self._what = telemetry.name
        self._transport = connect(config, telemetry)
        self._export_timeout_s = export_timeout_s
        self._first_backoff_s = first_backoff_s
        self._hastened = threading.Event()
        self._aborted = threading.Event()
        self._deadline = float("inf")
        self._said: set[tuple[Fault | None, str]] = set()
        self._message_said = False

    @property
    def reader_gone(self) -> bool:
        """Never: a collector may come back."""
        return False

    def deliver(self, batch: Encoded) -> Outcome:
        """Send a batch until it is taken, refused for good, or out of time."""
        deadline = time.monotonic() + self._export_timeout_s
        backoff_s = self._first_backoff_s
        while True:
            deadline = min(deadline, self._deadline)
            answer = self._attempt(batch.data, deadline)
            if answer.fault is None:
                return self._taken(batch, answer)
            wait_s = answer.retry_after_s
            if wait_s is None:
                wait_s = backoff_s * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
            if not answer.retryable or not self._wait(wait_s, deadline, answer):
                self._say_fault(answer)
                return Outcome(0, {"export_failed": batch.spans})
            backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)

    def hasten(self, deadline: float) -> None:
        """Give up by `deadline`, and at once where nobody is to be reached."""
        self._deadline = deadline
        self._hastened.set()

    def abort(self) -> None:
        """Cut a running attempt off."""
        self._aborted.set()
        self._transport.abort()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _attempt(self, request: bytes, deadline: float) -> Answer:
        closing = self._hastened.is_set()
        timeout_s = min(self._config.timeout_s, deadline - time.monotonic())
        if timeout_s <= 0 or self._aborted.is_set():
            return _NO_TIME
        answer = self._transport.send(request, timeout_s)
        if answer.fault is None:
            self._say_taken()
        elif not self._aborted.is_set():
            if answer.fault is not Fault.STATUS:  # a busy receiver's 503 is worth a line once it has cost spans
                self._say_fault(answer)
            if closing and answer.fault in NO_CONNECTION:
                self.hasten(0)  # the batches behind this one would meet the same
        return answer

    def _wait(self, wait_s: float, deadline: float, answer: Answer) -> bool:
        """Wait for the next attempt; False if there won't be one."""
        if time.monotonic() + wait_s >= deadline:
            return False
        if not self._hastened.wait(wait_s):
            return True
        if answer.fault in NO_CONNECTION:  # once more, at once: the last chance
            return time.monotonic() < self._deadline
        return time.monotonic() + wait_s < self._deadline and not self._aborted.wait(wait_s)

    def _taken(self, batch: Encoded, answer: Answer) -> Outcome:
        rejected = min(answer.rejected, batch.spans)
        if answer.message and not self._message_said:
            self._message_said = True
            _log.warning(
                "the collector at %s rejected %d %s of a batch: %s",
                self._config.endpoint,
                answer.rejected,
                self._what,
                answer.message,
            )
        return Outcome(batch.spans - rejected, {"rejected_by_collector": rejected})

    def _say_fault(self, answer: Answer) -> None:
        """Say each fault once, until a batch has been taken."""
        if answer is _NO_TIME or self._aborted.is_set() or (answer.fault, answer.status) in self._said:
            return
        self._said.add((answer.fault, answer.status))
        endpoint = self._config.endpoint
        if not self._config.configured and answer.fault is Fault.REFUSED:
            _log.warning(
                "no collector at %s: %s are dropped; try --exporter console or set OTEL_EXPORTER_OTLP_ENDPOINT",
                endpoint,
                self._what,
            )
            return
        _log.warning(
            "the collector at %s doesn't take %s (%s): %s; %s",
            endpoint,
            self._what,
            answer,
            f"each batch is tried for {self._export_timeout_s:g} s, then dropped"
            if answer.retryable
            else "they are dropped",
            remedy(self._config, answer),
        )

    def _say_taken(self) -> None:
        if self._said:
            self._said.clear()
            _log.info("the collector at %s takes %s again", self._config.endpoint, self._what)
