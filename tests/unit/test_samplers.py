"""Samplers: their names and numbers, and the kernel's decision, which other SDKs make alike."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from pure_c import INCLUDE, compiled

from otel_goprobe.environment import Environment
from otel_goprobe.errors import UsageError
from otel_goprobe.sampling import Sampler, Sampling, sampling_from


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Give the functions of sampling.h."""
    library = compiled(
        tmp_path_factory.mktemp("sampling"),
        "trace.h",
        f'#include "{INCLUDE / "sampling.h"}"\n'
        "u32 below(u64 id_end, u64 bound) { return sampling_below(id_end, bound); }\n"
        "u32 decides(const struct trace_context *context, u64 parent, u32 parents, u64 bound)"
        "{ return sampling_decides(context, parent, parents, bound); }\n"
        "u32 late(u32 rules, u64 slow_ns, u64 duration_ns, u32 failed)"
        "{ return sampling_late(rules, slow_ns, duration_ns, failed); }\n"
        "u64 parse(struct traceparent_text *text, u64 length, struct trace_context *context)"
        "{ return traceparent_parse(text, length, context); }",
    )
    for function in (library.below, library.decides, library.late):
        function.restype = ctypes.c_uint32
    library.below.argtypes = (ctypes.c_uint64, ctypes.c_uint64)
    library.decides.argtypes = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64)
    library.late.argtypes = (ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32)
    return library


def below(kernel: ctypes.CDLL, trace_id: int, ratio: float) -> bool:
    """Ask the kernel's function about a trace id as it lies in memory."""
    return bool(kernel.below(int.from_bytes(trace_id.to_bytes(16, "big")[8:], "little"), Sampler(ratio).bound))


IDS = st.integers(1, 2**128 - 1)
RATIOS = st.sampled_from((0.0, 1.0, 0.5, 0.1, 0.25, 0.01, 1 / 3)) | st.floats(2**-10, 1)


@given(IDS, RATIOS)
def test_the_python_sdk_decides_the_same(kernel: ctypes.CDLL, trace_id: int, ratio: float) -> None:
    """For every id: below 2^-10 the two SDKs' roundings could differ by one id in 2^63."""
    python = TraceIdRatioBased(ratio)
    assert below(kernel, trace_id, ratio) == (trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < python.bound)


@given(RATIOS, st.integers(-2, 1), st.integers(0, 2**64 - 1))
def test_at_the_bound_itself(kernel: ctypes.CDLL, ratio: float, distance: int, first: int) -> None:
    """The ids around the bound fall on the side on which both SDKs have them."""
    end = TraceIdRatioBased(ratio).bound + distance
    if 0 <= end < 2**64:
        assert below(kernel, first << 64 | end, ratio) == (distance < 0)


@given(IDS, RATIOS)
def test_the_go_sdks_formula(kernel: ctypes.CDLL, trace_id: int, ratio: float) -> None:
    """As sdk/trace/sampling.go writes it: ``binary.BigEndian.Uint64(id[8:16]) >> 1 < uint64(fraction * (1 << 63))``."""
    assert below(kernel, trace_id, ratio) == (trace_id % 2**64 >> 1 < int(ratio * (1 << 63)))


@pytest.mark.parametrize("parent_sampled", [None, False, True])
@pytest.mark.parametrize("follows", [False, True])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_callers_decision(kernel: ctypes.CDLL, parent_sampled: bool | None, follows: bool, ratio: float) -> None:
    """It is followed by a sampler that is based on it, where there is a caller."""
    context = (ctypes.c_uint64 * 3)(1, 2, 1 if parent_sampled else 0)
    decided = kernel.decides(context, 0 if parent_sampled is None else 7, follows, Sampler(ratio).bound)
    expected = parent_sampled if follows and parent_sampled is not None else ratio
    assert decided == int(bool(expected))


