"""Variables end up in the `Config` as the OpenTelemetry specification says."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_goprobe import config
from otel_goprobe.config import Config, Flags
from otel_goprobe.environment import parse_headers, parse_pairs, parse_size
from otel_goprobe.errors import UsageError

PREFIX = "OTEL_EXPORTER_OTLP_"


def read(flags: Flags | None = None, /, **variables: str) -> Config:
    """Make a Config with no other variables than these."""
    return config.from_environment_and_flags(flags or Flags(), variables)


def refusal(flags: Flags | None = None, /, **variables: str) -> UsageError:
    """Return the error that these flags and variables meet; its remedy is never empty."""
    with pytest.raises(UsageError) as caught:
        read(flags, **variables)
    assert caught.value.remedy
    assert caught.value.exit_code == 2
    return caught.value


# --- endpoint


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, "http://localhost:4318/v1/traces"),
        ({"ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces"),
        ({"ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        ({"ENDPOINT": "https://c/otlp/"}, "https://c/otlp/v1/traces"),
        ({"ENDPOINT": "http://c:4318?key=1"}, "http://c:4318/v1/traces?key=1"),
        ({"ENDPOINT": "http://[::1]:4318"}, "http://[::1]:4318/v1/traces"),
        ({"ENDPOINT": "   "}, "http://localhost:4318/v1/traces"),
        ({"TRACES_ENDPOINT": "http://t:4318"}, "http://t:4318"),
        ({"TRACES_ENDPOINT": "http://t:4318/x"}, "http://t:4318/x"),
        ({"TRACES_ENDPOINT": "http://t:1/x", "ENDPOINT": "http://c:4318"}, "http://t:1/x"),
        ({"TRACES_ENDPOINT": "", "ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces"),
        ({"PROTOCOL": "grpc"}, "http://localhost:4317"),
        ({"PROTOCOL": "GRPC", "ENDPOINT": "https://c:9/ignored"}, "https://c:9"),
        ({"PROTOCOL": "grpc", "ENDPOINT": "c:4317"}, "https://c:4317"),
        ({"PROTOCOL": "grpc", "ENDPOINT": "c:4317", "INSECURE": "true"}, "http://c:4317"),
        ({"PROTOCOL": "grpc", "ENDPOINT": "c:4317", "INSECURE": "true", "TRACES_INSECURE": "false"}, "https://c:4317"),
        ({"PROTOCOL": "grpc", "ENDPOINT": "http://c"}, "http://c:4317"),
        ({"PROTOCOL": "grpc", "TRACES_PROTOCOL": "http/protobuf"}, "http://localhost:4318/v1/traces"),
    ],
)
def test_endpoint_of_the_environment(variables: dict[str, str], endpoint: str) -> None:
    """The base endpoint gets a path, the signal's own is used as it is, gRPC has none."""
    otlp = read(**{PREFIX + name: value for name, value in variables.items()}).otlp
    assert otlp.endpoint == endpoint
    assert otlp.insecure == endpoint.startswith("http://")
    assert otlp.configured == any(value.strip() for name, value in variables.items() if "ENDPOINT" in name)


@pytest.mark.parametrize(
    ("endpoint", "protocol", "expected"),
    [
        ("http://f:1", None, "http://f:1/v1/traces"),
        ("http://f:1/", None, "http://f:1/v1/traces"),
        ("http://f:1/v1/traces", None, "http://f:1/v1/traces"),
        ("http://f:1/mine", None, "http://f:1/mine"),
        ("http://f:1", "grpc", "http://f:1"),
    ],
)
def test_endpoint_of_the_flag_wins(endpoint: str, protocol: config.Protocol | None, expected: str) -> None:
    """--endpoint beats both variables, and gets a path only where it has none."""
    variables = {PREFIX + "TRACES_ENDPOINT": "http://t:2", PREFIX + "ENDPOINT": "http://c:3"}
    assert read(Flags(endpoint=endpoint, protocol=protocol), **variables).otlp.endpoint == expected


@pytest.mark.parametrize("name", ["ENDPOINT", "TRACES_ENDPOINT"])
@pytest.mark.parametrize(
    "value",
    [
        "collector",
        "collector:4318",
        "//c:1",
        "ftp://c:1",
        "http://",
        "http://:4318",
        "http://[::1",
        "http://c d:1",
        "http://c\t:1",
        "http://c:0",
        "http://c:99999",
        "http://c:port",
    ],
)
def test_malformed_endpoint_names_its_variable(name: str, value: str) -> None:
    """Spans are never sent to a guess."""
    error = refusal(**{PREFIX + name: value})
    assert error.message.startswith(PREFIX + name)
    assert repr(value) in error.message
    assert refusal(Flags(endpoint=value)).message.startswith("--endpoint")


