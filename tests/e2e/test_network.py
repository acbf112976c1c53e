"""``network``: the table equals what the service counts itself; what a policy doesn't allow is found once."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.target import Output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.receiver import Receiver

pytestmark = pytest.mark.root

SERVER, CLIENT = 2, 3
WORK = 7
SHORT = 101


class Service:
    """A running tests/go/network serve."""

    def __init__(self, exe: Path, peers: str) -> None:
        self.process = subprocess.Popen([exe, "serve", peers], stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        self._port = int(Output(self.process.stdout).wait_for("^ready ").split()[1])

    def ask(self, path: str) -> bytes:
        """Send one request."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/{path}") as answer:
            content: bytes = answer.read()
        return content

    def work(self, times: int = WORK) -> None:
        """Have it make its connections."""
        for _ in range(times):
            self.ask("work")

    @property
    def truth(self) -> dict[str, Any]:
        """What it says of itself: destination -> Truth of tests/go/network/truth.go."""
        found: dict[str, Any] = json.loads(self.ask("truth"))
        return found


@contextmanager
def services(folder: Path, count: int = 1, *, strip: bool = False) -> Iterator[tuple[list[Service], dict[str, str]]]:
    """Give services and the addresses of their peers."""
    exe = go_binary("network", strip=strip)
    peers = subprocess.Popen([exe, "peers", folder], stdout=subprocess.PIPE, text=True)
    started: list[Service] = []
    try:
        ready = Output(peers.stdout).wait_for("^ready ").removeprefix("ready ")
        started += [Service(exe, ready) for _ in range(count)]
        yield started, json.loads(ready)
    finally:
        for process in (*(each.process for each in started), peers):
            process.kill()
            process.wait()


