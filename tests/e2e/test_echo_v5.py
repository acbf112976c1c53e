"""echo v5: the route of each request's span is the path that echo matched, and nothing where it matched none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness.routes import Answer, answered

if TYPE_CHECKING:
    from harness.receiver import Receiver

pytestmark = [pytest.mark.root]


def test_routes(receiver: Receiver) -> None:
    """Groups, a middleware that aborts, and a path without a route."""
    assert answered("echo_v5", receiver) == {
        "/users/r1": Answer(200, "/users/:id"),
        "/files/r2/and/more": Answer(200, "/files/*"),
        "/static": Answer(200, "/static"),
        "/nowhere/r3": Answer(404, ""),
        "/group/a/items/r5": Answer(200, "/group/:name/items/:id"),
        "/group/a/items/r6": Answer(401, "/group/:name/items/:id"),
        "/group/b/deeper/items/r7": Answer(200, "/group/:name/deeper/items/:id"),
    }
