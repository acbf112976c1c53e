"""Where spans go: a real Collector, or a process that counts and discards. For overhead.py and encode.py.

``python -m benchmarks.receivers FILE`` is that process: it prints its port and counts spans in FILE.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks.machine import OTHER_CPUS
from benchmarks.processes import Running, SharedCounter, wait_until
from benchmarks.programs import PROJECT, collector

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGURATION = Path(__file__).with_name("collector.yaml")
READY_WITHIN_S = 20.0


class Receiver(Protocol):
    """A process that takes spans over OTLP/HTTP."""

    pid: int
    endpoint: str
    what: str
    """In a few words, for the results."""

    def spans(self) -> int:
        """Return how many have come so far."""


class CollectorReceiver:
    """A running OpenTelemetry Collector with the batch processor and an exporter that forgets."""

    what = "OpenTelemetry Collector 0.140 (otlp, batch, discard)"

    def __init__(self, running: Running, otlp: int, grpc: int, metrics: int) -> None:
        self.pid = running.pid
        self.endpoint = f"http://127.0.0.1:{otlp}"
        self.grpc_endpoint = f"http://127.0.0.1:{grpc}"
        self._metrics = http.client.HTTPConnection("127.0.0.1", metrics)

    def ready(self) -> bool:
        """Tell whether its metrics can be asked for."""
        try:
            self.spans()
        except OSError:
            self._metrics.close()
            return False
        return True

    def spans(self) -> int:
        """Return how many it has accepted."""
        self._metrics.request("GET", "/metrics")
        text = self._metrics.getresponse().read().decode()
        accepted = re.findall(
            r"^otelcol_receiver_accepted_spans(?:_total|__spans__total)?{.*} (\S+)$", text, re.MULTILINE
        )
        return int(sum(map(float, accepted)))


class DiscardReceiver:
    """A running ``python -m benchmarks.receivers``."""

    what = "a process that counts and discards"

    def __init__(self, running: Running, counter: SharedCounter) -> None:
        self.pid = running.pid
        self.endpoint = f"http://127.0.0.1:{int(running.line())}"
        self._counter = counter

    def spans(self) -> int:
        """Return how many have come."""
        return self._counter.value


@contextlib.contextmanager
def receiving(*, real: bool) -> Iterator[Receiver]:
    """Run a Collector, or the process that discards, until the block ends."""
    if not real:
        counter = SharedCounter()
        with Running([sys.executable, "-m", "benchmarks.receivers", counter.path], environment=_here()) as running:
            yield DiscardReceiver(running, counter)
        return
    otlp, grpc, metrics = _free_ports(3)
    ports = {"OTLP_HTTP_PORT": str(otlp), "OTLP_GRPC_PORT": str(grpc), "METRICS_PORT": str(metrics)}
    settings = ports | {"GOMAXPROCS": str(len(OTHER_CPUS))}
    with Running([collector(), "--config", CONFIGURATION], environment=settings) as running:
        found = CollectorReceiver(running, otlp, grpc, metrics)
        if not wait_until(found.ready, READY_WITHIN_S):
            raise SystemExit("the Collector didn't get ready")
        yield found


@contextlib.contextmanager
def discarded() -> Iterator[list[str]]:
    """Yield flags of an agent whose spans are thrown away: with ``--exporter none`` none would leave the kernel."""
    with receiving(real=False) as receiver:
        yield ["--endpoint", receiver.endpoint]


def _here() -> dict[str, str]:
    return {"PYTHONPATH": str(PROJECT)}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def count_spans(data: memoryview, path: tuple[int, ...] = (1, 2, 2)) -> int:
    """Count the messages at `path` of field numbers: resource_spans, scope_spans, spans of an export request."""
    at = count = 0
    while at < len(data):
        tag, at = _varint(data, at)
        size, at = _varint(data, at)
        if tag != path[0] << 3 | 2:  # every field on the way is of that wire type, with a length
            at += size
            continue
        count += count_spans(data[at : at + size], path[1:]) if len(path) > 1 else 1
        at += size
    return count


def _serve(connection: socket.socket, counter: SharedCounter) -> None:
    with connection, connection.makefile("rb") as stream:
        while stream.readline():
            headers = http.client.parse_headers(stream)
            body = stream.read(int(headers.get("Content-Length", "0")))
            counter.value += count_spans(memoryview(body))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def main() -> None:
    """Take one connection after the other."""
    counter = SharedCounter(sys.argv[1])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            _serve(connection, counter)


if __name__ == "__main__":
    main()
