"""What gobinary says of the source: lines, signatures, variables; compared with addr2line, the ABI, and .symtab."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import goprograms
import pytest

from otel_goprobe import gobinary
from otel_goprobe.gobinary import Location
from otel_goprobe.gobinary import globals as variables
from otel_goprobe.gobinary.elf import Elf
from otel_goprobe.gobinary.instructions import Code
from otel_goprobe.gobinary.signatures import _packages
from otel_goprobe.gobinary.x86_64 import X8664

if TYPE_CHECKING:
    from pathlib import Path

FUNCTIONS = ("net/http.(*conn).serve", "net/http.serverHandler.ServeHTTP", "runtime.newproc1", "main.main")
RELEASES = ("1.19", "1.21", "1.22", "1.23", "1.24", "1.25", "1.26", "1.27")


# --- lines -----------------------------------------------------------------------------------------------------------


def test_lines_are_those_of_addr2line(server_plain: Path) -> None:
    """At every instruction of some functions, inlined calls among them."""
    with gobinary.open_binary(server_plain) as binary:
        for function in binary.functions(FUNCTIONS).values():
            addresses = [each.address for each in binary._code(function).instructions]
            for address, expected in zip(addresses, addr2line(server_plain, addresses), strict=True):
                source = binary.line(address)
                if source is not None:  # padding behind the last instruction
                    assert f"{source.file}:{source.line}" == expected
                    assert source.function == function.name
            assert binary.line(function.address) is not None


def addr2line(program: Path, addresses: list[int], go: str = "") -> list[str]:
    """Return ``file:line`` of each address, as Go's own tool has it."""
    command = [goprograms.go_command(go), "tool", "addr2line", program]
    questions = "".join(f"{address:#x}\n" for address in addresses)
    done = subprocess.run(command, input=questions, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[1::2]


def test_lines_of_stripped_programs(server_plain: Path) -> None:
    """They need neither symbols nor DWARF; an address outside all functions has none."""
    stripped = goprograms.go_binary("http_server", strip=True)
    with gobinary.open_binary(server_plain) as plain, gobinary.open_binary(stripped) as binary:
        for name, function in plain.functions(FUNCTIONS).items():
            assert binary.line(binary.functions([name])[name].address) == plain.line(function.address)
        assert binary.line(0) is None
        assert binary.line(binary._module.text_end + (1 << 30)) is None


# --- signatures ------------------------------------------------------------------------------------------------------


def registers(*numbers: int) -> Location:
    """Give integer registers."""
    return Location(integers=numbers)


SIGNATURES = {
    "main.blanks": (
        [
            ("int", registers(1)),
            ("string", registers(2, 3)),
            ("error", registers(4, 5)),
            ("float64", Location((), (1,))),
        ],
        [("int", registers(1)), ("error", registers(2, 3))],
    ),
    # A struct takes a register for each field, blank ones too; an array of two goes to memory.
    "main.pair.value": (
        [
            ("main.pair", registers(1, 2)),
            ("main.mixed", Location((3, 4, 5, 6), (1, 2, 3))),
            ("main.big", Location(stack_offset=0)),
            ("[]string", registers(7, 8, 9)),
        ],
        [("main.pair", registers(1, 2)), ("int", registers(3)), ("float64", Location((), (1,)))],
    ),
    # Nine registers, then the stack.
    "main.many": (
        [
            *(("int", registers(number)) for number in range(1, 10)),
            ("string", Location(stack_offset=0)),
            ("uint8", Location(stack_offset=16)),
            ("bool", Location(stack_offset=17)),
            ("[]uint8", Location(stack_offset=24)),
        ],
        [
            ("string", registers(1, 2)),
            ("[]uint8", registers(3, 4, 5)),
            ("error", registers(6, 7)),
            ("map[string]int", registers(8)),
            ("int", registers(9)),
        ],
    ),
}


def assert_signatures(program: Path, *, blanks: bool) -> None:
    """All of SIGNATURES."""
    with gobinary.open_binary(program) as binary:
        for name, expected in SIGNATURES.items():
            signature = binary.signature(binary.functions([name])[name])
            assert signature is not None
            both = signature.arguments, signature.results
            if name == "main.blanks" and not blanks:
                assert [each.type_name for each in both[0]] == ["string", "float64"]
                assert {each.location for part in both for each in part} == {None}
            else:
                assert tuple([(each.type_name, each.location) for each in part] for part in both) == expected


def test_signatures_follow_the_register_abi() -> None:
    """Arguments and results, as the ABI's document puts them."""
    assert_signatures(goprograms.go_binary("signatures"), blanks=True)


def test_signatures_of_arm64_have_more_registers() -> None:
    """Sixteen of each kind."""
    with gobinary.open_binary(goprograms.go_binary("signatures", goarch="arm64")) as binary:
        signature = binary.signature(binary.functions(["main.many"])["main.many"])
        assert signature is not None
        places = [each.location for each in signature.arguments]
    assert places[9:] == [registers(10, 11), registers(12), registers(13), registers(14, 15, 16)]


def test_signatures_agree_with_the_function_table(server_plain: Path) -> None:
    """The compiler wrote there how many bytes all arguments and results take up: of nearly all functions, the same."""
    with gobinary.open_binary(server_plain) as binary:
        functions = binary.functions(name for name in binary.function_names() if name.startswith("net/http."))
        found = [signature for each in functions.values() if (signature := binary.signature(each))]
        certain = [each for each in found if all(part.location for part in (*each.arguments, *each.results))]
        assert len(found) > 500
        assert len(certain) > 0.99 * len(found)
        serve = binary.signature(functions["net/http.serverHandler.ServeHTTP"])
        assert serve is not None
        assert [(each.name, each.type_name, each.location) for each in serve.arguments] == [
            ("sh", "net/http.serverHandler", registers(1)),
            ("rw", "net/http.ResponseWriter", registers(2, 3)),
            ("req", "*net/http.Request", registers(4)),
        ]


def test_no_signature_without_dwarf_or_of_an_assembler_function(minimal: Path, server_plain: Path) -> None:
    """Nothing is guessed."""
    with gobinary.open_binary(minimal) as binary:
        assert binary.signature(binary.functions(["main.main"])["main.main"]) is None
    with gobinary.open_binary(server_plain) as binary:
        assert binary.signature(binary.functions(["runtime.memhash"])["runtime.memhash"]) is None


@pytest.mark.parametrize(
    ("function", "packages"),
    [
        ("net/http.(*conn).serve", ("net/http",)),
        ("main.main", ("main",)),
        ("gopkg.in/yaml%2ev3.Marshal", ("gopkg.in/yaml.v3", "gopkg.in/yaml%2ev3")),
        ("example.com/a.F[go.shape.struct { example.com/b.x int }]", ("example.com/a",)),
    ],
)
def test_the_package_of_a_function(function: str, packages: tuple[str, ...]) -> None:
    """It names the compilation unit."""
    assert _packages(function) == packages


# --- variables -------------------------------------------------------------------------------------------------------


def test_runtime_sched_is_found_by_the_code_that_refers_to_it(server_plain: Path) -> None:
    """Where the symbol table has it, in a program that has one and in its stripped twin."""
    with gobinary.open_binary(server_plain) as binary:
        by_symbol = binary.variable("runtime.sched")
        elf = binary._elf
        code = binary._code(binary.functions(["runtime.newproc1"])["runtime.newproc1"])
        assert variables.read_variable("runtime.sched", lambda _: code, elf.writable) == by_symbol
        assert by_symbol is not None
        assert elf.writable(by_symbol)
        assert binary.variable("runtime.nothing") is None
    with gobinary.open_binary(goprograms.go_binary("http_server", strip=True)) as binary:
        assert binary.variable("runtime.sched") is not None
        assert binary.variable("runtime.mheap_") is None


def test_a_reference_that_is_not_certain_is_none() -> None:
    """Two candidates, another constant, a register that doesn't match, an address that isn't writable."""
    taking, adding = "4c8d1d00010000", "f04d0fc113"  # lea 0x100(%rip), %r11; lock xadd %r10, (%r11)
    batch, other = "41ba10000000", "41ba11000000"  # mov $16, %r10d; mov $17, %r10d

    def found(*instructions: str, writable: bool = True) -> int | None:
        code = Code("runtime.newproc1", 0x1006, bytes.fromhex("".join(instructions)), X8664())
        return variables.read_variable("runtime.sched", lambda _: code, lambda _: writable)

    assert found("9090909090", batch, taking, adding) == 0x1118
    assert found("9090909090", batch, taking, adding, writable=False) is None
    assert found("90909090", batch, taking, adding) is None  # not aligned
    assert found("9090909090", other, taking, adding) is None
    assert found("9090909090", batch, taking, "f04d0fc112") is None  # (%r10)
    assert found("9090909090", batch, taking, "f0450fc113") is None  # four bytes
    assert found("9090909090", batch, taking, adding, "90" * 6, batch, taking, adding) is None
    assert variables.read_variable("runtime.sched", lambda _: None, lambda _: True) is None


# --- every release ---------------------------------------------------------------------------------------------------


@pytest.mark.versions
@pytest.mark.timeout(600)
@pytest.mark.parametrize("release", RELEASES)
def test_source_of_every_release(release: str) -> None:
    """Signatures, lines and the scheduler's address, as above for one."""
    program = goprograms.go_binary("signatures", go=release)
    assert_signatures(program, blanks=release >= "1.22")
    elf = Elf(program)
    with gobinary.open_binary(program) as binary:
        code = binary._code(binary.functions(["runtime.newproc1"])["runtime.newproc1"])
        expected = elf.symbol("runtime.sched")
        assert expected is not None
        assert variables.read_variable("runtime.sched", lambda _: code, elf.writable) == expected
        addresses = [function.address for function in binary.functions(SIGNATURES).values()]
        for address, expected_line in zip(addresses, addr2line(program, addresses, release), strict=True):
            source = binary.line(address)
            assert source is not None
            assert f"{source.file}:{source.line}" == expected_line
    elf.close()


@pytest.mark.versions
@pytest.mark.timeout(600)
def test_a_profile_that_inlines_the_end_of_a_request() -> None:
    """The end then is behind the call of the handler, by the way that is declared next; nothing is lost."""
    profile = goprograms.SERVER_PROFILE
    with gobinary.open_binary(goprograms.go_binary("http_server", pgo=profile)) as binary:
        finish = "net/http.(*response).finishRequest"
        assert binary.inlined([finish]) == {finish: frozenset(["net/http.(*conn).serve"])}


def test_every_function_is_the_outermost_frame_of_its_first_instruction(server_plain: Path) -> None:
    """Assembly too, which says nothing of inlined calls."""
    with gobinary.open_binary(server_plain) as binary:
        bodies = [body for each in binary.bodies(binary.function_names()).values() for body in each]
        for body in bodies:
            frames = binary.frames(binary.file_offset(body.address))
            assert frames[-1].function == body.name
    assert {"runtime.memmove", "runtime.rt0_go"} <= {body.name for body in bodies}
