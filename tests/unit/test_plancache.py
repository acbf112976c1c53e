"""Plans on disk: the same as an analysis gives, and never in its way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from otel_goprobe import gobinary, plancache, probes
from otel_goprobe.errors import NotGoError
from otel_goprobe.plancache import cached_plan

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def analyses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the paths that are analysed."""
    paths: list[str] = []

    class Counted(plancache.Analysis):
        def __init__(self, path: str) -> None:
            paths.append(path)
            super().__init__(path)

    monkeypatch.setattr(plancache, "Analysis", Counted)
    return paths


def analysed(path: Path) -> object:
    """Analyse without a cache."""
    with gobinary.open_binary(path) as binary:
        return probes.select(binary)


def test_a_plan_comes_back_as_it_was(server_plain: Path, tmp_path: Path, analyses: list[str]) -> None:
    """And needs no second analysis, of a copy either."""
    folder = tmp_path / "plans"
    expected = analysed(server_plain)
    copy = tmp_path / "copy"
    shutil.copy(server_plain, copy)
    assert [cached_plan(str(path), folder) for path in (server_plain, server_plain, copy)] == [expected] * 3
    assert len(analyses) == 1
    assert [file.stat().st_mode & 0o777 for file in folder.iterdir()] == [0o600]


def test_reading_a_plan_is_cheap(server_plain: Path, tmp_path: Path) -> None:
    """Otherwise it would not pay."""
    cached_plan(str(server_plain), tmp_path / "plans")
    began = time.process_time()
    cached_plan(str(server_plain), tmp_path / "plans")
    assert time.process_time() - began < 0.02


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 99, b'{"probes": [], "values": {"a": "b"}}'])
def test_a_corrupt_plan_is_made_anew(content: bytes, server_plain: Path, tmp_path: Path, analyses: list[str]) -> None:
    """Whatever stands in it."""
    folder = tmp_path / "plans"
    expected = cached_plan(str(server_plain), folder)
    (file,) = folder.iterdir()
    file.write_bytes(content)
    assert cached_plan(str(server_plain), folder) == expected
    assert cached_plan(str(server_plain), folder) == expected
    assert len(analyses) == 2


def test_a_plan_that_does_not_fit_is_made_anew(server_plain: Path, tmp_path: Path, analyses: list[str]) -> None:
    """Its bytes are compared with the executable's."""
    folder, patched = tmp_path / "plans", tmp_path / "patched"
    plan = cached_plan(str(server_plain), folder)
    content = bytearray(server_plain.read_bytes())
    content[plan.probes[0].sites[0].file_offset] ^= 1
    patched.write_bytes(content)
    with pytest.raises(NotGoError):
        cached_plan(str(tmp_path), folder)
    assert cached_plan(str(patched), folder) != plan
    assert len(analyses) == 3  # the folder, too


def test_another_file_with_the_same_build_id(server_plain: Path, tmp_path: Path, analyses: list[str]) -> None:
    """Stripping keeps it; section headers that are gone, too."""
    bare = tmp_path / "bare"
    content = bytearray(server_plain.read_bytes())
    content[40:48] = bytes(8)
    bare.write_bytes(content)
    for path in (server_plain, bare):
        cached_plan(str(path), tmp_path / "plans")
    assert len(analyses) == 2


def test_an_analysis_says_first_what_is_likely(server_plain: Path) -> None:
    """Programs can be verified while the plan is made: those of this executable are all among them."""
    code = (
        "import sys; from otel_goprobe.analysis import Analysis; analysis = Analysis(sys.argv[1])\n"
        "likely = {probe.program for probe in analysis.likely()}\n"
        "named = {probe.program for probe in analysis.plan().probes}; print(len(named), sorted(named - likely))"
    )
    said = subprocess.check_output([sys.executable, "-c", code, server_plain], text=True).split(maxsplit=1)
    assert int(said[0]) > 1
    assert said[1] == "[]\n"


def test_a_folder_that_others_may_write_in_is_left_alone(server_plain: Path, tmp_path: Path) -> None:
    """What is in it decides where probes go; one that can't be made is no error."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (tmp_path / "file").touch()
    expected = analysed(server_plain)
    for folder in (shared, tmp_path / "file", tmp_path / "file" / "below"):
        assert cached_plan(str(server_plain), folder) == expected
    assert list(shared.iterdir()) == []


def test_the_oldest_plans_go(server_plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of them."""
    monkeypatch.setattr(plancache, "MAX_PLANS", 2)
    folder = tmp_path / "plans"
    folder.mkdir(mode=0o700)
    for age in range(3):
        file = folder / f"{age}.plan.json"
        file.touch()
        os.utime(file, (age, age))
    cached_plan(str(server_plain), folder)
    assert {file.name for file in folder.iterdir()} > {"2.plan.json"}
    assert len(list(folder.iterdir())) == 2
