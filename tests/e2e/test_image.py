"""The file system of the agent's image, made by the script that the Dockerfile calls: its size, and that it works.

Images can't be built everywhere, so what a container's runtime does with it is done by hand: a mount namespace, the
folder as root.
"""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness import expect
from harness.agent import PROJECT, Agent, Installation, clean_environment
from harness.client import in_turn, one_after_another
from harness.target import Target

if TYPE_CHECKING:
    from pathlib import Path

    from harness.receiver import Receiver

pytestmark = [pytest.mark.root, pytest.mark.wheel]

MOST_BYTES = 150_000_000
INSIDE = """
for folder in proc sys tmp; do mount --rbind /$folder "$0/$folder"; done
exec chroot "$0" "$@"
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make it, of the wheel in dist/."""
    (wheel,) = (PROJECT / "dist").glob("otel_goprobe-*.whl")
    root = tmp_path_factory.mktemp("image") / "root"
    environment = clean_environment({"PYTHONPATH": ""})
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([PROJECT / "scripts/image-root", wheel, root], check=True, env=environment)
    return root


def test_it_is_small_and_has_no_compiler(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its files come to less than 150 MB; there is neither BCC, nor LLVM, nor any other compiler, nor a shell."""
    sizes, names = {}, set()
    for folder, _, files in os.walk(image):
        for name in files:
            status = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - thousands of them
            names.add(name)
            if stat.S_ISREG(status.st_mode):
                sizes[status.st_ino] = status.st_size
    with capsys.disabled():
        print(f"\nthe image holds {len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB")
    assert sum(sizes.values()) < MOST_BYTES
    assert not names & {"gcc", "cc", "clang", "ld", "as", "sh", "bash", "apt", "dpkg", "pip"}
    assert not [name for name in names if name.startswith(("libbcc", "libclang", "libLLVM"))]


def test_it_traces(image: Path, receiver: Receiver) -> None:
    """23 requests, 23 spans, from an agent whose root is that folder."""
    prefix = ["unshare", "--mount", "sh", "-c", INSIDE, str(image)]
    installation = Installation("/opt/otel-goprobe/bin/python", image)
    environment = {**receiver.environment, "PYTHONPATH": "", "OTEL_GOPROBE_CACHE": "/var/cache/otel-goprobe"}
    requests = in_turn(23)
    with (
        Target(go_binary("http_server", strip=True)) as target,
        Agent(
            "--pid", str(target.pid), environment=environment, prefix=prefix, installation=installation
        ) as agent,
    ):  # fmt: skip
        agent.attached()
        one_after_another(target.port, requests)
        log = target.wait_log(23)
        outcome = agent.stop()
    assert (outcome.code, outcome.started, outcome.exported, outcome.dropped) == (0, 23, 23, {})
    expect.spans_match(receiver.spans, log, requests)
    assert not list((image / "var/cache").rglob("*.bundle"))
