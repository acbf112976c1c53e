"""A router's program of `make test-libraries`, in its newest version -> the routes of its servers' spans."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import libraries

from harness.agent import Agent
from harness.expect import SERVER
from harness.target import Target

if TYPE_CHECKING:
    from harness.receiver import Receiver, Value


class Answer(NamedTuple):
    """What a server's span says of an answer."""

    status: Value
    route: Value
    """Empty: none."""


def answered(name: str, receiver: Receiver, *flags: str, stripped: bool = False) -> dict[Value, Answer]:
    """Run tests/go/`name`, its calls and the agent, and return what the spans of its server say, by path.

    Args:
        name: of the folder.
        receiver: of the spans, cleared before.
        flags: of the program, such as ``-tls``.
        stripped: whether it is built so.

    Raises:
        AssertionError: spans were dropped, two are of one path, or a span's name isn't that of its route.
    """
    row = libraries.rows(name, libraries.declared()[name])[-1 if stripped else -2]
    with Target(row.executable(), *flags, stdin=True) as target:
        with Agent("--pid", str(target.pid), environment=receiver.environment) as agent:
            agent.attached()
            target.say("call")
            target.stdout.wait_for("^called$")
            outcome = agent.stop()
        assert target.close() == 0
    assert (outcome.exported, outcome.dropped) == (outcome.started, {}), outcome.stderr
    spans = [span for span in receiver.spans if span.kind == SERVER]
    found = {}
    for span in spans:
        route = span.attributes.get("http.route", "")
        found[span.attributes["url.path"]] = Answer(span.attributes["http.response.status_code"], route)
        assert span.name == f"{span.attributes['http.request.method']} {route}".rstrip()
    assert len(found) == len(spans)
    return found
