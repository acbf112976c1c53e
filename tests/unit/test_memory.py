"""What `Memory.give_back` returns to the kernel: pages that come back as they were, and no others."""

from __future__ import annotations

import subprocess
import sys

RETURNED_MIB = 3
"""At least, of numpy's and OpenSSL's files; 8 to 10 as seen with CPython 3.11, numpy 2 and OpenSSL 3."""

_IN_A_PROCESS_OF_ITS_OWN = f"""
import ctypes, hashlib, mmap, re, ssl, sys, tempfile
from pathlib import Path
import numpy
from otel_goprobe.memory import Memory

def file_pages_mib():
    return int(re.search(r"^RssFile:\\s*(\\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)[1]) / 1024

libc = ctypes.CDLL(None)
with tempfile.TemporaryFile() as file:
    file.write(b"a" * 2 * mmap.PAGESIZE)
    file.flush()
    mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE)
    mapped[0] = ord("b")  # a page of its own; the second stays the file's
    begin = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    assert not libc.mprotect(ctypes.c_void_p(begin), ctypes.c_size_t(len(mapped)), mmap.PROT_READ)
    memory = Memory()
    before = file_pages_mib()
    memory.give_back()
    assert before - file_pages_mib() > {RETURNED_MIB}, (before, file_pages_mib())
    assert mapped[0] == ord("b") and mapped[mmap.PAGESIZE] == ord("a")
assert hashlib.sha256(b"abc").hexdigest().startswith("ba7816bf8f01cfea")  # FIPS 180-2, appendix B.1
assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED
assert numpy.sort(numpy.arange(1009)[::-1])[7] == 7
between = file_pages_mib()
memory.give_back()
assert abs(file_pages_mib() - between) < 0.5, "once is enough: what came back is needed"
"""


def test_pages_of_files_that_only_imports_touched_are_returned_once_and_changed_ones_stay() -> None:
    """What a page held is there behind it, read from the file or never gone."""
    subprocess.run([sys.executable, "-c", _IN_A_PROCESS_OF_ITS_OWN], check=True)
