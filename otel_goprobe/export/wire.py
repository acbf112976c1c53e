"""Python values -> pieces of OTLP in the protobuf wire format; called by encode.py.

Field numbers and types are those of opentelemetry-proto v1 (`common.proto`, `trace.proto`); the wire format is
https://protobuf.dev/programming-guides/encoding/. Text is UTF-8; a lone surrogate, which UTF-8 has no bytes for,
becomes ``?``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_goprobe.model import AttributeValue

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types."""

_TWO_TO_64 = 1 << 64


def varint(value: int) -> bytes:
    """Encode a signed 64-bit integer; a negative one as its two's complement, in ten bytes."""
    if 0 <= value < 0x80:
        return bytes((value,))
    value %= _TWO_TO_64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(field: int, wire_type: int) -> bytes:
    """Encode what stands before each value."""
    return varint(field << 3 | wire_type)


def message(field: int, content: bytes) -> bytes:
    """Encode a string, bytes or sub-message as `field` of the message around it."""
    return b"%b%b%b" % (tag(field, LENGTH), varint(len(content)), content)


def text(field: int, value: str) -> bytes:
    """Encode a string as `field` of the message around it."""
    return message(field, value.encode("utf-8", "replace"))


def any_value(value: AttributeValue) -> bytes:
    """Encode the content of an ``AnyValue``; a present member of a oneof is written even when it is empty or zero."""
    if isinstance(value, str):
        return text(1, value)
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + varint(value)
    if isinstance(value, float):
        return b"\x21" + struct.pack("<d", value)
    return message(5, b"".join(message(1, text(1, element)) for element in value))


def key_value(field: int, key: str, value: AttributeValue) -> bytes:
    """Encode a ``KeyValue`` as `field` of the message around it."""
    return message(field, text(1, key) + message(2, any_value(value)))
