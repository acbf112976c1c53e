"""The unit `wire` and a process -> its client sockets in the sockhash, those it has and those it will have.

otel_goprobe/wire.py makes one `Sockets` an agent; `features` tries what it needs. All of it is held by links and maps
of this process, so that it goes with the agent however that ends. Numbers: include/uapi/linux/{bpf,mount}.h, 6.18.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import ipaddress
import os
import socket
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from otel_goprobe.errors import KernelError, TargetGoneError, UnsupportedByKernelError
from otel_goprobe.kernel.capabilities import BPF, NET_ADMIN, SYS_ADMIN, SYS_PTRACE, refusal
from otel_goprobe.kernel.maps import NO_EXIST, u32
from otel_goprobe.kernel.syscalls import ATTACH_CGROUP_SOCK_OPS, ATTACH_SK_MSG_VERDICT, bpf, libc, syscall

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from otel_goprobe.kernel.loader import Program

# arch/x86/entry/syscalls/syscall_64.tbl
_NR_FSOPEN = 430
_NR_FSCONFIG = 431
_NR_FSMOUNT = 432
_NR_PIDFD_GETFD = 438

# enum bpf_cmd
_PROG_ATTACH = 8
_LINK_CREATE = 28

_CLOSE_ON_EXEC = 1
"""FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC."""
_FSCONFIG_CREATE = 6
_CLONE_NEWCGROUP = 0x02000000
"""include/uapi/linux/sched.h."""

_TUPLE = struct.Struct("=16s16sHHI")
"""``struct wire_tuple`` of bpf/include/wire.h."""
_KEY = struct.Struct(f"{_TUPLE.size}s")
_U32 = struct.Struct("=I")
_SOCKET = struct.Struct("=II")
"""``struct wire_socket``: slot, member."""


# --- links -----------------------------------------------------------------------------------------------------------


def sock_ops_link(program: int, cgroup: int) -> int:
    """A link that runs a sock_ops program for the sockets made in a cgroup and those below it.

    A legacy attachment (BPF_PROG_ATTACH) would outlive this process.

    Raises:
        KernelError: the kernel refused, such as where another program holds the cgroup for itself.
    """
    try:
        return bpf(_LINK_CREATE, struct.pack("<IIII", program, cgroup, ATTACH_CGROUP_SOCK_OPS, 0))
    except OSError as error:
        raise refusal(error, "attaching to the sockets of a cgroup", BPF, NET_ADMIN) from error


def attach_sk_msg(program: int, sockhash: int) -> int | None:
    """Run an sk_msg program on what the sockets of a sockhash send.

    Returns:
        A link; None where the kernel has none for it (< 6.10): attached the legacy way, it goes with the map, and that
        with this process.

    Raises:
        KernelError: the kernel refused.
    """
    try:
        return bpf(_LINK_CREATE, struct.pack("<IIII", program, sockhash, ATTACH_SK_MSG_VERDICT, 0))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise refusal(error, "attaching to a sockhash", BPF, NET_ADMIN) from error
    try:
        bpf(_PROG_ATTACH, struct.pack("<IIII", sockhash, program, ATTACH_SK_MSG_VERDICT, 0))
    except OSError as error:
        raise refusal(error, "attaching to a sockhash", BPF, NET_ADMIN) from error
    return None


# --- the cgroup of a process -----------------------------------------------------------------------------------------


def open_cgroup(pid: int) -> int:
    """A descriptor of the cgroup (v2) of a process, wherever this process is.

    By a mount that is in sight, else by one of our own that is attached to no path and so is seen by nobody. Paths are
    relative to the reader's cgroup namespace; a process outside of it is looked up from within its own, in a thread.

    Raises:
        TargetGoneError: the process ended.
        UnsupportedByKernelError: it is in no cgroup of version 2.
        KernelError: it can't be reached, for want of CAP_SYS_ADMIN as a rule.
    """
    path = _cgroup_path(pid)
    if not path.startswith("/.."):
        for root, mount_point in _cgroup_mounts():
            below = path.removeprefix(root.rstrip("/"))
            if path.startswith(root) and (not below or below.startswith("/")):
                with contextlib.suppress(OSError):
                    return os.open(mount_point + below, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return _opened_by_own_mount(path)
    return _in_cgroup_namespace(pid)


def _cgroup_path(pid: int) -> str:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise TargetGoneError(f"process {pid} has ended") from error
    for line in lines:
        if line.startswith("0::"):
            return line[3:].removesuffix(" (deleted)")
    raise UnsupportedByKernelError(f"process {pid} is in no cgroup of version 2", "boot with cgroup v2")


def _cgroup_mounts() -> Iterator[tuple[str, str]]:
    """Root within cgroupfs, and mount point, of each mount in sight; proc_pid_mountinfo(5)."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        mount, _, filesystem = line.partition(" - ")
        if filesystem.startswith("cgroup2 "):
            root, mount_point = mount.split()[3:5]
            if not root.startswith("/.."):
                yield root, mount_point.replace("\\040", " ")