# --- headers and attributes

TEXT = st.text(min_size=1).filter(str.strip)


@given(st.dictionaries(TEXT, st.text(), min_size=1))
def test_pairs_survive_encoding(pairs: dict[str, str]) -> None:
    """Whatever is percent-encoded comes back as it was."""
    encoded = ", ".join(f"{quote(key, safe='')} = {quote(value, safe='')}" for key, value in pairs.items())
    assert dict(parse_pairs(encoded)) == pairs


@given(st.text())
def test_pairs_of_any_text(text: str) -> None:
    """Any text is pairs or a ValueError, and never quoted in it."""
    try:
        pairs = parse_pairs(text)
    except ValueError as error:
        refused = str(error)
        assert refused.startswith("member ")
    else:
        assert all(key for key, _ in pairs)


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_headers_of_any_text(text: str) -> None:
    """Any text is headers that HTTP can carry or an error."""
    try:
        headers = parse_headers(text, "X")
    except UsageError as error:
        refused = error.message
        assert refused.startswith("X: ")
    else:
        for name, value in headers:
            assert name == name.lower()
            assert value.isascii()
            assert not {"\r", "\n", "\0"} & set(name + value)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("a=1", [("a", "1")]),
        (" a = 1 , b = 2 ,, ", [("a", "1"), ("b", "2")]),
        ("a=x%2Cy%3Dz%20%25", [("a", "x,y=z %")]),
        ("a=dG9r=ZW4==", [("a", "dG9r=ZW4==")]),
        ("a=1,a=2", [("a", "2")]),
        ("a=", [("a", "")]),
        ("a=%ff", [("a", "\ufffd")]),
        ("a=100%", [("a", "100%")]),
        ("", []),
    ],
)
def test_pairs(text: str, pairs: list[tuple[str, str]]) -> None:
    """W3C Baggage, without its properties."""
    assert list(parse_pairs(text)) == pairs


def test_headers_of_the_signal_win() -> None:
    """Not merged: the specification knows one value for one option."""
    both = read(**{PREFIX + "HEADERS": "a=1", PREFIX + "TRACES_HEADERS": "Authorization=Bearer%20x"})
    assert both.otlp.headers == (("authorization", "Bearer x"),)
    assert "Bearer" not in repr(both)


@pytest.mark.parametrize(
    "value", ["s3cret", "a=1,s3cret", "b\u00e4d=s3cret", "a=s3cret%0d%0aX: 1", "a=s3cret\u20ac", "=s3cret"]
)
def test_malformed_headers_keep_their_secret(value: str) -> None:
    """The variable is named, and the header where it can be; its value never."""
    error = refusal(**{PREFIX + "HEADERS": value})
    assert error.message.startswith(PREFIX + "HEADERS")
    assert "s3cret" not in str(error)


# --- the other variables


def test_defaults() -> None:
    """Without anything: http/protobuf to localhost, at info, waiting."""
    plain = read()
    assert (plain.exporter, plain.otlp.protocol, plain.otlp.timeout_s) == ("otlp", "http/protobuf", 10.0)
    assert (plain.log_level, plain.wait, plain.disabled, plain.warnings) == ("info", True, False, ())
    assert plain.batch == config.BatchConfig()
    assert (plain.user, plain.launch_environment) == ("", {})


def test_all_variables() -> None:
    """Each variable reaches its field, in the field's unit."""
    everything = read(
        OTEL_TRACES_EXPORTER="console",
        OTEL_SERVICE_NAME=" shop ",
        OTEL_RESOURCE_ATTRIBUTES="team=a%20b,zone=1",
        OTEL_SDK_DISABLED="TRUE",
        OTEL_LOG_LEVEL="DEBUG",
        OTEL_BSP_SCHEDULE_DELAY="0",
        OTEL_BSP_MAX_QUEUE_SIZE="100",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="200",
        OTEL_BSP_EXPORT_TIMEOUT="1500",
        OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT="64",
        OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="32",
        OTEL_EXPORTER_OTLP_TIMEOUT="250",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_EXPORTER_OTLP_TRACES_COMPRESSION="none",
    )
    assert (everything.exporter, everything.service_name) == ("console", "shop")
    assert everything.resource == (("team", "a b"), ("zone", "1"))
    assert (everything.disabled, everything.log_level) == (True, "debug")
    assert everything.batch == config.BatchConfig(
        max_batch_spans=100, schedule_delay_s=0, export_timeout_s=1.5, max_queue_spans=100
    )
    assert everything.attribute_value_length_limit == 64
    assert (everything.otlp.timeout_s, everything.otlp.compression) == (0.25, "none")
    assert everything.warnings == ()


