"""arm64: what a uprobe on an instruction costs there, and what sites.py must know of each."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from otel_goprobe.errors import UnsupportedBinaryError
from otel_goprobe.gobinary.instructions import Code, Instruction, Kind
from otel_goprobe.model import Cost

if TYPE_CHECKING:
    from collections.abc import Iterator

_BYTES = 4
_ADRP_ADR = 0x1F000000, 0x10000000
_BRANCH = 0x7C000000, 0x14000000
"""B, BL: mask and value (Arm ARM, C4.1: Branches, Exception Generating and System instructions)."""
_CONDITIONAL = 0xFF000010, 0x54000000
_COMPARE = 0x7E000000, 0x34000000
_TEST = 0x7E000000, 0x36000000
_REGISTER = {0xD61F0000: Kind.COMPUTED, 0xD63F0000: Kind.CALL, 0xD65F0000: Kind.RETURN}
"""BR, BLR, RET without their register (bits 5 to 9)."""
_MAX_CONSTANTS = 64
_LEAVING = {Kind.JUMP, Kind.RETURN, Kind.COMPUTED, Kind.SWITCH, Kind.TRAP}
_UNCONDITIONAL_CALL = 0x80000000


def _numbered(number: int) -> frozenset[str]:
    return frozenset((f"x{number}", f"w{number}"))


def _is(word: int, pattern: tuple[int, int]) -> bool:
    return word & pattern[0] == pattern[1]


def cost(content: bytes) -> Cost:
    """What the kernel does with an instruction under a uprobe.

    From arch/arm64/kernel/probes/decode-insn.c, arm_probe_decode_insn, and simulate-insn.c, Linux 4.10 to 6.17:
    simulated are B, BL, B.cond, CBZ, CBNZ, TBZ, TBNZ, ADR, ADRP, BR, BLR and RET. Not counted are NOP, which only
    newer kernels simulate, and LDR (literal), which newer ones refuse.
    """
    (word,) = struct.unpack("<I", content)
    simulated = (
        any(_is(word, pattern) for pattern in (_ADRP_ADR, _BRANCH, _CONDITIONAL, _COMPARE, _TEST))
        or word & 0xFFFFFC1F in _REGISTER
    )
    return Cost.EMULATED if simulated else Cost.STEPPED


class AArch64:
    """See `InstructionSet`; registers from cmd/compile/abi-internal.md."""

    argument_registers = tuple(_numbered(number) for number in range(16))
    argument_names = tuple(f"x{number}" for number in range(16))
    goroutine_register = _numbered(28)
    stack_pointer = frozenset(("sp", "wsp"))

    def decode(self, code: Code) -> tuple[Instruction, ...]:
        """See `InstructionSet`; the assembler's constants behind a function's last instruction count as traps."""
        if len(code.content) % _BYTES or not code.content:
            raise UnsupportedBinaryError(f"{code.name} is no arm64 code: it has {len(code.content)} bytes")
        instructions: list[Instruction] = []
        before, constants = "", 0
        while len(instructions) * _BYTES < len(code.content):
            place = len(instructions) * _BYTES
            for address, _, mnemonic, operands in _decoder(False).disasm_lite(
                code.content[place:], code.address + place
            ):
                content = code.content[address - code.address : address - code.address + _BYTES]
                kind, target = _flow(address, content, mnemonic)
                # cmd/compile/internal/arm64/ssa.go, OpARM64JUMPTABLE: ldr x27, [x0, x1, lsl #3]; br x27
                if kind is Kind.COMPUTED and before.startswith(f"{operands},") and before.endswith("lsl #3]"):
                    kind = Kind.SWITCH
                instructions.append(Instruction(address, content, mnemonic, kind, target, cost(content)))
                before = operands
            place = len(instructions) * _BYTES
            if place < len(code.content):
                constants += 1
                if not instructions or instructions[-1].kind not in _LEAVING or constants > _MAX_CONSTANTS:
                    raise UnsupportedBinaryError(
                        f"{code.name} holds something that is no instruction, {place} bytes from its start"
                    )
                content = code.content[place : place + _BYTES]
                instructions.append(Instruction(code.address + place, content, "", Kind.TRAP, None, Cost.STEPPED))
        return tuple(instructions)

    def frame_start(self, code: Code, frame_change: int) -> tuple[int, bytes, str] | None:  # noqa: ARG002 - the role's
        """None: what makes a frame, ``str x30, [sp, #-n]!``, is single-stepped."""
        return None

    def written(self, instruction: Instruction) -> Iterator[str]:
        """See `InstructionSet`."""
        for detailed in _decoder(True).disasm(instruction.content, instruction.address, 1):
            for register in detailed.regs_access()[1]:
                yield detailed.reg_name(register)

    def nil_target(self, before: Instruction, branch: Instruction, number: int) -> int | None:  # noqa: ARG002 - the role's
        """See `InstructionSet`: ``cbz`` or ``cbnz`` of the 64-bit register."""
        word = int.from_bytes(branch.content, "little")
        if word & 0xFE000000 != 0xB4000000 or word & 31 != number - 1:
            return None
        return branch.end if word & 0x01000000 else branch.target

    def may_refer(self, code: Code, callee: int) -> bool:
        """See `InstructionSet`."""
        words = struct.unpack_from(f"<{len(code.content) // _BYTES}I", code.content)
        return any(
            _is(word, _BRANCH) and _distance(word, 0, 26) == callee - (code.address + _BYTES * index)
            for index, word in enumerate(words)
        )


@lru_cache(maxsize=2)
def _decoder(detail: bool) -> Any:
    import capstone  # noqa: PLC0415 - 40 ms that a plan with nothing but starts need not pay

    decoder: Any = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)  # type: ignore[no-untyped-call] # it has no types
    decoder.detail = detail
    return decoder


def _distance(word: int, lowest: int, bits: int) -> int:
    value = word >> lowest & (1 << bits) - 1
    return (value - (value >> (bits - 1) << bits)) * _BYTES


def _flow(address: int, content: bytes, mnemonic: str) -> tuple[Kind, int | None]:
    (word,) = struct.unpack("<I", content)
    if _is(word, _BRANCH):
        return Kind.CALL if word & _UNCONDITIONAL_CALL else Kind.JUMP, address + _distance(word, 0, 26)
    if _is(word, _CONDITIONAL) or _is(word, _COMPARE):
        return Kind.CONDITIONAL, address + _distance(word, 5, 19)
    if _is(word, _TEST):
        return Kind.CONDITIONAL, address + _distance(word, 5, 14)
    if word & 0xFFFFFC1F in _REGISTER:
        return _REGISTER[word & 0xFFFFFC1F], None
    if mnemonic in {"svc", "hvc", "smc"}:
        return Kind.CALL, None
    return Kind.TRAP if mnemonic in {"udf", "brk", "hlt"} else Kind.PLAIN, None
