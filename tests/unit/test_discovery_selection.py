"""Which Go processes are chosen, which are left alone, and what a service is called."""

from __future__ import annotations

import pytest

from otel_goprobe.config import Config, OtlpConfig, Selection, Selector, SelectorKind, ServiceRule
from otel_goprobe.discovery.components import component_of, components, trace_exporter_of
from otel_goprobe.discovery.resource import resource_attributes, service_version
from otel_goprobe.discovery.selection import judge, matches, only_executable, program_name
from otel_goprobe.errors import UsageError
from otel_goprobe.model import BuildInfo, GoProcess, Module

SDK = (
    Module("go.opentelemetry.io/otel/sdk", "v1.38.0"),
    Module("go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc", "v1.38.0"),
)


def build(
    path: str = "example.com/cart", *dependencies: Module, version: str = "(devel)", **settings: str
) -> BuildInfo:
    """Make the build info of a program whose module is its main package."""
    return BuildInfo("go1.26.8", path, Module(path, version), dependencies, settings)


def process(
    pid: int = 10,
    exe: str = "/srv/a/cart",
    build_info: BuildInfo | None = None,
    *,
    ports: tuple[int, ...] = (),
    unsupported: str = "",
    **environment: str,
) -> GoProcess:
    """Make a process that isn't really there."""
    return GoProcess(
        pid=pid,
        start_ticks=100,
        exe=exe,
        device=1,
        inode=2,
        build=build_info or build(),
        stripped=False,
        ports=ports,
        unsupported=unsupported,
        environment=environment,
    )


def rule(service: str = "", **selectors: str) -> ServiceRule:
    """Make a rule of one selector of each kind that is given."""
    kinds: tuple[SelectorKind, ...] = ("pid", "exe", "port")
    return ServiceRule(tuple(Selector(kind, selectors[kind]) for kind in kinds if kind in selectors), service)


def config(
    *rules: ServiceRule, resource: tuple[tuple[str, str], ...] = (), service_name: str = "", every: bool = False
) -> Config:
    """Make a configuration with the agent's own environment in it."""
    selection = Selection(rules, every=every)
    return Config(
        selection, OtlpConfig("http://localhost:4318/v1/traces"), resource=resource, service_name=service_name
    )


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("pid", "10", True),
        ("pid", "1", False),
        ("port", "8080", True),
        ("port", "80", False),
        ("exe", "/srv/a/cart", True),
        ("exe", "*/cart", True),
        ("exe", "/srv/*/cart", True),
        ("exe", "cart", True),
        ("exe", "c?rt", True),
        ("exe", "/srv/*/car", False),
        ("exe", "/SRV/a/cart", False),
        ("exe", "a/cart", False),
    ],
)
def test_selectors(kind: SelectorKind, value: str, expected: bool) -> None:
    """Globs are for the whole path, or for the name where they hold no slash; case counts."""
    assert matches(process(ports=(443, 8080)), Selector(kind, value)) is expected


def test_first_rule_counts_and_its_selectors_are_anded() -> None:
    """Two selectors of one rule have both to hold; of two rules that match the first names the service."""
    selection = Selection((rule("a", exe="*/cart", port="80"), rule("b", exe="*/cart"), rule("c", pid="10")))
    with_port = judge(process(ports=(80,)), selection)
    without = judge(process(), selection)
    assert (with_port and with_port.service, without and without.service) == ("a", "b")
    assert judge(process(exe="/other", pid=11), selection) is None


def test_service_flag_names_what_rules_do_not() -> None:
    """`--service NAME` beside a selector is for every rule without a name of its own."""
    selection = Selection((rule("a", pid="1"), rule(pid="10")), service="shop")
    verdict = judge(process(), selection)
    assert verdict is not None
    assert verdict.service == "shop"
    assert verdict.named
    assert verdict.taken


COLLECTOR = build("example.com/our/agent", Module("go.opentelemetry.io/collector/otelcol", "v0.140.0"))
CARRIER = build("example.com/cart", *SDK)


@pytest.mark.parametrize(
    ("rules", "receiver", "component", "carrier"),
    [
        # Whether each is traced, when selected so.
        ((rule(pid="10"),), True, True, True),
        ((rule(port="80"),), True, True, False),
        ((rule(exe="/srv/*/cart"),), True, True, False),
        ((rule(exe="/srv/*"),), False, False, False),
        ((rule(exe="/srv/*", pid="10"),), True, True, True),
        ((), False, False, False),
    ],
)
def test_what_naming_overrides(rules: tuple[ServiceRule, ...], receiver: bool, component: bool, carrier: bool) -> None:
    """The table in selection.py's docstring."""
    selection = Selection(rules, every=not rules)
    verdicts = (
        judge(process(ports=(80,)), selection, receiver=True),
        judge(process(build_info=COLLECTOR, ports=(80,)), selection),
        judge(process(build_info=CARRIER, ports=(80,)), selection),
    )
    assert [verdict is not None and verdict.taken for verdict in verdicts] == [receiver, component, carrier]
    assert all(verdict and (verdict.taken or verdict.remedy) for verdict in verdicts)


