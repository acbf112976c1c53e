"""Which capabilities are enough, and what is said where one is missing; what the doctor sees."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_goprobe import kernel, model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Launch

pytestmark = pytest.mark.root

ATTACH = """
import json, sys
from pathlib import Path
from otel_goprobe import errors, kernel, model
request = json.load(sys.stdin)
name, header, sources, programs, structs = request["unit"]
programs = tuple(model.UnitProgram(*program) for program in programs)
unit = model.Unit(name, header, tuple(map(Path, sources)), programs, tuple(structs))
site = model.Site("main.work", 0, request["offset"], b"", model.Cost.EMULATED, "")
plan = model.Plan((model.ProbePlan("work_start", "", (site,)),), {})
pid = request["pid"]
step = "load"
try:
    with kernel.load(unit, cache_dir=Path(request["cache"]), way=request["way"]) as program:
        step = "attach"
        with kernel.attach(program, plan, pid=pid, exe_path=f"/proc/{pid}/exe", slot=0):
            kernel.attach_tracepoints(program).close()
            kernel.Ring(program.maps["ring_256"], "V256").drain()
            print("works")
except errors.NotPermittedError as error:
    print(f"{step}: {error}")
"""

FEATURES = """
import json
from dataclasses import asdict
from otel_goprobe import kernel
print(json.dumps([asdict(feature) for feature in kernel.probe_features()]))
"""

ENOUGH = ("bpf", "perfmon", "sys_ptrace")


def confined(capabilities: tuple[str, ...], script: str, given: str = "") -> str:
    """What a script prints that runs as root with these capabilities alone."""
    wanted = ",".join(("-all", *(f"+{capability}" for capability in capabilities)))
    done = subprocess.run(
        [
            "setpriv",
            *(f"--{kind}-caps={wanted}" for kind in ("inh", "ambient")),
            f"--bounding-set={wanted}",
            "--no-new-privs",
            *(sys.executable, "-c", script),
        ],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.stdout.strip()


@pytest.fixture
def others_process(launch: Launch, hits_binary: Path) -> Iterator[tuple[int, Path]]:
    """Run a process of another user; its pid and its executable, which it doesn't own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        executable = folder / "hits"
        executable.write_bytes(hits_binary.read_bytes())
        executable.chmod(0o755)
        command = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        yield launch(*command, executable=executable).pid, executable


def request_for(
    pid: int, unit: model.Unit, site: model.Site, cache_dir: Path, way: kernel.AttachWay = "uprobe_multi"
) -> str:
    """The script's input."""
    return json.dumps(
        {
            "pid": pid,
            "unit": dataclasses.astuple(unit),
            "offset": site.file_offset,
            "cache": str(cache_dir),
            "way": way,
        },
        default=str,
    )


def test_three_capabilities_are_enough(
    others_process: tuple[int, Path], hits_unit: model.Unit, work_site: model.Site, tmp_path: Path
) -> None:
    """To compile, load, attach to another user's process, follow processes and read; CAP_SYS_ADMIN does for two."""
    request = request_for(others_process[0], hits_unit, work_site, tmp_path)
    assert tuple(f"CAP_{name.upper()}" for name in ENOUGH) == tuple(
        capability.name for capability in kernel.REQUIRED_CAPABILITIES
    )
    assert confined(ENOUGH, ATTACH, request) == "works"
    assert confined(("sys_admin", "sys_ptrace"), ATTACH, request) == "works"


def test_each_missing_capability_has_its_sentence(
    others_process: tuple[int, Path], hits_unit: model.Unit, work_site: model.Site, cache_dir: Path
) -> None:
    """One removed, the others there."""
    request = request_for(others_process[0], hits_unit, work_site, cache_dir)
    for missing, said in (
        ("bpf", r"load: the kernel doesn't permit creating the BPF map .* give it CAP_BPF \(creates"),
        ("perfmon", r"load: the kernel doesn't permit loading the BPF program .* give it CAP_PERFMON \(loads"),
        ("sys_ptrace", r"attach: the kernel doesn't permit opening /proc/\d+/exe .* give it CAP_SYS_PTRACE \(opens"),
    ):
        assert re.search(said, confined(tuple(name for name in ENOUGH if name != missing), ATTACH, request)), missing


def test_an_executable_for_its_owner_alone_takes_a_fourth(
    others_process: tuple[int, Path], hits_unit: model.Unit, work_site: model.Site, cache_dir: Path
) -> None:
    """CAP_DAC_READ_SEARCH, where the file's mode says so."""
    pid, executable = others_process
    executable.chmod(0o700)
    os.chown(executable, 65534, 65534)
    request = request_for(pid, hits_unit, work_site, cache_dir)
    assert "give it CAP_DAC_READ_SEARCH (reads" in confined(ENOUGH, ATTACH, request)
    assert confined((*ENOUGH, "dac_read_search"), ATTACH, request) == "works"


def test_perf_events_take_another(
    others_process: tuple[int, Path], hits_unit: model.Unit, work_site: model.Site, cache_dir: Path
) -> None:
    """CAP_SYS_ADMIN, where the kernel has no uprobe_multi."""
    request = request_for(others_process[0], hits_unit, work_site, cache_dir, "perf_event")
    assert "give it CAP_SYS_ADMIN (opens perf events" in confined(ENOUGH, ATTACH, request)
    assert confined((*ENOUGH, "sys_admin"), ATTACH, request) == "works"


def test_features_are_found_by_trying() -> None:
    """This kernel has what is required; a process without capabilities is told what it lacks."""
    here = {feature.name: feature for feature in kernel.probe_features()}
    assert [name for name, feature in here.items() if feature.required and feature.state != "yes"] == []
    bare = {feature["name"]: feature for feature in json.loads(confined((), FEATURES))}
    assert bare.keys() == here.keys()
    for name in ("BPF maps", "BPF programs", "CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"):
        assert bare[name]["state"] == "no"
        assert bare[name]["required"]
        assert "as root" in bare[name]["remedy"]
