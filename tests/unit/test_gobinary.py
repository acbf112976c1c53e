"""What gobinary says of real Go programs, compared with what go, objdump and DWARF say of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import goprograms
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from otel_goprobe import gobinary
from otel_goprobe.errors import NotGoError, UnsupportedBinaryError
from otel_goprobe.gobinary.dwarf import Dwarf
from otel_goprobe.gobinary.elf import Elf
from otel_goprobe.gobinary.instructions import Kind
from otel_goprobe.model import Cost

if TYPE_CHECKING:
    from pathlib import Path

FUNCTIONS = (
    "net/http.serverHandler.ServeHTTP",
    "net/http.(*response).finishRequest",
    "net/http.(*conn).serve",
    "net/http.(*conn).serve.func1",
    "net/http.(*conn).hijacked",
    "net/http.(*ServeMux).ServeHTTP",
    "net/http.HandlerFunc.ServeHTTP",
    "runtime.gopanic",
    "runtime.newproc1",
    "runtime.goexit1",
)
STRUCTS = (
    "net/http.Request",
    "net/http.response",
    "net/http.conn",
    "net/http.Server",
    "net/http.pattern",
    "net/url.URL",
    "runtime.g",
    "runtime.m",
)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stripped": {"strip": True},
    "pie": {"strip": True, "pie": True},
    "external": {"cgo": True},
}


@pytest.fixture(scope="session", params=KINDS)
def server(request: pytest.FixtureRequest) -> Path:
    """Give a net/http program of each kind."""
    if request.param == "external" and not shutil.which("gcc"):
        pytest.skip("external linking needs a C compiler")
    return goprograms.go_binary("http_server", **KINDS[request.param])


def objdump(path: Path, function: gobinary.Function) -> dict[int, str]:
    """Address -> instruction, as binutils has it."""
    if not shutil.which("objdump"):
        pytest.skip("needs binutils")
    span = [f"--start-address={function.address:#x}", f"--stop-address={function.address + function.size:#x}"]
    text = goprograms.printed_by("objdump", "-d", "--no-show-raw-insn", *span, path)
    lines = re.findall(r"^\s*([0-9a-f]+):\s+(.*?)\s*$", text, re.MULTILINE)
    return {int(address, 16): instruction for address, instruction in lines}


def test_build_info_and_id_as_go_prints_them(server: Path) -> None:
    """`go version -m` and `go tool buildid` are the measure."""
    with gobinary.open_binary(server) as binary:
        info = binary.build_info
        assert binary.build_id == goprograms.printed_by(goprograms.go_command(), "tool", "buildid", server)
    printed = goprograms.printed_by(goprograms.go_command(), "version", "-m", server)
    assert info.go_version == printed.split("\n")[0].rsplit(" ", 1)[1]
    assert info.path == re.findall(r"\tpath\t(.*)", printed)[0]
    assert info.main is not None
    assert [(info.main.path, info.main.version)] == re.findall(r"\tmod\t(\S+)\t(\S+)", printed)
    assert info.settings == dict(re.findall(r"\tbuild\t([^=]+)=\"?(.*?)\"?$", printed, re.MULTILINE))


def test_what_kind_of_executable_it_is(server: Path, request: pytest.FixtureRequest) -> None:
    """Machine, position independence, symbols and DWARF are as the program was built."""
    kind = request.node.callspec.params["server"]
    with gobinary.open_binary(server) as binary:
        assert binary.machine == "x86_64"
        assert binary.pie is (kind == "pie")
        assert binary.stripped is (kind in ("stripped", "pie"))
        assert binary.has_dwarf is (kind in ("plain", "external"))
        assert gobinary.identify(server) == binary.identity


def test_every_function_is_where_the_symbol_table_has_it(server_plain: Path) -> None:
    """The function table and .symtab, which is gone in a stripped program, name the same addresses."""
    with server_plain.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        symbols: dict[str, set[int]] = {}
        for symbol in table.iter_symbols():
            if symbol["st_info"]["type"] == "STT_FUNC":
                # Beside the body of an assembly function, X.abi0, stands the wrapper X, which gobinary leaves out.
                symbols.setdefault(symbol.name.removesuffix(".abi0"), set()).add(symbol["st_value"])
    with gobinary.open_binary(server_plain) as binary:
        found = binary.bodies(binary.function_names())
    compared = {name: {each.address for each in bodies} for name, bodies in found.items() if name in symbols}
    assert len(compared) > 5000
    assert [name for name, addresses in compared.items() if not addresses <= symbols[name]] == []
    assert sum(addresses == symbols[name] for name, addresses in compared.items()) > 0.98 * len(compared)


def test_a_wrapper_gives_way_to_the_function_it_wraps(server: Path) -> None:
    """An ABI wrapper is left out beside the function; a method wrapper, alone with its name, is told."""
    with gobinary.open_binary(server) as binary:
        found = binary.bodies(["runtime.goexit1", "net/http.(*HandlerFunc).ServeHTTP"])
        assert [each.wrapper for each in found["runtime.goexit1"]] == [False]
        assert [each.wrapper for each in found["net/http.(*HandlerFunc).ServeHTTP"]] == [True]
        assert binary.functions(["net/http.nothing", ""]) == {}


def test_start_sites_are_the_push_behind_the_stack_check(server: Path) -> None:
    """The byte, its file offset and its neighbours are what objdump shows."""
    with gobinary.open_binary(server) as binary:
        functions = binary.functions(FUNCTIONS)
        assert set(functions) == set(FUNCTIONS)
        for function in functions.values():
            site = binary.start_site(function)
            assert (site.expected, site.cost) == (b"\x55", Cost.EMULATED)
            assert server.read_bytes()[site.file_offset : site.file_offset + 1] == b"\x55"
            listing = objdump(server, function)
            before = [text for address, text in listing.items() if address < site.address]
            assert re.fullmatch(r"push\s+%rbp", listing[site.address])
            assert before[-1].startswith("jbe")


def test_a_leaf_without_a_frame_starts_at_its_first_branch(server_plain: Path) -> None:
    """There is no stack check that could come back."""
    with gobinary.open_binary(server_plain) as binary:
        # runtime/asm_amd64.s: CMPB runtime·useAeshash(SB), $0; JEQ noaes
        function = binary.functions(["runtime.memhash"])["runtime.memhash"]
        site = binary.start_site(function)
        assert objdump(server_plain, function)[site.address].startswith("je ")
        assert site.cost is Cost.EMULATED


def test_every_function_is_the_outermost_frame_of_its_first_instruction(server_plain: Path) -> None:
    """Assembly too, which says nothing of inlined calls."""
    with gobinary.open_binary(server_plain) as binary:
        bodies = [body for each in binary.bodies(binary.function_names()).values() for body in each]
        for body in bodies:
            frames = binary.frames(binary.file_offset(body.address))
            assert frames[-1].function == body.name
    assert {"runtime.memmove", "runtime.rt0_go"} <= {body.name for body in bodies}


def test_every_function_has_a_start_in_its_first_lines(server_plain: Path) -> None:
    """Or a reason why not: nothing between a function's entry and its site leaves it or calls anything."""
    emulated = reasons = 0
    with gobinary.open_binary(server_plain) as binary:
        bodies = [each for found in binary.bodies(binary.function_names()).values() for each in found]
        for function in bodies[::7]:
            try:
                site = binary.start_site(function)
            except UnsupportedBinaryError:
                reasons += 1
                continue
            emulated += site.cost is Cost.EMULATED
            if site.expected != b"\x55":
                before = [each for each in binary._code(function).instructions if each.address < site.address]
                assert all(each.kind in {Kind.PLAIN, Kind.CONDITIONAL} for each in before), function.name
                # the stack check alone jumps, to the function's end, which comes back to its start
                assert sum(each.kind is Kind.CONDITIONAL for each in before) <= 1
        assert emulated > 0.8 * len(bodies[::7])
        assert reasons < 5


