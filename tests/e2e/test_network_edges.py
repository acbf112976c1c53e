"""``network`` where descriptors, sockets and networks are less plain: nothing is counted wrong."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from goprograms import go_binary
from harness.agent import PROJECT, Agent, clean_environment
from harness.target import Output
from networks import Hosts, inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.agent import Outcome

pytestmark = pytest.mark.root

COUNTED = ("Opened", "Open", "Sent", "Received")


class Edges:
    """A running tests/go/network_edges run; `prefix`: command that starts it."""

    def __init__(self, peers: str, *, prefix: Sequence[str] = (), exe: Path | None = None) -> None:
        self.peers: dict[str, str] = json.loads(peers)
        self.process = subprocess.Popen(
            [*prefix, exe or go_binary("network_edges"), "run", peers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._output = Output(self.process.stdout)
        self._answers = 0
        self.pid = int(self._output.wait_for("^ready ").split()[1])

    def tell(self, line: str) -> None:
        """Have it begin a step."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ended(self) -> None:
        """Wait for the end of a step."""
        self._answers += 1
        answer = self._output.wait_for("^(done|failed)", self._answers, 180)
        assert answer == "done", answer

    def step(self, line: str) -> None:
        """Have it do a step."""
        self.tell(line)
        self.ended()

    def line(self, pattern: str) -> str:
        """Wait for a line of its output."""
        return self._output.wait_for(pattern)

    @property
    def truth(self) -> dict[str, dict[str, int]]:
        """What it says of itself: destination -> Truth of tests/go/network_edges/steps.go."""
        self.tell("truth")
        found: dict[str, dict[str, int]] = json.loads(self._output.wait_for("^truth ").removeprefix("truth "))
        return found


@contextlib.contextmanager
def edges(
    host: str = "127.0.0.1", *, prefix: Sequence[str] = (), far: Sequence[str] = (), exe: Path | None = None
) -> Iterator[Edges]:
    """Give one, and its peers, which are at `host`; `far`: what starts these, which listen on all addresses then."""
    with tempfile.TemporaryDirectory(prefix="goprobe-") as folder:
        command = [*far, go_binary("network_edges"), "peers", "" if far else host, folder]
        peers = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started: list[subprocess.Popen[str]] = [peers]
        try:
            ready = Output(peers.stdout).wait_for("^ready ").removeprefix("ready ")
            one = Edges(ready.replace("[::]", host), prefix=prefix, exe=exe)
            started.append(one.process)
            yield one
        finally:
            for process in started:
                process.kill()
                process.wait()


def network_of(target: Edges) -> Agent:
    """Return an agent that is to watch it."""
    return Agent("--pid", str(target.pid), "--json", environment={}, subcommand="network")


