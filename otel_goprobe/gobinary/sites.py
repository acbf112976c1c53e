"""Which instruction of a function carries a uprobe: the start of a call, its ends, and the results of what it calls.

A uprobe on an instruction that the kernel emulates costs the target about a thirtieth of one that it has to
single-step (measured on a virtual machine with Linux 6.18: 0.6 against 18 microseconds a hit), so each site carries
its class. Arguments are Go's register ABI's (AX, BX, CX, DI, SI, R8 …; cmd/compile/abi-internal.md); `GoBinary` hands
in the function's bytes. x86-64 only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from otel_goprobe.errors import UnsupportedBinaryError
from otel_goprobe.model import Cost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CALL, _JUMP, _JUMP_SHORT = 0xE8, 0xE9, 0xEB
_PUSH_RBP = 0x55
_REGISTERS = {
    "ax": ("rax", "eax", "ax", "al", "ah"),
    "bx": ("rbx", "ebx", "bx", "bl", "bh"),
    "cx": ("rcx", "ecx", "cx", "cl", "ch"),
    "di": ("rdi", "edi", "di", "dil"),
    "si": ("rsi", "esi", "si", "sil"),
    **{f"r{number}": tuple(f"r{number}{width}" for width in ("", "d", "w", "b")) for number in range(8, 12)},
}
_MAX_INSTRUCTION_BYTES = 15


@dataclass(frozen=True, slots=True)
class Code:
    """The bytes of a function, and where they are."""

    name: str
    address: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded instruction."""

    address: int
    content: bytes
    text: str
    """``call 0x4a5b60``."""

    @property
    def end(self) -> int:
        """The address of the next one."""
        return self.address + len(self.content)

    @property
    def target(self) -> int | None:
        """Where a direct call or jump goes; None of any other instruction."""
        content = self.content
        if content[0] in (_CALL, _JUMP) and len(content) == 5:
            return self.end + int.from_bytes(content[1:], "little", signed=True)
        if len(content) == 2 and (content[0] == _JUMP_SHORT or content[0] & 0xF0 == 0x70 or 0xE0 <= content[0] <= 0xE3):
            return self.end + int.from_bytes(content[1:], "little", signed=True)
        if len(content) == 6 and content[0] == 0x0F and content[1] & 0xF0 == 0x80:
            return self.end + int.from_bytes(content[2:], "little", signed=True)
        return None

    @property
    def is_call(self) -> bool:
        """Whether it is a direct call."""
        return self.content[0] == _CALL

    @property
    def leaves(self) -> bool:
        """Whether execution never goes on behind it: a jump, a return or a trap."""
        return self.content[0] in (_JUMP, _JUMP_SHORT) or self.text.startswith(("jmp", "ret", "ud2", "int3", "hlt"))


def cost(content: bytes) -> Cost:
    """What the kernel does with an x86-64 instruction under a uprobe.

    From arch/x86/kernel/uprobes.c, the same in Linux 5.10 to 6.18: branch_setup_xol_ops emulates ``jmp`` (0xeb,
    0xe9), ``nop`` (0x90), ``call`` (0xe8), and conditional jumps (0x70-0x7f, 0x0f 0x80-0x8f); push_setup_xol_ops
    emulates ``push`` (0x50-0x57, alone or behind the prefix 0x41). Kernels from 6.16 on emulate longer ``nop`` as
    well; older ones don't, so they count as single-stepped here.
    """
    first = content[0]
    emulated = (
        (first in (_JUMP_SHORT, _JUMP, _CALL) or first & 0xF0 == 0x70)
        or (first == 0x0F and len(content) > 1 and content[1] & 0xF0 == 0x80)
        or (0x50 <= first <= 0x57 or content == b"\x90")
        or (first == 0x41 and len(content) == 2 and 0x50 <= content[1] <= 0x57)
    )
    return Cost.EMULATED if emulated else Cost.STEPPED


def decode(code: Code) -> tuple[Instruction, ...]:
    """All instructions of a function.

    Raises:
        UnsupportedBinaryError: part of it isn't code.
    """
    instructions = tuple(
        Instruction(
            address, code.content[address - code.address : address - code.address + size], f"{mnemonic} {operands}"
        )
        for address, size, mnemonic, operands in _decoder(False).disasm_lite(code.content, code.address)
    )
    decoded = instructions[-1].end - code.address if instructions else 0
    if decoded != len(code.content):
        raise UnsupportedBinaryError(
            f"{code.name} holds something that is no instruction, {decoded} bytes from its start"
        )
    return instructions


@lru_cache(maxsize=2)
def _decoder(detail: bool) -> Any:
    import capstone  # noqa: PLC0415 - 40 ms that a plan with nothing but starts need not pay

    decoder: Any = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)  # type: ignore[no-untyped-call] # it has no types
    decoder.detail = detail
    return decoder


