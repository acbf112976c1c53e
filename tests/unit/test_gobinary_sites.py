"""Sites in machine code that is written down here: what a compiler may do, one case each."""

from __future__ import annotations

import pytest

from otel_goprobe.errors import UnsupportedBinaryError
from otel_goprobe.gobinary import aarch64, sites
from otel_goprobe.gobinary.aarch64 import AArch64
from otel_goprobe.gobinary.instructions import Code, InstructionSet
from otel_goprobe.gobinary.x86_64 import X8664, cost
from otel_goprobe.model import Cost

CALLEE = 0x2000
X86, ARM = X8664(), AArch64()
AX, DI, CX, BX = 1, 4, 3, 2


def code(*instructions: str, machine: InstructionSet = X86) -> Code:
    """Give a function made of these bytes."""
    return Code("main.f", 0x1000, bytes.fromhex("".join(instructions)), machine)


def arm(*instructions: str) -> Code:
    """Likewise, for arm64."""
    return code(*instructions, machine=ARM)


def call(at: int, target: int = CALLEE, opcode: str = "e8") -> str:
    """A call or jump rel32, `at` bytes behind the function's start."""
    return opcode + (target - (0x1000 + at + 5)).to_bytes(4, "little", signed=True).hex()


@pytest.mark.parametrize(
    "emulated", ["55", "53", "4157", "e811223344", "e911223344", "eb05", "7405", "0f8411223344", "90"]
)
def test_the_kernel_emulates(emulated: str) -> None:
    """Instructions that cost a target little."""
    assert cost(bytes.fromhex(emulated)) is Cost.EMULATED


@pytest.mark.parametrize(
    "stepped", ["c3", "4889e5", "493b6610", "5d", "ffd0", "ff24d8", "4055", "0f1f00", "6690", "e205", "66e81122", "cc"]
)
def test_the_kernel_steps(stepped: str) -> None:
    """All others, look-alikes among them."""
    assert cost(bytes.fromhex(stepped)) is Cost.STEPPED


def test_a_tail_jump_is_an_end() -> None:
    """As a return is."""
    found = sites.returns(code("85c0", "7401", "c3", call(5, opcode="e9"), "cccc"))
    assert [(address, reason) for address, _, reason in found] == [(0x1004, "return"), (0x1005, "tail jump to 0x2000")]


def test_a_switch_is_no_end() -> None:
    """Its jump table leads back into the function."""
    assert len(sites.returns(code("ff24d8", "c3"))) == 1


@pytest.mark.parametrize("leaving", ["ffe0", "ff2511223344"])
def test_a_jump_through_a_register_leaves_the_ends_unknown(leaving: str) -> None:
    """So the function is refused."""
    with pytest.raises(UnsupportedBinaryError, match="jump through a register"):
        sites.returns(code("85c0", leaving))


def test_a_conditional_jump_out_leaves_the_ends_unknown() -> None:
    """A probe on it would fire when it stays, too."""
    with pytest.raises(UnsupportedBinaryError, match="conditional jump"):
        sites.returns(code("0f84" + (0x1000).to_bytes(4, "little").hex(), "c3"))


def test_bytes_that_are_no_code_are_refused() -> None:
    """With their place."""
    with pytest.raises(UnsupportedBinaryError, match="no instruction, 1 bytes from its start"):
        sites.returns(code("c3", "06"))


def test_a_call_is_found_at_instructions_only() -> None:
    """Not inside a constant that looks like one."""
    hidden = "48b8" + call(2) + "000000"  # mov $imm64, %rax with a call's bytes in the constant
    assert sites.calls(code(hidden, call(10), "c3"), CALLEE) == (0x100A,)
    assert sites.calls(code(hidden, "c3"), CALLEE) == ()


def test_every_call_is_a_place() -> None:
    """On the call itself; none where the callee is left for by a jump, for its caller's frame is gone by then."""
    twice = code(call(0), "90", call(6), "c3")
    assert [address for address, *_ in sites.call_places(twice, CALLEE)] == [0x1000, 0x1006]
    assert all(cost(content) is Cost.EMULATED for _, content, _ in sites.call_places(twice, CALLEE))
    assert sites.call_places(code(call(0), call(5, opcode="e9")), CALLEE) == []
    assert sites.call_places(code("90", "c3"), CALLEE) == []


def test_results_on_the_next_emulated_instruction() -> None:
    """Past a load that spares the result registers."""
    # mov %rsp-relative load into rdx writes no result; then jmp
    found = sites.results(code(call(0), "488b542468", "eb00", "c3"), CALLEE, [CX, DI])
    assert found == [(0x100A, bytes.fromhex("eb00"), "results of the call at 0x1000")]


@pytest.mark.parametrize(
    ("overwriting", "numbers"),
    [
        ("31c9", [CX]),
        ("b101", [CX]),
        ("488b7c2408", [DI]),
        ("48ffc0", [AX]),
        ("f3a4", [DI]),
        ("0fa2", [BX]),
    ],
)
def test_no_results_once_they_are_overwritten(overwriting: str, numbers: list[int]) -> None:
    """By name, by part, implicitly."""
    assert sites.results(code(call(0), overwriting, "eb00", "c3"), CALLEE, numbers) == []


