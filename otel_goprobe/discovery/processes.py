"""A pid -> `model.GoProcess`, or why it is none; called by watch.py at each scan and by `otel-goprobe list`.

A Go program is recognised by the build info in its executable, which is opened through /proc/PID/exe: deleted, replaced
and containerised files work. Each file is analysed once; after that a process that isn't Go costs one `stat`.
"""

from __future__ import annotations

import errno
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from otel_goprobe import gobinary
from otel_goprobe.discovery import ports, proc
from otel_goprobe.errors import BinaryError, NotGoError, UnsupportedBinaryError
from otel_goprobe.model import BuildInfo, GoProcess

_MAX_FILES: Final = 4096
"""Executables remembered; a machine that builds and tests all day makes new ones without end."""
_BUILD_INFO_MAGIC: Final = b"\xff Go buildinf:"
"""debug/buildinfo/buildinfo.go, buildInfoMagic; the same for every architecture and word size."""


class FileIdentity(NamedTuple):
    """What changes when a file is replaced or written to."""

    device: int
    inode: int
    mtime_ns: int
    size: int


@dataclass(frozen=True, slots=True)
class Executable:
    """What discovery keeps of an analysed file."""

    build: BuildInfo | None
    """None for a program that isn't Go."""
    stripped: bool = False
    build_id: str = ""
    reason: str = ""
    """Why it can't be instrumented; empty where it can."""


def file_identity(path: str) -> FileIdentity:
    """Identify the file behind `path`, following links.

    Raises:
        OSError: there is none, or it may not be looked at.
    """
    status = os.stat(path)  # noqa: PTH116 - Path.stat costs twice as much, ten thousand times a scan
    return FileIdentity(status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


class Processes:
    """Looks at processes one by one and remembers the executables it has analysed.

    Attributes:
        unreadable: pids whose executable couldn't be looked at for want of a capability.
    """

    def __init__(self) -> None:
        self.unreadable: set[int] = set()
        self._executables: dict[FileIdentity, Executable] = {}

    def executable(self, path: str, name: str) -> Executable:
        """Analyse the file at `path`, once.

        Args:
            path: what opens it, such as ``/proc/1234/exe``.
            name: what a user calls it; stands in `Executable.reason`.

        Raises:
            OSError: it can't be opened.
        """
        for _ in range(3):
            file = file_identity(path)
            if file in self._executables:
                return self._executables[file]
            executable = _analysed(path, name)
            # An exec in between: what was opened isn't what was identified.
            if file_identity(path) == file:
                break
        if len(self._executables) >= _MAX_FILES:
            self._executables.clear()
        self._executables[file] = executable
        return executable

    def look(self, pid: int, known: GoProcess | None = None) -> GoProcess | None:
        """Say what `pid` runs now.

        Args:
            pid: any process id.
            known: what it was when last looked at; returned itself if it is still the same.

        Returns:
            The Go process; None for one that isn't Go, is gone, is a kernel thread, may not be looked at (then it is in
            `unreadable`), or is on its way through fork and exec, to be looked at again.
        """
        found = self._go_executable_of(pid)
        stat = proc.read_stat(pid) if found else None
        if found is None or stat is None:
            return None
        file, executable, build = found
        if (
            known
            and (known.start_ticks, known.device, known.inode) == (stat.start_ticks, file.device, file.inode)
            and known.stack_addr in {0, stat.stack_addr}
        ):
            return known
        environment = proc.read(pid, "environ")
        if stat.about_to_exec or (not environment and not stat.environment_end and environment is not None):
            return None
        return GoProcess(
            pid=pid,
            start_ticks=stat.start_ticks,
            exe=proc.read_link(pid, "exe"),
            device=file.device,
            inode=file.inode,
            build=build,
            stripped=executable.stripped,
            ports=ports.listening_ports(pid),
            unsupported=executable.reason,
            environment=proc.parse_environment(environment or b""),
            build_id=executable.build_id,
            stack_addr=stat.stack_addr,
        )

    def _go_executable_of(self, pid: int) -> tuple[FileIdentity, Executable, BuildInfo] | None:
        path = f"/proc/{pid}/exe"
        try:
            file = file_identity(path)
            executable = self._executables.get(file) or self.executable(path, proc.read_link(pid, "exe"))
        except PermissionError:
            self.unreadable.add(pid)
            return None
        except OSError:
            return None
        return (file, executable, executable.build) if executable.build else None

    def why_not(self, pid: int) -> str:
        """Say in a few words why `look` returned None for `pid`."""
        stat = proc.read_stat(pid)
        if stat is None:
            return "there is no such process"
        if stat.kernel_thread:
            return "it is a thread of the kernel"
        try:
            return (
                self.executable(f"/proc/{pid}/exe", proc.read_link(pid, "exe")).reason
                or "it is about to run another program"
            )
        except PermissionError:
            return "its executable may not be looked at"
        except OSError:
            return "it has ended"


def _analysed(path: str, name: str) -> Executable:
    """Open the file with gobinary; OSErrors of the opening come out as such."""
    try:
        identity = gobinary.identify(path)
        try:
            with gobinary.open_binary(path) as binary:
                reason = binary.untraceable
        except UnsupportedBinaryError as error:
            reason = error.message.replace(path, name)
        return Executable(identity.build_info, identity.stripped, identity.build_id, reason)
    except NotGoError as error:
        return Executable(None, reason=error.message.replace(path, name))
    except UnsupportedBinaryError as error:
        # A 32-bit C program is unsupported as well, but nobody asked for it.
        build = BuildInfo("", "", None) if _holds_build_info(path) else None
        return Executable(build, reason=error.message.replace(path, name))
    except BinaryError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise OSError(errno.EIO, error.message) from error


def _holds_build_info(path: str) -> bool:
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        return content.find(_BUILD_INFO_MAGIC) >= 0


def list_go_processes() -> list[GoProcess]:
    """All Go processes in sight by ascending pid, those that can't be instrumented included."""
    processes = Processes()
    found = (processes.look(pid) for pid in psutil.pids())
    return sorted((process for process in found if process is not None), key=lambda process: process.pid)
