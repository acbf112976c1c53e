"""The agent as a sidecar: other namespaces, other users, overlay mounts, few capabilities, no tracefs.

Images can't be assumed, so the containers are made of what container runtimes are made of.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness import expect
from harness.agent import Agent, run
from harness.client import at_once, in_turn, one_after_another
from harness.containers import Pod, hide_tracefs, overlay_prefix, with_only
from harness.target import Target

from otel_goprobe.kernel.capabilities import REQUIRED_CAPABILITIES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.receiver import Receiver

pytestmark = [pytest.mark.root, pytest.mark.slow]

NEEDED = tuple(capability.name for capability in REQUIRED_CAPABILITIES)
UID = 1000


@pytest.fixture
def lower(tmp_path: Path) -> Iterator[Path]:
    """Give a folder with nothing but the executable, under a name that no other test's program has."""
    tmp_path.chmod(0o755)
    folder = tmp_path / "lower"
    (folder / "proc").mkdir(parents=True)
    shutil.copy(go_binary("http_server", strip=True), folder / "sidecar-shop")
    yield folder
    shutil.rmtree(folder)


def container(stack: ExitStack, lower: Path, pod: Pod | None, number: int) -> Target:
    """Start a server from an overlay mount of its own."""
    mount_point = lower.parent / f"overlay-{number}"
    mount_point.mkdir()
    prefix = [*(pod.prefix if pod else []), *overlay_prefix(mount_point, lower, UID)]
    return stack.enter_context(Target("/sidecar-shop", prefix=prefix))


@pytest.mark.parametrize("case", ["same-pod", "agent-outside", "targets-one-deeper"])
def test_two_overlays_of_one_file(case: str, lower: Path, receiver: Receiver) -> None:
    """Two targets from two overlay mounts of one file are two services, 23 spans each, in every nesting."""
    requests = in_turn(23)
    with ExitStack() as stack:
        agents_pod = stack.enter_context(Pod()) if case != "agent-outside" else None
        if case == "same-pod":
            targets_pod = agents_pod
        else:
            targets_pod = stack.enter_context(Pod(agents_pod.prefix if agents_pod else []))
        targets = [container(stack, lower, targets_pod, number) for number in range(2)]
        prefix = [*(agents_pod.prefix if agents_pod else hide_tracefs()), *with_only(NEEDED)]
        agent = stack.enter_context(
            Agent("--service", "shop", "--exe", "/sidecar-shop", environment=receiver.environment, prefix=prefix)
        )
        agent.attached(2)
        one_after_another(targets[0].port, requests)
        at_once(targets[1].port, requests)
        logs = [target.wait_log(23) for target in targets]
        outcome = agent.stop()
    assert (outcome.code, outcome.started, outcome.exported, outcome.dropped) == (0, 46, 46, {})
    for target, log in zip(targets, logs, strict=True):
        spans = [span for span in receiver.spans if span.attributes["server.port"] == target.port]
        expect.spans_match(spans, log, requests)
        assert len({span.resource["service.instance.id"] for span in spans}) == 1
        assert {span.resource["service.name"] for span in spans} == {"shop"}
    assert len({span.resource["service.instance.id"] for span in receiver.spans}) == 2


def test_a_container_that_starts_later(lower: Path, receiver: Receiver) -> None:
    """The agent in its pod sees a container start beside it, although its PIDs aren't the kernel's."""
    with ExitStack() as stack:
        pod = stack.enter_context(Pod())
        prefix = [*pod.prefix, *with_only(NEEDED)]
        agent = stack.enter_context(
            Agent("--service", "shop", "--exe", "/sidecar-shop", environment=receiver.environment, prefix=prefix)
        )
        agent.stderr.wait_for("waiting", timeout_s=60)
        target = container(stack, lower, pod, 0)
        agent.attached()
        one_after_another(target.port, in_turn(23))
        target.kill()
        agent.stderr.wait_for("^detached")
        outcome = agent.stop()
    assert (outcome.started, outcome.exported, outcome.dropped) == (23, 23, {})


@pytest.mark.parametrize("missing", NEEDED)
def test_each_capability_that_is_missing_is_named(missing: str, lower: Path, receiver: Receiver) -> None:
    """Without one of them the agent says which, and what it is for, and ends with an error."""
    kept = [name for name in NEEDED if name != missing]
    with ExitStack() as stack:
        target = container(stack, lower, None, 0)
        done = run(
            "run", "--service", "shop", "--pid", str(target.pid),
            environment=receiver.environment, prefix=[*hide_tracefs(), *with_only(kept)], timeout_s=30,
        )  # fmt: skip
    assert done.returncode in {1, 3}
    assert missing in done.stderr
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr
