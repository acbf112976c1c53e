"""The reader of Go executables: a file in, facts out. No root, no BPF, no pid; importable on its own.

    from otel_goprobe import gobinary

    with gobinary.open_binary("/proc/1234/exe") as binary:
        binary.build_info.go_version                              # 'go1.26.8'
        serve = binary.functions(["net/http.serverHandler.ServeHTTP"])["net/http.serverHandler.ServeHTTP"]
        binary.start_site(serve)                                  # address, file offset, bytes, cost, reason
        binary.field("net/http.Request", "URL")                   # FieldOffset(offset=16, size=8, …)
        binary.itab("*net/http.response", "net/http.ResponseWriter")
        binary.inlined(["net/http.(*response).finishRequest"])    # {} unless a profile inlined it
        binary.line(serve.address)                                # SourceLine(function, file, line)
        binary.signature(serve)                                   # with DWARF: names, types, registers

It needs neither symbols nor DWARF: functions come from the runtime's own table (pclntab.py, found through
moduledata.py), struct fields, type names and itabs from its type metadata (types.py). DWARF, where a file has it, is
a second opinion on the fields (dwarf.py). sites.py says which instruction may carry a probe, and what that costs the
target. Go 1.18 and newer (1.18 to look at, not to attach to), x86-64 and arm64, position independent or not, linked
by Go, GNU ld or gold, with or without section headers. A Go that came out yesterday is tried with the newest layout,
and refused if what comes out breaks an invariant.

Whatever is wrong with a file, only `otel_goprobe.errors.BinaryError` and its subclasses are raised.
"""

from otel_goprobe.gobinary.abi import Location
from otel_goprobe.gobinary.binary import FieldOffset, GoBinary, open_binary
from otel_goprobe.gobinary.frames import Frame
from otel_goprobe.gobinary.identity import Identity, identify
from otel_goprobe.gobinary.lines import SourceLine
from otel_goprobe.gobinary.machines import instruction_cost
from otel_goprobe.gobinary.pclntab import Function
from otel_goprobe.gobinary.signatures import Signature, Variable
from otel_goprobe.gobinary.sites import ALL_ARGUMENTS
from otel_goprobe.gobinary.types import Field, Struct

__all__ = [
    "ALL_ARGUMENTS",
    "Field",
    "FieldOffset",
    "Frame",
    "Function",
    "GoBinary",
    "Identity",
    "Location",
    "Signature",
    "SourceLine",
    "Struct",
    "Variable",
    "identify",
    "instruction_cost",
    "open_binary",
]
