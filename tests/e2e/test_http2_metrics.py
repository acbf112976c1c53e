"""Durations, requests in flight and samplers over HTTP/2, against what was asked and what the spans say."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from test_http2 import CLIENT, SERVER, Ends
from test_red import ACTIVE, DURATION, points

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.agent import Outcome
    from harness.receiver import Receiver, Span

pytestmark = [pytest.mark.root]

CLIENT_DURATION = "http.client.request.duration"
ASKED = {"/status/404": 3, "/status/503": 5, "/panic/x": 2, "/until-reset/x": 4, "/any": 11}
"""How often which path."""
TOLD = {
    "/status/404": ("/status/", 404, None),
    "/status/503": ("/status/", 503, "503"),
    "/panic/x": ("/panic/", None, "*errors.errorString"),
    "/until-reset/x": ("/until-reset/", 200, None),
    "/any": ("/", 200, None),
}
"""By path: route, status and error.type of the server's answer."""
WAYS = [("tls", "", False), pytest.param(("x-h2c", "", False), marks=pytest.mark.slow)]
WAYS += [pytest.param(("tls", go, True), marks=pytest.mark.slow) for go in ("1.21", "1.27")]


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0]}-{way[1] or 'machine'}")
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Give both ends."""
    how, release, strip = request.param
    both = Ends(how, go_binary("http2", go=release, strip=strip))
    yield both
    both.stop()


def asked(ends: Ends, receiver: Receiver, *flags: str, traceparent: str = "-", exports: int = 0) -> Outcome:
    """Trace both ends while they do what ASKED says, and so many exports of metrics longer."""
    with ends.traced(receiver, "--metrics-exporter", "otlp", *flags) as agent:
        agent.attached(2)
        for path, count in ASKED.items():
            for _ in range(count):
                ends.client.ask(f"get GET {path} {traceparent}", "^got ")
        receiver.wait_metrics(len(receiver.metrics) + exports)
        return agent.stop()


def served(ends: Ends) -> Counter[str]:
    """Return how often the server has answered each path, by its own log; a call may give up before it is sent."""
    counts = Counter(str(json.loads(line)["path"]) for line in ends.server.printed(r"^\{"))
    assert counts.keys() == ASKED.keys()
    return counts


def of(span: Span, *keys: str) -> tuple[object, ...]:
    """Return attributes of a span, None where it hasn't got one."""
    return tuple(span.attributes.get(key) for key in keys)


def counted(receiver: Receiver, name: str, *keys: str) -> Counter[tuple[object, ...]]:
    """Return how many requests the last export of a histogram has, by attributes."""
    found = points(receiver, name)
    last = max(point.export for point in found)
    counts: Counter[tuple[object, ...]] = Counter()
    for point in found:
        assert point.attributes.get("network.protocol.version", "2") == "2"  # a call without an answer has none
        if point.export == last:
            counts[tuple(point.attributes.get(key) for key in keys)] += point.point.count
    return counts


def test_durations_and_requests_in_flight(ends: Ends, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request at either end is counted once, as its span says; a span stands for it as exemplar."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    asked(ends, receiver, exports=3)
    spans = receiver.spans
    keys = ("http.route", "http.response.status_code", "error.type")
    truth = {TOLD[path]: count for path, count in served(ends).items()}
    assert counted(receiver, DURATION, *keys) == truth
    assert Counter(of(span, *keys) for span in spans if span.kind == SERVER) == truth
    assert counted(receiver, CLIENT_DURATION, *keys[1:]) == Counter(
        of(span, *keys[1:]) for span in spans if span.kind == CLIENT
    )
    for name, kind in ((DURATION, SERVER), (CLIENT_DURATION, CLIENT)):
        own = {(span.trace_id, span.span_id) for span in spans if span.kind == kind}
        told = {
            (exemplar.trace_id.hex(), exemplar.span_id.hex())
            for point in points(receiver, name)
            for exemplar in point.point.exemplars
        }
        assert told, name
        assert told <= own
    in_flight = [point.point.as_int for point in points(receiver, ACTIVE)]
    assert max(in_flight) >= 1, "the one that waits for its reset"
    assert in_flight[-1] == 0


def test_nothing_is_sampled_and_everything_counted(ends: Ends, receiver: Receiver) -> None:
    """A caller's decision is followed, at either end."""
    outcome = asked(ends, receiver, traceparent=f"00-{'4b' * 16}-{'7c' * 8}-00")
    assert {span.kind for span in receiver.spans} <= {CLIENT}, "whose headers the application made itself"
    counts = served(ends)
    assert outcome.dropped["sampled_out"] >= counts.total()
    truth = {TOLD[path]: count for path, count in counts.items()}
    assert counted(receiver, DURATION, "http.route", "http.response.status_code", "error.type") == truth


def test_what_failed_or_was_slow_is_kept(ends: Ends, receiver: Receiver) -> None:
    """Marked as such, both the server's span and the call's; the sampled flag stays what was decided at the start."""
    asked(ends, receiver, "--sample", "0", "--always-sample", "errors,slower=300ms")
    kept = Counter(span.attributes["http.route"] for span in receiver.spans if span.kind == SERVER)
    counts = served(ends)
    assert kept == {TOLD[path][0]: counts[path] for path in ("/status/503", "/panic/x", "/until-reset/x")}
    assert all(span.attributes["goprobe.sampled.late"] and not span.flags & 1 for span in receiver.spans)
    assert all(span.error or span.end - span.start > 300e6 for span in receiver.spans)
