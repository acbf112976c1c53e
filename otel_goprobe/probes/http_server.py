"""net/http servers, HTTP/1: what is probed, and how a request's record becomes a SERVER span.

Three hits a request on emulated instructions: the start of `serverHandler.ServeHTTP`, that of each `ServeMux` it comes
by (for the route), and `finishRequest`. `conn.serve.func1` fires once a connection, `gopanic` once a panic. Where the
main module says ``go 1.21`` a fourth, behind the mux's look-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from opentelemetry.semconv.attributes import (
    client_attributes,
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
    user_agent_attributes,
)
from opentelemetry.semconv.metrics.http_metrics import HTTP_SERVER_REQUEST_DURATION

from otel_goprobe.model import Booleans, Integers, SpanColumns, SpanKind, Strings
from otel_goprobe.probes.base import (
    TEXT_OTHER,
    Active,
    Block,
    Conversion,
    Duration,
    Field,
    Hook,
    Itab,
    Library,
    Role,
    Way,
)
from otel_goprobe.probes.http_text import METHODS, decoded, path_of, query_of, route_of, split_address
from otel_goprobe.probes.places import AfterCalls, AtReturns, AtStart, linked
from otel_goprobe.spans import combine, derive, dictionary, recorded

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from otel_goprobe.model import AttributeValue

DURATION_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""That the conventions ask of histograms of HTTP durations (HTTP metrics, ExplicitBucketBoundaries)."""

GOEXIT = 1
"""HTTP_SERVER_GOEXIT of the C source."""

ANSWERED, HIJACKED, PANICKED = range(3)
"""As `enum http_server_end` has them."""

_SERVER = "net/http.serverHandler.ServeHTTP"
_SERVE = "net/http.(*conn).serve"
_FINISH = "net/http.(*response).finishRequest"
_MUX = "net/http.(*ServeMux)"
_MUX_121 = "net/http.(*serveMux121)"
"""Since Go 1.22: what a ServeMux asks under GODEBUG=httpmuxgo121=1, the default of a main module that says go 1.21."""


def _integers(column: Strings) -> Integers:
    table = np.array([*(int(value) for value in column.table), 0], np.int64)
    return Integers(table[column.codes], column.codes >= 0)


def _span_name(method: str | None, route: str | None) -> str:
    return f"{method} {route}" if route else str(method)


def _constants(codes: npt.NDArray[np.integer], table: tuple[str, ...]) -> Strings:
    return Strings(codes.astype(np.int32), table)