def test_no_results_where_another_path_joins() -> None:
    """It would bring other values."""
    joined = code("7407", call(2), "89d0", "eb00", "c3")  # je to the mov behind the call
    assert sites.results(code("7400", call(2), "89d2", "eb00", "c3"), CALLEE, [CX])
    assert sites.results(code("7405", joined.content[2:].hex()), CALLEE, [CX]) == []


def test_no_results_where_a_recovered_panic_enters() -> None:
    """Likewise."""
    assert sites.results(code(call(0), "eb00", "c3"), CALLEE, [CX], [0x1005]) == []


def test_no_results_of_a_tail_jump_or_before_a_return_or_beside_a_switch() -> None:
    """There is no place that only the call leads to."""
    assert sites.results(code(call(0), "eb00", call(7, opcode="e9")), CALLEE, [CX]) == []
    assert sites.results(code(call(0), "c3"), CALLEE, [CX]) == []
    assert sites.results(code(call(0), "eb00", "ff24d8", "c3"), CALLEE, [CX]) == []


def test_no_results_behind_another_call() -> None:
    """Through a register, or of the kernel: it overwrites what it likes, though it says so of nothing."""
    for other in ("ffd1", "0f05"):  # call *%rcx, syscall
        assert sites.results(code(call(0), other, "eb00", "c3"), CALLEE, [DI]) == []


SUB = "4883ec18"
"""sub $0x18, %rsp: how a frame was made up to Go 1.20; the stack check, cmp and jbe, is 6 bytes in front of it."""
CHECK = "493b6610" + "7620"


def start(*instructions: str, arguments: tuple[int, ...] = (AX, BX)) -> tuple[int, str]:
    """Where a function with a stack check and SUB behind it starts, and by what instruction."""
    address, content, _ = sites.start(code(CHECK, SUB, *instructions, "c3", "90" * 32), 10, arguments)
    return address - 0x1000, content.hex()


def test_a_start_without_push_is_the_first_branch_behind_the_stack_check() -> None:
    """While the arguments last, past what writes others."""
    assert start("4889442420", "4831c9", "7400") == (18, "7400")  # mov %rax to the stack, xor %rcx
    assert start(call(10)) == (10, call(10))


@pytest.mark.parametrize("first", ["31c0", "b301", "4d31f6", "ffd1"])
def test_a_start_whose_arguments_are_gone_makes_the_frame(first: str) -> None:
    """Whole, in part, the goroutine's register; or after a call."""
    assert start(first, "7400") == (6, SUB)
    assert start("31c9", "7400") == (12, "7400")  # no argument of this function


def test_a_start_inside_a_loop_makes_the_frame() -> None:
    """A loop passes it more than once."""
    assert start("90", "75fd") == (6, SUB)  # jne back to the nop
    assert start("7502", "ff24d8") == (6, SUB)  # a switch may lead there, too


def test_a_start_without_a_frame_needs_no_stack_check() -> None:
    """The first branch, else the first instruction, unless a loop comes back to it."""
    assert sites.start(code("4889d8", "c3"), None)[:2] == (0x1000, bytes.fromhex("4889d8"))
    assert sites.start(code("55", "4889e5", "5d", "c3"), 1)[:2] == (0x1000, b"\x55")
    assert sites.start(code("4885c0", "7400", "c3"), None)[:2] == (0x1003, bytes.fromhex("7400"))
    # What the stack table calls a frame is none where nothing moves the stack pointer, as in hand-written code.
    assert sites.start(code("4885c0", "31d2", "7400", "c3"), 5, [AX])[:2] == (0x1005, bytes.fromhex("7400"))
    with pytest.raises(UnsupportedBinaryError, match=r"a loop of main\.f comes back to its start"):
        sites.start(code("48ffc0", "75fb", "c3"), None)
    with pytest.raises(UnsupportedBinaryError, match="no instruction, 0 bytes"):
        sites.start(code(), None)


# --- arm64 -----------------------------------------------------------------------------------------------------------

RET, NOP, CBZ, BLR = "c0035fd6", "1f2003d5", "80000034", "20003fd6"
PUSH = "fe0f1ef8"
"""str x30, [sp, #-0x20]!"""


@pytest.mark.parametrize(
    "emulated", [RET, CBZ, BLR, "00001fd6", "e1000054", "20000036", "00000090", "00000010", "00000014", "00000094"]
)
def test_the_arm64_kernel_simulates(emulated: str) -> None:
    """Branches of all kinds, returns, adr and adrp."""
    assert aarch64.cost(bytes.fromhex(emulated)) is Cost.EMULATED


@pytest.mark.parametrize("stepped", [PUSH, NOP, "00000058", "e00301aa", "010000d4"])
def test_the_arm64_kernel_steps(stepped: str) -> None:
    """Or refuses: a literal load, svc."""
    assert aarch64.cost(bytes.fromhex(stepped)) is Cost.STEPPED


