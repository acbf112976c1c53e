"""A running Jaeger, or a running Collector, for as long as a `with` block lasts.

    with jaeger() as backend:      # .otlp_http, .otlp_grpc, .query; traces("shop")
    with collector() as backend:   # .otlp_http, .otlp_grpc; spans()

Called by the tests behind the markers `jaeger` and `collector`, and by the demo. Both programs listen on free loopback
ports, die with the process that started them, and are built first where that hasn't been done (build.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.build import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

HERE = Path(__file__).resolve().parent
READY_WITHIN_S = 20.0
"""Both are ready 0.3 s after their start on an idle machine."""


@dataclass(frozen=True)
class Jaeger:
    """A Jaeger that keeps traces in memory."""

    otlp_http: str
    """For OTEL_EXPORTER_OTLP_ENDPOINT with http/protobuf: ``http://127.0.0.1:PORT``."""
    otlp_grpc: str
    """For OTEL_EXPORTER_OTLP_ENDPOINT with grpc: ``http://127.0.0.1:PORT``."""
    query: str
    """The user interface and, below ``/api``, the query service: ``http://127.0.0.1:PORT``."""

    def traces(self, service: str, limit: int = 1000) -> list[dict[str, Any]]:
        """Return what ``/api/traces`` has of `service`: Jaeger's JSON, one dict a trace; empty if it knows none."""
        query = urllib.parse.urlencode({"service": service, "limit": limit})
        with urllib.request.urlopen(f"{self.query}/api/traces?{query}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"] or []
        return found

    def wait_for_spans(self, service: str, count: int, within_s: float = 10.0) -> list[dict[str, Any]]:
        """Return the traces of `service` once they hold `count` spans, or what there is when the time is up."""

        def enough() -> bool:
            return sum(len(trace["spans"]) for trace in self.traces(service)) >= count

        wait_until(enough, within_s)
        return self.traces(service)

    def trace_url(self, trace_id: str) -> str:
        """Return the address of the page that shows a trace."""
        return f"{self.query}/trace/{trace_id}"


@dataclass(frozen=True)
class Collector:
    """A Collector that passes traces, metrics and log records on to a list in this process."""

    otlp_http: str
    """For OTEL_EXPORTER_OTLP_ENDPOINT with http/protobuf: ``http://127.0.0.1:PORT``."""
    otlp_grpc: str
    """For OTEL_EXPORTER_OTLP_ENDPOINT with grpc: ``http://127.0.0.1:PORT``."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """OTLP/JSON requests of any of the three services, as the Collector sent them."""

    def spans(self) -> list[dict[str, Any]]:
        """Return every span so far, in OTLP/JSON with its resource's attributes (``resource``) and its ``scope``."""
        return self._each("Spans", "spans")

    def metrics(self) -> list[dict[str, Any]]:
        """Return every metric so far, likewise."""
        return self._each("Metrics", "metrics")

    def logs(self) -> list[dict[str, Any]]:
        """Return every log record so far, likewise."""
        return self._each("Logs", "logRecords")

    def _each(self, kind: str, name: str) -> list[dict[str, Any]]:
        return [
            one | {"resource": of_resource["resource"]["attributes"], "scope": of_scope["scope"]["name"]}
            for request in list(self.requests)
            for of_resource in request.get(f"resource{kind}", ())
            for of_scope in of_resource[f"scope{kind}"]
            for one in of_scope[name]
        ]

    def wait_for_spans(self, count: int, within_s: float = 10.0) -> list[dict[str, Any]]:
        """Return the spans once there are `count`, or what there is when the time is up."""
        wait_until(lambda: len(self.spans()) >= count, within_s)
        return self.spans()


def wait_until(condition: Callable[[], bool], within_s: float) -> bool:
    """Ask every 50 ms; return whether `condition` held within `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def free_ports(count: int) -> list[int]:
    """Return `count` different TCP ports that nothing on 127.0.0.1 listens on at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def answers(url: str) -> bool:
    """Tell whether a GET of `url` is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@contextlib.contextmanager
def running(command: Sequence[str | Path], settings: Mapping[str, str], ready: Callable[[str], bool]) -> Iterator[None]:
    """Run a program until the block ends.

    Args:
        command: the program and its arguments.
        settings: environment variables to add.
        ready: told the program's output so far; whether it can be used yet.

    Raises:
        RuntimeError: it ended, or wasn't ready in time; with the end of its output.
    """
    with tempfile.NamedTemporaryFile("w+", prefix="backend-", suffix=".log") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            env=os.environ | dict(settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

        def output() -> str:
            return Path(log.name).read_text(errors="replace")

        try:
            wait_until(lambda: process.poll() is not None or ready(output()), READY_WITHIN_S)
            if process.poll() is not None or not ready(output()):
                raise RuntimeError(f"{command[0]} did not get ready; the end of its output:\n{output()[-3000:]}")
            yield
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def jaeger(folder: Path | None = None) -> Iterator[Jaeger]:
    """Run a real Jaeger: that of `folder`, or one that is built first where that hasn't been done yet."""
    folder = folder or build()
    health, query, query_grpc, otlp_grpc, otlp_http = free_ports(5)
    settings = {
        "JAEGER_HEALTH_PORT": str(health),
        "JAEGER_QUERY_PORT": str(query),
        "JAEGER_QUERY_GRPC_PORT": str(query_grpc),
        "JAEGER_OTLP_GRPC_PORT": str(otlp_grpc),
        "JAEGER_OTLP_HTTP_PORT": str(otlp_http),
        "JAEGER_UI": str(folder / "jaeger-ui"),
    }
    ready = f"http://127.0.0.1:{health}/status"
    with running([folder / "jaeger", "--config", HERE / "jaeger.yaml"], settings, lambda _: answers(ready)):
        yield Jaeger(*(f"http://127.0.0.1:{port}" for port in (otlp_http, otlp_grpc, query)))


@contextlib.contextmanager
def sink(received: list[dict[str, Any]]) -> Iterator[int]:
    """Listen on a free loopback port, yield it, and append the JSON body of every POST to `received`."""

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
            """Stay silent: pytest shows what was received when a test fails."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def collector() -> Iterator[Collector]:
    """Run a real OpenTelemetry Collector."""
    folder = build()
    otlp_grpc, otlp_http = free_ports(2)
    backend = Collector(f"http://127.0.0.1:{otlp_http}", f"http://127.0.0.1:{otlp_grpc}")
    with sink(backend.requests) as sink_port:
        settings = {
            "COLLECTOR_OTLP_GRPC_PORT": str(otlp_grpc),
            "COLLECTOR_OTLP_HTTP_PORT": str(otlp_http),
            "COLLECTOR_SINK_PORT": str(sink_port),
        }
        with running(
            [folder / "otelcol", "--config", HERE / "collector.yaml"],
            settings,
            lambda output: "Everything is ready" in output,
        ):
            yield backend
