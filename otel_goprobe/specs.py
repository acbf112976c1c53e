"""What to look at, in one grammar: a text -> a `Spec`; ``inspect --at`` and tools' ``--where`` take it.

    main.*  or  go:main.*                              functions of Go, inlined ones too
    uprobe:PATH:SYMBOL  uretprobe:PATH:SYMBOL          functions of any ELF file, by their symbols
    kprobe:NAME  kretprobe:NAME                        functions of the kernel
    tracepoint:CATEGORY:NAME                           the kernel's tracepoints
    usdt:PROVIDER:NAME  usdt:PATH:PROVIDER:NAME        marks that a program's source has for tracers

In all but PATH ``*`` stands for any text and ``?`` for one character; nothing else is special, for names of generic
functions have brackets. The star of ``(*`` is that of a pointer: ``main.(*Cart).*`` are the methods of ``*Cart``;
``main.(*).*`` those of any pointer, ``main.(**art).*`` those of pointers to what ends with ``art``.
"""

from __future__ import annotations

import difflib
import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from otel_goprobe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_TOKEN: Final = re.compile(r"\(\*(?!\))|\*|\?|.", re.DOTALL)
_TRANSLATED: Final = {"*": ".*", "?": "."}


@dataclass(frozen=True, slots=True)
class Glob:
    """A text with wildcards."""

    text: str

    def matches(self, name: str) -> bool:
        """Tell whether all of `name` matches."""
        return _expression(self.text).fullmatch(name) is not None

    def __str__(self) -> str:
        return self.text


@functools.cache
def _expression(glob: str) -> re.Pattern[str]:
    parts = (_TRANSLATED.get(token) or re.escape(token) for token in _TOKEN.findall(glob))
    return re.compile("".join(parts), re.DOTALL)


@dataclass(frozen=True, slots=True)
class Functions:
    """``go:NAME``: functions of the Go program that is looked at, in Go's own spelling."""

    name: Glob

    def __str__(self) -> str:
        return f"go:{self.name}"


@dataclass(frozen=True, slots=True)
class Symbols:
    """``uprobe:PATH:SYMBOL``, or ``uretprobe:``: functions of an ELF file."""

    path: str
    name: Glob
    at_return: bool = False

    def __str__(self) -> str:
        return f"u{'ret' * self.at_return}probe:{self.path}:{self.name}"


@dataclass(frozen=True, slots=True)
class KernelFunctions:
    """``kprobe:NAME``, or ``kretprobe:``: functions of the kernel."""

    name: Glob
    at_return: bool = False

    def __str__(self) -> str:
        return f"k{'ret' * self.at_return}probe:{self.name}"


@dataclass(frozen=True, slots=True)
class Tracepoints:
    """``tracepoint:CATEGORY:NAME``: tracepoints of the kernel."""

    category: Glob
    name: Glob

    def __str__(self) -> str:
        return f"tracepoint:{self.category}:{self.name}"


@dataclass(frozen=True, slots=True)
class Marks:
    """``usdt:PATH:PROVIDER:NAME``: statically defined marks of a file; without a path, of what is looked at."""

    path: str
    provider: Glob
    name: Glob

    def __str__(self) -> str:
        return ":".join(["usdt", *([self.path] if self.path else []), str(self.provider), str(self.name)])


Spec = Functions | Symbols | KernelFunctions | Tracepoints | Marks

_FORMS: Final = {
    "go": "go:NAME, such as 'go:main.*'",
    "uprobe": "uprobe:PATH:SYMBOL, such as uprobe:/lib/x86_64-linux-gnu/libc.so.6:malloc",
    "uretprobe": "uretprobe:PATH:SYMBOL, such as uretprobe:/lib/x86_64-linux-gnu/libc.so.6:malloc",
    "kprobe": "kprobe:NAME, such as kprobe:tcp_connect",
    "kretprobe": "kretprobe:NAME, such as kretprobe:tcp_connect",
    "tracepoint": "tracepoint:CATEGORY:NAME, such as 'tracepoint:tcp:*'",
    "usdt": "usdt:PROVIDER:NAME or usdt:PATH:PROVIDER:NAME, such as 'usdt:libc:*'",
}
_SHORT: Final = {"u": "uprobe", "ur": "uretprobe", "k": "kprobe", "kr": "kretprobe", "t": "tracepoint", "U": "usdt"}
"""bpftrace's, which it is a pity to guess at."""