def test_arm64_starts() -> None:
    """Behind the instruction that makes the frame, as on x86-64 up to Go 1.20."""
    check = "900b40f9" + "ff6330eb" + "e9000054"  # ldr x16, [x28, #16]; cmp sp, x16; b.ls
    kept = arm(check, PUSH, "e00f00f9", CBZ, RET, RET)  # str x0, [sp, #24]
    assert sites.start(kept, 16)[:2] == (0x1014, bytes.fromhex(CBZ))
    gone = arm(check, PUSH, "e00301aa", CBZ, RET, RET)  # mov x0, x1
    assert sites.start(gone, 16)[:2] == (0x100C, bytes.fromhex(PUSH))
    assert sites.start(gone, 16, [2])[:2] == (0x1014, bytes.fromhex(CBZ))


def test_arm64_ends_are_emulated_returns_and_tail_jumps() -> None:
    """Constants behind the last instruction are none."""
    away = ((CALLEE - 0x1004) // 4 | 0x14000000).to_bytes(4, "little").hex()
    found = sites.returns(arm(CBZ, away, RET, "ffffffff", "c0035fd6"))
    assert [(place, reason) for place, _, reason in found] == [
        (0x1004, "tail jump to 0x2000"),
        (0x1008, "return"),
        (0x1010, "return"),
    ]
    with pytest.raises(UnsupportedBinaryError, match="no instruction, 4 bytes"):
        sites.returns(arm(NOP, "ffffffff", RET))
    with pytest.raises(UnsupportedBinaryError, match="jump through a register"):
        sites.returns(arm("60031fd6", RET))
    switch = arm("1b7861f8", "60031fd6", RET)  # ldr x27, [x0, x1, lsl #3]; br x27
    assert [place for place, *_ in sites.returns(switch)] == [0x1008]


def test_arm64_calls_and_their_results() -> None:
    """As on x86-64."""
    calling = ((CALLEE - 0x1004) // 4 | 0x94000000).to_bytes(4, "little").hex()
    function = arm(NOP, calling, "e00f00f9", CBZ, RET)
    assert sites.calls(function, CALLEE) == (0x1004,)
    assert sites.calls(function, CALLEE + 4) == ()
    assert [place for place, *_ in sites.results(function, CALLEE, [1, 2])] == [0x100C]
    overwriting = arm(NOP, calling, "e00301aa", CBZ, RET)
    assert sites.results(overwriting, CALLEE, [1, 2]) == []


def test_calls_are_told_apart_by_the_next_one() -> None:
    """As runtime.selectgo's two uses of typedmemmove are: before typedmemclr it takes an item, else it puts one."""
    other = 0x3000
    taking = [call(0), "4889cb", call(8, other)]  # mov rbx, rcx between the two
    putting = [call(13), "7402", call(20, other), "c3"]  # a branch between
    alone, behind = sites.calls_in_turn(code(*taking, *putting), CALLEE, other)
    assert [address for address, *_ in alone] == [0x1000 + 13]
    assert [address for address, *_ in behind] == [0x1000 + 8]
    assert sites.calls_in_turn(code("c3"), CALLEE, other) == ([], [])


def test_a_branch_on_the_error_and_the_ends_behind_no_success() -> None:
    """Call; test the error's type; no error: return; else: another return."""
    found = sites.error_test(code(call(0), "4885db", "7501", "c3", "90", "c3"), CALLEE)
    assert found is not None
    (branch, _, _), others = found
    assert (branch, [address for address, *_ in others]) == (0x1008, [0x100C])
    # The same, the branch taken without an error: je to the last return.
    found = sites.error_test(code(call(0), "4885db", "7402", "90", "c3", "c3"), CALLEE)
    assert found is not None
    assert (found[0][0], [address for address, *_ in found[1]]) == (0x1008, [0x100B])


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((call(0), call(5), "4885db", "7501", "c3", "c3"), id="called twice"),
        pytest.param((call(0), "31db", "4885db", "7501", "c3", "c3"), id="the error overwritten"),
        pytest.param((call(0), "4885c0", "7501", "c3", "c3"), id="the value asked for"),
        pytest.param((call(0), "4885db", "7f01", "c3", "c3"), id="another question"),
        pytest.param((call(0), "c3"), id="no question"),
        pytest.param((call(0), "4885db", "7501", "90", "c3"), id="both ways to one end"),
        pytest.param(("c3",), id="no call"),
    ],
)
def test_no_branch_on_the_error(shape: tuple[str, ...]) -> None:
    """Then the returns are what is left."""
    assert sites.error_test(code(*shape), CALLEE) is None


def test_where_a_branch_leads_without_an_error() -> None:
    """By what stands before it: a test of the register with itself, and the jump's condition."""

    def leads(*instructions: str) -> int | None:
        before, branch = code(*instructions, "c3", "c3").instructions[:2]
        return X86.nil_target(before, branch, BX)

    assert leads("4885db", "7501") == 0x1005  # jne: not taken
    assert leads("4885db", "7401") == 0x1006  # je: taken
    assert leads("4885db", "7c01") is None
    assert leads("4885c9", "7501") is None  # another register
    assert leads("4839db", "7501") is None  # another instruction
