"""Program counters of a process -> functions, files and lines, inlined calls too; pure, from files and a list of maps.

    Stacks(mappings("/proc/PID/maps", text), {"/srv/shop": "/proc/1234/exe"}).frames(pcs)

Go code is resolved by the function table, which stripped programs have; C code by symbols, which they may not have.
"""

from otel_goprobe.gobinary import Frame
from otel_goprobe.stacks.application import application_frame, package_of, stacktrace
from otel_goprobe.stacks.resolver import Stacks, mappings
from otel_goprobe.stacks.symbols import Symbol, Symbols

__all__ = ["Frame", "Stacks", "Symbol", "Symbols", "application_frame", "mappings", "package_of", "stacktrace"]
