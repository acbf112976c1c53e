"""A glob that nothing matches -> the names that it may have meant; find.py calls it, and tooling.py for `--where`."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST = 5
_COMPARED = 20_000
"""Names that are compared letter by letter: a quarter of a second's work."""
_PLAIN = re.compile(r"[*?()\[\]]")


def nearest(wanted: str, names: Iterable[str]) -> list[str]:
    """Return at most five names, the nearest first.

    Args:
        wanted: the glob.
        names: all that there are.
    """
    plain = _PLAIN.sub("", wanted).lower().strip(".:/")
    if not plain:
        return []
    known = {name: _PLAIN.sub("", name).lower() for name in names}
    holding = [name for name, short in known.items() if plain in short]
    if holding:
        return sorted(holding, key=lambda name: (len(name), name))[:_MOST]
    last = re.split(r"[.:/]", plain)[-1]
    alike = [name for name, short in known.items() if last and last in short] or list(known)
    by_short = {known[name]: name for name in reversed(alike[:_COMPARED])}
    close = difflib.get_close_matches(plain, by_short, _MOST, 0.5)
    if close:
        return [by_short[short] for short in close]
    first = {_head(short): name for name, short in reversed(known.items())}
    return [first[head] for head in difflib.get_close_matches(_head(plain), first, _MOST)]


def _head(name: str) -> str:
    """The category of a tracepoint, the package of a function."""
    return re.split(r"[.:]", name)[0]
