"""A kernel series, such as 6.12, -> Debian's newest generic kernel of it, unpacked in the project's cache folder.

The ordinary apt client fetches it, from the machine's own package sources if they have it; else from other suites of
the same mirror, with lists and caches of its own in the cache folder, so that nothing of the machine's changes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from goprograms import SCRIPTS, cache_folder

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITES = ("bookworm", "bookworm-backports")
"""Of Debian 12: the first has 6.1, the second 6.12."""
MIRROR_VARIABLE = "DEBIAN_MIRROR"
"""Environment variable with the URL of a mirror, where the machine's sources have no Debian, as on Ubuntu."""
ENVIRONMENT = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "LC_ALL": "C"}
"""depmod is where a user's PATH often doesn't lead."""


class NoKernelError(Exception):
    """A kernel can't be had; the message says why."""


@dataclass(frozen=True, slots=True)
class Image:
    """An unpacked kernel."""

    release: str
    """What `uname -r` says in it."""
    folder: Path
    """Has ``boot/vmlinuz-RELEASE`` and, ready for modprobe, ``lib/modules/RELEASE``."""

    @property
    def vmlinuz(self) -> Path:
        """The bootable file."""
        return self.folder / "boot" / f"vmlinuz-{self.release}"


def fetch(series: str) -> Image:
    """Return the newest kernel of `series`, from the cache if it is there.

    Raises:
        NoKernelError: apt knows none, or can't fetch it, such as a version that its lists still name: `apt-get update`.
    """
    options: list[str] = []
    release = _newest(series, options)
    if not release:
        options = _own_sources()
        release = _newest(series, options)
    if not release:
        raise NoKernelError(f"the suites {', '.join(SUITES)} have no generic kernel of series {series}")
    image = Image(release, cache_folder() / "kernels" / release)
    if not image.folder.exists():
        print(f"unpacking Debian's kernel {release} (about 100 MB) into {image.folder}", file=sys.stderr)
        _unpack(image, options)
    return image


def _newest(series: str, options: list[str]) -> str:
    """Return the release of the newest signed, generic kernel that apt knows; empty if there is none."""
    listed = _printed("apt-cache", *options, "search", "--names-only", f"^linux-image-{re.escape(series)}[.]")
    pattern = re.compile(rf"^linux-image-({re.escape(series)}\.\d+(?:[-+][0-9a-z.]+)?-amd64) - ", re.MULTILINE)
    releases: list[str] = pattern.findall(listed)
    return max(releases, key=lambda release: [int(number) for number in re.findall(r"\d+", release)], default="")


def _own_sources() -> list[str]:
    """Return the options by which apt uses SUITES of a Debian mirror, its lists fetched, and nothing of the machine's.

    Raises:
        NoKernelError: there is no mirror, or it can't be asked.
    """
    mirror = os.environ.get(MIRROR_VARIABLE) or _mirror()
    if not mirror or not KEYRING.exists():
        raise NoKernelError(
            "apt here has no Debian 12: set DEBIAN_MIRROR to the URL of a Debian mirror, such as the one on"
            " debian.org's list, and install debian-archive-keyring"
        )
    folder = cache_folder() / "kernels" / "apt"
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    sources = folder / "sources.list"
    sources.write_text("".join(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n" for suite in SUITES))
    options = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder,
    }
    arguments = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    _printed("apt-get", *arguments, "-qq", "update")
    return arguments


def _mirror() -> str:
    """Return the URL from which the machine's own Debian comes; empty if it isn't one."""
    targets = _printed("apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages")
    urls = [line.split()[1] for line in targets.splitlines() if line.startswith("Debian ")]
    return urls[0] if urls else ""


def _unpack(image: Image, options: list[str]) -> None:
    """Download and unpack into the image's folder, whole or not at all."""
    image.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=image.folder.parent) as temporary:
        # apt's own user can't write here, and says so on stderr before it goes on as who called it
        _printed("apt-get", *options, "-qq", "download", f"linux-image-{image.release}", cwd=Path(temporary))
        (package,) = Path(temporary).glob("*.deb")
        unpacked = Path(temporary) / "kernel"
        _printed("dpkg-deb", "-x", str(package), str(unpacked))
        shutil.rmtree(unpacked / "usr/share", ignore_errors=True)
        _printed("depmod", "-b", str(unpacked), image.release)
        unpacked.rename(image.folder)


def _printed(*command: str, cwd: Path | None = None) -> str:
    """Return what a command prints.

    Raises:
        NoKernelError: it fails.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, cwd=cwd)
    except FileNotFoundError:
        raise NoKernelError(f"this needs {command[0]}, of Debian or Ubuntu") from None
    if done.returncode:
        raise NoKernelError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout


def prepare_machine() -> None:
    """Install what booting takes from the distribution, where it isn't there.

    Raises:
        NoKernelError: it can't be.
    """
    _printed(str(SCRIPTS / "apt-missing"), "qemu-system-x86", "kmod", "udev", "busybox-static", "file")
