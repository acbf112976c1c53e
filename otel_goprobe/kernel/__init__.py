"""Everything that talks to the kernel: C units -> loaded programs -> links and rings.

A name's module is imported when the name is first asked for: a start has the verifier work before it imports the rest.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_goprobe.kernel.attachment import Attachment, attach, attach_tracepoints, detach
    from otel_goprobe.kernel.bundle import bpf_folder, kept
    from otel_goprobe.kernel.capabilities import REQUIRED_CAPABILITIES, SITUATIONAL_CAPABILITIES
    from otel_goprobe.kernel.features import (
        Feature,
        missing_tracepoints,
        probe_features,
        require_writing,
        writing_refused,
    )
    from otel_goprobe.kernel.links import has_uprobe_multi
    from otel_goprobe.kernel.loader import AttachWay, Begun, Program, begin, load
    from otel_goprobe.kernel.maps import Map, u32
    from otel_goprobe.kernel.rings import Ring
    from otel_goprobe.kernel.sockets import describe_sockets
    from otel_goprobe.kernel.sockhash import Sockets
    from otel_goprobe.kernel.tasks import thread_pointer_offset
    from otel_goprobe.kernel.tracefs import Tracefs, TracepointField, has_kprobes

__all__ = [
    "REQUIRED_CAPABILITIES",
    "SITUATIONAL_CAPABILITIES",
    "AttachWay",
    "Attachment",
    "Begun",
    "Feature",
    "Map",
    "Program",
    "Ring",
    "Sockets",
    "Tracefs",
    "TracepointField",
    "attach",
    "attach_tracepoints",
    "begin",
    "bpf_folder",
    "describe_sockets",
    "detach",
    "has_kprobes",
    "has_uprobe_multi",
    "kept",
    "load",
    "missing_tracepoints",
    "probe_features",
    "require_writing",
    "thread_pointer_offset",
    "u32",
    "writing_refused",
]

_MODULES = {
    "REQUIRED_CAPABILITIES": "capabilities",
    "SITUATIONAL_CAPABILITIES": "capabilities",
    "AttachWay": "loader",
    "Attachment": "attachment",
    "Begun": "loader",
    "Feature": "features",
    "Map": "maps",
    "Program": "loader",
    "Ring": "rings",
    "Sockets": "sockhash",
    "Tracefs": "tracefs",
    "TracepointField": "tracefs",
    "attach": "attachment",
    "attach_tracepoints": "attachment",
    "begin": "loader",
    "bpf_folder": "bundle",
    "describe_sockets": "sockets",
    "detach": "attachment",
    "has_kprobes": "tracefs",
    "has_uprobe_multi": "links",
    "kept": "bundle",
    "load": "loader",
    "missing_tracepoints": "features",
    "probe_features": "features",
    "require_writing": "features",
    "thread_pointer_offset": "tasks",
    "u32": "maps",
    "writing_refused": "features",
}
"""Each name of `__all__` -> its module."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
