"""What tools see, in a real Collector and a real Jaeger, equals what the programs count (`make test-jaeger`)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from backends.backends import collector, jaeger, wait_until
from goprograms import go_binary
from harness.agent import Agent
from harness.target import Target
from test_jaeger import shown_by_browser
from test_network import WORK, services
from test_opens import REQUESTS
from test_opens import truth as opens_truth
from test_opens import work as open_files

if TYPE_CHECKING:
    from pathlib import Path

    from backends.backends import Collector

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

HELD = 5
POLICY = """services:
  shop:
    connect:
      - cidr: 127.0.0.0/26
      - host: "*.example.test"
      - unix: "*"
    listen:
      - ports: [1-65535]
"""
"""The forbidden call goes to 127.0.0.66 by a name of another domain."""


def attributes(of: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of anything in OTLP's JSON, in which 64-bit integers are strings."""

    def value(any_value: dict[str, Any]) -> object:
        ((kind, found),) = any_value.items()
        if kind == "arrayValue":
            return [value(item) for item in found["values"]]
        return int(found) if kind == "intValue" else found

    return {pair["key"]: value(pair["value"]) for pair in of["attributes"]}


def environment(backend: Collector, protocol: str) -> dict[str, str]:
    """Return what points the agent at a Collector, with metrics twice a second."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": backend.otlp_grpc if protocol == "grpc" else backend.otlp_http,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }


def points(backend: Collector, name: str) -> list[tuple[dict[str, Any], int]]:
    """Return the points of a metric's last collection: attributes and value."""
    found = [metric for metric in backend.metrics() if metric["name"] == name]
    return [(attributes(each), int(each["asInt"])) for each in found[-1]["sum"]["dataPoints"]] if found else []


def where(told: dict[str, Any]) -> str:
    """Return a destination as the service's truth has it, given a point's attributes, or an event's."""
    if told["network.transport"] == "unix":
        return f"unix {told['server.address']}"
    return f"{told['network.transport']} {told['server.address']}:{told['server.port']}"


def named(truth: dict[str, Any]) -> dict[str, Any]:
    """Return the truth by the names that were asked for, where there are any."""
    return {
        f"{where.partition(' ')[0]} {row['Name']}:{where.rpartition(':')[2]}" if row["Name"] else where: row
        for where, row in truth.items()
    }


def counted(backend: Collector, name: str, direction: str | None = None) -> dict[str, int]:
    """Return what a metric says of each destination that was dialled; of bytes those of one direction."""
    return {
        where(told): value
        for told, value in points(backend, name)
        if told["goprobe.network.direction"] == "out" and told.get("network.io.direction") == direction
    }


