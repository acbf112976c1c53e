"""Where the members of the kernel's sockets lie, out of its BTF; for bpf/include/connections.h.

agent.py calls `describe_sockets`.

Nothing is resolved by type number: that would mean to walk 130,000 types, which takes 0.1 s. A struct is found by its
name instead, members that lie in unnamed unions by the unnamed struct that holds them.
"""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from otel_goprobe.errors import UnsupportedByKernelError

if TYPE_CHECKING:
    from otel_goprobe.kernel.loader import Program

BTF = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
_KIND_STRUCT = 4
"""Documentation/bpf/btf.rst, "2. BTF Type and String Encoding"."""
_HEADER = struct.Struct("<HBBIIIII")

_MEMBERS = {
    "task_files": ("task_struct", "files"),
    "task_tgid": ("task_struct", "tgid"),
    "files_fdt": ("files_struct", "fdt"),
    "fdtable_fd": ("fdtable", "fd"),
    "file_private_data": ("file", "private_data"),
    "socket_sk": ("socket", "sk"),
    "sock_protocol": ("sock", "sk_protocol"),
    "sock_family": ("sock_common", "skc_family"),
    "sock_remote_v6": ("sock_common", "skc_v6_daddr"),
    "sock_local_v6": ("sock_common", "skc_v6_rcv_saddr"),
    "sock_net": ("sock_common", "skc_net"),
    "tcp_snd_una": ("tcp_sock", "snd_una"),
    "tcp_bytes_acked": ("tcp_sock", "bytes_acked"),
    "tcp_rcv_nxt": ("tcp_sock", "rcv_nxt"),
    "tcp_bytes_received": ("tcp_sock", "bytes_received"),
}
"""Member of ``struct socket_layout`` -> struct and member of the kernel."""

_UNIX_MEMBERS = {
    "unix_addr": ("unix_sock", "addr"),
    "unix_length": ("unix_address", "len"),
    "unix_name": ("unix_address", "name"),
}
"""The same, of what may be in a module: all 0 then."""

_ADDRESSES = (("skc_daddr", 0), ("skc_rcv_saddr", 4))
_PORTS = (("skc_dport", 0), ("skc_num", 2))
_ADDRESSES_OFFSET, _PORTS_OFFSET, _FAMILY_OFFSET = 0, 12, 16
"""include/net/sock.h, struct sock_common: two unions and a hash of 4 bytes come before skc_family, since Linux 3.9."""


class Btf:
    """Type information of the running kernel: structs by name, their members by name.

    Raises:
        UnsupportedByKernelError: there is none.
    """

    def __init__(self) -> None:
        import numpy as np  # noqa: PLC0415 - a start doesn't wait for it before the verifier works

        try:
            self._content = BTF.read_bytes()
        except OSError as error:
            raise UnsupportedByKernelError(f"{BTF} can't be read ({error.strerror})") from error
        magic, _, _, header, types, type_bytes, strings, string_bytes = _HEADER.unpack_from(self._content)
        if magic != _MAGIC:
            raise UnsupportedByKernelError(f"{BTF} isn't of this machine's byte order")
        self._words = np.frombuffer(self._content, np.uint32, type_bytes // 4, header + types)
        """Of all types, one behind the other."""
        self._strings: int = header + strings
        self._end = self._strings + string_bytes

    def name(self, text: str) -> int:
        """The number that stands for a name.

        Raises:
            UnsupportedByKernelError: nothing has it.
        """
        at = self._content.find(b"\0" + text.encode() + b"\0", self._strings, self._end)
        if at < 0:
            raise UnsupportedByKernelError(f"the kernel has nothing named {text}")
        return at + 1 - self._strings

    def struct(self, name: str) -> dict[int, int]:
        """Names of a struct's members -> offsets in bytes.

        Raises:
            UnsupportedByKernelError: there is none of that name.
        """
        for at in self._places(self.name(name)):
            _, information, size = self._words[at : at + 3].tolist()
            count = information & 0xFFFF
            if information >> 24 & 31 == _KIND_STRUCT and count and size:
                return self._members(at, count, bit_fields=bool(information >> 31))
        raise UnsupportedByKernelError(f"the kernel has no struct {name}")

    def _places(self, number: int) -> list[int]:
        """Where a number stands, from which on there may be a type or a member."""
        places: list[int] = (self._words[:-2] == number).nonzero()[0].tolist()
        return places

    def _members(self, at: int, count: int, *, bit_fields: bool) -> dict[int, int]:
        members = self._words[at + 3 : at + 3 + 3 * count].reshape(-1, 3).tolist()
        return {name: (offset & 0xFFFFFF if bit_fields else offset) // 8 for name, _, offset in members}

    def has_unnamed(self, members: tuple[tuple[str, int], ...]) -> bool:
        """Whether some unnamed struct has just these members."""
        names = [self.name(name) for name, _ in members]
        expected = dict(zip(names, (offset for _, offset in members), strict=True))
        for at in self._places(names[0]):
            name, information, _ = self._words[at - 3 : at].tolist() if at >= 3 else (1, 0, 0)
            if name or information >> 24 & 31 != _KIND_STRUCT or information & 0xFFFF != len(members):
                continue
            if self._members(at - 3, len(members), bit_fields=bool(information >> 31)) == expected:
                return True
        return False


def socket_layout() -> dict[str, int]:
    """What ``struct socket_layout`` holds for the running kernel; some 10 ms.

    Raises:
        UnsupportedByKernelError: it has no BTF, or a member isn't where this agent knows how to find it.
    """
    btf = Btf()
    structs = {name: btf.struct(name) for name in {name for name, _ in _MEMBERS.values()} | {"net", "ns_common"}}

    def offset(name: str, member: str) -> int:
        try:
            return structs[name][btf.name(member)]
        except KeyError:
            raise UnsupportedByKernelError(f"the kernel's struct {name} has no member {member}") from None

    layout = {key: offset(*member) for key, member in _MEMBERS.items()}
    with contextlib.suppress(UnsupportedByKernelError):
        structs |= {name: btf.struct(name) for name, _ in _UNIX_MEMBERS.values()}
        layout |= {key: offset(*member) for key, member in _UNIX_MEMBERS.items()}
    layout["net_inode"] = offset("net", "ns") + offset("ns_common", "inum")
    if layout["sock_family"] != _FAMILY_OFFSET or not (btf.has_unnamed(_ADDRESSES) and btf.has_unnamed(_PORTS)):
        raise UnsupportedByKernelError("the kernel's struct sock_common has addresses and ports elsewhere")
    return {**layout, "sock_addresses": _ADDRESSES_OFFSET, "sock_ports": _PORTS_OFFSET}


def describe_sockets(program: Program) -> None:
    """Tell a program's `socket_layout` map what the running kernel's sockets look like.

    Raises:
        UnsupportedByKernelError: see `socket_layout`; the program then finds no connection.
        KernelError: the map can't be written.
    """
    import numpy as np  # noqa: PLC0415 - a start doesn't wait for it before the verifier works

    row = np.zeros(1, program.dtype("socket_layout"))
    for member, value in socket_layout().items():
        row[member] = value
    program.maps["socket_layout"].update(bytes(4), row.tobytes())
