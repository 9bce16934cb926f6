"""Names, keys and reloads: what is shared, what is kept, what is refused."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from spoolproof.errors import Action, PolicyConfigError
from spoolproof.policies import (
    Adaptive,
    Breaker,
    BreakerOpen,
    Bulkhead,
    Chaos,
    Classifier,
    Consecutive,
    Fallback,
    Hedge,
    Kind,
    Policy,
    Rate,
    RateLimit,
    RateLimited,
    Registry,
    Retry,
    events,
    report,
)
from spoolproof.testing.clock import ManualClock

from .conftest import settle

Make = Callable[..., Policy]


async def away() -> None:
    raise ConnectionRefusedError


def test_a_name_registers_once(registry: Registry) -> None:
    """Two policies that count apart under one name would each see half an outage."""
    first = Policy("psp", Retry(3), Breaker(), registry=registry)

    again = Policy("psp", Retry(3), Breaker(), registry=registry)
    with pytest.raises(PolicyConfigError, match="taken"):
        Policy("psp", Retry(4), Breaker(), registry=registry)

    assert first.machines is again.machines is registry.get("psp").machines


class _Local:
    """What functions are bound to; no two are equal."""

    def rung(self, error: Exception) -> object:
        return self

    def judge(self, value: object) -> Kind | None:
        return Kind.TRANSIENT if value is self else None


def _rung_of(tenant: object) -> Callable[[Exception], object]:
    return lambda error: tenant


def _class_of(tenant: object) -> type[Exception]:
    class Busy(Exception):
        held = tenant

    return Busy


_FACTORIES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "closure": lambda held: {"parts": [Fallback(_rung_of(held))]},
    "closure in a closure": lambda held: {"parts": [Fallback(_rung_of(_rung_of(held)))]},
    "default": lambda held: {"parts": [Fallback(lambda error, held=held: held)]},
    "partial": lambda held: {"parts": [Fallback(partial(_class_of, held))]},
    "bound method": lambda held: {"parts": [Fallback(held.rung)]},
    "constant": lambda held: {"parts": [Fallback.constant(held)]},
    "key": lambda held: {"parts": [Fallback.last_good(age_seconds_max=5, key=held.rung)]},
    "hedge": lambda held: {"parts": [Hedge(on_discard=held.rung)], "idempotent": True},
    "chaos": lambda held: {"parts": [Retry(2), Chaos(1, behaviour=held.rung)]},
    "chaos result": lambda held: {"parts": [Retry(2), Chaos(1, result=held)]},
    "rule": lambda held: {"parts": [Retry(2)], "classify": Classifier().transient(held.rung)},
    "class of a function": lambda held: {"parts": [Retry(2)], "classify": Classifier().transient(_class_of(held))},
    "result rule": lambda held: {"parts": [Retry(2)], "classify": Classifier().result(held.judge)},
    "clock": lambda held: {"parts": [Retry(2)], "clock": held},
}


@pytest.mark.parametrize("build", _FACTORIES.values(), ids=_FACTORIES)
def test_two_policies_whose_functions_hold_different_things_do_not_share_a_name(
    registry: Registry, build: Callable[[Any], dict[str, Any]]
) -> None:
    """Made by one factory they look the same, and tenant B would get tenant A's answer."""
    first, second = (ManualClock(), ManualClock()) if build is _FACTORIES["clock"] else (_Local(), _Local())

    def client(held: object) -> Policy:
        given = build(held)
        return Policy("billing", *given.pop("parts"), registry=registry, lint_ignore={"W4"}, **given)

    policy = client(first)
    with pytest.raises(PolicyConfigError) as raised:
        client(second)

    text = raised.value.faults[0]
    line = client.__code__.co_firstlineno + 2
    assert 2 == text.count(f"{__file__}:{line} (called from {__file__}:")
    assert policy.machines is registry.get("billing").machines
    if build is not _FACTORIES["class of a function"]:
        assert policy.machines is client(first).machines  # the same again is the same


