"""Calls between a gRPC client and a server become two spans each, which say what both programs logged."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from signal import SIGUSR1
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.client import ask
from harness.expect import CLOCK_NS, MOST_EXCESS_NS, wall_offset
from harness.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.agent import Outcome
    from harness.receiver import Receiver, Span, Value

pytestmark = pytest.mark.root

SERVER, CLIENT = 2, 3
"""OTLP's SPAN_KIND_SERVER and SPAN_KIND_CLIENT."""
SERVER_ERRORS = frozenset(("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"))

BUILDS = {
    "newest": lambda: go_binary("grpc", language="1.26.0"),
    "1.64-stripped": lambda: go_binary("grpc_1_64", go="1.21", strip=True),
    "1.19-stripped": lambda: go_binary("grpc_1_19", go="1.21", strip=True),
}
KINDS = (
    *("unary", "missing", "internal", "watch", "watchfail", "upload", "chat", "unimplemented", "unknown"),
    *("deadline", "cancel", "chatend", "chatdeadline", "abandoned", "refused", "waiting"),
)
UNANSWERED = {"unimplemented", "unknown", "refused", "waiting"}
"""Kinds that no handler of the server sees, and so aren't in its log."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a program says about one call that it made or answered; see tests/go/grpc/main.go."""

    side: str
    method: str
    code: str
    peer: str
    to: str
    start: int
    end: int


def log_of(program: Target, side: str) -> list[Call]:
    """Return the calls that it logged, by their start."""
    calls = [Call(**json.loads(text)) for text in program.stdout.matching(rf'^{{"side":"{side}"')]
    return sorted(calls, key=lambda call: call.start)


def make_calls(client: Target, rounds: int = 1) -> None:
    """Have the client make the calls that it was started for."""
    os.kill(client.pid, SIGUSR1)
    client.stdout.wait_for("^done$", rounds, 60)


@dataclass(frozen=True, slots=True)
class Traced:
    """Calls between a client and a server, both traced."""

    outcome: Outcome
    made: list[Call]
    answered: list[Call]
    port: int
    """The server's."""

    @property
    def spans(self) -> tuple[int, int, dict[str, int]]:
        """How many were started and exported, and by reason dropped."""
        return self.outcome.started, self.outcome.exported, self.outcome.dropped


