"""Which requests become spans is decided in the kernel, as the samplers' names say; the others are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness.agent import Agent, Outcome
from harness.client import Request, one_after_another, page
from harness.target import Target
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.receiver import Receiver

pytestmark = pytest.mark.root

TRACE_IDS = [f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}" for number in range(1, 102)]
"""Spread evenly (multiples of a Weyl constant)."""
HALF = TraceIdRatioBased(0.5)


@pytest.fixture
def server() -> Iterator[Target]:
    """Give a server whose routes are on a plain ServeMux."""
    with Target(go_binary("http_server")) as target:
        yield target


def with_parent(trace_id: str, flags: str = "01", target: str = "/ok") -> Request:
    """Return a request of a caller that has a span."""
    return page(target, headers=(("traceparent", f"00-{trace_id}-00f067aa0ba902b7-{flags}"),))


def run(server: Target, receiver: Receiver, requests: list[Request], *flags: str, **environment: str) -> Outcome:
    """Trace requests one after another and check the balance."""
    with Agent("--pid", str(server.pid), *flags, environment={**receiver.environment, **environment}) as agent:
        agent.attached()
        one_after_another(server.port, requests)
        outcome = agent.stop()
    assert outcome.started == len(requests)
    assert outcome.balanced
    assert outcome.exported == len(receiver.spans)
    return outcome


@pytest.mark.parametrize(
    ("name", "argument", "kept"),
    [
        ("always_on", "", "root sampled unsampled"),
        ("always_off", "", ""),
        ("traceidratio", "1", "root sampled unsampled"),
        ("traceidratio", "0", ""),
        ("parentbased_always_on", "", "root sampled"),
        ("", "", "root sampled"),
        ("parentbased_always_off", "", "sampled"),
        ("parentbased_traceidratio", "0", "sampled"),
        ("parentbased_traceidratio", "1.0", "root sampled"),
    ],
)
def test_samplers(server: Target, receiver: Receiver, name: str, argument: str, kept: str) -> None:
    """A root, a request whose caller sampled, and one whose caller didn't; the span's flag is the decision."""
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    kinds = {
        "root": page("/ok"),
        "sampled": with_parent(trace_id, "01", "/empty"),
        "unsampled": with_parent(trace_id, "00", "/large"),
    }
    outcome = run(
        server, receiver, list(kinds.values()) * 3, OTEL_TRACES_SAMPLER=name, OTEL_TRACES_SAMPLER_ARG=argument
    )
    expected = [kinds[kind].route for kind in kept.split()] * 3
    assert [span.attributes["http.route"] for span in receiver.spans] == expected
    assert outcome.dropped == ({"sampled_out": 9 - len(expected)} if len(expected) < 9 else {})
    assert {span.flags & 1 for span in receiver.spans} <= {1}


def test_the_ratio_is_decided_as_the_python_sdk_decides_it(server: Target, receiver: Receiver) -> None:
    """Of 101 traces exactly those become spans that opentelemetry-sdk would sample."""
    run(
        server,
        receiver,
        [with_parent(trace_id) for trace_id in TRACE_IDS],
        OTEL_TRACES_SAMPLER="traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.5",
    )
    sampled = [text for text in TRACE_IDS if int(text, 16) & TraceIdRatioBased.TRACE_ID_LIMIT < HALF.bound]
    assert [span.trace_id for span in receiver.spans] == sampled
    assert 40 < len(sampled) < 60


def test_a_service_with_a_ratio_of_its_own(server: Target, receiver: Receiver) -> None:
    """Traces that begin here are sampled at about the ratio, by the ids that they got."""
    outcome = run(server, receiver, [page("/ok")] * 401, "--service", "shop", "--sample", "1", "--sample", "shop=0.25")
    assert 60 < outcome.exported < 140
    quarter = TraceIdRatioBased(0.25)
    assert all(int(span.trace_id, 16) & TraceIdRatioBased.TRACE_ID_LIMIT < quarter.bound for span in receiver.spans)


def test_always_sample_keeps_what_failed_or_was_slow(server: Target, receiver: Receiver) -> None:
    """Marked as such; the sampled flag stays what was decided at the start."""
    fast, fail, slow = page("/ok"), page("/fail", 500), page("/slow?ms=150")
    panic, missing = page("/panic?kind=error", 0), Request("/nowhere", status=404)
    outcome = run(
        server,
        receiver,
        [fast, fail, slow, panic, missing, with_parent(TRACE_IDS[0], "01", "/empty")] * 3,
        "--always-sample",
        "errors,slower=100ms",
        OTEL_TRACES_SAMPLER="parentbased_always_off",
    )
    seen = [
        (span.attributes["http.route"], span.attributes.get("goprobe.sampled.late"), span.flags & 1)
        for span in receiver.spans
    ]
    assert seen == [("/fail", True, 0), ("/slow", True, 0), ("/panic", True, 0), ("/empty", None, 1)] * 3
    assert outcome.dropped == {"sampled_out": 6}


@pytest.mark.parametrize(("rule", "kept"), [("errors", "/fail"), ("slower=100ms", "/slow")])
def test_one_rule_alone(server: Target, receiver: Receiver, rule: str, kept: str) -> None:
    """Each rule works without the other."""
    requests = [page("/ok"), page("/fail", 500), page("/slow?ms=150")]
    outcome = run(server, receiver, requests, "--always-sample", rule, "--sample", "0")
    assert [span.attributes["http.route"] for span in receiver.spans] == [kept]
    assert outcome.dropped == {"sampled_out": 2}
