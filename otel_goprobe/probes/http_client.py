"""net/http clients: what is probed, and how the URL of a request's record is put together.

Three hits a request on emulated instructions: the start of ``(*Transport).roundTrip``, that of the HTTP/1 connection's,
and the branch behind both connections' (HTTP/1 and 2) at which the Transport asks whether it failed. Failures, and
HTTP/2 requests on a connection that is there already, leave by returns, which are single-stepped. Until Go 1.20 the
connection's start is single-stepped too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe.probes import channels
from otel_goprobe.probes.base import Conversion, Field, Hook, Itab, Library, Role, Way
from otel_goprobe.probes.http_requests import (
    URL_RAW_PATH,
    URL_USER,
    Url,
    duration_of,
    error_type,
    spans_of,
    split_url,
)
from otel_goprobe.probes.places import AtCalls, AtErrorTest, AtOtherReturns, AtReturns, AtStart, linked
from otel_goprobe.probes.propagation import WRITE_FACTS, WRITE_HOOK
from otel_goprobe.spans import dictionary

if TYPE_CHECKING:
    import numpy.typing as npt

    from otel_goprobe.model import SpanColumns

_ROUND_TRIP = "net/http.(*Transport).roundTrip"
_CONNECTION = "net/http.(*persistConn).roundTrip"


def columns(records: npt.NDArray[np.void], conversion: Conversion) -> SpanColumns:
    """Turn records of either size into spans.

    Args:
        records: shape (n,), dtype of ``http_client_record_256`` or ``http_client_record_1024``.
        conversion: the clock, names of Go types.
    """
    return spans_of(records, _urls(records), conversion, LIBRARY, error_type)


def _urls(records: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.int32], list[Url]]:
    """Return codes and the distinct URLs of records of either size; a path that was cut is followed by no query."""
    fixed = records["fixed"]
    if "url" in (records.dtype.names or ()):
        codes, texts = dictionary(records["url"], fixed["url_bytes"])
        return codes, [split_url(text) for text in texts]
    parts = [dictionary(records[name], fixed[f"{name}_bytes"]) for name in ("scheme", "host", "path", "query")]
    whole = (fixed["path_bytes"] < records.dtype["path"].itemsize).tolist()
    rows = zip(*(part.tolist() for part, _ in parts), whole, fixed["url_traits"].tolist(), strict=True)
    (_, schemes), (_, hosts), (_, paths), (_, queries) = parts
    table: dict[Url, int] = {}
    found = [
        table.setdefault(
            Url(
                schemes[scheme],
                hosts[host],
                paths[path],
                queries[query] if is_whole else b"",
                path_is_raw=bool(traits & URL_RAW_PATH),
                has_user=bool(traits & URL_USER),
            ),
            len(table),
        )
        for scheme, host, path, query, is_whole, traits in rows
    ]
    return np.array(found, np.int32), list(table)


sends = linked(_ROUND_TRIP)
"""Whether net/http's client is in the executable."""
LINEAGE_HOOK = Hook(
    Role.DETAIL,
    (
        Way("http_client_goroutine_queued", AtCalls("runtime.newproc.func1", "runtime.runqput")),
        Way("http_client_goroutine", AtReturns("runtime.newproc1")),
    ),
    lost="parents over several goroutines",
    option="lineage",
)
LIBRARY = Library(
    stem="http_client",
    import_path="net/http",
    side="client",
    wanted=sends,
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
        LINEAGE_HOOK,
        *channels.HOOKS,
        WRITE_HOOK,
        Hook(
            Role.START,
            (Way("http_client_request_start", AtStart(_ROUND_TRIP, arguments=(2,))),),
            lost="all requests",
            address="http_client_start_address",
        ),
    ),
    facts=(
        Itab("error_string_itab", "*errors.errorString", "error", required=False),
        Itab("op_error_itab", "*net.OpError", "error", required=False),
        Itab("nothing_written_itab", "net/http.nothingWrittenError", "error", required=False),
        Itab("read_error_itab", "net/http.transportReadFromServerError", "error", required=False),
        Field("g_parent_goid", "runtime.g", "parentGoid", lost="parents by the goroutine that started one"),
        Field("persist_conn_conn", "net/http.persistConn", "conn"),
        Field("persist_conn_nwrite", "net/http.persistConn", "nwrite"),
        Field("persist_conn_tls_state", "net/http.persistConn", "tlsState"),
        *WRITE_FACTS,
        Field("op_error_err", "net.OpError", "Err"),
        Field("request_method", "net/http.Request", "Method", lost="http.request.method"),
        Field("request_url", "net/http.Request", "URL", required=True),
        Field("request_header", "net/http.Request", "Header"),
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
        *channels.FACTS,
    ),
    records=("http_client_record_256", "http_client_record_1024"),
    columns=columns,
    duration=duration_of(error_type),
    options=("lineage", channels.OPTION),
    counters=channels.COUNTERS,
    finds_parents=True,
    headers=("http_client.h", "http_client_read.h"),
)
