"""A module of this package -> the command that runs it in a process of its own; for analysis.py and kernel/bundle.py.

The child gets the very package that asks, also where that is a source tree beside an installed one. ``-P``: a module
that lies where the user happens to stand isn't meant, and ``sys.path`` stays as it is: the folder that holds an
installed package holds others too.
"""

from __future__ import annotations

import sys
from pathlib import Path

_PACKAGE = Path(__file__).with_name("__init__.py")
_CODE = """\
import importlib.util, sys
spec = importlib.util.spec_from_file_location("otel_goprobe", sys.argv[1])
package = sys.modules["otel_goprobe"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
sys.exit(importlib.import_module(sys.argv[2]).main())
"""


def command(module: str) -> list[str]:
    """Return the command.

    Args:
        module: its full name; its ``main`` is called without arguments and gives the exit status, as `sys.exit` has it.
    """
    return [sys.executable, "-P", "-c", _CODE, str(_PACKAGE), module]
