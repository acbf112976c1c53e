"""Everything that talks to the kernel: C units -> loaded programs -> links and rings."""

from otel_goprobe.kernel.attach import Attachment, attach, attach_tracepoints, detach
from otel_goprobe.kernel.bundle import bpf_folder
from otel_goprobe.kernel.capabilities import REQUIRED as REQUIRED_CAPABILITIES
from otel_goprobe.kernel.capabilities import SITUATIONAL as SITUATIONAL_CAPABILITIES
from otel_goprobe.kernel.features import (
    Feature,
    missing_tracepoints,
    probe_features,
    require_writing,
    writing_refused,
)
from otel_goprobe.kernel.loader import AttachWay, Program, load
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
    "Feature",
    "Map",
    "Program",
    "Ring",
    "Sockets",
    "Tracefs",
    "TracepointField",
    "attach",
    "attach_tracepoints",
    "bpf_folder",
    "describe_sockets",
    "detach",
    "has_kprobes",
    "load",
    "missing_tracepoints",
    "probe_features",
    "require_writing",
    "thread_pointer_offset",
    "u32",
    "writing_refused",
]
