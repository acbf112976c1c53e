"""HTTP/2 clients of golang.org/x/net/http2: spans of http_client.py, also where that Transport is used by itself.

h2c clients are such. Under Go 1.27 newer versions of the package hand everything to net/http, and nothing of this is in
the executable.
"""

from __future__ import annotations

from otel_goprobe.probes.base import Field, Hook, Library, Role, Way
from otel_goprobe.probes.http2_server import linked_by
from otel_goprobe.probes.http_streams import facts, hooks
from otel_goprobe.probes.places import AtReturns, AtStart

_PREFIX = "golang.org/x/net/http2."
_ROUND_TRIP = f"{_PREFIX}(*Transport).RoundTripOpt"

LIBRARY = Library(
    stem="http_x_streams",
    import_path="golang.org/x/net/http2",
    side="client",
    wanted=linked_by("clientStream", "encodeAndWriteHeaders", _PREFIX),
    hooks=(
        Hook(Role.END, (Way("http_x_streams_return", AtReturns(_ROUND_TRIP)),), lost="all requests"),
        *hooks("http_x_streams_numbered", _PREFIX),
        Hook(
            Role.START,
            (Way("http_x_streams_request_start", AtStart(_ROUND_TRIP, arguments=(2,))),),
            lost="all requests",
            address="http_x_streams_start_address",
        ),
    ),
    facts=(
        *facts("http_x_streams", _PREFIX),
        Field("request_url", "net/http.Request", "URL", required=True),
        Field("request_ctx", "net/http.Request", "ctx", required=True),
        Field("response_status_code", "net/http.Response", "StatusCode", required=True),
    ),
    finds_parents=True,
)