def start(code: Code, frame_change: int | None) -> tuple[int, bytes, str]:
    """Where a call of the function begins: address, instruction and reason.

    Behind the stack check the argument registers still hold the arguments, and a call whose stack has to grow passes
    once; the first instruction it passes twice.

    Args:
        code: the function.
        frame_change: bytes from its start to the end of the first instruction that moves the stack pointer; None if
        none does.
    """
    if frame_change and code.content[frame_change - 1 : frame_change] == bytes([_PUSH_RBP]):
        reason = "push %rbp behind the stack check" if frame_change > 1 else "push %rbp, the first instruction"
        return code.address + frame_change - 1, bytes([_PUSH_RBP]), reason
    first = next(_decoder(False).disasm_lite(code.content[:_MAX_INSTRUCTION_BYTES], code.address), None)
    if first is None:
        raise UnsupportedBinaryError(f"{code.name} does not begin with an instruction")
    return code.address, code.content[: first[1]], "first instruction: no push %rbp"


def returns(code: Code) -> list[tuple[int, bytes, str]]:
    """Every way out of the function but a panic: its RETs, and direct jumps to other functions.

    Raises:
        UnsupportedBinaryError: part of it isn't code, or it leaves by a conditional jump or where a register points.
    """
    end = code.address + len(code.content)
    found = []
    for each in decode(code):
        if each.text.startswith("ret"):
            found.append((each.address, each.content, "return"))
        elif each.target is not None and not each.is_call and not code.address <= each.target < end:
            if not each.leaves:
                raise UnsupportedBinaryError(f"{code.name} leaves by a conditional jump", "its ends can't be told")
            found.append((each.address, each.content, f"tail jump to {each.target:#x}"))
        elif each.text.startswith("jmp ") and each.target is None and not _is_jump_table(each):
            raise UnsupportedBinaryError(f"{code.name} leaves by a jump through a register", "its ends can't be told")
    return found


def _is_jump_table(instruction: Instruction) -> bool:
    """A switch: ``jmp qword ptr [rax + rbx*8]`` (cmd/compile/internal/amd64/ssa.go, OpAMD64JUMPTABLE)."""
    return "*8]" in instruction.text


def calls(code: Code, callee: int) -> tuple[int, ...]:
    """Addresses of the direct calls of, and jumps to, `callee`."""
    if not any(_refers(code, callee, opcode) for opcode in (_CALL, _JUMP)):
        return ()
    return tuple(
        each.address
        for each in decode(code)
        if each.target == callee and each.content[0] in (_CALL, _JUMP, _JUMP_SHORT)
    )


def _refers(code: Code, callee: int, opcode: int) -> bool:
    """Whether bytes of the function look like a call of `callee`: cheap, so that most need no decoding."""
    place = code.content.find(opcode)
    while place >= 0:
        distance = int.from_bytes(code.content[place + 1 : place + 5], "little", signed=True)
        if code.address + place + 5 + distance == callee:
            return True
        place = code.content.find(opcode, place + 1)
    return False


def results(
    code: Code, callee: int, registers: Sequence[str], entries: Sequence[int] = ()
) -> list[tuple[int, bytes, str]]:
    """Behind each call of `callee`, the next emulated instruction with the results still in `registers`.

    Args:
        code: the caller.
        callee: address of the function called.
        registers: such as ``ax``, ``bx``.
        entries: addresses at which the caller is entered otherwise, such as behind a recovered panic.

    Returns:
        Nothing if one of the calls has no such place, or is a tail jump.
    """
    if not _refers(code, callee, _CALL):
        return []
    instructions = decode(code)
    joined = {each.target for each in instructions if each.target is not None and not each.is_call} | set(entries)
    if any(each.target == callee and not each.is_call for each in instructions):
        return []
    if any(each.text.startswith("jmp ") and each.target is None for each in instructions):
        return []  # a switch may lead to any place
    watched = frozenset(name for register in registers for name in _REGISTERS[register])
    found = []
    for index, each in enumerate(instructions):
        if each.is_call and each.target == callee:
            place = _behind(instructions[index + 1 :], watched, joined)
            if place is None:
                return []
            found.append((place.address, place.content, f"results of the call at {each.address:#x}"))
    return found


def _behind(following: Sequence[Instruction], watched: frozenset[str], joined: set[int]) -> Instruction | None:
    for each in following:
        if each.address in joined or each.text.startswith(("ret", "int3", "ud2")):
            return None
        if cost(each.content) is Cost.EMULATED:
            return each
        if watched.intersection(_written(each)):
            return None
    return None


def _written(instruction: Instruction) -> Iterator[str]:
    decoder = _decoder(True)
    for detailed in decoder.disasm(instruction.content, instruction.address, 1):
        for register in detailed.regs_access()[1]:
            yield detailed.reg_name(register)