def test_return_sites_are_all_that_objdump_shows(server: Path) -> None:
    """None is missed, none invented."""
    with gobinary.open_binary(server) as binary:
        for name, function in binary.functions(FUNCTIONS).items():
            sites = binary.return_sites(function)
            expected = [address for address, text in objdump(server, function).items() if text.startswith("ret")]
            assert [site.address for site in sites] == expected, name
            assert {site.cost for site in sites} <= {Cost.STEPPED}


def test_the_deferred_closure_of_a_connection_calls_hijacked(server: Path) -> None:
    """It is how the closure is recognised, whose number may shift."""
    with gobinary.open_binary(server) as binary:
        closure, hijacked = (binary.functions(FUNCTIONS)[name] for name in FUNCTIONS[3:5])
        calls = binary.calls(closure, hijacked)
        listing = objdump(server, closure)
        branch = re.compile(rf"(call|jmp)\w*\s+(0x)?{hijacked.address:x}\b")
        assert list(calls) == [address for address, text in listing.items() if branch.match(text)]
        assert calls
        assert binary.calls(hijacked, closure) == ()


def test_results_are_found_on_an_emulated_instruction_behind_the_call(server: Path) -> None:
    """Nothing between the call and the site writes a result register."""
    # servemux121.go: func (mux *serveMux121) findHandler(r *Request) (h Handler, pattern string), in AX, BX, CX, DI.
    names = ("net/http.(*ServeMux).ServeHTTP", "net/http.(*serveMux121).findHandler")
    with gobinary.open_binary(server) as binary:
        functions = binary.functions(names)
        if len(functions) < 2:
            pytest.skip("this Go has no serveMux121")
        caller, callee = (functions[name] for name in names)
        (site,) = binary.result_sites(caller, callee)
        (call,) = binary.calls(caller, callee)
        assert site.cost is Cost.EMULATED
        between = [text for at, text in objdump(server, caller).items() if call < at < site.address]
        assert len(between) < 8
        assert not any(re.search(r",%(r[abc]x|e[abc]x|[re]di)$", text) for text in between)


