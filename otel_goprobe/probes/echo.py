"""echo: the route of a net/http server's span, two hits a request.

The context that the router writes the route into is another request's soon: it is read where the router has returned.
"""

from __future__ import annotations

from otel_goprobe.probes.base import Field, Hook, Library, Role, Way
from otel_goprobe.probes.places import AtCalls, AtStart, linked

_PACKAGE = "github.com/labstack/echo/v4"
_SERVE = f"{_PACKAGE}.(*Echo).ServeHTTP"
_CHAIN = f"{_PACKAGE}.applyMiddleware"

LIBRARY = Library(
    stem="echo",
    import_path=_PACKAGE,
    hooks=(
        # Behind the router, in ServeHTTP or, with middlewares that run before it, in its closure.
        Hook(Role.END, (Way("echo_found", AtCalls(_SERVE, _CHAIN)),), lost="http.route"),
        Hook(Role.DETAIL, (Way("echo_found", AtCalls(f"{_SERVE}.func1", _CHAIN)),), lost="http.route behind Echo.Pre"),
        Hook(
            Role.START,
            (Way("echo_finds", AtStart(f"{_PACKAGE}.(*Router).Find", arguments=(4, 7))),),
            lost="http.route",
        ),
    ),
    facts=(Field("echo_path", f"{_PACKAGE}.context", "path", required=True),),
    wanted=linked(_SERVE),
)
