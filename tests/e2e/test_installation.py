"""Where the compiled BPF programs come from, tried on copies of this tree: shipped, the cache, BCC, or nowhere."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness import expect
from harness.agent import PROJECT, Agent, Installation, clean_environment, run
from harness.client import in_turn, one_after_another
from harness.target import Target

if TYPE_CHECKING:
    from pathlib import Path

    from harness.receiver import Receiver

pytestmark = [pytest.mark.root, pytest.mark.slow]

MISSING = "raise ModuleNotFoundError(\"No module named 'bcc'\", name='bcc')\n"
WRONG = "__version__ = '0.1'\n"
"""PyPI's package of that name."""
BUNDLE = f"core-{platform.machine()}.bundle"


class Copy:
    """A copy of the sources, without what is compiled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.installation = Installation(folder=folder)
        ignored = shutil.ignore_patterns("__pycache__", "bundles")
        for part in ("otel_goprobe", "bpf"):
            shutil.copytree(PROJECT / part, folder / part, ignore=ignored)
        self.environment = {"PYTHONPATH": str(folder), "OTEL_GOPROBE_CACHE": str(self.cache)}

    def without_bcc(self, source: str = MISSING) -> dict[str, str]:
        """Return an environment in which `import bcc` executes `source`."""
        package = self.folder / "instead" / "bcc"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(source)
        return {**self.environment, "PYTHONPATH": f"{package.parent}:{self.folder}"}

    def make_bundle(self) -> Path:
        """Do what ``make bundle`` does; return the bundle of the unit ``core``."""
        subprocess.run(
            [sys.executable, "-m", "otel_goprobe.units"],
            cwd=self.folder, env=clean_environment(self.environment), check=True,
        )  # fmt: skip
        return self.folder / "otel_goprobe/bundles" / BUNDLE

    def change_a_source(self) -> None:
        """Make it another program in nothing but its text."""
        with (self.folder / "bpf/process.bpf.c").open("a") as source:
            source.write("/* changed */\n")

    def compiler_check(self, environment: dict[str, str]) -> dict[str, str]:
        """Return what the doctor says of the compiler."""
        done = run("doctor", "--json", environment=environment, installation=self.installation)
        checks = json.loads(done.stdout)["checks"]
        (found,) = (check for check in checks if check["check"] == "compiler")
        return dict(found)

    def refusal(self, environment: dict[str, str]) -> str:
        """Return the error that `run` ends with, one line for what is wrong and one for what to do."""
        done = run(
            "run", "--no-wait", "--exe", "/nowhere",
            environment={**environment, "OTEL_TRACES_EXPORTER": "none"}, installation=self.installation,
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        message = done.stderr[done.stderr.index("error: ") :]
        assert len(message.splitlines()) == 2, message
        return message


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """Make one."""
    return Copy(tmp_path / "copy")


def test_a_shipped_bundle_needs_no_compiler(copy: Copy, receiver: Receiver) -> None:
    """23 requests, 23 spans, without BCC, and nothing is compiled or cached."""
    copy.make_bundle()
    environment = copy.without_bcc()
    requests = in_turn(23)
    with Target(go_binary("http_server")) as target:
        with Agent(
            "--pid", str(target.pid), environment={**receiver.environment, **environment},
            installation=copy.installation,
        ) as agent:  # fmt: skip
            agent.attached()
            one_after_another(target.port, requests)
            log = target.wait_log(23)
            outcome = agent.stop()
        assert (outcome.code, outcome.started, outcome.exported, outcome.dropped) == (0, 23, 23, {})
        expect.spans_match(receiver.spans, log, requests)
    check = copy.compiler_check(environment)
    assert check["state"] == "ok"
    assert check["found"].startswith("not needed: compiled programs came with otel-goprobe")
    assert not list(copy.cache.glob("*.bundle"))


def test_other_sources_are_compiled_once(copy: Copy) -> None:
    """A bundle of other sources is left alone; what BCC makes is kept."""
    copy.make_bundle()
    copy.change_a_source()
    found = [copy.compiler_check(copy.environment)["found"] for _ in range(2)]
    assert found[0].startswith("BCC compiled the programs")
    assert found[1] == f"not needed: compiled programs are in {copy.cache}"


def test_a_bundle_is_the_same_wherever_it_is_made(copy: Copy, tmp_path: Path) -> None:
    """Byte for byte, and it doesn't name this machine's paths."""
    other = Copy(tmp_path / "other")
    made = copy.make_bundle().read_bytes()
    assert made == other.make_bundle().read_bytes()
    assert str(tmp_path).encode() not in made
    assert platform.release().encode() not in made


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (MISSING, ("bcc is missing", "python3-bpfcc", "make wheel")),
        (WRONG, ("not the BPF Compiler Collection", "pip uninstall bcc", "python3-bpfcc")),
    ],
    ids=["missing", "wrong"],
)
def test_neither_bundle_nor_bcc(copy: Copy, source: str, words: tuple[str, ...]) -> None:
    """One sentence says that there is no bundle, or that it is of other sources, and what of BCC; one what to do."""
    environment = copy.without_bcc(source)
    message = copy.refusal(environment)
    assert f"this installation has no bundles/{BUNDLE}" in message
    for word in words:
        assert word in message
    made = copy.make_bundle()
    copy.change_a_source()
    message = copy.refusal(environment)
    assert f"{made} was made from other sources" in message
    for word in words:
        assert word in message
