"""A bounded queue and a thread between the drain of the rings and whatever takes spans; used by every exporter.

`submit` never waits: what doesn't fit is dropped and counted. The thread joins what has gathered into one batch and
hands it to a `Sink`, which may take its time. Every submitted span is counted exactly once in `Telemetry`, here and
nowhere else, whether its batch is delivered, refused, given up, or cut off by `close`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from otel_goprobe.export.encode import MAX_REQUEST_BYTES, Encoded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_goprobe.config import BatchConfig
    from otel_goprobe.telemetry import Telemetry

_log = logging.getLogger(__name__)

WORTH_SENDING_BYTES = 2**19
"""More isn't waited for: what is queued, joined and sent is in memory three times."""
_CUT_OFF_S = 0.2
"""How long `close` lets the thread notice that its delivery was cut off."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch; `exported` and `dropped` together are all of its spans."""

    exported: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> spans."""


class Sink(Protocol):
    """Takes batches, one at a time, on the exporter's thread. Its other methods are called from other threads."""

    def deliver(self, batch: Encoded) -> Outcome:
        """Deliver a batch, retrying as it sees fit; raises nothing."""

    def hasten(self, deadline: float) -> None:
        """The exporter is closing: what isn't delivered by `deadline` (``time.monotonic``) is to be given up."""

    def abort(self) -> None:
        """Make a running `deliver` return at once, as far as that can be done."""

    def close(self) -> None:
        """Release what is held; the last call."""

    @property
    def reader_gone(self) -> bool:
        """Whether nobody will ever take another span."""


class QueuedExporter:
    """The exporter that the agent talks to.

    Args:
        sink: takes the batches; closed by `close`.
        batch: limits and delays.
        telemetry: counts each submitted span once, as exported or as dropped: ``export_queue_full``, ``shutdown``
            (never handed to the sink), or the sink's own reasons.
    """

    def __init__(self, sink: Sink, batch: BatchConfig, telemetry: Telemetry) -> None:
        self._sink = sink
        self._batch = batch
        self._telemetry = telemetry
        self._changed = threading.Condition()
        self._queue: deque[Encoded] = deque()
        self._bytes = 0
        self._spans = 0
        self._send_at = 0.0
        """``time.monotonic()`` of the next export, unless there is enough for one before; the first is due at once."""
        self._delivering: Encoded | None = None
        self._flushing = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="export", daemon=True)
        self._thread.start()

    @property
    def reader_gone(self) -> bool:
        """Whether nobody will ever take another span, so that the agent may end (``--exporter console | head``)."""
        return self._sink.reader_gone

    def submit(self, encoded: Encoded) -> bool:
        """Queue a request without waiting.

        Returns:
            False if it was dropped, and counted as such: the queue holds ``max_queue_bytes`` or ``max_queue_spans``,
            or it is closed.
        """
        with self._changed:
            if self._closing or self._is_full_for(encoded):
                self._telemetry.dropped("shutdown" if self._closing else "export_queue_full", encoded.spans)
                return False
            self._queue.append(encoded)
            self._bytes += len(encoded.data)
            self._spans += encoded.spans
            self._changed.notify_all()
        return True

    def _is_full_for(self, encoded: Encoded) -> bool:
        spans = self._batch.max_queue_spans
        too_many = spans is not None and self._spans + encoded.spans > spans
        return too_many or self._bytes + len(encoded.data) > self._batch.max_queue_bytes

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything submitted is delivered or given up.

        Returns:
            False if that took longer than `timeout_s`; nothing is dropped then.
        """
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            done = self._changed.wait_for(self._idle, timeout_s)
            self._flushing -= 1
        return done

    def close(self, timeout_s: float) -> bool:
        """Deliver what is queued, within `timeout_s`; count the rest as dropped and end the thread.

        Returns:
            False if something had to be cut off. A second call does nothing.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            if self._closing:
                return True
            self._closing = True
            self._changed.notify_all()
        patience = min(_CUT_OFF_S, timeout_s / 4)
        self._sink.hasten(deadline - patience)
        with self._changed:
            done = self._changed.wait_for(self._idle, deadline - patience - time.monotonic())
            left = sum(encoded.spans for encoded in self._queue)
            self._queue.clear()
            self._telemetry.dropped("shutdown", left)
            cut_off = self._delivering
        if cut_off:
            self._sink.abort()
            self._thread.join(max(deadline - time.monotonic(), 0.0))
            self._settle(cut_off, Outcome(0, {"export_failed": cut_off.spans}))
        with self._changed:
            self._changed.notify_all()
        self._sink.close()
        return done

    def _idle(self) -> bool:
        return not self._queue and self._delivering is None

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            try:
                outcome = self._sink.deliver(batch)
            except Exception:  # noqa: BLE001 - the thread's boundary: a fault in a sink must not end the export
                _log.debug("export failed", exc_info=True)
                outcome = Outcome(0, {"export_failed": batch.spans})
            self._settle(batch, outcome)

    def _next(self) -> Encoded | None:
        """Wait for the next batch to be due and take it; None when closed and empty."""
        with self._changed:
            while not self._due():
                if self._closing and not self._queue:
                    return None
                self._changed.wait(self._send_at - time.monotonic() if self._queue else None)
            taken = [self._queue.popleft()]
            spans, size = taken[0].spans, len(taken[0].data)
            while self._queue:
                spans += self._queue[0].spans
                size += len(self._queue[0].data)
                if spans > self._batch.max_batch_spans or size > MAX_REQUEST_BYTES:
                    break
                taken.append(self._queue.popleft())
            self._delivering = (
                taken[0]
                if len(taken) == 1
                else Encoded(b"".join(encoded.data for encoded in taken), sum(encoded.spans for encoded in taken))
            )
            self._spans -= self._delivering.spans
            self._send_at = time.monotonic() + self._batch.schedule_delay_s
            return self._delivering

    def _due(self) -> bool:
        if not self._queue:
            return False
        full = self._spans >= self._batch.max_batch_spans or self._bytes >= WORTH_SENDING_BYTES
        return full or self._closing or bool(self._flushing) or time.monotonic() >= self._send_at

    def _settle(self, batch: Encoded, outcome: Outcome) -> None:
        """Count a batch, unless it has been counted."""
        with self._changed:
            if self._delivering is not batch:
                return
            self._delivering = None
            self._bytes -= len(batch.data)
            self._telemetry.exported(outcome.exported)
            for reason, spans in outcome.dropped.items():
                self._telemetry.dropped(reason, spans)
            self._changed.notify_all()
