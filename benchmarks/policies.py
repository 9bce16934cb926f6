"""P9 and P10: what a policy costs a call that succeeds, and what a rejection costs.

All contenders of a scene live in one process and take turns of SLICE calls; a round is CALLS calls of each. Overhead is
a contender's time a call minus that of the bare operation in the same round. Ratios are taken round by round.

The operation of the first scene never suspends, so the event loop plays no part in it. That of the second suspends
once, with `asyncio.sleep(0)`: there the loop's timers are part of what is measured, so it is held on uvloop and on
asyncio's own loop.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import repeat
from typing import Any

import uvloop

from benchmarks import policy_contenders as of
from benchmarks.contest import Benchmark, Comparison, Sample, Target
from benchmarks.policy_contenders import Factory, Operation, opened
from benchmarks.stage import Stage, check

CALLS = 20_000
SLICE = 500
WARM_UP = 1000

PIPELINES: dict[str, tuple[str, Factory]] = {
    "pipeline": ("Policy(Retry, Breaker, Bulkhead, Timeout) as a decorator", of.our_pipeline),
    "pipeline-call": ("the same as policy.call(function)", of.our_pipeline_call),
    "pipeline-deadline": ("the same with a Deadline around it", of.our_standard),
    "circuitbreaker": ("circuitbreaker, its breaker alone", of.circuitbreaker_breaker),
    "tenacity": ("tenacity, its retry alone", of.tenacity_retry),
    "stamina": ("stamina, its retry alone", of.stamina_retry),
    "nopanic-stack": ("nopanic: compose(retry, circuit_breaker, bulkhead, timeout)", of.nopanic_stack),
    "interlock-stack": (
        "interlock-cb: Pipeline of retry (tenacity's), circuit_breaker, bulkhead, timeout",
        of.interlock_stack,
    ),
    "hyx-stack": ("hyx: retry, consecutive_breaker, bulkhead, timeout (a task a call)", of.hyx_stack),
}
SUSPENDED: dict[str, tuple[str, Factory]] = {
    "pipeline": PIPELINES["pipeline"],
    "pipeline-deadline": PIPELINES["pipeline-deadline"],
    "asyncio.timeout": ("async with asyncio.timeout(10), nothing else", of.asyncio_timeout),
    "nopanic-stack": PIPELINES["nopanic-stack"],
    "interlock-stack": PIPELINES["interlock-stack"],
}
SINGLE: dict[str, tuple[str, Factory]] = {
    "retry": ("Retry(3)", of.our_retry),
    "breaker": ("Breaker()", of.our_breaker),
    "bulkhead": ("Bulkhead(32)", of.our_bulkhead),
    "timeout": ("Timeout(10)", of.our_timeout),
    "deadline": ("Deadline(30)", of.our_deadline),
    "rate_limit": ("RateLimit, more than is asked for", of.our_rate_limit),
    "fallback": ('Fallback("cached")', of.our_fallback),
    "circuitbreaker": ("circuitbreaker", of.circuitbreaker_breaker),
    "aiobreaker": ("aiobreaker", of.aiobreaker_breaker),
    "pybreaker": (
        "pybreaker (asyncio form: none, it asks for Tornado; a calling() block around the await)",
        of.pybreaker_breaker,
    ),
    "purgatory": ("purgatory, in memory", of.purgatory_breaker),
    "hyx-breaker": ("hyx consecutive_breaker", of.hyx_breaker),
    "nopanic-breaker": ("nopanic circuit_breaker", of.nopanic_breaker),
    "interlock-breaker": ("interlock-cb CircuitBreaker", of.interlock_breaker),
    "hyx-bulkhead": ("hyx bulkhead", of.hyx_bulkhead),
}
REJECTED: dict[str, tuple[str, Factory]] = {
    "breaker-open": ("Breaker(Consecutive(1)), open", of.our_open_breaker),
    "pipeline-open": ("Policy(Retry, Breaker, Bulkhead, Timeout), its breaker open", of.our_open_pipeline),
    "circuitbreaker-open": ("circuitbreaker, open", opened(of.circuitbreaker_breaker)),
    "aiobreaker-open": ("aiobreaker, open", opened(of.aiobreaker_breaker)),
    "pybreaker-open": ("pybreaker calling(), open", opened(of.pybreaker_breaker)),
    "purgatory-open": ("purgatory, open", opened(of.purgatory_breaker)),
    "hyx-open": ("hyx consecutive_breaker, open", opened(of.hyx_breaker)),
    "nopanic-open": ("nopanic circuit_breaker, open", opened(of.nopanic_breaker)),
    "interlock-open": ("interlock-cb CircuitBreaker, open", opened(of.interlock_breaker)),
}


# --- measuring -------------------------------------------------------------------------------------------------------


def measure_pipelines(stage: Stage, rounds: int) -> dict[str, list[Sample]]:
    found = _scene(stage, "pipelines", rounds)
    for loop in ("uvloop", "asyncio"):
        samples = _scene(stage, f"suspended-{loop}", rounds)
        found.update({f"{loop}/{key}": figures for key, figures in samples.items()})
    return found


def measure_singles(stage: Stage, rounds: int) -> dict[str, list[Sample]]:
    return {**_scene(stage, "singles", rounds), **_scene(stage, "rejected", rounds)}


def _scene(stage: Stage, scene: str, rounds: int) -> dict[str, list[Sample]]:
    calls = stage.scale(CALLS, CALLS // 5)
    figures: Any = stage.turn("policies", scene, rounds=rounds, calls=calls)
    samples: dict[str, list[Sample]] = figures
    return samples


def turn_pipelines(rounds: int, calls: int) -> dict[str, list[Sample]]:
    return _run(PIPELINES, of.suspends_never, rounds, calls, uvloop.new_event_loop)


def turn_suspended_uvloop(rounds: int, calls: int) -> dict[str, list[Sample]]:
    return _run(SUSPENDED, of.suspends_once, rounds, calls, uvloop.new_event_loop)


def turn_suspended_asyncio(rounds: int, calls: int) -> dict[str, list[Sample]]:
    return _run(SUSPENDED, of.suspends_once, rounds, calls, asyncio.SelectorEventLoop)


def turn_singles(rounds: int, calls: int) -> dict[str, list[Sample]]:
    return _run(SINGLE, of.suspends_never, rounds, calls, uvloop.new_event_loop)


def turn_rejected(rounds: int, calls: int) -> dict[str, list[Sample]]:
    return _run(REJECTED, of.fails, rounds, calls, uvloop.new_event_loop)


def _run(
    contenders: dict[str, tuple[str, Factory]],
    operation: Operation,
    rounds: int,
    calls: int,
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> dict[str, list[Sample]]:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(_rounds(contenders, operation, rounds, calls))


async def _rounds(
    contenders: dict[str, tuple[str, Factory]], operation: Operation, rounds: int, calls: int
) -> dict[str, list[Sample]]:
    is_rejected = operation is of.fails
    bare = of.suspends_never if is_rejected else operation
    found: dict[str, list[Sample]] = {key: [] for key in contenders}
    ready: dict[str, Callable[[int], Awaitable[None]]] = {}
    for key, (_, factory) in contenders.items():
        try:
            ready[key] = await _ready(factory, operation, is_rejected)
        except Exception as error:
            print(f"{key} could not run: {error!r}", file=sys.stderr)
    gc.collect()
    for _ in range(rounds):
        spent = dict.fromkeys([*ready, ""], 0.0)
        for _ in range(calls // SLICE):
            for key, spend in [("", _Calls(bare)), *ready.items()]:
                started = time.perf_counter()
                await spend(SLICE)
                spent[key] += time.perf_counter() - started
        for key in ready:
            whole = spent[key] / calls * 1e6
            found[key].append({"overhead": whole - spent[""] / calls * 1e6, "whole": whole})
    return found


async def _ready(factory: Factory, operation: Operation, is_rejected: bool) -> Callable[[int], Awaitable[None]]:
    """Return what makes so many calls, warm, after it has shown that it protects what it should."""
    protected = factory(operation)
    if is_rejected:
        await of.open_it(protected)
        try:
            await protected()
        except ConnectionError:
            check(False, "an open breaker called the operation")
        except Exception:
            rejections = _Rejections(protected)
            await rejections(WARM_UP)
            return rejections
        check(False, "an open breaker returned a value")
    check(await protected() == "done", "the operation's value did not come back")
    calls = _Calls(protected)
    await calls(WARM_UP)
    return calls


class _Calls:
    def __init__(self, operation: Operation) -> None:
        self._operation = operation

    async def __call__(self, count: int) -> None:
        operation = self._operation
        for _ in repeat(None, count):
            await operation()


class _Rejections(_Calls):
    async def __call__(self, count: int) -> None:
        operation = self._operation
        for _ in repeat(None, count):
            try:  # noqa: SIM105  what users write; contextlib.suppress would add its own time
                await operation()
            except Exception:
                pass


# --- tables ----------------------------------------------------------------------------------------------------------


def _at_most(bound: float) -> Target:
    return Target(bound, is_least=False)


def _line(ours: str, peer: str | None, label: str, bound: float | None = None, metric: str = "overhead") -> Comparison:
    target = None if bound is None else _at_most(bound)
    return Comparison(ours=ours, peer=peer, label=label, metric=metric, unit="µs", target=target)


def _pipeline_lines() -> list[Comparison]:
    lines = [
        _line("pipeline", None, "pipeline, decorator", 3),
        _line("pipeline", "circuitbreaker", "pipeline ÷ circuitbreaker alone", 3.3),
        _line("pipeline", "tenacity", "pipeline ÷ tenacity's retry alone", 0.1),
        _line("pipeline", "stamina", "pipeline ÷ stamina's retry alone"),
        _line("pipeline", "nopanic-stack", "pipeline ÷ nopanic stack"),
        _line("pipeline", "interlock-stack", "pipeline ÷ interlock-cb stack"),
        _line("pipeline", "hyx-stack", "pipeline ÷ hyx stack"),
        _line("pipeline-call", "circuitbreaker", "policy.call() ÷ circuitbreaker alone"),
        _line("pipeline-deadline", "circuitbreaker", "with Deadline ÷ circuitbreaker alone"),
    ]
    for loop in ("uvloop", "asyncio"):
        ours, peer = f"{loop}/pipeline", f"{loop}/asyncio.timeout"
        lines += [
            _line(ours, peer, f"suspends once, {loop}: ÷ asyncio.timeout()", 1.5),
            _line(ours, peer, f"suspends once, {loop}: ÷ asyncio.timeout(), operation included", 1.5, "whole"),
            _line(f"{loop}/pipeline-deadline", peer, f"suspends once, {loop}: with Deadline ÷ asyncio.timeout()"),
            _line(ours, f"{loop}/nopanic-stack", f"suspends once, {loop}: ÷ nopanic stack"),
            _line(ours, f"{loop}/interlock-stack", f"suspends once, {loop}: ÷ interlock-cb stack"),
        ]
    return lines


def _single_lines() -> list[Comparison]:
    lines = []
    for key in ("retry", "breaker", "bulkhead", "timeout", "deadline", "rate_limit", "fallback"):
        lines += [_line(key, None, key, 1), _line(key, "circuitbreaker", f"{key} ÷ circuitbreaker", 1.1)]
    for peer in ("aiobreaker", "pybreaker", "purgatory", "hyx-breaker", "nopanic-breaker", "interlock-breaker"):
        lines.append(_line("breaker", peer, f"breaker ÷ {SINGLE[peer][0].partition(' (')[0]}"))
    lines += [
        _line("bulkhead", "hyx-bulkhead", "bulkhead ÷ hyx bulkhead"),
        _line("breaker-open", None, "rejection by an open breaker", 2),
        _line("breaker-open", "circuitbreaker-open", "rejection ÷ circuitbreaker", 1.1),
    ]
    for peer in ("aiobreaker-open", "pybreaker-open", "purgatory-open", "hyx-open", "nopanic-open", "interlock-open"):
        lines.append(_line("breaker-open", peer, f"rejection ÷ {REJECTED[peer][0].removesuffix(', open')}"))
    lines.append(_line("pipeline-open", "circuitbreaker-open", "rejection by the pipeline ÷ circuitbreaker"))
    return lines


_SWITCHES = {
    "figures": "overhead of a call: its time minus that of the bare operation; ratio: median of the rounds' ratios",
    "rounds": f"{CALLS:,} calls of each contender, in turns of {SLICE} calls, all in one process",
    "numbers": "3 attempts, 32 running at once, 10 s a call on all sides; what a peer cannot be told is its default",
    "ours": "a registry of its own, idempotent=True, no listener of events",
    "garbage collector": "as Python sets it; logging off",
}
_NOTES = (
    "Figures in µs are bars for a machine on which circuitbreaker takes about 0.9 µs; on another the ratios count.",
)

P9 = Benchmark(
    id="P9",
    title="Policy pipeline retry + breaker + bulkhead + timeout, success",
    contenders={
        **{key: what for key, (what, _) in PIPELINES.items()},
        **{
            f"{loop}/{key}": f"{what}; operation suspends once, {loop}"
            for loop in ("uvloop", "asyncio")
            for key, (what, _) in SUSPENDED.items()
        },
    },
    measure_together=measure_pipelines,
    comparisons=_pipeline_lines(),
    switches={
        **_SWITCHES,
        "operation": "`async def` that returns a constant; the one that suspends awaits asyncio.sleep(0)",
    },
    notes=_NOTES,
)

P10 = Benchmark(
    id="P10",
    title="A single policy, success; an open breaker, rejection",
    contenders={key: what for key, (what, _) in {**SINGLE, **REJECTED}.items()},
    measure_together=measure_singles,
    comparisons=_single_lines(),
    switches={
        **_SWITCHES,
        "operation": "`async def` that returns a constant",
        "rejection": "raised and caught; thresholds of one failure, open for an hour",
    },
    notes=_NOTES,
)
