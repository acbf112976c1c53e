"""``network`` where descriptors, sockets and networks are less plain: nothing is counted wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.target import Output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.root

FUNCTION = "main.(*edges).dial"


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
        answer = self._output.wait_for("^(done|failed)", self._answers, 60)
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


@contextmanager
def edges(
    host: str = "127.0.0.1", *, prefix: Sequence[str] = (), far: Sequence[str] = (), exe: Path | None = None
) -> Iterator[Edges]:
    """Give one, and its peers, which listen on `host` and are started by `far`."""
    with tempfile.TemporaryDirectory(prefix="goprobe-") as folder:
        command = [*far, go_binary("network_edges"), "peers", host, folder]
        peers = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started: list[subprocess.Popen[str]] = [peers]
        try:
            ready = Output(peers.stdout).wait_for("^ready ").removeprefix("ready ")
            one = Edges(ready, prefix=prefix, exe=exe)
            started.append(one.process)
            yield one
        finally:
            for process in started:
                process.kill()
                process.wait()


def rows_of(outcome: Any) -> list[dict[str, Any]]:
    """Return the table of ``--json``."""
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def outgoing(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the rows of what goes out, as the target's truth has them."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["direction"] == "out":
            host = f"[{row['address']}]" if ":" in row["address"] else row["address"]
            where = row["address"] if row["protocol"] == "unix" else f"{host}:{row['port']}"
            one = found.setdefault(f"{row['protocol']} {where}", dict.fromkeys(("Opened", "Open", "Sent", "Received"), 0))
            for key in one:
                one[key] += row[key.lower()]
    return found


STEPS = ("udp", "unix", "dup", "dup3", "rights", "range", "child", "reuse", "reset 5", "sendto", "hold 3", "lookup localhost")


def test_descriptors(tmp_path: Path) -> None:
    """Duplicates, descriptors that others hand over, used again or closed by the range; every kind of socket."""
    with edges() as target:
        with Agent("--pid", str(target.pid), "--json", environment={}, subcommand="network") as agent:
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
    assert seen == {
        where.replace("unixgram", "unix"): {key: value for key, value in one.items()} for where, one in truth.items()
    }
    resets = {row["port"]: row["resets"] for row in rows if row["direction"] == "out" and row["resets"]}
    assert resets == {int(target.peers["Resets"].rpartition(":")[2]): 5}
    incoming = {(row["protocol"], row["port"]): row for row in rows if row["direction"] == "in"}
    question = incoming["udp", port]
    assert (question["opened"], question["open"], question["received"], question["sent"]) == (1, 0, 10, 10)
    handed = incoming["tcp", given]
    assert (handed["opened"], handed["open"], handed["received"], handed["sent"]) == (1, 0, 32, 32)
    assert [(row["protocol"], row["port"]) for row in rows if row["direction"] == "listen"] == [("udp", port)]
