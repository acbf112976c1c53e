"""When the rings are looked at and drained."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_goprobe import pace
from otel_goprobe.pace import Pace

RING_RECORDS = 15_887
"""Of 256 bytes and a header in 4 MiB."""


class Rings:
    """A ring that fills at some rate, looked at as the agent does."""

    def __init__(self, schedule_delay_s: float = 0.5) -> None:
        self.pace = Pace(schedule_delay_s, 0.0)
        self.now = self.records = self.fullest = 0.0
        self.drains: list[float] = []

    def run(self, rate: float, seconds: float) -> int:
        """Let it fill at `rate` records a second for so long; return how many drains there were."""
        drains, until = len(self.drains), self.now + seconds
        while self.now < until:
            self.now += self.pace.interval_s
            self.records += rate * self.pace.interval_s
            self.fullest = max(self.fullest, self.records / RING_RECORDS)
            if self.pace.is_worth_a_drain(min(self.records / RING_RECORDS, 1), self.now):
                self.drains.append(self.now)
                self.records = 0
        return len(self.drains) - drains


@pytest.mark.parametrize("rate", [7, 100, 900])
def test_a_few_records_are_drained_once_a_second(rate: int) -> None:
    """At low rates a second's records go together, after the first ones, which go at once."""
    rings = Rings()
    rings.run(rate, 5)
    assert rings.drains[0] <= pace.LONGEST_INTERVAL_S
    assert 19 <= rings.run(rate, 20) <= 21


def test_what_comes_after_a_pause_goes_at_once() -> None:
    """Nobody waits a second for the first span behind a pause, and the next few."""
    rings = Rings()
    rings.run(100, 5)
    assert rings.run(0, 5) <= 1
    began = rings.now
    rings.run(100, 1)
    assert [round(at - began, 1) for at in rings.drains if at > began][:3] == [0.2, 0.4, 0.6]


def test_an_idle_agent_looks_five_times_a_second() -> None:
    """It neither drains nor looks more often."""
    rings = Rings()
    assert rings.run(0, 10) == 0
    assert rings.pace.interval_s == pace.LONGEST_INTERVAL_S


def test_a_burst_out_of_nothing_finds_room() -> None:
    """50,000 spans a second after a pause: the ring is looked at before it is full, then more often."""
    rings = Rings()
    rings.run(0, 5)
    rings.run(50_000, 5)
    assert rings.fullest < 0.75
    assert rings.pace.interval_s < 0.1


def test_a_shorter_schedule_delay_shortens_both_waits() -> None:
    """OTEL_BSP_SCHEDULE_DELAY=100: nothing waits longer than twice that."""
    rings = Rings(0.1)
    rings.run(100, 5)
    assert 48 <= rings.run(100, 10) <= 52
    assert rings.pace.interval_s == 0.1


@given(st.lists(st.floats(0, 1), max_size=50), st.floats(0, 60))
def test_interval_keeps_its_bounds(fills: list[float], schedule_delay_s: float) -> None:
    """Whatever the rings hold."""
    one, now = Pace(schedule_delay_s, 0.0), 0.0
    for fill in fills:
        now += one.interval_s
        assert one.is_worth_a_drain(fill, now) or fill <= pace.FEW
        assert pace.SHORTEST_INTERVAL_S <= one.interval_s <= pace.LONGEST_INTERVAL_S
