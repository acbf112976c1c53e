"""``opens``, the simplest tool: table, spans, log records and metrics say what the program counted itself."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.target import Target

if TYPE_CHECKING:
    from pathlib import Path

    from harness.receiver import Receiver

pytestmark = pytest.mark.root

Key = tuple[Any, ...]
REQUESTS = {"read/a": 23, "read/b": 7, "missing/x": 11, "background": 5}


def ask(target: Target, path: str) -> bytes:
    """Send one request."""
    with urllib.request.urlopen(f"http://127.0.0.1:{target.port}/{path}") as answer:
        content: bytes = answer.read()
    return content


def work(target: Target) -> None:
    """Have it open its files."""
    for path, count in REQUESTS.items():
        for _ in range(count):
            ask(target, path)


def truth(target: Target) -> Counter[Key]:
    """Return what it says of itself: function, line, route, path, error."""
    return Counter(
        {
            (row["Function"], row["Line"], row["Route"], row["Path"], row["Error"]): row["Count"]
            for row in json.loads(ask(target, "truth"))
        }
    )


def counted(rows: list[dict[str, Any]], folder: str) -> Counter[Key]:
    """Return the rows of what is in a folder, as the program's truth has them."""
    return Counter(
        {
            (row["function"], row["line"], row["route"] or "", row["path"], row["error"] or ""): row["count"]
            for row in rows
            if row["path"].startswith(folder)
        }
    )


@pytest.mark.parametrize("strip", [False, True], ids=["", "stripped"])
def test_table_equals_truth(tmp_path: Path, *, strip: bool) -> None:
    """Rows are the program's own; another process of the same executable is in none of them."""
    for name in ("a", "b"):
        (tmp_path / name).touch()
    exe = go_binary("opens", strip=strip)
    with (
        Target(exe, "-folder", str(tmp_path)) as watched,
        Target(exe, "-folder", str(tmp_path)) as other,
        Agent("--pid", str(watched.pid), "--json", environment={}, subcommand="opens") as agent,
    ):
        agent.attached()
        work(watched)
        work(other)
        expected = truth(watched)
        outcome = agent.stop()
    assert outcome.code == 0
    assert counted([json.loads(line) for line in outcome.stdout.splitlines()], str(tmp_path)) == expected
    assert expected.total() == sum(REQUESTS.values())


def test_exported(receiver: Receiver, tmp_path: Path) -> None:
    """What a request opens is an event of its span; what belongs to none is a log record; a metric counts both."""
    for name in ("a", "b"):
        (tmp_path / name).touch()
    with Target(go_binary("opens"), "-folder", str(tmp_path)) as target:
        flags = ("--pid", str(target.pid), "--with", "opens", "--metrics-exporter", "otlp")
        with Agent(*flags, environment=receiver.environment) as agent:
            agent.attached()
            work(target)
            outcome = agent.stop()
    assert outcome.balanced
    ours = [
        (span, event)
        for span in receiver.spans
        for event in span.events
        if str(event.attributes["file.path"]).startswith(str(tmp_path))
    ]
    assert Counter(str(event.attributes["file.path"])[-1] for _, event in ours) == {"a": 23, "b": 7, "x": 11}
    for span, event in ours:
        assert event.name == "file.open"
        assert span.start <= event.unix_ns <= span.end
        missing = str(event.attributes["file.path"]).endswith("x")
        assert event.attributes["code.function.name"] == ("main.try" if missing else "main.read")
        assert event.attributes.get("error.type") == ("ENOENT" if missing else None)
        assert str(span.attributes["url.path"]).endswith(str(event.attributes["file.path"])[-1])
    logs = [log for log in receiver.logs if str(log.attributes["file.path"]).startswith(str(tmp_path))]
    assert [log.attributes["code.function.name"] for log in logs] == ["main.background"] * 5
    assert {log.severity for log in logs} == {"INFO"}
    points = [
        point.as_int
        for metric in _metrics(receiver)
        if metric.name == "goprobe.file.opens"
        for point in metric.sum.data_points
        if any(pair.value.string_value.startswith(str(tmp_path)) for pair in point.attributes)
    ]
    assert sorted(points) == [5, 7, 11, 23]


def _metrics(receiver: Receiver) -> list[Any]:
    """Return the metrics of the last collection."""
    return [
        metric
        for resource in receiver.metrics[-1].resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]
