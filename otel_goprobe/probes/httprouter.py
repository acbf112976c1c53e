"""httprouter: the route of a net/http server's span, one hit a request.

Its tree keeps no template, but the values of a route's parameters are pieces of the path: the C code puts the
parameters' names in their places.
"""

from __future__ import annotations

from otel_goprobe.probes.base import Field, Hook, Library, Role, Way
from otel_goprobe.probes.places import AfterCalls, linked

_PACKAGE = "github.com/julienschmidt/httprouter"
_SERVE = f"{_PACKAGE}.(*Router).ServeHTTP"

LIBRARY = Library(
    stem="httprouter",
    import_path=_PACKAGE,
    hooks=(
        Hook(
            Role.DETAIL,
            (Way("httprouter_matched", AfterCalls(_SERVE, f"{_PACKAGE}.(*node).getValue", results=(1, 2, 3))),),
            lost="http.route",
        ),
    ),
    facts=(
        Field("httprouter_request_url", "net/http.Request", "URL", required=True),
        Field("httprouter_http2_url", "net/http/internal/http2.ServerRequest", "URL"),
        Field("httprouter_url_path", "net/url.URL", "Path", required=True),
    ),
    wanted=linked(_SERVE),
)
