"""Plans of executables that were analysed before, kept on disk; plans.py asks for them.

An analysis takes 0.2 s in a process of its own, reading a plan back half a millisecond. A file that
isn't understood, or doesn't fit the executable, is taken for absent: the worst that can happen is an analysis.

The first thing that a start does is to ask for the programs of plans, so neither numpy nor `gobinary` is imported here.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from otel_goprobe.analysis import Analysis, OutlinedProbe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_goprobe.model import Plan

log = logging.getLogger(__name__)

MAX_PLANS = 512
"""Of about 4 kB each; beyond it the ones that were written longest ago go."""
_MAX_PLAN_BYTES = 1 << 20
_HEADER_BYTES = 4096
_SUFFIX = ".plan.json"
_ELF64 = b"\x7fELF\x02\x01"
"""The first bytes of a 64-bit little-endian ELF file, elf.h."""
_PT_NOTE = 4
_MAX_NOTES = 16
_BUILD_IDS = (struct.pack("<I4s", 4, b"Go"), struct.pack("<I4s", 3, b"GNU"))
"""Type and name of the notes that hold one: Go's (cmd/internal/buildid/note.go), and NT_GNU_BUILD_ID of elf.h."""


class _Outline(msgspec.Struct, frozen=True):
    probes: tuple[OutlinedProbe, ...]


class PendingPlan:
    """The plan for one executable: found in the cache, or an analysis that has begun.

    Args:
        path: opens the executable until `result` has been called.
        folder: where plans are kept, made if need be; used only if nobody but this user may write in it.
    """

    def __init__(self, path: str, folder: Path) -> None:
        key = _key(path)
        self._path = path
        self._file = folder / f"{key}{_SUFFIX}" if key and _trusted(folder) else None
        self._content = _read(self._file) if self._file else b""
        self.outline = _outline(self._content)
        """What can be said without waiting for an analysis; None where one has begun."""
        self._analysis = Analysis(path) if self.outline is None else None

    def likely(self) -> tuple[OutlinedProbe, ...]:
        """Return what the plan probably has, waiting for what an analysis says first."""
        if self.outline is not None:
            return self.outline
        return self._analysis.likely() if self._analysis else ()

    def result(self) -> Plan:
        """Return it.

        Raises:
            BinaryError: as `gobinary.open_binary`.
        """
        if self._analysis is None and (plan := _decoded(self._content, self._path)) is not None:
            return plan
        plan = (self._analysis or Analysis(self._path)).plan()
        if self._file:
            _write(self._file, plan)
        return plan


def cached_plan(path: str, folder: Path) -> Plan:
    """Return the plan for an executable; arguments and errors are those of `PendingPlan` and its `result`."""
    return PendingPlan(path, folder).result()


def _key(path: str) -> str:
    """Name the executable's content and this program's knowledge; empty for an executable without a build id.

    A build id is a hash of the content as the compiler made it; size and headers tell of what was stripped or patched
    afterwards.
    """
    try:
        # Without O_NONBLOCK the open of a named pipe waits for a writer.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        status = os.fstat(file)
        header = os.pread(file, _HEADER_BYTES, 0) if stat.S_ISREG(status.st_mode) else b""
        if not header.startswith(_ELF64):
            return ""
        notes = _notes(file, header)
        (sections,) = struct.unpack_from("<Q", header, 40)
        table = os.pread(file, _HEADER_BYTES, min(sections, status.st_size))
    except (OSError, struct.error, OverflowError):
        return ""
    finally:
        os.close(file)
    if not any(build_id in notes for build_id in _BUILD_IDS):
        return ""
    digest = hashlib.sha256(f"{status.st_size}\0{_knowledge()}\0".encode())
    for part in (notes, header, table):
        digest.update(part)
    return digest.hexdigest()[:40]


def _notes(file: int, header: bytes) -> bytes:
    """Return the beginnings of an ELF file's segments of notes."""
    (at,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    found = []
    for _ in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", header, at)
        if kind == _PT_NOTE:
            found.append(os.pread(file, min(length, _HEADER_BYTES), offset))
        at += size
    return b"".join(found[:_MAX_NOTES])


def _knowledge() -> str:
    """Change with any source that a plan depends on, so that no plan outlives the code that made it."""
    package = Path(__file__).resolve().parent
    sources = [entry for folder in ("gobinary", "probes") for entry in os.scandir(package / folder)]
    stats = sorted((source.name, source.stat()) for source in sources if source.name.endswith(".py"))
    return " ".join(f"{name} {status.st_size} {status.st_mtime_ns}" for name, status in stats)


def _trusted(folder: Path) -> bool:
    """Tell whether the folder is there and belongs to this user alone: what is in it decides where probes go."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        log.debug("no plans are kept in %s: %s", folder, error)
        return False
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as source:
            return source.read(_MAX_PLAN_BYTES)
    except OSError:
        return b""


def _outline(content: bytes) -> tuple[OutlinedProbe, ...] | None:
    try:
        return msgspec.json.decode(content, type=_Outline).probes
    except msgspec.MsgspecError:
        return None


def _decoded(content: bytes, path: str) -> Plan | None:
    """Return the plan if it is one and fits the executable."""
    from otel_goprobe.model import Plan  # noqa: PLC0415 - see above

    try:
        plan = msgspec.json.decode(content, type=Plan)
        with Path(path).open("rb") as executable:
            for site in (site for probe in plan.probes for site in probe.sites):
                if os.pread(executable.fileno(), len(site.expected), site.file_offset) != site.expected:
                    return None
    except (OSError, ValueError, OverflowError):  # msgspec.DecodeError and ValidationError are ValueErrors
        return None
    return plan


def _write(file: Path, plan: Plan) -> None:
    """Write it whole or not at all, and keep the folder small."""
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as temporary:
            temporary.write(msgspec.json.encode(plan))
        Path(temporary.name).replace(file)
        _trim(file.parent.glob(f"*{_SUFFIX}"))
    except OSError as error:
        log.debug("the plan could not be kept in %s: %s", file, error)


def _trim(files: Iterable[Path]) -> None:
    by_age = sorted(files, key=lambda file: file.stat().st_mtime_ns)
    for file in by_age[:-MAX_PLANS]:
        file.unlink(missing_ok=True)
