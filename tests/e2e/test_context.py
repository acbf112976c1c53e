"""The caller's span context, out of the request's headers: adopted where it is valid, else none; never a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.client import Connection
from harness.target import Target

if TYPE_CHECKING:
    from pathlib import Path

    from harness.receiver import Receiver, Span

pytestmark = pytest.mark.root

Headers = Sequence[tuple[str, str]]

BUILDS: dict[str, Callable[[], Path]] = {
    "swiss-maps": lambda: go_binary("http_server"),
    "old-maps": lambda: go_binary("http_server", go="1.21", strip=True),
}
TRACE_ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE_ID}-{PARENT}-01"
LONGEST = "k=" + "v" * 174


@pytest.fixture(params=BUILDS)
def server(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Give a server of today's Go, and of the oldest supported."""
    with Target(BUILDS[request.param]()) as target:
        yield target


def send(port: int, headers: Headers) -> None:
    """Send one request, its header lines as given."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    with Connection(port) as connection:
        head = f"GET /ok HTTP/1.1\r\nHost: {connection.host}\r\nConnection: close\r\n{lines}\r\n"
        assert connection.raw(head.encode("latin-1")).startswith(b"HTTP/1.1 200")


def traced(server: Target, receiver: Receiver, requests: Sequence[Headers], **environment: str) -> list[Span]:
    """Return the spans of requests that are sent one after another."""
    with Agent("--pid", str(server.pid), environment={**receiver.environment, **environment}) as agent:
        agent.attached()
        for headers in requests:
            send(server.port, headers)
        outcome = agent.stop()
    assert (outcome.started, outcome.exported, outcome.dropped) == (len(requests), len(requests), {})
    return receiver.spans


def many(count: int) -> list[tuple[str, str]]:
    """Return `count` headers, among them names as long as those that are looked for."""
    return [(f"X-{number:0{8 + number % 4}}"[: 9 + number % 4], "value") for number in range(count)]


ADOPTED: dict[str, Headers] = {
    "alone": [("traceparent", GOOD)],
    "capitals": [("TRACEPARENT", GOOD)],
    "first of 12": [("Traceparent", GOOD), *many(11)],
    "last of 8": [*many(6), ("traceparent", GOOD)],
    "last of 9": [*many(8), ("traceparent", GOOD)],
    "last of 23": [*many(22), ("tRaCePaReNt", GOOD)],
    "last of 61": [*many(60), ("traceparent", GOOD)],
    "beside its likes": [("User-Agent", "x"), ("Traceparenu", "y"), ("Tracestatf", "z"), ("traceparent", GOOD)],
    "blanks": [("traceparent", f"  {GOOD}\t")],
    "a version to come": [("traceparent", f"cc{GOOD[2:]}-more")],
}


def test_a_valid_traceparent_is_adopted(server: Target, receiver: Receiver) -> None:
    """Wherever it stands, however it is capitalised, in small maps and in large ones."""
    spans = traced(server, receiver, list(ADOPTED.values()))
    for name, span in zip(ADOPTED, spans, strict=True):
        assert (span.trace_id, span.parent_span_id, span.trace_state) == (TRACE_ID, PARENT, ""), name
        assert span.flags == 0x301, name
    assert len({span.span_id for span in spans}) == len(spans)


REFUSED: dict[str, Headers] = {
    "none": [],
    "two": [("traceparent", GOOD), ("traceparent", GOOD)],
    "two among many": [*many(9), ("traceparent", GOOD), *many(20), ("Traceparent", GOOD.replace("4b", "4c"))],
    "version ff": [("traceparent", "ff" + GOOD[2:])],
    "zeros": [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
    "no parent": [("traceparent", f"00-{TRACE_ID}-{'0' * 16}-01")],
    "capital digits": [("traceparent", GOOD.upper())],
    "too long": [("traceparent", GOOD + "-x")],
    "too short": [("traceparent", GOOD[:-1])],
    "empty": [("traceparent", "")],
    "state alone": [("tracestate", "rojo=1")],
    "another header": [("X-Traceparent", GOOD)],
}


def test_anything_else_begins_a_trace(server: Target, receiver: Receiver) -> None:
    """A new trace id, no parent, no state: the recommendation's answer to what it calls invalid."""
    spans = traced(server, receiver, [[*headers, ("tracestate", "rojo=1")] for headers in REFUSED.values()])
    for name, span in zip(REFUSED, spans, strict=True):
        assert (span.parent_span_id, span.trace_state, span.flags) == ("", "", 0x101), name
    assert len({span.trace_id for span in spans} - {TRACE_ID}) == len(spans)


