"""An executable -> its plan, in a process of its own; plancache.py calls `analysed`.

The disassembler and the tables of a large program take tens of megabytes, which a process that has allocated them
doesn't give back, and the agent lives long. ``python -m otel_goprobe.probes.analysis`` reads the executable from stdin
and writes the plan, as JSON, to stdout.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import msgspec

from otel_goprobe import gobinary
from otel_goprobe.errors import GoprobeError
from otel_goprobe.model import Plan
from otel_goprobe.probes.selection import select

log = logging.getLogger(__name__)


def analysed(path: str) -> Plan:
    """Analyse an executable; where the child gives no plan, in this process, so that it tells why.

    Raises:
        BinaryError: as `gobinary.open_binary`.
    """
    try:
        with Path(path).open("rb") as executable:
            # -P: a folder that is called like one of our modules, where the user happens to stand, isn't meant.
            command = [sys.executable, "-P", "-m", __name__]
            child = subprocess.run(command, stdin=executable, capture_output=True, check=True)
        return msgspec.json.decode(child.stdout, type=Plan)
    except (OSError, subprocess.CalledProcessError, msgspec.MsgspecError) as error:
        log.debug("%s is analysed in the agent's process: %s", path, error)
        return analyse(path)


def analyse(path: str) -> Plan:
    """Analyse an executable here.

    Raises:
        BinaryError: as `gobinary.open_binary`.
    """
    with gobinary.open_binary(path) as binary:
        return select(binary)


def main() -> None:
    """Be the child."""
    try:
        sys.stdout.buffer.write(msgspec.json.encode(analyse("/proc/self/fd/0")))
    except GoprobeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