@pytest.mark.collector
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_collector_receives_network(protocol: str, tmp_path: Path) -> None:
    """Metrics, span events or log records, and the one finding say what the service counts itself."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    sampled = protocol == "http/protobuf"
    settings = {} if sampled else {"OTEL_TRACES_SAMPLER": "always_off"}
    with collector() as backend, services(tmp_path) as ((service,), peers):
        flags = ("--service", "shop", "--pid", str(service.pid), "--with", "network", "--policy", str(policy))
        with Agent(*flags, environment=environment(backend, protocol) | settings) as agent:
            agent.attached()
            service.work()
            service.ask("forbidden")
            service.ask("forbidden")
            service.ask(f"hold?n={HELD}")
            truth = named(service.truth)
            opened = {name: row["Opened"] for name, row in truth.items()}
            assert wait_until(lambda: counted(backend, "goprobe.network.connections") == opened, 20), counted(
                backend, "goprobe.network.connections"
            )
            assert counted(backend, "goprobe.network.open") == {name: row["Open"] for name, row in truth.items()}
            assert counted(backend, "process.network.io", "transmit") == {
                name: row["Sent"] for name, row in truth.items()
            }
            assert counted(backend, "process.network.io", "receive") == {
                name: row["Received"] for name, row in truth.items()
            }
            outcome = agent.stop()
        spans = backend.wait_for_spans(outcome.exported)
        attempts = Counter({name: row["Opened"] + sum(row["Failed"].values()) for name, row in truth.items()})
        resolver = f"udp {peers['DNS']}"
        wait_until(lambda: len(backend.logs()) > (attempts[resolver] if sampled else attempts.total()), 5)
        logs = backend.logs()
    assert outcome.balanced
    assert outcome.dropped.keys() == (set() if sampled else {"sampled_out"})
    failed = {
        (where(told), told["error.type"].replace("given up", "timeout")): value
        for told, value in points(backend, "goprobe.network.failures")
        if told["goprobe.network.direction"] == "out"
    }
    assert failed == {(name, why): count for name, row in truth.items() for why, count in row["Failed"].items()}

    assert {record["scope"] for record in logs} == {"otel-goprobe/tools/network"}
    for record in logs:
        assert {"key": "service.name", "value": {"stringValue": "shop"}} in record["resource"]
    forbidden = f"tcp collector.example.org:{peers['Forbidden'].rpartition(':')[2]}"
    (finding,) = [record for record in logs if record["eventName"] == "network.finding"]
    assert (finding["severityText"], finding["severityNumber"]) == ("WARN", 13)
    told = attributes(finding)
    assert where(told) == forbidden
    assert told["network.peer.address"] == "127.0.0.66"
    assert told["code.function.name"] == "main.(*service).exfiltrate"
    stack = [line for line in told["code.stacktrace"].splitlines() if not line.startswith("\t")]
    assert stack.index("net.(*Dialer).DialContext") < stack.index("main.(*service).exfiltrate")
    assert stack.index("main.(*service).exfiltrate") < stack.index("net/http.(*conn).serve")
    assert "which the policy doesn't allow" in finding["body"]["stringValue"]
    ((told, value),) = points(backend, "goprobe.network.findings")
    assert (where(told), value) == (forbidden, truth[forbidden]["Opened"])

    if sampled:
        events = [(span, event) for span in spans for event in span.get("events", ())]
        for span, event in events:
            start, end = (int(span[f"{name}TimeUnixNano"]) for name in ("start", "end"))
            assert start <= int(event["timeUnixNano"]) <= end
        (first, *_) = sorted(
            (span for span in spans if attributes(span).get("url.path") == "/forbidden"),
            key=lambda span: int(span["startTimeUnixNano"]),
        )
        assert finding["traceId"] == first["traceId"]
        assert finding["spanId"] == first["spanId"]
        # Go asks name servers on goroutines, and with contexts, of its own: for no request.
        loose = [where(attributes(log)) for log in logs if log["eventName"] == "network.connect"]
        assert loose == [resolver] * attempts[resolver]
    else:
        events = []
        assert finding["traceId"]
    assert {log["severityText"] for log in logs if log is not finding} == {"INFO"}
    said = [(event["name"], attributes(event)) for _, event in events]
    said += [(log["eventName"], attributes(log)) for log in logs]
    assert Counter(where(told) for name, told in said if name == "network.connect") == attempts
    lookups = Counter(told["dns.question.name"] for name, told in said if name == "network.lookup")
    assert lookups["missing.example.test"] == WORK
    assert lookups["collector.example.org"] == truth[forbidden]["Opened"]


@pytest.mark.collector
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_collector_receives_opens(protocol: str, tmp_path: Path) -> None:
    """What requests open are events of their spans, what else is opened are log records, and a metric counts both."""
    for name in ("a", "b"):
        (tmp_path / name).touch()
    requests = sum(REQUESTS.values())
    with collector() as backend, Target(go_binary("opens"), "-folder", str(tmp_path)) as target:
        flags = ("--service", "shop", "--pid", str(target.pid), "--with", "opens")
        with Agent(*flags, environment=environment(backend, protocol)) as agent:
            agent.attached()
            open_files(target)
            truth = opens_truth(target)
            agent.stop()
        spans = backend.wait_for_spans(requests + 1)
        wait_until(lambda: len(backend.logs()) >= REQUESTS["background"], 5)
    ours = str(tmp_path)

    def key(told: dict[str, Any], route: str) -> tuple[Any, ...]:
        return (
            told["code.function.name"],
            told["code.line.number"],
            route,
            told["file.path"],
            told.get("error.type", ""),
        )

    logs = [record for record in backend.logs() if attributes(record)["file.path"].startswith(ours)]
    said = Counter(key(attributes(record), "") for record in logs)
    for span in spans:
        for event in span.get("events", ()):
            if attributes(event)["file.path"].startswith(ours):
                said[key(attributes(event), attributes(span)["http.route"])] += 1
    assert said == truth
    assert len(logs) == REQUESTS["background"]
    for record in logs:
        assert (record["eventName"], record["severityText"]) == ("file.open", "INFO")
        assert record["scope"] == "otel-goprobe/tools/opens"
        assert {"key": "service.name", "value": {"stringValue": "shop"}} in record["resource"]
    metric = points(backend, "goprobe.file.opens")
    counts = {
        key(told, told.get("http.route", "")): value for told, value in metric if told["file.path"].startswith(ours)
    }
    assert counts == truth


@pytest.mark.jaeger
def test_jaeger_shows_dials(tmp_path: Path) -> None:
    """The dials of a request are logs of its span in Jaeger's API, as many as the service counts; its page has them."""
    with jaeger() as backend, services(tmp_path) as ((service,), peers):
        flags = ("--service", "shop", "--pid", str(service.pid), "--with", "network")
        # Jaeger takes no log records and no metrics.
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": backend.otlp_http, "OTEL_LOGS_EXPORTER": "none"}
        with Agent(*flags, environment=settings) as agent:
            agent.attached()
            service.work()
            truth = named(service.truth)
            outcome = agent.stop()
        traces = backend.wait_for_spans("shop", outcome.exported)
        spans = [span for trace in traces for span in trace["spans"]]
        logs = [
            {field["key"]: field["value"] for field in entry["fields"]} | {"span": span}
            for span in spans
            for entry in span["logs"]
        ]
        dials = [log for log in logs if log["event"] == "network.connect"]
        attempts = Counter({name: row["Opened"] + sum(row["Failed"].values()) for name, row in truth.items()})
        del attempts[f"udp {peers['DNS']}"]  # of Go's resolver, on goroutines of its own: log records
        assert Counter(map(where, dials)) == attempts
        for log in dials:
            assert log["code.function.name"] == truth[where(log)]["Function"]
        echo = [log["span"] for log in dials if log["code.function.name"] == "main.(*service).callEcho"]
        assert [span["operationName"] for span in echo] == ["GET /work"] * WORK
        # What is searched for is in the span's logs alone: for that the page opens the span; it says how many they are.
        page = shown_by_browser(f"{backend.trace_url(echo[0]['traceID'])}?uiFind=callEcho")
        assert "GET /work" in page
        assert f"<strong>Logs</strong> ({len(echo[0]['logs'])})" in page