def traced_calls(
    receiver: Receiver,
    exe: Path,
    kinds: Sequence[str],
    answers: int,
    *,
    times: int = 0,
    both: Sequence[str] = (),
    serving: Sequence[str] = (),
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Traced:
    """Have a client make calls, the kinds in turn, and wait until the server has logged its end of them.

    Args:
        receiver: gets the spans.
        exe: of the client and the server.
        kinds: of tests/go/grpc.
        answers: that the server logs.
        times: how many calls; as many as there are kinds, unless it is said.
        both: arguments of client and server.
        serving: more of the server.
        options: of the agent.
        environment: of the agent, more than what `receiver` wants.
    """
    with (
        Target(exe, *both, *serving) as server,
        Target(
            exe,
            *(*both, "-to", f"127.0.0.1:{server.port}", "-kinds", ",".join(kinds), "-times", str(times or len(kinds))),
        ) as client,
        Agent(
            *("--pid", str(server.pid), "--pid", str(client.pid), *options),
            environment={**receiver.environment, **(environment or {})},
        ) as agent,
    ):
        agent.attached(2)
        make_calls(client)
        server.stdout.wait_for('^{"side":"server"', answers)
        return Traced(agent.stop(), log_of(client, "client"), log_of(server, "server"), server.port)


def by_kind(spans: list[Span], kind: int) -> list[Span]:
    """Return the spans of a kind, by their start."""
    return sorted((span for span in spans if span.kind == kind), key=lambda span: span.start)


def attributes(call: Call, port: int) -> dict[str, Value]:
    """Return all attributes that a call's span has, and no others."""
    result: dict[str, Value] = {
        "rpc.system.name": "grpc",
        "rpc.method": call.method,
        "rpc.response.status_code": call.code,
        "server.address": "127.0.0.1",
        "server.port": int(call.to.rpartition(":")[2] or port),
    }
    if call.code in SERVER_ERRORS if call.side == "server" else call.code != "OK":
        result["error.type"] = call.code
    address, _, peer_port = call.peer.rpartition(":")
    if address:
        result |= {"network.peer.address": address, "network.peer.port": int(peer_port)}
        if call.side == "server":
            result["client.address"] = address
    return result


def spans_match(spans: list[Span], calls: list[Call], port: int, *, peers: bool = True) -> None:
    """Check spans against the log of calls that were made one after the other.

    Raises:
        AssertionError: any differs.
    """
    assert [span.name for span in spans] == [call.method for call in calls]
    offset = wall_offset()
    for span, call in zip(spans, calls, strict=True):
        expected = attributes(call, port)
        if "network.peer.address" not in expected and peers:
            expected |= {key: span.attributes[key] for key in span.attributes if key.startswith("network.peer.")}
        assert span.attributes == expected
        assert span.error == ("error.type" in expected)
        if call.side == "server":
            assert span.start <= call.start + offset + CLOCK_NS
            assert span.end >= call.end + offset - CLOCK_NS
        else:
            assert span.start >= call.start + offset - CLOCK_NS
            assert span.end <= call.end + offset + MOST_EXCESS_NS


@pytest.mark.parametrize("build", BUILDS)
def test_each_call_is_two_spans(receiver: Receiver, build: str) -> None:
    """Unary calls and streams of each direction, with all that can become of them; joined by connection and stream."""
    exe = BUILDS[build]()
    traced = traced_calls(receiver, exe, KINDS, len(KINDS) - len(UNANSWERED))
    # Nothing is left in the maps of what is in flight: it would have been started, but not exported.
    assert traced.spans == (2 * len(KINDS) - 2, 2 * len(KINDS) - 2, {})
    clients, servers = by_kind(receiver.spans, CLIENT), by_kind(receiver.spans, SERVER)
    spans_match(clients, traced.made, traced.port)
    seen = [span for span in servers if span.attributes["rpc.response.status_code"] != "UNIMPLEMENTED"]
    spans_match(seen, traced.answered, traced.port)
    assert len(servers) - len(seen) == 2
    # The last two calls find no server.
    assert [call.code for call in traced.made[-2:]] == ["UNAVAILABLE", "DEADLINE_EXCEEDED"]
    assert [span.parent_span_id for span in servers] == [span.span_id for span in clients[:-2]]
    assert [span.trace_id for span in servers] == [span.trace_id for span in clients[:-2]]


def test_metadata_names_the_parent(receiver: Receiver) -> None:
    """A traceparent and tracestate that the caller sent, though its span is known by its connection, too."""
    exe = go_binary("grpc", language="1.26.0")
    traced = traced_calls(receiver, exe, ("traceparent", "unary"), 5, times=5, both=["-tls"], serving=["-workers", "3"])
    assert traced.spans == (10, 10, {})
    clients, servers = by_kind(receiver.spans, CLIENT), by_kind(receiver.spans, SERVER)
    spans_match(clients, traced.made, traced.port)
    spans_match(servers, traced.answered, traced.port)
    for number, (of_client, of_server) in enumerate(zip(clients, servers, strict=True)):
        if number % 2:
            assert (of_server.trace_id, of_server.parent_span_id) == (of_client.trace_id, of_client.span_id)
        else:
            assert of_server.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
            assert of_server.parent_span_id == "00f067aa0ba902b7"
            assert of_server.trace_state == "vendor=value"


def test_long_chats_end_when_they_end(receiver: Receiver) -> None:
    """A thousand messages both ways are one span a side; the server is killed in the midst of another chat."""
    exe = go_binary("grpc", language="1.26.0")
    with (
        Target(exe) as server,
        Target(exe, "-to", f"127.0.0.1:{server.port}", "-kinds", "longchat,slowchat") as client,
        Agent("--pid", str(server.pid), "--pid", str(client.pid), environment=receiver.environment) as agent,
    ):
        agent.attached(2)
        make_calls(client)
        server.stdout.wait_for('^{"side":"server"', 1)
        os.kill(client.pid, SIGUSR1)
        time.sleep(0.3)
        server.kill()
        client.stdout.wait_for("^done$", 2)
        outcome = agent.stop()
        made, answered = log_of(client, "client"), log_of(server, "server")
    clients = by_kind(receiver.spans, CLIENT)
    spans_match(clients, made, server.port)
    spans_match(by_kind(receiver.spans, SERVER), answered, server.port)
    assert [call.code for call in made] == ["OK", "UNAVAILABLE"]
    for span, call in zip(clients, made, strict=True):
        assert (span.end - span.start) / (call.end - call.start) > 0.9
    # The server's second call was in flight when it died.
    assert (outcome.started, outcome.exported, sum(outcome.dropped.values())) == (4, 3, 1)


def test_durations_and_what_is_left_out(receiver: Receiver) -> None:
    """Histograms count each call by method and status; unsampled calls too, of which errors are kept on both sides."""
    exe = go_binary("grpc", language="1.26.0")
    kinds = ("unary", "missing", "internal", "health", "reflection")
    traced = traced_calls(
        *(receiver, exe, kinds, 21),
        times=35,
        options=["--skip-grpc-health", "--always-sample", "errors"],
        environment={"OTEL_METRICS_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "always_off"},
    )
    assert traced.outcome.balanced
    assert traced.outcome.started == 42
    # NOT_FOUND is an error to the client alone.
    assert Counter((span.kind, span.attributes["rpc.response.status_code"]) for span in receiver.spans) == Counter(
        {(CLIENT, "NOT_FOUND"): 7, (CLIENT, "INTERNAL"): 7, (SERVER, "INTERNAL"): 7}
    )
    counted = {}
    for request in receiver.metrics:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.histogram.data_points:
                        values = {pair.key: pair.value.string_value for pair in point.attributes}
                        counted[metric.name, values["rpc.response.status_code"], values.get("error.type")] = point.count
                        assert values["rpc.method"] == "shop.v1.Cart/Get"
                        assert values["rpc.system.name"] == "grpc"
    assert counted == {
        ("rpc.server.call.duration", "OK", None): 7,
        ("rpc.server.call.duration", "NOT_FOUND", None): 7,
        ("rpc.server.call.duration", "INTERNAL", "INTERNAL"): 7,
        ("rpc.client.call.duration", "OK", None): 7,
        ("rpc.client.call.duration", "NOT_FOUND", "NOT_FOUND"): 7,
        ("rpc.client.call.duration", "INTERNAL", "INTERNAL"): 7,
    }


def test_gateway_and_connect_as_they_come(receiver: Receiver) -> None:
    """A gateway is a server that calls a gRPC client, connect-go net/http on both sides: no span twice."""
    with (
        Target(go_binary("grpc_gateway", language="1.26.0")) as target,
        Agent("--pid", str(target.pid), environment=receiver.environment) as agent,
    ):
        agent.attached()
        for path in ("/v1/cart", "/v1/price"):
            assert ask(target.port, path).status == 200
        outcome = agent.stop()
    assert (outcome.started, outcome.exported, outcome.dropped) == (6, 6, {})
    chains = []
    for root in (span for span in receiver.spans if not span.parent_span_id):
        chain = [root]
        while children := [span for span in receiver.spans if span.parent_span_id == chain[-1].span_id]:
            (child,) = children
            chain.append(child)
        chains.append([(span.kind, span.name) for span in chain])
    assert chains == [
        [(SERVER, "GET /v1/"), (CLIENT, "shop.v1.Cart/Get"), (SERVER, "shop.v1.Cart/Get")],
        [(SERVER, "GET /v1/"), (CLIENT, "POST"), (SERVER, "POST /shop.v1.Price/Get")],
    ]


METADATA = {"x-request-id": ["id-1", ""], "x-tenant": ["blue", "green"], "x-long": ["0123456789" * 12 + "0123"]}
"""What the kinds metadata and metachat send of the keys that are asked for; of the last as much as is kept."""


@pytest.mark.parametrize("build", BUILDS)
def test_metadata_that_is_named_is_recorded(receiver: Receiver, build: str) -> None:
    """All values of a key in their order, of client and server, unary and stream; nothing of the others."""
    exe = BUILDS[build]()
    names = ",".join(("X-Tenant", *METADATA, "x-nobody"))
    traced = traced_calls(
        receiver, exe, ("metadata", "metachat", "unary"), 7, times=7, options=["--grpc-metadata", names]
    )
    assert traced.spans == (14, 14, {})
    prefix = "rpc.request.metadata."
    for kind in (CLIENT, SERVER):
        for number, span in enumerate(by_kind(receiver.spans, kind)):
            found = {key: value for key, value in span.attributes.items() if key.startswith(prefix)}
            if kind == SERVER and "1.19" in build and found:
                found[f"{prefix}x-tenant"].reverse()  # sent so: what was appended to the metadata comes first
            assert found == ({} if number % 3 == 2 else {f"{prefix}{key}": value for key, value in METADATA.items()})
    # A long value in each of five calls.
    assert [target["captured_cut"] for target in traced.outcome.targets] == [5, 5]
    assert traced.outcome.stderr.count("metadata that spans were to have was cut") == 2


def test_a_worker_s_calls_are_linked_to_the_requests_whose_items_it_takes(receiver: Receiver) -> None:
    """Over a channel: no parent, but a link to the request whose id is in the method."""
    exe = go_binary("grpc", language="1.26.0")
    with (
        Target(exe, "-ids") as back,
        Target(exe, "-ids", "-back", f"127.0.0.1:{back.port}", "-queued") as front,
        Target(exe, "-to", f"127.0.0.1:{front.port}", "-load", "23", "-streams", "4") as caller,
        Agent(
            *(f"--pid={each.pid}" for each in (back, front, caller)), "--span-links", environment=receiver.environment
        ) as agent,
    ):
        agent.attached(3)
        make_calls(caller)
        outcome = agent.stop()
    assert (outcome.started, outcome.exported, outcome.dropped) == (92, 92, {})
    fronts = {span.name: (span.trace_id, span.span_id) for span in by_kind(receiver.spans, SERVER)}
    calls = [span for span in by_kind(receiver.spans, CLIENT) if span.name.startswith("load.Back/")]
    assert len(calls) == 23
    for span in calls:
        assert span.parent_span_id == ""
        assert fronts[span.name.replace("Back", "Front")] in span.links


def test_calls_that_net_http_s_server_passes_on(receiver: Receiver) -> None:
    """``(*grpc.Server).ServeHTTP``: an HTTP request's span, and in it the call's, which has the status."""
    exe, kinds = go_binary("grpc", language="1.26.0"), ("unary", "missing", "chat", "watchfail")
    traced = traced_calls(receiver, exe, kinds, 7, times=7, both=["-over-http"])
    assert traced.spans == (21, 21, {})
    servers = by_kind(receiver.spans, SERVER)
    calls = [span for span in servers if "rpc.method" in span.attributes]
    requests = {span.span_id: span for span in servers if "http.request.method" in span.attributes}
    clients = by_kind(receiver.spans, CLIENT)
    spans_match(clients, traced.made, traced.port)
    assert [(span.name, span.attributes["rpc.response.status_code"]) for span in calls] == [
        (call.method, call.code) for call in traced.answered
    ]
    assert len(requests) == 7
    for call, made_by in zip(calls, clients, strict=True):
        request = requests[call.parent_span_id]
        assert (request.start <= call.start, call.end <= request.end) == (True, True)
        assert request.attributes["http.response.status_code"] == 200
        assert request.parent_span_id == made_by.span_id
