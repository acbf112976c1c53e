"""valyala/fasthttp servers: what is probed, and how a request's record becomes the SERVER span that net/http's does.

Two hits a request on emulated instructions of ``serveConnCounted`` (up to v1.65 ``serveConn``), which answers all
requests of a connection: the call that asks for ``Expect: 100-continue``, behind which the handler runs, and behind the
one that writes the answer. What it defers fires once a connection. Routers that run in a handler, as fiber's, tell the
route.

fasthttp recovers from no panic: a handler's ends the program, and its request has no span. One that the handler, or a
middleware, recovers from is answered like any other. Before v1.16 headers were parsed when a handler asked for them:
nothing is instrumented there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from opentelemetry.semconv.attributes import client_attributes, network_attributes

from otel_goprobe.model import Integers
from otel_goprobe.probes.base import Block, Field, Hook, Library, Role, Way
from otel_goprobe.probes.http_server import LIBRARY as HTTP_SERVER
from otel_goprobe.probes.http_text import address_of
from otel_goprobe.probes.places import AfterCalls, AtCalls, AtStart, linked
from otel_goprobe.spans import derive, dictionary

if TYPE_CHECKING:
    import numpy.typing as npt

    from otel_goprobe.gobinary import GoBinary
    from otel_goprobe.model import SpanColumns
    from otel_goprobe.probes.base import Conversion

_PACKAGE = "github.com/valyala/fasthttp"
_COUNTED = f"{_PACKAGE}.(*Server).serveConnCounted"
_SERVES = (_COUNTED, f"{_PACKAGE}.(*Server).serveConn")
_ERROR = f"{_PACKAGE}.(*Server).writeErrorResponse"
_WRITE = f"{_PACKAGE}.writeResponse"
_RESPONSE = f"{_PACKAGE}.Response"
_RESPONSE_WRITE = f"{_PACKAGE}.(*Response).Write"

_ADDRESS_BYTES = 16


def _keeps_response(binary: GoBinary) -> bool:
    """Whether ``serveConn`` itself empties the Response, for the next request; else ``writeResponse`` did (v1.16)."""
    reset = f"{_PACKAGE}.(*Response).Reset"
    found = binary.functions([*_SERVES, reset])
    return reset in found and any(serve in found and binary.calls(found[serve], found[reset]) for serve in _SERVES)


def _empties_response(binary: GoBinary) -> bool:
    return not _keeps_response(binary)


def _peer_address(peer: bytes) -> str | None:
    return address_of(peer[:_ADDRESS_BYTES]) if len(peer) >= _ADDRESS_BYTES else None


def columns(records: npt.NDArray[np.void], conversion: Conversion) -> SpanColumns:
    """Turn records of either size into spans, as http_server.py does but for the peer's address, which isn't text.

    Args:
        records: shape (n,), dtype of ``http_server_record_256`` or ``http_server_record_1024``.
        conversion: as for http_server.py's.
    """
    found = HTTP_SERVER.columns(records, conversion)
    codes, peers = dictionary(records["peer"], records["fixed"]["peer_bytes"])
    address = derive(codes, peers, _peer_address)
    ports = np.array([int.from_bytes(peer[_ADDRESS_BYTES:], "little") for peer in peers], np.int64)[codes]
    attributes = {
        **found.attributes,
        client_attributes.CLIENT_ADDRESS: address,
        network_attributes.NETWORK_PEER_ADDRESS: address,
        network_attributes.NETWORK_PEER_PORT: Integers(ports, ports != 0),
    }
    return replace(found, scope=f"otel-goprobe/{_PACKAGE}", attributes=attributes)


LIBRARY = Library(
    stem="fasthttp_server",
    import_path=_PACKAGE,
    wanted=linked(*_SERVES),
    hooks=(
        Hook(
            Role.END,
            (
                *(Way("fasthttp_server_written", AfterCalls(serve, _WRITE, results=())) for serve in _SERVES),
                *(Way("fasthttp_server_written", AfterCalls(serve, _RESPONSE_WRITE, results=())) for serve in _SERVES),
            ),
            lost="all requests",
            wanted=_keeps_response,
        ),
        Hook(
            Role.END,
            (
                Way("fasthttp_server_written", AfterCalls(_WRITE, _RESPONSE_WRITE, results=())),
                *(Way("fasthttp_server_writes", AtCalls(serve, _WRITE)) for serve in _SERVES),
            ),
            lost="all requests",
            wanted=_empties_response,
        ),
        Hook(
            Role.END,
            (
                Way("fasthttp_server_conn_end", AtStart(f"{_COUNTED}.deferwrap1", arguments=())),
                # So they are called up to Go 1.21.
                *(
                    Way(
                        "fasthttp_server_conn_end",
                        AtStart(f"{serve}.func1", calling=f"{_PACKAGE}.(*Server).serveConnCleanup", arguments=()),
                    )
                    for serve in _SERVES
                ),
                Way("fasthttp_server_conn_end", AtStart(f"{_SERVES[1]}.deferwrap1", arguments=())),
            ),
            lost="all requests",
        ),
        Hook(
            Role.DETAIL,
            (
                Way("fasthttp_server_writes", AtCalls(_ERROR, _WRITE)),
                Way("fasthttp_server_response_writes", AtCalls(_ERROR, _RESPONSE_WRITE)),
            ),
            lost="http.response.status_code of requests whose body is waited for in vain",
        ),
        Hook(
            Role.START,
            (
                *(
                    Way("fasthttp_server_request_start", AtCalls(serve, f"{_PACKAGE}.(*Request).MayContinue"))
                    for serve in _SERVES
                ),
                *(
                    Way("fasthttp_server_header_start", AtCalls(serve, f"{_PACKAGE}.(*RequestHeader).peek"))
                    for serve in _SERVES
                ),
            ),
            lost="all requests",
            address="fasthttp_server_start_address",
        ),
    ),
    facts=(
        Field("fasthttp_ctx_request", f"{_PACKAGE}.RequestCtx", "Request", required=True),
        Field("fasthttp_ctx_response", f"{_PACKAGE}.RequestCtx", "Response", required=True),
        Field("fasthttp_ctx_timeout_response", f"{_PACKAGE}.RequestCtx", "timeoutResponse", required=True),
        Field("fasthttp_ctx_conn", f"{_PACKAGE}.RequestCtx", "c", lost="network.peer.address, parents on this host"),
        Field("fasthttp_request_header", f"{_PACKAGE}.Request", "Header", required=True),
        Field("fasthttp_request_tls", f"{_PACKAGE}.Request", "isTLS", lost="url.scheme"),
        Field("fasthttp_response_status", _RESPONSE, "Header.statusCode", required=True),
        Field("fasthttp_header_method", f"{_PACKAGE}.RequestHeader", "method", lost="http.request.method"),
        Field("fasthttp_header_uri", f"{_PACKAGE}.RequestHeader", "requestURI", required=True),
        Field("fasthttp_header_host", f"{_PACKAGE}.RequestHeader", "host", lost="server.address"),
        Field("fasthttp_header_user_agent", f"{_PACKAGE}.RequestHeader", "userAgent", lost="user_agent.original"),
        Block("fasthttp_header_block", f"{_PACKAGE}.RequestHeader", ("method", "requestURI", "host", "userAgent")),
        # What requests and responses have in common is a struct of its own in newer versions.
        Field("fasthttp_header_embedded", f"{_PACKAGE}.RequestHeader", "header"),
        Field(
            "fasthttp_header_lines",
            f"{_PACKAGE}.RequestHeader",
            "h",
            instead=(f"{_PACKAGE}.header",),
            lost="parents by traceparent",
        ),
        Field(
            "fasthttp_header_old",
            f"{_PACKAGE}.RequestHeader",
            "noHTTP11",
            instead=(f"{_PACKAGE}.header",),
            lost="network.protocol.version",
        ),
        Field("fasthttp_kv_no_value", f"{_PACKAGE}.argsKV", "noValue", lost="parents by traceparent"),
        Field("tcp_addr_ip", "net.TCPAddr", "IP", lost="network.peer.address"),
        Field("g_panic", "runtime.g", "_panic", lost="error.type of handlers that panic"),
        Field("panic_arg", "runtime._panic", "arg", lost="error.type of handlers that panic"),
    ),
    records=HTTP_SERVER.records,
    columns=columns,
    duration=HTTP_SERVER.duration,
    options=("tracecontext", "user_agent", "url_query"),
    counters=("tracestate_dropped",),
    active_spans=True,
    headers=("fasthttp_server.h", "fasthttp_server_read.h"),
)
