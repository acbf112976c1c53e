"""The compiler child: layouts, diagnostics that name the C file, the cache, a missing and a wrong bcc."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest

from otel_goprobe import model
from otel_goprobe.errors import CompilerError
from otel_goprobe.kernel import bundle

pytestmark = pytest.mark.root

STRUCTS = """
struct inner { u64 word; u8 bytes[3]; };
struct outer {
	u16 first;
	u32 second;
	struct inner inners[2];
	char text[5];
	bool flag;
	s32 signed_one;
	union { u64 whole; u32 halves[2]; } both;
	enum { A, B } choice;
	u8 last;
};
"""
PROGRAM = "int f(struct pt_regs *ctx) { return ctx->ip & 1; }\n"

COMPILE = """
import sys
from pathlib import Path
from otel_goprobe import model
from otel_goprobe.errors import CompilerError
from otel_goprobe.kernel import bundle
try:
    bundle.obtain(model.Unit("u", "", (), (), ()), Path(sys.argv[1]))
except CompilerError as error:
    print(error)
"""


def unit_of(folder: Path, *codes: str, structs: tuple[str, ...] = (), program: str = "f") -> model.Unit:
    """Make a unit of several files."""
    sources = []
    for number, code in enumerate(codes):
        sources.append(folder / f"part{number}.bpf.c")
        sources[-1].write_text(code)
    return model.Unit("unit", "#define GENERATED 1\n", tuple(sources), (model.UnitProgram(program),), structs)


def test_a_layout_is_the_compilers(tmp_path: Path) -> None:
    """Padding, nested structs, arrays, unions, enums; characters stay bytes, trailing NUL and all."""
    compiled = bundle.obtain(unit_of(tmp_path, STRUCTS + PROGRAM, structs=("outer", "inner")), tmp_path).bundle
    dtypes = {layout.name: layout.dtype() for layout in compiled.structs}
    inner = np.dtype({"names": ["word", "bytes"], "formats": ["<u8", ("u1", 3)], "offsets": [0, 8], "itemsize": 16})
    both = np.dtype({"names": ["whole", "halves"], "formats": ["<u8", ("<u4", 2)], "offsets": [0, 0], "itemsize": 8})
    assert dtypes["inner"] == inner
    assert dtypes["outer"] == np.dtype(
        {
            "names": ["first", "second", "inners", "text", "flag", "signed_one", "both", "choice", "last"],
            "formats": ["<u2", "<u4", (inner, 2), ("u1", 5), "?", "<i4", both, "<u4", "u1"],
            "offsets": [0, 4, 8, 40, 45, 48, 56, 64, 68],
            "itemsize": 72,
        }
    )
    assert compiled.maps == ()


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("int g(struct pt_regs *ctx)\n{\n\treturn ctx->nothing;\n}\n", r"part1\.bpf\.c:3:14: error: no member named"),
        ("static inline int g(void)\n{\n\tint unused;\n\treturn 0;\n}\n", r"part1\.bpf\.c:3:6: error: unused variable"),
        ("#error wrong\n", r"part1\.bpf\.c:1:2: error: wrong"),
    ],
)
def test_a_diagnostic_names_the_files_own_line(tmp_path: Path, mistake: str, said: str) -> None:
    """Though all files are one text for BCC; a warning is an error."""
    with pytest.raises(CompilerError, match=said):
        bundle.obtain(unit_of(tmp_path, PROGRAM, mistake), tmp_path)


def test_a_mistake_in_the_generated_header_is_told_apart(tmp_path: Path) -> None:
    """It has no file."""
    unit = dataclasses.replace(unit_of(tmp_path, PROGRAM), header="\n#error generated\n")
    with pytest.raises(CompilerError, match="<generated header of unit unit>:2:2: error: generated"):
        bundle.obtain(unit, tmp_path)


def test_names_that_are_not_in_the_source_are_refused(tmp_path: Path) -> None:
    """Programs, structs, files; and a member that numpy has no type for."""
    with pytest.raises(CompilerError, match="the C source has no BPF program named absent"):
        bundle.obtain(unit_of(tmp_path, PROGRAM, program="absent"), tmp_path)
    with pytest.raises(CompilerError, match="struct absent"):
        bundle.obtain(unit_of(tmp_path, PROGRAM, structs=("absent",)), tmp_path)
    bits = "struct bits { u32 low : 4; u32 high : 28; };\n"
    with pytest.raises(CompilerError, match="struct bits: low is a bit-field"):
        bundle.obtain(unit_of(tmp_path, bits + PROGRAM, structs=("bits",)), tmp_path)
    gone = unit_of(tmp_path, PROGRAM)
    gone.sources[0].unlink()
    with pytest.raises(CompilerError, match=r"part0\.bpf\.c can't be read \(No such file or directory\)"):
        bundle.obtain(gone, tmp_path)


def test_a_bundle_is_kept_and_a_damaged_one_made_again(tmp_path: Path) -> None:
    """Same sources: no compile. Another source, a cut file, one of another shape: a compile."""
    unit, cache = unit_of(tmp_path, PROGRAM), tmp_path / "new" / "cache"
    compiled = bundle.obtain(unit, cache)
    assert compiled.origin == "compiled"
    cached = bundle.Obtained(compiled.bundle, "cached")
    (entry,) = cache.iterdir()
    good = entry.read_bytes()
    written = entry.stat().st_mtime_ns
    assert bundle.obtain(unit, cache) == cached
    assert entry.stat().st_mtime_ns == written
    for damaged in (good[:-1], b"", b"\x80", b"\xff" * 100):
        entry.write_bytes(damaged)
        assert bundle.obtain(unit, cache) == compiled
        assert entry.read_bytes() == good
    unit.sources[0].write_text(PROGRAM.replace("1", "2"))
    assert bundle.obtain(unit, cache).bundle != compiled.bundle
    assert len(list(cache.iterdir())) == 2


def test_a_shipped_bundle_is_taken_while_its_sources_are_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever these lie. Another source, a program more, a damaged file: it isn't, and nothing is lost by that."""
    monkeypatch.setattr(bundle, "BUNDLES", tmp_path / "bundles")
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
    unit, moved = unit_of(tmp_path / "one", PROGRAM), unit_of(tmp_path / "other", PROGRAM)
    path = bundle.ship(unit)
    good = path.read_bytes()
    assert path.name == f"unit-{platform.machine()}.bundle"
    assert path.stat().st_mode & 0o777 == 0o644
    assert bundle.ship(moved).read_bytes() == good
    absent = tmp_path / "absent"
    shipped = bundle.obtain(moved, absent)
    assert shipped.origin == "shipped"
    assert not absent.exists()
    path.write_bytes(good[:-1])
    assert bundle.obtain(unit, tmp_path / "cache") == bundle.Obtained(shipped.bundle, "compiled")
    path.write_bytes(good)
    another = PROGRAM.replace("f(", "g(")
    moved.sources[0].write_text(PROGRAM + another)
    assert bundle.obtain(moved, tmp_path / "cache").origin == "compiled"
    unit.sources[0].write_text(PROGRAM)
    assert bundle.obtain(unit, absent).origin == "shipped"
    assert bundle.obtain(dataclasses.replace(unit, header=""), tmp_path / "cache").origin == "compiled"


