"""net/http clients: what is probed, and how a request's record becomes a CLIENT span.

Three hits a request on emulated instructions: the start of ``(*Transport).roundTrip``, that of the HTTP/1 connection's,
and the branch behind both connections' (HTTP/1 and 2) at which the Transport asks whether it failed. Failures, and
HTTP/2 requests on a connection that is there already, leave by returns, which are single-stepped. Until Go 1.20 the
connection's start is single-stepped too.
"""

from __future__ import annotations

import functools
import ipaddress
import urllib.parse
from typing import TYPE_CHECKING

import numpy as np
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
)
from opentelemetry.semconv.metrics.http_metrics import HTTP_CLIENT_REQUEST_DURATION

from otel_goprobe.model import Booleans, Integers, SpanColumns, SpanKind, Strings
from otel_goprobe.probes.base import (
    TEXT_OTHER,
    AtErrorTest,
    AtOtherReturns,
    AtReturns,
    AtStart,
    Conversion,
    Duration,
    Field,
    Hook,
    Itab,
    Library,
    Role,
    Variable,
    Way,
)
from otel_goprobe.probes.http_server import METHODS, SAMPLED_LATE, query_of, split_address
from otel_goprobe.spans import derive, dictionary

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from otel_goprobe.gobinary import GoBinary
    from otel_goprobe.model import AttributeValue

CANCELED = 1
"""HTTP_CLIENT_CANCELED of the C source."""
IN_OP_ERROR = 1 << 63
"""HTTP_CLIENT_IN_OP_ERROR of the C source."""

TIMEOUTS = frozenset(
    (
        "context.deadlineExceededError",
        "*net/http.timeoutError",
        "*net/http.httpError",
        "net/http.tlsHandshakeTimeoutError",
        "*net.timeoutError",
        "*internal/poll.DeadlineExceededError",
    )
)
"""Types whose values are timeouts, told as ``timeout``: Go 1.19 to 1.27, src/context/context.go,
src/net/http/{transport,client}.go, src/net/net.go, src/internal/poll/fd.go."""
CANCELLATIONS = frozenset(("net.canceledError",))
"""Likewise, told as ``canceled``: src/net/net.go."""

_ROUND_TRIP = "net/http.(*Transport).roundTrip"
_CONNECTION = "net/http.(*persistConn).roundTrip"
_PORTS = {"http": 80, "https": 443}
_PATH_SAFE = "$&+,/:;=@"
"""What Go leaves as it is in a path, besides letters, digits and ``-_.~``: src/net/url/url.go, shouldEscape."""


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


@functools.lru_cache(4096)
def url_of(scheme: bytes, host: bytes, path: bytes, query: bytes, *, user: bool, raw_path: bool) -> str:
    """Return ``url.full``: credentials and the values of known secrets replaced by ``REDACTED``.

    Args:
        scheme: ``http`` or ``https``.
        host: with port, as the URL has it.
        path: decoded; with `raw_path` as it is sent.
        query: as it is sent.
        user: whether the URL has credentials.
        raw_path: see `path`.
    """
    credentials = "REDACTED:REDACTED@" if user else ""
    sent = _text(path) if raw_path else urllib.parse.quote(path, safe=_PATH_SAFE)
    redacted = query_of(b"?" + query)
    return f"{_text(scheme)}://{credentials}{_text(host)}{sent}{'' if redacted is None else f'?{redacted}'}"


def error_type(error: int, slot: int, conversion: Conversion) -> str:
    """Return ``error.type`` of what the kernel says of a Go error: ``timeout``, ``canceled`` or its type."""
    if error == CANCELED:
        return "canceled"
    name = conversion.type_name(slot, error & ~IN_OP_ERROR)
    if name in TIMEOUTS:
        return "timeout"
    if name in CANCELLATIONS:
        return "canceled"
    return "*net.OpError" if error & IN_OP_ERROR else name


@functools.lru_cache(4096)
def _address(peer: bytes) -> str | None:
    """An IPv6 address of 16 bytes, or the IPv4 one that is mapped into it; None for zeros."""
    address = ipaddress.IPv6Address(peer)
    if not int(address):
        return None
    return str(address.ipv4_mapped or address)


