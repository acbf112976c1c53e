"""A real program that nobody here wrote: etcd, from the Go module proxy, traced with nothing but --pid."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.client import Request, at_once, in_turn
from harness.receiver import Receiver, free_port
from harness.target import Output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.wild, pytest.mark.timeout(900)]

PACKAGE = "go.etcd.io/etcd/server/v3"

KINDS = (
    Request("/version"),
    Request("/health"),
    Request("/metrics"),
    Request("/nowhere", status=404),
    Request("/version", method="POST", status=405),
)


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Give the pid and the client port of a running etcd."""
    exe = go_binary("etcd", package=PACKAGE)
    client, peer = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    arguments = ["--data-dir", str(tmp_path), "--listen-client-urls", client, "--advertise-client-urls", client]
    arguments += [
        "--listen-peer-urls",
        peer,
        "--initial-advertise-peer-urls",
        peer,
        "--initial-cluster",
        f"default={peer}",
    ]
    with subprocess.Popen([exe, *arguments], stderr=subprocess.PIPE, text=True) as process:
        output = Output(process.stderr)
        try:
            output.wait_for("serving client traffic", timeout_s=60)
            yield process.pid, int(client.rpartition(":")[2])
        finally:
            process.terminate()
            output.join()


def test_etcd(etcd: tuple[int, int], receiver: Receiver) -> None:
    """23 requests over HTTP/1 are 23 spans with their paths and status codes; its gRPC stays untraced."""
    pid, port = etcd
    requests = in_turn(23, KINDS)
    with Agent("--pid", str(pid), environment=receiver.environment) as agent:
        attached = agent.attached().stderr.matching("^attached")
        answers = at_once(port, requests)
        outcome = agent.stop()
    print(*attached, sep="\n")
    assert [answer.status for answer in answers] == [request.status for request in requests]
    assert json.loads(answers[0].body)["etcdserver"]
    by_port = {span.attributes["network.peer.port"]: span for span in receiver.spans}
    assert len(by_port) == 23
    for request, answer in zip(requests, answers, strict=True):
        span = by_port[answer.local_port]
        assert span.attributes["http.request.method"] == request.method
        assert span.attributes["url.path"] == request.target
        assert span.attributes["http.response.status_code"] == request.status
        assert not span.error
    assert {span.name for span in receiver.spans} >= {"GET /version", "GET /health", "GET /metrics"}
    assert (outcome.started, outcome.exported, outcome.dropped) == (23, 23, {})
    assert {span.resource["service.name"] for span in receiver.spans} != {""}
    print(receiver.spans[0].resource)
