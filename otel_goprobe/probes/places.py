"""Places that few libraries need, resolved as those of base.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_goprobe.probes.base import UnplaceableError

if TYPE_CHECKING:
    from otel_goprobe.gobinary import Function, GoBinary
    from otel_goprobe.model import Site


@dataclass(frozen=True, slots=True)
class BehindEachCall:
    """Behind each call of `callee`, on an emulated instruction or in the first function that its caller deferred."""

    callers: str
    """What the names of all that call it begin with."""
    callee: str

    def sites(self, binary: GoBinary) -> tuple[Site, ...]:
        """See `otel_goprobe.probes.base.Place`."""
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
