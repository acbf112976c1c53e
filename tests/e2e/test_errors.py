"""What a newcomer does wrong is told in a sentence with its remedy and an exit code, never by a traceback."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

import pytest
from goprograms import go_binary
from harness.agent import run
from harness.target import Target

pytestmark = pytest.mark.root

NOBODY = 65534
NO_EXPORT = {"OTEL_TRACES_EXPORTER": "none"}


def told(done: subprocess.CompletedProcess[str], code: int, *words: str) -> str:
    """Check an exit code and that stderr is a message with these words and a remedy; return it.

    Raises:
        AssertionError: something is different.
    """
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "bug in otel-goprobe" not in done.stderr
    assert "error: " in done.stderr
    for word in words:
        assert word in done.stderr
    message = done.stderr[done.stderr.index("error: ") :].splitlines()
    assert len(message) > 1, f"no remedy: {done.stderr}"
    return "\n".join(message)


def test_not_a_go_program() -> None:
    """A process that Go didn't build."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        told(run("run", "--pid", str(other.pid), environment=NO_EXPORT), 3, str(other.pid), "Go")
    finally:
        other.kill()
        other.wait()


def test_32_bit_program() -> None:
    """A Go program for 386, on a 64-bit kernel."""
    try:
        target = subprocess.Popen([go_binary("sleeper", goarch="386")])
    except OSError as error:
        pytest.skip(f"kernel lacks IA32_EMULATION: {error}")
    try:
        told(run("run", "--pid", str(target.pid), environment=NO_EXPORT), 3, "32-bit")
    finally:
        target.kill()
        target.wait()


def test_go_program_without_a_server() -> None:
    """A Go program that has no net/http in it."""
    exe = go_binary("sleeper")
    with subprocess.Popen([exe]) as target:
        try:
            told(run("run", "--pid", str(target.pid), environment=NO_EXPORT), 3, str(target.pid), "net/http")
        finally:
            target.kill()


def test_pid_that_is_gone() -> None:
    """A process that has ended."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    told(run("run", "--pid", str(gone.pid), environment=NO_EXPORT), 3, str(gone.pid))


def test_nothing_to_wait_for() -> None:
    """--no-wait and no process that matches."""
    told(run("run", "--exe", "/nowhere/*/shop", "--no-wait", environment=NO_EXPORT), 3)


def test_several_executables_and_no_selector() -> None:
    """They are listed, so that the user can choose."""
    with ExitStack() as stack:
        targets = [stack.enter_context(Target(go_binary("http_server", strip=strip))) for strip in (False, True)]
        message = told(run("run", environment=NO_EXPORT), 2)
        for target in targets:
            assert str(target.pid) in message


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--exporter", "zipkin"], "zipkin"),
        (["--protocol", "smoke"], "smoke"),
        (["--sdk", "maybe"], "maybe"),
        (["--pid", "one"], "one"),
        (["--port", "70000"], "70000"),
        (["--ring-size", "5000"], "5000"),
        (["--max-in-flight", "0"], "0"),
        (["--service", "cart=name:x"], "name:x"),
        (["--colour"], "--colour"),
        (["shop"], "shop"),
    ],
)
def test_values_that_are_unknown(arguments: list[str], word: str) -> None:
    """The flag and its value are named."""
    told(run("run", *arguments), 2, word)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost;4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:port/v1/traces"),
    ],
)
def test_endpoint_that_is_malformed(variable: str, value: str) -> None:
    """The variable and its value are named."""
    told(run("run", "--no-wait", "--exe", "/nowhere", environment={variable: value}), 2, variable, value)


@pytest.mark.parametrize("variable", ["OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_PROTOCOL"])
def test_unknown_words_in_variables_are_warned_of(variable: str) -> None:
    """OpenTelemetry's specification wants unknown enumeration values ignored, with a warning."""
    done = run("run", "--no-wait", "--exe", "/nowhere", environment={variable: "smoke"})
    assert done.returncode == 3
    assert f"warning: {variable}=smoke" in done.stderr


def test_not_root() -> None:
    """An ordinary user; CAP_DAC_READ_SEARCH only lets it read this tree, wherever that is."""
    prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    prefix += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search"]
    with Target(go_binary("http_server")) as target:
        done = run("run", "--pid", str(target.pid), environment={**NO_EXPORT, "HOME": "/nonexistent"}, prefix=prefix)
    message = told(done, 1, "root")
    assert "CAP_BPF" in message
