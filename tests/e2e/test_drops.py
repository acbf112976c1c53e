"""A span that isn't exported is counted with its reason, and the counts add up; each counter is forced once."""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness import expect
from harness.agent import Agent
from harness.client import Request, ask, at_once, in_turn, one_after_another, page
from harness.receiver import Receiver, free_port
from harness.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

MANY = 10_000
NOWHERE = "http://127.0.0.1"


@pytest.fixture
def server() -> Iterator[Target]:
    """Give a server whose routes are on a plain ServeMux."""
    with Target(go_binary("http_server")) as target:
        yield target


class Blocked:
    """Requests that the server holds until it is told to let them go.

    Attributes:
        others: requests that this has sent besides those.
    """

    def __init__(self, port: int) -> None:
        self.others = 0
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self._readers: list[asyncio.StreamReader] = []

    async def hold(self, count: int) -> None:
        """Send `count` requests and wait until the server has them all."""
        request = Request("/block").encode(close=True, host=f"127.0.0.1:{self._port}")
        for begin in range(0, count, 200):
            opening = (asyncio.open_connection("127.0.0.1", self._port) for _ in range(begin, min(begin + 200, count)))
            for reader, writer in await asyncio.gather(*opening):
                self._readers.append(reader)
                self._writers.append(writer)
                writer.write(request)
        await asyncio.to_thread(self._wait_blocked, count)

    def _wait_blocked(self, count: int) -> None:
        until = time.monotonic() + 30
        while True:
            self.others += 1
            if (blocked := int(ask(self._port, "/blocked").body)) >= count:
                return
            if time.monotonic() > until:
                raise TimeoutError(f"{blocked} of {count} requests are held")
            time.sleep(0.05)

    async def release(self) -> list[bytes]:
        """Let them go and return the first line of each answer."""
        self.others += 1
        await asyncio.to_thread(ask, self._port, "/release")
        async with asyncio.timeout(60):
            answers = [(await reader.read()).partition(b"\r\n")[0] for reader in self._readers]
        self.drop()
        return answers

    def drop(self) -> None:
        """Close the connections."""
        for writer in self._writers:
            writer.close()


def test_in_flight_full(server: Target, receiver: Receiver) -> None:
    """Of ten requests at once four are followed; the others are counted, and later ones are traced again."""

    async def hold_ten() -> int:
        blocked = Blocked(server.port)
        await blocked.hold(10)
        await blocked.release()
        return blocked.others

    with Agent("--pid", str(server.pid), "--max-in-flight", "4", environment=receiver.environment) as agent:
        agent.attached()
        requests = 10 + asyncio.run(hold_ten()) + 1
        assert ask(server.port, "/ok").status == 200
        server.wait_log(requests)
        outcome = agent.stop()
    assert outcome.started == requests
    assert list(outcome.dropped) == ["in_flight_full"]
    assert outcome.dropped["in_flight_full"] >= 6
    assert outcome.balanced
    assert outcome.exported == len(receiver.spans)
    assert 1 <= sum(span.name == "GET /block" for span in receiver.spans) <= 4
    assert receiver.spans[-1].name == "GET /ok"


def test_ring_full(server: Target, receiver: Receiver) -> None:
    """Records that find no room while the agent stands still are counted; those that found it arrive."""
    with Agent("--pid", str(server.pid), "--ring-size", "4KiB", environment=receiver.environment) as agent:
        agent.attached()
        agent.signal(signal.SIGSTOP)
        one_after_another(server.port, [page("/ok")] * 101)
        agent.signal(signal.SIGCONT)
        outcome = agent.stop()
    assert outcome.started == 101
    assert outcome.balanced
    assert list(outcome.dropped) == ["ring_full"]
    assert 10 <= outcome.exported == len(receiver.spans) < 50


