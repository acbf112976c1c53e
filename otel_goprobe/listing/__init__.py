"""What a spec finds: functions of a Go program, symbols and marks of files, tracepoints; ``inspect --at`` prints it.

    with gobinary.open_binary("/proc/1234/exe") as binary:
        listing.find(specs.parse("main.*"), listing.Subject(binary, pid=1234), limit=100)

A finding is the object that JSON shows, and bounded: places of probes are looked for in what is listed alone.
"""

from otel_goprobe.listing.find import KINDS, Subject, find
from otel_goprobe.listing.nearest import nearest

__all__ = ["KINDS", "Subject", "find", "nearest"]
