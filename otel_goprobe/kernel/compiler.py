"""The compiler child: a request on stdin -> bytecode, map specifications and struct layouts on stdout, by BCC.

`bundle` starts it, so that BCC and its LLVM (97 MB) never are in the agent. Nothing else imports this module, and
nothing else imports bcc. Clang's diagnostics go to stderr as they are.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import struct
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from otel_goprobe.kernel.bundle import (
    Bundle,
    Bytecode,
    CompileFailure,
    CompileRequest,
    CompileSuccess,
    MapSpec,
    Member,
    Relocation,
    StructLayout,
)

if TYPE_CHECKING:
    from types import ModuleType

_FLAGS = ["-Wall", "-Wextra", "-Werror", "-g0"]
"""BCC's own headers are free of these warnings (0.26, clang 14). What debuggers read takes a fifth of the compile, and
nothing of it gets into a bundle."""

_LAYOUT = "layout_"
"""Prefix of the map that is declared for each wanted struct and left out of the bundle."""

_RINGBUF = 27
"""BPF_MAP_TYPE_RINGBUF; BCC gives it a key and a value, the kernel wants none."""

_LD_IMM64 = 0x18
_PSEUDO_MAP_FD = 1

_PRELUDE = """\
#include <uapi/linux/ptrace.h>
#define bpf_probe_read_user(...) ((int (*)(void *, u32, const void *))BPF_FUNC_probe_read_user)(__VA_ARGS__)
#define bpf_probe_read_user_str(...) ((int (*)(void *, u32, const void *))BPF_FUNC_probe_read_user_str)(__VA_ARGS__)
"""
"""struct pt_regs; BCC includes the rest. For each call of the two helpers by their own names BCC reads /proc/kallsyms,
to learn whether this kernel has them (check_bpf_probe_read_user in its b_frontend_action.cc): half of the compile."""

_INSTALL = (
    "install the distribution's (Debian, Ubuntu: apt install python3-bpfcc)"
    " and run otel-goprobe with the distribution's Python,"
    " or install a wheel of otel-goprobe that holds its BPF programs compiled (make wheel)"
)


class _FailedError(Exception):
    """Ends the child with an answer that says why."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.failure = CompileFailure(message, remedy)


def _import_bcc() -> ModuleType:
    try:
        bcc = importlib.import_module("bcc")
    except ModuleNotFoundError as error:
        if error.name == "bcc":
            raise _FailedError("the Python package bcc is missing", _INSTALL) from error
        raise _FailedError(f"the Python package bcc can't be imported ({error})", _INSTALL) from error
    except (ImportError, OSError) as error:
        raise _FailedError(f"the Python package bcc can't be imported ({error})", _INSTALL) from error
    if not hasattr(bcc, "BPF"):
        raise _FailedError(
            f"{bcc.__file__} is not the BPF Compiler Collection but another package named bcc, such as PyPI's",
            f"remove it (pip uninstall bcc) and {_INSTALL}",
        )
    return bcc


def compile_request(request: CompileRequest) -> Bundle:
    """Compile one joined source.

    Raises:
        _FailedError: BCC is missing or wrong, clang rejected the source, or the request names what isn't there.
    """
    os.putenv("BCC_KERNEL_SOURCE", request.kernel_source)  # read by libbcc's getenv
    bcc = _import_bcc()
    layouts = "".join(f"BPF_ARRAY({_LAYOUT}{name}, struct {name}, 1);\n" for name in request.structs)
    text = f'{_PRELUDE}{request.source}\n#line 1 "<structs that Python reads>"\n{layouts}'
    try:
        module = bcc.BPF(text=text, cflags=_FLAGS)
    except Exception as error:  # BCC raises a bare Exception, having printed clang's diagnostics
        raise _FailedError("BCC rejected the C source") from error
    specs = _map_specs(bcc.lib, module.module)
    # By number: bcc's Python has no class for a sockhash.
    names = {bcc.lib.bpf_table_fd_id(module.module, index): name for index, name in enumerate(specs)}
    return Bundle(
        maps=tuple(spec for name, spec in specs.items() if not name.startswith(_LAYOUT)),
        programs=tuple(_bytecode(module, name, names) for name in request.programs),
        structs=tuple(_struct(name, module[f"{_LAYOUT}{name}"].Leaf, specs) for name in request.structs),
    )


