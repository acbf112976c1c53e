"""``otel-goprobe network``: With whom Go processes talk, by function and trace, and what of it no policy allows."""

from __future__ import annotations

import errno
import logging
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otel_goprobe.errors import UsageError
from otel_goprobe.model import Event
from otel_goprobe.probes.base import Field, Hook, Itab, Role, Way
from otel_goprobe.probes.places import AtReturns, AtStart
from otel_goprobe.stacks import stacktrace
from otel_goprobe.tools import network_bpftrace, network_files, network_metrics, network_record
from otel_goprobe.tools.base import Tool, Tracepoint
from otel_goprobe.tools.network_past import sockets_of
from otel_goprobe.tools.network_policy import NetworkPath, load
from otel_goprobe.tools.network_record import (
    ACCEPTED,
    BEGUN,
    CLOSED,
    DONE,
    LISTENS,
    LOOKUP_ERRORS,
    NAME,
    RESET,
    RETRANSMITTED,
)
from otel_goprobe.tools.network_table import COLUMNS, Connection, Table, key_of
from otel_goprobe.tools.network_table import Path as TablePath

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from otel_goprobe.model import AttributeValue, Metric, Target
    from otel_goprobe.tools.base import Row, Surroundings
    from otel_goprobe.tools.network_policy import Kind

log = logging.getLogger(__name__)

_ELEMENT = struct.Struct("<QQQQII")
"""struct network_connection: began_ns, sent, received, sock, state, reserved."""
_KEY = struct.Struct("<II")
_DIALLED_WITHIN_NS = 5_000_000_000
"""Behind a lookup; then it was no dial's."""
_GIVEN_UP = "given up"
"""An attempt whose descriptor was closed before it came to an end: Go's time-outs and cancelled contexts."""
EXIT_FINDING = 4


