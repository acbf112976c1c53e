"""Exemplars, exponential histograms, Prometheus, several exporters at once: what is told of the kernel's durations."""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness import agent as harness
from harness.agent import Agent
from harness.client import Load, in_turn, one_after_another, page
from harness.receiver import Receiver, Span, free_port
from harness.target import Target
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from test_red import ACTIVE, BOUNDS, DURATION, points, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

pytestmark = [pytest.mark.root, pytest.mark.slow]

EXPONENTIAL = {
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram",
}
SERIES = (
    "http.request.method",
    "url.scheme",
    "network.protocol.version",
    "http.response.status_code",
    "error.type",
    "http.route",
)
MIXED = [*in_turn(101), *(page(f"/slow?ms={ms}") for ms in (6, 12, 30, 60, 110, 30))]


@pytest.fixture
def server() -> Iterator[Target]:
    """Give a server."""
    with Target(go_binary("http_server")) as target:
        yield target


def series(attributes: dict[str, object]) -> frozenset[tuple[str, object]]:
    """Return what of a span's attributes tells series apart."""
    return frozenset((key, attributes[key]) for key in SERIES if key in attributes)


def seconds(span: Span) -> float:
    """Return how long it took."""
    return (span.end - span.start) / 1e9


def bucket(value_s: float) -> int:
    """Return the explicit bucket of a duration."""
    return sum(value_s > bound for bound in BOUNDS)


def index(span: Span) -> int:
    """Return the bucket of scale 3 that OTLP's definition gives a duration; exact."""
    ns = span.end - span.start
    found = math.ceil(math.log2(ns / 1e9) * 8) - 1
    while not ns**8 > 2 ** (found + 300) * 10**72 / 2**300:
        found -= 1
    while ns**8 > 2 ** (found + 301) * 10**72 / 2**300:
        found += 1
    return found


def test_histograms_hold_what_the_spans_say(server: Target, receiver: Receiver) -> None:
    """Every request is sampled: each series' buckets are those of its spans, to the nanosecond."""
    run(server, receiver, MIXED)
    expected: dict[frozenset[tuple[str, object]], Counter[int]] = {}
    for span in receiver.spans:
        expected.setdefault(series(span.attributes), Counter())[bucket(seconds(span))] += 1
    found = {
        frozenset(one.attributes.items()): Counter({at: n for at, n in enumerate(one.point.bucket_counts) if n})
        for one in points(receiver, DURATION)
    }
    assert found == expected


def test_exponential_histograms(server: Target, receiver: Receiver) -> None:
    """The same with OTLP's formula of the exponential buckets."""
    run(server, receiver, MIXED, **EXPONENTIAL)
    expected: dict[frozenset[tuple[str, object]], Counter[int]] = {}
    for span in receiver.spans:
        expected.setdefault(series(span.attributes), Counter())[index(span)] += 1
    found = {}
    for one in points(receiver, DURATION):
        point, positive = one.point, one.point.positive
        assert (point.scale, point.zero_count, point.count) == (3, 0, sum(positive.bucket_counts))
        assert positive.bucket_counts[0]
        assert positive.bucket_counts[-1]
        told = enumerate(positive.bucket_counts, start=positive.offset)
        found[frozenset(one.attributes.items())] = Counter({at: n for at, n in told if n})
        of_series = [seconds(span) for span in receiver.spans if series(span.attributes) == series(one.attributes)]
        assert point.sum == pytest.approx(sum(of_series), abs=1e-8)
    assert found == expected


@pytest.mark.parametrize("exponential", [False, True])
def test_exemplars(server: Target, receiver: Receiver, exponential: bool) -> None:
    """Spans that were received, of the very series and bucket, not more than one a bucket."""
    run(server, receiver, MIXED, **(EXPONENTIAL if exponential else {}))
    spans = {span.span_id: span for span in receiver.spans}
    told = 0
    for one in points(receiver, DURATION):
        of_buckets = [bucket(exemplar.as_double) for exemplar in one.point.exemplars]
        of_series = [span for span in spans.values() if series(span.attributes) == series(one.attributes)]
        assert of_series
        if not exponential:
            assert len(set(of_buckets)) == len(of_buckets)
            assert all(one.point.bucket_counts[at] for at in of_buckets)
        for exemplar in one.point.exemplars:
            told += 1
            span = spans[exemplar.span_id.hex()]
            assert exemplar.trace_id.hex() == span.trace_id
            assert exemplar.as_double == seconds(span)
            assert exemplar.time_unix_nano == span.end
            assert one.point.start_time_unix_nano <= exemplar.time_unix_nano <= one.point.time_unix_nano
            assert span in of_series
            if exponential:
                at = index(span) - one.point.positive.offset
                assert one.point.positive.bucket_counts[at]
    assert told