def assert_dwarf_agrees(program: Path, structs: tuple[str, ...]) -> None:
    """On every field of each of `structs` that the program has; by the public way, and beside it."""
    elf = Elf(program)
    dwarf = Dwarf(elf)
    with gobinary.open_binary(program) as binary:
        for name in structs:
            struct = binary.struct(name)
            assert struct is not None, name
            layout = dwarf.struct(name)
            assert (layout is not None) is binary.has_dwarf
            if layout is not None:
                offsets = {field: at for field, at in layout.offsets.items() if field != "_"}
                assert layout.size == struct.size
                assert offsets == {each.name: each.offset for each in struct.fields.values()}
            source = "dwarf+types" if binary.has_dwarf else "types"
            for field in struct.fields.values():
                expected = gobinary.FieldOffset(field.offset, field.size, field.type_name, source)
                assert binary.field(name, field.name) == expected
    elf.close()


def test_type_metadata_and_dwarf_agree_on_every_field(server: Path) -> None:
    """Of every struct that the probes use."""
    assert_dwarf_agrees(server, STRUCTS)


def test_fields_are_the_same_however_the_program_was_linked(server: Path, server_plain: Path) -> None:
    """Stripping, PIE and external linking move nothing inside a struct."""
    with gobinary.open_binary(server) as binary, gobinary.open_binary(server_plain) as plain:
        for name in STRUCTS:
            assert binary.struct(name) is not None
            for field in getattr(binary.struct(name), "fields", {}).values():
                there = plain.field(name, field.name)
                assert there is not None
                assert (there.offset, there.size, there.type_name) == (field.offset, field.size, field.type_name)


def test_fields_that_go_promises(server: Path) -> None:
    """Offsets that follow from the source, and names that are no field."""
    with gobinary.open_binary(server) as binary:
        method, url = binary.field("net/http.Request", "Method"), binary.field("net/http.Request", "URL")
        assert method is not None
        assert url is not None
        assert (method.offset, method.size, method.type_name) == (0, 16, "string")
        assert (url.offset, url.size, url.type_name) == (16, 8, "*net/url.URL")
        assert getattr(binary.field("runtime.g", "stack.hi"), "offset", None) == 8
        assert binary.field("net/http.response", "conn.server") is None  # behind a pointer
        assert binary.field("net/http.response", "nothing") is None
        assert binary.field("example.com/absent.Thing", "field") is None
        assert binary.struct("net/http.Handler") is None  # an interface
        assert binary.struct("http.Request") is None


def test_itabs_and_type_names(server: Path) -> None:
    """An itab leads to the two types it was asked for; other addresses are no types."""
    with gobinary.open_binary(server) as binary:
        itab = binary.itab("*net/http.response", "net/http.ResponseWriter")
        assert itab is not None
        interface, concrete = (int.from_bytes(binary.read(itab + at, 8), "little") for at in (0, 8))
        assert binary.type_name(interface) == "net/http.ResponseWriter"
        assert binary.type_name(concrete) == "*net/http.response"
        assert binary.itab("*net/http.response", "net.Conn") is None
        assert binary.itab("net/http.response", "net/http.ResponseWriter") is None
        request = binary.struct("net/http.Request")
        assert request is not None
        names = {field.name: binary.type_name(field.type_address) for field in request.fields.values()}
        assert (
            names["Header"] == "net/http.Header"
        )  # a map with methods: its descriptor's length depends on the Go version
        assert names["Method"] == "string"
        assert names["Cancel"] == "<-chan struct {}"
        assert names["TransferEncoding"] == "[]string"
        assert binary.type_name(concrete + 1) is None
        assert binary.type_name(0) is None
        assert binary.type_name(1 << 63) is None


def test_inlined_copies_are_found(server: Path) -> None:
    """A mutex is locked inline nearly everywhere, what is probed is not."""
    wanted = [*FUNCTIONS, "net/http.(*Request).Context", "sync.(*Mutex).Lock"]
    with gobinary.open_binary(server) as binary:
        inlined = binary.inlined(wanted)
    assert "sync.(*Mutex).Lock" in inlined
    assert len(inlined["sync.(*Mutex).Lock"]) > 10
    assert "net/http.serverHandler.ServeHTTP" not in inlined
    assert "net/http.(*response).finishRequest" not in inlined