def columns(records: npt.NDArray[np.void], conversion: Conversion) -> SpanColumns:
    """Turn records of either size into spans.

    Args:
        records: shape (n,), dtype of ``http_client_record_256`` or ``http_client_record_1024``.
        conversion: the clock, names of Go types.
    """
    fixed = records["fixed"]
    header = fixed["header"]
    count = len(records)

    method_codes, methods = dictionary(records["method"], fixed["method_bytes"])
    methods = [method or b"GET" for method in methods]  # net/http/request.go: "For client requests, an empty string"
    scheme_codes, schemes = dictionary(records["scheme"], fixed["scheme_bytes"])
    host_codes, hosts = dictionary(records["host"], fixed["host_bytes"])
    peer_codes, peers = dictionary(np.ascontiguousarray(fixed["peer"]), np.full(count, 16))
    status = fixed["status"].astype(np.int64)
    error = (status >= 400) | (fixed["error"] != 0)
    port = fixed["peer_port"].astype(np.int64)
    resends = fixed["resends"].astype(np.int64)

    attributes: dict[str, Strings | Integers | Booleans] = {
        http_attributes.HTTP_REQUEST_METHOD: derive(method_codes, methods, _known),
        http_attributes.HTTP_REQUEST_METHOD_ORIGINAL: derive(
            method_codes, methods, lambda m: None if _text(m) in METHODS else _text(m)
        ),
        url_attributes.URL_FULL: _urls(records, (scheme_codes, schemes), (host_codes, hosts)),
        server_attributes.SERVER_ADDRESS: derive(host_codes, hosts, lambda h: split_address(h)[0]),
        server_attributes.SERVER_PORT: _ports((scheme_codes, schemes), (host_codes, hosts)),
        http_attributes.HTTP_RESPONSE_STATUS_CODE: Integers(status, status != 0),
        error_attributes.ERROR_TYPE: _error_types(fixed, error, conversion),
        http_attributes.HTTP_REQUEST_RESEND_COUNT: Integers(resends, resends != 0),
        network_attributes.NETWORK_PEER_ADDRESS: derive(peer_codes, peers, _address),
        network_attributes.NETWORK_PEER_PORT: Integers(port, port != 0),
        network_attributes.NETWORK_PROTOCOL_VERSION: _versions(fixed),
    }
    late = header["late"] != 0
    if late.any():
        attributes[SAMPLED_LATE] = Booleans(late, late)

    return SpanColumns(
        scope=f"otel-goprobe/{LIBRARY.import_path}",
        kind=SpanKind.CLIENT,
        slot=header["slot"].astype(np.uint16),
        trace_id=_bytes(header["trace_id"], 16, count),
        span_id=_bytes(header["span_id"], 8, count),
        parent_span_id=_bytes(header["parent_span_id"], 8, count),
        trace_flags=header["trace_flags"].astype(np.uint8),
        trace_state=Strings(np.full(count, -1, np.int32), ()),
        start_unix_ns=conversion.clock.unix_ns(header["start_ns"]),
        end_unix_ns=conversion.clock.unix_ns(header["end_ns"]),
        name=derive(method_codes, methods, lambda m: _text(m) if _text(m) in METHODS else "HTTP"),
        error=error,
        attributes=attributes,
    )


def _known(method: bytes) -> str:
    return _text(method) if _text(method) in METHODS else "_OTHER"


def _bytes(ids: npt.NDArray[np.uint64], width: int, count: int) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(ids).view(np.uint8).reshape(count, width)


_Coded = tuple["npt.NDArray[np.int32]", list[bytes]]


