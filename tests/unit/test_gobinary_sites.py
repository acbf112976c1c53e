"""Sites in machine code that is written down here: what a compiler may do, one case each."""

from __future__ import annotations

import pytest

from otel_goprobe.errors import UnsupportedBinaryError
from otel_goprobe.gobinary import sites
from otel_goprobe.gobinary.sites import Code, cost
from otel_goprobe.model import Cost

CALLEE = 0x2000


def code(*instructions: str) -> Code:
    """Give a function made of these bytes."""
    return Code("main.f", 0x1000, bytes.fromhex("".join(instructions)))


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


def test_results_on_the_next_emulated_instruction() -> None:
    """Past a load that spares the result registers."""
    # mov %rsp-relative load into rdx writes no result; then jmp
    found = sites.results(code(call(0), "488b542468", "eb00", "c3"), CALLEE, ["cx", "di"])
    assert found == [(0x100A, bytes.fromhex("eb00"), "results of the call at 0x1000")]


@pytest.mark.parametrize(
    ("overwriting", "registers"),
    [
        ("31c9", ["cx"]),
        ("b101", ["cx"]),
        ("488b7c2408", ["di"]),
        ("48ffc0", ["ax"]),
        ("f3a4", ["di"]),
        ("0fa2", ["bx"]),
    ],
)
def test_no_results_once_they_are_overwritten(overwriting: str, registers: list[str]) -> None:
    """By name, by part, implicitly."""
    assert sites.results(code(call(0), overwriting, "eb00", "c3"), CALLEE, registers) == []


def test_no_results_where_another_path_joins() -> None:
    """It would bring other values."""
    joined = code("7407", call(2), "89d0", "eb00", "c3")  # je to the mov behind the call
    assert sites.results(code("7400", call(2), "89d2", "eb00", "c3"), CALLEE, ["cx"])
    assert sites.results(Code("main.f", 0x1000, bytes.fromhex("7405") + joined.content[2:]), CALLEE, ["cx"]) == []


def test_no_results_where_a_recovered_panic_enters() -> None:
    """Likewise."""
    assert sites.results(code(call(0), "eb00", "c3"), CALLEE, ["cx"], [0x1005]) == []


def test_no_results_of_a_tail_jump_or_before_a_return_or_beside_a_switch() -> None:
    """There is no place that only the call leads to."""
    assert sites.results(code(call(0), "eb00", call(7, opcode="e9")), CALLEE, ["cx"]) == []
    assert sites.results(code(call(0), "c3"), CALLEE, ["cx"]) == []
    assert sites.results(code(call(0), "eb00", "ff24d8", "c3"), CALLEE, ["cx"]) == []
