"""A tool and the program that it starts, or whose end it sees: what it shows, and how it ends."""

from __future__ import annotations

import json
from signal import SIGINT
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import test_opens
from goprograms import go_binary
from harness.agent import Agent
from harness.target import Target

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

FIRST = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"
"""What Go's runtime opens before anything else: src/runtime/os_linux.go, getHugePageSize."""


def rows_of(text: str) -> dict[str, dict[str, Any]]:
    """Return the table's rows by path; the program's own lines are among them."""
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return {row["path"]: row for row in rows}


@pytest.mark.parametrize("build", [{}, {"strip": True, "pie": True}], ids=["", "PIE stripped"])
def test_from_the_first_instruction(build: dict[str, bool]) -> None:
    """What it opens before its main function is seen, and resolved though it ended at once; its exit code is ours."""
    program = [str(go_binary("opens", **build)), "-no-such-flag"]
    with Agent("--json", environment={}, subcommand="opens", program=program) as agent:
        outcome = agent.wait()
    assert outcome.code == 2
    assert "flag provided but not defined" in outcome.stderr
    first = rows_of(outcome.stdout)[FIRST]
    assert (first["count"], first["service"]) == (1, "opens")
    assert build or first["function"] == "runtime.rt0_go"


def test_for_some_time(tmp_path: Path) -> None:
    """Then the table is printed, the command is ended as init systems do, and that is no failure."""
    program = [str(go_binary("opens")), "-folder", str(tmp_path)]
    with Agent("--for", "1s", "--json", environment={}, subcommand="opens", program=program) as agent:
        agent.attached()
        (child,) = psutil.Process(agent.pid).children()
        outcome = agent.wait()
    assert outcome.code == 0
    assert rows_of(outcome.stdout)["/proc/sys/net/core/somaxconn"]["function"] == "main.main"
    assert not child.is_running()


def test_interrupted() -> None:
    """Ctrl-C is the command's, whose end ends the run; the table is there all the same."""
    with Agent(environment={}, subcommand="opens", program=[str(go_binary("opens"))]) as agent:
        agent.stdout.wait_for("^ready$")
        outcome = agent.stop(SIGINT)
    assert outcome.code == 128 + SIGINT
    assert "/proc/sys/net/core/somaxconn" in outcome.stdout


def test_what_is_wrong_with_a_command() -> None:
    """No command, a stray word, a selector beside it, and a program that isn't Go's."""
    for arguments, code, message in (
        (["--"], 2, "no command stands after --"),
        (["true"], 2, "unexpected argument 'true': a command goes behind --"),
        (["--pid", "1", "--", "true"], 2, "--pid stands beside a command after --"),
        (["--", "true"], 3, "is not a Go program"),
    ):
        with Agent(*arguments, environment={}, subcommand="opens") as agent:
            outcome = agent.wait()
        assert outcome.code == code, outcome
        assert message in outcome.stderr


def test_the_target_ends(tmp_path: Path) -> None:
    """The table stays, and says that it is all; nothing is waited for that can't come."""
    exe = go_binary("opens")
    with (
        Target(exe, "-folder", str(tmp_path)) as target,
        Agent("--pid", str(target.pid), environment={}, subcommand="opens") as agent,
    ):
        agent.attached()
        (tmp_path / "a").touch()
        test_opens.ask(target, "read/a")
        target.stop()
        outcome = agent.wait()
    assert outcome.code == 0
    assert "what --pid names has ended: the table holds all of it" in outcome.stderr
    assert f"{tmp_path}/a" in outcome.stdout