STATES = {
    "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
    "rojo=1 , congo=2": "rojo=1,congo=2",
    LONGEST: LONGEST,
    LONGEST + "v": "",
    "Not=valid": "",
    "": "",
}


def test_tracestate_comes_with_its_traceparent(server: Target, receiver: Receiver) -> None:
    """Whole or not at all; a list that doesn't fit is counted."""
    requests = [[*many(3), ("tracestate", state), ("traceparent", GOOD)] for state in STATES]
    requests.append([("tracestate", "rojo=1"), ("traceparent", GOOD), ("tracestate", "congo=2")])
    spans = traced(server, receiver, requests)
    assert [span.trace_state for span in spans] == [*STATES.values(), ""]
    assert {span.parent_span_id for span in spans} == {PARENT}


def test_without_the_propagator(server: Target, receiver: Receiver) -> None:
    """OTEL_PROPAGATORS=none: headers are not looked at."""
    (span,) = traced(server, receiver, [[("traceparent", GOOD)]], OTEL_PROPAGATORS="none")
    assert span.parent_span_id == ""
    assert span.trace_id != TRACE_ID


B3_TRACE = "80f198ee56343ba864fe8b2a57d3eff7"
B3_SPAN = "e457b5a2e4d86bd1"


def b3_of(trace: str = B3_TRACE, sampled: str = "1") -> list[tuple[str, str]]:
    """Return the headers of B3's older form."""
    return [("X-B3-TraceId", trace), ("X-B3-SpanId", B3_SPAN), ("X-B3-Sampled", sampled)]


def test_b3_is_followed_where_it_is_asked_for(server: Target, receiver: Receiver) -> None:
    """Either form, among other headers; W3C's wins; the caller's decision is honoured."""
    short = "0" * 16 + B3_TRACE[16:]
    cases: list[tuple[Headers, tuple[str, str] | None]] = [
        ([("b3", f"{B3_TRACE}-{B3_SPAN}-1")], (B3_TRACE, B3_SPAN)),
        ([*many(23), ("B3", f"{B3_TRACE[16:]}-{B3_SPAN}-d"), ("tracestate", "k=v")], (short, B3_SPAN)),
        ([("b3", f"{B3_TRACE}-{B3_SPAN}")], (B3_TRACE, B3_SPAN)),
        ([*b3_of(), *many(41)], (B3_TRACE, B3_SPAN)),
        (b3_of(B3_TRACE[16:]), (short, B3_SPAN)),
        ([*b3_of()[:2], ("X-B3-Flags", "1")], (B3_TRACE, B3_SPAN)),
        ([("b3", f"{B3_TRACE}-{B3_SPAN}-1"), ("traceparent", GOOD)], (TRACE_ID, PARENT)),
        ([("b3", "1")], None),
        ([("b3", f"{B3_TRACE}-{B3_SPAN}-1"), ("b3", f"{B3_TRACE}-{B3_SPAN}-1")], None),
        (b3_of()[:1], None),
        ([("b3", "no")], None),
    ]
    denied: list[Headers] = [
        [("b3", f"{B3_TRACE}-{B3_SPAN}-0")],
        [("b3", "0")],
        b3_of(sampled="0"),
        b3_of(sampled="0")[2:],
    ]
    names = "tracecontext,b3,b3multi"
    with Agent("--pid", str(server.pid), environment={**receiver.environment, "OTEL_PROPAGATORS": names}) as agent:
        agent.attached()
        for headers in (*(headers for headers, _ in cases), *denied):
            send(server.port, headers)
        outcome = agent.stop()
    assert (outcome.exported, outcome.dropped) == (len(cases), {"sampled_out": len(denied)})
    for span, (headers, expected) in zip(receiver.spans, cases, strict=True):
        if expected:
            assert (span.trace_id, span.parent_span_id) == expected, headers
        else:
            assert span.parent_span_id == "", headers
        assert span.trace_state == "", headers


def test_b3_is_nothing_to_those_who_have_not_asked(server: Target, receiver: Receiver) -> None:
    """The default is W3C's; b3 alone doesn't read the older form."""
    headers = [("b3", f"{B3_TRACE}-{B3_SPAN}-1"), *b3_of()]
    traced(server, receiver, [headers])
    spans = traced(server, receiver, [b3_of()], OTEL_PROPAGATORS="b3")
    assert [span.parent_span_id for span in spans] == ["", ""]
