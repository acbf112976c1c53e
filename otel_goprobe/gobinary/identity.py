"""What the headers of a Go executable say of it, of any Go since 1.13; discovery asks it of every process."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_goprobe.errors import UnsupportedBinaryError
from otel_goprobe.gobinary.buildinfo import read_build_info
from otel_goprobe.gobinary.elf import Elf

if TYPE_CHECKING:
    from types import TracebackType

    from otel_goprobe.model import BuildInfo


@dataclass(frozen=True, slots=True)
class Identity:
    """What the headers of a Go executable say of it."""

    build_info: BuildInfo
    machine: str
    """``x86_64`` or ``aarch64``."""
    pie: bool
    """Whether it is loaded at an address of the kernel's choice."""
    stripped: bool
    """No ``.symtab``."""
    build_id: str
    """Go's, else GNU's in hexadecimal, else empty."""


class Telling:
    """Turns what reading a damaged file raises into an `UnsupportedBinaryError`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ValueError | IndexError | OverflowError | struct.error):
            raise UnsupportedBinaryError(f"the tables of {self._path} are damaged ({error})") from error


def read_identity(elf: Elf) -> Identity:
    """What the headers say."""
    return Identity(
        read_build_info(elf), elf.machine, elf.position_independent, ".symtab" not in elf.sections, elf.build_id
    )


def identify(path: str | os.PathLike[str]) -> Identity:
    """What an executable's headers and build info say, of any Go since 1.13: cheap enough to ask of every process.

    Raises:
        BinaryError: as `open_binary`, but a Go version that is too old is no error here.
    """
    with Telling(os.fspath(path)):
        elf = Elf(path)
        try:
            return read_identity(elf)
        finally:
            elf.close()
