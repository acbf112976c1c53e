"""What is tried on a kernel, one function each, in the order of the table; called by `inside`, in the virtual machine.

Each function returns what the table says of it, more about it on lines behind, and raises where it found something
wrong. Emulated processors are 10 to 20 times slower than real ones: what is measured here compares kernels, and
deadlines are long.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness import expect
from harness.agent import Agent, Outcome, run
from harness.client import Load, Request, ask, in_turn, one_after_another, page
from harness.receiver import Receiver, Span
from harness.target import Line, Target
from harness.traces import bpf_ids, changed_text, link_exists, program_exists

from kernels import hosts, tool_checks
from kernels.guest import ATTACH_S, STOP_S, Guest
from kernels.results import ATTACH_WAY, PREEMPTION
from otel_goprobe import kernel, probes
from otel_goprobe.kernel import bundle
from otel_goprobe.model import SpanKind

PYTEST_S = 900.0
ANSWER_S = 120.0
REQUESTS = 23
LOAD_REQUESTS = 300
DETACH_S = 10.0
"""What detaching may take on an emulated processor."""

RING_BYTES = 256 * 1024
INSTRUCTIONS = 400_000
"""Far from the million that the verifier walks before it gives up (BPF_COMPLEXITY_LIMIT_INSNS)."""
LARGEST = 10
"""Programs whose instructions are told."""

SERVER = "http_server"
HITS = "hits"
"""Programs of tests/go: the one of the end-to-end tests, the one of ATTACH_TESTS."""
ACCEPTED = "Programs accepted by the verifier"
"""The check that compiles into the cache of the machine, where the others' agents find the programs."""
ATTACH_TESTS = (
    "tests/bpf/test_attach.py",
    "tests/bpf/test_loader.py::test_the_agents_own_unit_passes_the_verifier",
)


def preemption(_: Guest) -> str:
    """Which of the kernel's preemption models is on."""
    path = Path("/sys/kernel/debug/sched/preempt")
    text = path.read_text(encoding="ascii")
    return text[text.index("(") + 1 : text.index(")")]


def compiles(_: Guest) -> str:
    """BCC compiles the programs here, without headers, and nothing is missing that the agent can't do without."""
    began = time.monotonic()
    bundle.compile_unit(probes.unit(kernel.bpf_folder()))
    return f"in {time.monotonic() - began:.0f} s"


def loads(guest: Guest) -> str:
    """The verifier accepts all programs; how many instructions it walked for the largest ones."""
    began = time.monotonic()
    with _loaded(guest) as program:
        took = time.monotonic() - began
        walked = Counter(program.verified_instructions).most_common(LARGEST)
    assert walked[0][1] < INSTRUCTIONS, walked
    found = f"in {took:.1f} s; at most {walked[0][1]} instructions walked"
    return "\n".join([found, *(f"        {count:>7}  {name}" for name, count in walked)])


def attach_way(guest: Guest) -> str:
    """How uprobes are attached."""
    with _loaded(guest) as program:
        return program.attach_way


def sleepable(guest: Guest) -> str:
    """Whether programs may fault pages in."""
    with _loaded(guest) as program:
        return "yes" if program.sleepable else "no: pages that aren't present are counted, not read"


def attaching(guest: Guest) -> str:
    """Run the attach tests, and load the agent's programs for each way to attach, sleepable and not."""
    lacking = () if kernel.has_uprobe_multi() else ("-k", "not uprobe_multi")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=900", *ATTACH_TESTS, *lacking],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **_environment(guest)},
        timeout=PYTEST_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1].partition(" in ")[0]


def process_events(guest: Guest) -> str:
    """Raw tracepoints tell of a program's start and end, without tracefs."""
    with (
        _loaded(guest) as program,
        contextlib.closing(kernel.Ring(program.maps["process_events"], program.dtype("process_event"))) as ring,
        kernel.attach_tracepoints(program),
    ):
        child = subprocess.Popen(["/bin/true"])
        child.wait()
        events = ring.drain()
    kinds = {int(event["exited"]) for event in events if event["tgid"] == child.pid}
    assert kinds == {0, 1}, f"events of pid {child.pid}: {events}"
    return "exec and exit"


