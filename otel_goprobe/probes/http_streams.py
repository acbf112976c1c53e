"""HTTP/2 clients of net/http: the stream that a request of http_client.py goes over: its peer, its server's span.

Two more hits a request on emulated instructions: where a connection is given the request, and where the stream, on a
goroutine of its own, has got its number; and one behind an attempt that failed. http_x_streams.py has the same of
golang.org/x/net/http2.
"""

from __future__ import annotations

from otel_goprobe.probes.base import Fact, Field, Hook, Library, Role, Way
from otel_goprobe.probes.http2_server import INTERNAL, linked_by, method
from otel_goprobe.probes.places import AtStart

_PREFIXES = ("net/http.http2", INTERNAL)
_LOST = "network.peer.address and parents on this host, over HTTP/2"


def hooks(numbered: str, *prefixes: str) -> tuple[Hook, ...]:
    """Return the hooks of a package, by the first of `prefixes` that is there; `numbered`: its program for streams."""
    attempts = [
        method(prefix, "ClientConn", name)
        # x/net v0.22 and Go 1.23 split the former off; Go 1.27 has an adapter that is called like the latter.
        for name in ("roundTrip", "RoundTrip")
        for prefix in prefixes
    ]
    failures = [f"{prefix}shouldRetryRequest" for prefix in prefixes]
    streams = [method(prefix, "clientStream", "encodeAndWriteHeaders") for prefix in prefixes]
    return (
        Hook(
            Role.DETAIL,
            tuple(Way("http_streams_attempt", AtStart(name, arguments=(1, 2))) for name in attempts),
            lost=_LOST,
        ),
        Hook(
            Role.DETAIL,
            tuple(Way("http_streams_failed", AtStart(name, arguments=(2, 3))) for name in failures),
            lost="attempts over HTTP/2 that were repeated",
        ),
        Hook(
            Role.DETAIL,
            tuple(Way(numbered, AtStart(name, arguments=(1, 2))) for name in streams),
            lost=_LOST,
        ),
    )


def facts(member: str, *prefixes: str) -> tuple[Fact, ...]:
    """Return the fields that the programs read, as ``<member>_…``; `prefixes` as for `hooks`."""

    def of(name: str, struct: str, field: str) -> Field:
        first, *others = (f"{prefix}{struct}" for prefix in prefixes)
        return Field(f"{member}_{name}", first, field, required=True, instead=tuple(others))

    return (
        of("stream_id", "clientStream", "ID"),
        of("stream_cc", "clientStream", "cc"),
        of("connection_tconn", "ClientConn", "tconn"),
    )


LIBRARY = Library(
    stem="http_streams",
    import_path="net/http",
    side="client over HTTP/2",
    wanted=linked_by("clientStream", "encodeAndWriteHeaders", *_PREFIXES),
    hooks=hooks("http_streams_numbered", *_PREFIXES),
    facts=facts("http_streams", *_PREFIXES),
)
