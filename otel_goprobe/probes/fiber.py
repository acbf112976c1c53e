"""fiber v2: the route of a fasthttp server's span, one hit a request, or two.

A route is known when it has matched, and forgotten when fiber gives the request's context back to its pool, which is
the end of ``handler``: newer versions defer that, older ones do it behind ``next``, which comes by twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_goprobe.probes.base import Field, Hook, Library, Role, Way
from otel_goprobe.probes.places import AfterCalls, AtCalls, AtStart, linked

if TYPE_CHECKING:
    from otel_goprobe.gobinary import GoBinary

_PACKAGE = "github.com/gofiber/fiber/v2"
_HANDLER = f"{_PACKAGE}.(*App).handler"
_NEXT = f"{_PACKAGE}.(*App).next"
_DEFERRED = f"{_HANDLER}.deferwrap1"
"""The compiler's name since Go 1.22."""


def _comes_by_twice(binary: GoBinary) -> bool:
    return not binary.functions([_DEFERRED])


LIBRARY = Library(
    stem="fiber",
    import_path=_PACKAGE,
    hooks=(
        Hook(
            Role.END,
            (Way("fiber_answered", AfterCalls(_HANDLER, _NEXT, results=())),),
            lost="http.route",
            wanted=_comes_by_twice,
        ),
        Hook(
            Role.START,
            (
                Way("fiber_releases", AtStart(_DEFERRED, arguments=())),
                Way("fiber_begins", AtCalls(_HANDLER, _NEXT)),
            ),
            lost="http.route",
        ),
    ),
    facts=(
        Field("fiber_ctx_route", f"{_PACKAGE}.Ctx", "route", required=True),
        Field("fiber_ctx_fasthttp", f"{_PACKAGE}.Ctx", "fasthttp", required=True),
        Field("fiber_route_use", f"{_PACKAGE}.Route", "use", required=True),
        Field("fiber_route_path", f"{_PACKAGE}.Route", "Path", required=True),
    ),
    wanted=linked(_HANDLER),
)