def doctor(guest: Guest) -> str:
    """``otel-goprobe doctor`` finds the machine fit."""
    done = run("doctor", environment=_environment(guest), timeout_s=ATTACH_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return "fit"


def requests(build: str, guest: Guest) -> str:
    """23 requests of seven kinds are 23 spans with the target's own facts; how long the agent took to end."""
    sent = in_turn(REQUESTS)
    with Receiver() as receiver, Target(guest.programs[build]) as server, _agent(guest, receiver, server) as agent:
        answers = one_after_another(server.port, sent)
        log = server.wait_log(REQUESTS, ANSWER_S)
        outcome, seconds = _stopped(agent, server, guest.programs[build])
    assert [answer.status for answer in answers] == [request.status for request in sent]
    _accounted(outcome, receiver.spans, log, sent)
    return f"{REQUESTS} of {REQUESTS}; detached in {seconds:.1f} s"


def under_load(guest: Guest) -> str:
    """Requests of four connections at once, on two processors, are all told, each with its own facts."""
    exe = guest.server
    with Receiver() as receiver, Target(exe) as server, _agent(guest, receiver, server) as agent:
        with Load(server.port, threads=4) as load:
            load.more(LOAD_REQUESTS, ANSWER_S)
        log = server.wait_log(load.answered, ANSWER_S)
        outcome = agent.stop(timeout_s=STOP_S)
    assert load.failures == []
    _accounted(outcome, receiver.spans, log, [page("/ok")])
    return f"{len(log)} of {len(log)}"


def restart(guest: Guest) -> str:
    """A program that starts later, ends and starts again is attached to each time; after how long."""
    exe = guest.server
    delays = []
    with (
        Receiver() as receiver,
        Agent("--service", "shop", f"--exe={exe}", environment=_environment(guest, receiver)) as agent,
    ):
        agent.stderr.wait_for("waiting", timeout_s=ATTACH_S)
        for count in (1, 2):
            with Target(exe) as server:
                agent.stderr.wait_for("^attached", count, ATTACH_S)
                arrived = [at for at, text in agent.stderr.lines if text.startswith("attached")][-1]
                delays.append(arrived - server.started_at)
                one_after_another(server.port, in_turn(REQUESTS))
                server.wait_log(REQUESTS, ANSWER_S)
                assert server.stop() == 0
            agent.stderr.wait_for("^detached", count, ATTACH_S)
        outcome = agent.stop(timeout_s=STOP_S)
    assert (outcome.started, outcome.exported, outcome.dropped) == (2 * REQUESTS, 2 * REQUESTS, {}), outcome
    assert len(receiver.spans) == 2 * REQUESTS
    return f"after {delays[0]:.1f} s, again after {delays[1]:.1f} s"


def reexec(guest: Guest) -> str:
    """A program that replaces itself in place is traced again, as what it has become."""
    exe = guest.server
    with Receiver() as receiver, Target(exe) as server, _agent(guest, receiver, server) as agent:
        assert ask(server.port, "/reexec").status == 200
        server.stdout.wait_for("^ready$", 2, ANSWER_S)
        agent.stderr.wait_for("^attached", 2, ATTACH_S)
        before = len(server.log())
        sent = in_turn(REQUESTS)
        one_after_another(server.port, sent)
        log = server.wait_log(before + REQUESTS, ANSWER_S)[before:]
        outcome = agent.stop(timeout_s=STOP_S)
    assert outcome.balanced, outcome
    assert len(outcome.targets) == 2
    ports = {int(line.remote.rpartition(":")[2]) for line in log}
    spans = [span for span in receiver.spans if span.attributes["network.peer.port"] in ports]
    expect.spans_match(spans, log, sent, timing=False)
    return f"{REQUESTS} of {REQUESTS} afterwards"


def launched(guest: Guest) -> str:
    """``run -- CMD`` misses nothing, not even the first request: each is a client's span and the server's."""
    program = [str(guest.server), "-self", str(REQUESTS), "-exit", "7"]
    with (
        Receiver() as receiver,
        Agent("--service", "shop", environment=_environment(guest, receiver), program=program) as agent,
    ):
        outcome = agent.wait(ATTACH_S)
    assert outcome.code == 7, outcome
    assert (outcome.started, outcome.exported, outcome.dropped) == (2 * REQUESTS, 2 * REQUESTS, {}), outcome
    assert Counter(span.kind for span in receiver.spans) == {SpanKind.SERVER: REQUESTS, SpanKind.CLIENT: REQUESTS}
    return f"{REQUESTS} of {REQUESTS}"


def killed(guest: Guest) -> str:
    """After ``kill -9`` under load every request is answered, and soon nothing of the agent is in the kernel."""
    exe = guest.server
    with Receiver() as receiver, Target(exe, "-quiet") as server, Load(server.port, pause_s=0.05) as load:
        load.more(REQUESTS, ANSWER_S)
        with _agent(guest, receiver, server) as agent:
            assert changed_text(server.pid, exe)
            programs, links = bpf_ids(agent.pid)
            assert programs
            assert links
            load.more(REQUESTS, ANSWER_S)
            began = time.monotonic()
            agent.kill()
        load.more(REQUESTS, ANSWER_S)
        while [*filter(program_exists, programs), *filter(link_exists, links)] or changed_text(server.pid, exe):
            assert time.monotonic() - began < STOP_S, "programs, links or breakpoints are left"
            time.sleep(0.1)
        took = time.monotonic() - began
        load.more(REQUESTS, ANSWER_S)
    assert load.failures == []
    return f"clean after {took:.1f} s"


Check = Callable[[Guest], str]


def sequence(builds: Sequence[str], text: str = "") -> dict[str, Check]:
    """Return the checks by the name that the table gives them.

    Args:
        builds: keys of `Guest.programs`.
        text: that the names have, in any case; ACCEPTED is always there.
    """
    every: dict[str, Check] = {
        PREEMPTION: preemption,
        "Programs compiled by BCC": compiles,
        ACCEPTED: loads,
        ATTACH_WAY: attach_way,
        "Sleepable programs": sleepable,
        "`tests/bpf` on attaching": attaching,
        "Process events (raw tracepoints)": process_events,
        "`otel-goprobe doctor`": doctor,
        **{f"23 requests, {build}": functools.partial(requests, build) for build in builds},
        "Every request of four connections at once": under_load,
        "Restarted program attached to": restart,
        "Program that executes itself anew": reexec,
        "`run -- CMD`, from the first request": launched,
        "Agent ended by `kill -9`": killed,
        "`--propagation wire`, to another host": hosts.wire,
        "`--propagation write`, TLS to another host": hosts.write,
        "`--propagation write`, agents ended by `kill -9`": hosts.write_killed,
        "Tools' programs accepted by the verifier": tool_checks.accepted,
        "The tool `opens`, beside the program's own count": tool_checks.opens,
        "The tool `network`, beside the service's own count": tool_checks.network,
    }
    return {name: check for name, check in every.items() if name == ACCEPTED or text.lower() in name.lower()}


@contextlib.contextmanager
def _loaded(guest: Guest) -> Iterator[kernel.Program]:
    """Load the core unit as the agent does."""
    with kernel.load(
        probes.unit(kernel.bpf_folder()), cache_dir=guest.cache, sizes={"ring_256": RING_BYTES, "ring_1024": RING_BYTES}
    ) as program:
        yield program


def _environment(guest: Guest, receiver: Receiver | None = None) -> dict[str, str]:
    return {"OTEL_GOPROBE_CACHE": str(guest.cache), **(receiver.environment if receiver else {})}


@contextlib.contextmanager
def _agent(guest: Guest, receiver: Receiver, server: Target) -> Iterator[Agent]:
    """Start an agent on a target and wait until it is attached."""
    with Agent("--service", "shop", "--pid", str(server.pid), environment=_environment(guest, receiver)) as agent:
        agent.stderr.wait_for("^attached", timeout_s=ATTACH_S)
        print(*agent.stderr.matching("^attached"), file=sys.stderr)
        yield agent


def _stopped(agent: Agent, server: Target, exe: Path) -> tuple[Outcome, float]:
    """End the agent as Ctrl-C does; how it ended, and seconds until the last breakpoint was out of the target."""
    offsets = changed_text(server.pid, exe)
    assert offsets
    began = time.monotonic()
    outcome = agent.stop(timeout_s=STOP_S)
    seconds = time.monotonic() - began
    assert changed_text(server.pid, exe) == []
    assert seconds <= DETACH_S, f"the agent took {seconds:.1f} s to end:\n{outcome.stderr}"
    return outcome, seconds


def _accounted(outcome: Outcome, spans: list[Span], log: list[Line], sent: list[Request]) -> None:
    """Check that each logged request is one span with the right attributes, as long as its handler at least."""
    count = len(log)
    assert (outcome.code, outcome.started, outcome.exported, outcome.dropped) == (0, count, count, {}), outcome
    expect.spans_match(spans, log, sent, timing=False)
    for span, line in expect.pairs(spans, log):
        assert span.end - span.start >= line.end - line.start, f"{span} is shorter than its handler {line}"
