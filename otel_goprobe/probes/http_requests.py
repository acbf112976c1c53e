"""What HTTP clients' probes saw of requests, whichever library's -> CLIENT spans and the series of their durations.

Asked by the declarations of those libraries: http_client.py and others whose records begin alike.
"""

from __future__ import annotations

import functools
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

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
from otel_goprobe.probes.base import TEXT_OTHER, Conversion, Duration
from otel_goprobe.probes.http_server import DURATION_BOUNDS_S, method_and_scheme, version_of
from otel_goprobe.probes.http_text import METHODS, address_of, decoded, query_of, split_address
from otel_goprobe.spans import derive, dictionary, recorded

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from otel_goprobe.model import AttributeValue
    from otel_goprobe.probes.base import Library

CANCELED = 1
"""HTTP_CLIENT_CANCELED of the C source."""
IN_OP_ERROR = 1 << 63
"""HTTP_CLIENT_IN_OP_ERROR of the C source."""
URL_USER, URL_RAW_PATH = 1, 2
"""HTTP_CLIENT_URL_USER and HTTP_CLIENT_URL_RAW_PATH of the C source."""

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


_PORTS = {"http": 80, "https": 443}
_PATH_SAFE = "$&+,/:;=@"
"""What Go leaves as it is in a path, besides letters, digits and ``-_.~``: src/net/url/url.go, shouldEscape."""


class Url(NamedTuple):
    """A url.URL of Go as a record holds it."""

    scheme: bytes
    host: bytes
    """With port, as it was written."""
    path: bytes
    query: bytes
    """As it is sent."""
    path_is_raw: bool = False
    """`path` is escaped as it is sent; else decoded."""
    has_user: bool = False
    """There are credentials."""

    @property
    def full(self) -> str:
        """``url.full``: credentials and the values of known secrets replaced by ``REDACTED``."""
        credentials = "REDACTED:REDACTED@" if self.has_user else ""
        path = decoded(self.path) if self.path_is_raw else urllib.parse.quote(self.path, safe=_PATH_SAFE)
        query = query_of(b"?" + self.query)
        tail = "" if query is None else f"?{query}"
        return f"{decoded(self.scheme)}://{credentials}{decoded(self.host)}{path}{tail}"

    @property
    def port(self) -> int:
        """The port, the scheme's own where none is written; 0 for an unknown scheme."""
        return int(split_address(self.host)[1] or _PORTS.get(decoded(self.scheme), 0))


ErrorName = Callable[[int, int, Conversion], str]
"""What is told of an error: as the C source has it, the target's slot, names of Go types -> ``error.type``."""


def split_url(text: bytes) -> Url:
    """Split ``SCHEME://HOST[PATH][?QUERY]``, none of it escaped but the query."""
    scheme, _, rest = text.partition(b"://")
    before, _, query = rest.partition(b"?")
    host, slash, path = before.partition(b"/")
    return Url(scheme, host, slash + path, query)


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


def spans_of(
    records: npt.NDArray[np.void],
    coded_urls: tuple[npt.NDArray[np.int32], list[Url]],
    conversion: Conversion,
    library: Library,
    error_name: ErrorName,
) -> SpanColumns:
    """Turn records of an HTTP client's library into spans.

    Args:
        records: shape (n,), with ``fixed``, a ``http_client_fixed``, and ``method``.
        coded_urls: codes, shape (n,), and the distinct URLs that they are indices of.
        conversion: the clock, names of Go types.
        library: whose they are.
        error_name: what is told of an error.
    """
    fixed = records["fixed"]
    count = len(records)

    method_codes, methods = dictionary(records["method"], fixed["method_bytes"])
    methods = [method or b"GET" for method in methods]  # net/http/request.go: "For client requests, an empty string"
    url_codes, urls = coded_urls
    peer_codes, peers = dictionary(np.ascontiguousarray(fixed["peer"]), np.full(count, 16))
    status = fixed["status"].astype(np.int64)
    error = (status >= 400) | (fixed["error"] != 0)
    port = fixed["peer_port"].astype(np.int64)
    resends = fixed["resends"].astype(np.int64)
    ports = np.array([url.port for url in urls], np.int64)[url_codes]

    attributes: dict[str, Strings | Integers | Booleans] = {
        http_attributes.HTTP_REQUEST_METHOD: derive(method_codes, methods, _known),
        http_attributes.HTTP_REQUEST_METHOD_ORIGINAL: derive(
            method_codes, methods, lambda m: None if decoded(m) in METHODS else decoded(m)
        ),
        url_attributes.URL_FULL: derive(url_codes, urls, lambda url: url.full),
        server_attributes.SERVER_ADDRESS: derive(url_codes, urls, lambda url: split_address(url.host)[0]),
        server_attributes.SERVER_PORT: Integers(ports, ports != 0),
        http_attributes.HTTP_RESPONSE_STATUS_CODE: Integers(status, status != 0),
        error_attributes.ERROR_TYPE: _error_types(fixed, error, conversion, error_name),
        http_attributes.HTTP_REQUEST_RESEND_COUNT: Integers(resends, resends != 0),
        network_attributes.NETWORK_PEER_ADDRESS: derive(peer_codes, peers, address_of),
        network_attributes.NETWORK_PEER_PORT: Integers(port, port != 0),
        network_attributes.NETWORK_PROTOCOL_VERSION: _versions(fixed),
    }
    return recorded(
        records,
        conversion.clock,
        import_path=library.import_path,
        kind=SpanKind.CLIENT,
        name=derive(method_codes, methods, lambda m: decoded(m) if decoded(m) in METHODS else "HTTP"),
        error=error,
        attributes=attributes,
    )


