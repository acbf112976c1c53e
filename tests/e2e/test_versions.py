"""Every supported release of Go, plain and stripped: 23 requests, 23 spans (`make test-versions`)."""

from __future__ import annotations

import pytest
from goprograms import go_binary
from harness import expect
from harness.agent import Agent
from harness.client import at_once, in_turn, one_after_another
from harness.receiver import Receiver
from harness.target import Target

pytestmark = [pytest.mark.root, pytest.mark.versions, pytest.mark.timeout(600)]

RELEASES = ("1.21", "1.22", "1.23", "1.24", "1.25", "1.26", "1.27")
ARRANGEMENTS = ("plain", "context", "timeout", "inside")


@pytest.mark.parametrize("strip", [False, True], ids=["plain", "stripped"])
@pytest.mark.parametrize("release", RELEASES)
def test_23_requests_are_23_spans(release: str, *, strip: bool, receiver: Receiver) -> None:
    """One after another and at once, all attributes, routes behind copies of the request."""
    exe = go_binary("http_server", go=release, strip=strip)
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
