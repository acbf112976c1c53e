"""``otel-goprobe opens``: Files that Go processes open, by function and route."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from otel_goprobe.emit import bpftrace
from otel_goprobe.model import Event
from otel_goprobe.tools.base import FRAMES, Column, Tool, Tracepoint
from otel_goprobe.tools.counted import MAX_ROWS, Counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from otel_goprobe.model import AttributeValue
    from otel_goprobe.tools.base import Surroundings

_KEYS = {
    "path": "file.path",
    "function": "code.function.name",
    "line": "code.line.number",
    "route": "http.route",
    "error": "error.type",
}
"""Column -> attribute of the semantic conventions."""


def _events(surroundings: Surroundings, records: npt.NDArray[np.void]) -> Iterator[Event]:
    headers = records["header"]
    times = surroundings.unix_ns(headers["time_ns"])
    for row, (record, unix_ns) in enumerate(zip(records, times.tolist(), strict=True)):
        header = headers[row]
        path = bytes(record["path"]).partition(b"\0")[0].decode("utf-8", "replace")
        result = int(record["result"])
        attributes: dict[str, AttributeValue] = {"file.path": path}
        if result < 0:
            attributes["error.type"] = errno.errorcode.get(-result, str(-result))
        frame = surroundings.code(int(header["slot"]), header["stack"][: header["frames"]].tolist())
        if frame:
            attributes["code.function.name"] = frame.function
            if frame.line:
                attributes |= {"code.file.path": frame.file, "code.line.number": frame.line}
        outcome = f"failed: {os.strerror(-result)}" if result < 0 else "opened"
        yield Event(
            slot=int(header["slot"]),
            unix_ns=unix_ns,
            name="file.open",
            body=f"{path} {outcome}",
            attributes=attributes,
            trace_id=header["trace_id"].tobytes() if header["span_id"] else b"",
            span_id=header["span_id"].tobytes() if header["span_id"] else b"",
            sampled=bool(header["trace_flags"] & 1),
        )


def _instrument(surroundings: Surroundings, options: Mapping[str, object]) -> Counted:
    del options
    metric = ("goprobe.file.opens", "{open}", "Files opened, or not, by who opened them.")
    return Counted(
        surroundings, lambda records: _events(surroundings, records), _KEYS, metric, "otel-goprobe/tools/opens"
    )


def _bpftrace(pids: Sequence[int]) -> str:
    """By path, error and stack; functions as bpftrace names them, no routes."""
    watched = bpftrace.watched(pids)
    body = f"""
{bpftrace.entries("open", "openat", "openat2")} /{watched}/ {{ @path[tid] = (uint64)args->filename; }}
{bpftrace.entries("creat")} /{watched}/ {{ @path[tid] = (uint64)args->pathname; }}
{bpftrace.exits("open", "openat", "openat2", "creat")} /@path[tid]/ {{
	@opens[str(uptr(@path[tid])), args->ret < 0 ? -args->ret : 0, ustack({FRAMES})] = count();
	delete(@path[tid]);
}}
END {{ clear(@path); }}
"""
    return bpftrace.script(body, pids, MAP_KEYS_MAX=MAX_ROWS, STRLEN=200)


TOOL = Tool(
    stem="opens",
    examples="sudo otel-goprobe opens --pid 1234\nsudo otel-goprobe opens --exe '*/shop' --for 30s --json",
    record="opens_record",
    columns=(
        Column("service", "SERVICE"),
        Column("function", "FUNCTION"),
        Column("line", "LINE", numeric=True),
        Column("route", "ROUTE"),
        Column("path", "PATH"),
        Column("error", "ERROR"),
        Column("count", "COUNT", numeric=True),
    ),
    sort="count",
    instrument=_instrument,
    tracepoints=(Tracepoint("opens_exit", "sys_exit"),),
    bpftrace=_bpftrace,
)
