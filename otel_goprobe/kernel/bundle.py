"""A unit of C sources -> bytecode, map specifications, struct layouts: shipped, cached, or from the compiler child.

`loader` and the doctor command call `obtain`, units.py (``make bundle``) calls `ship`. A bundle holds nothing of the
running kernel or of this process: maps are named in it.
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
from typing import TYPE_CHECKING, Literal

import msgspec

from otel_goprobe import children
from otel_goprobe.errors import CompilerError
from otel_goprobe.kernel import syscalls

if TYPE_CHECKING:
    import numpy as np

    from otel_goprobe import model

_log = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parent
_BPF_FOLDERS = (_PACKAGE.parent / "bpf", _PACKAGE.parent.parent / "bpf")
"""Inside an installed wheel, and in the source tree."""
BUNDLES = _PACKAGE.parent / "bundles"
"""Where `ship` puts what the wheel carries; not under version control."""

_SUFFIX = ".bundle"

Origin = Literal["shipped", "cached", "compiled"]


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
        import numpy as np  # noqa: PLC0415 - a start doesn't wait for it before the verifier works

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


class Kept(msgspec.Struct, frozen=True):
    """A file of `BUNDLES`, or of the cache."""

    sources: str
    """`sources_digest` of what it was compiled from."""
    bundle: Bundle


class Obtained(msgspec.Struct, frozen=True):
    """A bundle and where it is from."""

    bundle: Bundle
    origin: Origin


class CompileRequest(msgspec.Struct, frozen=True):
    """What the compiler child reads from its stdin, as JSON."""

    source: str
    programs: tuple[str, ...]
    structs: tuple[str, ...]
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
    parts += [f"#line 1 {json.dumps(str(path))}\n{_read(path)}\n" for path in unit.sources]
    return "".join(parts)


def _read(source: Path) -> str:
    try:
        return source.read_text(encoding="utf-8")
    except OSError as error:
        raise CompilerError(f"{source} can't be read ({error.strerror})", "install otel-goprobe again") from error


def sources_digest(unit: model.Unit) -> str:
    """SHA-256, hexadecimal, of all that `unit`'s bundle depends on, but for the compiler's version and any path.

    Raises:
        CompilerError: a source can't be read.
    """
    shim = _shim()
    parts = (
        platform.machine(),
        unit.header,
        [_read(path) for path in unit.sources],
        [program.name for program in unit.programs],
        unit.structs,
        [_read(_PACKAGE / name) for name in ("compiler.py", "bundle.py")],
        [(str(path.relative_to(shim)), _read(path)) for path in sorted(shim.rglob("*.h"))],
    )
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def obtain(unit: model.Unit, cache_dir: Path) -> Obtained:
    """The bundle of `unit`: the one in `BUNDLES` if these sources gave it, else from `cache_dir`, else compiled.

    Compiling takes a child process and seconds.

    Args:
        unit: what to compile; the header first, then each source.
        cache_dir: made where it doesn't exist; a folder that can't be written costs the compile each time.

    Raises:
        CompilerError: there is no bundle of these sources, and BCC is missing, isn't the distribution's, or rejected
            them.
        NotPermittedError: the process may not use bpf(2), which BCC does while it compiles.
    """
    digest = sources_digest(unit)
    shipped = _read_shipped(shipped_path(unit.name))
    if isinstance(shipped, Kept) and shipped.sources == digest:
        return Obtained(shipped.bundle, "shipped")
    entry = cache_dir / _cached_name(unit.name, digest)
    cached = _read_cached(entry)
    if cached is not None:
        return Obtained(cached.bundle, "cached")
    syscalls.require_bpf()
    why = shipped if isinstance(shipped, str) else f"{shipped_path(unit.name)} was made from other sources"
    _log.debug("compiling unit %s: %s", unit.name, why)
    try:
        bundle = compile_unit(unit)
    except CompilerError as error:
        message = f"unit {unit.name} has to be compiled, because {why}, but {error.message}"
        raise CompilerError(message, error.remedy) from error
    _write_cached(entry, Kept(digest, bundle))
    return Obtained(bundle, "compiled")


def shipped_path(unit_name: str) -> Path:
    """The file that `ship` makes of a unit on a machine like this one."""
    return BUNDLES / f"{unit_name}-{platform.machine()}{_SUFFIX}"


def kept(unit_name: str, cache_dir: Path) -> Kept | None:
    """What `ship` left of a unit, else what was compiled last: whatever the unit's sources are now.

    It is what `obtain` gives of these sources. None where nothing is of use.
    """
    found = _read_shipped(shipped_path(unit_name))
    if isinstance(found, Kept):
        return found
    try:
        newest = max(cache_dir.glob(f"{unit_name}-*{_SUFFIX}"), key=lambda entry: entry.stat().st_mtime_ns)
    except (ValueError, OSError):  # there is none
        return None
    last = _read_cached(newest)
    return last if last is not None and newest.name == _cached_name(unit_name, last.sources) else None


def ship(unit: model.Unit) -> Path:
    """Compile `unit` afresh into `BUNDLES`: the same sources and compiler give the same bytes.

    Raises:
        CompilerError, NotPermittedError: as `obtain`.
        OSError: the file can't be written.
    """
    syscalls.require_bpf()
    path = shipped_path(unit.name)
    shipped = Kept(sources_digest(unit), compile_unit(unit))
    _write_whole(path, msgspec.msgpack.encode(shipped))
    path.chmod(0o644)
    return path


def _shim() -> Path:
    return bpf_folder() / "include" / "shim"


def _cached_name(unit_name: str, digest: str) -> str:
    """Name of the file for a unit: it holds a SHA-256 of all that the bytecode depends on."""
    key = hashlib.sha256(f"{digest}\0{_bcc_version()}".encode()).hexdigest()
    return f"{unit_name}-{key}{_SUFFIX}"


def _bcc_version() -> str:
    """The text of bcc's version.py, found without importing the 85 MB of LLVM behind it."""
    spec = importlib.util.find_spec("bcc")
    if spec is None or spec.origin is None:
        return ""
    try:
        return Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return spec.origin


def _read_shipped(path: Path) -> Kept | str:
    """What `ship` left, or why that is of no use."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        return f"this installation has no {path.parent.name}/{path.name}"
    except (OSError, msgspec.MsgspecError) as error:
        return f"{path} can't be used ({error})"


def _read_cached(entry: Path) -> Kept | None:
    try:
        return msgspec.msgpack.decode(entry.read_bytes(), type=Kept)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        _log.info("compiling again: the cached bundle %s can't be used (%s)", entry, error)
        return None


def _write_cached(entry: Path, bundle: Kept) -> None:
    try:
        _write_whole(entry, msgspec.msgpack.encode(bundle))
    except OSError as error:
        _log.warning("the compiled bundle can't be kept in %s (%s)", entry.parent, error.strerror)


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".bundle-", delete=False) as temporary:
        temporary.write(content)
    Path(temporary.name).replace(path)


def compile_unit(unit: model.Unit) -> Bundle:
    """What BCC makes of `unit`, in a child process; seconds.

    Raises:
        CompilerError: BCC is missing, isn't the distribution's, or rejected the sources.
    """
    request = CompileRequest(
        source=joined_source(unit),
        programs=tuple(program.name for program in unit.programs),
        structs=unit.structs,
        kernel_source=str(_shim().resolve()),
    )
    try:
        child = subprocess.run(
            children.command("otel_goprobe.kernel.compiler"),
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