def parse(text: str) -> Spec:
    """Read one spec.

    Raises:
        UsageError: it is none; the message names the column, from 1, the remedy what to write instead.
    """
    for column, char in enumerate(text, 1):
        if char.isspace() or not char.isprintable():
            _refuse(text, column, "a blank or control character, which no name has", "write it without")
    kind, colon, rest = text.partition(":")
    if not colon:
        if not text:
            _refuse(text, 1, "nothing is there", f"write {_FORMS['go']}")
        return Functions(Glob(text))
    if kind not in _FORMS:
        _refuse(text, 1, f"{kind!r} is no kind of what can be looked at", _instead_of(kind, rest))
    return _READERS[kind](text, kind, rest)


def functions(text: str) -> Functions:
    """Read a spec where only functions of Go can be meant.

    Raises:
        UsageError: it is none, or one of something else.
    """
    found = parse(text)
    if not isinstance(found, Functions):
        kind = text.partition(":")[0]
        _refuse(
            text,
            1,
            f"{kind} is no function of Go, which is what stacks are looked through for",
            f"write {_FORMS['go']}",
        )
    return found


def _refuse(text: str, column: int, what: str, remedy: str) -> NoReturn:
    raise UsageError(f"{text!r}, column {column}: {what}", remedy)


def _instead_of(kind: str, rest: str) -> str:
    meant = _SHORT.get(kind) or next(iter(difflib.get_close_matches(kind.lower(), _FORMS, 1)), "")
    if meant:
        return f"write {meant}:{rest}"
    return f"write one of {', '.join(_FORMS)} before the colon, or go:{kind}:{rest} for a function with that name"


def _pieces(text: str, kind: str, rest: str, count: int) -> list[str]:
    """Split what stands behind the kind at its last colons, so that a path may hold some; none may be empty."""
    pieces = rest.rsplit(":", count - 1)
    column = len(kind) + 2
    for piece in pieces:
        if not piece:
            _refuse(
                text,
                column,
                "nothing stands between the colons" if column <= len(text) else "its end is missing",
                f"write {_FORMS[kind]}",
            )
        column += len(piece) + 1
    if len(pieces) < count:
        remedy = f"write {_FORMS[kind]}"
        if kind == "tracepoint":
            remedy += f"; tracepoint:*:{rest} is one of any category"
        _refuse(
            text, len(text) + 1, f"{count - len(pieces)} more part{'s' * (count - len(pieces) > 1)} must follow", remedy
        )
    return pieces


def _functions(text: str, kind: str, rest: str) -> Spec:
    if not rest:
        _refuse(text, len(text) + 1, "its end is missing", f"write {_FORMS[kind]}")
    return Functions(Glob(rest))


def _symbols(text: str, kind: str, rest: str) -> Spec:
    path, name = _pieces(text, kind, rest, 2)
    return Symbols(path, Glob(name), at_return=kind == "uretprobe")


def _kernel_functions(text: str, kind: str, rest: str) -> Spec:
    (name,) = _pieces(text, kind, rest, 1)
    if ":" in name:
        _refuse(
            text,
            text.index(":", len(kind) + 1) + 1,
            "a colon, which no function of the kernel has in its name",
            f"write {_FORMS[kind]}",
        )
    return KernelFunctions(Glob(name), at_return=kind == "kretprobe")


def _tracepoints(text: str, kind: str, rest: str) -> Spec:
    category, name = _pieces(text, kind, rest, 2)
    if ":" in category:
        _refuse(text, text.rindex(":") + 1, "there is one part too many", f"write {_FORMS[kind]}")
    return Tracepoints(Glob(category), Glob(name))


def _marks(text: str, kind: str, rest: str) -> Spec:
    *path, provider, name = _pieces(text, kind, rest, 2 + (rest.count(":") > 1))
    return Marks(path[0] if path else "", Glob(provider), Glob(name))


_READERS: Final[dict[str, Callable[[str, str, str], Spec]]] = {
    "go": _functions,
    "uprobe": _symbols,
    "uretprobe": _symbols,
    "kprobe": _kernel_functions,
    "kretprobe": _kernel_functions,
    "tracepoint": _tracepoints,
    "usdt": _marks,
}
