"""fiber v2 and v3: the route of each request's span is the path that fiber matched, and nothing where none did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness.routes import Answer, answered

if TYPE_CHECKING:
    from harness.receiver import Receiver

pytestmark = [pytest.mark.root]

IN_BOTH = {
    "/users/r1": Answer(200, "/users/:id"),
    "/files/r2/and/more": Answer(200, "/files/*"),
    "/nowhere/r3": Answer(404, ""),
    "/group/a/items/r5": Answer(200, "/group/:name/items/:id"),
    "/group/a/items/r6": Answer(401, "/group/:name/items/:id"),
    "/group/b/deeper/items/r7": Answer(200, "/group/:name/deeper/items/:id"),
    "/panics/r8": Answer(500, "/panics/:id"),
    "/closed/r10": Answer(403, ""),
    "/mounted/items/r11": Answer(200, "/mounted/items/:id"),
    "/users/r12": Answer(200, "/users/:id"),
    "/users/r13": Answer(405, ""),
}


def test_routes_of_v2(receiver: Receiver) -> None:
    """Groups, a mounted App, handlers that abort, fail or panic behind recover, App.Use that refuses, no route."""
    assert answered("fiber", receiver) == {
        **IN_BOTH,
        "/optional/a/r4": Answer(200, "/optional/:name?/:id"),
        "/fails/r9": Answer(503, "/fails/:id"),
    }


def test_routes_of_v3(receiver: Receiver) -> None:
    """The same, and an App with a kind of context of its own."""
    assert answered("fiber_v3", receiver) == {**IN_BOTH, "/own/users/r4": Answer(200, "/own/users/:id")}
