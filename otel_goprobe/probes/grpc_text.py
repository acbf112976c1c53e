"""What both gRPC libraries make of a call's method and status code, as the conventions for RPC and gRPC want it."""

from __future__ import annotations

import numpy as np
from opentelemetry.semconv.attributes import error_attributes

from otel_goprobe.model import Integers, Strings

STATUS_NONE = 0xFFFF
"""GRPC_STATUS_NONE of the C source."""

CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""By number: https://grpc.github.io/grpc/core/md_doc_statuscodes.html."""

SERVER_ERRORS = frozenset(
    CODES.index(name)
    for name in ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
"""For which a server's span is in error (gRPC conventions, gRPC Status); a client's is for all but OK."""

DURATION_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""That the conventions ask of histograms of RPC durations (RPC metrics, ExplicitBucketBoundaries)."""

RPC_SYSTEM_NAME = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_RESPONSE_STATUS_CODE = "rpc.response.status_code"
RPC_REQUEST_METADATA = "rpc.request.metadata."
"""Attributes of the conventions from 1.40 on, which the Python package in use may not name yet."""


def method_of(path: bytes) -> str:
    """Return the fully qualified method, ``package.Service/Method``, of a ``:path``."""
    return path.decode("utf-8", "replace").removeprefix("/")


def code_of(status: int) -> str:
    """Return a status code's name, or ``CODE(n)`` of one that has none, as the Go instrumentation does."""
    return CODES[status] if status < len(CODES) else f"CODE({status})"


def codes(
    status: np.ndarray[tuple[int], np.dtype[np.uint16]], failed: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> dict[str, Strings]:
    """Return the columns of status and error type; neither has a value where no status was seen.

    Args:
        status: shape (n,): codes.
        failed: shape (n,): whether that is an error on this side.
    """
    distinct, inverse = np.unique(status, return_inverse=True)
    names = tuple(code_of(value) for value in distinct.tolist())
    known = np.where(status == STATUS_NONE, -1, inverse).astype(np.int32)
    return {
        RPC_RESPONSE_STATUS_CODE: Strings(known, names),
        error_attributes.ERROR_TYPE: Strings(np.where(failed, known, -1).astype(np.int32), names),
    }


def ports(column: np.ndarray[tuple[int], np.dtype[np.uint16]]) -> Integers:
    """Return ports; 0 is none."""
    values = column.astype(np.int64)
    return Integers(values, values != 0)
