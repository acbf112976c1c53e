"""httprouter, which keeps no templates: the route of each request's span is put together from path and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness.routes import Answer, answered

if TYPE_CHECKING:
    from harness.receiver import Receiver

pytestmark = [pytest.mark.root]


def test_routes(receiver: Receiver) -> None:
    """Values that stand elsewhere in the path as well, escaped ones, a rest, and paths and methods without a route."""
    assert answered("httprouter", receiver) == {
        "/users/r1": Answer(200, "/users/:id"),
        "/users/r2/books/books/pages/r2": Answer(200, "/users/:id/books/:book/pages/:page"),
        "/files/r3/and/more": Answer(200, "/files/:id/*path"),
        "/static": Answer(200, "/static"),
        "/nowhere/r4": Answer(404, ""),
        "/users/r5": Answer(405, ""),
        "/static/r6 and/more": Answer(404, ""),
        "/users/r7/": Answer(301, ""),
        "/static/r8": Answer(200, "/static/:id"),
    }
