"""Verifier, maps and their sizes, sharing, and programs that can't sleep."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import Launch, plan_of

from otel_goprobe import kernel, model
from otel_goprobe.errors import CompilerError, KernelError, MapFullError
from otel_goprobe.kernel import bundle, syscalls
from otel_goprobe.kernel.maps import EXIST, NO_EXIST
from otel_goprobe.probes import registry

pytestmark = pytest.mark.root


def one_file(folder: Path, code: str, *programs: str) -> model.Unit:
    """Make a unit of one source."""
    source = folder / "one.bpf.c"
    source.write_text(code)
    return model.Unit("one", "", (source,), tuple(model.UnitProgram(name) for name in programs), ())


@pytest.mark.parametrize("sleepable", [True, False])
@pytest.mark.parametrize("way", ["uprobe_multi", "perf_event"])
def test_the_agents_own_unit_passes_the_verifier(way: kernel.AttachWay, sleepable: bool, cache_dir: Path) -> None:
    """Every program, for both ways to attach, sleepable and not; prints what the verifier walked.

    Those that write to memory only where the kernel loads such.
    """
    unit = registry.unit(kernel.bpf_folder())
    try:
        kernel.require_writing()
        names = {entry.name for entry in unit.programs}
    except KernelError:
        names = {entry.name for entry in unit.programs if not entry.writes}
    with kernel.load(unit, cache_dir=cache_dir, way=way, lazily=True) as program:
        program.verifier.sleepable = sleepable
        program.require(names)
        assert program.sleepable == sleepable
        assert program.attach_way == way
        walked = program.verified_instructions
    print(way, "sleepable" if sleepable else "not sleepable", walked)
    assert set(walked) == names
    assert all(walked.values())


def test_a_unit_that_cannot_sleep_is_loaded_otherwise(
    tmp_path: Path, cache_dir: Path, launch: Launch, work_site: model.Site
) -> None:
    """A stack trace map is not for sleepable programs: bpf_copy_from_user is replaced, and still reads."""
    unit = one_file(
        tmp_path,
        """BPF_STACK_TRACE(stacks, 16);
        BPF_ARRAY(seen, u64, 1);
        int f(struct pt_regs *ctx)
        {
            u32 zero = 0;
            u64 code = 0;
            stacks.get_stackid(ctx, BPF_F_USER_STACK);
            if (bpf_copy_from_user(&code, sizeof(code), (void *)ctx->ip))
                return 0;
            seen.update(&zero, &code);
            return 0;
        }""",
        "f",
    )
    process = launch()
    with kernel.load(unit, cache_dir=cache_dir) as program:
        assert not program.sleepable
        exe_path = f"/proc/{process.pid}/exe"
        with kernel.attach(program, plan_of(work_site, "f"), pid=process.pid, exe_path=exe_path, slot=0):
            process.do("main 1")
        value = program.maps["seen"].lookup(bytes(4))
    assert value is not None
    assert value[0] == 0xCC


def test_a_rejected_program_shows_the_end_of_the_verifiers_log(
    tmp_path: Path, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last lines in the error, all of it at debug."""
    unit = one_file(tmp_path, "int f(struct pt_regs *ctx) { return *(int *)(ctx->ip); }", "f")
    with caplog.at_level("DEBUG", "otel_goprobe"), pytest.raises(KernelError) as caught:
        kernel.load(unit, cache_dir=cache_dir)
    assert isinstance(caught.value, syscalls.ProgramRejectedError)
    assert "the kernel rejected the BPF program f" in str(caught.value)
    assert "invalid mem access 'scalar'" in str(caught.value)
    assert "invalid mem access 'scalar'" in caught.value.log
    assert "verifier on f" in caplog.text


def test_programs_are_loaded_when_a_plan_names_them(
    tmp_path: Path, cache_dir: Path, launch: Launch, work_site: model.Site
) -> None:
    """Each once; one that the verifier refuses costs only the plans that name it, and nothing of it stays open."""
    good = "int {}(struct pt_regs *ctx) {{ return ctx->ip & 1; }}\n"
    code = good.format("f") + good.format("g") + "int bad(struct pt_regs *ctx) { return *(int *)(ctx->ip); }\n"
    unit = one_file(tmp_path, code, "f", "g", "bad")
    process = launch()
    exe_path = f"/proc/{process.pid}/exe"
    with kernel.load(unit, cache_dir=cache_dir, lazily=True) as program:
        assert program.descriptors == {}
        before = open_programs()
        with pytest.raises(KernelError, match="rejected the BPF program bad"):
            kernel.attach(program, plan_of(work_site, "g", "bad"), pid=process.pid, exe_path=exe_path, slot=0)
        assert (program.descriptors, program.sleepable, open_programs()) == ({}, True, before)
        with kernel.attach(program, plan_of(work_site, "f"), pid=process.pid, exe_path=exe_path, slot=0):
            loaded = dict(program.descriptors)
            assert (loaded.keys(), open_programs()) == ({"f"}, before + 1)
        program.require(["f", "g"])
        assert (program.descriptors.keys(), program.descriptors["f"]) == ({"f", "g"}, loaded["f"])
        assert program.verified_instructions.keys() == {"f", "g"}


