"""Executables that are none, that are too old, too new or damaged: one sentence each, never another exception."""

from __future__ import annotations

import os
import re
import struct
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_goprobe import gobinary
from otel_goprobe.errors import BinaryError, NotGoError, UnsupportedBinaryError
from otel_goprobe.gobinary.elf import Elf

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = TypeVar("Answer")

LIMIT_SECONDS = 2.0
MAX_EXAMPLES = int(os.environ.get("OTEL_GOPROBE_FUZZ_EXAMPLES", "300"))
NAMES = ["main.main", "main.say", "runtime.gopanic", "runtime.newproc1", "runtime.goexit1"]


def ask_everything(path: Path) -> None:
    """Ask all that probes ask; only a BinaryError may come out, and soon."""
    start = time.process_time()
    try:
        with gobinary.open_binary(path) as binary:
            questions: list[Callable[[], object]] = [
                lambda: binary.has_dwarf,
                lambda: binary.inlined([*NAMES, "runtime.goready", "runtime.acquirem"]),
                lambda: binary.struct("runtime.g"),
                lambda: binary.struct("example.com/go-nothing/v2.Thing"),
                lambda: binary.field("runtime.g", "stack.hi"),
                lambda: binary.field("runtime.m", "curg"),
                lambda: binary.itab("*main.loud", "main.speaker"),
                lambda: [binary.type_name(binary._module.types + at) for at in range(0, 4096, 8)],
                lambda: len(binary.function_names()),
            ]
            for question in questions:
                tried(question)
            for function in (tried(lambda: binary.functions(NAMES)) or {}).values():
                tried(partial(binary.start_site, function))
                tried(partial(binary.return_sites, function))
                tried(partial(binary.calls, function, function))
                tried(partial(binary.result_sites, function, function))
    except BinaryError as error:
        if str(path) not in error.message or "\n" in error.message:
            raise AssertionError(error.message) from error
    assert time.process_time() - start < LIMIT_SECONDS


def tried(question: Callable[[], Answer]) -> Answer | None:
    """Ask, and take a BinaryError for no answer."""
    try:
        return question()
    except BinaryError:
        return None


@pytest.fixture(scope="module")
def content(minimal: Path) -> bytes:
    """Give the bytes that are damaged."""
    return minimal.read_bytes()


@pytest.fixture(scope="module")
def regions(minimal: Path) -> list[tuple[int, int]]:
    """File offsets, from and to, of the tables that are read; most of the file is code that nothing looks at."""
    elf = Elf(minimal)
    with gobinary.open_binary(minimal) as binary:
        table, module = binary._table, binary._module
        functions = binary.functions(NAMES).values()
        types = [binary._types.find(name)[0] for name in ("runtime.g", "runtime.m", "main.loud")]
        records = [elf.file_offset(table.functions_address) + 4 * each.record for each in functions]
        starts = [elf.file_offset(each.address) for each in functions]
        places = elf.places_of_pointer(table.address)
        spans = [
            (0, 1024),
            (table.file_offset, table.file_offset + 128),
            (table._pc_tables, table._pc_tables + 4096),
            (elf.file_offset(table.functions_address), elf.file_offset(table.functions_address) + 8 * table.count),
            (elf.file_offset(module.types), elf.file_offset(module.types) + 4096),
            (elf.file_offset(module.funcdata), elf.file_offset(module.funcdata) + 4096),
            *((elf.file_offset(place), elf.file_offset(place) + 400) for place in places),
            *((at, at + 80) for at in records + [elf.file_offset(each) for each in types]),
            *((at, at + 64) for at in starts),
        ]
        build = elf.sections[".go.buildinfo"]
        spans.append((build.offset, build.offset + build.size))
    header = int.from_bytes(elf.data[40:48], "little")
    elf.close()
    return [*spans, (header, header + 64 * 24)]


