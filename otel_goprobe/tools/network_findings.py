"""Paths that are seen -> findings: those that the policy doesn't allow; called by network.py."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from otel_goprobe.model import Event
from otel_goprobe.stacks import stacktrace
from otel_goprobe.tools.network_policy import NetworkPath

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otel_goprobe.model import AttributeValue
    from otel_goprobe.tools.base import Surroundings
    from otel_goprobe.tools.network_policy import Kind, Policy
    from otel_goprobe.tools.network_table import Path

log = logging.getLogger(__name__)


class Findings:
    """Compares paths with a policy.

    Attributes:
        seen: paths, with how often each was gone.
        found: whether one isn't allowed.
    """

    def __init__(self, around: Surroundings, policy: Policy | None) -> None:
        self._around = around
        self._policy = policy
        self.seen: dict[NetworkPath, int] = {}
        self.found = False

    def check(self, slot: int, path: Path, event: Event | None, pcs: Sequence[int] = ()) -> Iterator[Event]:
        """Compare a path with the policy: a finding is said once, then counted."""
        kinds: dict[str, Kind] = {"listen": "listen", "name": "name", "out": "connect"}
        kind = kinds[path.direction]
        unix = path.address if path.protocol == "unix" else ""
        ip = "" if unix or kind == "name" else path.address
        protocol = "" if kind == "name" else path.protocol
        way = NetworkPath(path.service, kind, protocol, path.host, ip, path.port, unix)
        known = way in self.seen
        self.seen[way] = self.seen.get(way, 0) + 1
        policy = self._policy
        if policy is None or not policy.checks(path.service) or policy.allows(way):
            return
        path.findings += 1
        self.found = True
        if known:
            return
        why = policy.why_not(way)
        by = f" ({path.function})" if path.function else ""
        log.warning("finding: %s: %s%s", path.service, why, by)
        attributes: dict[str, AttributeValue] = {"network.transport": path.protocol, "server.address": path.address}
        if path.port:
            attributes["server.port"] = path.port
        if event:
            attributes = dict(event.attributes)
        if pcs:
            attributes["code.stacktrace"] = stacktrace(self._around.stack(slot, pcs))
        yield Event(
            slot=slot,
            unix_ns=event.unix_ns if event else time.time_ns(),
            name="network.finding",
            body=f"{why}{by}",
            attributes=attributes,
            trace_id=event.trace_id if event else b"",
            span_id=event.span_id if event else b"",
            sampled=event.sampled if event else False,
            warning=True,
        )
