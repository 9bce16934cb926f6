"""The forms a call takes, what they tell, and that they need nothing but the standard library."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spoolproof.errors import Action
from spoolproof.policies import (
    Adaptive,
    AttemptTimeout,
    Breaker,
    BreakerOpen,
    Bulkhead,
    Chaos,
    Classifier,
    Consecutive,
    Deadline,
    DeadlineExceeded,
    Fallback,
    Kind,
    Policy,
    PolicyConfigError,
    PolicyUsageError,
    RateLimit,
    Registry,
    Retry,
    Timeout,
    deadline,
    events,
    idempotency_key,
    report,
)
from spoolproof.policies.parts.ranges import BreakerSettings
from spoolproof.policies.policy import StandardSettings
from spoolproof.policies.running.attempt import Attempt
from spoolproof.testing.clock import ManualClock

from .conftest import settle

Make = Callable[..., Policy]
ROOT = Path(__file__).parents[3]


class Away(Exception):
    failure_kind = "transient"
    is_unknown = False


async def away() -> str:
    raise Away


def test_policies_need_nothing_but_the_standard_library() -> None:
    """So that they can be used where the rest of the package is not wanted."""
    script = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"msgspec", "pydantic", "pydantic_settings", "typer", "rich", "pika", "asyncpg"}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import asyncio
import contextvars
from spoolproof.policies import Policy
policy = Policy.standard("psp", idempotent=True)
print(asyncio.run(policy.call(asyncio.sleep, 0, "works")), policy.call_sync(lambda: "here"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)

    assert ("works here\n", 0) == (done.stdout, done.returncode), done.stderr


def test_the_policies_work_where_there_is_no_posix() -> None:
    """On Windows and some others: no clock that counts suspend, no fork, no file locks."""
    script = """
