"""``otel-goprobe network``: With whom Go processes talk, by function and trace, and what of it no policy allows."""

from __future__ import annotations

import errno
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otel_goprobe.errors import UsageError
from otel_goprobe.probes.base import Field, Hook, Itab, Role, Way
from otel_goprobe.probes.places import AtReturns, AtStart
from otel_goprobe.tools import network_bpftrace, network_events, network_files, network_metrics, network_record
from otel_goprobe.tools.base import Tool, Tracepoint
from otel_goprobe.tools.network_callers import Callers
from otel_goprobe.tools.network_findings import Findings
from otel_goprobe.tools.network_maps import Flows, Sockets
from otel_goprobe.tools.network_past import sockets_of
from otel_goprobe.tools.network_policy import load
from otel_goprobe.tools.network_record import (
    ACCEPTED,
    BEGUN,
    CLOSED,
    CLOSED_RANGE,
    DONE,
    DUPLICATED,
    LISTENS,
    LOOKUP_ERRORS,
    NAME,
    RECEIVED_FROM,
    RESET,
    RETRANSMITTED,
    SENT_TO,
)
from otel_goprobe.tools.network_table import COLUMNS, Connection, Table, key_of
from otel_goprobe.tools.network_table import Path as TablePath

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy as np
    import numpy.typing as npt

    from otel_goprobe.model import AttributeValue, Event, Metric, Target
    from otel_goprobe.tools.base import Row, Surroundings

log = logging.getLogger(__name__)

_DIALLED_WITHIN_NS = 5_000_000_000
"""Behind a lookup; then it was no dial's."""
_GIVEN_UP = "given up"
"""An attempt whose descriptor was closed before it came to an end: Go's time-outs and cancelled contexts."""
EXIT_FINDING = 4


