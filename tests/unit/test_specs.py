"""The grammar of what to look at: what is read, what is refused and where, what globs match."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_goprobe import specs
from otel_goprobe.errors import UsageError
from otel_goprobe.specs import Functions, Glob, KernelFunctions, Marks, Symbols, Tracepoints

LIBC = "/lib/x86_64-linux-gnu/libc.so.6"
WORD = st.text(st.sampled_from("abcXYZ_09*?.()[]-/"), min_size=1, max_size=20)
PATH = st.text(st.sampled_from("ab/:.-"), min_size=1, max_size=20).filter(
    lambda path: not path.startswith(":") and not path.endswith(":")
)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("main.*", Functions(Glob("main.*"))),
        ("go:main.(*Cart).Add[go.shape.int]", Functions(Glob("main.(*Cart).Add[go.shape.int]"))),
        ("go:type:.eq.main.Cart", Functions(Glob("type:.eq.main.Cart"))),
        (f"uprobe:{LIBC}:mal*", Symbols(LIBC, Glob("mal*"))),
        ("uprobe:/srv/a:b/lib.so:open", Symbols("/srv/a:b/lib.so", Glob("open"))),
        (f"uretprobe:{LIBC}:malloc", Symbols(LIBC, Glob("malloc"), at_return=True)),
        ("kprobe:tcp_connect", KernelFunctions(Glob("tcp_connect"))),
        ("kretprobe:tcp_*", KernelFunctions(Glob("tcp_*"), at_return=True)),
        ("tracepoint:tcp:*", Tracepoints(Glob("tcp"), Glob("*"))),
        ("usdt:libc:setjmp", Marks("", Glob("libc"), Glob("setjmp"))),
        (f"usdt:{LIBC}:libc:*", Marks(LIBC, Glob("libc"), Glob("*"))),
    ],
)
def test_read(text: str, spec: specs.Spec) -> None:
    """Each form, and written again it is the same."""
    assert specs.parse(text) == spec
    assert str(spec) == (text if ":" in text else f"go:{text}")


@pytest.mark.parametrize(
    ("text", "column", "what", "remedy"),
    [
        ("", 1, "nothing is there", "write go:NAME"),
        ("go:", 4, "its end is missing", "write go:NAME"),
        ("go:main. *", 9, "a blank", "write it without"),
        ("uprobe:/bin/sh", 15, "1 more part must follow", "write uprobe:PATH:SYMBOL"),
        ("uprobe::malloc", 8, "nothing stands between the colons", "write uprobe:PATH:SYMBOL"),
        ("uprobe:/bin/sh:", 16, "its end is missing", "write uprobe:PATH:SYMBOL"),
        ("usdt:libc", 10, "1 more part must follow", "write usdt:PROVIDER:NAME"),
        ("tracepoint:sched_switch", 24, "1 more part must follow", "tracepoint:*:sched_switch is one of any category"),
        ("tracepoint:a:b:c", 15, "there is one part too many", "write tracepoint:CATEGORY:NAME"),
        ("kprobe:a:b", 9, "a colon", "write kprobe:NAME"),
        ("kprob:tcp_connect", 1, "'kprob' is no kind", "write kprobe:tcp_connect"),
        ("t:tcp:*", 1, "'t' is no kind", "write tracepoint:tcp:*"),
        ("main:Cart", 1, "'main' is no kind", "or go:main:Cart for a function"),
    ],
)
def test_refused(text: str, column: int, what: str, remedy: str) -> None:
    """What is wrong, where, and what to write instead."""
    with pytest.raises(UsageError) as raised:
        specs.parse(text)
    assert raised.value.message.startswith(f"{text!r}, column {column}: {what}")
    assert remedy in raised.value.remedy


def test_only_functions() -> None:
    """Where a stack is looked through, nothing else can be meant."""
    assert specs.functions("main.*") == Functions(Glob("main.*"))
    with pytest.raises(UsageError, match=r"column 1: tracepoint is no function of Go.*go:NAME"):
        specs.functions("tracepoint:tcp:*")


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("main.*", ["main.main", "main.(*Cart).Add"], ["xmain.main", "remain.x"]),
        ("main.(*Cart).*", ["main.(*Cart).Add", "main.(*Cart).Add.func1"], ["main.(*BigCart).Add", "main.Cart.Add"]),
        ("main.(*).Add", ["main.(*Cart).Add"], ["main.Cart.Add"]),
        ("main.(**art).Add", ["main.(*Cart).Add"], ["main.(*Carton).Add"]),
        ("main.Map[go.shape.int]", ["main.Map[go.shape.int]"], ["main.Mapg"]),
        ("main.?", ["main.f"], ["main.", "main.ff"]),
        ("*", ["", "a\nb"], []),
    ],
)
def test_globs(glob: str, matching: list[str], others: list[str]) -> None:
    """Brackets are names', the star of a pointer is the pointer's."""
    assert all(Glob(glob).matches(name) for name in matching)
    assert not any(Glob(glob).matches(name) for name in others)


@given(st.text(max_size=60))
def test_any_text_is_a_spec_or_refused(text: str) -> None:
    """The column is in it or right behind it."""
    try:
        outcome: specs.Spec | UsageError = specs.parse(text)
    except UsageError as error:
        outcome = error
    if not isinstance(outcome, UsageError):
        assert specs.parse(str(outcome)) == outcome
        return
    column = re.search(r", column (\d+): ", outcome.message.removeprefix(repr(text)))
    assert column
    assert 1 <= int(column[1]) <= len(text) + 1
    assert outcome.remedy


@given(st.sampled_from(["uprobe", "uretprobe", "tracepoint", "usdt", "kprobe", "go"]), PATH, WORD, WORD)
def test_written_again_it_is_the_same(kind: str, path: str, first: str, second: str) -> None:
    """Paths with colons too."""
    parts = {
        "uprobe": [path, second],
        "uretprobe": [path, second],
        "tracepoint": [first, second],
        "usdt": [path, first, second],
        "kprobe": [second],
        "go": [second],
    }
    text = ":".join([kind, *parts[kind]])
    assert str(specs.parse(text)) == text


@given(st.text(st.sampled_from("abc.[]()*"), max_size=12))
def test_a_name_matches_itself(name: str) -> None:
    """Whatever characters it has."""
    assert Glob(name).matches(name)