def _map_specs(lib: Any, module: Any) -> dict[str, MapSpec]:
    for name in ("bpf_table_key_size_id", "bpf_table_leaf_size_id"):
        # bcc 0.26 declares no types for these two and ctypes would cut the pointer to an int.
        getattr(lib, name).argtypes = [ctypes.c_void_p, ctypes.c_ulonglong]
        getattr(lib, name).restype = ctypes.c_size_t
    lib.bpf_table_fd_id.argtypes = [ctypes.c_void_p, ctypes.c_ulonglong]
    lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
    lib.bpf_num_tables.restype = ctypes.c_size_t
    lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_ulonglong]
    lib.bpf_table_name.restype = ctypes.c_char_p
    specs = {}
    for index in range(lib.bpf_num_tables(module)):
        name = lib.bpf_table_name(module, index).decode()
        kind = lib.bpf_table_type_id(module, index)
        specs[name] = MapSpec(
            name=name,
            type=kind,
            key_size=0 if kind == _RINGBUF else lib.bpf_table_key_size_id(module, index),
            value_size=0 if kind == _RINGBUF else lib.bpf_table_leaf_size_id(module, index),
            max_entries=lib.bpf_table_max_entries_id(module, index),
            flags=lib.bpf_table_flags_id(module, index),
        )
    return specs


def _bytecode(module: Any, program: str, map_names: dict[int, str]) -> Bytecode:
    try:
        code = bytearray(module.dump_func(program.encode()))
    except Exception as error:  # BCC raises a bare Exception for an unknown function
        raise _FailedError(f"the C source has no BPF program named {program}") from error
    relocations = []
    index = 0
    while index < len(code) // 8:
        opcode, registers, _, immediate = struct.unpack_from("<BBhi", code, 8 * index)
        source = registers >> 4
        if opcode == _LD_IMM64 and source:
            if source != _PSEUDO_MAP_FD:
                raise _FailedError(f"{program}: instruction {index} loads a constant of an unknown kind ({source})")
            relocations.append(Relocation(index, map_names[immediate]))
            struct.pack_into("<i", code, 8 * index + 4, 0)
        index += 2 if opcode == _LD_IMM64 else 1
    return Bytecode(program, bytes(code), tuple(relocations))


def _struct(name: str, leaf: Any, specs: dict[str, MapSpec]) -> StructLayout:
    layout = _layout(name, leaf)
    size = specs[f"{_LAYOUT}{name}"].value_size
    if layout.itemsize != size:
        raise _FailedError(
            f"struct {name} has {size} bytes for clang but {layout.itemsize} for BCC's description of it"
        )
    return layout


def _layout(name: str, leaf: Any) -> StructLayout:
    """The layout of a ctypes Structure or Union that BCC made from clang's record layout."""
    members = []
    for field in leaf._fields_:
        if len(field) > 2:
            raise _FailedError(f"struct {name}: {field[0]} is a bit-field")
        if field[0].startswith("__pad_"):
            continue
        element = field[1]
        shape: tuple[int, ...] = ()
        while issubclass(element, ctypes.Array):
            shape += (element._length_,)
            element = element._type_
        members.append(
            Member(
                name=field[0],
                format=_layout(f"{name}.{field[0]}", element) if hasattr(element, "_fields_") else _format(element),
                shape=shape,
                offset=getattr(leaf, field[0]).offset,
            )
        )
    return StructLayout(name, tuple(members), ctypes.sizeof(leaf))


def _format(element: Any) -> str:
    return "|u1" if element is ctypes.c_char else np.dtype(element).str


def main() -> int:
    """Answer one request; the status is 1 where it failed."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever BCC prints is a diagnostic
    answer: CompileSuccess | CompileFailure
    try:
        answer = CompileSuccess(compile_request(msgspec.json.decode(sys.stdin.buffer.read(), type=CompileRequest)))
    except _FailedError as error:
        answer = error.failure
    with answers:
        answers.write(msgspec.msgpack.encode(answer))
    return 0 if isinstance(answer, CompileSuccess) else 1
