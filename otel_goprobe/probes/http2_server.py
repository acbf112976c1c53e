"""HTTP/2 servers of net/http: what is probed; a request's record becomes the SERVER span that HTTP/1's does.

Two hits a request on emulated instructions: the start of ``runHandler``, with which a request's goroutine begins, and
of ``handlerDone``, which it calls behind a handler that returned. A panic or runtime.Goexit passes the closure that
``runHandler`` defers, where the stream is reset. http_server.py's hooks in ``ServeMux`` tell the route.

Since Go 1.27 the code is a package of its own, with the names of golang.org/x/net/http2, from which it was made; that
one is http2_x_server.py's, by `hooks` and `facts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_goprobe.probes.base import Fact, Field, Hook, Library, Role, Way
from otel_goprobe.probes.http_server import LIBRARY as HTTP_SERVER
from otel_goprobe.probes.places import AfterCalls, AtStart, linked

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_goprobe.gobinary import GoBinary

INTERNAL = "net/http/internal/http2."
"""Since Go 1.27, src/net/http/internal/http2/server.go; before it src/net/http/h2_bundle.go."""
_PREFIXES = ("net/http.http2", INTERNAL)


def method(prefix: str, receiver: str, name: str) -> str:
    """Return a method's symbol: ``net/http.(*http2serverConn).runHandler``."""
    package, dot, start = prefix.rpartition(".")
    return f"{package}{dot}(*{start}{receiver}).{name}"


def linked_by(receiver: str, name: str, *prefixes: str) -> Callable[[GoBinary], bool]:
    """Return what tells whether an executable has this method of one of these packages."""
    return linked(*(method(prefix, receiver, name) for prefix in prefixes))


def answers_by(*prefixes: str) -> Callable[[GoBinary], bool]:
    """Return what tells whether an executable answers by one of these packages."""
    return linked_by("serverConn", "runHandler", *prefixes)


def hooks(stem: str, *prefixes: str) -> tuple[Hook, ...]:
    """Return a package's hooks: programs ``<stem>_…``, at the functions of the first of `prefixes` that is there."""
    run = [method(prefix, "serverConn", "runHandler") for prefix in prefixes]
    done = [method(prefix, "responseWriter", "handlerDone") for prefix in prefixes]
    panicked = [
        AfterCalls(f"{caller}.{closure}", method(prefix, "serverConn", "writeFrameFromHandler"), results=())
        for prefix, caller in zip(prefixes, run, strict=True)
        for closure in ("func1", "func2")
    ]
    return (
        Hook(
            Role.END,
            tuple(Way(f"{stem}_handler_done", AtStart(name, arguments=())) for name in done),
            lost="all requests",
        ),
        Hook(Role.END, tuple(Way(f"{stem}_handler_panicked", place) for place in panicked), lost="all requests"),
        Hook(
            Role.START,
            tuple(Way(f"{stem}_request_start", AtStart(name, arguments=(1, 2, 3))) for name in run),
            lost="all requests",
            address=f"{stem}_start_address",
        ),
    )


def facts(member: str, request: tuple[str, ...], *prefixes: str) -> tuple[Fact, ...]:
    """Return the fields that the programs read, as ``<member>_…``.

    Args:
        member: prefix of the members of ``struct target``.
        request: structs, by version, of what ``runHandler`` gets as its request.
        prefixes: of the package's names, by version.
    """

    def of(name: str, struct: str, field: str, *, required: bool = False, lost: str = "") -> Field:
        first, *others = (f"{prefix}{struct}" for prefix in prefixes)
        return Field(f"{member}_{name}", first, field, required=required, lost=lost, instead=tuple(others))

    def of_request(name: str, field: str, *, required: bool = False, lost: str = "") -> Field:
        first, *others = request
        return Field(f"{member}_request_{name}", first, field, required=required, lost=lost, instead=tuple(others))

    return (
        of("state_stream", "responseWriterState", "stream", required=True),
        of("state_status", "responseWriterState", "status", required=True),
        of("stream_id", "stream", "id", required=True),
        of("connection_conn", "serverConn", "conn", lost="parents on this host"),
        of("connection_tls_state", "serverConn", "tlsState", lost="url.scheme"),
        of("connection_remote_addr", "serverConn", "remoteAddrStr", lost="client.address"),
        of_request("method", "Method", lost="http.request.method"),
        of_request("uri", "RequestURI", required=True),
        of_request("host", "Host", lost="server.address"),
        of_request("header", "Header"),
    )


LIBRARY = Library(
    stem="http2_server",
    import_path="net/http",
    side="HTTP/2",
    wanted=answers_by(*_PREFIXES),
    hooks=(
        *hooks("http2_server", *_PREFIXES),
        Hook(
            Role.DETAIL,
            (Way("http2_server_panic", AtStart("runtime.gopanic", arguments=(1,))),),
            lost="error.type of handlers that panic",
        ),
    ),
    facts=(
        *facts("http2", (f"{INTERNAL}ServerRequest", "net/http.Request"), *_PREFIXES),
        Field("http2_request_context", f"{INTERNAL}ServerRequest", "Context"),
        Field("http2_request_ctx", "net/http.Request", "ctx"),
    ),
    records=HTTP_SERVER.records,
    columns=HTTP_SERVER.columns,
    duration=HTTP_SERVER.duration,
    active_spans=True,
    headers=("http2_server.h",),
)