def test_a_file_without_section_headers_reads_the_same(server: Path, tmp_path: Path) -> None:
    """Everything is found by segments and magic numbers too."""
    content = bytearray(server.read_bytes())
    content[40:48] = bytes(8)  # e_shoff
    content[58:64] = bytes(6)  # e_shentsize, e_shnum, e_shstrndx
    bare = tmp_path / "bare"
    bare.write_bytes(content)
    with gobinary.open_binary(bare) as binary, gobinary.open_binary(server) as whole:
        assert binary.build_info == whole.build_info
        assert binary.build_id == whole.build_id
        assert binary.functions(FUNCTIONS) == whole.functions(FUNCTIONS)
        assert [binary.struct(name) for name in STRUCTS] == [whole.struct(name) for name in STRUCTS]
        assert binary.itab("*net/http.response", "net/http.ResponseWriter")


def test_what_is_read_only_ends_before_what_is_not(server: Path) -> None:
    """A string constant lies before the end, variables behind it."""
    elf = Elf(server)
    constant = elf.address(elf.data.find(b"http: Server closed"))
    variables = elf.sections[".noptrdata"].address
    elf.close()
    with gobinary.open_binary(server) as binary:
        assert constant < binary.read_only_end <= variables


def test_a_linker_that_leaves_the_relocated_words_empty(tmp_path: Path) -> None:
    """Pointers then come from .rela."""
    original = goprograms.go_binary("http_server", strip=True, pie=True)
    elf = Elf(original)
    places, _ = elf._relocations
    content = bytearray(original.read_bytes())
    assert len(places) > 10000
    for at in (elf.file_offset(int(place)) for place in places):
        content[at : at + 8] = bytes(8)
    elf.close()
    emptied = tmp_path / "emptied"
    emptied.write_bytes(content)
    with gobinary.open_binary(emptied) as binary, gobinary.open_binary(original) as whole:
        assert binary.functions(FUNCTIONS) == whole.functions(FUNCTIONS)
        assert [binary.struct(name) for name in STRUCTS] == [whole.struct(name) for name in STRUCTS]
        names = "*net/http.response", "net/http.ResponseWriter"
        assert binary.itab(*names) == whole.itab(*names)
        assert binary.itab(*names)


def test_arm64_is_read_here(minimal: Path, minimal_arm64: Path) -> None:
    """Types and functions are as on x86-64; sites are arm64's own: every end is emulated there."""
    with gobinary.open_binary(minimal) as here, gobinary.open_binary(minimal_arm64) as there:
        assert there.machine == "aarch64"
        struct, other = here.struct("runtime.g"), there.struct("runtime.g")
        assert struct is not None
        assert other is not None
        assert [(f.name, f.offset) for f in struct.fields.values()] == [
            (f.name, f.offset) for f in other.fields.values()
        ]
        assert there.itab("*main.loud", "main.speaker") is not None
        main = there.functions(["main.main", "main.say"])["main.say"]
        assert main.address % 4 == 0
        for function in there.functions(["main.main", "main.say", "runtime.gopanic", "runtime.newproc1"]).values():
            start, ends = there.start_site(function), there.return_sites(function)
            assert start.address > function.address
            assert start.file_offset % 4 == len(start.expected) % 4 == 0
            assert {end.cost for end in ends} <= {Cost.EMULATED}
        assert there.return_sites(main)
        assert there.untraceable == ""


def test_all_that_a_server_probe_asks_takes_no_time(server: Path) -> None:
    """Within 100 ms of CPU, as users of large fleets care."""
    with gobinary.open_binary(server) as binary:  # imports and page cache
        binary.field("net/http.Request", "URL")
        binary.start_site(binary.functions(FUNCTIONS)[FUNCTIONS[0]])
    start = time.process_time()
    with gobinary.open_binary(server) as binary:
        for function in binary.functions(FUNCTIONS[:8]).values():
            binary.start_site(function)
        for name in STRUCTS[:6]:
            assert binary.struct(name)
        binary.itab("*net/http.response", "net/http.ResponseWriter")
        binary.inlined(FUNCTIONS)
    assert time.process_time() - start < 0.1


def test_executables_are_read_through_proc(minimal: Path, tmp_path: Path) -> None:
    """A running one, and one that was deleted."""
    copy = tmp_path / "deleted"
    shutil.copy(minimal, copy)
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            with pytest.raises(NotGoError, match="is not a Go program"):
                gobinary.open_binary(f"/proc/{process.pid}/exe")
        finally:
            process.kill()
    descriptor = copy.open("rb")
    copy.unlink()
    with descriptor, gobinary.open_binary(f"/proc/self/fd/{descriptor.fileno()}") as binary:
        assert "main.main" in binary.functions(["main.main"])