def _urls(records: npt.NDArray[np.void], schemes: _Coded, hosts: _Coded) -> Strings:
    """Return url.full; a path that was cut is followed by no query."""
    fixed = records["fixed"]
    path_codes, paths = dictionary(records["path"], fixed["path_bytes"])
    query_codes, queries = dictionary(records["query"], fixed["query_bytes"])
    whole = fixed["path_bytes"] < records.dtype["path"].itemsize
    table: dict[str, int] = {}
    codes = [
        table.setdefault(
            url_of(
                schemes[1][scheme],
                hosts[1][host],
                paths[path],
                queries[query] if is_whole else b"",
                user=user != 0,
                raw_path=raw_path != 0,
            ),
            len(table),
        )
        for scheme, host, path, query, is_whole, user, raw_path in zip(
            schemes[0].tolist(),
            hosts[0].tolist(),
            path_codes.tolist(),
            query_codes.tolist(),
            whole.tolist(),
            fixed["user"].tolist(),
            fixed["raw_path"].tolist(),
            strict=True,
        )
    ]
    return Strings(np.array(codes, np.int32), tuple(table))


def _ports(schemes: _Coded, hosts: _Coded) -> Integers:
    """Return the URL's port, or its scheme's own; that is required of a client's span."""
    written = np.array([int(split_address(host)[1] or 0) for host in hosts[1]], np.int64)
    usual = np.array([_PORTS.get(_text(scheme), 0) for scheme in schemes[1]], np.int64)
    ports = written[hosts[0]]
    ports = np.where(ports != 0, ports, usual[schemes[0]])
    return Integers(ports, ports != 0)


def _versions(fixed: npt.NDArray[np.void]) -> Strings:
    """Return ``1.1``, ``1.0`` or ``2`` as the response has it; none without a response."""
    pairs = fixed["protocol_major"].astype(np.int64) << 8 | fixed["protocol_minor"]
    distinct, inverse = np.unique(pairs, return_inverse=True)
    table = tuple(filter(None, map(_version, distinct.tolist())))
    codes = np.array([table.index(name) if (name := _version(pair)) else -1 for pair in distinct.tolist()], np.int32)
    return Strings(codes[inverse] if len(codes) else np.empty(0, np.int32), table)


def _version(pair: int) -> str:
    major, minor = pair >> 8, pair & 255
    return "" if not major else f"{major}.{minor}" if major == 1 else str(major)


def _error_types(fixed: npt.NDArray[np.void], error: npt.NDArray[np.bool_], conversion: Conversion) -> Strings:
    """Return what became of requests that failed: the error's type, else the status code from 400 on."""
    codes = np.full(len(fixed), -1, np.int32)
    table: dict[str, int] = {}
    for row in np.flatnonzero(error).tolist():
        value = int(fixed["error"][row])
        slot = int(fixed["header"]["slot"][row])
        name = error_type(value, slot, conversion) if value else str(fixed["status"][row])
        codes[row] = table.setdefault(name, len(table))
    return Strings(codes, tuple(table))


def _series_attributes(
    keys: npt.NDArray[np.void], texts: Mapping[int, bytes], conversion: Conversion
) -> list[dict[str, AttributeValue]]:
    """Return the attributes of http.client.request.duration (HTTP metrics conventions), one mapping a ``red_key``."""
    found = []
    for key in keys:
        status, error, version = int(key["status"]), int(key["error"]), _version_of_trait(int(key["traits"][1]))
        method = int(key["word"]).to_bytes(8, "little").rstrip(b"\0")
        scheme = "https" if key["traits"][0] else "http"
        attributes: dict[str, AttributeValue] = {
            http_attributes.HTTP_REQUEST_METHOD: _text(method) or "_OTHER",
            url_attributes.URL_SCHEME: scheme,
        }
        if key["text"] == TEXT_OTHER:
            attributes[server_attributes.SERVER_ADDRESS] = "_OTHER"
        else:
            address, port = split_address(texts.get(int(key["text"]), b""))
            if address:
                attributes[server_attributes.SERVER_ADDRESS] = address
            attributes[server_attributes.SERVER_PORT] = int(port or _PORTS[scheme])
        if version:
            attributes[network_attributes.NETWORK_PROTOCOL_VERSION] = version
        if status:
            attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] = status
        if error:
            attributes[error_attributes.ERROR_TYPE] = error_type(error, int(key["slot"]), conversion)
        elif status >= 400:
            attributes[error_attributes.ERROR_TYPE] = str(status)
        found.append(attributes)
    return found


