"""Each library with its official instrumentation compiled in, watched by the agent: both report the same calls.

`make test-libraries`; a program that tests/go/NAME/library.toml declares, in each version, plain and stripped.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import compatibility
import libraries
import pytest
from harness.agent import Agent
from harness.target import Target

if TYPE_CHECKING:
    from pathlib import Path

    from harness.receiver import Receiver

pytestmark = [pytest.mark.root, pytest.mark.libraries, pytest.mark.timeout(600)]

ENVIRONMENT = {"TZ": "UTC", "OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup,rpc/dup,database/dup"}
"""Both names of an attribute from instrumentation that knows an old and a new one."""
CALLED_S = 60.0


@pytest.mark.parametrize("name", libraries.declared())
def test_spans_are_as_the_official_ones(name: str, receiver: Receiver, tmp_path: Path) -> None:
    """Name, status, parent and every attribute of every span, but for what library.toml explains."""
    library = libraries.declared()[name]
    rows = libraries.rows(name, library)
    why = libraries.explained(library)
    with ExitStack() as stack:
        programs = []
        for index, row in enumerate(rows):
            file = tmp_path / f"{index}.json"
            environment = {**os.environ, **ENVIRONMENT}
            arguments = ("-spans", str(file))
            target = stack.enter_context(Target(row.executable(), *arguments, environment=environment, stdin=True))
            programs.append((row, target, file))
        pids = [argument for _, target, _ in programs for argument in ("--pid", str(target.pid))]
        options = ("--user-agent", "--url-query", *library.arguments)
        agent = stack.enter_context(Agent(*options, *pids, environment=receiver.environment))
        agent.attached(len(programs))
        for _, target, _ in programs:
            target.say("call")
            target.stdout.wait_for("^called$", timeout_s=CALLED_S)
        outcome = agent.stop()
        codes = [target.close() for _, target, _ in programs]
    assert codes == [0] * len(programs)
    assert (outcome.exported, outcome.dropped) == (outcome.started, {})
    unexplained = []
    for row, target, file in programs:
        mine = libraries.ours(span for span in receiver.spans if span.resource["process.pid"] == target.pid)
        seen = libraries.compare(libraries.officials(file, library.renamed), mine, library.matched_by)
        unexplained += [f"{row}: {what}: {seen.examples[what]}" for what in seen.differences if what not in why]
        compatibility.record(
            compatibility.Row(
                name=str(row),
                go=row.version.go,
                requests=seen.spans,
                right=seen.spans,
                fields=seen.attributes,
                differences=dict(seen.differences),
            )
        )
    assert not unexplained, "\n".join(unexplained)
