"""Which spans become exemplars of which series."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otel_goprobe import exemplars as module
from otel_goprobe.exemplars import Exemplars
from otel_goprobe.model import Integers, SpanColumns, SpanKind, Strings
from otel_goprobe.probes import durations
from otel_goprobe.spans import take

if TYPE_CHECKING:
    from otel_goprobe.exemplars import Attributes

BOUNDS = next(duration for _, duration in durations().values() if duration.span_kind == SpanKind.SERVER).bounds_s
METRIC = "http.server.request.duration"
BEGAN = 1_790_000_000_000_000_000


def spans(count: int, *, routes: int = 3, seed: int = 7) -> SpanColumns:
    """Return spans of a few routes, statuses, targets; some without a route or a status; half of them sampled."""
    generator = np.random.default_rng(seed)
    start = np.uint64(BEGAN) + np.arange(count, dtype=np.uint64) * np.uint64(1000)
    statuses = generator.choice([200, 404, 500], count)
    return SpanColumns(
        scope="otel-goprobe/net/http",
        kind=SpanKind.SERVER,
        slot=generator.integers(0, 2, count).astype(np.uint16),
        trace_id=generator.integers(0, 256, (count, 16), np.uint8),
        span_id=generator.integers(0, 256, (count, 8), np.uint8),
        parent_span_id=np.zeros((count, 8), np.uint8),
        trace_flags=generator.integers(0, 2, count).astype(np.uint8),
        trace_state=Strings(np.full(count, -1, np.int32), ()),
        start_unix_ns=start,
        end_unix_ns=start + (10 ** generator.uniform(3, 11, count)).astype(np.uint64),
        name=Strings(np.zeros(count, np.int32), ("GET",)),
        error=statuses >= 500,
        attributes={
            "http.request.method": Strings(generator.integers(0, 2, count).astype(np.int32), ("GET", "POST")),
            "http.route": Strings(
                generator.integers(-1, routes, count).astype(np.int32), tuple(f"/{n}" for n in range(routes))
            ),
            "http.response.status_code": Integers(statuses, generator.random(count) < 0.9),
            "url.path": Strings(np.arange(count, dtype=np.int32), tuple(f"/{n}" for n in range(count))),
        },
    )


def plainly(columns: SpanColumns, *, which: str) -> dict[tuple[int, Attributes, int], tuple[bytes, float]]:
    """Return the newest span of each bucket, row by row: a slow reference."""
    found = {}
    for row in np.argsort(columns.end_unix_ns, kind="stable").tolist():
        if which == "trace_based" and not columns.trace_flags[row]:
            continue
        told: dict[str, str | int] = {}
        for name in ("http.request.method", "http.route"):
            column = columns.attributes[name]
            assert isinstance(column, Strings)
            if column.codes[row] >= 0:
                told[name] = column.table[column.codes[row]]
        status = columns.attributes["http.response.status_code"]
        assert isinstance(status, Integers)
        if status.present[row]:
            told["http.response.status_code"] = int(status.values[row])
        seconds = int(columns.end_unix_ns[row] - columns.start_unix_ns[row]) / 1e9
        bucket = sum(seconds > bound for bound in BOUNDS)
        found[int(columns.slot[row]), tuple(sorted(told.items())), bucket] = columns.span_id[row].tobytes(), seconds
    return found


@pytest.mark.parametrize("which", ["trace_based", "always_on"])
def test_the_newest_of_each_bucket(which: str) -> None:
    """As the reference has it; none is told twice, ordered by value."""
    columns = spans(1009)
    kept = Exemplars(which, 4096, exponential=False)  # type: ignore[arg-type] # one of the names
    kept.see(columns)
    expected = plainly(columns, which=which)
    told = {}
    for slot, attributes in {(slot, attributes) for slot, attributes, _ in expected}:
        of_series = kept.of(slot, METRIC, attributes, 0, 0)
        assert [one.value_s for one in of_series] == sorted(one.value_s for one in of_series)
        for one in of_series:
            told[slot, attributes, sum(one.value_s > bound for bound in BOUNDS)] = one.span_id, one.value_s
    assert told == expected


def test_filters() -> None:
    """always_off keeps none; other libraries' spans are none of a histogram's."""
    off = Exemplars("always_off", 4096, exponential=False)
    off.see(spans(101))
    assert off.came == 0
    others = Exemplars("always_on", 4096, exponential=False)
    others.see(replace(spans(101), kind=SpanKind.CONSUMER))
    others.see(replace(spans(101), scope="otel-goprobe/database/sql"))
    assert others.came == 0


def test_what_is_asked_for() -> None:
    """Only what came behind a call, only what ended since; a target that is gone has none."""
    kept = Exemplars("always_on", 4096, exponential=False)
    columns = take(spans(23), np.array([7]))
    ((slot, attributes, _),) = plainly(columns, which="always_on")
    kept.see(columns)
    (one,) = kept.of(slot, METRIC, attributes, 0, 0)
    assert kept.of(slot, METRIC, attributes, 1, 0) == ()
    assert kept.of(slot, METRIC, attributes, 0, one.unix_ns) == (one,)
    assert kept.of(slot, METRIC, attributes, 0, one.unix_ns + 1) == ()
    kept.forget(slot)
    assert kept.of(slot, METRIC, attributes, 0, 0) == ()


def test_work_and_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many spans of a call, the last ones; so many series."""
    monkeypatch.setattr(module, "MOST_SPANS", 100)
    kept = Exemplars("always_on", 5, exponential=False)
    columns = spans(1009, routes=500)
    kept.see(columns)
    assert len(kept._kept) == 5
    last = {columns.span_id[row].tobytes() for row in range(909, 1009)}
    assert {one.exemplar.span_id for of_series in kept._kept.values() for one in of_series.values()} <= last


def test_exponential_histograms_have_few() -> None:
    """Not more than the reservoir's size, the newest ones."""
    columns = replace(spans(1009, routes=1), slot=np.zeros(1009, np.uint16))
    columns = replace(
        columns,
        attributes={},
        end_unix_ns=columns.start_unix_ns + (np.uint64(1) << np.arange(1009, dtype=np.uint64) % np.uint64(40)),
    )
    kept = Exemplars("always_on", 5, exponential=True)
    kept.see(columns)
    assert len(kept.of(0, METRIC, (), 0, 0)) == module.MOST
