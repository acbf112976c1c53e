"""Cells of the rounds -> medians, ratios within a round, the tables of docs/overhead.md. For overhead.py."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.machine import in_words, table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

METRICS = (
    "requests_per_s",
    "p50_us",
    "p99_us",
    "p999_us",
    "errors",
    "target_cpu_us",
    "target_share",
    "load_share",
    "receiver_share",
    "agent_cpu_us",
    "agent_share",
)


class Rounds:
    """The cells, by load, mode and round."""

    def __init__(self, cells: list[dict[str, Any]]) -> None:
        self.of: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
        for cell in cells:
            self.of.setdefault(cell["load"], {}).setdefault(cell["mode"], {})[cell["round"]] = cell

    def values(self, load: str, mode: str, metric: str) -> list[float]:
        """Return a metric of every round that has it."""
        return [cell[metric] for cell in self.of[load].get(mode, {}).values() if metric in cell]

    def paired(
        self, load: str, modes: tuple[str, str], metric: str, function: Callable[[float, float], float]
    ) -> float:
        """Return the median, over the rounds, of ``function(a, b)`` of the two modes in one round."""
        first, second = (self.of[load][mode] for mode in modes)
        return statistics.median(function(first[n][metric], second[n][metric]) for n in first.keys() & second.keys())


def _ratio(a: float, b: float) -> float:
    return a / b


def _difference(a: float, b: float) -> float:
    return a - b


def summarise(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return by load and mode the medians, and what it is against ``none``, ``empty`` and ``fed``."""
    rounds = Rounds(results["cells"])
    loads: dict[str, Any] = {}
    for load, modes in rounds.of.items():
        for mode in modes:
            one = {m: statistics.median(v) for m in METRICS if (v := rounds.values(load, mode, m))}
            for base in ("none", "empty", "fed"):
                if base in modes and base != mode:
                    pair = (mode, base)
                    one[f"requests_kept_of_{base}"] = rounds.paired(load, pair, "requests_per_s", _ratio)
                    one[f"p50_ratio_to_{base}"] = rounds.paired(load, pair, "p50_us", _ratio)
                    one[f"target_cpu_us_above_{base}"] = rounds.paired(load, pair, "target_cpu_us", _difference)
            p99 = rounds.values(load, mode, "p99_us")
            loads.setdefault(load, {})[mode] = one | {"p99_us_lowest": min(p99), "p99_us_highest": max(p99)}
    agents = results["agents"]
    return {
        "loads": loads,
        "attached_s": statistics.median(one["attached_s"] for one in agents),
        "first_span_s": statistics.median(one["first_span_s"] for one in agents),
    }


def _cells(summary: Mapping[str, Any]) -> str:
    header = ["", "requests/s", "kept", "p50 µs", "p99 µs", "p99.9 µs", "target µs/request", "more than none"]
    header += ["agent µs/span", "cores: load", "receiver", "agent"]
    rows = []
    for load, modes in summary["loads"].items():
        rows.append([f"**{load}**", *[""] * (len(header) - 1)])
        for mode, one in modes.items():
            cost = one.get("agent_cpu_us")
            rows.append(
                [
                    mode,
                    f"{one['requests_per_s']:,.0f}",
                    f"{one.get('requests_kept_of_none', 1):.2f}",
                    *(f"{one[metric]:,.0f}" for metric in ("p50_us", "p99_us", "p999_us")),
                    f"{one['target_cpu_us']:.1f}",
                    f"{one.get('target_cpu_us_above_none', 0):+.1f}",
                    "" if cost is None else f"{cost:.1f}",
                    f"{one['load_share']:.2f}",
                    f"{one['receiver_share']:.2f}",
                    f"{one['agent_share']:.2f}" if "agent_share" in one else "",
                ]
            )
    return table(header, rows)


