"""From a loaded unit to records of one process: filters, cookies, refusals, both ways to attach."""

from __future__ import annotations

import dataclasses
import platform
import select
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import Launch, plan_of

from otel_goprobe import kernel, model
from otel_goprobe.errors import BinaryError, KernelError, TargetGoneError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

HITS = 23


@pytest.fixture(params=["uprobe_multi", "perf_event"])
def program(request: pytest.FixtureRequest, hits_unit: model.Unit, cache_dir: Path) -> Iterator[kernel.Program]:
    """Load the unit for one of the two ways to attach."""
    with kernel.load(hits_unit, cache_dir=cache_dir, way=request.param) as loaded:
        yield loaded


def counted(program: kernel.Program, slot: int) -> int:
    """Hits that BPF counted for a slot."""
    return int(program.maps["counters"].sums(slot, 1)[0])


def attached(program: kernel.Program, plan: model.Plan, pid: int, slot: int) -> kernel.Attachment:
    """Attach by the path that the agent uses."""
    return kernel.attach(program, plan, pid=pid, exe_path=f"/proc/{pid}/exe", slot=slot)


def test_every_hit_becomes_a_record(program: kernel.Program, launch: Launch, work_site: model.Site) -> None:
    """Arguments, cookie, process and target memory arrive in both rings, and nothing after detaching."""
    process = launch()
    target = np.zeros(1, program.dtype("target"))
    target["kind"] = 5
    program.maps["targets"].update(kernel.u32(7), target.tobytes())
    ring = kernel.Ring(program.maps["ring_256"], program.dtype("record_256"))
    large = kernel.Ring(program.maps["ring_1024"], np.dtype("V1024"))

    with attached(program, plan_of(work_site, "work_start", "work_large"), process.pid, 7) as attachment:
        process.do(f"main {HITS}")
        assert len(ring.drain(limit=10)) == 10
        records = ring.drain()
        bodies = large.drain().view(program.dtype("record_1024"))
    attachment.close()
    process.do(f"main {HITS}")

    assert records["sequence"].tolist() == list(range(10, HITS))
    assert set(records["header"]["slot"].tolist()) == {7}
    assert set(records["header"]["kind"].tolist()) == {5}
    assert set(records["header"]["tgid"].tolist()) == {process.pid}
    # The first byte is the breakpoint's int3.
    assert bytes(records["code"][0])[1 : len(work_site.expected)] == work_site.expected[1:]
    assert bodies["body"][:, 0].tolist() == list(range(HITS))
    assert len(ring.drain()) == 0
    assert counted(program, 7) == HITS
    assert len(program.maps["in_flight"].keys()) == HITS
    ring.close()
    large.close()


def test_only_the_named_process_is_counted(program: kernel.Program, launch: Launch, work_site: model.Site) -> None:
    """Two processes of one file never mix; the threads of one belong to it."""
    first, second, unwatched = launch(), launch(), launch()
    plan = plan_of(work_site, "work_start")
    with attached(program, plan, first.pid, 1), attached(program, plan, second.pid, 2):
        unwatched.do(f"main {HITS}")
        assert [counted(program, slot) for slot in (0, 1, 2)] == [0, 0, 0]
        first.do(f"main {HITS}")
        second.do(f"threads {HITS}")
        assert [counted(program, slot) for slot in (0, 1, 2)] == [0, HITS, 2 * HITS]


def test_a_link_made_before_the_exec_catches_every_hit(
    program: kernel.Program, launch: Launch, work_site: model.Site, hits_binary: Path
) -> None:
    """A child that waits with its exec until it is probed, as the agent starts a program."""
    process = launch("sh", "-c", 'read line; exec "$0"')
    plan = plan_of(work_site, "work_start")
    with kernel.attach(program, plan, pid=process.pid, exe_path=str(hits_binary), slot=1):
        process.begin("go")
        process.answer("ready")
        process.do(f"threads {HITS}")
        process.do(f"main {HITS}")
    assert counted(program, 1) == 3 * HITS


def test_another_file_is_refused(program: kernel.Program, launch: Launch, work_site: model.Site) -> None:
    """Bytes that differ from the analysed ones: a sentence, and nothing attached, the good sites neither."""
    process = launch()
    other = dataclasses.replace(work_site, expected=b"\xcc" * len(work_site.expected))
    plan = model.Plan((*plan_of(work_site, "work_start").probes, *plan_of(other, "work_large").probes), {})
    with pytest.raises(BinaryError, match=r"is not the analysed file: main\.work has .* where cc"):
        attached(program, plan, process.pid, 3)
    process.do(f"main {HITS}")
    assert counted(program, 3) == 0


