"""HTTP/2 servers of golang.org/x/net/http2, h2c among them: the hooks of http2_server.py, whose spans theirs are.

Under Go 1.27 newer versions of that package hand everything to net/http, and nothing of this is in the executable.
"""

from __future__ import annotations

from otel_goprobe.probes.base import Field, Hook, Library, Role, Way
from otel_goprobe.probes.http2_server import answers_by, facts, hooks, method
from otel_goprobe.probes.places import AtStart

_PREFIX = "golang.org/x/net/http2."

LIBRARY = Library(
    stem="http2_x_server",
    import_path="golang.org/x/net/http2",
    wanted=answers_by(_PREFIX),
    hooks=(
        *hooks("http2_x_server", _PREFIX),
        Hook(
            Role.DETAIL,
            (Way("http2_x_server_upgrade", AtStart(method(_PREFIX, "serverConn", "upgradeRequest"), arguments=())),),
            lost="that a request with Upgrade: h2c is one span",
        ),
    ),
    facts=(
        *facts("http2_x", ("net/http.Request",), _PREFIX),
        Field("http2_x_request_ctx", "net/http.Request", "ctx"),
    ),
    active_spans=True,
)
