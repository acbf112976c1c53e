"""x86-64: what a uprobe on an instruction costs there, and what sites.py must know of each."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from otel_goprobe.errors import UnsupportedBinaryError
from otel_goprobe.gobinary.instructions import Code, Instruction, Kind
from otel_goprobe.model import Cost

if TYPE_CHECKING:
    from collections.abc import Iterator

_CALL, _JUMP, _JUMP_SHORT = 0xE8, 0xE9, 0xEB
_PUSH_RBP = b"\x55"
_ARGUMENT_NUMBERS = (0, 3, 1, 7, 6, 8, 9, 10, 11)
"""Of the registers in `X8664.argument_registers`, as instructions encode them."""


def _numbered(number: int) -> frozenset[str]:
    return frozenset(f"r{number}{width}" for width in ("", "d", "w", "b"))


def cost(content: bytes) -> Cost:
    """What the kernel does with an instruction under a uprobe.

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


class X8664:
    """See `InstructionSet`; registers from cmd/compile/abi-internal.md."""

    argument_registers = (
        frozenset(("rax", "eax", "ax", "al", "ah")),
        frozenset(("rbx", "ebx", "bx", "bl", "bh")),
        frozenset(("rcx", "ecx", "cx", "cl", "ch")),
        frozenset(("rdi", "edi", "di", "dil")),
        frozenset(("rsi", "esi", "si", "sil")),
        *(_numbered(number) for number in range(8, 12)),
    )
    argument_names: tuple[str, ...] = ("ax", "bx", "cx", "di", "si", "r8", "r9", "r10", "r11")
    goroutine_register = _numbered(14)
    stack_pointer = frozenset(("rsp", "esp"))

    def decode(self, code: Code) -> tuple[Instruction, ...]:
        """See `InstructionSet`."""
        instructions = []
        place = 0
        for address, size, mnemonic, operands in _decoder(False).disasm_lite(code.content, code.address):
            content = code.content[place : place + size]
            target = _target(address + size, content)
            instructions.append(
                Instruction(address, content, mnemonic, _kind(content, mnemonic, operands), target, cost(content))
            )
            place += size
        if place != len(code.content) or not place:
            raise UnsupportedBinaryError(
                f"{code.name} holds something that is no instruction, {place} bytes from its start"
            )
        return tuple(instructions)

    def frame_start(self, code: Code, frame_change: int) -> tuple[int, bytes, str] | None:
        """``push %rbp``, with which every frame begins since Go 1.21 (cmd/internal/obj/x86/obj6.go, preprocess)."""
        if code.content[frame_change - 1 : frame_change] != _PUSH_RBP:
            return None
        reason = "push %rbp behind the stack check" if frame_change > 1 else "push %rbp, the first instruction"
        return frame_change - 1, _PUSH_RBP, reason

    def written(self, instruction: Instruction) -> Iterator[str]:
        """See `InstructionSet`."""
        for detailed in _decoder(True).disasm(instruction.content, instruction.address, 1):
            for register in detailed.regs_access()[1]:
                yield detailed.reg_name(register)

    def nil_target(self, before: Instruction, branch: Instruction, number: int) -> int | None:
        """See `InstructionSet`: ``test %reg,%reg`` (REX.W 85 /r) and ``je`` or ``jne``."""
        register = _ARGUMENT_NUMBERS[number - 1]
        high, low = register >> 3, register & 7
        if before.content != bytes((0x48 | high << 2 | high, 0x85, 0xC0 | low << 3 | low)):
            return None
        return {"je": branch.target, "jne": branch.end}.get(branch.mnemonic)

    def may_refer(self, code: Code, callee: int) -> bool:
        """See `InstructionSet`."""
        for opcode in (_CALL, _JUMP):
            place = code.content.find(opcode)
            while place >= 0:
                distance = int.from_bytes(code.content[place + 1 : place + 5], "little", signed=True)
                if code.address + place + 5 + distance == callee:
                    return True
                place = code.content.find(opcode, place + 1)
        return False


@lru_cache(maxsize=2)
def _decoder(detail: bool) -> Any:
    import capstone  # noqa: PLC0415 - 40 ms that a plan with nothing but starts need not pay

    decoder: Any = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)  # type: ignore[no-untyped-call] # it has no types
    decoder.detail = detail
    return decoder


def _target(end: int, content: bytes) -> int | None:
    first, size = content[0], len(content)
    if first in (_CALL, _JUMP) and size == 5:
        return end + int.from_bytes(content[1:], "little", signed=True)
    if size == 2 and (first == _JUMP_SHORT or first & 0xF0 == 0x70 or 0xE0 <= first <= 0xE3):
        return end + int.from_bytes(content[1:], "little", signed=True)
    if size == 6 and first == 0x0F and content[1] & 0xF0 == 0x80:
        return end + int.from_bytes(content[2:], "little", signed=True)
    return None


def _kind(content: bytes, mnemonic: str, operands: str) -> Kind:
    kind = Kind.PLAIN
    if mnemonic.startswith("j"):
        if mnemonic != "jmp":
            kind = Kind.CONDITIONAL
        elif content[0] in (_JUMP, _JUMP_SHORT):
            kind = Kind.JUMP
        else:
            # cmd/compile/internal/amd64/ssa.go, OpAMD64JUMPTABLE: jmp qword ptr [rax + rbx*8]
            kind = Kind.SWITCH if "*8]" in operands else Kind.COMPUTED
    elif mnemonic.startswith("loop"):
        kind = Kind.CONDITIONAL
    elif "call" in mnemonic or mnemonic in {"syscall", "int"}:
        kind = Kind.CALL
    elif "ret" in mnemonic:
        kind = Kind.RETURN
    elif mnemonic in {"ud2", "int3", "hlt"}:
        kind = Kind.TRAP
    return kind
