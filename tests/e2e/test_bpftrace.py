"""What ``--emit bpftrace`` prints, run by bpftrace beside the agent, counts the same (`make test-slow`)."""

from __future__ import annotations

import errno
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from goprograms import go_binary
from harness import bpftrace
from harness.agent import Agent
from harness.target import Target
from test_network import WORK, services
from test_opens import REQUESTS
from test_opens import work as open_files

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.slow]

SHORT = 1009
HELD = 5


def by_bpftrace(counts: bpftrace.Counts) -> dict[str, dict[str, Any]]:
    """Return what bpftrace has of each destination over IP: dialled, opened, open, failed, sent, received."""
    found = {}
    for where, dialled in counts.of("dialled").items():
        given_up = counts.of("given_up").get(where, 0)
        failed = {
            errno.errorcode[int(key.rpartition(",")[2])]: count
            for key, count in counts.of("failed").items()
            if key.rpartition(",")[0] == where
        }
        opened = counts.of("opened").get(where, 0)
        found[where.replace(",", ":")] = {
            "attempts": dialled,
            "opened": opened,
            "open": opened - (counts.of("closed").get(where, 0) - given_up - sum(failed.values())),
            "failures": failed | ({"given up": given_up} if given_up else {}),
            "sent": counts.of("sent").get(where, 0),
            "received": counts.of("received").get(where, 0),
        }
    return found


def by_agent(rows: list[dict[str, Any]], protocols: tuple[str, ...] = ("tcp", "udp")) -> dict[str, dict[str, Any]]:
    """Return the same of the agent's rows, added up over names and functions."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["direction"] != "out" or row["protocol"] not in protocols:
            continue
        where = row["address"] if row["protocol"] == "unix" else f"{row['address']}:{row['port']}"
        failures = {name: int(count) for name, count in re.findall(r"(\w[\w ]*):(\d+)", row["failures"])}
        sums = found.setdefault(where, {"failures": Counter()})
        sums["failures"].update(failures)
        for key in ("attempts", "opened", "open", "sent", "received"):
            sums[key] = sums.get(key, 0) + row[key]
    return found


def test_network(tmp_path: Path) -> None:
    """Ten kinds of connections, short ones and open ones: each destination's counts and bytes are the agent's."""
    with (
        services(tmp_path, 2) as ((watched, other), _),
        bpftrace.beside("network", watched.pid, tmp_path) as counts,
        Agent("--pid", str(watched.pid), "--json", environment={}, subcommand="network") as agent,
    ):
        agent.attached()
        watched.work()
        other.work(2)
        watched.ask(f"short?n={SHORT}")
        watched.ask(f"hold?n={HELD}")
        outcome = agent.stop()
    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    agents = by_agent(rows)
    assert by_bpftrace(counts) == agents
    assert sum(each["opened"] for each in agents.values()) > SHORT
    unix = by_agent(rows, ("unix",))
    assert {key.rpartition(",")[0][:63]: count for key, count in counts.of("unix_dialled").items()} == {
        path[:63]: each["attempts"] for path, each in unix.items()
    }
    for name in ("sent", "received"):
        assert {path[:63]: count for path, count in counts.of(f"unix_{name}").items()} == {
            path[:63]: each[name] for path, each in unix.items()
        }
    assert counts.of("accepted") == {str(watched.pid): sum(row["opened"] for row in rows if row["direction"] == "in")}
    assert sum(each["failures"]["given up"] for each in agents.values()) == WORK


def test_opens(tmp_path: Path) -> None:
    """Files by path and error."""
    for name in ("a", "b"):
        (tmp_path / name).touch()
    with (
        Target(go_binary("opens"), "-folder", str(tmp_path)) as target,
        bpftrace.beside("opens", target.pid, tmp_path) as counts,
        Agent("--pid", str(target.pid), "--json", environment={}, subcommand="opens") as agent,
    ):
        agent.attached()
        open_files(target)
        outcome = agent.stop()
    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    seen: Counter[tuple[str, str]] = Counter()
    for row in rows:
        seen[row["path"], row["error"] or ""] += row["count"]
    by_script: Counter[tuple[str, str]] = Counter()
    for key, count in counts.of("opens").items():
        path, error, _ = key.split(",", 2)
        by_script[path, errno.errorcode.get(int(error), "")] += count
    assert by_script == seen
    assert seen.total() >= sum(REQUESTS.values())