def _known(method: bytes) -> str:
    return decoded(method) if decoded(method) in METHODS else "_OTHER"


def _versions(fixed: npt.NDArray[np.void]) -> Strings:
    """Return ``1.1``, ``1.0`` or ``2`` as the response has it; none without a response."""
    distinct, codes = np.unique(fixed["protocol"], return_inverse=True)
    return derive(codes.astype(np.int32), distinct.tolist(), _version)


def _version(protocol: int) -> str | None:
    major, minor = protocol >> 4, protocol & 15
    return version_of(major, minor) if major else None


def _error_types(
    fixed: npt.NDArray[np.void], error: npt.NDArray[np.bool_], conversion: Conversion, error_name: ErrorName
) -> Strings:
    """Return what became of requests that failed: the error's type, else the status code from 400 on."""
    codes = np.full(len(fixed), -1, np.int32)
    table: dict[str, int] = {}
    for row in np.flatnonzero(error).tolist():
        value = int(fixed["error"][row])
        slot = int(fixed["header"]["slot"][row])
        name = error_name(value, slot, conversion) if value else str(fixed["status"][row])
        codes[row] = table.setdefault(name, len(table))
    return Strings(codes, tuple(table))


def _series(
    keys: npt.NDArray[np.void], texts: Mapping[int, bytes], conversion: Conversion, error_name: ErrorName
) -> list[dict[str, AttributeValue]]:
    """Return the attributes of http.client.request.duration (HTTP metrics conventions), one mapping a ``red_key``."""
    found = []
    for key in keys:
        status, error, version = int(key["status"]), int(key["error"]), _version(int(key["traits"][1]))
        attributes = method_and_scheme(key["word"], key["traits"][0])
        if key["text"] == TEXT_OTHER:
            attributes[server_attributes.SERVER_ADDRESS] = "_OTHER"
        else:
            address, port = split_address(texts.get(int(key["text"]), b""))
            if address:
                attributes[server_attributes.SERVER_ADDRESS] = address
            attributes[server_attributes.SERVER_PORT] = int(port or _PORTS[str(attributes[url_attributes.URL_SCHEME])])
        if version:
            attributes[network_attributes.NETWORK_PROTOCOL_VERSION] = version
        if status:
            attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] = status
        if error:
            attributes[error_attributes.ERROR_TYPE] = error_name(error, int(key["slot"]), conversion)
        elif status >= 400:
            attributes[error_attributes.ERROR_TYPE] = str(status)
        found.append(attributes)
    return found


DURATION_ATTRIBUTES = (
    http_attributes.HTTP_REQUEST_METHOD,
    server_attributes.SERVER_ADDRESS,
    server_attributes.SERVER_PORT,
    http_attributes.HTTP_RESPONSE_STATUS_CODE,
    error_attributes.ERROR_TYPE,
    network_attributes.NETWORK_PROTOCOL_VERSION,
)
"""Those of http.client.request.duration that spans have, too."""


def duration_of(error_name: ErrorName) -> Duration:
    """Return http.client.request.duration of a library, given what is told of its errors."""
    return Duration(
        name=HTTP_CLIENT_REQUEST_DURATION,
        description="Duration of HTTP client requests.",
        bounds_s=DURATION_BOUNDS_S,
        attributes=functools.partial(_series, error_name=error_name),
        span_kind=SpanKind.CLIENT,
        span_attributes=DURATION_ATTRIBUTES,
    )
