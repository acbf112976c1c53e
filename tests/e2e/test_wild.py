"""Real programs that nobody here wrote, from the Go module proxy, stripped, traced with nothing but --pid."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import compatibility
import pytest
from compatibility import measured, record
from goprograms import go_binary
from harness.agent import Agent
from harness.client import Request, at_once, in_turn
from harness.receiver import Receiver, free_port
from harness.target import Output

from otel_goprobe import gobinary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.wild, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Program:
    """A program, how it is started, and what it is asked."""

    package: str
    """Of its main function; tests/go/NAME pins the module."""
    arguments: Callable[[int, Path], list[str]]
    """From the port to listen on with HTTP/1, and a folder for its data."""
    ready: str
    """In a line on stderr, once it listens."""
    kinds: tuple[Request, ...]
    """With the route where its ServeMux has one."""


def etcd_arguments(port: int, folder: Path) -> list[str]:
    """Return those of a cluster of one."""
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{free_port()}"
    urls = {
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
    }
    return [f"--data-dir={folder}", *(f"--{name}={url}" for name, url in urls.items())]


PROGRAMS = {
    "etcd": Program(
        "go.etcd.io/etcd/server/v3",
        etcd_arguments,
        "serving client traffic",
        (
            Request("/version", route="/version"),
            Request("/health", route="/health"),
            Request("/metrics", route="/metrics"),
            Request("/nowhere", status=404),
            Request("/version", method="POST", status=405, route="/version"),
        ),
    ),
    "nats-server": Program(
        "github.com/nats-io/nats-server/v2",
        lambda port, _: ["--addr=127.0.0.1", f"--port={free_port()}", f"--http_port={port}"],
        "Server is ready",
        (
            Request("/varz", route="/varz"),
            Request("/healthz?js-enabled-only=true", route="/healthz"),
            Request("/connz", method="POST", route="/connz"),
            Request("/nowhere", status=404, route="/"),
        ),
    ),
    "node_exporter": Program(
        "github.com/prometheus/node_exporter",
        lambda port, _: [
            f"--web.listen-address=127.0.0.1:{port}",
            "--collector.disable-defaults",
            "--collector.loadavg",
        ],
        "Listening on",
        (
            Request("/metrics", route="/metrics"),
            Request("/", route="/"),
            Request("/nowhere", status=404, route="/"),
            Request("/metrics?collect[]=nothing", status=400, route="/metrics"),
        ),
    ),
}


def test_all_are_in_the_table() -> None:
    """And the table has no others."""
    assert tuple(PROGRAMS) == compatibility.WILD


@pytest.mark.parametrize("name", PROGRAMS)
def test_23_requests_are_23_spans(name: str, receiver: Receiver, tmp_path: Path) -> None:
    """Over HTTP/1, with their paths, routes and status codes, under some name of a service."""
    program = PROGRAMS[name]
    requests = in_turn(23, program.kinds)
    exe = go_binary(name, package=program.package, strip=True)
    port = free_port()
    with subprocess.Popen([exe, *program.arguments(port, tmp_path)], stderr=subprocess.PIPE, text=True) as process:
        output = Output(process.stderr)
        try:
            output.wait_for(program.ready, timeout_s=60)
            with Agent("--pid", str(process.pid), environment=receiver.environment) as agent:
                print(*agent.attached().stderr.matching("^attached"), sep="\n")
                answers = at_once(port, requests)
                outcome = agent.stop()
        finally:
            process.terminate()
            output.join()
    assert [answer.status for answer in answers] == [request.status for request in requests]
    by_port = {span.attributes["network.peer.port"]: span for span in receiver.spans}
    assert len(by_port) == len(receiver.spans) == 23
    for request, answer in zip(requests, answers, strict=True):
        span = by_port[answer.local_port]
        assert span.attributes["http.request.method"] == request.method
        assert span.attributes["url.path"] == request.target.partition("?")[0]
        assert span.attributes["http.response.status_code"] == request.status
        assert span.attributes.get("http.route", "") == request.route
        assert span.name == f"{request.method} {request.route}".rstrip()
        assert not span.error
        assert span.resource["service.name"] not in {"", "unknown_service"}
    assert (outcome.started, outcome.exported, outcome.dropped) == (23, 23, {})
    with gobinary.open_binary(exe) as binary:
        assert binary.stripped
        main = binary.build_info.main
    assert main is not None
    more = f"{name} {main.version}, {exe.stat().st_size / 1e6:.0f} MB"
    record(measured(name, exe, requests=23, right=23, more=more))
