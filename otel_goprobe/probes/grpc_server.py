"""gRPC servers: what is probed, and how a call's record becomes a SERVER span.

Three hits a call on emulated instructions: the start of ``(*Server).handleStream``, which unary calls and streams go
through, that of the transport's ``writeStatus``, and a deferred function of what called `handleStream`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from opentelemetry.semconv.attributes import (
    client_attributes,
    error_attributes,
    network_attributes,
    server_attributes,
)

from otel_goprobe.model import SpanColumns, SpanKind, Strings
from otel_goprobe.probes.base import TEXT_OTHER, Conversion, Duration, Field, Hook, Itab, Library, Role, Type, Way
from otel_goprobe.probes.grpc_text import (
    DURATION_BOUNDS_S,
    RPC_METHOD,
    RPC_REQUEST_METADATA,
    RPC_RESPONSE_STATUS_CODE,
    RPC_SYSTEM_NAME,
    SERVER_ERRORS,
    STATUS_NONE,
    code_of,
    codes,
    method_of,
    ports,
)
from otel_goprobe.probes.http_text import address_of
from otel_goprobe.probes.places import AtReturns, AtStart, BehindEachCall, linked
from otel_goprobe.spans import captured, derive, dictionary, recorded

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from otel_goprobe.model import AttributeValue, Column

_GRPC = "google.golang.org/grpc"
_TRANSPORT = f"{_GRPC}/internal/transport"
_HANDLE = f"{_GRPC}.(*Server).handleStream"


def columns(records: npt.NDArray[np.void], conversion: Conversion) -> SpanColumns:
    """Turn records of either size into spans.

    Args:
        records: shape (n,), dtype of ``grpc_server_record_256`` or ``grpc_server_record_1024``.
        conversion: the clock, and the names of `--grpc-metadata`.
    """
    fixed = records["fixed"]
    count = len(records)
    methods = derive(*dictionary(records["method"], fixed["method_bytes"]), method_of)
    peer = derive(*dictionary(np.ascontiguousarray(fixed["peer"]), np.full(count, 16)), address_of)
    local = derive(*dictionary(np.ascontiguousarray(fixed["local"]), np.full(count, 16)), address_of)
    error = np.isin(fixed["status"], sorted(SERVER_ERRORS))
    attributes: dict[str, Column] = {
        RPC_SYSTEM_NAME: Strings(np.zeros(count, np.int32), ("grpc",)),
        RPC_METHOD: methods,
        **codes(fixed["status"], error),
        **captured(records, "metadata", RPC_REQUEST_METADATA, conversion.names.get("grpc_metadata", ())),
        server_attributes.SERVER_ADDRESS: local,
        server_attributes.SERVER_PORT: ports(fixed["local_port"]),
        client_attributes.CLIENT_ADDRESS: peer,
        network_attributes.NETWORK_PEER_ADDRESS: peer,
        network_attributes.NETWORK_PEER_PORT: ports(fixed["peer_port"]),
    }
    return recorded(
        records,
        conversion.clock,
        import_path=_GRPC,
        kind=SpanKind.SERVER,
        name=methods,
        error=error,
        attributes=attributes,
    )


def _series_attributes(
    keys: npt.NDArray[np.void], texts: Mapping[int, bytes], _conversion: Conversion
) -> list[dict[str, AttributeValue]]:
    """Return the attributes of rpc.server.call.duration (RPC metrics conventions), one mapping a ``red_key``."""
    found = []
    for key in keys:
        status = int(key["status"])
        method = "_OTHER" if key["text"] == TEXT_OTHER else method_of(texts.get(int(key["text"]), b""))
        attributes: dict[str, AttributeValue] = {RPC_SYSTEM_NAME: "grpc", RPC_METHOD: method}
        if status != STATUS_NONE:
            attributes[RPC_RESPONSE_STATUS_CODE] = code_of(status)
        if status in SERVER_ERRORS:
            attributes[error_attributes.ERROR_TYPE] = code_of(status)
        found.append(attributes)
    return found


LIBRARY = Library(
    stem="grpc_server",
    import_path=_GRPC,
    wanted=linked(_HANDLE),
    hooks=(
        Hook(
            Role.END,
            (
                Way("grpc_server_call_end", BehindEachCall(f"{_GRPC}.(*Server).serve", _HANDLE)),
                Way("grpc_server_call_end", AtReturns(_HANDLE)),
            ),
            lost="all calls",
        ),
        Hook(
            Role.DETAIL,
            (
                Way("grpc_server_status", AtStart(f"{_TRANSPORT}.(*http2Server).writeStatus", arguments=(3,))),
                Way("grpc_server_status", AtStart(f"{_TRANSPORT}.(*http2Server).WriteStatus", arguments=(3,))),
            ),
            lost=RPC_RESPONSE_STATUS_CODE,
        ),
        Hook(
            Role.DETAIL,
            (
                Way(
                    "grpc_server_status", AtStart(f"{_TRANSPORT}.(*serverHandlerTransport).writeStatus", arguments=(3,))
                ),
                Way(
                    "grpc_server_status", AtStart(f"{_TRANSPORT}.(*serverHandlerTransport).WriteStatus", arguments=(3,))
                ),
            ),
            lost=f"{RPC_RESPONSE_STATUS_CODE} of calls that a net/http server passes on",
        ),
        Hook(
            Role.START,
            (Way("grpc_server_call_start", AtStart(_HANDLE, arguments=(2, 3, 4))),),
            lost="all calls",
            address="grpc_server_start_address",
        ),
    ),
    facts=(
        Itab("value_context_itab", "*context.valueCtx", "context.Context", required=False),
        Itab("grpc_http2_server_itab", f"*{_TRANSPORT}.http2Server", f"{_TRANSPORT}.ServerTransport", required=False),
        Type("grpc_metadata_type", f"{_GRPC}/metadata.MD", lost="parents that callers send as metadata"),
        Field("grpc_stream_held", f"{_TRANSPORT}.ServerStream", "Stream"),
        Field("grpc_stream_inline", f"{_TRANSPORT}.ServerStream", "Stream.method"),
        Field("grpc_stream_method", f"{_TRANSPORT}.Stream", "method", required=True),
        Field("grpc_stream_id", f"{_TRANSPORT}.Stream", "id", lost="parents on this host"),
        Field("grpc_stream_ctx", f"{_TRANSPORT}.Stream", "ctx", lost="parents that callers send as metadata"),
        Field("grpc_server_conn", f"{_TRANSPORT}.http2Server", "conn", lost="network.peer.address"),
        Field("grpc_status_code", "google.golang.org/genproto/googleapis/rpc/status.Status", "Code"),
    ),
    records=("grpc_server_record_256", "grpc_server_record_1024"),
    columns=columns,
    duration=Duration(
        name="rpc.server.call.duration",
        description="Measures the duration of an incoming Remote Procedure Call (RPC).",
        bounds_s=DURATION_BOUNDS_S,
        attributes=_series_attributes,
        span_kind=SpanKind.SERVER,
        span_attributes=(RPC_SYSTEM_NAME, RPC_METHOD, RPC_RESPONSE_STATUS_CODE, error_attributes.ERROR_TYPE),
    ),
    macros=(
        (
            "GRPC_SERVER_FAILED(status)",
            f"((status) < 32 && {sum(1 << code for code in SERVER_ERRORS):#x} >> (status) & 1)",
        ),
    ),
    headers=("grpc_server.h",),
    options=("skip_grpc_health", "grpc_metadata"),
    active_spans=True,
)
