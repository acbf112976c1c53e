"""A unit of C sources -> bytecode, map specifications and struct layouts, from the cache or from the compiler child.

`loader` calls `compile_unit`. A bundle holds nothing of the running kernel or of this process: maps are named in it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import platform
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from otel_goprobe.errors import CompilerError
from otel_goprobe.kernel import syscalls

if TYPE_CHECKING:
    from otel_goprobe import model

_log = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parent
_BPF_FOLDERS = (_PACKAGE.parent / "bpf", _PACKAGE.parent.parent / "bpf")
"""Inside an installed wheel, and in the source tree."""


class MapSpec(msgspec.Struct, frozen=True):
    """A map as the C source declares it."""

    name: str
    type: int
    """``BPF_MAP_TYPE_*``."""
    key_size: int
    value_size: int
    max_entries: int
    """Elements; for a ring buffer its size in bytes."""
    flags: int = 0


class Relocation(msgspec.Struct, frozen=True):
    """An instruction that wants a map's descriptor."""

    instruction: int
    """Index of the 16-byte ``ld_imm64``, counted in instructions of 8 bytes."""
    map: str


class Bytecode(msgspec.Struct, frozen=True):
    """One BPF program, its map descriptors zeroed."""

    name: str
    instructions: bytes
    relocations: tuple[Relocation, ...]


class Member(msgspec.Struct, frozen=True):
    """One member of a C struct; padding is not listed."""

    name: str
    format: str | StructLayout
    """A numpy format such as ``<u8``."""
    shape: tuple[int, ...]
    """Of an array, outermost dimension first; empty for a scalar."""
    offset: int


class StructLayout(msgspec.Struct, frozen=True):
    """A C struct as clang laid it out."""

    name: str
    members: tuple[Member, ...]
    itemsize: int

    def dtype(self) -> np.dtype[np.void]:
        """The numpy dtype with the same offsets and size.

        ``char x[n]`` becomes a subarray of n ``u1``, because numpy's own string types lose trailing NUL bytes.
        """
        return np.dtype(
            {
                "names": [member.name for member in self.members],
                "formats": [
                    (member.format if isinstance(member.format, str) else member.format.dtype(), member.shape)
                    for member in self.members
                ],
                "offsets": [member.offset for member in self.members],
                "itemsize": self.itemsize,
            }
        )


class Bundle(msgspec.Struct, frozen=True):
    """All that one compile gives."""

    maps: tuple[MapSpec, ...]
    programs: tuple[Bytecode, ...]
    structs: tuple[StructLayout, ...]


class CompileRequest(msgspec.Struct, frozen=True):
    """What the compiler child reads from its stdin, as JSON."""

    source: str
    programs: tuple[str, ...]
    structs: tuple[str, ...]
    cflags: tuple[str, ...]
    kernel_source: str
    """The folder that stands in for the kernel's headers."""


class CompileFailure(msgspec.Struct, frozen=True, tag="failure"):
    """The child's other answer; clang's diagnostics are on its stderr."""

    message: str
    remedy: str


class CompileSuccess(msgspec.Struct, frozen=True, tag="success"):
    """The child's answer on its stdout, as msgpack."""

    bundle: Bundle


def bpf_folder() -> Path:
    """The folder with the C sources.

    Raises:
        CompilerError: the installation is incomplete.
    """
    for folder in _BPF_FOLDERS:
        if folder.is_dir():
            return folder
    raise CompilerError(f"the BPF sources are not in {_BPF_FOLDERS[0]}", "install otel-goprobe again")


def joined_source(unit: model.Unit) -> str:
    """The unit as one text, so that BCC rewrites the map methods of every file; clang still names the files.

    Raises:
        CompilerError: a source can't be read.
    """
    parts = [f'#line 1 "<generated header of unit {unit.name}>"\n{unit.header}\n']
    for path in unit.sources:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise CompilerError(f"{path} can't be read ({error.strerror})", "install otel-goprobe again") from error
        parts.append(f"#line 1 {json.dumps(str(path))}\n{text}\n")
    return "".join(parts)


def compile_unit(unit: model.Unit, cache_dir: Path, cflags: tuple[str, ...] = ()) -> Bundle:
    """The bundle of `unit`, compiled in a child process (seconds) unless `cache_dir` holds it.

    Args:
        unit: what to compile; the header first, then each source.
        cache_dir: made where it doesn't exist; a folder that can't be written costs the compile each time.
        cflags: further flags for clang.

    Raises:
        CompilerError: BCC is missing, isn't the distribution's, or rejected the source.
        NotPermittedError: the process may not use bpf(2), which BCC does while it compiles.
    """
    shim = bpf_folder() / "include" / "shim"
    request = CompileRequest(
        source=joined_source(unit),
        programs=tuple(program.name for program in unit.programs),
        structs=unit.structs,
        cflags=cflags,
        kernel_source=str(shim.resolve()),
    )
    entry = cache_dir / f"{unit.name}-{_cache_key(request, shim)}.bundle"
    cached = _read_cached(entry)
    if cached is not None:
        return cached
    syscalls.require_bpf()
    bundle = _compile_in_child(request)
    _write_cached(entry, bundle)
    return bundle


def _cache_key(request: CompileRequest, shim: Path) -> str:
    """SHA-256, hexadecimal, of all that the bytecode depends on."""
    digest = hashlib.sha256(msgspec.json.encode(request))
    digest.update(f"{_bcc_version()}\0{platform.machine()}\0".encode())
    for path in (_PACKAGE / "compiler.py", _PACKAGE / "bundle.py", *sorted(shim.rglob("*.h"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _bcc_version() -> str:
    """The text of bcc's version.py, found without importing the 85 MB of LLVM behind it."""
    spec = importlib.util.find_spec("bcc")
    if spec is None or spec.origin is None:
        return ""
    try:
        return Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return spec.origin


def _read_cached(entry: Path) -> Bundle | None:
    try:
        return msgspec.msgpack.decode(entry.read_bytes(), type=Bundle)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        _log.info("compiling again: the cached bundle %s can't be used (%s)", entry, error)
        return None


def _write_cached(entry: Path, bundle: Bundle) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=entry.parent, prefix=".bundle-", delete=False) as temporary:
            temporary.write(msgspec.msgpack.encode(bundle))
        Path(temporary.name).replace(entry)
    except OSError as error:
        _log.warning("the compiled bundle can't be kept in %s (%s)", entry.parent, error.strerror)


def _compile_in_child(request: CompileRequest) -> Bundle:
    # -P: a folder named bcc where the user happens to stand is not the one that is meant.
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", "otel_goprobe.kernel.compiler"],
            input=msgspec.json.encode(request),
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise CompilerError(
            f"the compiler child can't be started: {sys.executable}: {error.strerror}",
            "install otel-goprobe where this user may execute its Python",
        ) from error
    diagnostics = child.stderr.decode(errors="replace").strip()
    try:
        answer = msgspec.msgpack.decode(child.stdout, type=CompileSuccess | CompileFailure)
    except msgspec.MsgspecError as error:
        raise CompilerError(
            f"the compiler child {_ending(child.returncode)} and gave no answer\n{diagnostics}"
        ) from error
    if isinstance(answer, CompileFailure):
        raise CompilerError("\n".join(filter(None, (answer.message, diagnostics))), answer.remedy)
    if diagnostics:
        _log.debug("compiler: %s", diagnostics)
    return answer.bundle


def _ending(status: int) -> str:
    """How a child ended; clang answers some mistakes by a failed assertion."""
    return f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
