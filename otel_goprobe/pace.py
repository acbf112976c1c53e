"""How full the rings are -> whether to drain them now, and when to look again; the agent's loop has one `Pace`.

A look costs the agent 0.1 ms, nearly all of it for waking up; a drain with its export a millisecond, however few
records there are. So it looks often, but drains a few records only now and then.
"""

from __future__ import annotations

from typing import Final

SHORTEST_INTERVAL_S: Final = 0.01
LONGEST_INTERVAL_S: Final = 0.2
"""Between two looks; a shorter OTEL_BSP_SCHEDULE_DELAY shortens the longer."""
WANTED_FILL: Final = 0.25
"""Of the fuller ring at a look: the rest is for a time without a core."""
FEW: Final = 1 / 16
"""Of a ring: so little can wait."""
FEW_EVERY_S: Final = 1.0
"""Drains of so little, on average; twice OTEL_BSP_SCHEDULE_DELAY if that is shorter."""
FEW_AT_ONCE: Final = 3
"""Such drains in a row behind a time in which there was nothing to drain."""


class Pace:
    """Decides at each look.

    Args:
        schedule_delay_s: how long the exporter waits between two exports.
        now: a monotonic time, s.
    """

    def __init__(self, schedule_delay_s: float, now: float) -> None:
        self._few_every_s = max(min(2 * schedule_delay_s, FEW_EVERY_S), SHORTEST_INTERVAL_S)
        self._longest_s = min(max(schedule_delay_s, SHORTEST_INTERVAL_S), LONGEST_INTERVAL_S)
        self._allowed = float(FEW_AT_ONCE)
        """Drains of a few records that may be made now: a token bucket."""
        self._looked_at = now
        self.interval_s = SHORTEST_INTERVAL_S
        """Until the next look."""

    def is_worth_a_drain(self, fill: float, now: float) -> bool:
        """Tell whether to drain now, and set the time of the next look.

        Args:
            fill: of the fuller ring, 0 to 1.
            now: a monotonic time, s.
        """
        self._allowed = min(self._allowed + (now - self._looked_at) / self._few_every_s, FEW_AT_ONCE)
        self._looked_at = now
        # Slowly longer, at once shorter.
        wanted = self.interval_s * WANTED_FILL / max(fill, WANTED_FILL / 2)
        self.interval_s = min(max(wanted, SHORTEST_INTERVAL_S), self._longest_s)
        if fill > FEW:
            return True
        if not fill or self._allowed < 1:
            return False
        self._allowed -= 1
        return True