def test_sdk_trace() -> None:
    """`--sdk trace` instruments programs that export spans themselves."""
    verdict = judge(process(build_info=CARRIER), Selection(every=True, sdk="trace"))
    assert verdict is not None
    assert verdict.taken


def test_command_is_named() -> None:
    """The command after `--` is chosen whatever it carries and whatever the rules say."""
    verdict = judge(process(build_info=CARRIER), Selection((rule("x", port="1"),), service="shop"), command=True)
    assert verdict is not None
    assert (verdict.taken, verdict.named, verdict.service) == (True, True, "shop")


def test_unsupported_is_left_alone_even_if_named() -> None:
    """What can't be instrumented isn't, and its own reason is what is said."""
    verdict = judge(process(unsupported="/srv/a/cart is a 32-bit executable"), Selection((rule(pid="10"),)))
    assert verdict is not None
    assert verdict.left_alone == "/srv/a/cart is a 32-bit executable"


@pytest.mark.parametrize(
    ("path", "main", "expected"),
    [
        ("go.opentelemetry.io/collector/cmd/builder", "", "the OpenTelemetry Collector"),
        (
            "github.com/jaegertracing/jaeger/cmd/jaeger",
            "github.com/jaegertracing/jaeger",
            "a telemetry backend or agent",
        ),
        ("github.com/jaegertracing/jaeger/examples/hotrod", "github.com/jaegertracing/jaeger", ""),
        (
            "github.com/prometheus/prometheus/cmd/prometheus",
            "github.com/prometheus/prometheus",
            "a telemetry backend or agent",
        ),
        ("command-line-arguments", "github.com/grafana/loki/v3", "a telemetry backend or agent"),
        (
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2",
            "part of a container runtime",
        ),
        ("github.com/docker/docker/cmd/docker-proxy", "", "part of a container runtime"),
        ("k8s.io/kubernetes/cmd/kubelet", "k8s.io/kubernetes", "part of the cluster"),
        ("cmd/go", "", "a tool of Go developers"),
        ("github.com/prometheusfriends/app", "github.com/prometheusfriends/app", ""),
        ("example.com/cmd/cart", "example.com", ""),
        ("example.com/jaeger", "example.com/jaeger", ""),
    ],
)
def test_components(path: str, main: str, expected: str) -> None:
    """Components are told by import paths; a path is not a prefix of a longer word."""
    assert component_of(BuildInfo("go1.26.8", path, Module(main, "v1.0.0") if main else None)) == expected


def test_component_paths_are_well_formed() -> None:
    """No path of the data file ends in a slash or comes twice."""
    paths = [path for component in components().known for path in component.paths]
    assert len(paths) == len(set(paths))
    assert not any(path.endswith("/") or path.startswith("/") for path in paths)


def test_only_exporters_of_traces_count() -> None:
    """A program that exports metrics alone, or carries the API alone, loses nothing by being traced."""
    api = Module("go.opentelemetry.io/otel", "v1.38.0")
    metrics = Module("go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc", "v1.38.0")
    assert trace_exporter_of(build("a", *SDK)) == SDK[1].path
    assert not trace_exporter_of(build("a", api))
    assert not trace_exporter_of(build("a", SDK[0], metrics))
    assert not trace_exporter_of(build("a", SDK[1]))


def test_one_executable_alone() -> None:
    """Processes of one path and main package are one executable, whatever their inodes; nothing is nothing."""
    assert only_executable([process(1), process(2)]) == ("/srv/a/cart", "example.com/cart")
    assert only_executable([]) is None


def test_several_executables_are_listed() -> None:
    """Each executable has a line with its module, pids and ports; the remedy names the flags."""
    web = process(7, "/srv/web", build("example.com/web"), ports=(80, 443))
    with pytest.raises(UsageError) as raised:
        only_executable([*(process(pid) for pid in range(10, 17)), web])
    lines = raised.value.message.splitlines()
    assert lines[0].startswith("2 Go programs are running")
    assert lines[1].split("  ")[1:] == ["/srv/a/cart", "(example.com/cart)", "pid 10, 11, 12, 13, 14 and 2 more"]
    assert lines[2].split("  ")[1:] == ["/srv/web", "(example.com/web)", "pid 7", "listens on 80, 443"]
    assert all(flag in raised.value.remedy for flag in ("--pid 10", "--exe '/srv/a/cart'", "--port", "--all"))


