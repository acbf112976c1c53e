"""What gRPC writes its targets, methods and codes as, and what the conventions call them."""

from __future__ import annotations

import numpy as np
import pytest

from otel_goprobe.probes.grpc_client import server_of
from otel_goprobe.probes.grpc_text import STATUS_NONE, code_of, codes, method_of
from otel_goprobe.probes.http_text import address_of


@pytest.mark.parametrize(
    ("target", "server"),
    [
        (b"127.0.0.1:50051", ("127.0.0.1", 50051)),
        (b"cart", ("cart", 443)),
        (b"dns:cart:80", ("cart", 80)),
        (b"dns:///cart.shop:8443", ("cart.shop", 8443)),
        (b"dns://8.8.8.8/cart:1", ("cart", 1)),
        (b"passthrough:///[::1]:7", ("::1", 7)),
        (b"unix:///run/cart.sock", ("/run/cart.sock", None)),
        (b"unix:cart.sock", ("cart.sock", None)),
        (b"", (None, 443)),
    ],
)
def test_server_of_a_target(target: bytes, server: tuple[str | None, int | None]) -> None:
    """Every form of https://github.com/grpc/grpc/blob/master/doc/naming.md that names a host or a socket."""
    assert server_of(target) == server


def test_methods_and_codes() -> None:
    """A path has a slash in front, a method none; numbers beyond the known ones are told as such."""
    assert method_of(b"/shop.v1.Cart/Get") == "shop.v1.Cart/Get"
    assert method_of(b"\xff") == "\N{REPLACEMENT CHARACTER}"
    assert [code_of(number) for number in (0, 4, 16, 17)] == ["OK", "DEADLINE_EXCEEDED", "UNAUTHENTICATED", "CODE(17)"]


def test_columns_of_codes() -> None:
    """Where no status was seen there is none, nor an error's type."""
    status = np.array([0, 5, STATUS_NONE, 5], np.uint16)
    columns = codes(status, np.array([False, False, True, True]))
    texts = {
        name: [column.table[code] if code >= 0 else None for code in column.codes.tolist()]
        for name, column in columns.items()
    }
    assert texts == {
        "rpc.response.status_code": ["OK", "NOT_FOUND", None, "NOT_FOUND"],
        "error.type": [None, None, None, "NOT_FOUND"],
    }


def test_addresses() -> None:
    """As on the wire: IPv4 mapped into IPv6, IPv6, and zeros for none."""
    assert address_of(bytes(10) + b"\xff\xff" + bytes([127, 0, 0, 1])) == "127.0.0.1"
    assert address_of(bytes(15) + b"\x01") == "::1"
    assert address_of(bytes(16)) is None
