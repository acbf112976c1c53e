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
        self._counts: Counter[tuple[int, tuple[AttributeValue | None, ...]]] = Counter()
        self._began: dict[int, int] = {}
        self._services: dict[int, str] = {}

    def begin(self, slot: int, target: Target) -> Iterable[Event]:
        """See `Instrument`."""
        self._services[slot] = target.service
        return ()

    def take(self, records: npt.NDArray[np.void]) -> Iterable[Event]:
        """See `Instrument`."""
        return self._events(records)

    def settle(self, event: Event, span: Mapping[str, AttributeValue]) -> None:
        """See `Instrument`."""
        values = tuple(event.attributes.get(key, span.get(key)) for key in self._keys.values())
        row = (event.slot, values)
        if row not in self._counts and len(self._counts) >= MAX_ROWS:
            row = (event.slot, (OTHER,) * len(values))
        self._began.setdefault(event.slot, event.unix_ns)
        self._counts[row] += 1

    def end(self, slot: int) -> Iterable[Event]:
        """See `Instrument`; counts stay, under the service's name."""
        del slot
        return ()

    def rows(self) -> list[Row]:
        """See `Instrument`: service, the keys, and ``count``."""
        return [
            {"service": self._services.get(slot, ""), **dict(zip(self._keys, values, strict=True)), "count": count}
            for (slot, values), count in self._counts.items()
        ]

    def metrics(self, resources: Mapping[int, Mapping[str, AttributeValue]]) -> list[Metric]:
        """See `Instrument`: one sum."""
        name, unit, description = self._metric
        points = tuple(
            SumPoint(
                resources[slot],
                {key: value for key, value in zip(self._keys.values(), values, strict=True) if value is not None},
                self._began[slot],
                count,
            )
            for (slot, values), count in self._counts.items()
            if slot in resources
        )
        return [Metric(self._scope, name, unit, description, points, monotonic=True)] if points else []

    def close(self) -> None:
        """See `Instrument`."""
