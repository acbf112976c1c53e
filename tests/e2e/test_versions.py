"""Releases of Go, ways to build: each attached, its requests and spans compared (`make test-versions`).

The executables are built beside the tests, in the tests' order, by threads that leave the processor to them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import compatibility
import pytest
from compatibility import BUILDS, Build, Row, measured, record
from goprograms import go_binary
from harness import expect
from harness.agent import Agent, run
from harness.client import at_once, in_turn, one_after_another
from harness.target import Target

from otel_goprobe import gobinary, probes
from otel_goprobe.errors import UnsupportedBinaryError
from otel_goprobe.gobinary.dwarf import Dwarf
from otel_goprobe.gobinary.elf import Elf
from otel_goprobe.probes.base import Field, Role, StructPresent
from otel_goprobe.probes.registry import SHARED_FACTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.receiver import Receiver, Span
    from harness.target import Line

pytestmark = [pytest.mark.root, pytest.mark.versions, pytest.mark.timeout(900)]

ARRANGEMENTS = ("plain", "context", "timeout", "inside")
WITHOUT_LINEAGE = ("go1.19", "go1.20")
"""A goroutine doesn't know there who started it, so that the routes behind http.TimeoutHandler stay unknown."""
CLOSE_NS = 1_000_000
"""How far the wall clock of a span may be off."""
LEAST_FIELDS = 100
"""Of the structs that the probes use; runtime.g alone has more than fifty."""
E_SHOFF, E_SHNUM = 40, 60
"""Offsets in ELF64's header, of 8 bytes, and of 2 and another 2 for e_shstrndx."""


@pytest.fixture(scope="module")
def built(request: pytest.FixtureRequest) -> Iterator[Callable[[Build], Path]]:
    """Give the executable of a build; all that will be asked for are being built meanwhile."""
    wanted = [build for item in request.session.items if isinstance(build := _parameters(item).get("build"), Build)]
    with ThreadPoolExecutor(2, initializer=_yield_the_processor) as pool:
        futures = {build: pool.submit(build.executable) for build in wanted}
        yield lambda build: futures[build].result()
        pool.shutdown(cancel_futures=True)


def _parameters(item: pytest.Item) -> dict[str, object]:
    return item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}


def _yield_the_processor() -> None:
    """Linux keeps a nice value for each thread, and gives it to the processes that the thread starts."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_requests_are_spans(build: Build, built: Callable[[Build], Path], receiver: Receiver) -> None:
    """23 one after another and 23 at once in each arrangement of routes, all attributes; the structs' every field."""
    exe = built(build)
    fields = agreeing_fields(exe)
    assert fields == 0 if build.stripped else fields >= LEAST_FIELDS
    if build.kind == "-pgo":
        has_starts_and_ends(exe)
    traced(str(build), exe, receiver, fields=fields)


def test_without_section_headers(receiver: Receiver, tmp_path: Path) -> None:
    """Segments are enough."""
    exe = Path(shutil.copy(go_binary("http_server", strip=True), tmp_path))
    with exe.open("r+b") as file:
        for offset, size in ((E_SHOFF, 8), (E_SHNUM, 4)):
            file.seek(offset)
            file.write(bytes(size))
    traced(compatibility.NO_SECTIONS, exe, receiver)


def test_packed_is_refused_with_a_sentence(tmp_path: Path) -> None:
    """By UPX where there is one; else the same shape: a stub and compressed bytes, no sections."""
    exe = Path(shutil.copy(go_binary("http_server", strip=True), tmp_path))
    with gobinary.open_binary(exe) as binary:
        go = binary.build_info.go_version
    upx = shutil.which("upx")
    if upx:
        subprocess.run([upx, "-q", "-1", exe], check=True, capture_output=True)
    else:
        exe.write_bytes(packed(exe.read_bytes()))
    said = run("inspect", str(exe))
    assert said.returncode == UnsupportedBinaryError.exit_code
    assert "Traceback" not in said.stdout + said.stderr
    sentence = said.stderr.strip().splitlines()[0].removeprefix("error: ").replace(str(exe), "FILE")
    assert "FILE" in sentence
    record(
        Row(
            name=compatibility.PACKED,
            go=go,
            refused=sentence,
            more="packed by `upx`" if upx else "packed as UPX does (this Debian has no `upx`)",
        )
    )


