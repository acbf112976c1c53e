"""What a user meets at the command line: one sentence and a remedy for each error, exit codes, quick help."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import click
import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from otel_goprobe import cli, log
from otel_goprobe.errors import NothingToInstrument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAM = (sys.executable, "-m", "otel_goprobe")
ORDINARY_USER = (
    *("setpriv", "--reuid=65534", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search"),
)
"""CAP_DAC_READ_SEARCH only lets it read this tree, wherever that is."""


def otel_goprobe(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program with no OTEL_* variables but these."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_") or "CACHE" in key}
    return subprocess.run(
        [*PROGRAM, *arguments], env=inherited | variables, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "nonsense"),
        (["run", "--nonsense"], "--nonsense"),
        (["run", "1234"], "'1234'"),
        (["run", "--pid", "x"], "--pid"),
        (["run", "--pid", "0"], "--pid"),
        (["run", "--port", "70000"], "--port"),
        (["run", "--sdk", "maybe"], "--sdk"),
        (["run", "--exporter", "zipkin"], "--exporter"),
        (["run", "--protocol", "http/json"], "--protocol"),
        (["run", "--ring-size", "5KiB"], "--ring-size"),
        (["run", "--ring-size", "2KiB"], "--ring-size"),
        (["run", "--ring-size", "big"], "--ring-size"),
        (["run", "--max-in-flight", "0"], "--max-in-flight"),
        (["run", "--log-level", "loud"], "--log-level"),
        (["run", "--endpoint", "collector:4318"], "--endpoint"),
        (["run", "--service", "a", "--service", "b"], "a, b"),
        (["run", "--all", "--pid", "1"], "--all"),
        (["run", "--pid", "1", "--", "true"], "--pid"),
        (["run", "--user", "root"], "--user"),
        (["run", "--"], "--"),
        (["run", "--", "/no/such/program", "--pid", "1"], "/no/such/program"),
        (["doctor", "--protocol", "x"], "--protocol"),
        (["list", "x"], "(x)"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and two lines on stderr: what is wrong, what to do."""
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith("error: ")
    assert said in first
    assert re.match(r"  \S", second)


@pytest.mark.parametrize("command", [(), ("run",), ("list",), ("doctor",)])
def test_help_is_quick(command: tuple[str, ...]) -> None:
    """Help needs none of the packages that take their time."""
    slow = "numpy", "opentelemetry", "psutil", "rich", "msgspec", "otel_goprobe.model"
    code = f"import sys; from otel_goprobe import cli; cli.main([*{command!r}, '--help']); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    *text, modules = shown.splitlines()
    assert text[0].startswith("Usage: otel-goprobe")
    assert not set(slow) & set(modules.split())


def test_every_option_is_explained() -> None:
    """Help texts are the documentation: no option without one, examples in every command."""
    context = click.Context(cli.program)
    for name in cli.program.list_commands(context):
        command = cli.program.get_command(context, name)
        assert command is not None
        assert "Examples" in (command.help or "")
        assert all(option.help for option in command.params if isinstance(option, click.Option))


def raising(error: BaseException) -> Callable[..., None]:
    """Make a subcommand that raises."""

    def callback() -> None:
        raise error

    return callback


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (NothingToInstrument("no such pid", "look again"), 3, ["error: no such pid", "  look again"]),
        (NothingToInstrument("first\nsecond"), 3, ["error: first", "  second"]),
        (NothingToInstrument("odd \x1b[31mname"), 3, ["error: odd \\x1b[31mname"]),
        (KeyboardInterrupt(), 130, []),
        (ZeroDivisionError("by zero"), 70, ["error: ZeroDivisionError: by zero (this is a bug in otel-goprobe)"]),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException,
    code: int,
    lines: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No traceback reaches a user who hasn't asked for one."""
    monkeypatch.delenv("OTEL_LOG_LEVEL", raising=False)
    monkeypatch.setattr(cli.program, "callback", raising(error))
    assert cli.main(["list"]) == code
    err = capsys.readouterr().err
    assert err.splitlines()[: len(lines)] == lines
    assert "Traceback" not in err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_LOG_LEVEL=debug is what the message of a bug asks for."""
    monkeypatch.setenv("OTEL_LOG_LEVEL", "debug")
    monkeypatch.setattr(cli.program, "callback", raising(ZeroDivisionError()))
    assert cli.main(["list"]) == cli.EXIT_BUG
    assert "Traceback" in capsys.readouterr().err


def test_broken_pipe_is_quiet() -> None:
    """A reader that has gone costs no message."""
    process = subprocess.Popen([*PROGRAM, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=30) == cli.EXIT_BROKEN_PIPE
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """An info line stands as it is, others say their level, control characters don't pass."""
    log.set_up("info")
    agent = log.LOGGER.getChild("agent")
    agent.info("attached pid=%d exe=%s", 7, "/a\x1b[2J")
    agent.warning("two\nlines")
    agent.debug("unseen")
    log.set_up("none")
    agent.error("unseen")
    assert capsys.readouterr().err.splitlines() == ["attached pid=7 exe=/a\\x1b[2J", "warning: two", "  lines"]


