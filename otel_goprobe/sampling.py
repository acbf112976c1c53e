"""Sampler names, ratios and exceptions as text -> the numbers that the kernel decides with; called by config.py.

The decision itself is bpf/include/sampling.h's. Names: OpenTelemetry specification,
configuration/sdk-environment-variables, "General SDK configuration".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otel_goprobe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_goprobe.environment import Environment

LATE_ERRORS, LATE_SLOW = 1, 2
"""Bits of `Sampling.late_rules`, as bpf/include/sampling.h has them."""

_RATIOS: Mapping[str, float | None] = {
    "always_on": 1.0,
    "always_off": 0.0,
    "traceidratio": None,
    "parentbased_always_on": 1.0,
    "parentbased_always_off": 0.0,
    "parentbased_traceidratio": None,
}
"""None: OTEL_TRACES_SAMPLER_ARG says it."""

_UNITS = {"us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(us|ms|s|m)")
_RATIO = re.compile(r"[0-9]*\.?[0-9]+(?:[eE]-?[0-9]{1,3})?|[0-9]+\.")


@dataclass(frozen=True, slots=True)
class Sampler:
    """One rule for requests without a decision of a caller, or for all."""

    ratio: float = 1.0
    """Of the traces, by trace id; between 0 and 1."""
    parent_based: bool = True
    """Whether a caller's decision is followed."""

    @property
    def bound(self) -> int:
        """What half of the last 64 bits of a sampled trace id is below: the Go SDK's number, up to 2^63."""
        return int(self.ratio * 2**63)


@dataclass(frozen=True, slots=True)
class Sampling:
    """All that decides which requests become spans."""

    sampler: Sampler = field(default_factory=Sampler)
    services: tuple[tuple[str, Sampler], ...] = ()
    """Samplers of services that have one of their own."""
    late_errors: bool = False
    """Keep requests that failed."""
    late_slower_ns: int | None = None
    """Keep requests that took as long or longer."""

    def of(self, service: str) -> Sampler:
        """Return the sampler of a service."""
        return dict(self.services).get(service, self.sampler)

    @property
    def late_rules(self) -> int:
        """Return `LATE_ERRORS` and `LATE_SLOW` as far as they are wanted."""
        return LATE_ERRORS * self.late_errors | LATE_SLOW * (self.late_slower_ns is not None)


def sampling_from(environment: Environment, sample: Iterable[str], always_sample: str) -> Sampling:
    """Join the variables and the flags; a flag wins.

    Args:
        environment: for OTEL_TRACES_SAMPLER and its argument; what is wrong there is warned about and ignored.
        sample: each ``RATIO`` or ``SERVICE=RATIO``.
        always_sample: such as ``errors,slower=500ms``; empty for nothing.

    Raises:
        UsageError: a flag is wrong.
    """
    sampler = _from_environment(environment)
    services = {}
    for text in sample:
        service, separator, ratio = text.rpartition("=")
        if separator and not service:
            raise _sample_error(text)
        chosen = Sampler(_flag_ratio(text, ratio), parent_based=True)
        if service:
            services[service] = chosen
        else:
            sampler = chosen
    errors, slower_ns = False, None
    for rule in filter(None, map(str.strip, always_sample.split(","))):
        kind, _, argument = rule.partition("=")
        if rule == "errors":
            errors = True
        elif kind == "slower" and (match := _DURATION.fullmatch(argument)):
            slower_ns = round(float(match[1]) * _UNITS[match[2]])
        else:
            raise UsageError(
                f"--always-sample: {rule!r} is no rule that is known",
                "write errors, slower=500ms, or both with a comma",
            )
    return Sampling(sampler, tuple(services.items()), errors, slower_ns)


def _from_environment(environment: Environment) -> Sampler:
    name = environment.choice("OTEL_TRACES_SAMPLER", _RATIOS, "parentbased_always_on")
    ratio = _RATIOS[name]
    if ratio is None:
        text = environment.text("OTEL_TRACES_SAMPLER_ARG")
        ratio = _ratio(text) if text else 1.0
        if ratio is None:
            environment.warnings.append(f"OTEL_TRACES_SAMPLER_ARG={text} is no number from 0 to 1: using 1")
            ratio = 1.0
    return Sampler(ratio, parent_based=name.startswith("parentbased_"))


def _ratio(text: str) -> float | None:
    if not _RATIO.fullmatch(text):
        return None
    ratio = float(text)
    return ratio if ratio <= 1 else None


def _flag_ratio(text: str, ratio: str) -> float:
    number = _ratio(ratio)
    if number is None:
        raise _sample_error(text)
    return number


def _sample_error(text: str) -> UsageError:
    return UsageError(
        f"--sample: {text!r} gives no ratio", "write a number from 0 to 1 for all, or SERVICE=0.1 for one service"
    )
