"""What happens to a target's connections -> events of spans, or log records; called by network.py."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from otel_goprobe.model import Event, OwnSpan, SpanKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from otel_goprobe.model import AttributeValue
    from otel_goprobe.tools.network_table import Path


def _event(record: np.void, unix_ns: int, name: str, body: str, attributes: Mapping[str, AttributeValue]) -> Event:
    header = record["header"]
    return Event(
        slot=int(header["slot"]),
        unix_ns=unix_ns,
        name=name,
        body=body,
        attributes=attributes,
        trace_id=header["trace_id"].tobytes() if header["span_id"] else b"",
        span_id=header["span_id"].tobytes() if header["span_id"] else b"",
        sampled=bool(header["trace_flags"] & 1),
    )


def connect(record: np.void, path: Path, unix_ns: int, file: str) -> Event:
    """Return that of a dial; what came of it is to be added by `ended`."""
    attributes: dict[str, AttributeValue] = {
        "network.transport": path.protocol,
        "server.address": path.host or path.address,
        "network.peer.address": path.address,
    }
    if path.protocol != "unix":
        attributes["network.type"] = "ipv6" if ":" in path.address else "ipv4"
    if path.port:
        attributes |= {"server.port": path.port, "network.peer.port": path.port}
    if path.function:
        attributes["code.function.name"] = path.function
    if file:
        attributes |= {"code.file.path": file, "code.line.number": path.line}
    body = f"{path.function or path.service} connects to {path.destination}"
    return _event(record, unix_ns, "network.connect", body, attributes)


def ended(event: Event, error: str, took_ns: int, *, with_span: bool) -> Event:
    """Return a dial's event once it is known what came of it: an error's name, or nothing."""
    if error:
        event = replace(event, body=f"{event.body}: {error}", attributes={**event.attributes, "error.type": error})
    if with_span:
        where, port = event.attributes["server.address"], event.attributes.get("server.port")
        name = f"connect {where}:{port}" if port else f"connect {where}"
        event = replace(event, span=OwnSpan(name, SpanKind.CLIENT, event.unix_ns + took_ns))
    return event


def lookup(record: np.void, host: str, error: str, address: str, unix_ns: int) -> Event:
    """Return that of a question for DNS."""
    attributes: dict[str, AttributeValue] = {"dns.question.name": host}
    attributes |= {"error.type": error} if error else {"dns.answers": [address]}
    return _event(record, unix_ns, "network.lookup", f"{host}: {error or address}", attributes)
