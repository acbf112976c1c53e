"""Executables that are none, that are too old, too new or damaged: one sentence each, never another exception."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_goprobe import gobinary
from otel_goprobe.errors import BinaryError, NotGoError, UnsupportedBinaryError
from otel_goprobe.gobinary.elf import Elf

NAMES = ["main.main", "main.say", "runtime.gopanic", "runtime.newproc1", "runtime.goexit1"]


@pytest.fixture(scope="module")
def content(minimal: Path) -> bytes:
    """Give the bytes that are damaged."""
    return minimal.read_bytes()


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
    older = b"go1.17.5".ljust(len(version), b"0")
    path = changed(content, tmp_path / "old", content.find(version, content.find(b"\xff Go buildinf:")), older)
    assert gobinary.identify(path).build_info.go_version == older.decode()
    with pytest.raises(UnsupportedBinaryError, match=rf"was built with {older.decode()}: Go 1\.18 or newer is needed"):
        gobinary.open_binary(path)


def test_build_info_of_go_117_is_told(content: bytes, tmp_path: Path) -> None:
    """It is behind two pointers; the program is refused by its version, also where they lead nowhere."""
    elf = Elf(write(tmp_path / "plain", content))
    place = elf.sections[".go.buildinfo"].offset
    address = elf.address(place)
    elf.close()
    # flags 0; at 16 and 24 addresses of strings, whose headers and texts follow here
    text = b"go1.17.13"
    head = b"\xff Go buildinf:\x08\x00" + struct.pack("<QQ", address + 32, address + 48)
    strings = struct.pack("<QQQQ", address + 64, len(text), address + 64, 0) + text
    path = changed(content, tmp_path / "old", place, head + strings)
    assert gobinary.identify(path).build_info.go_version == "go1.17.13"
    with pytest.raises(UnsupportedBinaryError, match=r"was built with go1\.17\.13: Go 1\.18 or newer is needed"):
        gobinary.open_binary(path)
    path = changed(content, tmp_path / "lost", place, head[:16] + struct.pack("<QQ", 1 << 60, 8))
    assert gobinary.identify(path).build_info.go_version == ""


def write(path: Path, content: bytes) -> Path:
    """Write a file."""
    path.write_bytes(content)
    return path


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