def _version_of_trait(trait: int) -> str:
    return _version((trait >> 4) << 8 | trait & 15)


def _sends(binary: GoBinary) -> bool:
    return bool(binary.functions([_ROUND_TRIP]))


LIBRARY = Library(
    stem="http_client",
    import_path="net/http",
    side="client",
    wanted=_sends,
    hooks=(
        Hook(
            Role.END,
            (
                Way("http_client_return", AtOtherReturns(_ROUND_TRIP, _CONNECTION)),
                Way("http_client_return", AtReturns(_ROUND_TRIP)),
            ),
            lost="all requests",
        ),
        Hook(
            Role.DETAIL,
            (Way("http_client_answer", AtErrorTest(_ROUND_TRIP, _CONNECTION)),),
            lost="the cheap end of requests",
        ),
        Hook(
            Role.DETAIL,
            (Way("http_client_panic", AtStart("runtime.gopanic", arguments=(1,))),),
            lost="requests that end in a panic",
        ),
        Hook(
            Role.DETAIL,
            (Way("http_client_connection", AtStart(_CONNECTION, arguments=(1,))),),
            lost="network.peer.address, attempts that were repeated, and parents on this host",
            address="http_client_connection_address",
        ),
        Hook(
            Role.DETAIL,
            (Way("http_client_goroutine", AtReturns("runtime.newproc1")),),
            lost="parents over several goroutines",
            option="lineage",
        ),
        Hook(
            Role.START,
            (Way("http_client_request_start", AtStart(_ROUND_TRIP, arguments=(2,))),),
            lost="all requests",
            address="http_client_start_address",
        ),
    ),
    facts=(
        Itab("cancel_context_itab", "*context.cancelCtx", "context.Context"),
        Itab("error_string_itab", "*errors.errorString", "error", required=False),
        Itab("op_error_itab", "*net.OpError", "error", required=False),
        Itab("nothing_written_itab", "net/http.nothingWrittenError", "error", required=False),
        Itab("read_error_itab", "net/http.transportReadFromServerError", "error", required=False),
        Field("g_parent_goid", "runtime.g", "parentGoid", lost="parents by the goroutine that started one"),
        Variable("runtime_sched", "runtime.sched", lost="parents by the goroutine that started one"),
        Field("g_m", "runtime.g", "m"),
        Field("m_p", "runtime.m", "p"),
        Field("p_goidcache", "runtime.p", "goidcache", lost="parents by the goroutine that started one"),
        Field("persist_conn_conn", "net/http.persistConn", "conn"),
        Field("persist_conn_nwrite", "net/http.persistConn", "nwrite"),
        Field("op_error_err", "net.OpError", "Err"),
        Field("request_method", "net/http.Request", "Method", lost="http.request.method"),
        Field("request_url", "net/http.Request", "URL", required=True),
        Field("request_ctx", "net/http.Request", "ctx", required=True),
        Field("request_response", "net/http.Request", "Response", lost="http.request.resend_count"),
        Field("response_request", "net/http.Response", "Request"),
        Field("response_status_code", "net/http.Response", "StatusCode", required=True),
        Field("response_proto_major", "net/http.Response", "ProtoMajor", lost="network.protocol.version"),
        Field("response_proto_minor", "net/http.Response", "ProtoMinor"),
        Field("url_scheme", "net/url.URL", "Scheme", required=True),
        Field("url_user", "net/url.URL", "User", required=True),
        Field("url_host", "net/url.URL", "Host", required=True),
        Field("url_path", "net/url.URL", "Path", required=True),
        Field("url_raw_path", "net/url.URL", "RawPath", required=True),
        Field("url_raw_query", "net/url.URL", "RawQuery", required=True),
    ),
    records=("http_client_record_256", "http_client_record_1024"),
    columns=columns,
    duration=Duration(
        name=HTTP_CLIENT_REQUEST_DURATION,
        description="Duration of HTTP client requests.",
        bounds_s=(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
        attributes=_series_attributes,
    ),
    options=("lineage",),
    counters=("contexts_full",),
    headers=("http_client.h",),
)