def test_a_function_that_holds_itself_is_compared_and_the_same(registry: Registry) -> None:
    def client() -> Policy:
        def rung(error: object) -> object:
            return rung if error is None else error

        return Policy("billing", Fallback(rung), registry=registry)

    assert client().machines is client().machines


def test_a_wrong_environment_is_reported_and_does_not_stop_the_import() -> None:
    """It belongs into the start-up report with all the others; until then the policy works as declared."""
    environ = {
        "SPOOLPROOF_POLICY_PSP_ATTEMPTS": "many",
        "SPOOLPROOF_POLICY_PSP_RATE": "5",
        "SPOOLPROOF_POLICY_PSP_ATEMPTS": "5",
        "SPOOLPROOF_POLICY_DEFAULT_TIMEOUT_SECONDS": "30s",
        "CB_RESET_TIMEOUT": "30s",
        "CB_FAILURE_THRESHOLD": "1.5",
    }
    registry = Registry(environ)

    policy = Policy("psp", Retry(4), Breaker(), registry=registry)

    faults = registry.check()
    assert 4 == policy._definition.values.attempts
    assert 6 == len(faults)
    for variable in ("PSP_ATTEMPTS", "PSP_ATEMPTS", "TIMEOUT_SECONDS", "CB_RESET_TIMEOUT", "CB_FAILURE_THRESHOLD"):
        assert any(variable in fault for fault in faults), variable
    assert any("rate=5" in fault for fault in faults)


@pytest.mark.parametrize("state", ["closed", "open", "half_open", "isolated"])
async def test_q21_a_reload_keeps_state_and_open_time(clock: ManualClock, state: str) -> None:
    """With calls in flight, which end in the pipeline they began in."""
    registry = Registry({})
    policy = Policy("psp", Breaker(Consecutive(2), open_seconds=10, open_jitter=0), Bulkhead(5), registry=registry)
    release = asyncio.Event()
    running = asyncio.ensure_future(policy.call(release.wait))
    await settle()
    if state in ("open", "half_open"):
        await asyncio.gather(policy.result(away), policy.result(away))
    if state == "half_open":
        await clock.advance(10)
    if state == "isolated":
        policy.isolate("maintenance")
    before = (policy.state, policy.open_until_seconds)

    registry.reload({"SPOOLPROOF_POLICY_PSP_CONSECUTIVE": "7", "SPOOLPROOF_POLICY_PSP_RUNNING_MAX": "1"})
    after = (policy.state, policy.open_until_seconds)
    release.set()
    await running

    assert (state, before) == (before[0], after)
    assert (1, 0) == (policy.machines.slots.limit, policy.machines.slots.running)
    assert 7 == policy._definition.values.consecutive


def test_q21_a_faulty_reload_changes_nothing(registry: Registry) -> None:
    policies = [Policy(name, Retry(3), registry=registry) for name in ("a", "b")]

    with pytest.raises(PolicyConfigError) as raised:
        registry.reload({"SPOOLPROOF_POLICY_A_ATTEMPTS": "5", "SPOOLPROOF_POLICY_B_ATTEMPTS": "99"})

    assert ["SPOOLPROOF_POLICY_B_ATTEMPTS" in fault for fault in raised.value.faults] == [True]
    assert [3, 3] == [policy.machines.pipeline.retry.settings.attempts for policy in policies]


def test_q21_a_reload_bounds_an_adaptive_limit_anew(registry: Registry) -> None:
    """Whoever lowers limit_max in an incident must be heard before a restart."""
    policy = Policy("psp", Bulkhead(Adaptive(limit_initial=20)), registry=registry)
    slots = policy.machines.slots
    assert slots is not None

    registry.reload({"SPOOLPROOF_POLICY_PSP_LIMIT_MAX": "5"})
    lowered = slots.limit
    registry.reload({"SPOOLPROOF_POLICY_PSP_LIMIT_MIN": "8"})

    assert (5, 8) == (lowered, slots.limit)


