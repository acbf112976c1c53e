"""gRPC clients: what is probed, and how a call's record becomes a CLIENT span.

Three hits a unary call on emulated instructions: the start of ``newClientStream``, that of the closure that gives the
stream its number, and that of ``(*clientStream).finish``. A stream has a fourth where ``NewStream`` returns, and a call
that finds no connection a last one where ``invoke`` does, both single-stepped; an attempt that fails has one where
``retryLocked`` starts.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from opentelemetry.semconv.attributes import error_attributes, network_attributes, server_attributes

from otel_goprobe.model import Integers, SpanColumns, SpanKind, Strings
from otel_goprobe.probes import channels
from otel_goprobe.probes.base import TEXT_OTHER, Conversion, Duration, Field, Hook, Itab, Library, Role, Type, Way
from otel_goprobe.probes.grpc_text import (
    DURATION_BOUNDS_S,
    RPC_METHOD,
    RPC_REQUEST_METADATA,
    RPC_RESPONSE_STATUS_CODE,
    RPC_SYSTEM_NAME,
    STATUS_NONE,
    code_of,
    codes,
    method_of,
    ports,
)
from otel_goprobe.probes.http_text import address_of, split_address
from otel_goprobe.probes.places import AtOtherReturns, AtReturns, AtStart, linked
from otel_goprobe.spans import captured, derive, dictionary, recorded

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from otel_goprobe.model import AttributeValue, Column

_GRPC = "google.golang.org/grpc"
_TRANSPORT = f"{_GRPC}/internal/transport"
_START = f"{_GRPC}.newClientStream"
_INVOKE = f"{_GRPC}.invoke"
_RETRY = f"{_GRPC}.(*clientStream).retryLocked"


@lru_cache(4096)
def server_of(target: bytes) -> tuple[str | None, int | None]:
    """Return host and port that a client was made for: ``HOST:PORT``, ``dns://AUTHORITY/HOST:PORT``, ``unix:PATH``.

    Without a port, what gRPC takes: 443 (https://github.com/grpc/grpc/blob/master/doc/naming.md).
    """
    text = target.decode("utf-8", "replace")
    scheme, _, rest = text.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return rest.removeprefix("//") or None, None
    endpoint = re.sub(r"^[a-z][a-z0-9+.-]*:(//[^/]*/)", "", text) if "://" in text else text.removeprefix("dns:")
    host, port = split_address(endpoint.encode())
    return host, int(port) if port else 443


def columns(records: npt.NDArray[np.void], conversion: Conversion) -> SpanColumns:
    """Turn records of either size into spans.

    Args:
        records: shape (n,), dtype of ``grpc_client_record_256`` or ``grpc_client_record_1024``.
        conversion: the clock, and the names of `--grpc-metadata`.
    """
    fixed = records["fixed"]
    count = len(records)
    methods = derive(*dictionary(records["method"], fixed["method_bytes"]), method_of)
    target_codes, targets = dictionary(records["target"], fixed["target_bytes"])
    servers = [server_of(target) for target in targets]
    server_ports = np.array([port or 0 for _, port in servers], np.int64)[target_codes]
    error = fixed["status"] != 0
    attributes: dict[str, Column] = {
        RPC_SYSTEM_NAME: Strings(np.zeros(count, np.int32), ("grpc",)),
        RPC_METHOD: methods,
        **codes(fixed["status"], error),
        **captured(records, "metadata", RPC_REQUEST_METADATA, conversion.names.get("grpc_metadata", ())),
        server_attributes.SERVER_ADDRESS: derive(target_codes, servers, lambda server: server[0]),
        server_attributes.SERVER_PORT: Integers(server_ports, server_ports != 0),
        network_attributes.NETWORK_PEER_ADDRESS: derive(
            *dictionary(np.ascontiguousarray(fixed["peer"]), np.full(count, 16)), address_of
        ),
        network_attributes.NETWORK_PEER_PORT: ports(fixed["peer_port"]),
    }
    return recorded(
        records,
        conversion.clock,
        import_path=_GRPC,
        kind=SpanKind.CLIENT,
        name=methods,
        error=error,
        attributes=attributes,
    )


def _series_attributes(
    keys: npt.NDArray[np.void], texts: Mapping[int, bytes], _conversion: Conversion
) -> list[dict[str, AttributeValue]]:
    """Return the attributes of rpc.client.call.duration (RPC metrics conventions), one mapping a ``red_key``."""
    found = []
    for key in keys:
        status = int(key["status"])
        method = "_OTHER" if key["text"] == TEXT_OTHER else method_of(texts.get(int(key["text"]), b""))
        attributes: dict[str, AttributeValue] = {RPC_SYSTEM_NAME: "grpc", RPC_METHOD: method}
        if status != STATUS_NONE:
            attributes[RPC_RESPONSE_STATUS_CODE] = code_of(status)
            if status:
                attributes[error_attributes.ERROR_TYPE] = code_of(status)
        if key["other_text"] == TEXT_OTHER:
            attributes[server_attributes.SERVER_ADDRESS] = "_OTHER"
        else:
            host, port = server_of(texts.get(int(key["other_text"]), b""))
            if host:
                attributes[server_attributes.SERVER_ADDRESS] = host
            if port:
                attributes[server_attributes.SERVER_PORT] = port
        found.append(attributes)
    return found


LIBRARY = Library(
    stem="grpc_client",
    import_path=_GRPC,
    side="client",
    wanted=linked(_START),
    hooks=(
        Hook(
            Role.END,
            (Way("grpc_client_call_end", AtStart(f"{_GRPC}.(*clientStream).finish", arguments=(1, 2, 3))),),
            lost="all calls",
        ),
        Hook(
            Role.END,
            (
                Way("grpc_client_refused", AtOtherReturns(_INVOKE, _START, error=3)),
                Way("grpc_client_refused", AtReturns(_INVOKE)),
            ),
            lost="all calls",
            wanted=linked(_INVOKE),
        ),
        Hook(
            Role.END,
            (Way("grpc_client_opened", AtReturns(f"{_GRPC}.(*ClientConn).NewStream")),),
            lost="all calls",
            wanted=linked(f"{_GRPC}.(*ClientConn).NewStream"),
        ),
        Hook(
            Role.DETAIL,
            (Way("grpc_client_panic", AtStart("runtime.gopanic", arguments=())),),
            lost="calls that end in a panic",
        ),
        Hook(
            Role.DETAIL,
            (Way("grpc_client_stream", AtStart(f"{_TRANSPORT}.(*http2Client).NewStream.func5", arguments=())),),
            lost="network.peer.address, and parents on this host",
        ),
        Hook(
            Role.DETAIL,
            (Way("grpc_client_repeat", AtStart(_RETRY, arguments=(1,))),),
            lost="parents on this host of streams' repeated attempts",
            wanted=linked(_RETRY),
        ),
        *channels.HOOKS,
        Hook(
            Role.START,
            (Way("grpc_client_call_start", AtStart(_START, arguments=(1, 2, 4, 5, 6))),),
            lost="all calls",
            address="grpc_client_start_address",
        ),
    ),
    facts=(
        Itab("error_string_itab", "*errors.errorString", "error", required=False),
        Itab("grpc_status_error_itab", f"*{_GRPC}/internal/status.Error", "error", required=False),
        Itab("grpc_old_status_error_itab", f"*{_GRPC}/status.statusError", "error", required=False),
        Itab("value_context_itab", "*context.valueCtx", "context.Context", required=False),
        Type("grpc_raw_metadata_type", f"{_GRPC}/metadata.rawMD", lost="rpc.request.metadata of --grpc-metadata"),
        Type("grpc_client_stream_type", f"*{_GRPC}.clientStream", lost="streams"),
        Field("grpc_status_error_s", f"{_GRPC}/internal/status.Error", "s"),
        Field("grpc_status_error_e", f"{_GRPC}/internal/status.Error", "e"),
        Field("grpc_status_code", "google.golang.org/genproto/googleapis/rpc/status.Status", "Code"),
        Field("grpc_client_target", f"{_GRPC}.ClientConn", "target", lost="server.address"),
        Field("grpc_client_conn", f"{_TRANSPORT}.http2Client", "conn", lost="network.peer.address"),
        Field("grpc_client_next_id", f"{_TRANSPORT}.http2Client", "nextID", lost="parents on this host"),
        *channels.FACTS,
    ),
    records=("grpc_client_record_256", "grpc_client_record_1024"),
    columns=columns,
    duration=Duration(
        name="rpc.client.call.duration",
        description="Measures the duration of an outgoing Remote Procedure Call (RPC).",
        bounds_s=DURATION_BOUNDS_S,
        attributes=_series_attributes,
        span_kind=SpanKind.CLIENT,
        span_attributes=(
            RPC_SYSTEM_NAME,
            RPC_METHOD,
            RPC_RESPONSE_STATUS_CODE,
            error_attributes.ERROR_TYPE,
            server_attributes.SERVER_ADDRESS,
            server_attributes.SERVER_PORT,
        ),
    ),
    headers=("grpc.h", "grpc_client.h"),
    options=("skip_grpc_health", "grpc_metadata", channels.OPTION),
    counters=channels.COUNTERS,
    finds_parents=True,
)
