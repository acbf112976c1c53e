"""Policies as a user has them: one forbidden call in a hundred, learnt and then checked, mistakes, drawings (slow)."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from harness import agent as harness
from harness.agent import Agent
from test_network import Service, destinations, services

if TYPE_CHECKING:
    from pathlib import Path

    from harness.receiver import Receiver

pytestmark = [pytest.mark.root, pytest.mark.slow]

HUNDRED = 100
"""Of that many requests one makes the forbidden call: tests/go/network."""
POLICY = """services:
  "*":
    connect:
      - cidr: 127.0.0.0/26
      - host: "*.example.test"
      - unix: "*"
    listen:
      - ports: [1-65535]
"""
FUNCTION = "main.(*service).exfiltrate"


def work(service: Service) -> None:
    """Have a service work a hundred times, eight requests at once."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: service.ask("work"), range(HUNDRED)))


def findings(stderr: str) -> list[str]:
    """Return what the terminal says of findings."""
    return [line for line in stderr.splitlines() if "finding" in line]


@pytest.mark.parametrize("strip", [False, True], ids=["", "stripped"])
def test_one_in_a_hundred(receiver: Receiver, tmp_path: Path, *, strip: bool) -> None:
    """Ten kinds of connections in a hundred requests: the table is the truth, the forbidden one is found, no other is.

    Another process of the same executable does the same, unwatched.
    """
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    with services(tmp_path, 2, strip=strip) as ((watched, other), peers):
        flags = ("--pid", str(watched.pid), "--policy", str(policy))
        with Agent(*flags, "--json", environment={}, subcommand="network") as agent:
            agent.attached()
            work(watched)
            work(other)
            truth = watched.truth
            outcome = agent.stop()
        forbidden = f"collector.example.org:{peers['Forbidden'].rpartition(':')[2]}"
        said = f"{forbidden}/tcp (127.0.0.66), which the policy doesn't allow ({FUNCTION})"
        rows = [json.loads(line) for line in outcome.stdout.splitlines()]
        assert destinations(rows) == truth
        assert truth[f"tcp {peers['Forbidden']}"]["Opened"] == 1
        assert [(row["destination"], row["findings"]) for row in rows if row["findings"]] == [(forbidden, 1)]
        assert findings(outcome.stderr) == [f"warning: finding: network connects to {said}"]
        kinds = {(row["direction"], row["protocol"]) for row in rows}
        assert kinds == {*((way, "tcp") for way in ("out", "in", "listen")), *_OTHERS}

        with Agent(*flags, "--with", "network", environment=receiver.environment) as agent:
            agent.attached()
            work(watched)
            work(other)
            outcome = agent.stop()
    assert findings(outcome.stderr) == [f"warning: finding: network connects to {said}"]
    (finding,) = [log for log in receiver.logs if log.name == "network.finding"]
    (span,) = [
        span
        for span in receiver.spans
        for event in span.events
        if event.attributes.get("server.address") == "collector.example.org"
    ]
    assert span.attributes["url.path"] == "/work"
    assert (finding.trace_id, finding.span_id) == (span.trace_id, span.span_id)
    assert finding.attributes["code.function.name"] == FUNCTION
    assert f"\n{FUNCTION}\n" in str(finding.attributes["code.stacktrace"])


_OTHERS = {("out", "udp"), ("out", "unix"), ("name", "dns")}


