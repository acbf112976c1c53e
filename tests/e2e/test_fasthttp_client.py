"""Requests that fasthttp's clients send become spans that say what the client itself logged, and nothing else."""

from __future__ import annotations

import json
import os
from collections import Counter
from signal import SIGUSR1
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.hosts import counts
from harness.sent import CLIENT, Sent, sent_by, spans_match
from harness.target import Target
from test_red import points

from otel_goprobe.probes.http_requests import DURATION_ATTRIBUTES

if TYPE_CHECKING:
    from harness.receiver import Receiver, Span

pytestmark = pytest.mark.root

SERVER = 2
"""OTLP's SPAN_KIND_SERVER."""
OWN_TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""What the program sends itself, where it does."""
CALLS = int(os.environ.get("FASTHTTP_TRUTH_CALLS", "10007"))

KINDS = (
    *("ok", "missing", "failing", "post", "brew", "head", "old", "secret", "escaped", "long", "set", "host header"),
    *("only host header", "unwanted", "redirect", "repeated", "closed", "refused", "timeout", "deadline"),
    *("read timeout", "dial timeout", "no free", "too large", "streamed", "balanced", "other scheme", "panic", "ok"),
)


def test_what_is_sent_is_told(receiver: Receiver) -> None:
    """Repeated attempts and redirects are spans of their own; errors, odd URLs, requests that are never written."""
    exe = go_binary("fasthttp_calls", language="1.26.0")
    with (
        Target(exe) as origin,
        Target(
            exe, "-origin", f"127.0.0.1:{origin.port}", "-kinds", ",".join(KINDS), "-times", str(len(KINDS))
        ) as client,
        Agent("--pid", str(client.pid), environment={**receiver.environment, "OTEL_METRICS_EXPORTER": "otlp"}) as agent,
    ):
        agent.attached()
        log = sent_by(client, len(KINDS))
        outcome = agent.stop()
    spans_match(receiver.spans, log, "github.com/valyala/fasthttp")
    assert outcome.balanced
    assert outcome.dropped == {}
    counted = {
        tuple(point.attributes.get(name) for name in DURATION_ATTRIBUTES): point.point.count
        for point in points(receiver, "http.client.request.duration")
    }
    assert counted == Counter(
        tuple(span.attributes.get(name) for name in DURATION_ATTRIBUTES) for span in receiver.spans
    )


def test_headers_on_the_wire(receiver: Receiver) -> None:
    """--propagation wire: a server that nobody traces gets one traceparent, that of the client's span, or its own."""
    exe = go_binary("fasthttp_calls", language="1.26.0")
    kinds = ("carried", "carried own", "carried large", "carried stream", "carried long")
    arguments = ("-kinds", ",".join(kinds), "-times", str(7 * len(kinds)))
    with (
        Target(exe) as origin,
        Target(exe, "-origin", f"127.0.0.1:{origin.port}", *arguments) as client,
        Agent("--propagation", "wire", "--pid", str(client.pid), environment=receiver.environment) as agent,
    ):
        agent.attached()
        os.kill(client.pid, SIGUSR1)
        client.stdout.wait_for("^done$")
        outcome = agent.stop()
        arrived = [json.loads(text) for text in origin.stdout.matching(r"^\{")]
    spans = {span.attributes["url.full"]: span for span in receiver.spans}
    assert len(arrived) == len(spans) == 7 * len(kinds)
    bodies = {"large": 1 << 16, "stream": 9999}
    for each in arrived:
        kind = urlsplit(each["url"]).path.split("/")[2]
        span = spans[each["url"]]
        ours = [f"00-{span.trace_id}-{span.span_id}-01"]
        assert each["traceparents"] == {"own": [OWN_TRACEPARENT], "long": None}.get(kind, ours), kind
        assert each["bytes"] == bodies.get(kind, 0)
    assert outcome.balanced
    assert counts(outcome) == {"wire_injected": 21, "wire_own_header": 7, "wire_long_head": 7}


def by_id(spans: list[Span], kind: int, path: str) -> dict[str, Span]:
    """Return the spans of a kind and path by the ids in their queries."""
    found: dict[str, Span] = {}
    for span in (span for span in spans if span.kind == kind):
        query = span.attributes.get("url.query")
        url = urlsplit(str(span.attributes.get("url.full") or f"{span.attributes['url.path']}?{query}"))
        if url.path == path:
            (each,) = parse_qs(url.query)["id"]
            assert found.setdefault(each, span) is span
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "front_more", "options"),
    [((), (), ()), (("-secure",), (), ("--lineage",)), ((), ("-fasthttp",), ())],
    ids=["http", "https-lineage", "fasthttp"],
)
def test_parents_and_statuses_of_10_007_calls(
    more: tuple[str, ...], front_more: tuple[str, ...], options: tuple[str, ...], receiver: Receiver
) -> None:
    """16 at once from handlers of either server: on their goroutine, one they start, one of fasthttp's; redirected."""
    exe = go_binary("fasthttp_calls", language="1.26.0")
    with (
        Target(exe, *more) as back,
        Target(exe, "-origin", f"127.0.0.1:{back.port}", *more, *front_more) as front,
        Target(exe, "-origin", f"127.0.0.1:{front.port}", "-load", str(CALLS)) as caller,
        Agent(
            *("--url-query", *options, f"--pid={back.pid}", f"--pid={front.pid}"), environment=receiver.environment
        ) as agent,
    ):
        agent.attached(2)
        os.kill(caller.pid, SIGUSR1)
        caller.stdout.wait_for("^done$", 1, 120)
        outcome = agent.stop()
        log = [Sent(**json.loads(text)) for text in caller.stdout.matching(r"^\{")]
    answered = {parse_qs(urlsplit(line.url).query)["id"][0]: line.status for line in log}
    fronts, calls, backs = (
        by_id(receiver.spans, kind, path) for kind, path in ((SERVER, "/front"), (CLIENT, "/back"), (SERVER, "/back"))
    )
    assert outcome.balanced
    assert outcome.dropped == {}
    assert len(answered) == CALLS
    assert set(answered) == set(fronts) == set(calls) == set(backs)
    # A goroutine that starts another, as GetTimeout does, is one step too many without --lineage: no parent then.
    told = {each: "" if not options and int(each) % 33 == 0 else span.span_id for each, span in fronts.items()}
    wrong: Counter[str] = Counter()
    for each, status in answered.items():
        call, back_span = calls[each], backs[each]
        wrong["call"] += call.parent_span_id != told[each]
        wrong["call's trace"] += bool(told[each]) and call.trace_id != fronts[each].trace_id
        wrong["back"] += (back_span.trace_id, back_span.parent_span_id) != (call.trace_id, call.span_id)
        spans = (fronts[each], call, back_span)
        wrong["status"] += any(span.attributes["http.response.status_code"] != status for span in spans)
    redirected = by_id(receiver.spans, CLIENT, "/via")
    assert len(redirected) == -(-CALLS // 11)
    for each, span in redirected.items():
        wrong["redirect"] += span.parent_span_id != told[each]
        wrong["resends"] += calls[each].attributes["http.request.resend_count"] != 1
    assert wrong.total() == 0, wrong