def test_export_refused(server: Target, receiver: Receiver) -> None:
    """What a collector refuses for good is counted as such."""
    receiver.status = 400
    with Agent("--pid", str(server.pid), environment=receiver.environment) as agent:
        agent.attached()
        one_after_another(server.port, in_turn(23))
        outcome = agent.stop()
    assert (outcome.started, outcome.exported, outcome.dropped) == (23, 0, {"export_failed": 23})
    assert "400" in outcome.stderr


def test_rejected_by_collector(server: Target, receiver: Receiver) -> None:
    """What a collector takes only in part is counted as it says."""
    receiver.rejects = 3
    with Agent(
        "--pid", str(server.pid), environment={**receiver.environment, "OTEL_BSP_SCHEDULE_DELAY": "2000"}
    ) as agent:
        agent.attached()
        one_after_another(server.port, in_turn(23))
        outcome = agent.stop()
    rejected = 3 * receiver.exports
    assert (outcome.started, outcome.exported) == (23, 23 - rejected)
    assert outcome.dropped == {"rejected_by_collector": rejected}
    assert "not these" in outcome.stderr


def test_console_closed(server: Target) -> None:
    """``--exporter console | head`` ends the agent; what nobody reads is counted."""
    head = ["sh", "-c", '"$@" | head -n 2', "sh"]
    with Agent("--pid", str(server.pid), "--exporter", "console", environment={}, prefix=head) as agent:
        agent.attached()
        one_after_another(server.port, [page("/ok")])
        agent.stdout.wait_for("GET /ok")
        one_after_another(server.port, in_turn(22))
        outcome = agent.wait()
    assert outcome.started == 23
    assert outcome.balanced
    assert list(outcome.dropped) == ["console_closed"]


def test_collector_away(server: Target) -> None:
    """With no collector at all the agent works on, says it once, and ends within 5 s with everything counted."""
    with Agent(
        "--pid", str(server.pid), environment={"OTEL_EXPORTER_OTLP_ENDPOINT": f"{NOWHERE}:{free_port()}"}
    ) as agent:
        agent.attached()
        one_after_another(server.port, in_turn(23))
        time.sleep(0.5)
        before = time.monotonic()
        outcome = agent.stop()
        took_s = time.monotonic() - before
    assert took_s < 5
    assert (outcome.code, outcome.started, outcome.exported) == (0, 23, 0)
    assert outcome.balanced
    assert set(outcome.dropped) <= {"export_failed", "shutdown"}


def test_collector_that_does_not_answer(server: Target, receiver: Receiver) -> None:
    """A collector that takes the bytes and never answers doesn't hold up the agent's end; the queue is counted."""
    receiver.go_on.clear()
    with Agent("--pid", str(server.pid), environment=receiver.environment) as agent:
        agent.attached()
        one_after_another(server.port, in_turn(23))
        while not receiver.asked:
            time.sleep(0.05)
        one_after_another(server.port, in_turn(23))
        before = time.monotonic()
        outcome = agent.stop()
        took_s = time.monotonic() - before
    assert took_s < 5
    assert (outcome.started, outcome.exported) == (46, 0)
    assert outcome.balanced
    assert set(outcome.dropped) == {"export_failed", "shutdown"}


def test_collector_comes_back(server: Target) -> None:
    """Spans wait for a collector that starts later."""
    port = free_port()
    with Agent("--pid", str(server.pid), environment={"OTEL_EXPORTER_OTLP_ENDPOINT": f"{NOWHERE}:{port}"}) as agent:
        agent.attached()
        requests = in_turn(23)
        one_after_another(server.port, requests)
        time.sleep(0.5)
        with Receiver(port) as receiver:
            spans = receiver.wait_for(23)
            outcome = agent.stop()
    expect.spans_match(spans, server.log(), requests)
    assert (outcome.started, outcome.exported, outcome.dropped) == (23, 23, {})


