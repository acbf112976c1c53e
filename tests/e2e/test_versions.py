"""Every supported release of Go, plain and stripped: 23 requests, 23 spans (`make test-versions`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from goprograms import go_binary
from harness import expect
from harness.agent import Agent
from harness.client import at_once, in_turn, one_after_another
from harness.target import Target

if TYPE_CHECKING:
    from pathlib import Path

    from harness.receiver import Receiver

pytestmark = [pytest.mark.root, pytest.mark.versions, pytest.mark.timeout(600)]

RELEASES = ("1.21", "1.22", "1.23", "1.24", "1.25", "1.26", "1.27")
ARRANGEMENTS = ("plain", "context", "timeout", "inside")


@pytest.mark.parametrize("strip", [False, True], ids=["plain", "stripped"])
@pytest.mark.parametrize("release", RELEASES)
def test_23_requests_are_23_spans(release: str, *, strip: bool, receiver: Receiver) -> None:
    """One after another and at once, all attributes, routes behind copies of the request."""
    traced(go_binary("http_server", go=release, strip=strip), receiver)


@pytest.mark.parametrize(
    "ways", [{"pie": True, "strip": True}, {"cgo": True}, {"race": True}, {"gcflags": "all=-N -l"}]
)
def test_other_ways_to_build(ways: dict[str, Any], receiver: Receiver) -> None:
    """Position-independent, with the C linker, with the race detector, without optimisation."""
    traced(go_binary("http_server", **ways), receiver)


def traced(exe: Path, receiver: Receiver) -> None:
    """Check 46 requests in each arrangement of routes.

    Raises:
        AssertionError: a span is missing, wrong, or too many.
    """
    requests = in_turn(23)
    for arrangement in ARRANGEMENTS:
        before = len(receiver.spans)
        with Target(exe, "-mux", arrangement) as server:
            with Agent("--service", "shop", "--pid", str(server.pid), environment=receiver.environment) as agent:
                agent.attached()
                one_after_another(server.port, requests)
                at_once(server.port, requests)
                log = server.wait_log(46)
                outcome = agent.stop()
            expect.spans_match(receiver.spans[before:], log, requests, timing=arrangement == "plain")
            assert (outcome.started, outcome.exported, outcome.dropped) == (46, 46, {})
