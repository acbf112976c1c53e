"""What machine code looks like to sites.py, whatever the machine; x86_64.py and aarch64.py make it of bytes."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from otel_goprobe.errors import UnsupportedBinaryError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_goprobe.model import Cost

_MAX_DECODED_BYTES = 1 << 18
"""Twenty times the longest function that is probed; a fifth of a second's work."""


class Kind(enum.Enum):
    """What an instruction does to the flow of control."""

    PLAIN = enum.auto()
    CALL = enum.auto()
    """Direct or through a register."""
    CONDITIONAL = enum.auto()
    """A jump that may not be taken."""
    JUMP = enum.auto()
    """A direct jump."""
    SWITCH = enum.auto()
    """A jump through a table of places in the same function."""
    COMPUTED = enum.auto()
    """A jump to where a register or a word of memory points."""
    RETURN = enum.auto()
    TRAP = enum.auto()
    """Never goes on; padding too."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded instruction."""

    address: int
    content: bytes
    mnemonic: str
    kind: Kind
    target: int | None
    """Where a direct call or jump goes."""
    cost: Cost

    @property
    def end(self) -> int:
        """The address of the next one."""
        return self.address + len(self.content)


class InstructionSet(Protocol):
    """A machine."""

    argument_registers: tuple[frozenset[str], ...]
    """Go's integer arguments and results, in order: every name of the register that holds each, or of a part of it."""
    argument_names: tuple[str, ...]
    """The same, each by the name that Go's documents use."""
    goroutine_register: frozenset[str]
    """The names of the register that holds the current g."""

    stack_pointer: frozenset[str]

    def decode(self, code: Code) -> tuple[Instruction, ...]:
        """Return all instructions of a function, at least one.

        Raises:
            UnsupportedBinaryError: part of it isn't code.
        """

    def frame_start(self, code: Code, frame_change: int) -> tuple[int, bytes, str] | None:
        """Return an emulated instruction that makes the frame, where the register ABI is intact: offset, bytes, reason.

        Args:
            code: the function.
            frame_change: bytes from its start to the end of the first instruction that moves the stack pointer.
        """

    def written(self, instruction: Instruction) -> Iterable[str]:
        """Name the registers that an instruction writes, implicitly too."""

    def nil_target(self, before: Instruction, branch: Instruction, number: int) -> int | None:
        """Return where a conditional jump, and the instruction before it, lead to if a result is zero.

        Args:
            before: what stands in front of `branch`.
            branch: a conditional jump.
            number: of the result, from 1.

        Returns:
            None if they ask for something else.
        """

    def may_refer(self, code: Code, callee: int) -> bool:
        """Return False where no direct call of, or jump to, `callee` can be in the function, without decoding it."""


@dataclass(frozen=True)
class Code:
    """The bytes of a function, and where they are."""

    name: str
    address: int
    content: bytes
    machine: InstructionSet

    def __contains__(self, address: int) -> bool:
        return self.address <= address < self.address + len(self.content)

    @cached_property
    def instructions(self) -> tuple[Instruction, ...]:
        """All of them; decoded when first asked for.

        Raises:
            UnsupportedBinaryError: part of it isn't code, or it is too long.
        """
        if len(self.content) > _MAX_DECODED_BYTES:
            raise UnsupportedBinaryError(f"{self.name} has {len(self.content)} bytes, too many to look through")
        return self.machine.decode(self)
