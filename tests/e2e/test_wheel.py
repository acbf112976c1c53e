"""The wheel that ``make wheel`` left in dist/: its compiled programs are those of its sources, and enough to run.

``make test-wheel`` makes it anew and calls this. The virtual environment gets the wheel and what that asks for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest
from goprograms import go_binary
from harness import expect
from harness.agent import PROJECT, Agent, Installation, clean_environment, run
from harness.client import in_turn, one_after_another
from harness.target import Target

from otel_goprobe import units
from otel_goprobe.kernel import bundle

if TYPE_CHECKING:
    from pathlib import Path

    from harness.receiver import Receiver

pytestmark = [pytest.mark.root, pytest.mark.wheel]

OUTSIDE = {"PYTHONPATH": ""}
"""This tree isn't on the path of what is started."""


@pytest.fixture(scope="module")
def wheel() -> Path:
    """Give the wheel."""
    found = sorted((PROJECT / "dist").glob("otel_goprobe-*.whl"))
    assert len(found) == 1, f"there are {len(found)} wheels in dist/: run make wheel"
    return found[0]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Install it where nothing else is."""
    folder = tmp_path_factory.mktemp("wheel")
    venv.create(folder / "venv", symlinks=True, with_pip=True)
    python = folder / "venv/bin/python"
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel]
    subprocess.run(command, check=True, cwd=folder, env=clean_environment(OUTSIDE))
    return Installation(str(python), folder)


def test_the_wheel_holds_what_the_sources_give(wheel: Path, tmp_path: Path) -> None:
    """Each unit of this tree is in it, of these sources; its own sources, compiled again, give the same bytes."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    carried = {path.name: path.read_bytes() for path in (tmp_path / "otel_goprobe/bundles").iterdir()}
    for unit in units.all_units():
        name = bundle.shipped_path(unit.name).name
        assert name in carried, f"{wheel.name} has no {name}: run make wheel"
        shipped = msgspec.msgpack.decode(carried[name], type=bundle.Kept)
        assert shipped.sources == bundle.sources_digest(unit), f"{name} in {wheel.name} is stale: run make wheel"
    subprocess.run(
        [sys.executable, "-m", "otel_goprobe.units"],
        cwd=tmp_path, env=clean_environment({"PYTHONPATH": str(tmp_path)}), check=True,
    )  # fmt: skip
    again = {path.name: path.read_bytes() for path in (tmp_path / "otel_goprobe/bundles").iterdir()}
    assert again == carried, "compiling the same sources again gave other bundles"


def test_it_runs_without_bcc(installed: Installation, receiver: Receiver, tmp_path: Path) -> None:
    """23 requests, 23 spans; nothing is compiled, and no process of the agent has a compiler in its memory."""
    there = subprocess.run([installed.python, "-c", "import bcc"], capture_output=True, text=True, check=False)
    assert "No module named 'bcc'" in there.stderr
    environment = {**OUTSIDE, "OTEL_GOPROBE_CACHE": str(tmp_path)}
    requests = in_turn(23)
    with (
        Target(go_binary("http_server", strip=True)) as target,
        Agent(
            "--pid", str(target.pid), environment={**receiver.environment, **environment}, installation=installed
        ) as agent,
    ):
        agent.attached()
        one_after_another(target.port, requests)
        log = target.wait_log(23)
        family = [psutil.Process(agent.pid), *psutil.Process(agent.pid).children(recursive=True)]
        mapped = {os.path.basename(region.path) for process in family for region in process.memory_maps()}  # noqa: PTH119 - a string
        outcome = agent.stop()
    assert (outcome.code, outcome.started, outcome.exported, outcome.dropped) == (0, 23, 23, {})
    expect.spans_match(receiver.spans, log, requests)
    assert not [name for name in mapped if "bcc" in name or "LLVM" in name or "clang" in name]
    assert not list(tmp_path.glob("*.bundle"))


def test_the_doctor_is_content(installed: Installation, tmp_path: Path) -> None:
    """It says that no compiler is needed."""
    environment = {**OUTSIDE, "OTEL_GOPROBE_CACHE": str(tmp_path)}
    done = run("doctor", environment=environment, installation=installed)
    assert done.returncode == 0, done.stdout
    assert "not needed: compiled programs came with otel-goprobe" in done.stdout
