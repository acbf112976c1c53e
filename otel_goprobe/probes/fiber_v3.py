"""fiber v3: the route of a fasthttp server's span, one hit a request, where its context is given back to the pool."""

from __future__ import annotations

from otel_goprobe.probes.base import Field, Hook, Library, Role, Way
from otel_goprobe.probes.places import AtStart, linked

_PACKAGE = "github.com/gofiber/fiber/v3"

LIBRARY = Library(
    stem="fiber_v3",
    import_path=_PACKAGE,
    hooks=(
        Hook(
            Role.START,
            (Way("fiber_v3_releases", AtStart(f"{_PACKAGE}.(*App).ReleaseCtx", arguments=(3,))),),
            lost="http.route",
        ),
    ),
    facts=(
        Field("fiber_v3_ctx_route", f"{_PACKAGE}.DefaultCtx", "route", required=True),
        Field("fiber_v3_ctx_fasthttp", f"{_PACKAGE}.DefaultCtx", "fasthttp", required=True),
        Field("fiber_v3_route_use", f"{_PACKAGE}.Route", "use", required=True),
        Field("fiber_v3_route_path", f"{_PACKAGE}.Route", "Path", required=True),
    ),
    wanted=linked(f"{_PACKAGE}.(*App).requestHandler"),
)
