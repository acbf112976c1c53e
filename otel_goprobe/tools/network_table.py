"""Connections of all targets -> rows by who talks to whom; network.py feeds it with what happens to each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otel_goprobe.emit.service_map import Edge
from otel_goprobe.tools.base import Column

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_goprobe.model import Event
    from otel_goprobe.tools.base import Row

MAX_PATHS = 10_000
"""Rows of one run; what comes beyond is counted in `Table.overflow`: a port scan must not fill the memory."""

COLUMNS = (
    Column("service", "SERVICE"),
    Column("direction", "DIR"),
    Column("protocol", "PROTO"),
    Column("destination", "DESTINATION"),
    Column("address", "ADDRESS"),
    Column("function", "FUNCTION"),
    Column("route", "ROUTE"),
    Column("opened", "OPENED", numeric=True),
    Column("open", "OPEN", numeric=True),
    Column("sent", "SENT", numeric=True, unit="B"),
    Column("received", "RECEIVED", numeric=True, unit="B"),
    Column("connect_s", "CONNECT", numeric=True, unit="s"),
    Column("failures", "FAILURES"),
    Column("retransmits", "RETR", numeric=True),
    Column("resets", "RST", numeric=True),
    Column("findings", "FINDINGS", numeric=True),
)
"""What a row shows."""

PathKey = tuple[int, str, str, str, str, int, str]
"""Slot, direction, protocol, name asked for, address or path, port, function."""


def key_of(event: Event) -> PathKey:
    """Return the key of the path that a dial's event belongs to."""
    told = event.attributes
    host, address = str(told.get("server.address", "")), str(told.get("network.peer.address", ""))
    return (
        event.slot,
        "out",
        str(told.get("network.transport", "")),
        "" if host == address else host,
        address,
        int(str(told.get("server.port", 0))),
        str(told.get("code.function.name", "")),
    )


@dataclass(slots=True)
class Path:
    """One row: all connections of a service to one destination, by one function."""

    service: str
    direction: str
    """``out``, ``in`` or ``listen``."""
    protocol: str
    host: str
    """The name that was asked for, where it is known."""
    address: str
    """Of an IP, or a path."""
    port: int
    function: str
    line: int = 0
    attempts: int = 0
    opened: int = 0
    open: int = 0
    sent: int = 0
    received: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    connect_ns: int = 0
    """Of all that were opened since, added up."""
    timed: int = 0
    """How many these are."""
    life_ns: int = 0
    """Of all that are closed, added up."""
    closed: int = 0
    retransmits: int = 0
    resets: int = 0
    findings: int = 0
    route: str = ""
    """Of the last that came about for a request."""
    began_unix_ns: int = 0

    @property
    def destination(self) -> str:
        """What people call it."""
        name = self.host or self.address
        if not self.port:
            return name
        return f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"

    def row(self, open_bytes: tuple[int, int]) -> Row:
        """Return the row of the table; `open_bytes`: sent and received of those that are open."""
        return {
            "service": self.service,
            "direction": self.direction,
            "protocol": self.protocol,
            "destination": self.destination,
            "host": self.host,
            "address": self.address,
            "port": self.port,
            "function": self.function,
            "line": self.line or None,
            "route": self.route,
            "attempts": self.attempts,
            "opened": self.opened,
            "open": self.open,
            "sent": self.sent + open_bytes[0],
            "received": self.received + open_bytes[1],
            "failures": " ".join(_failures(self.failures)),
            "connect_s": self.connect_ns / self.timed / 1e9 if self.timed else None,
            "lifetime_s": self.life_ns / self.closed / 1e9 if self.closed else None,
            "retransmits": self.retransmits,
            "resets": self.resets,
            "findings": self.findings,
        }


@dataclass(slots=True)
class Connection:
    """One descriptor of a target that is, or is to be, a connection."""

    path: Path
    began_ns: int
    state: str
    """``connecting``, ``open``, ``failed`` or ``datagrams``: a UDP socket that isn't connected."""
    event: Event | None = None
    """To be told once it is known what came of the dial."""
    descriptors: int = 1
    """That stand for it."""