def _goals(results: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Return what was aimed at, what was measured, and whether that is good enough."""
    summary, long = results["summary"], results["long"]
    small = summary["loads"]["/small, 16 connections"]["agent"]
    steady = summary["loads"]["/small at 5,000/s"]
    paced, without = steady["agent"], steady["none"]
    soak, memory = long["soak"], long["agent"]["rss_mib"]
    lost = soak["requests"] - soak["spans_received"]
    above_empty, kept = small["target_cpu_us_above_empty"], small["requests_kept_of_fed"]
    probes_alone = summary["loads"]["/small, 16 connections"]["unsent"]["target_cpu_us_above_empty"]
    return [
        ("target CPU above the empty programs ≤ 1.2 µs a request", f"{above_empty:.1f} µs", above_empty <= 1.2),
        ("the same of `unsent`, the probes alone", f"{probes_alone:.1f} µs", probes_alone <= 1.2),
        ("requests/s kept of `fed` ≥ 0.93", f"{kept:.2f}", kept >= 0.93),
        (
            "5,000/s: target CPU ≤ +3 µs a request",
            f"{paced['target_cpu_us_above_none']:+.1f} µs",
            paced["target_cpu_us_above_none"] <= 3,
        ),
        ("5,000/s: p50 within 5 %", f"{paced['p50_ratio_to_none'] - 1:+.1%}", paced["p50_ratio_to_none"] <= 1.05),
        (
            f"5,000/s: p99 ≤ the highest of `none`, {without['p99_us_highest']:,.0f} µs",
            f"{paced['p99_us']:,.0f} µs",
            paced["p99_us"] <= without["p99_us_highest"],
        ),
        (
            "agent CPU ≤ 2 µs a span at 20,000 spans/s or more",
            f"{soak['agent_cpu_us']:.2f} µs at {soak['requests_per_s']:,.0f}/s",
            soak["agent_cpu_us"] <= 2 and soak["requests_per_s"] >= 20_000,
        ),
        (
            "agent ≤ 0.3 % of a core at 100 spans/s",
            f"{long['slow']['agent_share']:.2%}",
            long["slow"]["agent_share"] <= 0.003,
        ),
        ("agent ≤ 0.2 % of a core idle", f"{long['idle_share']:.2%}", long["idle_share"] <= 0.002),
        (
            f"{results['soak_s']:g} s at the highest rate: spans received = requests counted",
            f"{soak['spans_received']:,} of {soak['requests']:,}",
            not lost,
        ),
        (
            "resident memory after them ≤ 50 MiB",
            f"{memory['now']:.1f} MiB, at most {memory['max']:.1f}",
            memory["now"] <= 50,
        ),
        ("agent's exec to attached ≤ 0.5 s", f"{summary['attached_s']:.2f} s", summary["attached_s"] <= 0.5),
        ("first span at the receiver ≤ 1.0 s", f"{summary['first_span_s']:.2f} s", summary["first_span_s"] <= 1.0),
    ]


def _programs(results: Mapping[str, Any]) -> str:
    """Return where the extra ns of a request go: the hits themselves, and what the BPF programs do then."""
    total = sum(one["runs_a_request"] * one["ns_a_run"] for one in results["programs"].values())
    rows = [
        [f"`{name}`", f"{one['runs_a_request']:g}", f"{one['ns_a_run']:,}"] for name, one in results["programs"].items()
    ]
    hits = results["sites"]["predictions"]["otel-goprobe"]
    rows.append(["all programs, a request", "", f"{total:,.0f}"])
    rows.append(["the hits alone, a request, by the table of sites", f"{hits['hits']:g}", f"{hits['us'] * 1e3:,.0f}"])
    return table(["BPF program", "runs a request", "ns"], rows)


def _accounts(results: Mapping[str, Any]) -> str:
    """Return what became of the spans of every agent that ran."""
    agents = [*results["agents"], results["long"]["agent"]]
    requests, spans = (sum(one[key] for one in agents) for key in ("requests", "spans_received"))
    dropped: dict[str, int] = {}
    for one in agents:
        for reason, count in one["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + count
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in dropped.items()) or "none"
    return (
        f"{len(agents)} runs of the agent: {requests:,} requests counted by the target, {spans:,} spans received;"
        f" dropped: {reasons}."
    )


def text(results: Mapping[str, Any]) -> str:
    """Return everything but the table of sites as Markdown."""
    goals = [[goal, measured, "yes" if met else "**no**"] for goal, measured, met in _goals(results)]
    return "\n\n".join(
        [
            in_words(results["machine"]),
            f"{results['rounds']} rounds of {results['seconds']:g} s a load; spans go to: {results['receiver']}.",
            _cells(results["summary"]),
            table(["aimed at", "measured", "met"], goals),
            _accounts(results),
            _programs(results),
        ]
    )