# --- list and doctor, for real


@pytest.fixture
def go_process(go_binary: Callable[..., Path]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a Go program that listens somewhere."""
    process = subprocess.Popen([go_binary("http_server", strip=True), "-listen", "127.0.0.1:0"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.root
def test_list(go_process: subprocess.Popen[bytes]) -> None:
    """A Go process is there with all that is known of it, whole in a pipe, and as JSON."""
    shown = otel_goprobe("list", COLUMNS="20")
    assert (shown.returncode, shown.stderr) == (0, "")
    header, *rows = shown.stdout.splitlines()
    assert header.split() == ["PID", "EXECUTABLE", "GO", "MODULE", "VERSION", "PORTS", "STRIPPED", "INSTRUMENTABLE"]
    row = next(row.split() for row in rows if row.startswith(f"{go_process.pid} "))
    described = json.loads(otel_goprobe("list", "--json").stdout)
    process = next(process for process in described if process["pid"] == go_process.pid)
    assert process["exe"] == str(Path(f"/proc/{go_process.pid}/exe").readlink()) == row[1]
    assert re.fullmatch(r"go1\.\d+(\.\d+)?", process["go_version"])
    assert [process["stripped"], process["instrumentable"], process["reason"]] == [True, True, ""]
    assert row[-3:] == [",".join(map(str, process["ports"])), "yes", "yes"]


@pytest.mark.root
def test_list_without_privileges() -> None:
    """What can't be seen is said."""
    command = [*ORDINARY_USER, *PROGRAM, "list"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert shown.returncode == 0
    assert shown.stdout == "no Go process in sight\n"
    assert shown.stderr.startswith("note: not root")


@contextmanager
def receiver(status: int, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Answer every POST with `status`, on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def diagnosis(*arguments: str, **variables: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Run `doctor --json` -> exit code and checks by name."""
    done = otel_goprobe("doctor", "--json", *arguments, **variables)
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["ok"] == (done.returncode == 0)
    for check in answer["checks"]:
        assert check["found"]
        assert check["state"] in {"ok", "warn", "fail"}
        assert bool(check["remedy"]) == (check["state"] != "ok")
    return done.returncode, {check["check"]: check for check in answer["checks"]}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a cache of our own, which the first doctor fills."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.mark.root
def test_doctor_finds_this_machine_fit(cache: str) -> None:
    """All is tried for real; an absent collector that nobody configured is a warning."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    code, checks = diagnosis(OTEL_GOPROBE_CACHE=cache)
    needed = {"user", "kernel", "python", "BPF maps", "BPF programs", "CAP_BPF", "CAP_PERFMON", "compiler", "programs"}
    assert list(checks)[-3:] == ["processes", "propagation", "collector"]
    assert all(checks[name]["state"] == "ok" for name in needed)
    assert (code, checks["collector"]["state"]) in {(0, "warn"), (0, "ok")}
    code, checks = diagnosis("--endpoint", f"http://127.0.0.1:{port}", OTEL_GOPROBE_CACHE=cache)
    assert (code, checks["collector"]["state"]) == (1, "fail")
    assert "refused" in checks["collector"]["found"]


@pytest.mark.root
@pytest.mark.parametrize(
    ("status", "state", "remedy"),
    [(200, "ok", ""), (401, "fail", "OTEL_EXPORTER_OTLP_HEADERS"), (404, "fail", "/v1/traces"), (500, "fail", "log")],
)
def test_doctor_reads_the_collectors_answer(status: int, state: str, remedy: str, cache: str) -> None:
    """Each answer has a remedy of its own."""
    with receiver(status) as address:
        code, checks = diagnosis("--endpoint", f"http://{address}", OTEL_GOPROBE_CACHE=cache)
    assert checks["collector"]["state"] == state
    assert remedy in checks["collector"]["remedy"]
    assert code == (state == "fail")


@pytest.mark.root
def test_doctor_tells_failures_of_the_connection_apart(cache: str, tmp_path: Path) -> None:
    """TLS with a stranger, TLS with nobody, silence, a name that isn't."""
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    request += ["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(request, cwd=tmp_path, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    found = {}
    with receiver(200, tls) as address:
        for name, certificate in (("stranger", ""), ("known", str(tmp_path / "cert.pem"))):
            _, checks = diagnosis(
                "--endpoint",
                f"https://{address}",
                OTEL_GOPROBE_CACHE=cache,
                OTEL_EXPORTER_OTLP_CERTIFICATE=certificate,
            )
            found[name] = checks["collector"]
    assert "TLS" in found["stranger"]["found"]
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in found["stranger"]["remedy"]
    assert found["known"]["state"] == "ok"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        _, checks = diagnosis(
            "--endpoint",
            f"http://127.0.0.1:{silent.getsockname()[1]}",
            OTEL_GOPROBE_CACHE=cache,
            OTEL_EXPORTER_OTLP_TIMEOUT="300",
        )
    assert "no answer in time" in checks["collector"]["found"]
    _, checks = diagnosis("--endpoint", "http://collector.invalid:4318", OTEL_GOPROBE_CACHE=cache)
    assert "name" in checks["collector"]["found"]


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    """A gRPC receiver that takes everything."""

    def Export(self, request: object, context: object) -> object:  # noqa: N802, ARG002 - the service's name and signature
        """Take it."""
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.mark.root
def test_doctor_over_grpc(cache: str) -> None:
    """The other protocol is really spoken: to a receiver, and to nobody once it has gone."""
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    arguments = "--protocol", "grpc", "--endpoint", f"http://127.0.0.1:{port}"
    code, checks = diagnosis(*arguments, OTEL_GOPROBE_CACHE=cache, OTEL_EXPORTER_OTLP_TIMEOUT="2000")
    assert (code, checks["collector"]["state"]) == (0, "ok")
    server.stop(None).wait()
    code, checks = diagnosis(*arguments, OTEL_GOPROBE_CACHE=cache, OTEL_EXPORTER_OTLP_TIMEOUT="2000")
    assert (code, checks["collector"]["state"]) == (1, "fail")
    assert "grpc" in checks["collector"]["found"]


@pytest.mark.root
def test_doctor_without_privileges(cache: str) -> None:
    """The missing capabilities are named, and nothing that follows from them is claimed."""
    command = [*ORDINARY_USER, *PROGRAM, "doctor", "--json"]
    environment = {**os.environ, "OTEL_GOPROBE_CACHE": cache}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=environment)
    checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    lacking = {name for name, check in checks.items() if check["state"] == "fail"}
    assert {"CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "BPF maps", "BPF programs"} <= lacking
    assert all(checks[name]["remedy"] for name in lacking)
    assert "programs" not in checks


def test_doctor_says_what_is_wrong_in_the_environment(cache: str) -> None:
    """What run would refuse, or ignore with a warning, is a line each."""
    refused = otel_goprobe("doctor", OTEL_GOPROBE_CACHE=cache, OTEL_EXPORTER_OTLP_ENDPOINT="collector:4318")
    assert refused.returncode == 1
    assert "fail  settings " in refused.stdout
    warned = otel_goprobe("doctor", OTEL_GOPROBE_CACHE=cache, OTEL_BSP_SCHEDULE_DELAY="soon", OTEL_SDK_DISABLED="true")
    assert re.search("^warn  settings +OTEL_BSP_SCHEDULE_DELAY=soon", warned.stdout, re.MULTILINE)
    assert re.search("^warn  settings +OTEL_SDK_DISABLED is set", warned.stdout, re.MULTILINE)


def test_interrupt(cache: str) -> None:
    """Ctrl-C ends a check that takes its time, with 130 and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        arguments = "doctor", "--endpoint", f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {**os.environ, "OTEL_GOPROBE_CACHE": cache}
        # As from a terminal, also where a shell has put the tests in the background and so ignores SIGINT.
        command = ["env", "--default-signal=INT", *PROGRAM, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (cli.EXIT_INTERRUPTED, b"")
