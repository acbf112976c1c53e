"""Every exception that this project raises on purpose; cli.py catches `GoprobeError` once and prints it.

    GoprobeError              exit 1   anything a user can do something about
    ├── UsageError            exit 2   a flag, a variable or a file says something that can't be
    ├── NothingToInstrument   exit 3   --no-wait and no Go process, or a named one that can't be instrumented
    ├── BinaryError           exit 3   an executable that gobinary can't use
    │   ├── NotGoError                 … because it is no Go program
    │   └── UnsupportedBinaryError     … because of its version, architecture or packing
    ├── KernelError           exit 1   the kernel refused, or lacks, something
    │   ├── NotPermittedError          … for want of a capability
    │   ├── MapFullError               … because a BPF map has no room
    │   └── UnsupportedByKernelError   … because this kernel has not got it ("unsupported" is a type)
    ├── CompilerError         exit 1   BCC is missing, is the wrong package, or refused the source
    └── TargetGoneError       exit 3   the process ended while it was looked at

A message is one sentence that says what was wrong and where; `remedy` is one that says what to do.
"""

from __future__ import annotations


class GoprobeError(Exception):
    """What was wrong and where, with what to do about it.

    Args:
        message: one sentence, without a trailing full stop.
        remedy: one sentence that tells the user what to do; empty where there is nothing to do.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}: {self.remedy}" if self.remedy else self.message


class UsageError(GoprobeError):
    """A flag, an environment variable or a file holds a value that can't be used."""

    exit_code = 2


class NothingToInstrument(GoprobeError):  # noqa: N818 - it is an outcome that ends the program, not a fault
    """No process matches, or the one that was named can't be instrumented."""

    exit_code = 3


class BinaryError(GoprobeError):
    """An executable can't be analysed."""

    exit_code = 3


class NotGoError(BinaryError):
    """The file isn't an ELF executable built by Go."""


class UnsupportedBinaryError(BinaryError):
    """A Go executable of a version, architecture or form that isn't supported, or whose tables are damaged."""


class KernelError(GoprobeError):
    """A system call that the agent needs failed."""


class NotPermittedError(KernelError):
    """The agent lacks a capability."""


class UnsupportedByKernelError(KernelError):
    """The running kernel doesn't have a feature."""


class MapFullError(KernelError):
    """A BPF map has no room for another element."""


class CompilerError(GoprobeError):
    """BCC couldn't be imported, isn't the distribution's, or rejected the C source."""


class TargetGoneError(GoprobeError):
    """The target process ended, or was replaced by another with its pid."""

    exit_code = 3