def test_q22_open_children_are_never_forgotten(registry: Registry, clock: ManualClock) -> None:
    """Memory is bounded, and an outage is no reason to forget an outage."""
    policy = Policy("psp", Breaker(Consecutive(1)), registry=registry)
    for number in range(5):
        with pytest.raises(ConnectionRefusedError):
            policy.for_key(f"bad {number}").call_sync(_refused)

    for number in range(3_000):
        policy.for_key(f"host {number}").call_sync(int)

    assert 1024 >= len(policy._definition.children())
    assert ["open"] * 5 == [policy.for_key(f"bad {number}").state for number in range(5)]


def test_q22_when_all_are_pinned_further_keys_share_one(registry: Registry, told: list[events.Event]) -> None:
    registry.reload({})
    policy = Policy("psp", Breaker(Consecutive(1)), registry=registry)
    registry.reload({"SPOOLPROOF_POLICY_PSP_KEYS_MAX": "3"})
    for number in range(3):
        with pytest.raises(ConnectionRefusedError):
            policy.for_key(str(number)).call_sync(_refused)

    first, second = policy.for_key("x"), policy.for_key("y")

    assert first is second
    assert any(isinstance(event, events.KeysExhausted) for event in told)


def test_looking_for_a_child_to_forget_tells_nobody_under_the_lock_of_all_keys(
    clock: ManualClock, registry: Registry
) -> None:
    """A listener that waits for a thread which asks for a key would wait for ever."""
    policy = Policy("psp", Breaker(Consecutive(1), open_jitter=0), registry=registry)
    registry.reload({"SPOOLPROOF_POLICY_PSP_KEYS_MAX": "1"})
    first = policy.for_key("a")
    with pytest.raises(ConnectionRefusedError):
        first.call_sync(_refused)
    told: list[str] = []
    first.watch(lambda change: told.append(change.new))
    clock.sleep_blocking(5)

    policy.for_key("b")

    assert [] == told
    assert ["b"] == list(policy._definition._children)
    assert ("half_open", ["half_open"]) == (first.state, told)


def _dead_keys(registry: Registry, keys: str) -> Policy:
    policy = Policy("hooks", Breaker(Consecutive(1), open_jitter=0), registry=registry, lint_ignore={"W1"})
    registry.reload({"SPOOLPROOF_POLICY_HOOKS_KEYS_MAX": str(len(keys))})
    for key in keys:
        policy.for_key(key).result_sync(_refused)
    return policy


def test_dead_keys_that_nobody_calls_any_more_take_no_room(registry: Registry, clock: ManualClock) -> None:
    """Their breakers wait for a probe that never comes; pinned, they would leave one breaker to all new keys."""
    policy = _dead_keys(registry, "abcd")
    clock.sleep_blocking(30 * 86_400)

    policy.for_key("e").result_sync(_refused)

    assert ("f", 7) == (policy.for_key("f").key, policy.for_key("f").call_sync(int, "7"))
    assert {"e": "open", "f": "closed"} == {key: child.state for key, child in policy._definition._children.items()}


def test_of_dead_keys_without_any_other_the_one_unused_for_longest_makes_room(
    registry: Registry, clock: ManualClock
) -> None:
    """A living key that shared a breaker with dead ones would be rejected for their sake."""
    policy = _dead_keys(registry, "abc")
    assert "(overflow)" == policy.for_key("early").key  # all of them are open
    clock.sleep_blocking(5)
    policy.for_key("a")

    new = policy.for_key("new")

    assert ("new", ["a", "c", "new"]) == (new.key, sorted(policy._definition._children))


