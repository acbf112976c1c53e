"""Ten thousand connections, a port scan, more paths than there is room for: all counted, memory bounded (slow)."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import time
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any

import psutil
import pytest
from harness import bpftrace
from harness.agent import Agent, Outcome
from test_bpftrace import by_agent, by_bpftrace
from test_network import destinations, services

pytestmark = [pytest.mark.root, pytest.mark.slow]

MANY = 10_007
PORTS = 9_973
MORE_PORTS = 20_011
MAX_PATHS = 10_000
PER_SECOND = 1_000
"""Short connections at the least; some 5,000 on an idle machine of two cores."""
AT_ONCE = 64
"""Of the short connections."""
MIB = 1 << 20


def rows_of(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the rows of ``--json``."""
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def rss(agent: Agent) -> int:
    """Return the agent's memory, bytes."""
    size: int = psutil.Process(agent.pid).memory_info().rss
    return size


def by_ss(where: str) -> int:
    """Return how many connections to an address ``ss`` shows as established."""
    command = ["ss", "-Htn", "state", "established", "dst", where]
    return len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


def by_proc(pid: int, where: str) -> int:
    """Return how many of a process's descriptors are established connections to an address, by /proc/PID/net/tcp."""
    address, _, port = where.rpartition(":")
    remote = f"{ipaddress.IPv4Address(address).packed[::-1].hex().upper()}:{int(port):04X}"
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    inodes = {words[9] for words in lines if words[2] == remote and words[3] == "01"}
    links = (str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink())
    return sum(1 for link in links if link.startswith("socket:[") and link[8:-1] in inodes)


def test_ten_thousand(tmp_path: Path) -> None:
    """As many short ones by the thousand a second, and as many open: the service, ss, /proc and bpftrace agree."""
    with services(tmp_path) as ((service,), peers):
        flags = ("--pid", str(service.pid), "--json")
        with (
            bpftrace.beside("network", service.pid, tmp_path) as counts,
            Agent(*flags, environment={}, subcommand="network") as agent,
        ):
            agent.attached()
            before = rss(agent)
            began = time.monotonic()
            service.ask(f"short?n={MANY}")
            rate = MANY / (time.monotonic() - began)
            service.ask(f"hold?n={MANY}")
            open_now = (by_ss(peers["TCP"]), by_proc(service.pid, peers["TCP"]))
            time.sleep(1)
            grown = rss(agent) - before
            truth = service.truth
            outcome = agent.stop()
        # The next agent finds them open, and sees them closed.
        with Agent(*flags, environment={}, subcommand="network") as agent:
            agent.attached()
            found = rows_of(Agent("--once", *flags, environment={}, subcommand="network").wait(60))
            service.ask("release")
            left = rows_of(agent.stop())
    rows = rows_of(outcome)
    assert "ring_full" not in outcome.stderr
    assert open_now == (MANY, MANY)
    ours = by_agent(rows)[peers["TCP"]]
    (told,) = truth.values()
    assert {name: ours[name.lower()] for name in ("Opened", "Open", "Sent", "Received")} == {
        name: told[name] for name in ("Opened", "Open", "Sent", "Received")
    }
    assert (ours["attempts"], ours["opened"], ours["open"]) == (2 * MANY, 2 * MANY, MANY)
    assert {row["function"]: row["opened"] for row in rows if row["direction"] == "out"} == {
        "main.(*service).callEcho": MANY,
        "main.(*service).hold": MANY,
    }
    assert by_agent(rows) == by_bpftrace(counts)
    assert rate > PER_SECOND
    assert grown < 40 * MIB
    where = peers["TCP"].rpartition(":")[0]
    assert [row["open"] for row in found if row["address"] == where] == [MANY]
    assert [(row["opened"], row["open"]) for row in left if row["address"] == where] == [(MANY, 0)]
    print(f"{rate:.0f} short connections a second; the agent grew by {grown / MIB:.1f} MiB")


def test_port_scan(tmp_path: Path) -> None:
    """9,973 refused ports are as many rows; of 29,984 the table keeps 10,000 and counts the others, and says so."""
    with services(tmp_path) as ((service,), _):
        with Agent("--pid", str(service.pid), "--json", environment={}, subcommand="network") as agent:
            agent.attached()
            service.ask(f"scan?n={PORTS}")
            truth = service.truth
            outcome = agent.stop()
        assert destinations(rows_of(outcome)) == truth
        assert all(row["Failed"] == {"ECONNREFUSED": 1} for row in truth.values())
        assert len(truth) == PORTS
        assert "found no room" not in outcome.stderr
        with Agent("--pid", str(service.pid), "--json", environment={}, subcommand="network") as agent:
            agent.attached()
            before = rss(agent)
            service.ask(f"scan?n={MORE_PORTS}&from={PORTS}")
            time.sleep(1)
            grown = rss(agent) - before
            outcome = agent.stop()
    rows = rows_of(outcome)
    assert len(rows) == MAX_PATHS
    said = re.search(r"(\d+) connections of paths that found no room", outcome.stderr)
    assert said
    attempts = sum(row["attempts"] for row in rows if row["direction"] == "out")
    lost = re.search(r"network: ring_full: (\d+) were lost", outcome.stderr)
    assert 0 <= MORE_PORTS - attempts - int(said[1]) <= (int(lost[1]) if lost else 0)
    assert grown < 40 * MIB
    print(f"{MORE_PORTS} paths: the agent grew by {grown / MIB:.1f} MiB")


def test_lost_is_counted(tmp_path: Path) -> None:
    """An agent that sleeps meanwhile has every connection, or says how many records its ring had no room for."""
    with (
        services(tmp_path) as ((service,), peers),
        Agent("--pid", str(service.pid), "--json", environment={}, subcommand="network") as agent,
    ):
        agent.attached()
        agent.signal(SIGSTOP)
        for _ in range(3):
            service.ask(f"short?n={MANY}")
        agent.signal(SIGCONT)
        service.ask(f"short?n={MANY}")
        (truth,) = service.truth.values()
        outcome = agent.stop()
    (echo,) = [row for row in rows_of(outcome) if row["direction"] == "out"]
    lost = re.search(r"network: ring_full: (\d+) were lost", outcome.stderr)
    missing, records = truth["Opened"] - echo["opened"], int(lost[1]) if lost else 0
    print(f"{missing} connections missing, {records} records lost")
    assert 0 <= missing <= records
    assert echo["open"] < AT_ONCE, "whose end was lost counts as open until its descriptor is taken again"
    assert echo["sent"] <= truth["Sent"]
    assert f"{echo['address']}:{echo['port']}" == peers["TCP"]