def packed(program: bytes) -> bytes:
    """Return an ELF executable of two segments as UPX makes them: a header, its mark, compressed bytes."""
    body = b"UPX!" + zlib.compress(program, 1)
    start = 64 + 2 * 56
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x400000 + start, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    code = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, start + len(body), start + len(body), 4096)
    room = struct.pack("<IIQQQQQQ", 1, 6, 0, 0x4000000, 0x4000000, 0, len(program), 4096)
    return header + code + room + body


def traced(name: str, exe: Path, receiver: Receiver, *, fields: int = 0) -> None:
    """Check 46 requests in each arrangement of routes, and record the row.

    Raises:
        AssertionError: a span is missing, wrong, or too many.
    """
    requests = in_turn(23)
    right = 0
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Target(exe, "-mux", arrangement)) for arrangement in ARRANGEMENTS]
        pids = [argument for server in servers for argument in ("--pid", str(server.pid))]
        agent = stack.enter_context(Agent("--service", "shop", *pids, environment=receiver.environment))
        agent.attached(len(servers))
        for server in servers:
            one_after_another(server.port, requests)
            at_once(server.port, requests)
        logs = [server.wait_log(46) for server in servers]
        outcome = agent.stop()
    with gobinary.open_binary(exe) as binary:
        lineage = not binary.build_info.go_version.startswith(WITHOUT_LINEAGE)
    unrouted = None if lineage else logs[ARRANGEMENTS.index("timeout")]
    for server, log in zip(servers, logs, strict=True):
        spans = [span for span in receiver.spans if span.attributes["server.port"] == server.port]
        known = [replace(request, route="") for request in requests] if log is unrouted else requests
        expect.spans_match(spans, log, known, timing=False)
        enclose(spans, log)
        right += len(spans)
    assert right == len(receiver.spans) == 46 * len(servers)
    assert (outcome.started, outcome.exported, outcome.dropped) == (right, right, {})
    record(measured(name, exe, requests=right, right=right, fields=fields))


def enclose(spans: Sequence[Span], log: Sequence[Line]) -> None:
    """Check that spans enclose their handlers' intervals; test_http_server.py says how closely, without builds beside.

    Raises:
        AssertionError: one doesn't.
    """
    offset = expect.wall_offset()
    for span, line in expect.pairs(spans, log):
        assert span.start <= line.start + offset + CLOSE_NS
        assert span.end >= line.end + offset - CLOSE_NS
        assert span.end - span.start >= line.end - line.start


def structs_of_probes() -> set[str]:
    """Return the names of the structs of which any probe wants to know something."""
    facts = (*SHARED_FACTS, *(fact for library in probes.libraries() for fact in library.facts))
    return {fact.struct for fact in facts if isinstance(fact, Field | StructPresent)}


def agreeing_fields(exe: Path) -> int:
    """Return on how many fields of the structs that the probes use type metadata and DWARF agree; 0 without DWARF.

    Raises:
        AssertionError: they disagree on a field, its name, offset or size, or on a struct's size.
    """
    count = 0
    with contextlib.closing(Elf(exe)) as elf, gobinary.open_binary(exe) as binary:
        dwarf = Dwarf(elf)
        if not binary.has_dwarf:
            return 0
        for name in sorted(structs_of_probes()):
            metadata, layout = binary.struct(name), dwarf.struct(name)
            assert (metadata is None) is (layout is None), name
            if metadata is None or layout is None:
                continue
            assert layout.size == metadata.size
            named = {field: offset for field, offset in layout.offsets.items() if field != "_"}
            assert named == {field.name: field.offset for field in metadata.fields.values()}
            for field in named:
                found = binary.field(name, field)
                assert found is not None
                assert found.source == "dwarf+types"
            count += len(named)
    return count


def has_starts_and_ends(exe: Path) -> None:
    """Check that a profile inlined the function where requests end, and that starts and ends have places all the same.

    Raises:
        AssertionError: it isn't so.
    """
    with gobinary.open_binary(exe) as binary:
        assert "-pgo" in binary.build_info.settings
        assert binary.inlined(["net/http.(*response).finishRequest"])
        for outcome in probes.consider(binary):
            assert outcome.refused == ""
            placed = {hook.hook.role for hook in outcome.hooks if hook.sites}
            assert placed >= {Role.START, Role.END} & {hook.hook.role for hook in outcome.hooks}