def test_a_refused_link_takes_the_others_along(
    program: kernel.Program, launch: Launch, work_site: model.Site, hits_binary: Path
) -> None:
    """A site behind the end of the file fails in the kernel: what was attached before is detached."""
    process = launch()
    behind = dataclasses.replace(work_site, file_offset=2 * hits_binary.stat().st_size, expected=b"")
    plan = model.Plan((*plan_of(work_site, "work_start").probes, *plan_of(behind, "work_large").probes), {})
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(KernelError, match=r"attaching uprobes to process \d+ failed"):
        attached(program, plan, process.pid, 3)
    assert set(Path("/proc/self/fd").iterdir()) == before
    process.do(f"main {HITS}")
    assert counted(program, 3) == 0


def test_an_ended_process_is_said_to_be_gone(program: kernel.Program, launch: Launch, work_site: model.Site) -> None:
    """A pid without a process, by its /proc folder and by a file that is still open."""
    process = launch()
    with Path(f"/proc/{process.pid}/exe").open("rb") as executable:
        process.stop()
        plan = plan_of(work_site, "work_start")
        for exe_path in (f"/proc/{process.pid}/exe", f"/proc/self/fd/{executable.fileno()}"):
            with pytest.raises(TargetGoneError, match=f"process {process.pid} has ended"):
                kernel.attach(program, plan, pid=process.pid, exe_path=exe_path, slot=1)


def test_a_deleted_executable_can_be_attached_to(
    program: kernel.Program, launch: Launch, work_site: model.Site, hits_binary: Path, tmp_path: Path
) -> None:
    """A file that is only open any more, as after an upgrade in place."""
    copy = tmp_path / "hits"
    copy.write_bytes(hits_binary.read_bytes())
    copy.chmod(0o755)
    process = launch(executable=copy)
    copy.unlink()
    with attached(program, plan_of(work_site, "work_start"), process.pid, 9):
        process.do(f"main {HITS}")
    assert counted(program, 9) == HITS


def test_many_perf_links_are_closed_in_the_background(
    hits_unit: model.Unit, cache_dir: Path, launch: Launch, work_site: model.Site
) -> None:
    """Above the limit the caller doesn't wait for 0.13 s a site."""
    process = launch()
    with kernel.load(hits_unit, cache_dir=cache_dir, way="perf_event") as program:
        plan = model.Plan((model.ProbePlan("work_start", "", (work_site,) * 41),), {})
        attachment = attached(program, plan, process.pid, 1)
        process.do("main 1")
        assert counted(program, 1) == 41
        begun = time.monotonic()
        attachment.close()
        assert time.monotonic() - begun < 1
        assert len(attachment) == 0
        process.stop()


def test_processes_come_and_go(hits_unit: model.Unit, cache_dir: Path) -> None:
    """Raw tracepoints report with a wake-up, without tracefs."""
    with kernel.load(hits_unit, cache_dir=cache_dir, sizes={"process_events": 65536}) as program:
        ring = kernel.Ring(program.maps["process_events"], program.dtype("process_event"))
        with select.epoll() as epoll, kernel.attach_tracepoints(program) as attachment:
            epoll.register(ring.fileno(), select.EPOLLIN)
            assert len(attachment) == 2
            child = subprocess.Popen(["/bin/true"])
            child.wait()
            seen: list[tuple[int, int]] = []
            while (child.pid, 1) not in seen:
                assert epoll.poll(10)
                seen += [tuple(event) for event in ring.drain().tolist()]
        assert seen.index((child.pid, 0)) < seen.index((child.pid, 1))
        assert ring.size == 65536
        ring.close()


def test_a_tracepoint_that_can_be_done_without(hits_unit: model.Unit, cache_dir: Path) -> None:
    """Where the kernel lacks it the others are attached, and it is said why."""
    missing = model.UnitProgram("process_exit", "raw_tracepoint", "no_such_event", required=False)
    unit = dataclasses.replace(hits_unit, programs=(*hits_unit.programs[:3], missing))
    with (
        kernel.load(unit, cache_dir=cache_dir) as program,
        kernel.attach_tracepoints(program) as attachment,
    ):
        assert len(attachment) == 1
        (skip,) = attachment.skipped
    assert skip.what == "without process_exit"
    assert skip.reason == f"this kernel ({platform.release()}) has no tracepoint no_such_event"


def test_an_unknown_tracepoint_is_refused(hits_unit: model.Unit, cache_dir: Path) -> None:
    """The sentence names it."""
    programs = (*hits_unit.programs[:3], model.UnitProgram("process_exit", "raw_tracepoint", "no_such_event"))
    with (
        kernel.load(dataclasses.replace(hits_unit, programs=programs), cache_dir=cache_dir) as program,
        pytest.raises(KernelError, match="has no tracepoint no_such_event"),
    ):
        kernel.attach_tracepoints(program)