class Network:
    """See `tools.base.Instrument`.

    Args:
        surroundings: stacks, services, maps.
        options: of the command line: ``policy``, ``learn``, ``exit_on_finding``, ``dot``, ``svg``.
    """

    def __init__(self, surroundings: Surroundings, options: Mapping[str, object]) -> None:
        self._around = surroundings
        self._table = Table()
        policy, learn = options.get("policy"), options.get("learn")
        self._policy = load(Path(str(policy))) if policy else None
        self._learn = Path(str(learn)) if learn else None
        self._drawings = {kind: Path(str(file)) for kind in ("dot", "svg") if (file := options.get(kind))}
        self._exit_on_finding = bool(options.get("exit_on_finding"))
        if self._exit_on_finding and not policy:
            raise UsageError("--exit-on-finding without a policy finds nothing", "add --policy FILE")
        network_files.check(self._learn, self._drawings)
        self._seen: dict[NetworkPath, int] = {}
        self._found = False
        self._pending: dict[tuple[int, int], Event] = {}
        self._names: dict[tuple[int, str], tuple[TablePath, Event]] = {}
        """By slot: names that were found, and perhaps are dialled now."""
        self._late: list[Event] = []
        """Findings of the last moment."""

    @property
    def exit_code(self) -> int | None:
        """4 once there is a finding, where that is to end the run."""
        return EXIT_FINDING if self._found and self._exit_on_finding else None

    # --- what happens ------------------------------------------------------------------------------------------------

    def begin(self, slot: int, target: Target) -> Iterable[Event]:
        """Take in the sockets that the target has already; no policy judges dials whose names nobody saw."""
        elements = self._around.map_of("network", "network_connections")
        events: list[Event] = []
        for one in sockets_of(target.pid):
            key = (slot, one.direction, one.protocol, "", one.address, one.port, "")
            path, _ = self._table.path(key, target.service, 0, 0)
            if path is None:
                continue
            if one.direction == "listen":
                events += self._check(slot, path, None)
                continue
            path.opened += 1
            path.open += 1
            path.attempts += one.direction == "out"
            self._table.connections[slot, one.descriptor] = Connection(path, 1 + one.descriptor, "open")
            elements.update(_KEY.pack(slot, one.descriptor), _ELEMENT.pack(1 + one.descriptor, 0, 0, 0, 1, 0))
        return events

    def take(self, records: npt.NDArray[np.void]) -> Iterator[Event]:
        """See `Instrument`."""
        times = self._around.unix_ns(records["header"]["time_ns"]).tolist()
        yield from self._undialled(times[-1] - _DIALLED_WITHIN_NS)
        for record, unix_ns in zip(records, times, strict=True):
            kind = int(record["header"]["kind"])
            if kind in (BEGUN, ACCEPTED, LISTENS):
                yield from self._begun(record, kind, unix_ns)
            elif kind == NAME:
                yield from self._asked(record, unix_ns)
            else:
                yield from self._happened(record, kind)

    def _begun(self, record: np.void, kind: int, unix_ns: int) -> Iterator[Event]:
        header = record["header"]
        slot, descriptor, now_ns = int(header["slot"]), int(record["descriptor"]), int(header["time_ns"])
        target = self._around.target(slot)
        protocol, host, address, port = network_record.destination(record)
        if target is None or (kind != BEGUN and protocol not in ("tcp", "unix")):
            return
        pcs = header["stack"][: header["frames"]].tolist()
        frame = self._around.code(slot, pcs) if kind == BEGUN else None
        direction = {BEGUN: "out", ACCEPTED: "in", LISTENS: "listen"}[kind]
        function, line = (frame.function, frame.line) if frame else ("", 0)
        path, _ = self._table.path(
            (slot, direction, protocol, host, address, port, function), target.service, line, unix_ns
        )
        if path is None:
            return
        event = self._event(record, path, unix_ns, frame.file if frame else "")
        self._names.pop((slot, host), None)
        if kind != ACCEPTED:
            yield from self._check(slot, path, event, pcs)
        if kind == LISTENS:
            return
        path.attempts += kind == BEGUN
        if (slot, descriptor) in self._table.connections:  # the record of its end was lost
            self._table.closed((slot, descriptor), now_ns, 0, 0)
        connection = Connection(path, now_ns, "connecting")
        self._table.connections[slot, descriptor] = connection
        if kind == BEGUN:
            self._pending[slot, descriptor] = event
        error = int(record["error"])
        if error != errno.EINPROGRESS:
            yield from self._outcome(slot, descriptor, connection, error, now_ns)

    def _asked(self, record: np.void, unix_ns: int) -> Iterator[Event]:
        """Take in a question for DNS with its answer."""
        slot, error = int(record["header"]["slot"]), LOOKUP_ERRORS[int(record["error"])]
        target, host = self._around.target(slot), network_record.name(record).rstrip(".")
        if target is None:
            return
        path, _ = self._table.path((slot, "name", "dns", host, "", 0, ""), target.service, 0, unix_ns)
        if path is None:
            return
        attributes: dict[str, AttributeValue] = {"dns.question.name": host}
        path.attempts += 1
        if error:
            path.failures[error] += 1
            attributes["error.type"] = error
        else:
            path.opened += 1
            path.address = network_record.address(record)
            attributes["dns.answers"] = [path.address]
        event = self._event(record, path, unix_ns, "")
        event = replace(event, name="network.lookup", body=f"{host}: {error or path.address}", attributes=attributes)
        if error:
            yield from self._check(slot, path, event)
        else:
            self._names[slot, host] = path, event
        yield event

    def _undialled(self, before_unix_ns: float) -> Iterator[Event]:
        """Judge names that were found but not dialled; a dial is judged itself, with its function."""
        for key, (path, event) in list(self._names.items()):
            if event.unix_ns < before_unix_ns:
                del self._names[key]
                yield from self._check(key[0], path, event)

    def _happened(self, record: np.void, kind: int) -> Iterator[Event]:
        slot, descriptor = int(record["header"]["slot"]), int(record["descriptor"])
        now_ns, began_ns = int(record["header"]["time_ns"]), int(record["began_ns"])
        connection = self._table.connections.get((slot, descriptor))
        if connection is None or connection.began_ns != began_ns:
            return
        if kind == DONE:
            yield from self._outcome(slot, descriptor, connection, int(record["error"]), now_ns)
        elif kind == CLOSED:
            sent, received = int(record["sent"]), int(record["received"])
            self._table.closed((slot, descriptor), now_ns, sent, received)
            if connection.state == "connecting":
                self._table.failed(connection, _GIVEN_UP)
                yield from self._said(slot, descriptor, _GIVEN_UP)
        elif kind == RETRANSMITTED:
            connection.path.retransmits += 1
        elif kind == RESET:
            connection.path.resets += 1

    def _outcome(self, slot: int, descriptor: int, connection: Connection, error: int, now_ns: int) -> Iterator[Event]:
        if error:
            name = errno.errorcode.get(error, str(error))
            self._table.failed(connection, name)
            yield from self._said(slot, descriptor, name)
        else:
            self._table.opened(connection, now_ns)
            yield from self._said(slot, descriptor, "")

    def _said(self, slot: int, descriptor: int, error: str) -> Iterator[Event]:
        """Give the event of a dial once it is known what came of it."""
        event = self._pending.pop((slot, descriptor), None)
        if event is None:
            return
        if error:
            attributes = {**event.attributes, "error.type": error}
            event = replace(event, body=f"{event.body}: {error}", attributes=attributes)
        yield event

    def _event(self, record: np.void, path: TablePath, unix_ns: int, file: str) -> Event:
        header = record["header"]
        attributes: dict[str, AttributeValue] = {
            "network.transport": path.protocol,
            "server.address": path.host or path.address,
            "network.peer.address": path.address,
        }
        if path.port:
            attributes |= {"server.port": path.port, "network.peer.port": path.port}
        if path.function:
            attributes["code.function.name"] = path.function
        if file:
            attributes |= {"code.file.path": file, "code.line.number": path.line}
        return Event(
            slot=int(header["slot"]),
            unix_ns=unix_ns,
            name="network.connect",
            body=f"{path.function or path.service} connects to {path.destination}",
            attributes=attributes,
            trace_id=header["trace_id"].tobytes() if header["span_id"] else b"",
            span_id=header["span_id"].tobytes() if header["span_id"] else b"",
            sampled=bool(header["trace_flags"] & 1),
        )

    def settle(self, event: Event, span: Mapping[str, AttributeValue]) -> None:
        """Remember the route for which a path was gone last."""
        path = self._table.paths.get(key_of(event))
        route = span.get("http.route")
        if path and route:
            path.route = str(route)

    def end(self, slot: int) -> Iterable[Event]:
        """See `Instrument`."""
        open_bytes = self._open_bytes()
        self._table.forget(slot, open_bytes)
        self._pending = {key: event for key, event in self._pending.items() if key[0] != slot}
        elements = self._around.map_of("network", "network_connections")
        for key in open_bytes:
            if key[0] == slot:
                elements.delete(_KEY.pack(*key))
        late, self._late = self._late, []
        return [*late, *self._undialled(math.inf)]

    # --- policies ----------------------------------------------------------------------------------------------------

    def _check(self, slot: int, path: TablePath, event: Event | None, pcs: Sequence[int] = ()) -> Iterator[Event]:
        """Compare a path with the policy: a finding is said once, then counted."""
        kinds: dict[str, Kind] = {"listen": "listen", "name": "name", "out": "connect"}
        kind = kinds[path.direction]
        unix = path.address if path.protocol == "unix" else ""
        ip = "" if unix or kind == "name" else path.address
        protocol = "" if kind == "name" else path.protocol
        way = NetworkPath(path.service, kind, protocol, path.host, ip, path.port, unix)
        known = way in self._seen
        self._seen[way] = self._seen.get(way, 0) + 1
        policy = self._policy
        if policy is None or not policy.checks(path.service) or policy.allows(way):
            return
        path.findings += 1
        self._found = True
        if known:
            return
        why = policy.why_not(way)
        by = f" ({path.function})" if path.function else ""
        log.warning("finding: %s%s", why, by)
        attributes: dict[str, AttributeValue] = {"server.address": path.address, "server.port": path.port}
        if event:
            attributes = dict(event.attributes)
        if pcs:
            attributes["code.stacktrace"] = stacktrace(self._around.stack(slot, pcs))
        yield Event(
            slot=slot,
            unix_ns=event.unix_ns if event else 0,
            name="network.finding",
            body=f"{why}{by}",
            attributes=attributes,
            trace_id=event.trace_id if event else b"",
            span_id=event.span_id if event else b"",
            sampled=event.sampled if event else False,
            warning=True,
        )

    # --- what comes of it --------------------------------------------------------------------------------------------

    def _open_bytes(self) -> dict[tuple[int, int], tuple[int, int, int]]:
        keys, values = self._around.map_of("network", "network_connections").items()
        found = {}
        elements = zip(_KEY.iter_unpack(keys), _ELEMENT.iter_unpack(values), strict=True)
        for key, (began_ns, sent, received, *_) in elements:
            found[key[0], key[1]] = began_ns, sent, received
        return found

    def rows(self) -> list[Row]:
        """See `Instrument`."""
        return self._table.rows(self._open_bytes())

    def metrics(self, resources: Mapping[int, Mapping[str, AttributeValue]]) -> list[Metric]:
        """See `Instrument`: connections, failures, bytes and findings by destination."""
        return network_metrics.metrics(self._table, self.rows(), resources)

    def close(self) -> None:
        """Judge what waited for a dial, write the policy that was learnt, and the drawings."""
        self._late = list(self._undialled(math.inf))
        if self._table.overflow:
            log.warning("network: %d connections of paths that found no room", self._table.overflow)
        if self._learn:
            from otel_goprobe.tools.network_learn import learn  # noqa: PLC0415 - on request

            result = learn(self._seen, self._learn)
            log.info("learnt %d paths of %d services into %s", result.paths, result.services, self._learn)
        network_files.draw(self._table.edges(), self._drawings)


