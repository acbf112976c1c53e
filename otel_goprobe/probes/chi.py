"""chi: the route of a net/http server's span, in a mounted sub-router as well.

Of chi that leaves its pattern in the request (5.2.3 and newer, built by Go 1.23 and newer) one hit a request and
router; of an older one two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_goprobe.probes.base import Field, Hook, Library, Role, Way
from otel_goprobe.probes.places import AfterCalls, AtCalls, linked

if TYPE_CHECKING:
    from otel_goprobe.gobinary import GoBinary

_PACKAGE = "github.com/go-chi/chi/v5"
_ROUTE = f"{_PACKAGE}.(*Mux).routeHTTP"
_FIND = f"{_PACKAGE}.(*node).FindRoute"
_PATTERN = f"{_PACKAGE}.(*Context).RoutePattern"


def _leaves_no_pattern(binary: GoBinary) -> bool:
    found = binary.functions([_ROUTE, _PATTERN])
    return _ROUTE in found and not (_PATTERN in found and binary.calls(found[_ROUTE], found[_PATTERN]))


LIBRARY = Library(
    stem="chi",
    import_path=_PACKAGE,
    hooks=(
        Hook(
            Role.DETAIL,
            (
                Way("chi_pattern", AfterCalls(_ROUTE, _PATTERN, results=(1, 2))),
                Way("chi_found", AfterCalls(_ROUTE, _FIND, results=(3,))),
            ),
            lost="http.route",
        ),
        Hook(
            Role.DETAIL,
            (Way("chi_finds", AtCalls(_ROUTE, _FIND)),),
            lost="http.route",
            wanted=_leaves_no_pattern,
        ),
    ),
    facts=(Field("chi_patterns", f"{_PACKAGE}.Context", "RoutePatterns", required=True),),
    wanted=linked(_ROUTE),
)
