"""What is made of a sent request's URL and error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_goprobe.probes.http_requests import CANCELED, IN_OP_ERROR, Url, error_type, split_url
from otel_goprobe.spans import Clock


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (b"http://a", Url(b"http", b"a", b"", b"")),
        (b"http://a/", Url(b"http", b"a", b"/", b"")),
        (b"https://a:1/b/c?d=/e?f", Url(b"https", b"a:1", b"/b/c", b"d=/e?f")),
        (b"http://[::1]:80?q", Url(b"http", b"[::1]:80", b"", b"q")),
        (b"http://a//b", Url(b"http", b"a", b"//b", b"")),
        (b"a", Url(b"a", b"", b"", b"")),
        (b"", Url(b"", b"", b"", b"")),
    ],
)
def test_split(text: bytes, url: Url) -> None:
    """The first slash behind the scheme begins the path, the first question mark the query."""
    assert split_url(text) == url


PART = st.binary(max_size=20).map(lambda part: part.translate(None, b"/?:"))


@given(PART, PART, PART, PART)
def test_split_is_the_way_back(scheme: bytes, host: bytes, path: bytes, query: bytes) -> None:
    """Of what a record of one text holds."""
    assert split_url(scheme + b"://" + host + b"/" + path + b"?" + query) == Url(scheme, host, b"/" + path, query)


@pytest.mark.parametrize(
    ("url", "full", "port"),
    [
        (Url(b"http", b"a", b"/b c\xc3\xa9", b""), "http://a/b%20c%C3%A9", 80),
        (Url(b"https", b"a", b"/b%20c", b"", path_is_raw=True), "https://a/b%20c", 443),
        (Url(b"http", b"a:8080", b"/", b"sig=secret&x=1"), "http://a:8080/?sig=REDACTED&x=1", 8080),
        (Url(b"http", b"a", b"/", b"", has_user=True), "http://REDACTED:REDACTED@a/", 80),
        (Url(b"ftp", b"a", b"", b""), "ftp://a", 0),
        (Url(b"http", b"[::1]:81", b"", b"\xff"), "http://[::1]:81?\ufffd", 81),
    ],
)
def test_full(url: Url, full: str, port: int) -> None:
    """Credentials and known secrets don't leave this process."""
    assert (url.full, url.port) == (full, port)


@given(*[st.binary(max_size=30)] * 4, st.booleans(), st.booleans())
def test_any_bytes_are_text(  # noqa: PLR0917 - one for each part
    scheme: bytes, host: bytes, path: bytes, query: bytes, path_is_raw: bool, has_user: bool
) -> None:
    """Whatever a program asks for."""
    Url(scheme, host, path, query, path_is_raw, has_user).full.encode()


class Types:
    """What `error_type` asks for, with a name for each address."""

    clock = Clock()
    options: frozenset[str] = frozenset()

    def type_name(self, slot: int, address: int) -> str:
        """See `probes.base.Conversion`."""
        names = {1 << 12: "context.deadlineExceededError", 2 << 12: "net.canceledError", 3 << 12: "*net.DNSError"}
        return names.get(address, "_OTHER") if slot == 7 else "_OTHER"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (CANCELED, "canceled"),
        (1 << 12, "timeout"),
        (1 << 12 | IN_OP_ERROR, "timeout"),
        (2 << 12 | IN_OP_ERROR, "canceled"),
        (3 << 12, "*net.DNSError"),
        (3 << 12 | IN_OP_ERROR, "*net.OpError"),
        (4 << 12, "_OTHER"),
    ],
)
def test_error_type(error: int, name: str) -> None:
    """Timeouts and cancellations by their kind, everything else by its type."""
    assert error_type(int(np.uint64(error)), 7, Types()) == name