def test_a_cache_that_cannot_be_written_costs_only_the_compile(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said."""
    (tmp_path / "file").touch()
    bundle.obtain(unit_of(tmp_path, PROGRAM), tmp_path / "file" / "cache")
    assert "the compiled bundle can't be kept in" in caplog.text


def test_a_folder_named_bcc_where_the_user_stands_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child doesn't look into the current folder."""
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").write_text("raise SystemExit('wrong')")
    monkeypatch.chdir(tmp_path)
    assert bundle.obtain(unit_of(tmp_path, PROGRAM), tmp_path).bundle.programs


def test_another_package_named_bcc_is_told_from_the_right_one(tmp_path: Path) -> None:
    """PyPI's bcc imports well and has no BPF."""
    wrong = tmp_path / "wrong"
    (wrong / "bcc").mkdir(parents=True)
    (wrong / "bcc" / "__init__.py").write_text("def bcc(data):\n    return sum(data) & 0xFF\n")
    said = said_by(sys.executable, tmp_path, PYTHONPATH=f"{wrong}:{Path(bundle.__file__).parents[2]}")
    assert f"{wrong}/bcc/__init__.py is not the BPF Compiler Collection but another package named bcc" in said
    assert "pip uninstall bcc" in said
    assert "apt install python3-bpfcc" in said


def test_a_missing_bcc_is_named_with_its_package(tmp_path: Path) -> None:
    """In a virtual environment that has everything else."""
    environment = tmp_path / "venv"
    venv.create(environment, symlinks=True, with_pip=False)
    (packages,) = environment.glob("lib/python*/site-packages")
    for present in Path(sysconfig.get_path("purelib")).iterdir():
        if present.name not in ("bcc", "__pycache__"):
            (packages / present.name).symlink_to(present)
    said = said_by(str(environment / "bin" / "python"), tmp_path)
    assert said.startswith(
        f"unit u has to be compiled, because this installation has no bundles/u-{platform.machine()}.bundle,"
        " but the Python package bcc is missing: install the distribution's"
    )
    assert "apt install python3-bpfcc" in said


def said_by(python: str, cache: Path, **environment: str) -> str:
    """What `compile_unit` says in another Python."""
    settings = [f"{name}={value}" for name, value in environment.items()]
    done = subprocess.run(
        ["env", *settings, python, "-c", COMPILE, cache],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
