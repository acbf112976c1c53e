"""What a round may do to the target: nothing, empty programs, those and a fed receiver, the agent. For overhead.py."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import empty
from benchmarks.loads import Load, trickle
from benchmarks.machine import OTHER_CPUS
from benchmarks.probed import probed
from benchmarks.processes import TEMPORARY, Lines, Running, cpu_ns, memory_mib, wait_until
from benchmarks.programs import ENVIRONMENT, PROJECT
from benchmarks.sites import program_statistics, runs, tag
from otel_goprobe import config, kernel, probes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.processes import Server
    from benchmarks.receivers import Receiver
    from otel_goprobe.model import Plan

ATTACH_WITHIN_S = 60.0
"""The first start compiles."""
ARRIVE_WITHIN_S = 5.0
DRAIN_EVERY_S = 0.02
SETTLE_S = 0.3
"""Behind the last request: more than the agent keeps a record or a batch."""


CACHE = "OTEL_GOPROBE_CACHE"
"""The one variable of this process that the agent gets."""


@contextlib.contextmanager
def empty_programs(server: Server, plan: Plan) -> Iterator[None]:
    """Put an empty program on every site that the agent uses."""
    with empty.loaded() as program, contextlib.ExitStack() as stack:
        for probe in plan.probes:
            stack.enter_context(empty.attached(program, server.pid, probe.sites))
        yield


@contextlib.contextmanager
def fed(server: Server, receiver: Receiver) -> Iterator[None]:
    """Feed the receiver a span, encoded beforehand, for every request."""
    command = [sys.executable, "-m", "benchmarks.feed", receiver.endpoint, server.counter.path]
    with Running(command, environment={"PYTHONPATH": str(PROJECT)}) as running:
        running.line()
        yield
        if running.process.poll() is not None:
            raise SystemExit("the feeder ended before its time")


@contextlib.contextmanager
def unsent(server: Server) -> Iterator[None]:
    """Attach the agent's probes; what they see is read and thrown away."""
    ended = threading.Event()
    with probed(server.pid) as (_, rings):

        def read() -> None:
            while not ended.wait(DRAIN_EVERY_S):
                for ring in rings.values():
                    ring.drain()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            ended.set()
            reader.join()


class Agent:
    """A running agent that traces the target and exports to the receiver; it is attached when this returns.

    Args:
        server: the target.
        receiver: where spans go.
        cpus: where the agent may run.
        words: flags, and variables as ``NAME=value``.
    """

    def __init__(
        self, server: Server, receiver: Receiver, cpus: Sequence[int] = OTHER_CPUS, words: Sequence[str] = ()
    ) -> None:
        self._server, self._receiver = server, receiver
        self._summary = tempfile.NamedTemporaryFile(prefix=TEMPORARY)  # noqa: SIM115 - lives with this
        before = receiver.spans()
        unset = [key for key in ENVIRONMENT if key.startswith("OTEL_") and key != CACHE]
        command = [sys.executable, "-m", "otel_goprobe", "run", "--pid", str(server.pid), "--service", "bench"]
        command += ["--endpoint", receiver.endpoint, "--summary-json", self._summary.name]
        variables = [word for word in words if word.startswith("OTEL_")]
        command += [word for word in words if not word.startswith("OTEL_")]
        with trickle(server):
            self._running = Running(
                ["env", *(f"-u{key}" for key in unset), *variables, *command], cpus=cpus, stderr=subprocess.PIPE
            )
            assert self._running.process.stderr
            self._lines = Lines(self._running.process.stderr)
            wait_until(self._attached, ATTACH_WITHIN_S, 0.002)
            wait_until(lambda: receiver.spans() > before, ARRIVE_WITHIN_S, 0.005)
            self.first_span_s = time.monotonic() - self._running.started
        line = self._lines.first("attached")
        if line is None:
            raise SystemExit(f"the agent didn't attach:\n{self._lines.text()}")
        self.attached_s = line[0] - self._running.started
        self.pid = self._running.pid
        time.sleep(SETTLE_S)
        self._requests, self._spans = server.requests, receiver.spans()
        self._memory = memory_mib(self.pid)

    def _attached(self) -> bool:
        return self._lines.first("attached") is not None or self._running.process.poll() is not None

    @property
    def cpu_ns(self) -> int:
        """CPU time in ns so far."""
        return cpu_ns(self.pid)

    def counts(self) -> tuple[int, int]:
        """Return the requests that the target counted since the start, and the spans that came; waits for the last."""
        wait_until(lambda: self._counts()[0] <= self._counts()[1], ARRIVE_WITHIN_S, 0.05)
        return self._counts()

    def _counts(self) -> tuple[int, int]:
        return self._server.requests - self._requests, self._receiver.spans() - self._spans

    def program_costs(self, load: Load, seconds: float) -> dict[str, dict[str, float]]:
        """Return by BPF program how often it runs a request, and the ns it takes each time."""
        links = {int(path.name): str(path.readlink()) for path in Path(f"/proc/{self.pid}/fd").iterdir()}
        descriptors = [number for number, link in links.items() if link == "anon_inode:bpf-prog"]
        with kernel.load(probes.unit(kernel.bpf_folder()), cache_dir=config.cache_dir()) as program:
            names = {tag("self", descriptor): name for name, descriptor in program.descriptors.items()}
        by_name = {names[tag(self.pid, descriptor)]: descriptor for descriptor in descriptors}
        with program_statistics():
            before = {name: runs(self.pid, descriptor) for name, descriptor in by_name.items()}
            requests = load.run(self._server, seconds)["requests"]
            after = {name: runs(self.pid, descriptor) for name, descriptor in by_name.items()}
        costs = {}
        for name in sorted(by_name):
            count, ns = (now - then for now, then in zip(after[name], before[name], strict=True))
            if count / requests >= 0.01:
                costs[name] = {"runs_a_request": round(count / requests, 3), "ns_a_run": round(ns / count)}
        return costs

    def stop(self) -> dict[str, Any]:
        """End it; return what it came to."""
        memory = memory_mib(self.pid)
        requests, spans = self.counts()
        code = self._running.stop(signal.SIGINT)
        if code:
            raise SystemExit(f"the agent ended with {code}:\n{self._lines.text()}")
        summary = json.loads(Path(self._summary.name).read_text())
        return {
            "attached_s": round(self.attached_s, 3),
            "first_span_s": round(self.first_span_s, 3),
            "requests": requests,
            "spans_received": spans,
            "started": summary["started"],
            "exported": summary["exported"],
            "dropped": summary["dropped"],
            "rss_mib_before_load": self._memory,
            "rss_mib": memory,
        }


@contextlib.contextmanager
def agent(server: Server, receiver: Receiver) -> Iterator[Agent]:
    """Run the agent until the block ends; `Agent.stop` may end it before."""
    running = Agent(server, receiver)
    try:
        yield running
    finally:
        running._running.stop()  # noqa: SLF001 - of the class above
