"""What is tried, and what each of it must come to: the rows of docs/propagation.md, in their order.

Read by `run`, `page` and tests/e2e/test_propagation.py. The names are those of tests/go/propagation/front.go, except
where one way of calling is tried under several circumstances.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row."""

    name: str
    what: str
    """How the call leaves the handler, for a reader of the table."""
    way: str = ""
    """Scenario of the Go program; the same as `name` if empty."""
    right: bool = True
    """Whether parents of calls have to be found; none is what is expected otherwise."""
    wrong_by_worker: int = 0
    """Wrong parents that are accepted of one goroutine of a pool."""
    tls: bool = False
    ipv6: bool = False
    two_agents: bool = False
    lineage: bool = False
    """With ``--lineage``."""
    linked: bool = False
    """With ``--span-links``: calls without a parent have to be linked to the requests that they are for."""
    traceparent: bool = False
    """Whether the client sends one."""

    @property
    def front(self) -> str:
        """The Go program's word for how it calls."""
        return self.way or self.name


SCENARIOS = (
    Scenario("context", "the handler's context, handed on"),
    Scenario("fan-out", "three goroutines with the handler's context"),
    Scenario("two-levels", "a goroutine's goroutine with the handler's context"),
    Scenario("pool", "a worker pool started in `main`, the context in the job"),
    Scenario("wrapped", "a context wrapped 12 times: values, timeout, cancellation, one of the program's own"),
    Scenario("background", "`context.Background()` in the handler"),
    Scenario("background-fan-out", "`context.Background()` in three goroutines that the handler starts"),
    Scenario(
        "background-fan-out-waited",
        "the same, after the handler has waited, so that it may be on another thread by then",
    ),
    Scenario("churn", "the handler's context, two idle connections for 16 callers"),
    Scenario("close", "the handler's context, a connection a call"),
    Scenario("one-connection", "the handler's context, all calls on one connection"),
    Scenario("tls", "the handler's context, over TLS", way="context", tls=True),
    Scenario("ipv6", "the handler's context, over IPv6", way="context", ipv6=True),
    Scenario("two-agents", "the handler's context, an agent for each service", way="context", two_agents=True),
    Scenario("copied-headers", "a handler that copies the incoming headers, as proxies do", traceparent=True),
    Scenario("panic", "the handler's context; then the handler panics"),
    Scenario(
        "background-two-levels-lineage",
        "`context.Background()` in a goroutine's goroutine, with `--lineage`",
        way="background-two-levels",
        lineage=True,
    ),
    Scenario("background-two-levels", "`context.Background()` in a goroutine's goroutine", right=False),
    Scenario("background-pool", "`context.Background()` in a worker pool started in `main`", right=False),
    Scenario(
        "background-lazy-pool",
        "`context.Background()` in a worker pool that requests start",
        right=False,
        wrong_by_worker=1,
    ),
    Scenario(
        "background-pool-linked",
        "the pool started in `main`, with `--span-links`",
        way="background-pool",
        right=False,
        linked=True,
    ),
    Scenario(
        "background-pool-twice-linked",
        "the same; two calls for each job",
        way="background-pool-twice",
        right=False,
        linked=True,
    ),
    Scenario(
        "background-buffered-pool-linked",
        "the same; a channel with room for three jobs",
        way="background-buffered-pool",
        right=False,
        linked=True,
    ),
    Scenario(
        "background-select-pool-linked",
        "the same; jobs sent and received in a `select`, and calls for no request, right without a parent",
        way="background-select-pool",
        right=False,
        linked=True,
    ),
    Scenario(
        "background-batches-linked",
        "the same; a call for up to four requests' jobs at once",
        way="background-batches",
        right=False,
        linked=True,
    ),
    Scenario(
        "background-lazy-pool-linked",
        "`context.Background()` in a worker pool that requests start, with `--span-links`",
        way="background-lazy-pool",
        right=False,
        linked=True,
    ),
    Scenario("late-context", "the handler's context, after the handler has returned", right=False),
    Scenario("late-background", "`context.Background()`, after the handler has returned", right=False),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