def columns(records: npt.NDArray[np.void], conversion: Conversion) -> SpanColumns:
    """Turn records of either size into spans.

    Args:
        records: shape (n,), dtype of ``http_server_record_256`` or ``http_server_record_1024``.
        conversion: the clock, the run's options, names of Go types.
    """
    fixed = records["fixed"]

    (method_codes, methods), (uri_codes, uris) = request_lines(records)
    host_codes, hosts = dictionary(records["host"], fixed["host_bytes"])
    peer_codes, peers = dictionary(records["peer"], fixed["peer_bytes"])
    route_codes, routes = dictionary(records["route"], fixed["route_bytes"])

    known = derive(method_codes, methods, lambda m: decoded(m) if decoded(m) in METHODS else "_OTHER")
    name_method = derive(method_codes, methods, lambda m: decoded(m) if decoded(m) in METHODS else "HTTP")
    route = derive(route_codes, routes, route_of)
    peer_address = derive(peer_codes, peers, lambda p: split_address(p)[0])
    scheme = _constants(fixed["tls"] != 0, ("http", "https"))

    status = fixed["status"].astype(np.int64)
    end = fixed["end"]
    status[(status == 0) & (end == ANSWERED)] = 200  # net/http's own default, server.go: finishRequest
    status[(status == 0) & (end == HIJACKED)] = 101
    error = (status >= 500) | (end == PANICKED)

    attributes: dict[str, Strings | Integers | Booleans] = {
        http_attributes.HTTP_REQUEST_METHOD: known,
        http_attributes.HTTP_REQUEST_METHOD_ORIGINAL: derive(
            method_codes, methods, lambda m: None if decoded(m) in METHODS else decoded(m) or None
        ),
        url_attributes.URL_PATH: derive(uri_codes, uris, path_of),
        url_attributes.URL_SCHEME: scheme,
        http_attributes.HTTP_ROUTE: route,
        http_attributes.HTTP_RESPONSE_STATUS_CODE: Integers(status, status != 0),
        error_attributes.ERROR_TYPE: _error_types(fixed, status, error, conversion),
        server_attributes.SERVER_ADDRESS: derive(host_codes, hosts, lambda h: split_address(h)[0]),
        server_attributes.SERVER_PORT: _integers(derive(host_codes, hosts, lambda h: split_address(h)[1])),
        client_attributes.CLIENT_ADDRESS: peer_address,
        network_attributes.NETWORK_PEER_ADDRESS: peer_address,
        network_attributes.NETWORK_PEER_PORT: _integers(derive(peer_codes, peers, lambda p: split_address(p)[1])),
        network_attributes.NETWORK_PROTOCOL_VERSION: _versions(fixed),
    }
    if "url_query" in conversion.options:
        attributes[url_attributes.URL_QUERY] = derive(uri_codes, uris, query_of)
    if "user_agent" in conversion.options and "user_agent" in (records.dtype.names or ()):
        agent_codes, agents = dictionary(records["user_agent"], fixed["user_agent_bytes"])
        original = derive(agent_codes, agents, lambda agent: decoded(agent) or None)
        attributes[user_agent_attributes.USER_AGENT_ORIGINAL] = original

    return recorded(
        records,
        conversion.clock,
        import_path=LIBRARY.import_path,
        kind=SpanKind.SERVER,
        name=combine(name_method, route, _span_name),
        error=error,
        attributes=attributes,
    )


def request_lines(records: npt.NDArray[np.void]) -> list[tuple[npt.NDArray[np.int32], list[bytes]]]:
    """Return methods and request targets, each as `dictionary` does: codes of shape (n,), distinct texts.

    Args:
        records: shape (n,); ``line`` holds a method of ``fixed.method_bytes`` bytes, a space, the target. Without a
            method it is the target alone.
    """
    codes, lines = dictionary(records["line"], records["fixed"]["line_bytes"])
    method_bytes = np.zeros(len(lines), np.int64)
    method_bytes[codes] = records["fixed"]["method_bytes"]
    found = []
    for parts in (
        [line[:size] for line, size in zip(lines, method_bytes.tolist(), strict=True)],
        [line[size + 1 :] if size else line for line, size in zip(lines, method_bytes.tolist(), strict=True)],
    ):
        table: dict[bytes, int] = {}
        translation = np.array([table.setdefault(part, len(table)) for part in parts], np.int32)
        found.append((translation[codes], list(table)))
    return found


def _versions(fixed: npt.NDArray[np.void]) -> Strings:
    pairs = fixed["protocol_major"].astype(np.int64) << 8 | fixed["protocol_minor"]
    distinct, inverse = np.unique(pairs, return_inverse=True)
    names = [version_of(pair >> 8, pair & 255) for pair in distinct.tolist()]
    return Strings(inverse.astype(np.int32), tuple(names))


def version_of(major: int, minor: int) -> str:
    """Return network.protocol.version: ``1.1``, ``2``."""
    return f"{major}.{minor}" if major == 1 else str(major)


def _error_types(
    fixed: npt.NDArray[np.void], status: npt.NDArray[np.int64], error: npt.NDArray[np.bool_], conversion: Conversion
) -> Strings:
    """Return the status code of answers from 500 on, the type of the value that a handler panicked with."""
    codes = np.full(len(fixed), -1, np.int32)
    table: dict[str, int] = {}
    for row in np.flatnonzero(error).tolist():
        if fixed["end"][row] != PANICKED:
            name = str(status[row])
        elif fixed["panic_type"][row]:
            name = conversion.type_name(int(fixed["header"]["slot"][row]), int(fixed["panic_type"][row]))
        else:
            name = "runtime.Goexit"
        codes[row] = table.setdefault(name, len(table))
    return Strings(codes, tuple(table))


