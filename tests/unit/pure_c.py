"""Pure C of bpf/include, compiled for this machine, so that ctypes can call it with anything."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

INCLUDE = Path(__file__).resolve().parents[2] / "bpf" / "include"
TYPES = """
#include <stdint.h>
typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;
"""


def compiled(folder: Path, header: str, functions: str, *, before: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Compile a header of bpf/include with `functions`, which give its inline functions a symbol.

    Args:
        folder: for what is made.
        header: file name, such as ``trace.h``.
        functions: C.
        before: headers that come before it.
    """
    source, library = folder / "pure.c", folder / "pure.so"
    includes = "".join(f'#include "{INCLUDE / name}"\n' for name in (*before, header))
    source.write_text(f"{TYPES}\n{includes}{functions}\n")
    command = ["cc", "-std=gnu11", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror", "-O2", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", library, source], check=True)
    return ctypes.CDLL(str(library))
