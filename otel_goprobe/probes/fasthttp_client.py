"""fasthttp's clients, and so fiber's: what is probed, and how an attempt's record becomes a CLIENT span.

Three hits an attempt, all on emulated instructions: the start of ``(*HostClient).Do``, to which every Client, LBClient
and proxy comes, behind the call that gives it a connection, and behind that of ``(*HostClient).do``, one attempt.
Without spans: PipelineClient, and what fails before there is a HostClient (an unknown scheme, a deadline in the past).
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe.probes import channels, http_client
from otel_goprobe.probes.base import Conversion, Field, Hook, Itab, Library, Role, Way
from otel_goprobe.probes.http_requests import IN_OP_ERROR, Url, duration_of, error_type, spans_of
from otel_goprobe.probes.places import AfterCalls, AtCalls, AtStart, linked
from otel_goprobe.spans import dictionary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    from otel_goprobe.model import SpanColumns

URL_USER, URL_SENT, URL_HTTPS = 1, 2, 4
"""FASTHTTP_CLIENT_URL_… of the C source."""
TEXT_ERROR = 1 << 62
"""FASTHTTP_CLIENT_TEXT_ERROR of the C source."""
_TEXT_BYTES = 64
"""What it reads of such a text."""
_U64 = 2**64 - 1

_FASTHTTP = "github.com/valyala/fasthttp"
_DO = f"{_FASTHTTP}.(*HostClient).Do"
_ATTEMPT = f"{_FASTHTTP}.(*HostClient).do"
ERRORS: Mapping[str, tuple[str, ...]] = {
    "timeout": ("timeout",),
    f"{_FASTHTTP}.ErrNoFreeConns": ("no free connections available to host",),
    f"{_FASTHTTP}.ErrConnectionClosed": (
        "the server closed connection before returning the first response byte. ",
        "EOF",
    ),
    f"{_FASTHTTP}.ErrDialTimeout": (
        "dialing to the given TCP address timed out",
        "dialing to the given tcp address timed out",
    ),
    f"{_FASTHTTP}.ErrTLSHandshakeTimeout": ("tls handshake timed out",),
    f"{_FASTHTTP}.ErrBodyTooLarge": ("body size exceeds the given limit",),
    f"{_FASTHTTP}.ErrHostClientRedirectToDifferentScheme": (
        "HostClient can't follow redirects to a different protocol, please use Client instead",
        "hostclient can't follow redirects to a different protocol,",
    ),
}
"""Errors by name -> their texts from fasthttp 1.2 to 1.77, of which newer ones begin with ``fasthttp: ``: client.go,
tcpdialer.go, http.go. Do makes ErrConnectionClosed of an attempt's EOF."""
_TIMEOUT = f"*{_FASTHTTP}.timeoutError"


def text_number(text: bytes) -> int:
    """Return the number that the C source makes of an error's text."""
    words = np.frombuffer(text[:_TEXT_BYTES].ljust(_TEXT_BYTES, b"\0"), "<u8")
    number = 0
    for word in words.tolist():
        number = _mixed(number ^ word)
    return number >> 2 | TEXT_ERROR


def _mixed(x: int) -> int:
    """``id_mix`` of bpf/include/ids.h."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _U64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _U64
    return x ^ x >> 31


@functools.cache
def _named() -> dict[int, str]:
    prefixes = ("", "fasthttp: ")
    return {
        text_number(f"{prefix}{text}".encode()): name
        for name, texts in ERRORS.items()
        for text in texts
        for prefix in prefixes
    }


def error_name(error: int, slot: int, conversion: Conversion) -> str:
    """Return ``error.type``: ``timeout``, the name of one of fasthttp's errors, or the Go type."""
    if error & TEXT_ERROR and not error & IN_OP_ERROR:
        return _named().get(error, "*errors.errorString")
    name = error_type(error, slot, conversion)
    return "timeout" if name == _TIMEOUT else name


def url_of(traits: int, host: bytes, path: bytes, query: bytes) -> Url:
    """Return the URL of a request, given FASTHTTP_CLIENT_URL_… and what the record has of it."""
    scheme = b"https" if traits & URL_HTTPS else b"http"
    has_user = bool(traits & URL_USER)
    if not traits & URL_SENT:
        return Url(scheme, host, path or b"/", query, has_user=has_user)
    path, _, query = path.partition(b"?")
    if b"://" in path:
        # As the request was given it: written by its Host header, or not even parsed.
        authority, _, path = path.partition(b"://")[2].partition(b"/")
        user, _, named = authority.rpartition(b"@")
        host, path, has_user = host or named, b"/" + path, has_user or bool(user)
    return Url(scheme, host, path or b"/", query.partition(b"#")[0], path_is_raw=True, has_user=has_user)


def columns(records: npt.NDArray[np.void], conversion: Conversion) -> SpanColumns:
    """Turn records of either size into spans.

    Args:
        records: shape (n,), dtype of ``fasthttp_client_record_256`` or ``fasthttp_client_record_1024``.
        conversion: the clock, names of Go types.
    """
    return spans_of(records, _urls(records), conversion, LIBRARY, error_name)


def _urls(records: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.int32], list[Url]]:
    """Return codes and the distinct URLs; a path that was cut is followed by no query."""
    fixed = records["fixed"]
    host_codes, hosts = dictionary(records["host"], fixed["host_bytes"])
    path_codes, paths = dictionary(records["path"], fixed["path_bytes"])
    queries = [b""]
    query_codes = np.zeros(len(records), np.int32)
    if "query" in (records.dtype.names or ()):
        query_codes, queries = dictionary(records["query"], fixed["query_bytes"])
    rows = np.stack([fixed["url_traits"].astype(np.int32), host_codes, path_codes, query_codes], axis=1)
    distinct, codes = np.unique(rows, axis=0, return_inverse=True)
    room = records.dtype["path"].itemsize
    urls = [
        url_of(traits, hosts[host], paths[path], queries[query] if len(paths[path]) < room else b"")
        for traits, host, path, query in distinct.tolist()
    ]
    return codes.reshape(-1).astype(np.int32), urls