def _series_attributes(
    keys: npt.NDArray[np.void], texts: Mapping[int, bytes], conversion: Conversion
) -> list[dict[str, AttributeValue]]:
    """Return the attributes of http.server.request.duration (HTTP metrics conventions), one mapping a ``red_key``."""
    found = []
    for key in keys:
        status, error, version = int(key["status"]), int(key["error"]), int(key["traits"][1])
        attributes: dict[str, AttributeValue] = method_and_scheme(key["word"], key["traits"][0])
        attributes[network_attributes.NETWORK_PROTOCOL_VERSION] = version_of(version >> 4, version & 15)
        if status:
            attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] = status
        if error == GOEXIT:
            attributes[error_attributes.ERROR_TYPE] = "runtime.Goexit"
        elif error:
            attributes[error_attributes.ERROR_TYPE] = conversion.type_name(int(key["slot"]), error)
        elif status >= 500:
            attributes[error_attributes.ERROR_TYPE] = str(status)
        route = "_OTHER" if key["text"] == TEXT_OTHER else route_of(texts.get(int(key["text"]), b""))
        if route:
            attributes[http_attributes.HTTP_ROUTE] = route
        found.append(attributes)
    return found


def _active_attributes(in_flight: npt.NDArray[np.void]) -> list[dict[str, AttributeValue]]:
    return [method_and_scheme(request["method"], request["tls"]) for request in in_flight]


def method_and_scheme(word: np.uint64, tls: np.integer) -> dict[str, AttributeValue]:
    """Return http.request.method and url.scheme, given what C keeps of them."""
    method = int(word).to_bytes(8, "little").rstrip(b"\0")
    return {
        http_attributes.HTTP_REQUEST_METHOD: decoded(method) or "_OTHER",
        url_attributes.URL_SCHEME: "https" if tls else "http",
    }


