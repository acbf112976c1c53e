"""What fasthttp's requests and errors are called: URLs put together of what a record has, errors by their texts."""

from __future__ import annotations

import pytest

from otel_goprobe.probes.fasthttp_client import ERRORS, URL_HTTPS, URL_SENT, URL_USER, text_number, url_of


def test_errors_are_told_apart() -> None:
    """The numbers that the C source makes of fasthttp's texts, of all versions, are all different."""
    texts = [f"{prefix}{text}".encode() for known in ERRORS.values() for text in known for prefix in ("", "fasthttp: ")]
    assert len({text_number(text) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("traits", "path", "query", "full"),
    [
        (URL_SENT, b"/a%20b?x=%20&sig=1", b"", "http://shop:81/a%20b?x=%20&sig=REDACTED"),
        (URL_SENT | URL_HTTPS, b"", b"", "https://shop:81/"),
        (URL_SENT | URL_USER, b"/a", b"", "http://REDACTED:REDACTED@shop:81/a"),
        (URL_SENT, b"http://me:word@shop:81/a?b=c#d", b"", "http://REDACTED:REDACTED@shop:81/a?b=c"),
        (URL_HTTPS, b"/a b/\xc3\xa4", b"sig=1", "https://shop:81/a%20b/%C3%A4?sig=REDACTED"),
        (0, b"", b"", "http://shop:81/"),
    ],
)
def test_urls(traits: int, path: bytes, query: bytes, full: str) -> None:
    """As sent or, of requests that were never written, of their parts; without credentials, secrets and fragments."""
    assert url_of(traits, b"shop:81", path, query).full == full


def test_url_without_a_host() -> None:
    """A request that found no connection before anybody asked for its host."""
    assert url_of(URL_SENT, b"", b"http://shop:81?sig=1", b"").full == "http://shop:81/?sig=REDACTED"