class Network:
    """See `tools.base.Instrument`.

    Args:
        surroundings: stacks, services, maps.
        options: of the command line: ``policy``, ``learn``, ``dial_spans``, ``exit_on_finding``, ``dot``, ``svg``.
    """

    def __init__(self, surroundings: Surroundings, options: Mapping[str, object]) -> None:
        self._around = surroundings
        self._table = Table()
        policy, learn = options.get("policy"), options.get("learn")
        self._findings = Findings(surroundings, load(Path(str(policy))) if policy else None)
        self._learn = Path(str(learn)) if learn else None
        self._drawings = {kind: Path(str(file)) for kind in ("dot", "svg") if (file := options.get(kind))}
        self._dial_spans = bool(options.get("dial_spans"))
        self._exit_on_finding = bool(options.get("exit_on_finding"))
        if self._exit_on_finding and not policy:
            raise UsageError("--exit-on-finding without a policy finds nothing", "add --policy FILE")
        network_files.check(self._learn, self._drawings)
        self._sockets = Sockets(surroundings)
        self._flows = Flows(surroundings)
        self._callers = Callers(surroundings)
        self._names: dict[tuple[int, str], tuple[TablePath, Event]] = {}
        """By slot: names that were found, and perhaps are dialled now."""
        self._late: list[Event] = []
        """Findings of the last moment."""

    @property
    def exit_code(self) -> int | None:
        """4 once there is a finding, where that is to end the run."""
        return EXIT_FINDING if self._findings.found and self._exit_on_finding else None

    # --- what happens ------------------------------------------------------------------------------------------------

    def begin(self, slot: int, target: Target) -> Iterable[Event]:
        """Take in the sockets that the target has already; no policy judges dials whose names nobody saw."""
        events: list[Event] = []
        for one in sockets_of(target.pid):
            key = (slot, one.direction, one.protocol, "", one.address, one.port, "")
            path, _ = self._table.path(key, target.service, 0, 0)
            if path is None:
                continue
            if one.direction == "listen":
                events += self._findings.check(slot, path, None)
                continue
            path.opened += 1
            path.open += 1
            path.attempts += one.direction == "out"
            first, *others = one.descriptors
            self._table.connections[slot, first] = Connection(path, 1 + first, "open")
            for descriptor in others:
                self._table.duplicated((slot, first), (slot, descriptor))
            for descriptor in one.descriptors:
                self._sockets.add(slot, descriptor, 1 + first)
        return events

    def take(self, records: npt.NDArray[np.void]) -> Iterator[Event]:
        """See `Instrument`."""
        times = self._around.unix_ns(records["header"]["time_ns"]).tolist()
        yield from self._undialled(times[-1] - _DIALLED_WITHIN_NS)
        for record, unix_ns in zip(records, times, strict=True):
            kind = int(record["header"]["kind"])
            if kind in network_record.DIRECTIONS:
                yield from self._begun(record, kind, unix_ns)
            elif kind == NAME:
                yield from self._asked(record, unix_ns)
            else:
                yield from self._happened(record, kind)

    def _begun(self, record: np.void, kind: int, unix_ns: int) -> Iterator[Event]:
        header = record["header"]
        slot, descriptor, began_ns = int(header["slot"]), int(record["descriptor"]), int(record["began_ns"])
        target = self._around.target(slot)
        protocol, host, address, port = network_record.destination(record)
        if target is None or (kind in (ACCEPTED, LISTENS) and protocol not in ("tcp", "unix")):
            return
        if kind == BEGUN and protocol == "udp" and self._callers.asks_for_its_own_address(header, port):
            return
        frame = self._callers.code(header) if kind in network_record.DIALS else None
        direction = network_record.DIRECTIONS[kind]
        function, line = (frame.function, frame.line) if frame else ("", 0)
        path, _ = self._table.path(
            (slot, direction, protocol, host, address, port, function), target.service, line, unix_ns
        )
        if path is None:
            return
        event = network_events.connect(record, path, unix_ns, frame.file if frame else "")
        self._names.pop((slot, host), None)
        if direction != "in":
            yield from self._findings.check(slot, path, event, header["stack"][: header["frames"]].tolist())
        if kind == LISTENS:
            return
        before = self._table.connections.get((slot, descriptor))
        if before and before.began_ns != began_ns:  # the record of its end found no room
            self._table.closed((slot, descriptor), began_ns, 0, 0)
        if kind in (SENT_TO, RECEIVED_FROM):
            yield from self._flow(record, kind, path, event)
            return
        path.attempts += kind == BEGUN
        connection = Connection(path, began_ns, "connecting", event if kind == BEGUN else None)
        self._table.connections[slot, descriptor] = connection
        error = int(record["error"])
        if error != errno.EINPROGRESS:
            yield from self._outcome(connection, error, int(header["time_ns"]))

    def _flow(self, record: np.void, kind: int, path: TablePath, event: Event) -> Iterator[Event]:
        """Take in the other end of a UDP socket that isn't connected."""
        slot, began_ns = event.slot, int(record["began_ns"])
        key = slot, int(record["descriptor"])
        if not self._flows.add(record, path):
            self._table.overflow += 1
            return
        self._table.connections[key] = Connection(path, began_ns, "datagrams")
        path.attempts += kind == SENT_TO
        path.opened += 1
        path.open += 1
        if kind == SENT_TO:
            yield event
            return
        own = network_record.own_address(record)
        listening, new = self._table.path(
            (slot, "listen", "udp", "", own, path.port, ""), path.service, 0, event.unix_ns
        )
        if listening and new:
            yield from self._findings.check(slot, listening, None)

    def _asked(self, record: np.void, unix_ns: int) -> Iterator[Event]:
        """Take in a question for DNS with its answer."""
        slot, error = int(record["header"]["slot"]), LOOKUP_ERRORS[int(record["error"])]
        target, host = self._around.target(slot), network_record.name(record).rstrip(".")
        if target is None:
            return
        path, _ = self._table.path((slot, "name", "dns", host, "", 0, ""), target.service, 0, unix_ns)
        if path is None:
            return
        path.attempts += 1
        if error:
            path.failures[error] += 1
        else:
            path.opened += 1
            path.address = network_record.address(record)
        event = network_events.lookup(record, host, error, path.address, unix_ns)
        if error:
            yield from self._findings.check(slot, path, event)
        else:
            self._names[slot, host] = path, event
        yield event

    def _undialled(self, before_unix_ns: float) -> Iterator[Event]:
        """Judge names that were found but not dialled; a dial is judged itself, with its function."""
        for key, (path, event) in list(self._names.items()):
            if event.unix_ns < before_unix_ns:
                del self._names[key]
                yield from self._findings.check(key[0], path, event)

    def _happened(self, record: np.void, kind: int) -> Iterator[Event]:
        slot, descriptor = int(record["header"]["slot"]), int(record["descriptor"])
        now_ns, began_ns = int(record["header"]["time_ns"]), int(record["began_ns"])
        key = slot, descriptor
        if kind == CLOSED_RANGE:
            yield from self._closed_range(slot, descriptor, int(record["error"]), now_ns)
        if kind == DUPLICATED:
            key = slot, int(record["error"])
        connection = self._table.connections.get(key)
        if connection is None or connection.began_ns != began_ns:
            return
        if kind == DONE:
            yield from self._outcome(connection, int(record["error"]), now_ns)
        elif kind == CLOSED:
            yield from self._closed(key, connection, now_ns, (int(record["sent"]), int(record["received"])))
        elif kind == DUPLICATED:
            self._table.duplicated(key, (slot, descriptor))
        elif kind == RETRANSMITTED:
            connection.path.retransmits += 1
        elif kind == RESET and connection.state == "open":  # else it is refused
            connection.path.resets += 1

    def _closed_range(self, slot: int, first: int, last: int, now_ns: int) -> Iterator[Event]:
        counted = self._sockets.bytes()
        for key, connection in list(self._table.connections.items()):
            began_ns, sent, received = counted.get(key, (0, 0, 0))
            # Where another has the descriptor by now, a record of the end is to come.
            if key[0] == slot and first <= key[1] <= last and connection.began_ns == began_ns < now_ns:
                yield from self._closed(key, connection, now_ns, (sent, received))

    def _closed(
        self, key: tuple[int, int], connection: Connection, now_ns: int, moved: tuple[int, int]
    ) -> Iterator[Event]:
        self._table.closed(key, now_ns, *moved)
        if connection.descriptors:
            return
        if connection.state == "datagrams":
            self._flows.closed(key[0], connection.began_ns)
        elif connection.state == "connecting":
            yield from self._outcome(connection, _GIVEN_UP, now_ns)

    def _outcome(self, connection: Connection, error: int | str, now_ns: int) -> Iterator[Event]:
        """Take in what came of a dial, and give its event."""
        if connection.state != "connecting":
            return
        if not error:
            self._table.opened(connection, now_ns)
        elif isinstance(error, str):
            self._table.failed(connection, error)
        else:
            error = errno.errorcode.get(error, str(error))
            self._table.failed(connection, error)
        event, connection.event = connection.event, None
        if event:
            took_ns = now_ns - connection.began_ns
            yield network_events.ended(event, str(error or ""), took_ns, with_span=self._dial_spans)

    def settle(self, event: Event, span: Mapping[str, AttributeValue]) -> None:
        """Remember the route for which a path was gone last."""
        path = self._table.paths.get(key_of(event))
        route = span.get("http.route")
        if path and route:
            path.route = str(route)

    def end(self, slot: int) -> Iterable[Event]:
        """See `Instrument`."""
        counted = self._sockets.bytes()
        self._table.forget(slot, counted)
        self._flows.forget(slot)
        self._sockets.forget(slot, counted)
        self._callers.forget(slot)
        late, self._late = self._late, []
        return [*late, *self._undialled(math.inf)]

    # --- what comes of it --------------------------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """See `Instrument`."""
        return self._table.rows(self._sockets.bytes(), self._flows.bytes())

    def metrics(self, resources: Mapping[int, Mapping[str, AttributeValue]]) -> list[Metric]:
        """See `Instrument`: connections, failures, bytes and findings by destination."""
        return network_metrics.metrics(self._table, self.rows(), resources)

    def close(self) -> None:
        """Judge what waited for a dial, write the policy that was learnt, and the drawings."""
        self._late = list(self._undialled(math.inf))
        if self._table.overflow:
            log.warning("network: %d connections of paths that found no room", self._table.overflow)
        if self._sockets.without_room:
            log.warning(
                "network: %d that were open before found no room: neither their bytes nor their ends are known",
                self._sockets.without_room,
            )
        if self._learn:
            from otel_goprobe.tools.network_learn import learn  # noqa: PLC0415 - on request

            result = learn(self._findings.seen, self._learn)
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
    follows=(DONE, CLOSED, RETRANSMITTED, RESET, DUPLICATED, CLOSED_RANGE),
    headers=("network.h", "network_connections.h", "network_datagrams.h"),
    tracepoints=(
        Tracepoint("network_syscall", "sys_exit"),
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
        click.Option(["--dial-spans"], is_flag=True, help="Make a span of each dial, too."),
        click.Option(["--exit-on-finding"], is_flag=True, help=f"End with {EXIT_FINDING} at the first finding."),
        click.Option(["--dot"], metavar="FILE", help="Draw who talks to whom at the end, in Graphviz' language."),
        click.Option(["--svg"], metavar="FILE", help="The same as SVG, which needs Graphviz."),
    ),
)
