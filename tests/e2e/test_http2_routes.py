"""Routers tell the spans of HTTP/2 servers the routes that they tell those of HTTP/1."""

from __future__ import annotations

import pytest
from harness.expect import SERVER
from harness.receiver import Receiver
from harness.routes import answered

ROUTERS = ("chi", "echo", "echo_v5", "gin", "gorilla_mux", "httprouter", "servemux")
QUICK = "servemux"

pytestmark = [pytest.mark.root]


@pytest.mark.parametrize(
    "router", [router if router == QUICK else pytest.param(router, marks=pytest.mark.slow) for router in ROUTERS]
)
def test_routes_are_those_of_http1(router: str) -> None:
    """Over TLS, where both ends of net/http agree on HTTP/2, in a stripped program."""
    with Receiver() as first, Receiver() as second:
        over_1 = answered(router, first, stripped=True)
        over_2 = answered(router, second, "-tls", stripped=True)
        assert over_2 == over_1
        assert any(answer.route for answer in over_2.values())
        of_servers = [span.attributes for span in second.spans if span.kind == SERVER]
        assert {(span["network.protocol.version"], span["url.scheme"]) for span in of_servers} == {("2", "https")}
