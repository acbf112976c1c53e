"""A span that isn't exported is counted with its reason, and the counts add up; each counter is forced once."""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from collections.abc import Iterator

import pytest
from goprograms import go_binary
from harness import expect
from harness.agent import Agent
from harness.client import Request, ask, at_once, in_turn, one_after_another, page
from harness.receiver import Receiver, free_port
from harness.target import Target

pytestmark = pytest.mark.root

MANY = 10_000
NOWHERE = "http://127.0.0.1"


@pytest.fixture
def server() -> Iterator[Target]:
    """Give a server whose routes are on a plain ServeMux."""
    with Target(go_binary("http_server")) as target:
        yield target


class Blocked:
    """Requests that the server holds until it is told to let them go; a context manager that ends what is left."""

    def __init__(self, port: int) -> None:
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
        async with asyncio.timeout(30):
            while await asyncio.to_thread(self._blocked) < count:
                await asyncio.sleep(0.05)

    def _blocked(self) -> int:
        return int(ask(self._port, "/blocked").body)

    async def release(self) -> list[bytes]:
        """Let them go and return the first line of each answer."""
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

    async def hold_ten() -> None:
        blocked = Blocked(server.port)
        await blocked.hold(10)
        await blocked.release()

    with Agent("--pid", str(server.pid), "--max-in-flight", "4", environment=receiver.environment) as agent:
        agent.attached()
        asyncio.run(hold_ten())
        assert ask(server.port, "/ok").status == 200
        requests = len(server.wait_log(12))
        outcome = agent.stop()
    assert outcome.started == requests
    assert outcome.dropped == {"in_flight_full": requests - 5}
    assert outcome.exported == 5 == len(receiver.spans)
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
    """A collector that takes the bytes and never answers doesn't hold the agent's end up."""
    receiver.go_on.clear()
    with Agent("--pid", str(server.pid), environment=receiver.environment) as agent:
        agent.attached()
        one_after_another(server.port, in_turn(23))
        before = time.monotonic()
        outcome = agent.stop()
        took_s = time.monotonic() - before
    assert took_s < 5
    assert outcome.started == 23
    assert outcome.balanced


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
    """Requests that are still in their handlers when the agent ends are counted, and so are those of a killed target."""

    async def hold_three() -> Blocked:
        blocked = Blocked(server.port)
        await blocked.hold(3)
        return blocked

    with Agent("--pid", str(server.pid), environment=receiver.environment) as agent:
        agent.attached()
        asyncio.run(hold_three())
        asked = len(server.log())
        outcome = agent.stop()
    assert outcome.started == asked + 3
    assert outcome.exported == asked
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
        before = len(server.log())
        with Agent("--pid", str(server.pid), environment=receiver.environment) as agent:
            await asyncio.to_thread(agent.attached)
            assert len(await blocked.release()) == 5
            await asyncio.to_thread(at_once, server.port, [page("/ok")] * 7)
            seen = len(server.wait_log(before + 5 + 8)) - before - 5
            outcome = await asyncio.to_thread(agent.stop)
        assert (outcome.started, outcome.exported, outcome.dropped) == (seen, seen, {})

    asyncio.run(straddle())
    assert not [span for span in receiver.spans if span.name == "GET /block"]


@pytest.mark.timeout(180)
def test_10_000_requests_in_flight(server: Target, receiver: Receiver) -> None:
    """None is lost with the default limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY + 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))

    async def hold_many() -> list[bytes]:
        blocked = Blocked(server.port)
        await blocked.hold(MANY)
        return await blocked.release()

    with Agent("--pid", str(server.pid), environment=receiver.environment) as agent:
        agent.attached()
        answers = asyncio.run(hold_many())
        log = server.wait_log(MANY + 1)
        outcome = agent.stop()
    assert set(answers) == {b"HTTP/1.1 200 OK"}
    log = server.log()
    assert (outcome.started, outcome.exported, outcome.dropped) == (len(log), len(log), {})
    blocked_spans = [span for span in receiver.spans if span.name == "GET /block"]
    assert len(blocked_spans) == MANY
    expect.well_formed(receiver.spans)
    assert {(span.attributes["network.peer.port"], span.name) for span in receiver.spans} == {
        (int(line.remote.rpartition(":")[2]), f"GET {line.path}") for line in log
    }
