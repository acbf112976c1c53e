"""A run's limits -> how much each map of the kernel holds; asked by start.py, which has yet to import libraries."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_goprobe.config import Config

RINGS = {256: 1, 1024: 4}
"""Record sizes, bytes, each with its ring buffer ``ring_<size>`` and, per library, ``<stem>_record_<size>``; and what
part of ``--ring-size`` that ring has: what doesn't fit into a small record is rare."""
SHARED_MAP = "goprobe_conn_v2"
"""Of bpf/include/connections.h: one on the host, whichever agent made it."""
CHUNKS_A_SERIES = 4
"""Elements of the map for each series of an exponential histogram: durations that differ up to 256-fold."""


def map_sizes(config: Config, names: Iterable[str]) -> dict[str, int]:
    """Return, by name, elements of a map or bytes of a ring; maps of what is off get the least there can be.

    Args:
        config: the run's.
        names: of all maps of the unit; ``<stem>_inflight`` is that of a library's requests.
    """
    return {
        **{name: config.max_in_flight for name in names if name.endswith("_inflight")},
        **dict.fromkeys(("goroutines", "active_spans", "live_contexts"), config.max_in_flight),
        **{f"ring_{size}": _ring_bytes(config, part) for size, part in RINGS.items()},
        **_series(config),
        **({} if config.local else {SHARED_MAP: 1}),
        **({} if config.span_links else dict.fromkeys(("received", "span_links", "channel_items"), 1)),
    }


def _ring_bytes(config: Config, part: int) -> int:
    return max(config.ring_bytes // part, mmap.PAGESIZE) if config.traces else mmap.PAGESIZE


def _series(config: Config) -> dict[str, int]:
    if not config.red:
        return dict.fromkeys(("red_durations", "red_texts", "red_overflow"), 1)
    chunks = CHUNKS_A_SERIES if config.metrics.exponential else 1
    return {"red_durations": config.max_series * chunks, "red_texts": config.max_series}
