"""A stack's frame that is the application's own: the first that is neither Go's nor a dependency's; a stack as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_goprobe.gobinary import Frame


def package_of(function: str) -> str:
    """Return the import path of a function's package: ``net/http`` of ``net/http.(*conn).serve``.

    A dot in the last element of a path is written ``%2e`` in symbols (cmd/internal/objabi/path.go).
    """
    arguments = function.find("[")
    name = function if arguments < 0 else function[:arguments]
    slash = name.rfind("/") + 1
    dot = name.find(".", slash)
    return (name if dot < 0 else name[:dot]).replace("%2e", ".")


def _of_standard_library(package: str) -> bool:
    return "." not in package.partition("/")[0] and package != "main"


def application_frame(frames: Sequence[Frame], module: str) -> Frame | None:
    """Return the innermost frame of the main module; else of any module; else, of Go's own, the outermost but goexit.

    Args:
        frames: innermost first.
        module: path of the main module; empty where it isn't known.
    """
    packages = [package_of(frame.function) for frame in frames]
    for frame, package in zip(frames, packages, strict=True):
        if package == "main" or (module and (package == module or package.startswith(f"{module}/"))):
            return frame
    for frame, package in zip(frames, packages, strict=True):
        if frame.file and not _of_standard_library(package):
            return frame
    named = [frame for frame in frames if frame.function != "runtime.goexit"]
    return named[-1] if named else None


def stacktrace(frames: Sequence[Frame]) -> str:
    """Return frames, innermost first, as Go's runtime prints them: a line for the function, one for where it is."""
    return "\n".join(
        f"{frame.function}\n\t{frame.file}:{frame.line}" if frame.file else frame.function for frame in frames
    )