def _opened_by_own_mount(path: str) -> int:
    filesystem = mount = -1
    try:
        filesystem = _checked(syscall(_NR_FSOPEN, b"cgroup2", ctypes.c_uint(_CLOSE_ON_EXEC)))
        _checked(syscall(_NR_FSCONFIG, ctypes.c_int(filesystem), ctypes.c_uint(_FSCONFIG_CREATE), None, None, 0))
        mount = _checked(
            syscall(_NR_FSMOUNT, ctypes.c_int(filesystem), ctypes.c_uint(_CLOSE_ON_EXEC), ctypes.c_uint(0))
        )
        return os.open(path.lstrip("/") or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    except OSError as error:
        raise refusal(error, f"opening the cgroup {path}", SYS_ADMIN) from error
    finally:
        for descriptor in (filesystem, mount):
            if descriptor >= 0:
                os.close(descriptor)


def _in_cgroup_namespace(pid: int) -> int:
    """A namespace is a thread's: this one's ends with it."""
    found: list[int | KernelError | TargetGoneError] = []

    def look() -> None:
        try:
            namespace = os.open(f"/proc/{pid}/ns/cgroup", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _checked(libc.setns(namespace, _CLONE_NEWCGROUP))
            finally:
                os.close(namespace)
            found.append(_opened_by_own_mount(_cgroup_path(pid)))
        except OSError as error:
            found.append(refusal(error, f"entering the cgroup namespace of process {pid}", SYS_ADMIN, SYS_PTRACE))
        except (KernelError, TargetGoneError) as error:
            found.append(error)

    thread = threading.Thread(target=look, name="cgroup")
    thread.start()
    thread.join()
    answer = found[0]
    if isinstance(answer, int):
        return answer
    raise answer


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


# --- sockets of a process --------------------------------------------------------------------------------------------


def tuple_of(local: tuple[str, int], remote: tuple[str, int]) -> bytes:
    """A connection as ``struct wire_tuple``; `local` is the client's side, each an address and a port."""
    return _TUPLE.pack(_ip_bytes(local[0]), _ip_bytes(remote[0]), local[1], remote[1], 0)


def _ip_bytes(text: str) -> bytes:
    ip = ipaddress.ip_address(text.partition("%")[0])
    return bytes(10) + b"\xff\xff" + ip.packed if ip.version == 4 else ip.packed


def is_local(local: str, remote: str) -> bool:
    """Whether both ends are on this host; as ``wire_is_local`` of bpf/include/wire.h."""
    ip = ipaddress.ip_address(_ip_bytes(remote))
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback or _ip_bytes(local) == _ip_bytes(remote)


@dataclass(frozen=True, slots=True)
class _Connected:
    """A socket of a process."""

    descriptor: int
    """In that process."""
    local_port: int
    tuple: bytes


def _borrowed(pidfd: int, descriptor: int) -> socket.socket | None:
    """A duplicate of a process's descriptor; None where it isn't a socket any more."""
    try:
        return socket.socket(
            fileno=_checked(syscall(_NR_PIDFD_GETFD, ctypes.c_int(pidfd), ctypes.c_int(descriptor), ctypes.c_uint(0)))
        )
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise refusal(error, "looking at another process's sockets", SYS_PTRACE) from error
        return None


def _client_sockets(pid: int, pidfd: int, served: Collection[int]) -> Iterator[_Connected]:
    """TCP connections that the process made itself: not those to a port of its own, nor within the host to `served`."""
    connected: list[_Connected] = []
    listening: set[int] = set()
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - names are what is wanted
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):  # noqa: PTH115 - no file's path
                continue
            borrowed = _borrowed(pidfd, int(name))
            if borrowed is None:
                continue
            with borrowed:
                if borrowed.family not in (socket.AF_INET, socket.AF_INET6) or borrowed.type != socket.SOCK_STREAM:
                    continue
                local = borrowed.getsockname()[:2]
                if borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    listening.add(local[1])
                    continue
                remote = borrowed.getpeername()[:2]  # ENOTCONN while it connects
            if not (is_local(local[0], remote[0]) and remote[1] in served):
                connected.append(_Connected(int(name), local[1], tuple_of(local, remote)))
    return (one for one in connected if one.local_port not in listening)


@dataclass(slots=True)
class Sockets:
    """The unit `wire` at work.

    Args:
        program: loaded with the core's maps.

    Raises:
        KernelError: the sk_msg program can't be attached.
    """

    program: Program
    _sk_msg: int | None = None
    _cgroups: dict[tuple[int, int], tuple[int, set[int]]] = field(default_factory=dict)
    """Device and inode of a cgroup -> its link, and the slots that want it."""

    def __post_init__(self) -> None:
        self._sk_msg = attach_sk_msg(
            self.program.descriptors["wire_message"], self.program.maps["wire_sockhash"].descriptor
        )

    def watch(self, pid: int, slot: int) -> int:
        """Take in the client sockets of a process: first those to come, then those it has.

        Call it before probes are attached that arm requests.

        Args:
            pid: in the PID namespace of this process.
            slot: index of the target.

        Returns:
            How many it has.

        Raises:
            TargetGoneError: the process ended.
            KernelError: its cgroup can't be attached to, or its sockets can't be looked at.
        """
        cgroup = open_cgroup(pid)
        try:
            status = os.fstat(cgroup)
            key = status.st_dev, status.st_ino
            if key not in self._cgroups:
                self._cgroups[key] = sock_ops_link(self.program.descriptors["wire_connection"], cgroup), set()
        finally:
            os.close(cgroup)
        self._cgroups[key][1].add(slot)
        try:
            return self._add_existing(pid, slot)
        except KernelError:
            self.forget(slot)
            raise

    def _add_existing(self, pid: int, slot: int) -> int:
        added = 0
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise TargetGoneError(f"process {pid} has ended") from error
        try:
            served = {number for (number,) in _U32.iter_unpack(self.program.maps["wire_served"].items()[0])}
            for one in _client_sockets(pid, pidfd, served):
                borrowed = _borrowed(pidfd, one.descriptor)
                if borrowed is None:
                    continue
                with borrowed, contextlib.suppress(OSError, KernelError):  # closed meanwhile, or already in
                    remote = borrowed.getpeername()[:2]
                    if tuple_of(borrowed.getsockname()[:2], remote) == one.tuple:
                        self._add(borrowed, one.tuple, slot)
                        added += 1
        finally:
            os.close(pidfd)
        return added

    def _add(self, borrowed: socket.socket, key: bytes, slot: int) -> None:
        """Into the sockhash first: what `wire_sockets` calls a member is armed."""
        self.program.maps["wire_sockhash"].update(key, u32(borrowed.fileno()), NO_EXIST)
        self.program.maps["wire_armed"].delete(key)
        self.program.maps["wire_sockets"].update(key, _SOCKET.pack(slot, 1))

    def serve(self, ports: Iterable[int], slot: int) -> None:
        """Note the ports on which a target listens: to them, no header is needed within the host."""
        for port in ports:
            self.program.maps["wire_served"].update(_U32.pack(port), _U32.pack(slot))

    def forget(self, slot: int) -> None:
        """Let go of a target's ports, of its sockets, which are as they were from then on, and of those to come."""
        for key, (link, slots) in tuple(self._cgroups.items()):
            slots.discard(slot)
            if not slots:
                os.close(link)
                del self._cgroups[key]
        tgids, slots_of = self.program.maps["tgid_slots"].items()
        for tgid, of_slot in zip(_U32.iter_unpack(tgids), _U32.iter_unpack(slots_of), strict=True):
            if of_slot[0] == slot:
                self.program.maps["tgid_slots"].delete(_U32.pack(*tgid))
        served = self.program.maps["wire_served"]
        for (port,), (of_slot,) in zip(*map(_U32.iter_unpack, served.items()), strict=True):
            if of_slot == slot:
                served.delete(_U32.pack(port))
        sockets = self.program.maps["wire_sockets"]
        keys, values = sockets.items()
        for (connection,), (of_slot, _) in zip(_KEY.iter_unpack(keys), _SOCKET.iter_unpack(values), strict=True):
            if of_slot == slot:
                sockets.delete(connection)
                self.program.maps["wire_sockhash"].delete(connection)
                self.program.maps["wire_armed"].delete(connection)

    def close(self) -> None:
        """Detach from everything."""
        for link, _ in self._cgroups.values():
            os.close(link)
        self._cgroups.clear()
        if self._sk_msg is not None:
            os.close(self._sk_msg)
            self._sk_msg = None