def test_export_queue_full(server: Target, receiver: Receiver) -> None:
    """A queue that is bounded drops what doesn't fit, counts it, and the drain goes on."""
    receiver.go_on.clear()
    with Agent(
        "--pid", str(server.pid), environment={**receiver.environment, "OTEL_BSP_MAX_QUEUE_SIZE": "20"}
    ) as agent:
        agent.attached()
        for _ in range(10):
            one_after_another(server.port, [page("/ok")] * 10)
            time.sleep(0.15)
        receiver.go_on.set()
        outcome = agent.stop()
    assert outcome.started == 100
    assert outcome.balanced
    assert list(outcome.dropped) == ["export_queue_full"]
    assert outcome.dropped["export_queue_full"] >= 50
    assert outcome.exported == len(receiver.spans) >= 10


def test_unfinished(server: Target, receiver: Receiver) -> None:
    """Requests that are still in their handlers when the agent ends are counted."""

    async def hold_three() -> int:
        blocked = Blocked(server.port)
        await blocked.hold(3)
        return blocked.others

    with Agent("--pid", str(server.pid), environment=receiver.environment) as agent:
        agent.attached()
        others = asyncio.run(hold_three())
        server.wait_log(others)
        outcome = agent.stop()
    assert outcome.started == others + 3
    assert outcome.exported == others
    assert outcome.dropped == {"unfinished": 3}


def test_excluded_route(server: Target, receiver: Receiver) -> None:
    """Spans that the user doesn't want are counted too; a path without a route can be excluded as well."""
    requests = in_turn(23)
    with Agent(
        "--pid", str(server.pid), "--exclude-route", "/empt*", "--exclude-route", "/nowhere",
        environment=receiver.environment,
    ) as agent:  # fmt: skip
        agent.attached()
        one_after_another(server.port, requests)
        outcome = agent.stop()
    unwanted = sum(request.target in {"/empty", "/nowhere"} for request in requests)
    assert (outcome.started, outcome.exported, outcome.dropped) == (23, 23 - unwanted, {"excluded_route": unwanted})
    assert not {span.attributes["url.path"] for span in receiver.spans} & {"/empty", "/nowhere"}


def test_what_was_in_flight_before_is_no_span(server: Target, receiver: Receiver) -> None:
    """Requests whose start nobody saw are neither invented nor counted."""

    async def straddle() -> None:
        blocked = Blocked(server.port)
        await blocked.hold(5)
        server.wait_log(blocked.others)
        with Agent("--pid", str(server.pid), environment=receiver.environment) as agent:
            await asyncio.to_thread(agent.attached)
            assert len(await blocked.release()) == 5
            await asyncio.to_thread(at_once, server.port, [page("/ok")] * 7)
            server.wait_log(blocked.others + 5 + 7)
            outcome = await asyncio.to_thread(agent.stop)
        assert (outcome.started, outcome.exported, outcome.dropped) == (8, 8, {})

    asyncio.run(straddle())
    assert not [span for span in receiver.spans if span.name == "GET /block"]


@pytest.mark.timeout(180)
def test_10_000_requests_in_flight(server: Target, receiver: Receiver) -> None:
    """None is lost with the default limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY + 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))

    async def hold_many() -> tuple[list[bytes], int]:
        blocked = Blocked(server.port)
        await blocked.hold(MANY)
        return await blocked.release(), blocked.others

    with Agent("--pid", str(server.pid), environment=receiver.environment) as agent:
        agent.attached()
        answers, others = asyncio.run(hold_many())
        log = server.wait_log(MANY + others)
        outcome = agent.stop()
    assert set(answers) == {b"HTTP/1.1 200 OK"}
    assert (outcome.started, outcome.exported, outcome.dropped) == (len(log), len(log), {})
    blocked_spans = [span for span in receiver.spans if span.name == "GET /block"]
    assert len(blocked_spans) == MANY
    expect.well_formed(receiver.spans)
    assert {(span.attributes["network.peer.port"], span.name) for span in receiver.spans} == {
        (int(line.remote.rpartition(":")[2]), f"GET {line.path}") for line in log
    }
