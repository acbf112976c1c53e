"""Requests that a server sends while it answers one belong to that one's span, or to none; never to another's.

The target (tests/go/http_client/parents.go) sends with each request the id of the one that it was sent for.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.client import Connection, Request
from harness.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from harness.agent import Outcome
    from harness.receiver import Receiver, Span

pytestmark = pytest.mark.root

SERVER, CLIENT = 2, 3
"""OTLP's SPAN_KIND_SERVER and SPAN_KIND_CLIENT."""
CONNECTIONS, REQUESTS = 4, 23

BUILDS = {
    "machine": lambda: go_binary("http_client"),
    "1.21-stripped": lambda: go_binary("http_client", go="1.21", strip=True),
}

RIGHT = {
    "ctx": 1,
    "background": 1,
    "fan-out": 3,
    "fan-out-background": 3,
    "many-background": 40,
    "two-levels": 1,
    "pool": 1,
    "wrapped": 1,
    "nothing": 0,
}
"""Page -> requests that it sends, each for the one that is answered."""
NONE = ("two-levels-background", "pool-background", "afterwards")
"""Pages whose requests nothing tells the reason of."""
WORKERS = 4
"""Of the pool that the first request starts."""


@pytest.fixture(params=["machine", pytest.param("1.21-stripped", marks=pytest.mark.slow)])
def exe(request: pytest.FixtureRequest) -> Path:
    """Give today's Go as it builds by default, and the oldest that tells who started a goroutine, stripped."""
    return BUILDS[request.param]()


@pytest.fixture
def origin() -> Iterator[Target]:
    """Give a server that nobody traces."""
    with Target(go_binary("http_server"), "-quiet") as target:
        yield target


def ask_all(port: int, pages: Sequence[str], answered: int = 200, more: str = "") -> None:
    """Ask for each page REQUESTS times on each of CONNECTIONS connections at once, each time with an id of its own."""
    failures: list[str] = []

    def ask(number: int) -> None:
        connection = Connection(port)
        for page in pages:
            for i in range(REQUESTS):
                answer = connection.ask(Request(f"/{page}?id={page}-{number}-{i}{more}"))
                if answer.status != answered:
                    failures.append(f"{page}: {answer.status}")
                if not answered:
                    connection = Connection(port)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def judged(spans: Sequence[Span]) -> dict[str, Counter[str]]:
    """Return for each page how many of the requests that it sent have the right parent, none, or a wrong one."""
    servers = {str(span.attributes["url.query"]).split("&")[0][3:]: span for span in spans if span.kind == SERVER}
    found: dict[str, Counter[str]] = {}
    for span in spans:
        if span.kind == CLIENT:
            of = parse_qs(urlsplit(str(span.attributes["url.full"])).query)["id"][0]
            server = servers[of]
            verdict = "wrong"
            if not span.parent_span_id:
                verdict = "none"
            elif (span.parent_span_id, span.trace_id) == (server.span_id, server.trace_id):
                verdict = "right"
                assert server.start <= span.start
            found.setdefault(of.rpartition("-")[0].rpartition("-")[0], Counter())[verdict] += 1
    return found


def answered(
    exe: Path, origin: Target, receiver: Receiver, pages: Sequence[str], *flags: str, status: int = 200, more: str = ""
) -> Outcome:
    """Have the pages answered under an agent, the requests that they cause not yet all sent when it returns."""
    with (
        Target(exe, "-origin", f"http://127.0.0.1:{origin.port}") as target,
        Agent("--pid", str(target.pid), "--url-query", *flags, environment=receiver.environment) as agent,
    ):
        agent.attached()
        ask_all(target.port, pages, status, more)
        sent = sum(RIGHT.get(page, 1) for page in pages) * CONNECTIONS * REQUESTS
        if more == "" and "--sample" not in flags:
            receiver.wait_for(sent + len(pages) * CONNECTIONS * REQUESTS)
        outcome = agent.stop()
    assert outcome.balanced
    return outcome


def test_each_request_has_its_own_parent(exe: Path, origin: Target, receiver: Receiver) -> None:
    """By context through 12 wrappers, by goroutine, by the goroutine that started it; over a pool with a context."""
    outcome = answered(exe, origin, receiver, list(RIGHT))
    each = CONNECTIONS * REQUESTS
    found = judged(receiver.spans)
    assert not any(verdicts["wrong"] for verdicts in found.values())
    assert found == {page: Counter(right=sent * each) for page, sent in RIGHT.items() if sent}
    assert outcome.dropped == {}


def test_none_is_better_than_a_wrong_one(exe: Path, origin: Target, receiver: Receiver) -> None:
    """Workers that take jobs without a context, goroutines of goroutines, and what goes on after the answer."""
    answered(exe, origin, receiver, NONE)
    assert judged(receiver.spans) == {page: Counter(none=CONNECTIONS * REQUESTS) for page in NONE}


def test_workers_that_a_request_starts_are_its_own_only_while_it_lasts(
    exe: Path, origin: Target, receiver: Receiver
) -> None:
    """At most one wrong parent for each worker."""
    answered(exe, origin, receiver, ["lazy-pool-background"])
    assert judged(receiver.spans)["lazy-pool-background"]["wrong"] <= WORKERS


def test_lineage_finds_parents_over_several_goroutines(exe: Path, origin: Target, receiver: Receiver) -> None:
    """With --lineage two levels down, too; a pool's workers, started in main, still have none."""
    pages = ["two-levels-background", "fan-out-background", "pool-background"]
    answered(exe, origin, receiver, pages, "--lineage")
    each = CONNECTIONS * REQUESTS
    assert judged(receiver.spans) == {
        "two-levels-background": Counter(right=each),
        "fan-out-background": Counter(right=3 * each),
        "pool-background": Counter(none=each),
    }


def test_panics_and_hijacked_connections_leave_nothing_behind(exe: Path, origin: Target, receiver: Receiver) -> None:
    """Handlers that end otherwise are parents all the same, and nothing is in flight afterwards."""
    for more, status in (("&panic=1", 0), ("&drop=1", 0)):
        outcome = answered(exe, origin, receiver, ["ctx", "background"], status=status, more=more)
        assert outcome.dropped == {}
        assert outcome.exported == 4 * CONNECTIONS * REQUESTS
    each = 2 * CONNECTIONS * REQUESTS
    assert {page: sum(verdicts.values()) for page, verdicts in judged(receiver.spans).items()} == {
        "ctx": each,
        "background": each,
    }
    outcome = answered(exe, origin, receiver, ["panic-inside"])
    assert outcome.dropped == {}


def test_children_follow_their_parents_decision(exe: Path, origin: Target, receiver: Receiver) -> None:
    """Unsampled: not a record; what failed is kept late, and with it the request that it was sent for."""
    each = CONNECTIONS * REQUESTS
    outcome = answered(exe, origin, receiver, ["ctx", "background"], "--sample", "0")
    assert (outcome.exported, outcome.dropped) == (0, {"sampled_out": 4 * each})
    pages = ["failing", "ctx"]
    outcome = answered(exe, origin, receiver, pages, "--sample", "0", "--always-sample", "errors")
    assert (outcome.exported, outcome.dropped) == (2 * each, {"sampled_out": 2 * each})
    assert judged(receiver.spans) == {"failing": Counter(right=each)}
    assert all(span.attributes["goprobe.sampled.late"] and not span.flags & 1 for span in receiver.spans)