_LOOKUP = "net.(*Resolver).lookupIP"

TOOL = Tool(
    stem="network",
    examples="sudo otel-goprobe network --pid 1234\n"
    "sudo otel-goprobe network --exe '*/shop' --learn policy.yaml --for 10m\n"
    "sudo otel-goprobe network --exe '*/shop' --policy policy.yaml --exit-on-finding",
    record="network_record",
    columns=COLUMNS,
    sort="opened",
    instrument=Network,
    headers=("network.h",),
    tracepoints=(
        Tracepoint("network_syscall", "sys_exit"),
        Tracepoint("network_close", "sys_enter"),
        Tracepoint("network_retransmit", "tcp_retransmit_skb"),
        Tracepoint("network_reset", "tcp_receive_reset"),
    ),
    hooks=(
        Hook(
            Role.START,
            (Way("network_dial", AtStart("net.(*Dialer).DialContext", arguments=(2, 3, 6, 7))),),
            lost="names that were asked for, and the traces of dials on goroutines of their own",
            address="dial_address",
        ),
        Hook(
            Role.START,
            (Way("network_lookup_start", AtStart(_LOOKUP, arguments=(2, 3, 6, 7))),),
            lost="names that are looked up",
            address="lookup_address",
        ),
        Hook(Role.END, (Way("network_lookup_end", AtReturns(_LOOKUP)),), lost="what came of lookups"),
    ),
    facts=(
        Field("g_parent_goid", "runtime.g", "parentGoid"),
        Itab("dns_error_itab", "*net.DNSError", "error", required=False),
        Field("dns_not_found", "net.DNSError", "IsNotFound"),
        Field("dns_timeout", "net.DNSError", "IsTimeout"),
    ),
    counters=("connections_full",),
    ring_pages=8192,
    bpftrace=network_bpftrace.script,
    options=(
        click.Option(["--policy"], metavar="FILE", help="Allowed paths, YAML; any other is a finding."),
        click.Option(["--learn"], metavar="FILE", help="Write a policy of what is seen, or add to it."),
        click.Option(["--exit-on-finding"], is_flag=True, help=f"End with {EXIT_FINDING} at the first finding."),
        click.Option(["--dot"], metavar="FILE", help="Draw who talks to whom at the end, in Graphviz' language."),
        click.Option(["--svg"], metavar="FILE", help="The same as SVG, which needs Graphviz."),
    ),
)
