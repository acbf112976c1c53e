"""http.route is the pattern of the innermost handler, however routes are put together."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness import expect
from harness.agent import Agent
from harness.client import Request, ask, page
from harness.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.receiver import Receiver

pytestmark = pytest.mark.root

SHOP = (("Host", "shop.example"),)
COMMON = (
    page("/ok"),
    page("/fail", 500),
    Request("/tree/a/b", route="/tree/"),
    Request("/nowhere", status=404),
    page("/panic?kind=custom", 0),
)


def below(prefix: str, route_prefix: str) -> tuple[Request, ...]:
    """Return COMMON with paths below `prefix`, and routes below `route_prefix`."""
    return tuple(
        Request(
            prefix + request.target, status=request.status, route=route_prefix + request.route if request.route else ""
        )
        for request in COMMON
    )


ARRANGEMENTS: dict[str, tuple[Request, ...]] = {
    "plain": COMMON,
    "context": COMMON,
    "timeout": COMMON,
    "inside": COMMON,
    "default": COMMON,
    "strip": below("/api", ""),
    "nested": below("/v1", "/v1"),
    "host": (*COMMON, Request("/basket/7", route="/basket/", headers=SHOP)),
    "none": (page("/ok"), Request("/nowhere", status=404)),
}
NO_ROUTES = "none"

WITH_METHODS = (
    *COMMON,
    Request("/users/7", route="/users/{id}"),
    Request("/users/7", method="POST", route="/users/{id}"),
    Request("/users/7", method="DELETE", status=405),
    Request("/orders/7", route="/orders/{id}", headers=SHOP),
    Request("/files/a/b", route="/files/{rest...}"),
    Request("/exact/", route="/exact/{$}"),
)
"""Patterns of Go 1.22 and later."""

BUILDS: dict[str, tuple[Callable[[], Path], bool]] = {
    "machine": (lambda: go_binary("http_server"), True),
    "machine-says-1.21": (lambda: go_binary("http_server", language="1.21"), False),
    "1.21": (lambda: go_binary("http_server", go="1.21", strip=True), False),
}
"""Name -> how to build, whether patterns may have methods."""


@pytest.mark.parametrize(
    "build", [pytest.param(name, marks=() if name == "machine" else pytest.mark.slow) for name in BUILDS]
)
def test_route_of_every_arrangement(build: str, receiver: Receiver) -> None:
    """All arrangements at once, each a service of one agent, told apart by their names."""
    exe, methods = BUILDS[build][0](), BUILDS[build][1]
    arrangements = {**ARRANGEMENTS, **({"method": WITH_METHODS} if methods else {})}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(Target(exe, "-mux", name)) for name in arrangements}
        services = [f"--service={name}=pid:{server.pid}" for name, server in servers.items()]
        agent = stack.enter_context(Agent(*services, environment=receiver.environment))
        agent.attached(len(servers))
        for name, requests in arrangements.items():
            for request in requests:
                assert ask(servers[name].port, request).status == request.status, (name, request)
        logs = {name: server.wait_log(len(arrangements[name])) for name, server in servers.items()}
        outcome = agent.stop()
    wrong = []
    for name, requests in arrangements.items():
        spans = [span for span in receiver.spans if span.resource["service.name"] == name]
        assert len(spans) == len(requests), name
        for (span, line), request in zip(expect.pairs(spans, logs[name]), requests, strict=True):
            expected = expect.attributes(line, route="" if name == NO_ROUTES else request.route)
            if span.attributes != expected or span.name != expect.name(expected):
                wrong.append((name, span.name, dict(expected.items() ^ span.attributes.items())))
    assert wrong == []
    total = sum(map(len, arrangements.values()))
    assert (outcome.started, outcome.exported, outcome.dropped) == (total, total, {})
