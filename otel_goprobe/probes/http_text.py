"""Strings and addresses of requests, as they were on the wire -> what the conventions call for; for the libraries."""

from __future__ import annotations

import functools
import ipaddress
import re
import urllib.parse

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"))
"""Known to the conventions (HTTP spans, http.request.method: RFC 9110, RFC 5789, httpbis-safe-method-w-body)."""

SECRET_QUERY_KEYS = frozenset(("AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature"))
"""Values of these are redacted; the list of the conventions for url.query (URL attributes registry)."""

_WITH_PORT = re.compile(r"(\[.*\]|[^:]*):([0-9]{0,5})", re.DOTALL)


def decoded(value: bytes) -> str:
    """Decode UTF-8; what isn't becomes U+FFFD."""
    return value.decode("utf-8", "replace")


@functools.lru_cache(4096)
def path_of(request_uri: bytes) -> str:
    """Return the decoded path of a request line's target, in any of its four forms (RFC 9112, 3.2)."""
    if request_uri.startswith((b"http://", b"https://")):
        rest = request_uri.split(b"//", 1)[1].split(b"?", 1)[0]
        request_uri = b"/" + rest.partition(b"/")[2]
    return decoded(urllib.parse.unquote_to_bytes(request_uri.split(b"?", 1)[0]))


def query_of(request_uri: bytes) -> str | None:
    """Return the query with the values of known secrets replaced by ``REDACTED``; None where there is none."""
    _, mark, query = request_uri.partition(b"?")
    if not mark or not query:
        return None
    pieces = []
    for piece in decoded(query).split("&"):
        key, equals, _ = piece.partition("=")
        secret = equals and urllib.parse.unquote(key) in SECRET_QUERY_KEYS
        pieces.append(f"{key}=REDACTED" if secret else piece)
    return "&".join(pieces)


def route_of(pattern: bytes) -> str | None:
    """Return the path part of a ServeMux pattern, ``[METHOD ][HOST]/[PATH]``; None for an empty one."""
    path = decoded(pattern)
    first, *rest = path.split(None, 1) or [""]
    if rest and "/" not in first:
        path = rest[0]
    slash = path.find("/")
    return path[slash:] if slash >= 0 else None


def split_address(address: bytes) -> tuple[str | None, str | None]:
    """Split ``host:port``, ``[v6]:port``, ``host`` and ``[v6]`` into host and port, None where there is none."""
    address_text = decoded(address)
    match = _WITH_PORT.fullmatch(address_text)
    host, port = match.groups() if match else (address_text, "")
    return host.strip("[]") or None, port or None


@functools.lru_cache(4096)
def address_of(raw: bytes) -> str | None:
    """Return an IPv6 address of 16 bytes, or the IPv4 one that is mapped into it, as text; None for zeros."""
    address = ipaddress.IPv6Address(raw)
    return str(address.ipv4_mapped or address) if int(address) else None