class Table:
    """Paths, and the connections that are there now."""

    def __init__(self) -> None:
        self.paths: dict[PathKey, Path] = {}
        self.connections: dict[tuple[int, int], Connection] = {}
        """By slot and descriptor."""
        self.overflow = 0
        """Connections of paths that found no room."""

    def path(self, key: PathKey, service: str, line: int, unix_ns: int) -> tuple[Path | None, bool]:
        """Return the path of a key, and whether it is new; None where there is no room for it."""
        known = self.paths.get(key)
        if known is not None:
            return known, False
        if len(self.paths) >= MAX_PATHS:
            self.overflow += 1
            return None, False
        _, direction, protocol, host, address, port, function = key
        path = Path(service, direction, protocol, host, address, port, function, line, began_unix_ns=unix_ns)
        self.paths[key] = path
        return path, True

    def opened(self, connection: Connection, now_ns: int) -> None:
        """Take in that one came about."""
        path = connection.path
        connection.state = "open"
        path.opened += 1
        path.open += 1
        path.connect_ns += max(now_ns - connection.began_ns, 0)
        path.timed += 1

    def failed(self, connection: Connection, error: str) -> None:
        """Take in that one didn't."""
        connection.state = "failed"
        connection.path.failures[error] += 1

    def duplicated(self, key: tuple[int, int], into: tuple[int, int]) -> None:
        """Take in that a connection has another descriptor."""
        connection = self.connections[key]
        connection.descriptors += 1
        self.connections[into] = connection

    def closed(self, key: tuple[int, int], now_ns: int, sent: int, received: int) -> None:
        """Take in that a descriptor that is known is closed."""
        connection = self.connections.pop(key)
        path = connection.path
        path.sent += sent
        path.received += received
        connection.descriptors -= 1
        if connection.state == "open" and not connection.descriptors:
            path.open -= 1
            path.closed += 1
            path.life_ns += max(now_ns - connection.began_ns, 0)

    def forget(self, slot: int, open_bytes: Mapping[tuple[int, int], tuple[int, int, int]]) -> None:
        """Close all of a target's that are there; `open_bytes` as for `rows`."""
        for key in [key for key in self.connections if key[0] == slot]:
            connection = self.connections.pop(key)
            connection.descriptors -= 1
            connection.path.open -= connection.state == "open" and not connection.descriptors
            began_ns, sent, received = open_bytes.get(key, (0, 0, 0))
            if began_ns == connection.began_ns:
                connection.path.sent += sent
                connection.path.received += received

    def rows(
        self,
        open_bytes: Mapping[tuple[int, int], tuple[int, int, int]],
        flows: Iterable[tuple[Path, int, int]] = (),
    ) -> list[Row]:
        """Return all rows.

        Args:
            open_bytes: slot and descriptor -> when it began, sent, received, of descriptors that are open now.
            flows: path, sent and received of what is open now and has no descriptor of its own.
        """
        moved = list(flows)
        for key, (began_ns, sent, received) in open_bytes.items():
            connection = self.connections.get(key)
            if connection and connection.began_ns == began_ns:
                moved.append((connection.path, sent, received))
        by_path: dict[int, tuple[int, int]] = {}
        for path, sent, received in moved:
            before = by_path.get(id(path), (0, 0))
            by_path[id(path)] = before[0] + sent, before[1] + received
        return [path.row(by_path.get(id(path), (0, 0))) for path in self.paths.values()]

    def edges(self) -> list[Edge]:
        """Return what is dialled, as arrows; where a watched service listens at the other end, to that service."""
        listening = {
            (path.address, path.port): path.service for path in self.paths.values() if path.direction == "listen"
        }
        edges = []
        for path in self.paths.values():
            if path.direction == "out":
                label = "\n".join([f"{path.protocol} {path.opened}", *_failures(path.failures)])
                to = listening.get((path.address, path.port), path.destination)
                edges.append(Edge(path.service, to, label, bool(path.findings)))
        return edges


def _failures(failures: Counter[str]) -> list[str]:
    return [f"{name}:{count}" for name, count in sorted(failures.items())]
