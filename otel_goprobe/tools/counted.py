"""`Counted`: an instrument whose rows are counts of events that are alike; all that simple tools need."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from otel_goprobe.model import Metric, SumPoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    import numpy.typing as npt

    from otel_goprobe.model import AttributeValue, Event, Target
    from otel_goprobe.tools.base import Row, Surroundings

MAX_ROWS = 10_000
"""Beyond it what is new is counted in one row, whose texts are `OTHER`."""
OTHER = "_OTHER"

_Process = tuple[int, int]
"""Number and start."""


class Counted:
    """Counts events by target and some attributes of theirs and of their spans.

    Args:
        surroundings: for the names of services.
        events: turns records into events.
        keys: column -> attribute, which events or their spans have.
        metric: name, unit and description of the metric that counts them.
        scope: of the metric.
    """

    exit_code = None

    def __init__(
        self,
        surroundings: Surroundings,
        events: Callable[[npt.NDArray[np.void]], Iterable[Event]],
        keys: Mapping[str, str],
        metric: tuple[str, str, str],
        scope: str,
    ) -> None:
        self._surroundings = surroundings
        self._events = events
        self._keys = dict(keys)
        self._metric = metric
        self._scope = scope
        self._counts: Counter[tuple[_Process, tuple[AttributeValue | None, ...]]] = Counter()
        self._began: dict[_Process, int] = {}
        self._targets: dict[_Process, Target | None] = {}

    def begin(self, slot: int, target: Target) -> Iterable[Event]:
        """See `Instrument`."""
        del slot, target
        return ()

    def take(self, records: npt.NDArray[np.void]) -> Iterable[Event]:
        """See `Instrument`."""
        return self._events(records)

    def settle(self, event: Event, span: Mapping[str, AttributeValue]) -> None:
        """See `Instrument`."""
        values = tuple(event.attributes.get(key, span.get(key)) for key in self._keys.values())
        target = self._surroundings.target(event.slot)
        process = (target.process.pid, target.process.start_ticks) if target else (0, 0)
        row = (process, values)
        if row not in self._counts and len(self._counts) >= MAX_ROWS:
            row = (process, (OTHER,) * len(values))
        self._targets[process] = target
        self._began.setdefault(process, event.unix_ns)
        self._counts[row] += 1

    def end(self, slot: int) -> Iterable[Event]:
        """See `Instrument`; counts stay, under the service's name, though another process gets the slot."""
        del slot
        return ()

    def rows(self) -> list[Row]:
        """See `Instrument`: service, the keys, and ``count``."""
        return [
            {
                "service": target.service if (target := self._targets[process]) else "",
                **dict(zip(self._keys, values, strict=True)),
                "count": count,
            }
            for (process, values), count in self._counts.items()
        ]

    def metrics(self, resources: Mapping[int, Mapping[str, AttributeValue]]) -> list[Metric]:
        """See `Instrument`: one sum."""
        del resources  # of who has the slots now
        name, unit, description = self._metric
        points = tuple(
            SumPoint(
                target.resource,
                {key: value for key, value in zip(self._keys.values(), values, strict=True) if value is not None},
                self._began[process],
                count,
            )
            for (process, values), count in self._counts.items()
            if (target := self._targets[process])
        )
        return [Metric(self._scope, name, unit, description, points, monotonic=True)] if points else []

    def close(self) -> None:
        """See `Instrument`."""
