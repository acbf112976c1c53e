"""Requests of a net/http server become spans that say what the server itself logged, and nothing else."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness import expect
from harness.agent import Agent
from harness.client import Connection, Request, ask, at_once, in_turn, one_after_another, page
from harness.receiver import GrpcReceiver, Receiver
from harness.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.client import Answer

pytestmark = pytest.mark.root

BUILDS = {
    "machine": lambda: go_binary("http_server"),
    "1.21-stripped": lambda: go_binary("http_server", go="1.21", strip=True),
}


@pytest.fixture(params=BUILDS)
def exe(request: pytest.FixtureRequest) -> Path:
    """Give today's Go as it builds by default, and the oldest supported, stripped."""
    return BUILDS[request.param]()


@pytest.fixture
def server(exe: Path) -> Iterator[Target]:
    """Give a server whose routes are on a plain ServeMux."""
    with Target(exe) as target:
        yield target


@pytest.mark.parametrize("send", [one_after_another, at_once])
def test_23_requests_of_7_kinds_are_23_spans(
    server: Target, receiver: Receiver, send: Callable[..., list[Answer]]
) -> None:
    """Exactly one span each, with the target's own facts and enclosing its own interval."""
    requests = in_turn(23)
    with Agent("--service", "shop", "--pid", str(server.pid), environment=receiver.environment) as agent:
        agent.attached()
        answers = send(server.port, requests)
        log = server.wait_log(23)
        outcome = agent.stop()
    assert [answer.status for answer in answers] == [request.status for request in requests]
    expect.spans_match(receiver.spans, log, requests)
    assert (outcome.code, outcome.started, outcome.exported, outcome.dropped) == (0, 23, 23, {})
    assert outcome.targets[0]["pid"] == server.pid
    assert outcome.targets[0]["started"] == 23
    assert {span.resource["service.name"] for span in receiver.spans} == {"shop"}


ODD = (
    page("/teapot", 418),
    page("/unavailable", 503),
    page("/no-content", 204),
    page("/not-modified", 304),
    page("/redirect", 302),
    page("/ok", method="HEAD"),
    page("/ok", method="OPTIONS"),
    page("/ok", method="BREW"),
    page("/ok", method="get"),
    page("/ok?colour=red&size=7"),
    page("/ok", version="1.0"),
    page("/ok", headers=(("Host", "shop.example"),)),
    page("/chunks"),
    page("/hints"),
    page("/large"),
    page("/deep?n=3000"),
    page("/slow?ms=30"),
    page("/recovered"),
    page("/recovered?status=500", 500),
    page("/goexit", 0),
    Request("/tree/%66irst/se%20cond/%C3%A4", route="/tree/"),
    Request("/tree/%ff%fe", route="/tree/"),
    Request("/tree/" + "long/" * 40, route="/tree/"),
)


def test_odd_requests_are_told_as_they_are(server: Target, receiver: Receiver) -> None:
    """Methods nobody knows, HTTP/1.0, 1xx before the answer, moved stacks, paths that are no UTF-8."""
    with Agent("--service", "shop", "--pid", str(server.pid), environment=receiver.environment) as agent:
        agent.attached()
        answers = [ask(server.port, request) for request in ODD]
        log = server.wait_log(len(ODD))
        outcome = agent.stop()
    assert [answer.status for answer in answers] == [request.status for request in ODD]
    expect.spans_match(receiver.spans, log, ODD)
    assert (outcome.started, outcome.exported, outcome.dropped) == (len(ODD), len(ODD), {})
    names = [span.name for span in receiver.spans]
    assert names.count("HTTP /ok") == 2
    assert any(span.attributes["url.path"] == "/tree/\ufffd\ufffd" for span in receiver.spans)


PANICS = ("error", "string", "int", "custom", "value", "wrapped", "abort", "bounds", "nilmap", "nilptr", "convert")


def test_panics_end_their_spans_with_the_type_of_their_value(server: Target, receiver: Receiver) -> None:
    """error.type is what Go's %T prints; the status code is there only if the handler had written one."""
    requests = [page(f"/panic?kind={kind}", 0) for kind in PANICS]
    requests += [page("/panic?kind=string&status=202", 0), page("/ok")]
    with Agent("--service", "shop", "--pid", str(server.pid), environment=receiver.environment) as agent:
        agent.attached()
        for request in requests:
            assert ask(server.port, request).status == request.status
        log = server.wait_log(len(requests))
        outcome = agent.stop()
    expect.spans_match(receiver.spans, log, requests)
    assert (outcome.started, outcome.exported, outcome.dropped) == (len(requests), len(requests), {})
    assert "*main.customError" in {span.attributes.get("error.type") for span in receiver.spans}


