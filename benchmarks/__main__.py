"""`python -m benchmarks [p1 p4 …] [--rounds 5] [--quick]`: print a table each; a full run of all writes RESULTS.md."""

from __future__ import annotations

import argparse
import importlib

from benchmarks import report
from benchmarks.contest import Benchmark, Result, hold
from benchmarks.stage import Stage

MODULES = {
    "p1": "p1_publish",
    "p2": "p2_consume",
    "p3": "p3_inbox",
    "p4": "p4_relay",
    "p4-keyed": "p4_keyed",
    "p5": "p5_backlog",
    "p6": "p6_latency",
    "p7": "p7_publish_sqlite",
    "p8": "p8_insert",
    "p9": "policies:P9",
    "p10": "policies:P10",
    "p11": "p11_sagas",
    "p12": "p12_cache:P12",
    "p13": "p12_cache:P13",
    "p16": "p16_return",
    "p17": "p17_memory",
    "p18": "p18_embedded",
}


def main() -> None:
    """Run the benchmarks named on the command line, all of them by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)}; default all")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender; default 5")
    parser.add_argument("--quick", action="store_true", help="a fraction of the work, for developing; no RESULTS.md")
    arguments = parser.parse_args()
    names = [name.lower() for name in arguments.names] or list(MODULES)
    unknown = [name for name in names if name not in MODULES]
    if unknown or arguments.rounds < 1:
        parser.error(
            f"{' '.join(unknown) or '--rounds'}: name benchmarks of {', '.join(MODULES)}, and 1 or more rounds"
        )
    results: list[Result] = []
    with Stage(quick=arguments.quick) as stage:
        for name in names:
            module, _, attribute = MODULES[name].partition(":")
            benchmark: Benchmark = getattr(importlib.import_module(f"benchmarks.{module}"), attribute or "BENCHMARK")
            result = hold(benchmark, stage, arguments.rounds)
            results.append(result)
            print(report.text_of(result, stage), flush=True)
        if not arguments.quick and not arguments.names:
            report.write(results, stage, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
