"""A service with OpenTelemetry's own SDK on either side of one without: one trace, one header, no span twice."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness.agent import Agent
from harness.target import Target
from networks import Hosts
from propagation.truth import CLIENT, Line, Link, Links, judge, read_log

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.propagation]

REQUESTS = 23


def own_spans(path: Path) -> list[Link]:
    """Return what the SDK has exported."""
    links = []
    for text in path.read_text().splitlines():
        span = json.loads(text)
        attributes = {pair["Key"]: str(pair["Value"]["Value"]) for pair in span["Attributes"]}
        target = attributes.get("url.path") or "/" + attributes["url.full"].split("/", 3)[3]
        context, parent = span["SpanContext"], span["Parent"]["SpanID"].strip("0")
        links.append(
            Link(
                span["SpanKind"],
                target,
                context["TraceID"],
                context["SpanID"],
                span["Parent"]["SpanID"] if parent else "",
                "sdk",
            )
        )
    return links


def ask(prefix: Sequence[str], host: str, port: int) -> None:
    """Send 23 requests, four at once."""
    exe = go_binary("propagation")
    command = [*prefix, str(exe), "-load", f"http://{host}:{port}", "-requests", str(REQUESTS), "-concurrency", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout)["answered"] == REQUESTS


def one_trace_each(front: list[Line], back: list[Line], links: list[Link]) -> None:
    """Check that each request is one trace of three spans, and came to the back with its call's header, once."""
    verdict = judge(front, back, links)
    figures = [judged.right for judged in (verdict.front, verdict.client, verdict.back)]
    assert (figures, len(links), verdict.extra) == ([REQUESTS] * 3, 3 * REQUESTS, 0), verdict
    calls = {link.path: link for link in links if link.kind == CLIENT}
    for line in back:
        call = calls[line.path]
        assert line.traceparent == (f"00-{call.trace_id}-{call.span_id}-01",)


def test_the_sdk_calls_us(tmp_path: Path) -> None:
    """Both programs are in the selection: the one that exports spans of its own is left alone, the other follows it."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    shutil.copy(go_binary("propagation"), ours)
    shutil.copy(go_binary("otel_sdk", language="1.26.0"), theirs)
    spans, front_log, back_log = (tmp_path / name for name in ("spans", "front", "back"))
    with ExitStack() as stack:
        back = stack.enter_context(Target(ours, "-log", str(back_log)))
        to = f"http://127.0.0.1:{back.port}"
        front = stack.enter_context(Target(theirs, "-log", str(front_log), "-spans", str(spans), "-to", to))
        receiver = stack.enter_context(Links())
        agent = stack.enter_context(Agent("--exe", f"{tmp_path}/*", environment=receiver.environment))
        agent.attached()
        assert "stdouttrace" in agent.stderr.wait_for(r"exports spans of its own")
        ask([], "127.0.0.1", front.port)
        outcome = agent.stop()
        front.stop()
        back.stop()
        assert (outcome.started, outcome.exported, outcome.dropped) == (REQUESTS, REQUESTS, {})
        links = [*own_spans(spans), *receiver.links()]
    one_trace_each(read_log(front_log), read_log(back_log), links)


def test_we_call_the_sdk(tmp_path: Path) -> None:
    """On another host, as its addresses say: the header that the kernel inserts is the SDK's parent."""
    spans, front_log, back_log = (tmp_path / name for name in ("spans", "front", "back"))
    with ExitStack() as stack:
        hosts = stack.enter_context(Hosts())
        near, far = (["nsenter", f"--net=/run/netns/{name}"] for name in (hosts.near, hosts.far))
        arguments = ("-listen", f"{hosts.FAR_IPV4}:0", "-log", str(back_log), "-spans", str(spans))
        back = stack.enter_context(Target(go_binary("otel_sdk", language="1.26.0"), *arguments, prefix=far))
        arguments = ("-log", str(front_log), "-to", f"http://{hosts.FAR_IPV4}:{back.port}")
        front = stack.enter_context(Target(go_binary("propagation"), *arguments, prefix=near))
        receiver = stack.enter_context(Links())
        agent = stack.enter_context(
            Agent("--pid", str(front.pid), "--propagation", "wire", environment=receiver.environment)
        )
        agent.attached()
        ask(near, "127.0.0.1", front.port)
        outcome = agent.stop()
        front.stop()
        back.stop()
        assert (outcome.exported, outcome.dropped) == (2 * REQUESTS, {})
        links = [*own_spans(spans), *receiver.links()]
    one_trace_each(read_log(front_log), read_log(back_log), links)


def test_we_call_the_sdk_on_the_same_host(tmp_path: Path) -> None:
    """No agent traces the server, so that the connection joins nothing: it gets the header, as on another host."""
    spans, front_log, back_log = (tmp_path / name for name in ("spans", "front", "back"))
    with ExitStack() as stack:
        theirs = go_binary("otel_sdk", language="1.26.0")
        back = stack.enter_context(Target(theirs, "-log", str(back_log), "-spans", str(spans)))
        to = f"http://127.0.0.1:{back.port}"
        front = stack.enter_context(Target(go_binary("propagation"), "-log", str(front_log), "-to", to))
        receiver = stack.enter_context(Links())
        agent = stack.enter_context(
            Agent("--pid", str(front.pid), "--propagation", "wire", environment=receiver.environment)
        )
        agent.attached()
        ask([], "127.0.0.1", front.port)
        outcome = agent.stop()
        front.stop()
        back.stop()
        assert (outcome.exported, outcome.dropped) == (2 * REQUESTS, {})
        links = [*own_spans(spans), *receiver.links()]
    one_trace_each(read_log(front_log), read_log(back_log), links)


def test_we_call_ourselves_on_the_same_host_without_a_header(tmp_path: Path) -> None:
    """With --propagation wire, too: the connection is enough where both ends are traced."""
    front_log, back_log = tmp_path / "front", tmp_path / "back"
    with ExitStack() as stack:
        back = stack.enter_context(Target(go_binary("propagation"), "-log", str(back_log)))
        to = f"http://127.0.0.1:{back.port}"
        front = stack.enter_context(Target(go_binary("propagation"), "-log", str(front_log), "-to", to))
        receiver = stack.enter_context(Links())
        pids = ("--pid", str(back.pid), "--pid", str(front.pid))
        agent = stack.enter_context(Agent(*pids, "--propagation", "wire", environment=receiver.environment))
        agent.attached(2)
        ask([], "127.0.0.1", front.port)
        agent.stop()
        front.stop()
        back.stop()
    verdict = judge(read_log(front_log), read_log(back_log), receiver.links())
    assert (verdict.client.right, verdict.back.right, verdict.extra) == (REQUESTS, REQUESTS, 0)
    assert not any(line.traceparent for line in read_log(back_log))
