"""How requests over HTTP/2 end, besides by an answer; what the agent keeps then; what they cost HTTP/1."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.client import one_after_another, page
from harness.join import Join
from harness.target import DEADLINE_S, Target
from harness.traces import map_elements, program_runs, program_statistics
from test_http2 import CLIENT, SENT, SERVER, Ends, verdict

if TYPE_CHECKING:
    from harness.receiver import Receiver

pytestmark = [pytest.mark.root]

REQUESTS, HELD, CANCELLED = 23, 7, 5
LONG = f"/nothing/{326 * 'l'}"
"""What is kept of a target."""
CUT = f"/nothing/{326 * 'c'}"
KEPT = ("http2_server_in", "http_client_inf", "active_spans", "live_contexts", "http_streams_wa")
"""Maps whose elements are requests that go on, as the kernel keeps their names."""
ASKED = (
    ("get", "/hints/x", 201),
    ("get", "/trailers/x", 200),
    ("leave", "/endless/x", 200),
    ("get", "/until-reset/x", 0),
    ("get", "/panic/x", 0),
    ("get", "/flushed-panic/x", 202),
    ("get", LONG, 200),
    ("get", f"{CUT}{17 * 'c'}", 200),
)
"""How, path, and the status that the client gets; 0: none."""
ENDS = {
    "/hints/x": ((201, None), (201, None)),
    "/trailers/x": ((200, None), (200, None)),
    "/endless/x": ((200, None), (200, None)),
    "/until-reset/x": ((200, None), (None, "timeout")),
    "/panic/x": ((None, "*errors.errorString"), (None, "net/http.http2StreamError")),
    "/flushed-panic/x": ((202, "*errors.errorString"), (202, None)),
    LONG: ((200, None), (200, None)),
    CUT: ((200, None), None),
    f"{CUT}{17 * 'c'}": (None, (200, None)),
    "/until-reset/held": (None, (None, "*errors.errorString")),
}
"""By path, of the server's and of the client's span: status code and error.type."""


def kept(agent: Agent) -> dict[str, int]:
    """Return the elements of KEPT's maps."""
    elements = map_elements(agent.pid)
    return {name: elements[name] for name in KEPT}


def wait_until_served(agent: Agent, count: int) -> dict[str, int]:
    """Wait until the server's end of so many requests is kept; return how many elements each of KEPT's maps has."""
    ending = time.monotonic() + DEADLINE_S
    while (found := kept(agent))["http2_server_in"] != count and time.monotonic() < ending:
        time.sleep(0.05)
    return found


def test_what_ends_leaves_nothing(receiver: Receiver) -> None:
    """Cancelled, left, reset, and with a server that is killed: told as it was, and forgotten."""
    ends = Ends("tls", go_binary("http2"))
    try:
        with ends.traced(receiver) as agent:
            agent.attached(2)
            for how, path, status in ASKED:
                assert ends.client.ask(f"{how} GET {path} -", "^got ") == f"got {status}"
            assert wait_until_served(agent, 0) == dict.fromkeys(KEPT, 0)
            asking = threading.Thread(target=ends.client.ask, args=(f"hold {HELD} /until-reset/held", "^got "))
            asking.start()
            assert wait_until_served(agent, HELD)["http_client_inf"] == HELD
            os.kill(ends.server.pid, signal.SIGKILL)
            asking.join()
            assert ends.client.printed("^got ")[-1] == f"got {HELD}"
            assert wait_until_served(agent, 0) == dict.fromkeys(KEPT, 0)
            outcome = agent.stop()
    finally:
        ends.stop()
    assert outcome.balanced
    assert outcome.dropped == {"unfinished": HELD}
    told: dict[int, dict[str, tuple[object, object]]] = {SERVER: {}, CLIENT: {}}
    for span in receiver.spans:
        where = "url.full" if span.kind == CLIENT else "url.path"
        told[span.kind][urlsplit(str(span.attributes[where])).path] = (
            span.attributes.get("http.response.status_code"),
            span.attributes.get("error.type"),
        )
    assert told[SERVER] == {path: server for path, (server, _) in ENDS.items() if server}
    assert told[CLIENT] == {path: client for path, (_, client) in ENDS.items() if client}


