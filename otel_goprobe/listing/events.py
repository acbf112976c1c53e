"""The kernel's tracepoints, with their fields, and the functions that it could put a kprobe on; called by find.py."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from otel_goprobe import kernel
from otel_goprobe.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Sequence


def tracepoints() -> tuple[list[tuple[str, str]], str]:
    """Return category and name of each tracepoint, in order; or none, and why."""
    try:
        with kernel.Tracefs() as tracefs:
            return tracefs.tracepoints(), ""
    except KernelError as error:
        return [], str(error)


def described_tracepoints(chosen: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return for each its ``category``, ``name`` and ``fields``: ``type``, ``name``, ``offset`` and ``size``."""
    if not chosen:
        return []
    with kernel.Tracefs() as tracefs:
        return [
            {"category": category, "name": name, "fields": [_field(each) for each in tracefs.fields(category, name)]}
            for category, name in chosen
        ]


def _field(field: kernel.TracepointField) -> dict[str, Any]:
    return {"name": field.name, "type": field.type_name, "offset": field.offset, "size": field.size}


def kernel_functions() -> tuple[list[str], str]:
    """Return the names of functions that kprobes can be on, in order; or none, and why."""
    if not kernel.has_kprobes():
        release = platform.release()
        return [], f"this kernel ({release}) has no kprobes (CONFIG_KPROBE_EVENTS): its tracepoints are what there is"
    try:
        with kernel.Tracefs() as tracefs:
            return tracefs.functions(), ""
    except KernelError as error:
        return [], str(error)