LIBRARY = Library(
    stem="http_server",
    import_path="net/http",
    wanted=linked(_SERVER, _SERVE),
    hooks=(
        Hook(
            Role.END,
            (
                Way("http_server_finish_request", AtStart(_FINISH, arguments=(1,))),
                # Where a profile inlined it: what serve asks behind every handler that returned; else dear RETs.
                Way("http_server_request_return", AfterCalls(_SERVE, "net/http.(*conn).hijacked", results=())),
                Way("http_server_request_return", AtReturns(_SERVER)),
            ),
            lost="all requests",
        ),
        Hook(
            Role.END,
            (
                Way(
                    "http_server_conn_end",
                    AtStart(f"{_SERVE}.func1", calling="net/http.(*conn).hijacked", arguments=()),
                ),
            ),
            lost="all requests",
        ),
        Hook(
            Role.DETAIL,
            (Way("http_server_panic", AtStart("runtime.gopanic", arguments=(1,))),),
            lost="error.type of handlers that panic",
        ),
        Hook(
            Role.DETAIL,
            (Way("http_server_mux_start", AtStart(f"{_MUX}.ServeHTTP", arguments=(4,))),),
            lost="http.route",
            wanted=linked(f"{_MUX}.ServeHTTP"),
        ),
        Hook(
            Role.DETAIL,
            (
                Way("http_server_mux_matched", AfterCalls(f"{_MUX}.ServeHTTP", f"{_MUX_121}.findHandler")),
                Way("http_server_mux_matched", AfterCalls(f"{_MUX}.ServeHTTP", f"{_MUX}.Handler")),
                Way("http_server_mux_matched", AtReturns(f"{_MUX_121}.findHandler")),
                Way("http_server_mux_matched", AtReturns(f"{_MUX}.Handler")),
            ),
            lost="http.route of a mux that behaves as Go 1.21's",
            wanted=linked(f"{_MUX}.ServeHTTP"),
        ),
        Hook(
            Role.START,
            (
                Way("http_server_request_start", AtStart(_SERVER, arguments=(2, 3, 4))),
                Way("http_server_request_read", AfterCalls(_SERVE, "net/http.(*conn).readRequest", results=(1,))),
            ),
            lost="all requests",
            address="http_server_start_address",
            unless="follows_b3",
        ),
        Hook(
            Role.START,
            (
                Way("http_server_request_start_b3", AtStart(_SERVER, arguments=(2, 3, 4))),
                Way("http_server_request_read_b3", AfterCalls(_SERVE, "net/http.(*conn).readRequest", results=(1,))),
            ),
            lost="all requests",
            address="http_server_start_address",
            option="follows_b3",
        ),
    ),
    facts=(
        Itab("http_server_response_itab", "*net/http.response", "net/http.ResponseWriter"),
        Field("g_parent_goid", "runtime.g", "parentGoid", lost="http.route behind an http.TimeoutHandler"),
        Field("request_method", "net/http.Request", "Method", lost="http.request.method"),
        Field("request_uri", "net/http.Request", "RequestURI", required=True),
        Field("request_host", "net/http.Request", "Host", lost="server.address"),
        Field("request_header", "net/http.Request", "Header"),
        Field("request_proto_major", "net/http.Request", "ProtoMajor", lost="network.protocol.version"),
        Field("request_proto_minor", "net/http.Request", "ProtoMinor"),
        Block(
            "request_block",
            "net/http.Request",
            ("Method", "RequestURI", "Host", "Header", "ProtoMajor", "ProtoMinor"),
        ),
        Field("request_pattern", "net/http.Request", "Pattern"),
        Field("request_pat", "net/http.Request", "pat"),
        Field("pattern_str", "net/http.pattern", "str"),
        Field("response_req", "net/http.response", "req"),
        Field("response_conn", "net/http.response", "conn", lost="network.peer.address"),
        Field("response_status", "net/http.response", "status", required=True),
        Field("http_conn_rwc", "net/http.conn", "rwc", lost="parents on this host"),
        Field("conn_remote_addr", "net/http.conn", "remoteAddr", lost="client.address"),
        Field("conn_tls_state", "net/http.conn", "tlsState", lost="url.scheme"),
        Field("conn_hijacked", "net/http.conn", "hijackedv"),
    ),
    records=("http_server_record_256", "http_server_record_1024"),
    columns=columns,
    duration=Duration(
        name=HTTP_SERVER_REQUEST_DURATION,
        description="Duration of HTTP server requests.",
        bounds_s=DURATION_BOUNDS_S,
        attributes=_series_attributes,
        span_kind=SpanKind.SERVER,
        span_attributes=(
            http_attributes.HTTP_REQUEST_METHOD,
            url_attributes.URL_SCHEME,
            network_attributes.NETWORK_PROTOCOL_VERSION,
            http_attributes.HTTP_RESPONSE_STATUS_CODE,
            error_attributes.ERROR_TYPE,
            http_attributes.HTTP_ROUTE,
        ),
        active=Active(
            name="http.server.active_requests",
            unit="{request}",
            description="Number of active HTTP server requests.",
            attributes=_active_attributes,
        ),
    ),
    macros=(
        (
            "HTTP_SERVER_KNOWN_METHOD(word)",
            " || ".join(f"(word) == {int.from_bytes(method.encode(), 'little'):#x}ULL" for method in sorted(METHODS)),
        ),
    ),
    options=("tracecontext", "b3", "b3multi", "follows_b3", "user_agent", "url_query"),
    counters=("tracestate_dropped",),
    headers=("http_server.h", "http_server_span.h", "http_server_kept.h", "http_server_route.h"),
)
