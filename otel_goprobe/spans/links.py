"""What the kernel says that spans are linked to -> `Links`; called by conversion.py where records say there is some.

bpf/include/links.h keeps the links of a span in a map, since most have none and no record has room for eight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe.model import Links

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt


def fetch_links(
    headers: npt.NDArray[np.void],
    key: np.dtype[np.void],
    value: np.dtype[np.void],
    take: Callable[[bytes], bytes | None],
) -> Links | None:
    """Collect the links of spans.

    Args:
        headers: shape (n,), ``struct span_header``; `links` becomes 0 where the map doesn't have them any more.
        key: dtype of ``struct goroutine_key``, by which the map is asked for a span id of a slot.
        value: dtype of ``struct received_items``.
        take: gives the map's value for a key, and deletes it.

    Returns:
        None where no span has any.
    """
    found = []
    for row in np.flatnonzero(headers["links"]).tolist():
        asked = np.zeros(1, key)
        asked["goid"], asked["slot"] = headers["span_id"][row], headers["slot"][row]
        content = take(asked.tobytes())
        if content is None:
            headers["links"][row] = 0
        else:
            found.append(np.frombuffer(content, value)["links"][0][: headers["links"][row]])
    if not found:
        return None
    links = np.concatenate(found)
    return Links(
        headers["links"].astype(np.intp),
        np.ascontiguousarray(links["trace_id"]).view(np.uint8).reshape(-1, 16),
        np.ascontiguousarray(links["span_id"]).view(np.uint8).reshape(-1, 8),
        links["flags"].astype(np.uint8),
    )


def take_links(links: Links, rows: npt.NDArray[np.bool_]) -> Links | None:
    """Return those of the spans that a mask selects."""
    of_rows = np.repeat(rows, links.counts)
    if not of_rows.any():
        return None
    return Links(links.counts[rows], links.trace_id[of_rows], links.span_id[of_rows], links.trace_flags[of_rows])
