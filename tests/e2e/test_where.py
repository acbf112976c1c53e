"""``--where``: of any tool only what functions that match do; what a spec finds nothing for is said."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import test_network
import test_opens
from goprograms import go_binary
from harness.agent import Agent
from harness.target import Target

if TYPE_CHECKING:
    from pathlib import Path

    from harness.receiver import Receiver

pytestmark = pytest.mark.root


def test_rows_of_some_functions(tmp_path: Path) -> None:
    """One that is inlined, one on a goroutine of its own; not those of others."""
    for name in ("a", "b"):
        (tmp_path / name).touch()
    wanted = {"main.read", "main.background"}
    where = [word for spec in (*sorted(wanted), "main.tru") for word in ("--where", spec)]
    with (
        Target(go_binary("opens", strip=True), "-folder", str(tmp_path)) as target,
        Agent("--pid", str(target.pid), "--json", *where, environment={}, subcommand="opens") as agent,
    ):
        agent.attached()
        test_opens.work(target)
        truth = test_opens.truth(target)
        outcome = agent.stop()
    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert outcome.code == 0
    assert {row["function"] for row in rows} == wanted
    expected = {key: count for key, count in truth.items() if key[0] in wanted}
    assert test_opens.counted(rows, str(tmp_path)) == expected
    assert sum(expected.values()) == 35
    assert re.search(
        rf"warning: pid {target.pid}: no function matches go:main.tru; nearest: main.truth", outcome.stderr
    )


def test_connections_of_some_functions(tmp_path: Path) -> None:
    """What comes later of a connection that they dialled is counted, too; what was there before isn't."""
    with test_network.services(tmp_path) as ((service,), _):
        service.work(1)
        selected = ("--pid", str(service.pid), "--where", "main.(*service).dial*")
        with Agent(*selected, "--json", environment={}, subcommand="network") as agent:
            agent.attached()
            before = service.truth
            service.work()
            truth = service.truth
            outcome = agent.stop()
    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    seen = test_network.destinations(rows)
    dialled = {where for where, row in truth.items() if row["Function"].startswith("main.(*service).dial")}
    assert {row["direction"] for row in rows} == {"out"}
    assert seen
    assert set(seen) <= dialled
    for where, row in seen.items():
        assert row["Opened"] == truth[where]["Opened"] - before[where]["Opened"]
        assert row["Function"] == truth[where]["Function"]


def test_exported_by_run(receiver: Receiver, tmp_path: Path) -> None:
    """``run --with`` has the same option for all of its tools."""
    (tmp_path / "a").touch()
    with Target(go_binary("opens"), "-folder", str(tmp_path)) as target:
        flags = ("--pid", str(target.pid), "--with", "opens,network", "--where", "main.try")
        with Agent(*flags, environment=receiver.environment) as agent:
            agent.attached()
            for path in ["read/a"] * 7 + ["missing/x"] * 11:
                test_opens.ask(target, path)
            outcome = agent.stop()
    assert outcome.balanced
    events = [event for span in receiver.spans for event in span.events]
    assert [event.attributes["code.function.name"] for event in events] == ["main.try"] * 11
    assert receiver.logs == []


def test_what_is_no_function() -> None:
    """Is refused before anything is attached."""
    with Agent("--where", "tracepoint:tcp:*", environment={}, subcommand="opens") as agent:
        outcome = agent.wait()
    assert outcome.code == 2
    assert "column 1: tracepoint is no function of Go" in outcome.stderr
    assert "\n  write go:NAME" in outcome.stderr