@pytest.mark.parametrize(
    ("how", "release", "strip"),
    [
        ("tls", "", False),
        pytest.param("x", "", False, marks=pytest.mark.slow),
        pytest.param("tls", "1.21", True, marks=pytest.mark.slow),
        pytest.param("h2c", "1.27", False, marks=pytest.mark.slow),
    ],
)
def test_a_client_that_cancels(how: str, release: str, strip: bool, receiver: Receiver) -> None:
    """RST_STREAM with CANCEL, before an answer has begun and behind its header: one span at either end, none kept."""
    ends = Ends(how, go_binary("http2", go=release, strip=strip))
    try:
        with ends.traced(receiver) as agent:
            agent.attached(2)
            for number in range(CANCELLED):
                for page, status in (("until-reset", 0), ("endless", 200)):
                    assert ends.client.ask(f"cancel GET /{page}/{number} -", "^got ") == f"got {status}"
            ends.server.wait_for_lines(r"^\{", 2 * CANCELLED)
            assert wait_until_served(agent, 0) == dict.fromkeys(KEPT, 0)
            outcome = agent.stop()
    finally:
        ends.stop()
    assert (outcome.started, outcome.exported, outcome.dropped) == (4 * CANCELLED, 4 * CANCELLED, {})
    assert verdict(receiver.spans) == Counter(right=2 * CANCELLED)
    assert Counter(
        (span.kind, span.name, span.attributes.get("http.response.status_code"), span.attributes.get("error.type"))
        for span in receiver.spans
    ) == {
        (CLIENT, "GET", None, "canceled"): CANCELLED,
        (CLIENT, "GET", 200, None): CANCELLED,
        (SERVER, "GET /until-reset/", 200, None): CANCELLED,
        (SERVER, "GET /endless/", 200, None): CANCELLED,
    }


def test_an_upgrade_to_h2c_is_one_span(receiver: Receiver) -> None:
    """An HTTP/1 request that the server answers over HTTP/2, by x/net's h2c."""
    with (
        Join("-listen", "127.0.0.1:0", "-how", "x-h2c", exe=go_binary("http2")) as server,
        Agent("--pid", str(server.pid), environment=receiver.environment) as agent,
    ):
        agent.attached()
        for number in range(REQUESTS):
            with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as connection:
                connection.sendall(
                    f"GET /{number} HTTP/1.1\r\nHost: upgraded\r\nTraceparent: {SENT}\r\n"
                    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
                    "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n".encode()
                )
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
                server.wait_for_lines(r"^\{", number + 1)
        outcome = agent.stop()
    assert (outcome.started, outcome.exported, outcome.dropped) == (REQUESTS, REQUESTS, {})
    assert Counter(span.attributes["url.path"] for span in receiver.spans) == {f"/{n}": 1 for n in range(REQUESTS)}
    for span in receiver.spans:
        assert (span.name, span.parent_span_id) == ("GET /", SENT[36:52])
        assert span.attributes["http.response.status_code"] == 200
        assert span.attributes["network.protocol.version"] == "2"


def test_a_server_of_http1_pays_nothing(receiver: Receiver) -> None:
    """Three hits a request, none of them HTTP/2's."""
    with (
        program_statistics(),
        Target(go_binary("http_server")) as server,
        Agent("--pid", str(server.pid), environment=receiver.environment) as agent,
    ):
        agent.attached()
        one_after_another(server.port, [page("/hello")] * REQUESTS)
        server.wait_log(REQUESTS)
        runs = {name: count for name, (count, _) in program_runs(agent.pid).items() if name.startswith("http")}
        agent.stop()
    runs.pop("http_server_con")  # the connection's end, should it have come by now
    assert {count for name, count in runs.items() if name.startswith("http2_")} == {0}
    assert sum(runs.values()) == 3 * REQUESTS
