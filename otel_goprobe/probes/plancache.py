"""Plans of executables that were analysed before, kept on disk; plans.py asks for them.

An analysis takes 0.2 s in a process of its own, reading a plan back half a millisecond. A file that
isn't understood, or doesn't fit the executable, is taken for absent: the worst that can happen is an analysis.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from otel_goprobe.errors import BinaryError
from otel_goprobe.gobinary.elf import Elf
from otel_goprobe.model import Plan
from otel_goprobe.probes.analysis import Analysis

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger(__name__)

MAX_PLANS = 512
"""Of about 4 kB each; beyond it the ones that were written longest ago go."""
_MAX_PLAN_BYTES = 1 << 20
_HEADER_BYTES = 4096
_SUFFIX = ".plan.json"


class PendingPlan:
    """The plan for one executable: read from the cache, or an analysis that has begun.

    Args:
        path: opens the executable until `result` has been called.
        folder: where plans are kept, made if need be; used only if nobody but this user may write in it.
    """

    def __init__(self, path: str, folder: Path) -> None:
        key = _key(path)
        self._file = folder / f"{key}{_SUFFIX}" if key and _trusted(folder) else None
        self._plan: Plan | Analysis = (_read(self._file, path) if self._file else None) or Analysis(path)

    @property
    def known(self) -> bool:
        """Whether `result` needn't wait for an analysis."""
        return not isinstance(self._plan, Analysis)

    def result(self) -> Plan:
        """Return it.

        Raises:
            BinaryError: as `gobinary.open_binary`.
        """
        if isinstance(self._plan, Analysis):
            self._plan = self._plan.plan()
            if self._file:
                _write(self._file, self._plan)
        return self._plan


def cached_plan(path: str, folder: Path) -> Plan:
    """Return the plan for an executable; arguments and errors are those of `PendingPlan` and its `result`."""
    return PendingPlan(path, folder).result()


def _key(path: str) -> str:
    """Name the executable's content and this program's knowledge; empty for an executable without a build id.

    A build id is a hash of the content as the compiler made it; size and headers tell of what was stripped or patched
    afterwards.
    """
    try:
        elf = Elf(path)
    except (BinaryError, ValueError, IndexError):
        return ""
    try:
        build_id, size, header = elf.build_id, len(elf.data), elf.data[:_HEADER_BYTES]
        sections = int.from_bytes(header[40:48], "little")
        table = elf.data[sections : sections + _HEADER_BYTES]
    except (ValueError, IndexError):
        return ""
    finally:
        elf.close()
    if not build_id:
        return ""
    digest = hashlib.sha256(f"{build_id}\0{size}\0{_knowledge()}\0".encode())
    digest.update(header + table)
    return digest.hexdigest()[:40]


def _knowledge() -> str:
    """Change with any source that a plan depends on, so that no plan outlives the code that made it."""
    package = Path(__file__).resolve().parents[1]
    sources = sorted(source for folder in ("gobinary", "probes") for source in (package / folder).glob("*.py"))
    return " ".join(f"{source.name} {source.stat().st_size} {source.stat().st_mtime_ns}" for source in sources)


def _trusted(folder: Path) -> bool:
    """Tell whether the folder is there and belongs to this user alone: what is in it decides where probes go."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        log.debug("no plans are kept in %s: %s", folder, error)
        return False
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _read(file: Path, path: str) -> Plan | None:
    try:
        with file.open("rb") as source:
            plan = msgspec.json.decode(source.read(_MAX_PLAN_BYTES), type=Plan)
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
