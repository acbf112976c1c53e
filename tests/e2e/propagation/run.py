"""A scenario -> its services, one agent or two, a client's requests, and the verdict on every span.

Called by tests/e2e/test_propagation.py, and by hand:

    PYTHONPATH=tests:tests/e2e python -m propagation.run [--requests N] [--go 1.21] [SCENARIO...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from goprograms import go_binary
from harness.agent import Agent
from harness.target import Target

from propagation.scenarios import BY_NAME, SCENARIOS, Scenario
from propagation.truth import Judgement, Links, Verdict, judge, read_log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.agent import Outcome

REQUESTS = 10_007
CONCURRENCY = 16
RING_SIZE = 64 * 2**20
"""A minute's spans: a scenario isn't about drops, which have tests of their own."""
LATE_S = 0.3
"""After the last answer, for calls that go on after it."""
LEAST_RIGHT = 0.999


class Result(msgspec.Struct, frozen=True):
    """One scenario, run once."""

    scenario: str
    requests: int
    concurrency: int
    seconds: float
    """Of the client, from its first request to its last answer."""
    dropped: dict[str, int]
    """Of all agents."""
    verdict: Verdict

    def failures(self) -> list[str]:
        """Return what breaks the limits of the scenario, a sentence each."""
        scenario, verdict = BY_NAME[self.scenario], self.verdict
        found = [
            f"{judged.right} of {judged.expected} spans {where} are right ({judged})"
            for where, judged, needed in (
                ("at the front", verdict.front, True),
                ("of calls", verdict.client, scenario.right),
                ("by their links", verdict.links, scenario.linked),
                ("at the back", verdict.back, True),
            )
            if needed and judged.right < LEAST_RIGHT * judged.expected
        ]
        found += [
            f"{judged.wrong} spans {where} are wrong, such as {'; '.join(judged.examples)}"
            for where, judged in (
                ("at the front", verdict.front),
                ("by their links", verdict.links),
                ("at the back", verdict.back),
            )
            if judged.wrong
        ]
        found += [
            f"{wrong} calls of {f'worker {worker}' if worker else 'goroutines of no pool'} are wrong, such as "
            f"{'; '.join(verdict.client.examples)}"
            for worker, wrong in verdict.wrong_by_worker.items()
            if wrong > (scenario.wrong_by_worker if worker else 0)
        ]
        missing = verdict.front.missing + verdict.client.missing + verdict.back.missing
        if missing:
            found.append(f"{missing} spans are missing or have lost their parent's; dropped: {self.dropped}")
        if verdict.front.expected != self.requests:
            found.append(f"the front has served {verdict.front.expected} of {self.requests} requests")
        if verdict.extra:
            found.append(f"{verdict.extra} spans are beyond those of the requests and calls")
        if verdict.unanswered:
            found.append(f"{verdict.unanswered} calls failed")
        return found


def run(scenario: Scenario, *, requests: int = REQUESTS, concurrency: int = CONCURRENCY, go: str = "") -> Result:
    """Run one scenario and judge its spans.

    Args:
        scenario: what is tried.
        requests: that the client sends.
        concurrency: of these, at once.
        go: release that the services are built with; the machine's own if empty.
    """
    exe = go_binary("propagation", go=go)
    with ExitStack() as stack:
        logs = [Path(stack.enter_context(tempfile.TemporaryDirectory())) / name for name in ("front", "back")]
        listen = ["-listen", "[::1]:0"] if scenario.ipv6 else []
        back = stack.enter_context(Target(exe, *listen, "-log", str(logs[1]), f"-tls={str(scenario.tls).lower()}"))
        to = f"{'https' if scenario.tls else 'http'}://{'[::1]' if scenario.ipv6 else '127.0.0.1'}:{back.port}"
        front = stack.enter_context(Target(exe, "-log", str(logs[0]), "-to", to, "-scenario", scenario.front))
        receiver = stack.enter_context(Links())
        agents = [
            stack.enter_context(_agent(scenario, receiver, watched)) for watched in _shared_out(scenario, front, back)
        ]
        for agent, count in zip(agents, (1, 1) if scenario.two_agents else (2,), strict=True):
            agent.attached(count)
        seconds = _load(exe, front.port, scenario, requests, concurrency)
        time.sleep(LATE_S)
        outcomes: list[Outcome] = [agent.stop(timeout_s=60) for agent in agents]
        front.stop()
        back.stop()
        verdict = judge(*map(read_log, logs), receiver.links(), traceparent=scenario.traceparent)
    dropped: dict[str, int] = {}
    for outcome in outcomes:
        for reason, count in outcome.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    return Result(scenario.name, requests, concurrency, seconds, dropped, verdict)


def _shared_out(scenario: Scenario, front: Target, back: Target) -> list[dict[str, int]]:
    """Return what each agent watches: service name -> pid."""
    if scenario.two_agents:
        return [{"front": front.pid}, {"back": back.pid}]
    return [{"front": front.pid, "back": back.pid}]


def _agent(scenario: Scenario, receiver: Links, watched: dict[str, int]) -> Agent:
    arguments = ["--ring-size", str(RING_SIZE), *["--lineage"] * scenario.lineage]
    arguments += ["--span-links"] * scenario.linked
    for service, pid in watched.items():
        arguments += ["--service", f"{service}=pid:{pid}"]
    return Agent(*arguments, environment=receiver.environment)


def _load(exe: Path, port: int, scenario: Scenario, requests: int, concurrency: int) -> float:
    command = [str(exe), "-load", f"http://127.0.0.1:{port}", "-requests", str(requests)]
    command += ["-concurrency", str(concurrency), *["-traceparent"] * scenario.traceparent]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return float(json.loads(done.stdout)["seconds"])


def shown(result: Result) -> str:
    """Return a line for a terminal, under `HEAD`."""

    def cell(judged: Judgement) -> str:
        return f"{judged!s:>26}"

    verdict = result.verdict
    cells = f"{cell(verdict.front)}{cell(verdict.client)}{cell(verdict.links)}{cell(verdict.back)}"
    return f"{result.scenario:30}{result.requests:>8}{cells}{result.requests / result.seconds:>8.0f}/s"


HEAD = f"{'scenario':30}{'requests':>8}{'front: right/none/wrong':>26}{'calls':>26}{'links':>26}{'back':>26}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run scenarios by hand and end with 1 if one of them breaks its limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="*", help=", ".join(BY_NAME))
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--concurrency", type=int, default=CONCURRENCY)
    parser.add_argument("--go", default="", help="release that the services are built with")
    options = parser.parse_args(arguments)
    chosen = [BY_NAME[name] for name in options.scenario] or SCENARIOS
    failed = False
    print(HEAD)
    for scenario in chosen:
        result = run(scenario, requests=options.requests, concurrency=options.concurrency, go=options.go)
        print(shown(result), flush=True)
        for failure in result.failures():
            failed = True
            print(f"    {failure}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