def destinations(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the rows of what goes out, as the service's truth has them."""
    found = {}
    for row in rows:
        if row["direction"] == "out":
            where = row["address"] if row["protocol"] == "unix" else f"{row['address']}:{row['port']}"
            failed = dict(pair.rsplit(":", 1) for pair in row["failures"].replace("given up", "timeout").split())
            found[f"{row['protocol']} {where}"] = {
                "Name": row["host"],
                "Function": row["function"],
                "Opened": row["opened"],
                "Open": row["open"],
                "Failed": {name: int(count) for name, count in failed.items()},
                "Sent": row["sent"],
                "Received": row["received"],
            }
    return found


@pytest.mark.parametrize("strip", [False, True], ids=["", "stripped"])
def test_table_equals_truth(tmp_path: Path, *, strip: bool) -> None:
    """Of two processes of one executable the one that is watched has all its connections in the table, to the byte."""
    with services(tmp_path, 2, strip=strip) as ((watched, other), _):
        with Agent("--pid", str(watched.pid), "--json", environment={}, subcommand="network") as agent:
            agent.attached()
            watched.work()
            watched.ask(f"short?n={SHORT}")
            other.work(2)
            truth = watched.truth
            outcome = agent.stop()
        rows = [json.loads(line) for line in outcome.stdout.splitlines()]
        seen = destinations(rows)
        by_name = {row["host"]: row for row in rows if row["direction"] == "out"}
        assert seen == truth
        incoming = [row for row in rows if row["direction"] == "in"]
        assert [row["opened"] for row in incoming] == [WORK + 2]
        assert [row["direction"] for row in rows].count("listen") == 1
        names = {row["host"]: row for row in rows if row["direction"] == "name"}
        assert {name: row["opened"] for name, row in names.items()} == {
            "inventory.example.test": 1,
            "payments.example.test": 1,
            "missing.example.test": 0,
        }
        assert names["missing.example.test"]["failures"] == f"not found:{WORK}"
        assert names["inventory.example.test"]["address"] == "127.0.0.2"
        assert by_name["inventory.example.test"]["route"] == "/work"


def test_policy(receiver: Receiver, tmp_path: Path) -> None:
    """What was learnt is allowed; one new destination is one finding, with its function and its trace."""
    policy = tmp_path / "policy.yaml"
    with services(tmp_path) as ((service,), peers):
        selected = ("--pid", str(service.pid))
        with Agent(*selected, "--learn", str(policy), environment={}, subcommand="network") as agent:
            agent.attached()
            service.work()
            assert agent.stop().code == 0
        flags = (*selected, "--with", "network", "--policy", str(policy))
        with Agent(*flags, environment=receiver.environment) as agent:
            agent.attached()
            service.work()
            service.ask("forbidden")
            service.ask("forbidden")
            outcome = agent.stop()
    assert outcome.balanced
    findings = [log for log in receiver.logs if log.name == "network.finding"]
    assert len(findings) == 1
    assert findings[0].severity == "WARN"
    assert findings[0].attributes["server.address"] == "collector.example.org"
    assert findings[0].attributes["server.port"] == int(peers["Forbidden"].rpartition(":")[2])
    assert findings[0].attributes["code.function.name"] == "main.(*service).exfiltrate"
    forbidden = [span for span in receiver.spans if span.attributes.get("url.path") == "/forbidden"]
    assert findings[0].trace_id in {span.trace_id for span in forbidden}
    assert len([line for line in outcome.stderr.splitlines() if "finding" in line]) == 1
    dials = [event for span in forbidden for event in span.events if event.name == "network.connect"]
    assert [event.attributes["server.address"] for event in dials].count("collector.example.org") == 2
    assert all(log.name != "network.connect" or not log.trace_id for log in receiver.logs)


def test_dial_spans(receiver: Receiver, tmp_path: Path) -> None:
    """On request each dial is a CLIENT span, too: a child of its request's, with its outcome; a root without one."""
    with services(tmp_path) as ((service,), peers):
        flags = ("--pid", str(service.pid), "--with", "network", "--dial-spans")
        with Agent(*flags, environment=receiver.environment) as agent:
            agent.attached()
            service.work(3)
            truth = service.truth
            outcome = agent.stop()
    assert outcome.balanced
    requests = {span.span_id: span for span in receiver.spans if span.kind == SERVER}
    dials = [span for span in receiver.spans if span.scope == "otel-goprobe/tools/network"]
    assert len(dials) == sum(one["Opened"] + sum(one["Failed"].values()) for one in truth.values())
    assert {span.kind for span in dials} == {CLIENT}
    echoed = [span for span in dials if span.attributes.get("server.port") == int(peers["TCP"].rpartition(":")[2])]
    assert len(echoed) == 3
    for span in echoed:
        request = requests[span.parent_span_id]
        assert (request.trace_id, request.attributes["url.path"]) == (span.trace_id, "/work")
        assert request.start <= span.start <= span.end <= request.end
        assert span.name == f"connect {peers['TCP']}"
        assert not span.error
        assert span.attributes["network.transport"] == "tcp"
        assert span.attributes["network.type"] == "ipv4"
        assert span.attributes["code.function.name"] == "main.(*service).callEcho"
        assert [event.name for event in request.events].count("network.connect") >= 5
    errors = {span.attributes.get("error.type") for span in dials if span.error}
    assert errors == {"ECONNREFUSED", "given up"}
    roots = [span for span in dials if not span.parent_span_id]
    assert all(len(span.trace_id) == 32 and span.trace_id not in requests for span in roots)


def test_exit_on_finding(tmp_path: Path) -> None:
    """The first finding ends the run with 4; an error in a policy names file, line and field."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "services:\n  network:\n    connect:\n      - cidr: 127.0.0.0/26\n    listen:\n      - ports: [1-65535]\n"
    )
    with services(tmp_path) as ((service,), _):
        flags = ("--pid", str(service.pid), "--policy", str(policy), "--exit-on-finding")
        with Agent(*flags, environment={}, subcommand="network") as agent:
            agent.attached()
            service.ask("forbidden")
            assert agent.wait().code == 4
        policy.write_text("services:\n  network:\n    connect:\n      - cidr: 127.0.0.0/99\n")
        with Agent(*flags, environment={}, subcommand="network") as agent:
            outcome = agent.wait()
    assert outcome.code == 2
    assert f"{policy}:4:" in outcome.stderr