def test_learnt_then_checked(tmp_path: Path) -> None:
    """The same work has no finding; with one new destination there is exactly that one, and the exit code is 4."""
    policy = tmp_path / "policy.yaml"
    with services(tmp_path) as ((service,), peers):
        flags = ("--pid", str(service.pid))
        with Agent(*flags, "--learn", str(policy), environment={}, subcommand="network") as agent:
            agent.attached()
            service.work()
            learnt = agent.stop()
        files = tmp_path / "map.dot", tmp_path / "map.svg"
        drawn = ("--dot", str(files[0]), "--svg", str(files[1]))
        with Agent(*flags, "--policy", str(policy), "--json", environment={}, subcommand="network") as agent:
            agent.attached()
            service.work()
            same = agent.stop()
        with Agent(
            *flags, "--policy", str(policy), "--exit-on-finding", *drawn, environment={}, subcommand="network"
        ) as agent:
            agent.attached()
            service.work()
            service.ask("new")
            new = agent.wait()
    assert learnt.code == 0
    assert re.search(rf"learnt \d+ paths of 1 services into {policy}", learnt.stderr)
    assert (same.code, findings(same.stderr)) == (0, [])
    rows = [json.loads(line) for line in same.stdout.splitlines()]
    assert len(rows) > len(peers)
    assert [row["findings"] for row in rows] == [0] * len(rows)
    why = f"network connects to {peers['New']}/tcp, which the policy doesn't allow (main.(*service).callNew)"
    assert (new.code, findings(new.stderr)) == (4, [f"warning: finding: {why}"])
    (red,) = [line for line in files[0].read_text().splitlines() if "#c62828" in line]
    assert f'"network" -> "{peers["New"]}"' in red
    drawing = ET.parse(files[1])  # noqa: S314 - Graphviz' own, made here
    texts = {element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert {"network", peers["New"], peers["TCP"]} <= texts


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        ("services:\n  shop:\n    conect: []\n", (), "{file}:3:5: services.shop: 'conect' is no field\n  did you mean"),
        (
            "services:\n  shop:\n    connect:\n      - host: a.example\n        ports: [443, 70000]\n",
            (),
            "{file}:5:22: services.shop.connect[0].ports[1]: 70000 is no port",
        ),
        ("services: [\n", (), "{file}:2:1: "),
        ("", ("--svg", "{file}/map.svg"), "{file}/map.svg can't be written\n"),
        ("", ("--learn", "/"), "/ can't be written\n"),
    ],
    ids=["field", "port", "YAML", "drawing", "learnt"],
)
def test_mistakes(tmp_path: Path, text: str, flags: tuple[str, ...], said: str) -> None:
    """A mistake ends the command at its start, with 2, and says file, line and field, and what to write instead."""
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    options = ("--policy", str(file), *(flag.format(file=file) for flag in flags))
    with services(tmp_path) as ((service,), _):
        outcome = harness.run("network", "--pid", str(service.pid), *options)
    assert outcome.returncode == 2
    assert outcome.stderr.startswith(f"error: {said.format(file=file)}")
    assert outcome.stderr.count("\n") >= 2


def test_exit_without_policy(tmp_path: Path) -> None:
    """What could never end a run is refused."""
    with services(tmp_path) as ((service,), _):
        outcome = harness.run("network", "--pid", str(service.pid), "--exit-on-finding")
    assert outcome.returncode == 2
    assert "add --policy FILE" in outcome.stderr


def test_live_table(tmp_path: Path) -> None:
    """On a terminal of 80 columns no line is longer, what matters is there, and what isn't is named."""
    with services(tmp_path) as ((service,), _):
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        command = harness.TREE.command("network", "--pid", str(service.pid), "--for", "3s", "--sort", "destination")
        process = subprocess.Popen(
            command,
            stdout=follower,
            stderr=subprocess.PIPE,
            text=True,
            cwd=harness.PROJECT,
            env=harness.clean_environment({"TERM": "xterm"}),
        )
        os.close(follower)
        assert process.stderr
        process.stderr.readline()  # attached
        service.work(2)
        shown = b""
        while True:
            try:
                shown += os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
        assert process.wait(30) == 0
        process.stderr.close()
        os.close(leader)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r", "\n").split("\n")
    last = max(number for number, line in enumerate(lines) if line.startswith("SERVICE"))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines[last:])
    for word in ("FUNCTION", "OPENED", "FAILURES", "ECONNREFUSED", "given up", "no room for "):
        assert word in text
    names = [line.split()[3] for line in lines[last + 1 :] if line.startswith("network ")]
    assert names == sorted(names)