@pytest.mark.parametrize("held_by", ["probe", "isolation", "cooldown"])
def test_a_key_that_still_rejects_or_probes_keeps_its_place(
    registry: Registry, clock: ManualClock, held_by: str
) -> None:
    policy = _dead_keys(registry, "a")
    child = policy.for_key("a")
    clock.sleep_blocking(1_000)
    entered: list[str | None] = []

    def probe() -> None:
        entered.append(policy.for_key("b").key)

    if held_by == "probe":
        child.call_sync(probe)
    else:
        if held_by == "isolation":
            child.isolate("maintenance", ttl_seconds=60)
        else:
            child.machines.cooldown.start(clock.monotonic(), 60)
        probe()

    assert ["(overflow)"] == entered
    assert policy.for_key("a") is child


async def test_a_child_in_use_is_found_again_although_it_was_forgotten(registry: Registry, clock: ManualClock) -> None:
    policy = Policy("psp", Breaker(Consecutive(1)), registry=registry)
    gate = asyncio.get_running_loop().create_future()
    running = asyncio.ensure_future(policy.for_key("slow").call(lambda: gate))
    await settle()
    await clock.advance(901)
    policy.for_key("other")
    assert "slow" not in policy._definition.children()

    gate.set_exception(ConnectionRefusedError())
    await asyncio.gather(running, return_exceptions=True)

    assert "open" == policy.for_key("slow").state


def test_a_keyed_child_costs_less_than_four_kib(registry: Registry) -> None:
    policy = Policy.standard("psp", registry=registry, idempotent=True)
    policy.for_key("first").call_sync(int)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    children = [policy.for_key(f"key {number}") for number in range(500)]
    for child in children:
        child.call_sync(int)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    assert used / 500 < 4096


async def test_a_drain_ends_every_back_off_and_defers(registry: Registry, clock: ManualClock) -> None:
    """What waits when the process ends is better done by the next one."""
    policy = Policy("psp", Retry(3, delay_seconds=60, delay_seconds_max=60), registry=registry, idempotent=True)
    waiting = asyncio.ensure_future(policy.result(away))
    await settle()

    registry.drain()
    await settle()

    assert waiting.done()
    kept = report(waiting.result().error)
    assert ("draining", Action.DEFER, 1) == (kept.stop_reason, kept.disposition.action, kept.attempts)


def test_a_file_sets_policies_and_adds_presets(tmp_path: Path) -> None:
    file = tmp_path / "policies.toml"
    file.write_text(
        "[policies.psp]\npreset = 'ours'\nattempts = 5\n[presets.ours]\nconsecutive = 2\nopen_seconds = 7\n"
    )
    registry = Registry({"SPOOLPROOF_POLICIES_FILE": str(file)})

    policy = Policy("psp", Retry(2), Breaker(), registry=registry)

    values = policy._definition.values
    assert (5, 2, 7) == (values.attempts, values.consecutive, values.open_seconds)
    assert [] == registry.check()
    assert "consecutive" == policy._definition.resolved.rule


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("[policies.psp", "policies.toml"),
        ("[policies.psp]\nattempts = 99", "attempts=99"),
        ("[policies.psp]\nnonsense = 1", "nonsense"),
        ("[policy.psp]\nattempts = 2", "policy"),
        ("[policies]\npsp = 3", "psp=3"),
    ],
)
def test_every_fault_of_a_file_is_reported(tmp_path: Path, content: str, part: str) -> None:
    file = tmp_path / "policies.toml"
    file.write_text(content)
    registry = Registry({"SPOOLPROOF_POLICIES_FILE": str(file)})
    Policy("psp", Retry(2), registry=registry)

    assert any(part in fault for fault in registry.check())


def test_settings_of_policies_that_are_elsewhere_are_no_fault(tmp_path: Path) -> None:
    """Services share environments and files; one that refused to start over another's settings would be a trap."""
    file = tmp_path / "policies.toml"
    file.write_text("[policies.other]\nattempts = 2\n")
    registry = Registry({"SPOOLPROOF_POLICIES_FILE": str(file), "SPOOLPROOF_POLICY_OTHER_ATTEMPTS": "3"})
    Policy("psp", Retry(2), registry=registry)

    assert [] == registry.check()