@pytest.mark.parametrize(
    ("value", "followed", "warnings"),
    [
        ("", True, 0),
        ("tracecontext", True, 0),
        ("baggage, TraceContext ,xray", True, 1),
        ("b3,jaeger", False, 1),
        ("baggage", False, 0),
        ("none", False, 0),
    ],
)
def test_propagators(value: str, followed: bool, warnings: int) -> None:
    """W3C's is the default; what isn't known is warned about by name."""
    read_config = read(OTEL_PROPAGATORS=value)
    assert (read_config.tracecontext, len(read_config.warnings)) == (followed, warnings)


def test_propagators_of_b3() -> None:
    """As the SDKs spell them; each form for itself."""
    both = read(OTEL_PROPAGATORS="tracecontext,b3,b3multi")
    assert (both.tracecontext, both.b3, both.b3multi, both.follows_b3, both.warnings) == (True, True, True, True, ())
    single = read(OTEL_PROPAGATORS="b3")
    assert (single.tracecontext, single.b3, single.b3multi, single.follows_b3) == (False, True, False, True)
    assert not read().follows_b3
    assert not read(OTEL_PROPAGATORS="b3,none").follows_b3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_SDK_DISABLED", "1"),
        ("OTEL_LOG_LEVEL", "loud"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "-1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "\u0661"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1e3"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "0x10"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "many"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b"),
    ],
)
def test_wrong_value_is_warned_about_and_ignored(name: str, value: str) -> None:
    """Everything is as if the variable weren't set, but for the warning that names it."""
    warned = read(**{name: value})
    assert len(warned.warnings) == 1
    assert warned.warnings[0].startswith(name)
    unset = read()
    fields = ("exporter", "otlp", "batch", "resource", "log_level", "disabled", "attribute_value_length_limit")
    assert [getattr(warned, field) for field in fields] == [getattr(unset, field) for field in fields]


@pytest.mark.parametrize("option", ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"])
def test_certificate_files(option: str, tmp_path: Path) -> None:
    """A file that can't be read ends the run before it begins; a key needs its certificate."""
    absent = str(tmp_path / "absent.pem")
    assert refusal(**{PREFIX + "TRACES_" + option: absent}).message.startswith(f"{PREFIX}TRACES_{option}: {absent}")
    present = tmp_path / "present.pem"
    present.touch()
    if option == "CLIENT_KEY":
        assert refusal(**{PREFIX + option: str(present)}).message.startswith(PREFIX + option)
    else:
        assert getattr(read(**{PREFIX + option: str(present)}).otlp, option.lower()) == str(present)


# --- the cache


def test_cache_folder_that_is_named() -> None:
    """OTEL_GOPROBE_CACHE is taken at its word."""
    assert read(OTEL_GOPROBE_CACHE="/x/y").cache_dir == Path("/x/y")


@pytest.mark.root
def test_root_keeps_nothing_where_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled programs are loaded into the kernel: a folder of another user's is passed over."""
    monkeypatch.setattr(config, "SYSTEM_CACHE", tmp_path / "foreign-system" / "otel-goprobe")
    for folder in ("foreign-system", "foreign", "own"):
        (tmp_path / folder).mkdir(mode=0o755)
    os.chown(tmp_path / "foreign-system", 65534, 65534)
    os.chown(tmp_path / "foreign", 65534, 65534)
    own = tmp_path / "own"
    assert config.cache_dir({"HOME": str(own)}) == own / ".cache" / "otel-goprobe"
    assert (
        config.cache_dir({"HOME": str(own), "XDG_CACHE_HOME": str(tmp_path / "foreign")})
        == own / ".cache" / "otel-goprobe"
    )
    own.chmod(0o777)
    assert own not in config.cache_dir({"HOME": str(own)}).parents


# --- sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("4MiB", 4 << 20), ("4M", 4 << 20), ("512 kib", 512 << 10), ("1G", 1 << 30), (" 8K ", 8192)],
)
def test_sizes(text: str, size: int) -> None:
    """Suffixes count in powers of 1024."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "4.5M", "4MB", "4T", "0x10", "\u0664"])
def test_no_sizes(text: str) -> None:
    """What could mean two things, or nothing, is refused."""
    with pytest.raises(ValueError, match="no size"):
        parse_size(text)