import asyncio, logging, os, random, sys, threading, time
for name in [name for name in dir(time) if name.startswith("clock_") or name.startswith("CLOCK_")]: delattr(time, name)
for name in ("fork", "register_at_fork", "getuid"): delattr(os, name)
for name in ("fcntl", "grp", "pwd", "resource", "termios"): sys.modules[name] = None
from spoolproof.policies import Policy
policy = Policy.standard("psp", idempotent=True)
print(asyncio.run(policy.call(asyncio.sleep, 0.01, "works")), policy.call_sync(lambda: "here"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)

    assert ("works here\n", 0) == (done.stdout, done.returncode), done.stderr


def test_editors_know_every_setting_that_is_taken() -> None:
    """One that is added to a part must be added for them too."""
    settings = {name for part in (Deadline, Retry, Breaker, Bulkhead, Timeout) for name in part.settings}
    taken = settings - set(Adaptive.settings) | set(Policy.__init__.__kwdefaults__)

    assert (set(Breaker.settings), taken) == (set(BreakerSettings.__annotations__), set(_all(StandardSettings)))


def test_a_setting_of_a_part_that_standard_does_not_make_is_a_fault(registry: Registry) -> None:
    with pytest.raises(PolicyConfigError, match="limit_max=5"):
        Policy.standard("psp", limit_max=5, registry=registry)  # type: ignore[call-arg]


def _all(kind: Any) -> set[str]:
    return kind.__required_keys__ | kind.__optional_keys__


@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_signatures_are_kept(checker: str, tmp_path: Path) -> None:
    """A protected function takes and returns what it did, and a wrong call of it is found before it runs."""
    file = tmp_path / "signatures.py"
    file.write_text(
        """
from spoolproof.policies import Adaptive, Breaker, Classifier, Policy, Retry, Timeout

policy = Policy.standard("psp", idempotent=True)
Policy.standard("all", Retry(3), open_seconds=5, running_max=Adaptive(), sync="cooperative", classify=Classifier())
Policy.standard("misspelt", atempts=3)  # wrong
Policy.standard("text", attempts="3")  # wrong
Policy.standard("mode", mode="on")  # wrong
Policy("sync", Retry(3), sync="threads")  # wrong
Breaker(open_second=5)  # wrong
Breaker(calls_min="5")  # wrong

@policy
async def one(x: int, *, y: str = "") -> float:
    return 1.0

@Timeout(5)
def two(x: int) -> str:
    return ""

async def main() -> None:
    a: float = await one(1, y="a")
    b: str = two(1)
    c: float = await policy.call(one, 1, y="a")
    d: str = policy.call_sync(two, 1)
    e: float = await policy.using(lane="critical").call(one, 1)
    await one("1")  # wrong
    two(1, 2)  # wrong
    await policy.call(one, "1")  # wrong
    f: int = policy.call_sync(two, 1)  # wrong
"""
    )
    command = [sys.executable, "-m", checker, str(file)]
    (tmp_path / "pyrightconfig.json").write_text(
        '{"typeCheckingMode": "standard", "extraPaths": ["SRC"]}'.replace("SRC", str(ROOT / "src"))
    )
    if checker == "basedpyright":
        command += ["--project", str(tmp_path)]
    if checker == "mypy":
        command += ["--strict", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=55, cwd=ROOT, env={"PATH": "/usr/bin:/bin", "MYPYPATH": "src"}
    )

    lines = file.read_text().split("\n")
    expected = {number for number, line in enumerate(lines, 1) if "# wrong" in line}
    found = {
        int(line.split(":")[1])
        for line in done.stdout.split("\n")
        if "signatures.py:" in line and " error" in line and line.split(":")[1].isdigit()
    }
    assert expected == found, done.stdout + done.stderr


async def test_a_result_says_how_a_call_ended(make: Make, clock: ManualClock) -> None:
    policy = make(Fallback.constant("instead"), Breaker(Consecutive(3)))

    good, bad, odd = (
        await policy.result(asyncio.sleep, 0, "live"),
        await policy.result(away),
        await policy.result(dict, 1),
    )

    assert ("live", "live", 1, True) == (good.value, good.source, good.attempts, good.is_ok)
    assert ("instead", "fallback", Kind.TRANSIENT) == (bad.value, bad.source, bad.verdict.kind)
    assert (None, TypeError, Kind.BUG) == (odd.value, type(odd.error), odd.verdict.kind)


async def test_a_block_is_admitted_judged_and_given_back(make: Make, clock: ManualClock) -> None:
    policy = make(Breaker(Consecutive(1), probe_successes=1), Bulkhead(1))

    async with policy.permit() as permit:
        assert 1 == policy.machines.slots.running
        permit.failure("transient")
        permit.success()  # the first word stands

    assert ("open", 0) == (policy.state, policy.machines.slots.running)
    with pytest.raises(BreakerOpen):
        async with policy.permit():
            pytest.fail("the block ran")
    with pytest.raises(PolicyUsageError, match="nonsense"):
        permit.failure("nonsense")


async def test_a_block_that_raises_is_judged_by_what_it_raised(make: Make, clock: ManualClock) -> None:
    policy = make(Breaker(Consecutive(1)), Timeout(5))

    with pytest.raises(Away) as raised:
        async with policy.permit():
            raise Away

    assert "open" == policy.state
    assert Action.DEFER is report(raised.value).disposition.action


async def test_a_block_is_cut_off_at_its_limit(make: Make, clock: ManualClock) -> None:
    policy = make(Deadline(9), Timeout(5))

    async def work() -> None:
        async with policy.permit():
            await asyncio.get_running_loop().create_future()

    task = asyncio.ensure_future(work())
    await settle()
    await clock.advance(5)

    assert isinstance(task.exception(), TimeoutError)


async def test_attempts_raise_the_last_error_with_a_note(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(3, delay_seconds=0), idempotent=True)
    tried: list[int] = []

    async def work() -> None:
        async for attempt in policy.attempts():
            async with attempt as permit:
                tried.append(permit.attempt)
                raise Away

    task = asyncio.ensure_future(work())
    for _ in range(5):
        await clock.advance(0.1)

    assert isinstance(task.exception(), Away)
    assert [1, 2, 3] == tried
    assert (3, "attempts") == (report(task.exception()).attempts, report(task.exception()).stop_reason)
    assert any("attempt 3 of 3" in note for note in task.exception().__notes__)


async def test_attempts_that_are_rejected_later_raise_the_dependencys_error(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(3, delay_seconds=0), Breaker(Consecutive(1)), idempotent=True)

    async def work() -> None:
        async for attempt in policy.attempts():
            async with attempt:
                raise Away

    task = asyncio.ensure_future(work())
    for _ in range(5):
        await clock.advance(0.1)

    assert isinstance(task.exception(), Away)
    assert any("rejected" in note for note in task.exception().__notes__)


async def test_a_sync_wait_on_the_event_loops_thread_is_refused(make: Make, clock: ManualClock) -> None:
    """It would stop everything that runs on the loop, the one waited for included."""
    policy = make(Retry(2), Bulkhead(1), idempotent=True)

    def refused() -> None:
        raise Away

    with pytest.raises(PolicyUsageError, match="event loop"):
        policy.call_sync(refused)
    async with policy.permit():
        with pytest.raises(PolicyUsageError, match="event loop"):
            policy.call_sync(int)
    assert (0, 0) == (policy.machines.slots.running, policy.machines.slots.queued)


def test_sync_retries_wait_and_succeed(make: Make, clock: ManualClock) -> None:
    policy = make(
        Deadline(30),
        Retry(3, delay_seconds=1),
        Breaker(),
        RateLimit(100),
        Bulkhead(5),
        Timeout(10),
        sync="cooperative",
        idempotent=True,
    )
    calls: list[float] = []

    @policy
    def work(x: int) -> int:
        calls.append(clock.monotonic())
        if len(calls) < 3:
            raise Away
        return x

    assert 7 == work(7)
    assert calls == sorted(calls)
    assert (3, 0) == (len(calls), policy.machines.slots.running)


async def test_a_classifier_rule_that_raises_gives_permits_back(make: Make, clock: ManualClock) -> None:
    """The user's code runs inside ours; a mistake there must not cost a slot."""

    def mistaken(error: Any) -> bool:
        raise ZeroDivisionError

    policy = make(Bulkhead(1), classify=Classifier().transient(mistaken).result(mistaken))

    with pytest.raises(Away) as raised:
        await policy.call(away)
    with pytest.raises(ZeroDivisionError):
        await policy.call(asyncio.sleep, 0)

    assert 0 == policy.machines.slots.running
    assert any("classifier rule" in note for note in raised.value.__notes__)


async def test_a_timeout_around_retry_bounds_all_attempts_together(make: Make, clock: ManualClock) -> None:
    """Each attempt has the inner limit, and the call the outer one."""
    policy = make(Timeout(12), Retry(9, delay_seconds=0, budget_per_second_min=100), Timeout(5), idempotent=True)
    started: list[float] = []

    async def hang() -> None:
        started.append(clock.monotonic())
        await asyncio.get_running_loop().create_future()

    task = asyncio.ensure_future(policy.result(hang))
    for _ in range(30):
        await settle()
        await clock.advance(0.5)

    result = task.result()
    assert isinstance(result.error, TimeoutError)
    assert [0.0, 5.0, 10.0] == [pytest.approx(at, abs=0.5) for at in started]
    assert "timeout_seconds=12" in str(result.error)


async def test_results_may_be_failures(make: Make, clock: ManualClock) -> None:
    policy = make(
        Fallback("instead"),
        Retry(3, delay_seconds=0),
        Breaker(Consecutive(3)),
        classify=Classifier().result(lambda value: Kind.TRANSIENT if value == "bad" else None),
        idempotent=True,
    )
    task = asyncio.ensure_future(policy.result(asyncio.sleep, 0, "bad"))
    for _ in range(5):
        await clock.advance(0.1)

    result = await task
    assert ("instead", 3, "open") == (result.value, result.attempts, policy.state)


async def test_events_cost_nothing_without_listeners_and_tell_everything_with_one(
    make: Make, clock: ManualClock
) -> None:
    policy = make(Retry(2, delay_seconds=0), Breaker(Consecutive(2)), idempotent=True)
    await policy.call(asyncio.sleep, 0)
    told: list[str] = []
    unsubscribe = events.subscribe(lambda event: told.append(type(event).__name__))

    task = asyncio.ensure_future(policy.result(away))
    for _ in range(5):
        await clock.advance(0.1)
    await task
    await policy.result(away)
    unsubscribe()
    await policy.result(away)

    assert [
        "AttemptEnded",
        "RetryScheduled",
        "BreakerChanged",
        "AttemptEnded",
        "RetryStopped",
        "CallEnded",
        "CallRejectedBy",
        "RetryStopped",
        "CallEnded",
    ] == told


def test_explain_is_stable_text(registry: Registry) -> None:
    """For snapshot tests: what a policy does, without what it did."""
    policy = Policy.standard("psp", RateLimit(50), attempts=2, registry=registry, lint_ignore={"W4"})

    assert (
        "policy psp\n"
        "  deadline deadline_seconds=30 (built-in)\n"
        "  retry attempts=2 (code) delay_seconds=0.1 (built-in) delay_factor=2 (built-in) "
        "delay_seconds_max=20 (built-in) retry_after_seconds_max=60 (built-in) "
        "inline_seconds_max=2 (built-in) budget_ratio=0.2 (built-in) "
        "budget_per_second_min=1 (built-in)\n"
        "  breaker rule=any(rate, consecutive)"
    ) in policy.explain()
    assert "W4: Retry with idempotent unstated" in policy.explain().splitlines()[-1]


def test_the_standard_order_is_the_recommended_one(registry: Registry) -> None:
    policy = Policy.standard("psp", RateLimit(5), Fallback(1), registry=registry, idempotent=True)

    kinds = [part.kind for part in policy._definition.parts]

    assert ["fallback", "deadline", "retry", "breaker", "rate_limit", "bulkhead", "timeout"] == kinds
    assert isinstance(policy.machines.pipeline.retry.inner, Attempt)
    with pytest.raises(PolicyConfigError, match="attempts=0"):
        Policy.standard("other", attempts=0, registry=registry)


async def test_each_part_works_alone(clock: ManualClock) -> None:
    for part in (Retry(2), Breaker(), RateLimit(5), Bulkhead(2), Timeout(5), Deadline(5), Fallback(1)):

        @part
        async def one(x: int) -> int:
            return x

        @part
        def two(x: int) -> int:
            return x

        assert (3, 3) == (await one(3), two(3))
        assert ("one", "two") == (one.__name__, two.__name__)


@pytest.mark.parametrize(
    ("chaos", "ends"),
    [
        (Chaos(1, fault=Away()), Away),
        (Chaos(1, fault=Away), Away),
        (Chaos(1, result="other"), "other"),
        (Chaos(1, behaviour=lambda: "else"), "else"),
        (Chaos(1, latency_seconds=3), "done"),
        (Chaos(1, unknown=True), TimeoutError),
        (Chaos(1, hang=True), TimeoutError),
        (Chaos(1, cancel=True), asyncio.CancelledError),
        (Chaos(0, cancel=True), "done"),
        (Chaos(1, cancel=True, when=lambda: False), "done"),
    ],
    ids=lambda value: repr(value) if isinstance(value, Chaos) else "",
)
async def test_chaos_goes_wrong_in_the_way_it_says(make: Make, clock: ManualClock, chaos: Chaos, ends: Any) -> None:
    policy = make(Timeout(10), chaos)
    calls: list[int] = []

    async def work() -> str:
        calls.append(1)
        return "done"

    task = asyncio.ensure_future(policy.call(work))
    await settle()
    await clock.advance(12)
    await asyncio.wait([task])

    if isinstance(ends, str):
        assert ends == task.result()
    elif ends is asyncio.CancelledError:
        assert task.cancelled()
    else:
        assert isinstance(task.exception(), ends)
    assert (chaos.way in ("unknown", "latency_seconds") or ends == "done") == bool(calls)


async def test_chaos_is_repeatable_and_inert_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy with chaos in it may be shipped."""

    async def run(name: str) -> list[bool]:
        policy = Policy(name, Chaos(0.5, seed=4, fault=Away()), registry=Registry({}))
        return [(await policy.result(asyncio.sleep, 0)).is_ok for _ in range(50)]

    assert [True] * 50 == await run("inert")
    monkeypatch.setenv("SPOOLPROOF_CHAOS", "1")
    first, second = await run("first"), await run("second")

    assert first == second
    assert 10 < sum(first) < 40
    with pytest.raises(PolicyConfigError, match="exactly one"):
        Chaos(0.5)


@pytest.mark.parametrize("parts", [(Deadline(5),), (Deadline(5), Fallback(1)), (Retry(2, delay_seconds=1),)])
async def test_a_call_closed_from_another_context_ends_without_an_error(
    make: Make, clock: ManualClock, parts: Any
) -> None:
    """Coroutines that nobody finishes are closed by the collector, in whatever context that runs."""
    policy = make(*parts, idempotent=True)
    runs: list[int] = []

    async def work() -> None:
        runs.append(1)
        if len(runs) == 1 and isinstance(parts[0], Retry):
            raise Away
        await asyncio.get_running_loop().create_future()

    for start in (policy.using(idempotency_key="k").call, policy.call):
        call = start(work)
        runs.clear()
        contextvars.copy_context().run(call.send, None)
        call.close()

    assert [1] == runs


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"lane": "fast"}, "lane='fast': use critical, normal, background"),
        ({"cost": True}, "cost=True: a finite number above 0"),
        ({"idempotency_key": ""}, "idempotency_key='': a text that is not empty"),
        ({"idempotency_key": 5}, "idempotency_key=5: a text that is not empty"),
    ],
)
def test_an_option_no_call_can_have_is_refused(make: Make, options: dict[str, Any], fault: str) -> None:
    """A wrong lane would be served last, an empty key would make every call the same."""
    with pytest.raises(PolicyUsageError) as raised:
        make(Retry(2)).using(**options)

    assert fault == str(raised.value)


def test_only_functions_are_protected(make: Make) -> None:
    with pytest.raises(TypeError, match=r"^5 is not a function$"):
        make(Retry(2))(5)  # type: ignore[type-var]


class _Turn:
    """Fails once with an unknown outcome, then tells the key it sees."""

    def __init__(self) -> None:
        self.runs = 0

    def sync(self) -> str | None:
        self.runs += 1
        if self.runs == 1:
            raise ConnectionResetError
        return idempotency_key()

    async def __call__(self) -> str | None:
        return self.sync()


async def test_options_reach_every_call_of_a_decorated_function(make: Make, clock: ManualClock) -> None:
    """The key makes it idempotent, so it is tried again although the first outcome is unknown."""
    options = make(Retry(2, delay_seconds=0)).using(idempotency_key="k")
    turn = _Turn()

    call = asyncio.ensure_future(options(turn)())
    await clock.advance(1)

    assert ("k", 2, None) == (call.result(), turn.runs, idempotency_key())


def test_options_reach_every_sync_call_too(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(2, delay_seconds=0))
    decorated, called = _Turn(), _Turn()

    seen = policy.using(idempotency_key="k")(decorated.sync)(), policy.using(idempotency_key="l").call_sync(called.sync)

    assert (("k", "l"), 2, 2, None) == (seen, decorated.runs, called.runs, idempotency_key())


async def test_a_partial_of_an_object_that_is_called_async_is_async(make: Make, clock: ManualClock) -> None:
    """Its wrapper would close the coroutine and refuse it as an awaitable of a sync function."""
    turn = _Turn()
    turn.runs = 1

    assert await make(Retry(2))(functools.partial(turn))() is None


@pytest.mark.parametrize(
    "parts", [[Chaos(1, fault=Away)], [Fallback.last_good(age_seconds_max=5)]], ids=["chaos", "last"]
)
async def test_a_decorated_function_off_the_express_way_has_its_callers_deadline_and_is_told(
    make: Make, clock: ManualClock, told: list[events.Event], parts: list[Any]
) -> None:
    policy = make(*parts, Timeout(60))

    @policy
    async def hang() -> None:
        await clock.sleep(600)

    with deadline.received({"Spoolproof-Deadline-Ms": "3000"}):
        call = asyncio.ensure_future(hang())
        await settle()
    await clock.advance(3)

    chaotic = isinstance(parts[0], Chaos)
    assert (Away if chaotic else DeadlineExceeded) is type(call.exception())
    assert [("transient", 0.0) if chaotic else ("deadline", 3.0)] == [
        (event.result, event.elapsed_seconds) for event in told if isinstance(event, events.CallEnded)
    ]


async def test_a_success_off_the_express_way_is_told(make: Make, clock: ManualClock, told: list[events.Event]) -> None:
    policy = make(Fallback.last_good(age_seconds_max=5))

    @policy
    async def answer() -> str:
        return "answer"

    assert "answer" == await answer()
    assert [("success", "live", 1)] == [
        (event.result, event.source, event.attempts) for event in told if isinstance(event, events.CallEnded)
    ]


def test_a_sync_call_keeps_to_its_callers_deadline(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(9, delay_seconds=2, delay_factor=1), sync="cooperative")
    begun = []

    def refused() -> None:
        begun.append(deadline.remaining())
        clock.sleep_blocking(1)
        raise ConnectionRefusedError

    with deadline.received({"Spoolproof-Deadline-Ms": "1000"}), pytest.raises(ConnectionRefusedError) as raised:
        policy.call_sync(refused)

    assert ([1.0], "deadline") == (begun, report(raised.value).stop_reason)


async def test_a_policy_without_a_breaker_admits_everybody(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(2))

    policy.probe_now("the health check passed")

    assert ("closed", 1.0, 0.0, False) == (
        policy.state,
        policy.admitted_share,
        policy.open_until_seconds,
        policy.gates,
    )
    assert await policy.wait_admission(0) is True
    with pytest.raises(PolicyUsageError, match="'psp' has no Breaker to isolate"):
        policy.isolate("maintenance")


async def test_a_policy_says_what_its_breaker_admits(make: Make, clock: ManualClock) -> None:
    policy = make(
        Breaker(Consecutive(1), open_seconds=5, open_jitter=0, probes_max=4, probe_successes=1, ramp_seconds=10)
    )
    child = policy.for_key("eu")
    shown = []

    for step in (away, None, asyncio.sleep, None):
        if step is not None:
            await child.result(step, *([0] if step is asyncio.sleep else []))
        else:
            await clock.advance(5)
        shown.append((repr(child), round(child.admitted_share, 6)))

    assert [
        ("<Policy psp[eu] open>", 0.0),
        ("<Policy psp[eu] half_open>", 0.0),
        ("<Policy psp[eu] closed>", 0.2),
        ("<Policy psp[eu] closed>", 0.6),
    ] == shown
    assert ("<Policy psp closed>", 4) == (repr(policy), child.probes_max)


async def test_a_health_check_that_passed_has_an_open_breaker_probe_at_once(
    make: Make, clock: ManualClock, told: list[events.Event]
) -> None:
    policy = make(Breaker(Consecutive(1), open_seconds=60))
    policy.probe_now("too early to matter")
    await policy.result(away)

    policy.probe_now("the health check passed")

    assert ("half_open", 0.0) == (policy.state, policy.open_until_seconds)
    changes = [event for event in told if isinstance(event, events.BreakerChanged)]
    assert [("closed", "open"), ("open", "half_open")] == [(one.old, one.new) for one in changes]
    assert "the health check passed" == changes[1].reason


@pytest.mark.parametrize("form", ["call", "permit"])
async def test_an_attempt_cut_off_at_its_own_limit_is_told(
    make: Make, clock: ManualClock, told: list[events.Event], form: str
) -> None:
    """At its caller's it is not: that says nothing of the limit."""
    policy = make(Timeout(5)).for_key("eu")

    async def hang() -> None:
        if form == "call":
            await policy.call(clock.sleep, 600)
        async with policy.permit():
            await clock.sleep(600)

    calls = [asyncio.ensure_future(hang())]
    with deadline.received({"Spoolproof-Deadline-Ms": "4000"}):
        calls.append(asyncio.ensure_future(hang()))
        await settle()
    await clock.advance(5)

    assert [AttemptTimeout, DeadlineExceeded] == [type(call.exception()) for call in calls]
    assert [events.AttemptTimedOut(policy="psp", key="eu", attempt=1, timeout_seconds=5)] == [
        event for event in told if isinstance(event, events.AttemptTimedOut)
    ]