@pytest.mark.parametrize(
    ("which", "flags", "some"),
    [
        ("always_off", (), False),
        ("trace_based", ("--sample", "0", "--always-sample", "errors"), False),
        ("always_on", ("--sample", "0", "--always-sample", "errors"), True),
    ],
)
def test_exemplar_filters(server: Target, receiver: Receiver, which: str, flags: tuple[str, ...], some: bool) -> None:
    """Only sampled spans are exemplars of trace_based; those kept late are spans too, for always_on."""
    run(server, receiver, in_turn(23), *flags, OTEL_METRICS_EXEMPLAR_FILTER=which)
    assert bool([one for one in points(receiver, DURATION) if one.point.exemplars]) == some


def test_exemplars_are_told_once(server: Target, receiver: Receiver) -> None:
    """As the SDK does; delta points have none from before their start."""
    variables = {
        **receiver.environment,
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_METRIC_EXPORT_INTERVAL": "300",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
    }
    with Agent("--pid", str(server.pid), environment=variables) as agent:
        agent.attached()
        for count in (3, 5, 7):
            before = len(receiver.metrics)
            one_after_another(server.port, [page("/ok")] * count)
            receiver.wait_metrics(before + 1)
        agent.stop()
    told = [(one, exemplar) for one in points(receiver, DURATION) for exemplar in one.point.exemplars]
    ids = [exemplar.span_id for _, exemplar in told]
    assert len(set(ids)) == len(ids)
    assert all(one.point.start_time_unix_nano <= exemplar.time_unix_nano for one, exemplar in told)


def test_delta_of_exponential_histograms(server: Target, receiver: Receiver) -> None:
    """Deltas add up, although each has its own first bucket."""
    variables = {
        **receiver.environment,
        **EXPONENTIAL,
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
    }
    with Agent("--pid", str(server.pid), environment=variables) as agent:
        agent.attached()
        for path in ("/slow?ms=3", "/slow?ms=50", "/slow?ms=1"):
            before = len(receiver.metrics)
            one_after_another(server.port, [page(path)] * 5)
            receiver.wait_metrics(before + 1)
        agent.stop()
    found: Counter[int] = Counter()
    for one in points(receiver, DURATION):
        for at, count in enumerate(one.point.positive.bucket_counts, start=one.point.positive.offset):
            found[at] += count
    assert +found == Counter(map(index, receiver.spans))
    assert found.total() == 15


def test_ten_thousand_routes(receiver: Receiver) -> None:
    """As many series as there may be, one more for all others, no request lost."""
    requests = [page(f"/many/{number}") for number in range(10_000)]
    with Target(go_binary("http_server"), "-mux", "many") as server:
        outcome = run(server, receiver, requests, "--max-series", "1000", "--sample", "0")
    found = {one.attributes["http.route"]: one.point.count for one in points(receiver, DURATION)}
    assert len(found) == 1001
    assert found.pop("_OTHER") == 9000
    assert found == {request.route: 1 for request in requests[:1000]}
    assert (outcome.targets[0]["metric_overflow"], outcome.targets[0]["metric_lost"]) == (9000, 0)


def scrape(port: int) -> dict[str, Metric]:
    """Return what Prometheus would."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return {family.name: family for family in text_string_to_metric_families(answer.read().decode())}


def counts(families: dict[str, Metric]) -> Counter[str]:
    """Return the requests by job."""
    found: Counter[str] = Counter()
    family = families.get("http_server_request_duration_seconds")
    for sample in family.samples if family else ():
        if sample.name.endswith("_count"):
            found[sample.labels["job"]] += int(sample.value)
    return found


def test_prometheus(receiver: Receiver) -> None:
    """Two services at one endpoint, as they are at the moment of the scrape, their spans as exemplars."""
    port = free_port()
    variables = {
        **receiver.environment,
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1",
        "OTEL_EXPORTER_PROMETHEUS_PORT": str(port),
    }
    exe = go_binary("http_server")
    with Target(exe) as first, Target(exe) as second:
        names = ("--service", f"one=pid:{first.pid}", "--service", f"two=pid:{second.pid}")
        with Agent(*names, environment=variables) as agent:
            agent.attached(2)
            one_after_another(first.port, in_turn(23))
            one_after_another(second.port, [page("/ok")] * 7)
            receiver.wait_for(30)
            families = scrape(port)
            one_after_another(second.port, [page("/ok")] * 4)
            later = scrape(port)
            outcome = agent.stop()
    assert (outcome.code, outcome.exported) == (0, 34)
    assert counts(families) == {"one": 23, "two": 7}
    assert counts(later) == {"one": 23, "two": 11}
    jobs = {sample.labels["job"]: sample.labels for sample in families["target"].samples}
    assert {job: labels["process_pid"] for job, labels in jobs.items()} == {
        "one": str(first.pid),
        "two": str(second.pid),
    }
    spans = {span.span_id: span for span in receiver.spans}
    exemplars = 0
    for sample in families["http_server_request_duration_seconds"].samples:
        if sample.exemplar:
            exemplars += 1
            span = spans[sample.exemplar.labels["span_id"]]
            assert span.trace_id == sample.exemplar.labels["trace_id"]
            assert sample.exemplar.value == pytest.approx(seconds(span), abs=1e-9)
            assert sample.exemplar.value <= float(sample.labels["le"])
            assert span.resource["service.name"] == sample.labels["job"]
            assert span.attributes.get("http.route", "") == sample.labels.get("http_route", "")
    assert exemplars


def test_scrapes_under_load(receiver: Receiver) -> None:
    """Several scrapers at once, targets that come and go: no count falls, the last is the target's own."""
    port = free_port()
    variables = {
        **receiver.environment,
        "OTEL_METRICS_EXPORTER": "prometheus,otlp",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1",
        "OTEL_EXPORTER_PROMETHEUS_PORT": str(port),
        "OTEL_METRIC_EXPORT_INTERVAL": "50",
    }
    exe = go_binary("http_server")
    seen: list[list[int]] = [[], [], []]
    failures: list[str] = []
    done = threading.Event()

    def scraper(own: list[int]) -> None:
        while not done.is_set():
            try:
                own.append(counts(scrape(port))["one"])
            except (OSError, ValueError) as error:
                failures.append(repr(error))

    with Target(exe) as first, Target(exe) as second:
        names = ("--service", f"one=pid:{first.pid}", "--service", f"two=pid:{second.pid}")
        with Agent(*names, environment=variables) as agent:
            agent.attached(2)
            threads = [threading.Thread(target=scraper, args=(own,)) for own in seen]
            one_after_another(first.port, [page("/ok")])
            receiver.wait_metrics(1)
            with Load(first.port) as load:
                for thread in threads:
                    thread.start()
                one_after_another(second.port, in_turn(23))
                second.stop()
                agent.stderr.wait_for("^detached")
                load.more(500)
            done.set()
            for thread in threads:
                thread.join()
            answered = len(first.log())
            last = counts(scrape(port))["one"]
            outcome = agent.stop()
    assert not failures
    assert "Traceback" not in outcome.stderr
    assert last == answered
    for own in seen:
        assert own == sorted(own)
        assert len(own) > 3
    assert max(one.point.count for one in points(receiver, DURATION) if one.service == "one") == answered


