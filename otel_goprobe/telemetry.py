"""The agent's own counters: what was started, exported, and dropped for which reason.

Imported by everything, imports nothing of the project. `started == exported + sum(dropped)` holds after a flush: a
span that leaves the pipeline anywhere is counted once, here, with its reason.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A consistent copy of the counters. All are counts of spans since the agent started."""

    started: int
    exported: int
    dropped: dict[str, int]

    @property
    def balanced(self) -> bool:
        """Whether every started span is accounted for (true once everything is flushed)."""
        return self.started == self.exported + sum(self.dropped.values())


@dataclass(slots=True)
class Telemetry:
    """Thread-safe counters of one agent."""

    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _started: int = 0
    _exported: int = 0
    _dropped: Counter[str] = field(default_factory=Counter)

    def started(self, spans: int) -> None:
        """Count spans whose start probe has fired."""
        with self._lock:
            self._started += spans

    def exported(self, spans: int) -> None:
        """Count spans that the receiver has acknowledged."""
        with self._lock:
            self._exported += spans

    def dropped(self, reason: str, spans: int) -> None:
        """Count spans that will never be exported.

        Args:
            reason: a name in snake_case that docs/troubleshooting.md explains, such as ``ring_full``.
            spans: how many; zero is ignored.
        """
        if spans:
            with self._lock:
                self._dropped[reason] += spans

    def snapshot(self) -> Snapshot:
        """Return a consistent copy."""
        with self._lock:
            return Snapshot(self._started, self._exported, {k: v for k, v in sorted(self._dropped.items()) if v})
