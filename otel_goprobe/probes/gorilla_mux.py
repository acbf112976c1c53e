"""gorilla/mux: the route of a net/http server's span, one hit a request that has one.

The template of a subrouter's route has its parents' in front.
"""

from __future__ import annotations

from otel_goprobe.probes.base import Field, Hook, Library, Role, Way
from otel_goprobe.probes.places import AtStart, linked

_PACKAGE = "github.com/gorilla/mux"

LIBRARY = Library(
    stem="gorilla_mux",
    import_path=_PACKAGE,
    hooks=(
        Hook(
            Role.DETAIL,
            (
                # Since 1.7.4: https://github.com/gorilla/mux/blob/v1.7.4/mux.go
                Way("gorilla_mux_matched", AtStart(f"{_PACKAGE}.requestWithRoute", arguments=(2,))),
                # Up to 1.6.2: https://github.com/gorilla/mux/blob/v1.6.2/regexp.go
                Way("gorilla_mux_set_match", AtStart(f"{_PACKAGE}.(*routeRegexpGroup).setMatch", arguments=(1, 3, 4))),
            ),
            lost="http.route",
        ),
    ),
    facts=(
        Field("gorilla_mux_route_path", f"{_PACKAGE}.Route", "routeConf.regexp.path"),
        Field("gorilla_mux_group_path", f"{_PACKAGE}.routeRegexpGroup", "path", required=True),
        Field("gorilla_mux_match_route", f"{_PACKAGE}.RouteMatch", "Route", required=True),
        Field("gorilla_mux_template", f"{_PACKAGE}.routeRegexp", "template", required=True),
    ),
    wanted=linked(f"{_PACKAGE}.(*Router).ServeHTTP"),
)