@pytest.mark.parametrize(
    ("rules", "duration_ns", "failed", "kept"),
    [
        ("", 10**12, True, False),
        ("errors", 0, True, True),
        ("errors", 10**12, False, False),
        ("slower=500ms", 499_999_999, True, False),
        ("slower=500ms", 500_000_000, False, True),
        ("errors,slower=1.5s", 1, True, True),
        ("slower=1.5s , errors", 1_500_000_000, False, True),
        ("slower=2m", 119_999_999_999, False, False),
        ("slower=0ms", 0, False, True),
    ],
)
def test_late(kernel: ctypes.CDLL, rules: str, duration_ns: int, failed: bool, kept: bool) -> None:
    """--always-sample, read and applied."""
    sampling = sampling_from(Environment({}), (), rules)
    assert kernel.late(sampling.late_rules, sampling.late_slower_ns or 0, duration_ns, failed) == kept


@pytest.mark.parametrize(
    ("name", "argument", "sampler", "warnings"),
    [
        ("", "", Sampler(1.0), 0),
        ("always_on", "", Sampler(1.0, parent_based=False), 0),
        ("always_off", "", Sampler(0.0, parent_based=False), 0),
        ("traceidratio", "0.25", Sampler(0.25, parent_based=False), 0),
        ("parentbased_always_on", "0.5", Sampler(1.0), 0),
        ("parentbased_always_off", "", Sampler(0.0), 0),
        ("ParentBased_TraceIdRatio", " .1 ", Sampler(0.1), 0),
        ("parentbased_traceidratio", "", Sampler(1.0), 0),
        ("traceidratio", "1e-3", Sampler(0.001, parent_based=False), 0),
        ("traceidratio", "10%", Sampler(1.0, parent_based=False), 1),
        ("traceidratio", "1.5", Sampler(1.0, parent_based=False), 1),
        ("traceidratio", "-0.1", Sampler(1.0, parent_based=False), 1),
        ("traceidratio", "nan", Sampler(1.0, parent_based=False), 1),
        ("jaeger_remote", "x", Sampler(1.0), 1),
    ],
)
def test_variables(name: str, argument: str, sampler: Sampler, warnings: int) -> None:
    """All six samplers; what is wrong is warned about and counts as unset."""
    environment = Environment({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument})
    assert sampling_from(environment, (), "") == Sampling(sampler)
    assert len(environment.warnings) == warnings


def test_services_of_their_own() -> None:
    """A flag wins over the variable; a service has its own ratio, the others the general one."""
    environment = Environment({"OTEL_TRACES_SAMPLER": "always_off"})
    sampling = sampling_from(environment, ("0.5", "shop=0.1", "a=b=0"), "")
    assert sampling.of("shop") == Sampler(0.1)
    assert sampling.of("a=b") == Sampler(0.0)
    assert sampling.of("cart") == Sampler(0.5)
    assert sampling_from(environment, ("shop=1",), "").of("cart") == Sampler(0.0, parent_based=False)


@pytest.mark.parametrize("sample", ["", "shop", "shop=", "=0.5", "shop=2", "shop=-1", "0.1%"])
def test_a_wrong_ratio_ends_the_run(sample: str) -> None:
    """A flag isn't guessed at."""
    with pytest.raises(UsageError, match="--sample"):
        sampling_from(Environment({}), (sample,), "")


@pytest.mark.parametrize("rules", ["error", "slower", "slower=", "slower=500", "slower=-1s", "errors=1", "slower=1h"])
def test_a_wrong_rule_ends_the_run(rules: str) -> None:
    """So is a rule, and a duration without its unit."""
    with pytest.raises(UsageError, match="--always-sample"):
        sampling_from(Environment({}), (), rules)


def test_the_c_constants_are_pythons() -> None:
    """The bits of the rules stand in both languages."""
    text = (Path(INCLUDE) / "sampling.h").read_text()
    assert "#define SAMPLING_LATE_ERRORS 1" in text
    assert "#define SAMPLING_LATE_SLOW 2" in text
