"""Tables: on the terminal after every benchmark, and `benchmarks/RESULTS.md` at the end."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.contest import Comparison, Result, Target
from benchmarks.stage import Stage

RESULTS = Path(__file__).parent / "RESULTS.md"
PACKAGES = (
    *("spoolproof", "pika", "asyncpg", "uvloop", "msgspec", "faststream", "aio-pika", "faststream-outbox"),
    *(
        "tenacity",
        "stamina",
        "circuitbreaker",
        "aiobreaker",
        "pybreaker",
        "purgatory",
        "hyx",
        "nopanic",
        "interlock-cb",
    ),
)
HEADER = ("peer", "peer's figure", "ours", "ratio", "target", "")


def text_of(result: Result, stage: Stage) -> str:
    """Return one benchmark as Markdown: its table, what was compared, every switch."""
    benchmark = result.benchmark
    rounds = max(len(samples) for samples in result.samples.values())
    lines = [f"## {benchmark.id}: {benchmark.title}", ""]
    if stage.quick:
        lines += ["A quick run: fewer rows and seconds than title and settings say.", ""]
    lines += _table([HEADER, *(_row(result, comparison) for comparison in benchmark.comparisons)])
    lines += ["", f"Medians of {rounds} round{'s' if rounds > 1 else ''}, contenders taking turns:", ""]
    for key, what in benchmark.contenders.items():
        lines.append(f"- {what}: {_spread(result, key)}")
    lines += ["", "Settings:", ""]
    lines += [f"- {name}: {value}" for name, value in benchmark.switches.items()]
    lines += ["", *benchmark.notes] if benchmark.notes else []
    return "\n".join(lines) + "\n"


def write(results: Sequence[Result], stage: Stage, *, rounds: int) -> None:
    """Write RESULTS.md: the machine, then every benchmark that ran."""
    parts = [
        "# Benchmark results",
        "",
        f"`python -m benchmarks --rounds {rounds}`, "
        f"{datetime.now(UTC):%Y-%m-%d}. Ratios are what counts: absolute figures on this kind of machine drift by half "
        "from run to run. Client, broker and database share its cores.",
        "",
        *(f"- {name}: {value}" for name, value in _machine(stage).items()),
        "",
        *(text_of(result, stage) for result in results),
    ]
    RESULTS.write_text("\n".join(parts))


def _row(result: Result, comparison: Comparison) -> tuple[str, ...]:
    absent = [key for key in (comparison.ours, comparison.peer) if key is not None and not result.samples[key]]
    if absent:
        return comparison.label, "could not run", "–", "–", _target_text(comparison), ""
    ours = result.median(comparison.ours, comparison.metric)
    if comparison.peer is None:
        judged, peer_text, ratio_text = ours, "–", "–"
    else:
        peer = result.median(comparison.peer, comparison.metric)
        judged = result.ratio(comparison.ours, comparison.peer, comparison.metric)
        peer_text, ratio_text = _figure(peer, comparison.unit), f"{judged:.2f}×"
    target = comparison.target
    verdict = "" if target is None else "met" if target.is_met(judged) else "**missed**"
    return (
        comparison.label,
        peer_text,
        _figure(ours, comparison.unit),
        ratio_text,
        _target_text(comparison),
        verdict,
    )


def _target_text(comparison: Comparison) -> str:
    def text(target: Target) -> str:
        sign = "≥" if target.is_least else "≤"
        return f"{sign} {target.bound:g}{'×' if comparison.peer else ' ' + comparison.unit}"

    parts = [] if comparison.target is None else [text(comparison.target)]
    if comparison.aim is not None:
        parts.append(f"aim {text(comparison.aim)}")
    return ", ".join(parts) or "–"


def _spread(result: Result, key: str) -> str:
    if not result.samples[key]:
        return "could not run"
    shown = []
    units = {
        comparison.metric: comparison.unit
        for comparison in result.benchmark.comparisons
        if key in (comparison.ours, comparison.peer)
    }
    for metric, unit in units.items():
        figures = result.figures(key, metric)
        shown.append(f"{_figure(result.median(key, metric), unit)} ({_number(min(figures))}–{_number(max(figures))})")
    return ", ".join(shown)


def _figure(value: float, unit: str) -> str:
    return f"{_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines


def _machine(stage: Stage) -> dict[str, str]:
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    found = {
        "cores": str(os.cpu_count()),
        "CPU": model[1] if model else platform.machine(),
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown",
        "disk": _disk(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "Python": f"{platform.python_version()}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }
    if "rabbitmq" in stage.__dict__:
        found["RabbitMQ"] = stage.rabbitmq.rabbitmqctl("eval", "rabbit_misc:version().").strip().strip('"')
    if "postgres" in stage.__dict__:
        found["PostgreSQL"] = stage.postgres.psql("show server_version").strip()
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _disk() -> str:
    """Return file system and kind of the disk that holds the temporary files, where servers keep their data."""
    answer = subprocess.run(
        ["findmnt", "--noheadings", "--output", "FSTYPE,SOURCE", "--target", tempfile.gettempdir()],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    if len(answer) != 2:
        return "unknown"
    system, source = answer
    device = Path("/sys/class/block") / Path(source).name
    rotational = next((path for path in (device / "queue", device.parent / "queue") if path.exists()), None)
    if rotational is None:
        return system
    kind = "rotating" if (rotational / "rotational").read_text().strip() == "1" else "solid state"
    virtual = ", virtual" if Path(source).name.startswith("vd") else ""
    return f"{system} on {kind}{virtual}"