def test_a_hijacked_connection_is_101(server: Target, receiver: Receiver) -> None:
    """The span of an upgraded connection ends with its handler, has 101 and no error."""
    upgrade = page("/upgrade", 101, headers=(("Connection", "Upgrade"), ("Upgrade", "echo")))
    with Agent("--service", "shop", "--pid", str(server.pid), environment=receiver.environment) as agent:
        agent.attached()
        for _ in range(3):
            with Connection(server.port) as connection:
                assert connection.ask(upgrade).status == 101
                assert connection.raw(b"echo\n") == b"echo\n"
        log = server.wait_log(3)
        outcome = agent.stop()
    expect.spans_match(receiver.spans, log, [upgrade])
    assert (outcome.started, outcome.exported, outcome.dropped) == (3, 3, {})


def test_pipelined_requests_are_spans_of_their_own(server: Target, receiver: Receiver) -> None:
    """Seven requests in one segment, answered in turn."""
    requests = [page("/ok"), page("/fail", 500), Request("/nowhere", status=404)] * 2 + [page("/ok")]
    with Agent("--service", "shop", "--pid", str(server.pid), environment=receiver.environment) as agent:
        agent.attached()
        with Connection(server.port) as connection:
            connection.send(*requests)
            assert [connection.receive().status for _ in requests] == [request.status for request in requests]
        log = server.wait_log(7)
        outcome = agent.stop()
    expect.spans_match(receiver.spans, log, requests)
    assert (outcome.started, outcome.exported, outcome.dropped) == (7, 7, {})


def test_options_asterisk(server: Target, receiver: Receiver) -> None:
    """``OPTIONS *`` is answered by net/http itself; the span says so much."""
    with Agent("--service", "shop", "--pid", str(server.pid), environment=receiver.environment) as agent:
        agent.attached()
        assert ask(server.port, Request("*", method="OPTIONS")).status == 200
        agent.stop()
    (span,) = receiver.spans
    assert span.name == "OPTIONS"
    assert span.attributes["url.path"] == "*"
    assert span.attributes["http.response.status_code"] == 200


def test_an_overlong_path_is_cut(server: Target, receiver: Receiver) -> None:
    """A path of 4 KB costs its own end and nothing else."""
    path = "/tree/" + "0123456789abcdef" * 256
    with Agent("--service", "shop", "--pid", str(server.pid), environment=receiver.environment) as agent:
        agent.attached()
        assert ask(server.port, path).status == 200
        outcome = agent.stop()
    (span,) = receiver.spans
    cut = str(span.attributes["url.path"])
    assert path.startswith(cut)
    assert len(cut) >= 256
    assert span.attributes["http.route"] == "/tree/"
    assert span.attributes["http.response.status_code"] == 200
    assert (outcome.started, outcome.exported, outcome.dropped) == (1, 1, {})


def test_http1_and_http2_over_tls_on_one_port(exe: Path, receiver: Receiver) -> None:
    """Neither is taken for the other."""
    with (
        Target(exe, "-tls", "http2") as server,
        Agent("--service", "shop", "--pid", str(server.pid), environment=receiver.environment) as agent,
    ):
        agent.attached()
        over_http2: list[str | Path] = [exe, "-get", f"https://127.0.0.1:{server.port}/ok", "-times", "7"]
        subprocess.run(over_http2, check=True, capture_output=True, timeout=20)
        requests = [page("/ok"), page("/fail", 500), Request("/nowhere", status=404)]
        assert [ask(server.port, request, tls=True).status for request in requests] == [200, 500, 404]
        log = server.wait_log(10)
        outcome = agent.stop()
    over_2 = [span for span in receiver.spans if span.attributes["network.protocol.version"] == "2"]
    assert [(span.name, span.attributes["url.scheme"]) for span in over_2] == [("GET /ok", "https")] * 7
    log = [line for line in log if line.proto != "HTTP/2.0"]
    expect.spans_match([span for span in receiver.spans if span not in over_2], log, requests, scheme="https")
    assert (outcome.started, outcome.exported, outcome.dropped) == (10, 10, {})


def test_grpc_export() -> None:
    """OTLP over gRPC brings the same spans."""
    with GrpcReceiver() as receiver, Target(go_binary("http_server")) as server:
        requests = in_turn(23)
        with Agent("--service", "shop", "--pid", str(server.pid), environment=receiver.environment) as agent:
            agent.attached()
            one_after_another(server.port, requests)
            log = server.wait_log(23)
            outcome = agent.stop()
        expect.spans_match(receiver.spans, log, requests)
        assert (outcome.started, outcome.exported, outcome.dropped) == (23, 23, {})


def test_query_and_user_agent_on_request(receiver: Receiver) -> None:
    """url.query, with known secrets redacted, and user_agent.original only where they are asked for."""
    request = page("/ok?colour=red&sig=secret", headers=(("User-Agent", "browser/7"),))
    with Target(go_binary("http_server")) as server:
        for flags, query, user_agent in (
            ((), None, None),
            (("--url-query", "--user-agent"), "colour=red&sig=REDACTED", "browser/7"),
        ):
            with Agent("--pid", str(server.pid), *flags, environment=receiver.environment) as agent:
                agent.attached()
                ask(server.port, request)
                agent.stop()
            last = receiver.spans[-1]
            assert last.attributes.get("url.query") == query
            assert last.attributes.get("user_agent.original") == user_agent
