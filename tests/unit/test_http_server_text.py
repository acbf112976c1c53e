"""What is made of a request's strings."""

from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_goprobe.probes import http_text, registry


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", "/"),
        (b"/a/b?x=/c", "/a/b"),
        (b"/a%20b%2Fc", "/a b/c"),
        (b"/%ff%fe", "/\ufffd\ufffd"),
        (b"/%zz", "/%zz"),
        (b"*", "*"),
        (b"example.com:443", "example.com:443"),
        (b"http://example.com/p?q", "/p"),
        (b"http://example.com", "/"),
        (b"//double//slash", "//double//slash"),
        (b"", ""),
    ],
)
def test_path(target: bytes, path: str) -> None:
    """Each form of a request target gives its decoded path."""
    assert http_text.path_of(target) == path


@given(st.binary(max_size=100))
def test_path_of_any_bytes_is_text(target: bytes) -> None:
    """Nothing that a client sends breaks the column."""
    http_text.path_of(target).encode()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=50))
def test_path_is_what_was_quoted(path: str) -> None:
    """Quoting and decoding are inverse."""
    assert http_text.path_of(b"/" + urllib.parse.quote(path).encode()) == "/" + path


@pytest.mark.parametrize(
    ("target", "query"),
    [
        (b"/a", None),
        (b"/a?", None),
        (b"/a?b=c&d", "b=c&d"),
        (b"/a?sig=secret&x=1", "sig=REDACTED&x=1"),
        (
            b"/a?Signature=s&AWSAccessKeyId=k&X-Goog-Signature=g",
            "Signature=REDACTED&AWSAccessKeyId=REDACTED&X-Goog-Signature=REDACTED",
        ),
        (b"/a?%73ig=secret", "%73ig=REDACTED"),
        (b"/a?sig", "sig"),
        (b"/a?b=1?c=2", "b=1?c=2"),
    ],
)
def test_query(target: bytes, query: str | None) -> None:
    """Secrets are redacted, under an escaped key too; the rest stays as it was sent."""
    assert http_text.query_of(target) == query


@pytest.mark.parametrize(
    ("pattern", "route"),
    [
        (b"", None),
        (b"/", "/"),
        (b"/users/{id}", "/users/{id}"),
        (b"GET /users/{id}", "/users/{id}"),
        (b"GET example.com/x", "/x"),
        (b"example.com/", "/"),
        (b"POST /a/{rest...}", "/a/{rest...}"),
        (b"GET\t/tab", "/tab"),
    ],
)
def test_route(pattern: bytes, route: str | None) -> None:
    """A route is a pattern's path."""
    assert http_text.route_of(pattern) == route


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        (b"127.0.0.1:80", "127.0.0.1", "80"),
        (b"[::1]:8080", "::1", "8080"),
        (b"::1", "::1", None),
        (b"[::1]", "::1", None),
        (b"example.com", "example.com", None),
        (b"example.com:", "example.com", None),
        (b"@", "@", None),
        (b"", None, None),
        (b"host:99999999999999999999", "host:99999999999999999999", None),
        ("h:\u0661".encode(), "h:\u0661", None),
    ],
)
def test_address(address: bytes, host: str | None, port: str | None) -> None:
    """Host and port of what Go prints of an address and what clients send as Host."""
    assert http_text.split_address(address) == (host, port)


def test_every_library_is_found_and_no_member_stands_twice() -> None:
    """The generated header names each member of struct target once."""
    assert "http_server" in {library.stem for library in registry.libraries()}
    members = [line.split()[1] for line in registry.header().splitlines() if line.startswith("\t")]
    assert len(members) == len(set(members))