def rows_of(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the table of ``--json``."""
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def outgoing(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the rows of what goes out, as the target's truth has them."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["direction"] == "out":
            host = f"[{row['address']}]" if ":" in row["address"] else row["address"]
            where = row["address"] if row["protocol"] == "unix" else f"{host}:{row['port']}"
            one = found.setdefault(f"{row['protocol']} {where}", dict.fromkeys(COUNTED, 0))
            for key in one:
                one[key] += row[key.lower()]
    return found


STEPS = ("udp", "unix", "dup", "dup3", "rights", "range", "child", "reuse", "reset 5", "sendto", "hold 3")


def test_descriptors(tmp_path: Path) -> None:
    """Duplicates, descriptors that others hand over, used again or closed by the range; every kind of socket."""
    with edges() as target, network_of(target) as agent:
        agent.attached()
        for line in STEPS:
            target.step(line)
        truth = target.truth
        target.tell("served")
        port = int(target.line("^listening ").split()[1])
        with socket.socket(type=socket.SOCK_DGRAM) as asking:
            asking.sendto(b"a question", ("127.0.0.1", port))
            assert asking.recv(100) == b"a question"
        target.ended()
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as bridge:
            bridge.bind(str(tmp_path / "bridge"))
            bridge.listen()
            own = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
            target.tell(f"given {tmp_path / 'bridge'}")
            to_target, _ = bridge.accept()
            socket.send_fds(to_target, [b"x"], [accepted.fileno()])
            accepted.close()
            own.send(b"hello, you have been handed over")
            assert own.recv(100) == b"hello, you have been handed over"
            target.ended()
            given = server.getsockname()[1]
            for each in (own, to_target):
                each.close()
        rows = rows_of(agent.stop())
    seen = outgoing(rows)
    bridged = seen.pop(f"unix {tmp_path / 'bridge'}")
    assert bridged == {"Opened": 1, "Open": 0, "Sent": 0, "Received": 1}
    assert seen == truth
    resets = {row["port"]: row["resets"] for row in rows if row["direction"] == "out" and row["resets"]}
    assert resets == {int(target.peers["Resets"].rpartition(":")[2]): 5}
    incoming = {(row["protocol"], row["port"]): row for row in rows if row["direction"] == "in"}
    question = incoming["udp", port]
    assert (question["opened"], question["open"], question["received"], question["sent"]) == (1, 0, 10, 10)
    handed = incoming["tcp", given]
    assert (handed["opened"], handed["open"], handed["received"], handed["sent"]) == (1, 0, 32, 32)
    assert [(row["protocol"], row["port"]) for row in rows if row["direction"] == "listen"] == [("udp", port)]


def counters(pid: int) -> dict[str, int]:
    """Return what the kernel counts of TCP in a process's network namespace."""
    names, values = [
        line.split()[1:] for line in Path(f"/proc/{pid}/net/snmp").read_text().splitlines() if "Tcp:" in line
    ]
    return dict(zip(names, map(int, values), strict=True))


def test_other_networks() -> None:
    """Between namespaces that aren't the agent's: what was there, IPv6 and IPv4 by IPv6; loss and resets as counted."""
    with Hosts("-edges") as hosts:
        near, far = (("nsenter", f"--net=/run/netns/{name}") for name in (hosts.near, hosts.far))
        with edges(hosts.FAR_IPV4, prefix=near, far=far) as target:
            target.step("hold 3")
            port = int(target.peers["TCP"].rpartition(":")[2])
            with network_of(target) as agent:
                agent.attached()
                before = counters(target.pid)
                target.step(f"once tcp [{hosts.FAR_IPV6}]:{port}")
                target.step(f"mapped {target.peers['TCP']}")
                target.step(f"fails {hosts.FAR_IPV4}:1")
                target.step("reset 7")
                target.tell("accept")
                own = int(target.line("^listening ").split()[1])
                with inside(hosts.far, lambda: socket.create_connection((hosts.NEAR_IPV4, own))) as asking:
                    asking.send(b"IPv4 to IPv6")
                    assert asking.recv(100) == b"IPv4 to IPv6"
                target.ended()
                target.tell("send 2503")
                for _ in range(3):
                    route = ("ip", "-n", hosts.far, "route")
                    subprocess.run([*route, "add", "blackhole", f"{hosts.NEAR_IPV4}/32"], check=True)
                    time.sleep(0.5)
                    subprocess.run([*route, "delete", "blackhole", f"{hosts.NEAR_IPV4}/32"], check=True)
                    time.sleep(0.05)
                target.ended()
                truth, after = target.truth, counters(target.pid)
                rows = rows_of(agent.stop())
    seen = outgoing(rows)
    refused = seen.pop(f"tcp {hosts.FAR_IPV4}:1")
    assert refused["Opened"] == 0
    assert [row["failures"] for row in rows if row["port"] == 1] == ["ECONNREFUSED:1"]
    assert seen == truth
    assert sum(row["resets"] for row in rows) == after["EstabResets"] - before["EstabResets"] == 7
    retransmitted = sum(row["retransmits"] for row in rows)
    assert retransmitted == after["RetransSegs"] - before["RetransSegs"]
    assert retransmitted >= 3
    came = [row for row in rows if row["direction"] == "in"]
    assert [(row["address"], row["port"], row["sent"], row["received"]) for row in came] == [
        (hosts.FAR_IPV4, own, 12, 12)
    ]
    assert [(row["address"], row["port"]) for row in rows if row["direction"] == "listen"] == [("::", own)]


EACH = 19_001
"""Connections of a process: some machines allow 20,000 descriptors."""


SMALL = """
from otel_goprobe import cli, kernel
load = kernel.load
def small(unit, **options):
    if unit.name == "tool-network":
        options["sizes"] = {"network_connections": 64}
    return load(unit, **options)
kernel.load = small
raise SystemExit(cli.main())
"""
"""An agent whose map of descriptors has 64 elements."""


def test_what_finds_no_room_is_counted() -> None:
    """Before the agent and under it: dials are counted all the same, and what isn't known of them is said."""
    with edges() as target:
        target.step("hold 71")
        agent = subprocess.Popen(
            [sys.executable, "-c", SMALL, "network", "--pid", str(target.pid), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment({"PYTHONPATH": str(PROJECT)}),
        )
        try:
            said = Output(agent.stderr)
            said.wait_for("^attached", timeout_s=60)
            target.step("hold 23")
            agent.send_signal(signal.SIGINT)
            stdout = agent.communicate()[0]
        finally:
            agent.kill()
    rows = [row for row in map(json.loads, stdout.splitlines()) if row["direction"] == "out"]
    assert (agent.returncode, sum(row["attempts"] for row in rows)) == (0, 71 + 23)
    said.join()
    (before,) = said.matching("open before found no room")
    (under,) = said.matching("connections_full")
    assert int(re.findall(r": (\d+) that", before)[0]) >= 71 - 64
    assert int(re.findall(r": (\d+) were lost", under)[0]) == 23


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_thousand_connections() -> None:
    """114,006 of six processes at once, as seen and as another agent finds them; those of one are closed again."""
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(edges()) for _ in range(6)]
        pids = [argument for target in targets for argument in ("--pid", str(target.pid))]
        with Agent(*pids, "--json", environment={}, subcommand="network") as agent:
            agent.attached(6)
            for target in targets:
                target.step(f"hold {EACH}")
            found = Agent(*pids, "--json", "--once", environment={}, subcommand="network").wait(100)
            targets[0].step("release")
            outcome = agent.stop(timeout_s=100)
    assert [row["open"] for row in rows_of(found) if row["direction"] == "out"] == [EACH] * 6
    assert "network: " not in outcome.stderr
    rows = [row for row in rows_of(outcome) if row["direction"] == "out"]
    assert sorted((row["opened"], row["open"]) for row in rows) == [(EACH, 0), *[(EACH, EACH)] * 5]


def answer(question: bytes) -> bytes:
    """Answer a question for DNS as RFC 1035 has it: two addresses for one name, none for any other."""
    end = question.index(0, 12) + 5
    known = b"shop" in question[:end]
    is_a = question[end - 3] == 1
    count = 2 if known and is_a else 0
    head = question[:2] + bytes((0x85, 0x80 if known else 0x83, 0, 1, 0, count, 0, 0, 0, 0))
    ends = b"".join(b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes((127, 0, 0, last)) for last in (9, 10))
    return head + question[12:end] + ends[: count * 16]


def serve_names(server: socket.socket) -> None:
    """Answer until the socket is closed."""
    while True:
        try:
            question, whose = server.recvfrom(1500)
            server.sendto(answer(question), whose)
        except OSError:
            return


@pytest.mark.parametrize("resolver", ["cgo", "go"])
def test_names(tmp_path: Path, resolver: str) -> None:
    """Questions by the C library's resolver and by Go's: the answer, what isn't there; no sockets but those of DNS."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    with Hosts("-names") as hosts:
        server = inside(hosts.near, lambda: socket.socket(type=socket.SOCK_DGRAM))
        server.bind(("127.0.0.1", 53))
        threading.Thread(target=serve_names, args=(server,), daemon=True).start()
        mounted = (
            f'mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && export GODEBUG=netdns={resolver} && exec "$@"'
        )
        prefix = ("nsenter", f"--net=/run/netns/{hosts.near}", "unshare", "--mount", "sh", "-c", mounted, "sh")
        with edges(prefix=prefix, exe=go_binary("network_edges", cgo=True)) as target, network_of(target) as agent:
            agent.attached()
            for _ in range(3):
                target.step("lookup shop.example.test")
            target.step("lookup missing.example.test")
            rows = rows_of(agent.stop())
        server.close()
    names = {row["host"]: row for row in rows if row["direction"] == "name"}
    assert set(names) == {"shop.example.test", "missing.example.test"}
    shop = names["shop.example.test"]
    assert (shop["opened"], shop["failures"]) == (3, "")
    assert shop["address"] in {"127.0.0.9", "127.0.0.10"}
    assert names["missing.example.test"]["failures"] == "not found:1"
    # glibc asks a daemon first, which isn't there.
    others = [row for row in rows if row["direction"] != "name" and row["protocol"] != "unix"]
    assert {(row["direction"], row["protocol"], row["address"], row["port"]) for row in others} == {
        ("out", "udp", "127.0.0.1", 53)
    }
    assert all(row["open"] == 0 and row["sent"] > 0 and row["received"] > 0 for row in others)