def test_programs_that_began_before_their_unit_was_known(tmp_path: Path, cache_dir: Path) -> None:
    """They are taken over by a unit of the same sources, with their maps; by another one let go of."""
    code = "BPF_ARRAY(seen, u64, 3);\nBPF_ARRAY(unseen, u64, 3);\n"
    code += "int f(struct pt_regs *ctx) {{ u32 row = ctx->ip & {}; seen.increment(row); unseen.increment(row);"
    code += " return 0; }}\n"
    code += "int g(struct pt_regs *ctx) {{ u32 row = ctx->ip & 1; seen.increment(row); return 0; }}\n"
    unit = one_file(tmp_path, code.format(1), "f", "g")
    compiled = bundle.obtain(unit, tmp_path).bundle
    kept = bundle.kept(unit.name, tmp_path)
    assert kept == bundle.Kept(bundle.sources_digest(unit), compiled)
    before = open_programs()
    begun = kernel.begin(kept, ["g"], sizes={"seen": 5})
    with kernel.load(unit, cache_dir=cache_dir, sizes={"seen": 5}, lazily=True, begun=begun) as program:
        program.require(["g"])
        assert program.verifier is begun.verifier
        seen = program.maps.made("seen")
        assert seen is not None
        assert (seen.spec.max_entries, program.maps.made("unseen"), open_programs()) == (5, None, before + 1)
        program.require(["f"])
        assert program.maps.made("unseen") is not None
    assert open_programs() == before
    begun = kernel.begin(kept, ["g"], sizes={})
    other = one_file(tmp_path, code.format(2), "f", "g")
    with kernel.load(other, cache_dir=cache_dir, begun=begun) as program:
        assert program.verifier is not begun.verifier
        assert open_programs() == before + 2
    begun.close()
    assert open_programs() == before


def open_programs() -> int:
    """How many descriptors of BPF programs this process holds."""
    links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if os.path.lexists(path)]
    return links.count(Path("anon_inode:bpf-prog"))


def test_maps_take_sizes_and_are_shared(hits_unit: model.Unit, cache_dir: Path) -> None:
    """A size replaces the one of the C source; a map that is given isn't made again, nor closed."""
    with kernel.load(hits_unit, cache_dir=cache_dir, sizes={"in_flight": 5}) as first:
        second = kernel.load(hits_unit, cache_dir=cache_dir, maps={"in_flight": first.maps["in_flight"]})
        in_flight = second.maps["in_flight"]
        for key in range(5):
            in_flight.update(key.to_bytes(8, "little"), bytes(8), NO_EXIST)
        with pytest.raises(MapFullError):
            in_flight.update((5).to_bytes(8, "little"), bytes(8))
        with pytest.raises(KernelError):
            in_flight.update((4).to_bytes(8, "little"), bytes(8), NO_EXIST)
        in_flight.update((4).to_bytes(8, "little"), b"\x01" * 8, EXIST)
        second.close()
        second.close()
        in_flight = first.maps["in_flight"]
        assert sorted(map(bytes.hex, in_flight.keys())) == [f"{key:02x}" + 14 * "0" for key in range(5)]
        assert in_flight.lookup((4).to_bytes(8, "little")) == b"\x01" * 8
        assert in_flight.delete((4).to_bytes(8, "little"))
        assert not in_flight.delete((4).to_bytes(8, "little"))
        assert in_flight.lookup((4).to_bytes(8, "little")) is None


def test_wrong_arguments_are_refused(hits_unit: model.Unit, cache_dir: Path) -> None:
    """Sizes, keys and values that would be read or written beyond their ends; unknown names."""
    with pytest.raises(ValueError, match="has no map inflight"):
        kernel.load(hits_unit, cache_dir=cache_dir, sizes={"inflight": 5})
    with pytest.raises(KernelError, match="creating the BPF map ring_256 of 5000 entries failed"):
        kernel.load(hits_unit, cache_dir=cache_dir, sizes={"ring_256": 5000})
    with kernel.load(hits_unit, cache_dir=cache_dir) as program:
        with pytest.raises(ValueError, match="keys of 8 bytes, not 4"):
            program.maps["in_flight"].lookup(bytes(4))
        with pytest.raises(ValueError, match="values of 8 bytes, not 4"):
            program.maps["in_flight"].update(bytes(8), bytes(4))
        with pytest.raises(ValueError, match="no per-CPU array of u64"):
            program.maps["in_flight"].sums()
        with pytest.raises(CompilerError, match="no layout of struct nothing"):
            program.dtype("nothing")


def test_rows_of_a_per_cpu_array_are_summed_where_asked(hits_unit: model.Unit, cache_dir: Path) -> None:
    """From any row on, any number, in one call."""
    with kernel.load(hits_unit, cache_dir=cache_dir) as program:
        counters = program.maps["counters"]
        for row in range(256):
            cpus = counters.value_bytes // 8
            counters.update(kernel.u32(row), b"".join((row + cpu).to_bytes(8, "little") for cpu in range(cpus)))
        expected = [row * cpus + cpus * (cpus - 1) // 2 for row in range(256)]
        assert counters.sums().tolist() == expected
        assert counters.sums(255, 1).tolist() == expected[255:]
        assert counters.sums(17, 23).tolist() == expected[17:40]
        assert counters.sums(256).tolist() == []
