"""gin: the route of a net/http server's span, one hit a request that has one.

``handleHTTPRequest`` calls ``Next`` once it has found the route's handlers; other calls of it, by middlewares and for
requests without a route, aren't looked at.
"""

from __future__ import annotations

from otel_goprobe.probes.base import Field, Hook, Library, Role, Way
from otel_goprobe.probes.places import AfterCalls, AtCalls, linked

_PACKAGE = "github.com/gin-gonic/gin"
_HANDLE = f"{_PACKAGE}.(*Engine).handleHTTPRequest"

LIBRARY = Library(
    stem="gin",
    import_path=_PACKAGE,
    hooks=(
        Hook(
            Role.START,
            (
                Way("gin_matched", AtCalls(_HANDLE, f"{_PACKAGE}.(*Context).Next")),
                # Where Next is inlined: up to gin 1.10.
                Way("gin_looked_up", AfterCalls(_HANDLE, f"{_PACKAGE}.(*node).getValue", results=(1, 6, 7, 8, 9))),
            ),
            lost="http.route",
        ),
        Hook(Role.END, (Way("gin_unmatched", AtCalls(_HANDLE, f"{_PACKAGE}.serveError")),), lost="http.route"),
    ),
    facts=(
        # Since gin 1.5.0: https://github.com/gin-gonic/gin/blob/v1.5.0/context.go
        Field("gin_full_path", f"{_PACKAGE}.Context", "fullPath", required=True),
        # Since 1.7.0: https://github.com/gin-gonic/gin/blob/v1.7.0/context.go
        Field("gin_params", f"{_PACKAGE}.Context", "params"),
    ),
    wanted=linked(_HANDLE),
)
