"""Signals of the process -> what the agent's loop polls for; start.py makes it, before anything else can take time."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Self

from otel_goprobe.discovery.launch import PASSED_ON

if TYPE_CHECKING:
    from otel_goprobe.discovery.launch import Launch


class Signals:
    """Signals as something to poll for: SIGINT and SIGTERM end the agent, or go to the command that it started."""

    def __init__(self, launch: Launch | None) -> None:
        self._launch = launch
        self._reader, self._writer = socket.socketpair()
        self.stop = False

    def __enter__(self) -> Self:
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in PASSED_ON if self._launch else (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def _handle(self, number: int, _frame: object) -> None:
        if self._launch:
            self._launch.signal(number)
        else:
            self.stop = True

    def fileno(self) -> int:
        """Return what becomes readable when a signal came."""
        return self._reader.fileno()

    def clear(self) -> None:
        """Forget the bytes that woke the loop."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(64):
                pass
