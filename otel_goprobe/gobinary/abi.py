"""Where Go's register ABI puts arguments and results: types in, registers and stack offsets out.

cmd/compile/abi-internal.md, "Function call argument and result passing"; compiled Go functions since 1.17 (amd64) and
1.18 (arm64) use it, assembler functions don't. signatures.py asks, with the types that DWARF gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_REGISTERS = {"x86_64": (9, 15), "aarch64": (16, 16)}
"""Machine -> how many integer and floating-point registers there are for arguments (abi-internal.md)."""
_POINTER_BYTES = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """What the ABI sees of a type."""

    size: int
    align: int
    floating: bool = False
    parts: tuple[Shape, ...] | None = None
    """Of a struct, a string, an interface …: its fields; of an array: one element, if it has any; None of one word."""
    array: bool = False
    """Of more elements than one: never in registers."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a value is while the function's first instruction runs, a result when it returns."""

    integers: tuple[int, ...] = ()
    """Numbers of integer registers, from 1, as `GoBinary.start_site` counts them."""
    floats: tuple[int, ...] = ()
    """Numbers of floating-point registers, from 1."""
    stack_offset: int | None = None
    """Bytes from the stack pointer in front of the return address; None where it is in registers, or has no size."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where everything that a function takes and gives is."""

    arguments: tuple[Location, ...]
    results: tuple[Location, ...]
    width: int
    """Bytes of the caller's frame that belong to the call: values on the stack, and room to spill the arguments that
    came in registers. The compiler writes it into the function table."""
    padded: bool
    """Whether that room has gaps, in which an argument that isn't known could be."""


def assign(arguments: Sequence[Shape], results: Sequence[Shape], machine: str) -> Assignment:
    """Locations of all arguments, receiver first, and results."""
    stack = 0
    found: list[tuple[Location, ...]] = []
    for shapes in (arguments, results):
        locations = []
        used = 0, 0
        for shape in shapes:
            words = _words(shape)
            wanted = None if words is None else (used[0] + words.count(False), used[1] + words.count(True))
            if wanted and all(count <= most for count, most in zip(wanted, _REGISTERS[machine], strict=True)):
                integers, floats = (range(before + 1, after + 1) for before, after in zip(used, wanted, strict=True))
                locations.append(Location(tuple(integers), tuple(floats)))
                used = wanted
            else:
                stack = _aligned(stack, shape.align)
                locations.append(Location(stack_offset=stack))
                stack += shape.size
        stack = _aligned(stack, _POINTER_BYTES)
        found.append(tuple(locations))
    spill, sizes = 0, 0
    for shape, location in zip(arguments, found[0], strict=True):
        if location.stack_offset is None:
            spill = _aligned(spill, shape.align) + shape.size
            sizes += shape.size
    spill = _aligned(spill, _POINTER_BYTES)
    return Assignment(found[0], found[1], stack + spill, spill != sizes)


def _words(shape: Shape) -> list[bool] | None:
    """Whether each register that a value takes is a floating-point one; None if it can't be in registers."""
    if shape.array:
        return None
    if shape.parts is None:
        return [shape.floating]
    words: list[bool] = []
    for part in shape.parts:
        inner = _words(part)
        if inner is None:
            return None
        words += inner
    return words


def _aligned(offset: int, align: int) -> int:
    return -(-offset // align) * align
