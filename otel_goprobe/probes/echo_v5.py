"""echo v5: the route of a net/http server's span, one hit a request: its router leaves the route in the request."""

from __future__ import annotations

from otel_goprobe.probes.base import Field, Hook, Library, Role, Way
from otel_goprobe.probes.places import AtStart, linked

_PACKAGE = "github.com/labstack/echo/v5"
_ROUTE = f"{_PACKAGE}.(*DefaultRouter).Route"

LIBRARY = Library(
    stem="echo_v5",
    import_path=_PACKAGE,
    hooks=(Hook(Role.DETAIL, (Way("echo_v5_finds", AtStart(_ROUTE, arguments=(2,))),), lost="http.route"),),
    facts=(
        Field("echo_v5_request", f"{_PACKAGE}.Context", "request", required=True),
        Field("request_uri", "net/http.Request", "RequestURI", required=True),
        Field("request_pattern", "net/http.Request", "Pattern", required=True),
    ),
    wanted=linked(_ROUTE),
)
