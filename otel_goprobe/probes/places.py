"""Where programs run: a place, resolved against an executable, gives `Site`s or says why there are none.

Declarations name them (base.py tells the roles), selection.py resolves them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from otel_goprobe.errors import BinaryError
from otel_goprobe.gobinary import ALL_ARGUMENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_goprobe.gobinary import Function, GoBinary
    from otel_goprobe.model import Site


class UnplaceableError(BinaryError):
    """A place that this executable doesn't have, or where calls would be missed."""


class Place(Protocol):
    """Where a program may run."""

    def sites(self, binary: GoBinary) -> tuple[Site, ...]:
        """Return one site or more.

        Raises:
            UnplaceableError: there is none, with the reason.
        """


def linked(*functions: str) -> Callable[[GoBinary], bool]:
    """Return what tells whether an executable has any of these functions."""
    return lambda binary: bool(binary.functions(functions))


def _function(binary: GoBinary, name: str) -> Function:
    found = binary.functions([name]).get(name)
    if found is None:
        raise UnplaceableError(f"{name} isn't in the executable")
    return found


def _never_inlined(binary: GoBinary, name: str) -> None:
    callers = binary.inlined([name]).get(name)
    if callers:
        raise UnplaceableError(f"{name} is inlined into {', '.join(sorted(callers)[:3])}")


@dataclass(frozen=True, slots=True)
class AtStart:
    """Once per call, argument registers intact; refused where copies of the function are inlined elsewhere."""

    function: str
    calling: str = ""
    """A function that it must call, where the name alone could be another's (closure numbers shift)."""
    arguments: tuple[int, ...] = ALL_ARGUMENTS
    """Those that the program reads, as ``GO_ARGn`` counts them: the fewer, the cheaper the place up to Go 1.20."""

    def sites(self, binary: GoBinary) -> tuple[Site, ...]:
        """See `Place`."""
        function = _function(binary, self.function)
        _never_inlined(binary, self.function)
        if self.calling and not binary.calls(function, _function(binary, self.calling)):
            raise UnplaceableError(f"{self.function} doesn't call {self.calling}")
        return (binary.start_site(function, self.arguments),)


@dataclass(frozen=True, slots=True)
class AtReturns:
    """Every way out of a function but a panic."""

    function: str

    def sites(self, binary: GoBinary) -> tuple[Site, ...]:
        """See `Place`."""
        function = _function(binary, self.function)
        _never_inlined(binary, self.function)
        return binary.return_sites(function)


@dataclass(frozen=True, slots=True)
class AtCalls:
    """On each instruction of `caller` that calls `callee`: its arguments are in their registers."""

    caller: str
    callee: str

    def sites(self, binary: GoBinary) -> tuple[Site, ...]:
        """See `Place`."""
        caller, callee = _function(binary, self.caller), _function(binary, self.callee)
        _never_inlined(binary, self.caller)
        _never_inlined(binary, self.callee)
        sites = binary.call_sites(caller, callee)
        if not sites:
            raise UnplaceableError(f"no call of {self.callee} in {self.caller}")
        return sites


@dataclass(frozen=True, slots=True)
class AfterCalls:
    """Behind each call of `callee` in `caller`, results still in their registers, on an emulated instruction."""

    caller: str
    callee: str
    results: tuple[int, ...] = (1, 2, 3, 4)
    """Those that the program reads; without any, calls through a register may lie between, whose time then counts."""

    def sites(self, binary: GoBinary) -> tuple[Site, ...]:
        """See `Place`."""
        caller, callee = _function(binary, self.caller), _function(binary, self.callee)
        _never_inlined(binary, self.callee)
        sites = binary.result_sites(caller, callee, self.results)
        if not sites:
            raise UnplaceableError(f"no cheap place behind the call of {self.callee} in {self.caller}")
        return sites


@dataclass(frozen=True, slots=True)
class AtErrorTest:
    """The emulated branch at which `caller` asks whether its one call of `callee`, (value, error), failed."""

    caller: str
    callee: str
    error: int = 2
    """Number of the result that holds the error's type, from 1."""

    def sites(self, binary: GoBinary) -> tuple[Site, ...]:
        """See `Place`."""
        return (_error_test(binary, self.caller, self.callee, self.error)[0],)


@dataclass(frozen=True, slots=True)
class AtOtherReturns:
    """The returns of `caller` that aren't behind the success of its call of `callee`, which `AtErrorTest` sees."""

    caller: str
    callee: str
    error: int = 2
    """As for `AtErrorTest`."""

    def sites(self, binary: GoBinary) -> tuple[Site, ...]:
        """See `Place`."""
        return _error_test(binary, self.caller, self.callee, self.error)[1]


def _error_test(binary: GoBinary, caller: str, callee: str, error: int) -> tuple[Site, tuple[Site, ...]]:
    _never_inlined(binary, caller)
    _never_inlined(binary, callee)
    found = binary.error_test(_function(binary, caller), _function(binary, callee), error)
    if found is None:
        raise UnplaceableError(f"no cheap place where {caller} asks for the error of {callee}")
    return found


@dataclass(frozen=True, slots=True)
class AtCallInTurn:
    """The one call of `callee` in `caller` that no call of `before` follows, or else that follows one of `behind`.

    So two uses of one function are told apart, where nothing lies between the two calls but plain instructions.
    """

    caller: str
    callee: str
    before: str = ""
    behind: str = ""

    def sites(self, binary: GoBinary) -> tuple[Site, ...]:
        """See `Place`."""
        names = (self.behind, self.callee) if self.behind else (self.callee, self.before)
        first, second = (_function(binary, name) for name in names)
        for name in (self.caller, *names):
            _never_inlined(binary, name)
        alone, behind = binary.call_sites_in_turn(_function(binary, self.caller), first, second)
        found = behind if self.behind else alone
        if len(found) != 1:
            raise UnplaceableError(f"{self.caller} calls {self.callee} in {len(found)} such places, not in one")
        return found


@dataclass(frozen=True, slots=True)
class BehindEachCall:
    """Behind each call of `callee`, on an emulated instruction or in the first function that its caller deferred."""

    callers: str
    """What the names of all that call it begin with."""
    callee: str

    def sites(self, binary: GoBinary) -> tuple[Site, ...]:
        """See `Place`."""
        callee = binary.functions([self.callee]).get(self.callee)
        inlined = binary.inlined([self.callee]).get(self.callee)
        if callee is None or inlined:
            raise UnplaceableError(f"{self.callee} isn't in the executable, or is inlined")
        named = binary.functions([name for name in binary.function_names() if name.startswith(self.callers)])
        callers = [function for function in named.values() if binary.calls(function, callee)]
        if not callers:
            raise UnplaceableError(f"nothing whose name begins with {self.callers} calls {self.callee}")
        return tuple(site for caller in callers for site in _behind(binary, caller, callee))


def _behind(binary: GoBinary, caller: Function, callee: Function) -> tuple[Site, ...]:
    # What a `defer` with arguments is compiled to: Go 1.22 and newer, and older ones.
    names = (f"{caller.name}.deferwrap1", f"{caller.name}.1")
    deferred = binary.functions(names)
    sites = binary.result_sites(caller, callee, ())
    if not sites and not deferred:
        raise UnplaceableError(f"no cheap place behind the call of {callee.name} in {caller.name}")
    return sites or (binary.start_site(next(deferred[name] for name in names if name in deferred), ()),)
