"""The text of a tracestate header -> what a span may carry of it. Called by the libraries' declarations.

Source of the grammar: W3C Trace Context, level 2, section 3.3.1: https://www.w3.org/TR/trace-context-2/#tracestate-header.
"""

from __future__ import annotations

import re

_SIMPLE_KEY = rb"[a-z][_0-9a-z*/-]{0,255}"
_TENANT_KEY = rb"[a-z0-9][_0-9a-z*/-]{0,240}@[a-z][_0-9a-z*/-]{0,13}"
_VALUE = rb"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(rb"(?:%b|%b)=%b" % (_SIMPLE_KEY, _TENANT_KEY, _VALUE))
_MAX_MEMBERS = 32


def trace_state_of(header: bytes) -> str | None:
    """Return the list, blanks around its members removed; None where it is empty or malformed, as a whole."""
    members = [member.strip(b" \t") for member in header.split(b",")]
    members = [member for member in members if member]
    keys = {member.partition(b"=")[0] for member in members}
    if not members or len(members) > _MAX_MEMBERS or len(keys) < len(members):
        return None
    if not all(_MEMBER.fullmatch(member) for member in members):
        return None
    return b",".join(members).decode("ascii")
