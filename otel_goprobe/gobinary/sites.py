"""Which instruction of a function carries a uprobe: the start of a call, its ends, and the results of what it calls.

A uprobe on an instruction that the kernel emulates costs the target about a thirtieth of one that it has to
single-step (measured on a virtual machine with Linux 6.18: 0.6 against 18 microseconds a hit), so each site carries
its class. Arguments are Go's register ABI's, counted from 1 (cmd/compile/abi-internal.md); `GoBinary` hands in the
function's bytes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from otel_goprobe.errors import UnsupportedBinaryError
from otel_goprobe.gobinary.instructions import Code, Instruction, InstructionSet, Kind
from otel_goprobe.model import Cost

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

ALL_ARGUMENTS = tuple(range(1, 17))
"""More than any machine has registers for (16 on arm64)."""

Place = tuple[int, bytes, str]
"""Address, instruction, reason."""


def start(code: Code, frame_change: int | None, arguments: Sequence[int] = ALL_ARGUMENTS) -> Place:
    """Where a call of the function begins: the cheapest instruction that it passes once, arguments in their registers.

    The stack check isn't such: a call whose stack has to grow comes back to it. Behind it stands ``push %rbp`` on
    x86-64 since Go 1.21. Elsewhere the code that follows is walked up to its first branch or call; if an argument is
    gone by then, the instruction that makes the frame does, or the first one of a function that has no frame, though
    it is single-stepped.

    Args:
        code: the function.
        frame_change: bytes from its start to the end of the first instruction that moves the stack pointer; None if
            none does.
        arguments: numbers of the arguments that must be intact.

    Raises:
        UnsupportedBinaryError: part of it isn't code, or a loop comes back to every place that would do.
    """
    machine = code.machine
    found = machine.frame_start(code, frame_change) if frame_change else None
    if found:
        return code.address + found[0], *found[1:]
    instructions = code.instructions
    making = next((each for each in instructions if frame_change and each.end == code.address + frame_change), None)
    if making and not machine.stack_pointer.intersection(machine.written(making)):
        making = None  # the assembler's tables change at jumps as well
    first = making or instructions[0]
    following = [each for each in instructions if each.address >= (making.end if making else code.address)]
    joined = _joined(instructions)
    if not any(each.kind in {Kind.SWITCH, Kind.COMPUTED} for each in instructions):
        watched = _names(machine, arguments) | machine.goroutine_register
        site = _first_emulated(machine, following, watched, joined)
        if site:
            return site.address, site.content, f"{site.mnemonic} {_WHERE[making is None]}, arguments still in place"
    if first.address in joined:
        raise UnsupportedBinaryError(f"a loop of {code.name} comes back to its start", "it can't be counted")
    if making:
        return first.address, first.content, f"{first.mnemonic} that makes the frame: no branch while arguments last"
    return first.address, first.content, "first instruction: no frame, and no branch while arguments last"


_WHERE = ("behind the stack check", "of a function without a frame")


def returns(code: Code) -> list[Place]:
    """Every way out of the function but a panic: its returns, and direct jumps to other functions.

    Raises:
        UnsupportedBinaryError: part of it isn't code, or it leaves by a conditional jump or where a register points.
    """
    found = []
    for each in code.instructions:
        leaves = each.target is not None and each.target not in code
        if each.kind is Kind.RETURN:
            found.append((each.address, each.content, "return"))
        elif each.kind is Kind.JUMP and leaves:
            found.append((each.address, each.content, f"tail jump to {each.target:#x}"))
        elif each.kind is Kind.CONDITIONAL and leaves:
            raise UnsupportedBinaryError(f"{code.name} leaves by a conditional jump", "its ends can't be told")
        elif each.kind is Kind.COMPUTED:
            raise UnsupportedBinaryError(f"{code.name} leaves by a jump through a register", "its ends can't be told")
    return found


def calls(code: Code, callee: int) -> tuple[int, ...]:
    """Addresses of the direct calls of, and jumps to, `callee`."""
    if not code.machine.may_refer(code, callee):
        return ()
    return tuple(
        each.address for each in code.instructions if each.target == callee and each.kind in {Kind.CALL, Kind.JUMP}
    )


def calls_in_turn(code: Code, first: int, second: int) -> tuple[list[Place], list[Place]]:
    """Tell the direct calls of two functions apart by whether they come one behind the other, in a straight line.

    At a call the callee's arguments are in their registers.

    Returns:
        The calls of `first` that no call of `second` comes behind, and the calls of `second` that do come behind one.
    """
    if not code.machine.may_refer(code, first):
        return [], []
    alone: list[Place] = []
    behind: list[Place] = []
    branching = [each for each in code.instructions if each.kind is not Kind.PLAIN]
    for each, following in pairwise(branching):
        if each.kind is Kind.CALL and each.target == first:
            in_turn = following.kind is Kind.CALL and following.target == second
            place = following if in_turn else each
            (behind if in_turn else alone).append((place.address, place.content, "call, arguments in their registers"))
    return alone, behind


def call_places(code: Code, callee: int) -> list[Place]:
    """Every direct call of `callee`; nothing if there is a tail jump to it."""
    if not code.machine.may_refer(code, callee):
        return []
    leading = [each for each in code.instructions if each.target == callee]
    if any(each.kind is not Kind.CALL for each in leading):
        return []
    return [(each.address, each.content, "call, arguments in their registers") for each in leading]


def results(code: Code, callee: int, numbers: Sequence[int], entries: Collection[int] = ()) -> list[Place]:
    """Behind each call of `callee`, the next emulated instruction with its results still in their registers.

    Args:
        code: the caller.
        callee: address of the function called.
        numbers: of the results that must be intact, from 1; with none of them other calls may lie between.
        entries: addresses at which the caller is entered otherwise, such as behind a recovered panic.

    Returns:
        Nothing if one of the calls has no such place, or is a tail jump.
    """
    if not code.machine.may_refer(code, callee):
        return []
    instructions = code.instructions
    if any(each.target == callee and each.kind is not Kind.CALL for each in instructions):
        return []
    if any(each.kind in {Kind.SWITCH, Kind.COMPUTED} for each in instructions):
        return []  # it may lead to any place
    joined = _joined(instructions) | set(entries)
    watched = _names(code.machine, numbers)
    found = []
    for index, each in enumerate(instructions):
        if each.kind is Kind.CALL and each.target == callee:
            place = _first_emulated(code.machine, instructions[index + 1 :], watched, joined)
            if place is None:
                return []
            found.append((place.address, place.content, f"results of the call at {each.address:#x}"))
    return found


def error_test(code: Code, callee: int, error: int = 2) -> tuple[Place, list[Place]] | None:
    """Where the function asks whether its call of `callee`, results (value, error), failed; and its other returns.

    Other paths may come to the same question, with results in the same registers: those are the two that net/http's
    Transport has, for HTTP/1 and HTTP/2.

    Args:
        code: the caller.
        callee: address of the function called.
        error: number of the result that holds the error's type, from 1: 2 behind one word, 3 behind an interface.

    Returns:
        The emulated branch, taken or not, that follows the call, and every way out that isn't behind its branch for a
        nil error: both together see each end once. None where the code has no such shape.
    """
    found = _asking(code, callee, error)
    if found is None:
        return None
    branch, success = found
    failed = branch.target if success == branch.end else branch.end
    if failed is None:
        return None
    ends = returns(code)
    behind = _reached(code, (success,), branch.address)
    without = _reached(code, (code.address, failed), branch.address)
    if branch.address in behind or any(address in behind and address in without for address, *_ in ends):
        return None
    others = [each for each in ends if each[0] not in behind]
    return (
        branch.address,
        branch.content,
        "asks whether the call failed, its results still in their registers",
    ), others


def _asking(code: Code, callee: int, error: int) -> tuple[Instruction, int] | None:
    """The emulated branch on the error of the one call of `callee`, and where it leads without an error."""
    instructions = code.instructions if code.machine.may_refer(code, callee) else ()
    at = [index for index, each in enumerate(instructions) if each.target == callee]
    computed = any(each.kind in {Kind.SWITCH, Kind.COMPUTED} for each in instructions)
    if len(at) != 1 or computed or instructions[at[0]].kind is not Kind.CALL:
        return None
    watched = _names(code.machine, range(1, error + 2))
    before = instructions[at[0]]
    for each in instructions[at[0] + 1 :]:
        if each.kind is not Kind.PLAIN:
            success = code.machine.nil_target(before, each, error) if each.kind is Kind.CONDITIONAL else None
            return None if success is None or each.cost is not Cost.EMULATED else (each, success)
        if watched.intersection(code.machine.written(each)):
            return None
        before = each
    return None


def _reached(code: Code, starts: Sequence[int], but: int) -> set[int]:
    """Addresses that can be come to from any of `starts`, the instruction at `but` not passed."""
    by_address = {each.address: each for each in code.instructions}
    found: set[int] = set()
    waiting = [*starts]
    while waiting:
        address = waiting.pop()
        each = by_address.get(address)
        if address in found or each is None:
            continue
        found.add(address)
        if address == but:
            continue
        if each.kind in {Kind.JUMP, Kind.CONDITIONAL} and each.target is not None:
            waiting.append(each.target)
        if each.kind in {Kind.PLAIN, Kind.CALL, Kind.CONDITIONAL}:
            waiting.append(each.end)
    return found


def _names(machine: InstructionSet, numbers: Sequence[int]) -> frozenset[str]:
    """Names of the registers that hold these arguments or results; numbers beyond the machine's are on the stack."""
    registers = machine.argument_registers
    return frozenset[str]().union(*(registers[number - 1] for number in numbers if number <= len(registers)))


def _joined(instructions: Sequence[Instruction]) -> set[int]:
    """Where jumps lead."""
    return {each.target for each in instructions if each.target is not None and each.kind is not Kind.CALL}


def _first_emulated(
    machine: InstructionSet, following: Sequence[Instruction], watched: frozenset[str], joined: Collection[int]
) -> Instruction | None:
    """The first emulated instruction of a straight line, unless one of `watched` is written or another path joins."""
    for each in following:
        if each.address in joined or each.kind in {Kind.RETURN, Kind.TRAP}:
            return None
        if each.cost is Cost.EMULATED:
            return each
        # Whatever is called through a register, or by a system call, may overwrite any.
        if watched and (each.kind is Kind.CALL or watched.intersection(machine.written(each))):
            return None
    return None
