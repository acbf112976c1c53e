"""Thousands of gRPC calls at once, each with an id of its own in its method: all parents and statuses are right."""

from __future__ import annotations

import json
import os
from collections import Counter
from signal import SIGUSR1
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.target import Target

if TYPE_CHECKING:
    from harness.receiver import Receiver, Span

pytestmark = [pytest.mark.root, pytest.mark.slow]

CALLS = int(os.environ.get("GRPC_TRUTH_CALLS", "10007"))
SERVER, CLIENT = 2, 3


def by_id(spans: list[Span], kind: int, service: str) -> dict[str, Span]:
    """Return the spans of a service by the ids in their methods."""
    found = [span for span in spans if span.kind == kind and span.name.startswith(f"{service}/")]
    table = {span.name.partition("/")[2]: span for span in found}
    assert len(table) == len(found)
    return table


def test_parents_and_statuses_of_10_007_calls(receiver: Receiver) -> None:
    """Over 4 connections, 100 streams at once; front calls back with its context, without, and on another goroutine."""
    exe = go_binary("grpc", language="1.26.0")
    with (
        Target(exe, "-ids") as back,
        Target(exe, "-ids", "-back", f"127.0.0.1:{back.port}") as front,
        Target(exe, "-to", f"127.0.0.1:{front.port}", "-load", str(CALLS)) as caller,
        Agent(*(f"--pid={each.pid}" for each in (back, front, caller)), environment=receiver.environment) as agent,
    ):
        agent.attached(3)
        os.kill(caller.pid, SIGUSR1)
        caller.stdout.wait_for("^done$", 1, 120)
        outcome = agent.stop()
        lines = [json.loads(text) for text in caller.stdout.matching(r'^{"side":"client"')]
    codes = {line["method"].partition("/")[2]: line["code"] for line in lines}
    asked = by_id(receiver.spans, CLIENT, "load.Front")
    fronts = by_id(receiver.spans, SERVER, "load.Front")
    calls = by_id(receiver.spans, CLIENT, "load.Back")
    backs = by_id(receiver.spans, SERVER, "load.Back")
    assert outcome.balanced
    assert outcome.dropped == {}
    assert set(asked) == set(fronts) == set(calls) == set(backs) == set(codes)
    wrong: Counter[str] = Counter()
    for each, code in codes.items():
        chain = [asked[each], fronts[each], calls[each], backs[each]]
        for name, outer, inner in zip(("front", "call", "back"), chain, chain[1:], strict=False):
            wrong[name] += (inner.trace_id, inner.parent_span_id) != (outer.trace_id, outer.span_id)
        wrong["status"] += any(span.attributes["rpc.response.status_code"] != code for span in chain)
    assert wrong == Counter({"front": 0, "call": 0, "back": 0, "status": 0})
