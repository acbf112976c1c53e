"""Answers over HTTP/1.1, as bytes."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_goprobe.export.http_connection import ForeignAnswerError, HttpConnection, read_response

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "status", "body", "kept"),
    [
        (OK + b"Content-Length: 3\r\n\r\nabcHTTP", 200, b"abc", True),
        (OK + b"content-length:3\r\nConnection: Close\r\n\r\nabc", 200, b"abc", False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1 \r\nc\r\n0\r\nA: b\r\n\r\n", 200, b"abc", True),
        (OK + b"\r\nabc", 200, b"abc", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", False),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503\r\nContent-Length: 0\r\n\r\n", 503, b"", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    ],
)
def test_answers_are_read_to_their_end(answer: bytes, status: int, body: bytes, kept: bool) -> None:
    """By length, in chunks or up to the end of the connection; it says whether another request can follow."""
    response, again = read_response(io.BytesIO(answer))
    assert (response.status, response.body, again) == (status, body, kept)


@pytest.mark.parametrize("size", range(0, 75, 5))
def test_an_answer_that_was_cut_off_is_a_lost_connection(size: int) -> None:
    """Wherever it ends too early."""
    answer = OK + b"Server: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
    with pytest.raises(ConnectionError):
        read_response(io.BytesIO(answer[: min(size, len(answer) - 1)]))


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\r\n",
        b"220 mail.example.com\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"Content-Length: -3\r\n\r\nabc",
        OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        OK + b"a: b\r\n" * 300,
        b"HTTP/1.1 200 " + b"x" * 70_000,
    ],
)
def test_what_is_no_http_is_told(answer: bytes) -> None:
    """Another protocol's bytes, or broken ones, aren't taken for a lost connection, which would be tried again."""
    with pytest.raises(ForeignAnswerError):
        read_response(io.BytesIO(answer))


@given(st.one_of(st.binary(), st.binary().map(lambda rest: OK + rest)))
def test_any_bytes_are_read_or_refused(answer: bytes) -> None:
    """Whatever comes, it ends in a response or in one of the two errors."""
    with contextlib.suppress(ForeignAnswerError, ConnectionError):
        response, _ = read_response(io.BytesIO(answer))
        assert 200 <= response.status <= 999


def test_a_request_needs_a_connection() -> None:
    """`post` doesn't connect: the caller has a deadline for that."""
    with pytest.raises(ConnectionError):
        HttpConnection("::1", None).post("/", {}, b"")