def _shared_hooks() -> Iterator[Hook]:
    """What net/http's client declares as well; where both are linked, once is enough."""
    for hook in (http_client.LINEAGE_HOOK, *channels.HOOKS):
        yield replace(hook, wanted=lambda binary: not http_client.sends(binary))


def _request(member: str, field: str, *, lost: str = "", required: bool = False) -> Field:
    return Field(f"fasthttp_{member}", f"{_FASTHTTP}.Request", field, required=required, lost=lost)


LIBRARY = Library(
    stem="fasthttp_client",
    import_path=_FASTHTTP,
    side="client",
    wanted=linked(_DO),
    hooks=(
        Hook(
            Role.END,
            (Way("fasthttp_client_answer", AfterCalls(_DO, _ATTEMPT, results=(1, 2, 3))),),
            lost="all requests",
        ),
        Hook(
            Role.DETAIL,
            tuple(
                Way("fasthttp_client_connection", AfterCalls(f"{_FASTHTTP}.{caller}", f"{_FASTHTTP}.{callee}", (1,)))
                for caller, callee in (
                    ("(*transport).RoundTrip", "(*HostClient).AcquireConn"),
                    ("(*transport).RoundTrip", "(*HostClient).acquireConn"),
                    ("(*HostClient).doNonNilReqResp", "(*HostClient).acquireConn"),
                )
            ),
            lost="network.peer.address, and parents on this host",
        ),
        Hook(
            Role.DETAIL,
            (
                Way("fasthttp_client_unwanted", AtCalls(_ATTEMPT, f"{_FASTHTTP}.closeOrDrainResponseBody")),
                Way("fasthttp_client_unwanted", AtCalls(_ATTEMPT, f"{_FASTHTTP}.ReleaseResponse")),
                Way("fasthttp_client_unwanted", AtCalls(f"{_ATTEMPT}.deferwrap1", f"{_FASTHTTP}.ReleaseResponse")),
                Way("fasthttp_client_unwanted", AtCalls(f"{_ATTEMPT}.func1", f"{_FASTHTTP}.ReleaseResponse")),
            ),
            lost="http.response.status_code of calls without a Response",
        ),
        Hook(
            Role.DETAIL,
            (
                Way(
                    "fasthttp_client_redirect",
                    AtCalls(f"{_FASTHTTP}.doRequestFollowRedirects", f"{_FASTHTTP}.getRedirectURL"),
                ),
            ),
            lost="http.request.resend_count of redirects",
            wanted=linked(f"{_FASTHTTP}.doRequestFollowRedirects"),
        ),
        Hook(
            Role.DETAIL,
            (Way("fasthttp_client_panic", AtStart("runtime.gopanic", arguments=(1,))),),
            lost="requests that end in a panic",
        ),
        *_shared_hooks(),
        Hook(
            Role.START,
            (Way("fasthttp_client_request_start", AtStart(_DO, arguments=(1, 2, 3))),),
            lost="all requests",
            address="fasthttp_client_start_address",
        ),
    ),
    facts=(
        Itab("error_string_itab", "*errors.errorString", "error", required=False),
        Itab("op_error_itab", "*net.OpError", "error", required=False),
        Field("op_error_err", "net.OpError", "Err"),
        Itab("fasthttp_dial_error_itab", f"*{_FASTHTTP}.ErrDialWithUpstream", "error", required=False),
        Field("fasthttp_dial_error_cause", f"{_FASTHTTP}.ErrDialWithUpstream", "wrapErr"),
        Field("g_parent_goid", "runtime.g", "parentGoid", lost="parents by the goroutine that started one"),
        Field("fasthttp_conn_c", f"{_FASTHTTP}.clientConn", "c"),
        Field("fasthttp_conn_created", f"{_FASTHTTP}.clientConn", "createdTime"),
        Field("fasthttp_client_is_tls", f"{_FASTHTTP}.HostClient", "IsTLS", lost="https in url.full"),
        _request("request_method", "Header.method", required=True),
        _request("request_target", "Header.requestURI", required=True),
        _request("request_host", "Header.host"),
        _request("request_parsed", "parsedURI", required=True),
        _request("uri_scheme", "uri.scheme", required=True),
        _request("uri_host", "uri.host", required=True),
        _request("uri_path", "uri.path", lost="the path of requests that find no connection"),
        _request("uri_query", "uri.queryString"),
        _request("uri_username", "uri.username"),
        Field("fasthttp_client_status", f"{_FASTHTTP}.Response", "Header.statusCode", required=True),
        Field("fasthttp_response_header", f"{_FASTHTTP}.Response", "Header", required=True),
        Field(
            "fasthttp_no_http11",
            f"{_FASTHTTP}.ResponseHeader",
            "noHTTP11",
            lost="network.protocol.version 1.0",
            instead=(f"{_FASTHTTP}.header",),
        ),
        *channels.FACTS,
    ),
    records=("fasthttp_client_record_256", "fasthttp_client_record_1024"),
    columns=columns,
    duration=duration_of(error_name),
    options=("lineage", channels.OPTION),
    counters=channels.COUNTERS,
    finds_parents=True,
    headers=("fasthttp_client.h",),
)
