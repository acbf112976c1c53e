"""gorilla/mux: the route of each request's span is the template that it matched, with those of routers about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness.routes import Answer, answered

if TYPE_CHECKING:
    from harness.receiver import Receiver

pytestmark = [pytest.mark.root]


def test_routes(receiver: Receiver) -> None:
    """Subrouters, a middleware that aborts, a prefix, and paths and methods without a route."""
    assert answered("gorilla_mux", receiver) == {
        "/users/r1": Answer(200, "/users/{id}"),
        "/files/r2/and/more": Answer(200, "/files/"),
        "/static": Answer(200, "/static"),
        "/nowhere/r3": Answer(404, ""),
        "/users/r4": Answer(405, ""),
        "/group/a/items/r5": Answer(200, "/group/{name}/items/{id:r[0-9]+}"),
        "/group/a/deeper/items/r6": Answer(401, "/group/{name}/deeper/items/{id}"),
        "/group/b/deeper/items/r7": Answer(200, "/group/{name}/deeper/items/{id}"),
        "/group/b/nowhere/r8": Answer(404, ""),
    }