def test_hundred_executables_are_not_all_listed() -> None:
    """An error message stays readable."""
    with pytest.raises(UsageError) as raised:
        only_executable([process(pid, f"/srv/{pid}") for pid in range(1, 101)])
    assert raised.value.message.splitlines()[-1].strip() == "… and 80 more"


@pytest.mark.parametrize(
    ("package", "module", "expected"),
    [
        ("example.com/shop", "example.com/shop", "shop"),
        ("example.com/shop/v2", "example.com/shop/v2", "shop"),
        ("example.com/shop/v12", "example.com/shop/v12", "shop"),
        ("example.com/shop/v1", "example.com/shop/v1", "v1"),
        ("gopkg.in/shop.v3", "gopkg.in/shop.v3", "shop"),
        ("shop", "shop", "shop"),
        ("v2", "v2", "v2"),
        ("example.com/shop/cmd/cart", "example.com/shop", "cart"),
        ("example.com/shop/v2/cmd/cart", "example.com/shop/v2", "cart"),
        ("example.com/shop/cart/v2", "example.com/shop/cart/v2", "cart"),
        ("example.com/shop/cmd", "example.com/shop", "shop"),
        ("example.com/shop/main", "example.com/shop/v3", "shop"),
        ("command-line-arguments", "example.com/shop", "shop"),
        ("command-line-arguments", "command-line-arguments", "cart"),
        ("command-line-arguments", "", "cart"),
        ("", "", "cart"),
    ],
)
def test_program_name(package: str, module: str, expected: str) -> None:
    """The last element of the main package, major version aside, else of the module, else the executable's name."""
    main = Module(module, "") if module else None
    assert program_name(process(build_info=BuildInfo("go1.26.8", package, main))) == expected


def test_precedence_of_the_service_name() -> None:
    """Flag, target's environment, agent's environment, build info; in each environment OTEL_SERVICE_NAME first."""

    def name(service: str = "", agent: Config | None = None, **environment: str) -> object:
        return resource_attributes(process(**environment), service, agent or config())["service.name"]  # type: ignore[arg-type]  # str is what ** gives

    both = {"OTEL_SERVICE_NAME": "own", "OTEL_RESOURCE_ATTRIBUTES": "service.name=listed"}
    agent = config(service_name="agent's", resource=(("service.name", "agent listed"),))
    assert name("flag", agent, **both) == "flag"
    assert name("", agent, **both) == "own"
    assert name("", agent, OTEL_RESOURCE_ATTRIBUTES="service.name=listed%20too") == "listed too"
    assert name("", agent, OTEL_SERVICE_NAME="") == "agent's"
    assert name("", config(resource=(("service.name", "agent listed"),))) == "agent listed"
    assert name("", config(resource=(("service.name", ""),))) == "cart"
    assert name() == "cart"


def test_what_identifies_one_program_is_not_given_to_several() -> None:
    """With --all or two rules, the agent's own service name and version name nobody; the rest is for all."""
    resource = (("service.version", "9"), ("deployment.environment.name", "production"))
    for several in (
        config(resource=resource, service_name="agent's", every=True),
        config(rule(pid="1"), rule(pid="10"), resource=resource, service_name="agent's"),
    ):
        attributes = resource_attributes(process(), "", several)
        assert attributes["service.name"] == "cart"
        assert "service.version" not in attributes
        assert attributes["deployment.environment.name"] == "production"


def test_precedence_of_attributes() -> None:
    """The target's environment wins over the agent's, and both over what was found out; telemetry.* is the agent's."""
    own = process(OTEL_RESOURCE_ATTRIBUTES="team=cart,host.name=given,telemetry.sdk.name=liar")
    attributes = resource_attributes(own, "", config(resource=(("team", "platform"), ("region", "eu"))))
    assert (attributes["team"], attributes["region"], attributes["host.name"]) == ("cart", "eu", "given")
    assert attributes["telemetry.sdk.name"] == "opentelemetry"
    assert attributes["telemetry.sdk.language"] == "go"
    assert attributes["telemetry.distro.name"] == "otel-goprobe"


def test_service_version() -> None:
    """The main module's version, else the revision, else nothing."""
    assert service_version(build(version="v1.2.3", **{"vcs.revision": "abc"})) == "v1.2.3"
    assert service_version(build(version="(devel)", **{"vcs.revision": "abc"})) == "abc"
    assert service_version(BuildInfo("go1.26.8", "x", None)) == ""