def test_a_port_in_use(server: Target, receiver: Receiver) -> None:
    """Is a sentence, and exit code 2; the target goes on."""
    variables = {
        **receiver.environment,
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1",
        "OTEL_EXPORTER_PROMETHEUS_PORT": str(receiver.port),
    }
    outcome = harness.run("run", "--pid", str(server.pid), environment=variables)
    assert outcome.returncode == 2
    assert f"can't be served at 127.0.0.1:{receiver.port}: Address already in use" in outcome.stderr
    assert "OTEL_EXPORTER_PROMETHEUS_PORT" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_several_exporters(server: Target, receiver: Receiver) -> None:
    """Each is told everything: OTLP as delta, the console since the start."""
    outcome = run(
        server,
        receiver,
        [page("/ok")] * 5,
        "--metrics-exporter",
        "otlp,console",
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
    )
    assert sum(one.point.count for one in points(receiver, DURATION)) == 5
    (line,) = outcome.stdout.splitlines()
    (metric,) = json.loads(line)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    assert metric["histogram"]["dataPoints"][0]["count"] == "5"
    assert metric["histogram"]["aggregationTemporality"] == "AGGREGATION_TEMPORALITY_CUMULATIVE"


def test_metrics_only(server: Target, receiver: Receiver) -> None:
    """Where spans go nowhere, none leaves the kernel, not even one that would be kept late."""
    outcome = run(server, receiver, in_turn(23), "--always-sample", "errors", OTEL_TRACES_EXPORTER="none")
    assert (outcome.started, outcome.exported, outcome.dropped) == (23, 0, {"sampled_out": 23})
    assert receiver.spans == []
    assert sum(one.point.count for one in points(receiver, DURATION)) == 23


def test_texts_of_targets_that_are_gone_are_forgotten(receiver: Receiver) -> None:
    """Targets that come one after another, each with its routes: the room for routes isn't used up."""
    variables = {**receiver.environment, "OTEL_METRICS_EXPORTER": "otlp"}
    exe = go_binary("http_server")
    with Target(exe) as first:
        names = ("--service", f"lasting=pid:{first.pid}", "--service", f"passing=exe:{exe}")
        with Agent(*names, "--max-series", "6", environment=variables) as agent:
            agent.attached()
            one_after_another(first.port, [page("/ok")] * 3)
            for detached, path in enumerate(("/empty", "/large", "/chunks", "/hints"), start=1):
                with Target(exe) as passing:
                    agent.attached(1 + detached)
                    one_after_another(passing.port, [page("/fail", 500), page(path), page("/ok")])
                    passing.wait_log(3)
                    passing.stop()
                    agent.stderr.wait_for("^detached", detached)
            one_after_another(first.port, [page("/ok")] * 2 + [page("/empty")])
            time.sleep(0.1)
            outcome = agent.stop()
    found = Counter()
    for one in points(receiver, DURATION):
        found[one.service, one.attributes["http.route"]] += one.point.count
    assert found["lasting", "/ok"] == 5
    assert found["lasting", "/empty"] == 1
    assert not [route for _, route in found if route == "_OTHER"]
    assert {target["metric_overflow"] for target in outcome.targets} == {0}
    assert {one.attributes["url.scheme"] for one in points(receiver, ACTIVE)} <= {"http"}
