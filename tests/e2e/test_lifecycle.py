"""Agents and targets come, go, die and are replaced; no request suffers and none is told wrongly."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness import expect
from harness.agent import Agent
from harness.client import Load, ask, in_turn, one_after_another
from harness.target import DEADLINE_S, Target
from harness.traces import bpf_ids, changed_text, link_exists, program_exists
from opentelemetry.proto.trace.v1.trace_pb2 import Span

if TYPE_CHECKING:
    from harness.receiver import Receiver

pytestmark = pytest.mark.root

TIMES = 50


def wait_until_gone(programs: set[int], links: set[int]) -> None:
    """Wait for the kernel to drop programs and links whose last holder has died.

    Raises:
        TimeoutError: it keeps some.
    """
    until = time.monotonic() + 5
    while left := [*filter(program_exists, programs), *filter(link_exists, links)]:
        if time.monotonic() > until:
            raise TimeoutError(f"the kernel still has {left}")
        time.sleep(0.05)


def test_killed_agent_leaves_nothing(own_exe: Path, receiver: Receiver) -> None:
    """After ``kill -9`` under load the target answers, its text is as on disk, and no program or link is left."""
    with Target(own_exe, "-quiet") as server, Load(server.port) as load:
        load.more(100)
        with Agent("--pid", str(server.pid), environment=receiver.environment) as agent:
            agent.attached()
            assert changed_text(server.pid, own_exe)
            programs, links = bpf_ids(agent.pid)
            assert programs
            assert links
            load.more(1000)
            agent.kill()
        load.more(1000)
        wait_until_gone(programs, links)
        assert changed_text(server.pid, own_exe) == []
    assert load.failures == []


def test_stopped_agent_leaves_nothing(own_exe: Path, receiver: Receiver) -> None:
    """After SIGTERM too."""
    with Target(own_exe, "-quiet") as server, Load(server.port) as load:
        with Agent("--pid", str(server.pid), environment=receiver.environment) as agent:
            agent.attached()
            programs, links = bpf_ids(agent.pid)
            load.more(300)
            outcome = agent.stop(signal.SIGTERM)
        assert outcome.code == 0
        assert outcome.balanced
        wait_until_gone(programs, links)
        assert changed_text(server.pid, own_exe) == []
        load.more(100)
    assert load.failures == []
    assert outcome.exported == len(receiver.spans)


def test_killed_target_does_not_stop_the_agent(own_exe: Path, receiver: Receiver) -> None:
    """The agent says that it is gone, accounts for it, and traces the one that remains and the one that comes."""
    with (
        Target(own_exe) as first,
        Target(own_exe) as second,
        Agent("--service", "shop", f"--exe={own_exe}", environment=receiver.environment) as agent,
    ):
        agent.attached(2)
        with Load(first.port, threads=2) as load:
            load.more(100)
            first.kill()
        agent.stderr.wait_for("^detached")
        one_after_another(second.port, in_turn(23))
        with Target(own_exe) as third:
            agent.attached(3)
            one_after_another(third.port, in_turn(23))
            logged = len(second.wait_log(23)) + len(third.wait_log(23))
            outcome = agent.stop()
    assert outcome.balanced
    assert set(outcome.dropped) <= {"unfinished"}
    by_pid = {target["pid"]: target["started"] for target in outcome.targets}
    assert by_pid[second.pid] == by_pid[third.pid] == 23
    assert len([span for span in receiver.spans if span.resource["process.pid"] != first.pid]) == logged == 46
    instances = {span.resource["service.instance.id"] for span in receiver.spans}
    assert len(instances) == 3


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_attach_and_detach_50_times_under_load(own_exe: Path, receiver: Receiver) -> None:
    """No request fails, nothing is left, and the spans of all agents, two at a time on one target, add up."""

    def come_and_go(_: int) -> int:
        with Agent("--pid", str(server.pid), environment=receiver.environment) as agent:
            agent.attached()
            load.more(10)
            outcome = agent.stop()
        assert outcome.code == 0
        assert outcome.balanced
        return outcome.exported

    with Target(own_exe, "-quiet") as server, Load(server.port, threads=2, pause_s=0.002) as load:
        with ThreadPoolExecutor(2) as two:
            exported = sum(two.map(come_and_go, range(TIMES)))
        assert changed_text(server.pid, own_exe) == []
        load.more(10)
    assert load.failures == []
    assert exported == len(receiver.spans) >= TIMES * 10
    expect.well_formed(receiver.spans)


@pytest.mark.slow
def test_program_that_reexecutes_itself_under_load(receiver: Receiver) -> None:
    """A PIE program replaces itself in place, three times: no request fails, and it is traced again each time."""
    exe = go_binary("http_server", pie=True)
    with (
        Target(exe) as server,
        Load(server.port, keep_alive=False, pause_s=0.002) as load,
        Agent("--service", "shop", "--pid", str(server.pid), environment=receiver.environment) as agent,
    ):
        agent.attached()
        for count in range(2, 5):
            load.more(50)
            assert ask(server.port, "/reexec").status == 200
            server.stdout.wait_for("^ready$", count)
            # By its span, not by a line: a look in the midst of an exec can make the agent attach twice.
            until = time.monotonic() + 15
            while not any(span.attributes["url.path"] == f"/tree/{count}" for span in receiver.spans):
                assert time.monotonic() < until, f"not traced after exec {count - 1}"
                assert ask(server.port, f"/tree/{count}").status == 200
                time.sleep(0.1)
            load.more(50)
        outcome = agent.stop()
    assert load.failures == []
    assert outcome.balanced
    assert len(outcome.targets) >= 4


def test_program_that_starts_later_and_restarts(own_exe: Path, receiver: Receiver) -> None:
    """A warm agent is attached within moments of an exec, again after a restart, and sees requests from then on."""
    with Agent("--service", "shop", f"--exe={own_exe}", environment=receiver.environment) as agent:
        agent.stderr.wait_for("waiting", timeout_s=60)
        delays_ms = []
        for count in range(1, 6):
            with Target(own_exe) as server:
                agent.attached(count)
                arrived = [at for at, text in agent.stderr.lines if text.startswith("attached")][-1]
                delays_ms.append((arrived - server.started_at) * 1e3)
                one_after_another(server.port, in_turn(7))
                server.wait_log(7)
                assert server.stop() == 0
            agent.stderr.wait_for("^detached", count)
        outcome = agent.stop()
    print("attached after the target's start by", *(f"{delay:.0f} ms" for delay in delays_ms))
    assert max(delays_ms) < 1000
    assert (outcome.started, outcome.exported, outcome.dropped) == (35, 35, {})
    assert len(receiver.spans) == 35


def test_command_is_traced_from_its_first_request(receiver: Receiver) -> None:
    """``run -- CMD`` misses nothing, passes output and exit code on, and gives CMD a process group of its own."""
    exe = go_binary("http_server")
    program = [str(exe), "-self", "23", "-exit", "7"]
    with Agent("--service", "shop", environment=receiver.environment, program=program) as agent:
        outcome = agent.wait(DEADLINE_S)
    assert outcome.code == 7
    assert (outcome.started, outcome.exported, outcome.dropped) == (46, 46, {})
    # It asks itself: each request is a call as well.
    kinds = Counter(span.kind for span in receiver.spans)
    assert kinds == {Span.SPAN_KIND_CLIENT: 23, Span.SPAN_KIND_SERVER: 23}
    assert {span.resource["service.name"] for span in receiver.spans} == {"shop"}
    (facts,) = agent.stdout.matching("^process ")
    told = dict(pair.split("=") for pair in facts.split()[1:])
    assert told["group"] == told["pid"]
    assert receiver.spans[0].resource["process.pid"] == int(told["pid"])


def test_command_runs_as_who_called_sudo(receiver: Receiver) -> None:
    """SUDO_UID and SUDO_GID say who; signals reach the command, which ends the agent by ending itself."""
    folder = Path("/tmp") / f"otel-goprobe-test-{os.getpid()}"  # where any user may look
    folder.mkdir(mode=0o755)
    exe = folder / "http_server"
    try:
        exe.write_bytes(go_binary("http_server").read_bytes())
        exe.chmod(0o755)
        environment = {**receiver.environment, "SUDO_UID": "65534", "SUDO_GID": "65534", "SUDO_USER": "nobody"}
        program = [str(exe), "-listen", "127.0.0.1:0"]
        with Agent("--service", "shop", environment=environment, program=program) as agent:
            agent.stdout.wait_for("^ready$")
            assert agent.stdout.matching("uid=65534 gid=65534")
            port = int(agent.stdout.wait_for("^listening ").rpartition(":")[2])
            one_after_another(port, in_turn(7))
            outcome = agent.stop(signal.SIGTERM)
        assert "stopped by terminated" in outcome.stdout
        assert outcome.code == 0
        assert (outcome.started, outcome.exported, outcome.dropped) == (7, 7, {})
    finally:
        exe.unlink(missing_ok=True)
        folder.rmdir()


def test_command_killed_by_a_signal(receiver: Receiver) -> None:
    """The exit code is the shell's for a signal, 128 + its number."""
    program = [str(go_binary("http_server")), "-listen", "127.0.0.1:0"]
    with Agent("--service", "shop", environment=receiver.environment, program=program) as agent:
        agent.stdout.wait_for("^ready$")
        told = dict(pair.split("=") for pair in agent.stdout.wait_for("^process ").split()[1:])
        os.kill(int(told["pid"]), signal.SIGKILL)
        outcome = agent.wait(DEADLINE_S)
    assert outcome.code == 128 + signal.SIGKILL