def test_names_that_share_a_variable_are_a_fault() -> None:
    registry = Registry({"SPOOLPROOF_POLICY_A_B_ATTEMPTS": "2"})
    for name in ("a.b", "a-b"):
        Policy(name, Retry(3), registry=registry)

    assert ["rename" in fault for fault in registry.check()] == [True]


def test_doubtful_aliases_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The unit is milliseconds, and a threshold is a number of failures: both are easily mistaken."""
    registry = Registry({"CB_RESET_TIMEOUT": "500", "CB_FAILURE_THRESHOLD": "50"})
    for name in ("a", "b"):
        Policy(name, Breaker(), registry=registry)

    doubts = [record.getMessage() for record in caplog.records if "doubtful" in record.getMessage()]
    assert 2 == len(doubts)
    assert any("50%" in doubt for doubt in doubts)
    assert any("milliseconds" in doubt for doubt in doubts)


async def test_a_reload_keeps_the_last_good_answers(clock: ManualClock) -> None:
    """What the fallback needs in an outage must not be forgotten by whoever adjusts a number during it."""
    registry = Registry({})
    policy = Policy("psp", Fallback.last_good(age_seconds_max=60), Retry(2), registry=registry)
    answers: list[object] = [ConnectionRefusedError(), ConnectionRefusedError(), "good"]

    async def ask() -> object:
        answer = answers.pop()
        if isinstance(answer, Exception):
            raise answer
        return answer

    await policy.call(ask)
    registry.reload({"SPOOLPROOF_POLICY_PSP_ATTEMPTS": "1"})

    assert ("good", "stale") == ((result := await policy.result(ask)).value, result.source)


def test_a_strong_source_wins_over_a_weaker_one(tmp_path: Path) -> None:
    file = tmp_path / "policies.toml"
    file.write_text("[policies.psp]\nopen_seconds = 4\n")
    given: list[tuple[dict[str, str], str | None, dict[str, Any], float]] = [
        ({}, None, {}, 5.0),
        ({"SPOOLPROOF_POLICY_DEFAULT_OPEN_SECONDS": "6"}, None, {}, 6.0),
        ({"CB_RESET_TIMEOUT": "7000"}, None, {}, 7.0),
        ({"SPOOLPROOF_POLICY_DEFAULT_OPEN_SECONDS": "6"}, "database", {}, 20.0),
        ({}, "database", {"open_seconds": 9}, 9.0),
        ({"SPOOLPROOF_POLICIES_FILE": str(file)}, "database", {"open_seconds": 9}, 4.0),
        ({"SPOOLPROOF_POLICIES_FILE": str(file), "SPOOLPROOF_POLICY_PSP_OPEN_SECONDS": "3"}, None, {}, 3.0),
    ]

    found = [
        Policy("psp", Breaker(**code), preset=preset, registry=Registry(environ))._definition.values.open_seconds
        for environ, preset, code, _ in given
    ]

    assert [expected for *_, expected in given] == found


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ((Breaker(Rate(0.5, window_calls=10, calls_min=20)),), "E2"),
        ((Retry(2), Retry(3)), "E6"),
    ],
)
def test_impossible_policies_are_refused(registry: Registry, parts: Any, code: str) -> None:
    with pytest.raises(PolicyConfigError, match=code):
        Policy("psp", *parts, registry=registry)


def test_a_setting_that_two_parts_share_has_one_value(registry: Registry) -> None:
    with pytest.raises(PolicyConfigError, match="share"):
        Policy("psp", RateLimit(5, queue_max=3), Bulkhead(2, queue_max=9), registry=registry)


def test_all_faults_are_listed_at_once(registry: Registry) -> None:
    with pytest.raises(PolicyConfigError) as raised:
        Breaker(Rate(2.0, calls_min=True), open_seconds=float("nan"), probes_max=0, nonsense=1)

    fields = [fault.split("=")[0] for fault in raised.value.faults]
    assert ["calls_min", "failure_rate", "nonsense", "open_seconds", "probes_max"] == sorted(set(fields))
    assert isinstance(raised.value, ValueError)


async def test_an_isolated_policy_refuses_until_it_is_released(make: Make, clock: ManualClock) -> None:
    policy = make(Breaker(probe_successes=1))
    release = policy.isolate("maintenance", ttl_seconds=60)
    with pytest.raises(BreakerOpen, match="maintenance"):
        await policy.call(asyncio.sleep, 0)
    waiting = asyncio.ensure_future(policy.wait_admission(100))
    await settle()

    release()
    await settle()

    assert waiting.result() is True
    await policy.call(asyncio.sleep, 0)
    assert "closed" == policy.state


async def test_waiting_for_admission_ends_when_the_breaker_probes(make: Make, clock: ManualClock) -> None:
    policy = make(Breaker(Consecutive(1), open_seconds=5, open_jitter=0))
    await policy.result(away)
    short, long = (asyncio.ensure_future(policy.wait_admission(seconds)) for seconds in (2, 60))
    await clock.advance(5)

    assert (False, True) == (await short, await long)


class _Overtaken:
    """A lock before which, at its n-th use, somebody on another thread comes."""

    def __init__(self, lock: Any, uses: int, act: Callable[[], object]) -> None:
        self._lock = lock
        self._uses = uses
        self._act = act

    def __enter__(self) -> None:
        self._uses -= 1
        if self._uses == 0:
            self._act()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.mark.parametrize("uses", range(1, 7))
async def test_waiting_for_admission_misses_no_release(make: Make, clock: ManualClock, uses: int) -> None:
    """Whenever another thread releases: a service would wait out an isolation that is over, up to a day."""
    policy = make(Breaker(probe_successes=1))
    release = policy.isolate("maintenance", ttl_seconds=3_600)
    machine = policy.machines.circuit
    assert machine is not None
    machine.lock = _Overtaken(machine.lock, uses, release)  # type: ignore[assignment]

    waiting = asyncio.ensure_future(policy.wait_admission(7_200))
    await settle()
    release()  # at the latest
    await settle()

    assert waiting.done()
    assert waiting.result() is True


async def test_waiting_for_admission_bears_two_changes_at_once(make: Make, clock: ManualClock) -> None:
    policy = make(Breaker(probe_successes=1))
    release = policy.isolate("maintenance", ttl_seconds=3_600)
    waiting = asyncio.ensure_future(policy.wait_admission(7_200))
    await settle()
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

    release()
    policy.reset("they are done")
    await settle()

    assert (True, []) == (waiting.result(), faults)


async def test_waiting_for_admission_notices_that_a_reload_let_everybody_in(
    registry: Registry, clock: ManualClock
) -> None:
    """Another mode is no transition, so nobody is told."""
    policy = Policy("psp", Breaker(), registry=registry)
    policy.isolate("maintenance", ttl_seconds=3_600)
    waiting = asyncio.ensure_future(policy.wait_admission(7_200))
    await clock.advance(1)

    registry.reload({"SPOOLPROOF_POLICY_PSP_MODE": "observe"})
    await clock.advance(5)

    assert waiting.result() is True


_DAMAGES: list[dict[str, Any]] = [
    {"version": 2},
    {"saved_at": 0.0},
    {"cooldown_until": 10**400},
    {"cooldown_until": "soon"},
]


@pytest.mark.parametrize(
    ("parts", "damage"),
    [
        *[([Breaker()], damage) for damage in [*_DAMAGES, {"state": 5}]],
        *[([RateLimit(5)], damage) for damage in _DAMAGES],
    ],
)
def test_q23_a_damaged_snapshot_starts_no_cooldown_either(
    make: Make, told: list[events.Event], parts: Any, damage: dict[str, Any]
) -> None:
    """All of it is ignored, with one event, whatever parts there are; and it never raises."""
    policy = make(*parts)
    good = policy.snapshot()
    good["cooldown_until"] = good["saved_at"] + 60

    policy.restore(good | damage)

    assert 0.0 == policy.machines.cooldown.until
    assert ["RestoreIgnored"] == [type(event).__name__ for event in told]


@pytest.mark.parametrize("parts", [(Breaker(),), (RateLimit(5),)])
def test_a_cooldown_comes_back_with_what_it_has_left(make: Make, parts: Any) -> None:
    policy = make(*parts)
    kept = policy.snapshot()

    policy.restore(kept)
    assert 0.0 == policy.machines.cooldown.until
    policy.restore(kept | {"cooldown_until": kept["saved_at"] + 60})

    assert 60.0 == pytest.approx(policy.machines.cooldown.until)


def _refused() -> None:
    raise ConnectionRefusedError


def test_a_child_that_is_held_is_watched_and_saved_though_it_is_kept_no_more(
    clock: ManualClock, registry: Registry
) -> None:
    """A gate holds its child; what it knows of an outage has to outlive the process."""
    policy = Policy("psp", Breaker(), registry=registry)
    registry.reload({"SPOOLPROOF_POLICY_PSP_KEYS_MAX": "1"})
    held = policy.for_key("held")
    policy.for_key("other")
    assert {None, "other"} == {one.key for one in registry.all()}

    held.isolate("maintenance")

    assert {None, "held", "other"} == {one.key for one in registry.all()}
    assert policy.for_key("held") is held


def test_asking_again_for_held_children_keeps_no_more_than_the_maximum(registry: Registry) -> None:
    policy = Policy("psp", Breaker(), registry=registry)
    registry.reload({"SPOOLPROOF_POLICY_PSP_KEYS_MAX": "3"})
    held = [policy.for_key(str(number)) for number in range(10)]

    again = [policy.for_key(str(number)) for number in range(10)]

    assert held == again
    assert 3 == len(policy._definition._children)


def test_a_held_child_is_itself_where_further_keys_share_one(registry: Registry) -> None:
    """Whoever holds it and whoever asks for its key must count in the same place."""
    policy = Policy("psp", Breaker(), registry=registry)
    registry.reload({"SPOOLPROOF_POLICY_PSP_KEYS_MAX": "1"})
    held = policy.for_key("held")
    pinned = policy.for_key("pinned")

    pinned.isolate("maintenance")

    assert policy.for_key("held") is held
    assert "(overflow)" == policy.for_key("other").key
    assert ["pinned"] == list(policy._definition._children)


def test_room_for_a_child_that_another_thread_takes_is_made_again(registry: Registry) -> None:
    """Else as many threads as ask at once would each keep one child more than may be."""
    policy = Policy("psp", Breaker(), registry=registry)
    registry.reload({"SPOOLPROOF_POLICY_PSP_KEYS_MAX": "1"})
    definition = policy._definition
    definition._lock = _Overtaken(definition._lock, 2, lambda: policy.for_key("quick"))  # type: ignore[assignment]

    child = policy.for_key("slow")

    assert ("slow", ["slow"]) == (child.key, list(definition._children))


def test_a_reload_changes_a_rate_and_keeps_what_was_taken(registry: Registry, clock: ManualClock) -> None:
    policy = Policy("psp", RateLimit(1, burst=2, wait_seconds_max=0), registry=registry)
    tokens = policy.machines.tokens
    policy.call_sync(int)

    registry.reload({"SPOOLPROOF_POLICY_PSP_RATE": "0.01"})

    assert policy.machines.tokens is tokens
    policy.call_sync(int)
    clock.sleep_blocking(99.9)  # at the old rate both would be back
    with pytest.raises(RateLimited):
        policy.call_sync(int)
    clock.sleep_blocking(0.2)
    policy.call_sync(int)