@settings(max_examples=MAX_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes(data: st.DataObject, content: bytes, regions: list[tuple[int, int]], tmp_path: Path) -> None:
    """Flipped bits and hostile numbers, in the tables that are read."""
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        start, end = data.draw(st.sampled_from(regions))
        at = data.draw(st.integers(start, end - 1))
        if data.draw(st.booleans()):
            damaged[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            width = data.draw(st.sampled_from([1, 2, 4, 8]))
            value = data.draw(
                st.sampled_from([0, 1, 0x7F, 0x80, (1 << 8 * width - 1) - 1, (1 << 8 * width) - 1, 1 << 40])
            )
            at -= at % width
            damaged[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
    path = tmp_path / "damaged"
    path.write_bytes(damaged)
    ask_everything(path)


@settings(max_examples=MAX_EXAMPLES // 3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_truncated_files(data: st.DataObject, content: bytes, tmp_path: Path) -> None:
    """The file may end anywhere."""
    path = tmp_path / "truncated"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    ask_everything(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(address=st.one_of(st.integers(0, 1 << 64), st.integers(0, 1 << 21).map(lambda each: 0x400000 + each)))
def test_any_address_may_be_asked_for_its_type(address: int, minimal: Path) -> None:
    """Such an address comes from the memory of a target."""
    with gobinary.open_binary(minimal) as binary:
        name = binary.type_name(address)
        assert name is None or name.isprintable()


def changed(content: bytes, path: Path, at: int, value: bytes) -> Path:
    """Write `content` with `value` at offset `at`."""
    path.write_bytes(content[:at] + value + content[at + len(value) :])
    return path


@pytest.mark.parametrize(
    ("at", "value", "kind", "said"),
    [
        (0, b"#!/b", NotGoError, "is not an ELF executable"),
        (4, b"\x01", UnsupportedBinaryError, "is a 32-bit executable"),
        (5, b"\x02", UnsupportedBinaryError, "is a big-endian executable"),
        (16, b"\x01", NotGoError, "but not an executable"),
        (18, b"\xf3", UnsupportedBinaryError, "e_machine 243"),
    ],
)
def test_headers_of_others(  # noqa: PLR0917 - a table's columns and two fixtures
    at: int, value: bytes, kind: type[BinaryError], said: str, content: bytes, tmp_path: Path
) -> None:
    """Other machines and other kinds of files are named as what they are."""
    path = changed(content, tmp_path / "program", at, value)
    for opening in (gobinary.open_binary, gobinary.identify):
        with pytest.raises(kind, match=re.escape(f"{path} ") + ".*" + said):
            opening(path)


def test_a_go_that_is_too_old_is_named(content: bytes, minimal: Path, tmp_path: Path) -> None:
    """By its version; its identity is still told."""
    version = gobinary.identify(minimal).build_info.go_version.encode()
    older = b"go1.20.5".ljust(len(version), b"0")
    path = changed(content, tmp_path / "old", content.find(version, content.find(b"\xff Go buildinf:")), older)
    assert gobinary.identify(path).build_info.go_version == older.decode()
    with pytest.raises(UnsupportedBinaryError, match=rf"was built with {older.decode()}: Go 1\.21 or newer is needed"):
        gobinary.open_binary(path)


def test_a_go_newer_than_any_known_is_tried(content: bytes, minimal: Path, tmp_path: Path) -> None:
    """With the newest layout."""
    version = gobinary.identify(minimal).build_info.go_version.encode()
    newer = b"go1.99.1".ljust(len(version), b"0")
    path = changed(content, tmp_path / "new", content.find(version, content.find(b"\xff Go buildinf:")), newer)
    with gobinary.open_binary(path) as binary, gobinary.open_binary(minimal) as known:
        assert binary.struct("runtime.g") == known.struct("runtime.g")
        assert binary.functions(NAMES) == known.functions(NAMES)


def test_fields_out_of_order_are_refused(content: bytes, minimal: Path, tmp_path: Path) -> None:
    """A layout that is not understood never gives an offset."""
    elf = Elf(minimal)
    with gobinary.open_binary(minimal) as binary:
        (descriptor,) = binary._types.find("runtime.g")
        second_field = elf.file_offset(elf.pointer(descriptor + 56) + 24)
    elf.close()
    path = changed(content, tmp_path / "disordered", second_field + 16, struct.pack("<Q", 0))
    with gobinary.open_binary(path) as binary, pytest.raises(UnsupportedBinaryError, match=r"fields of runtime\.g"):
        binary.field("runtime.g", "goid")


def test_dwarf_that_disagrees_refuses_the_field(server_plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that field alone."""
    with gobinary.open_binary(server_plain) as binary:
        layout = binary._dwarf.struct("net/url.URL")
        assert layout is not None
        moved = type(layout)(layout.size, {**layout.offsets, "Path": 8})
        monkeypatch.setattr(binary._dwarf, "struct", lambda _: moved)
        with pytest.raises(UnsupportedBinaryError, match=r"net/url\.URL\.Path .* is at 56 .* but at 8 "):
            binary.field("net/url.URL", "Path")
        assert binary.field("net/url.URL", "Host") is not None


def test_files_that_cannot_be_executables(tmp_path: Path) -> None:
    """A pipe does not block, an absent file says why."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "empty", Path("/dev/zero")):
        with pytest.raises(NotGoError, match="is not an ELF executable"):
            gobinary.open_binary(path)
    with pytest.raises(BinaryError, match="can't be opened \\(No such file or directory\\)") as caught:
        gobinary.open_binary(tmp_path / "absent")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_packed_program_is_told(content: bytes, tmp_path: Path) -> None:
    """From any other file without build info."""
    path = tmp_path / "packed"
    path.write_bytes(content[:512].replace(b"Go buildinf", b"Go XXXXXXXX") + b"\0" * 100 + b"UPX!" + bytes(8192))
    with pytest.raises(UnsupportedBinaryError, match="is packed with UPX"):
        gobinary.open_binary(path)
