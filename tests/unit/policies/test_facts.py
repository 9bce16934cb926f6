"""Processes of one service tell each other of isolations, resets and cooldowns; each registry here is a process."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoolproof.errors import PolicyError
from spoolproof.maintenance.fact import apply_facts, facts_in, read_fact
from spoolproof.policies import Breaker, Consecutive, Policy, Registry, Retry, events
from spoolproof.testing.clock import ManualClock

REGISTRIES = 3


def make_process(**settings: Any) -> tuple[Registry, Policy]:
    registry = Registry(environ={})
    policy = Policy("psp", Retry(1), Breaker(Consecutive(1), **settings), registry=registry)
    return registry, policy


class RateLimitedError(Exception):
    status = 429

    def __init__(self, seconds: int) -> None:
        self.headers = {"Retry-After": str(seconds)}


def test_an_isolation_made_here_is_there_too_until_it_is_released_here(clock: ManualClock) -> None:
    here, policy = make_process()
    there, twin = make_process()
    release = policy.isolate("maintenance", ttl_seconds=900)

    apply_facts(there, facts_in(here))
    apply_facts(there, facts_in(here))
    assert twin.state == "isolated"
    assert [899.0, 900.0] == pytest.approx([899.0, twin.open_until_seconds])

    release()
    apply_facts(there, facts_in(here))
    assert twin.state == "half_open"


def test_an_isolation_released_there_is_not_taken_over_again(clock: ManualClock) -> None:
    """What `here` still tells is older than the release."""
    here, policy = make_process()
    there, twin = make_process()
    policy.isolate("maintenance", ttl_seconds=900)
    apply_facts(there, facts_in(here))
    twin.reset("they are done")

    apply_facts(there, facts_in(here))
    assert twin.state == "closed"

    apply_facts(here, facts_in(there))
    assert policy.state == "closed"


def test_an_isolation_of_somebody_else_outlives_a_reset_that_does_not_know_it(clock: ManualClock) -> None:
    here, policy = make_process()
    there, twin = make_process()
    policy.reset("done")
    twin.isolate("they deploy")

    apply_facts(there, facts_in(here))

    assert twin.state == "isolated"


def test_an_isolation_kept_in_a_snapshot_is_known_again_by_its_release(clock: ManualClock) -> None:
    """A process that restarts while isolated takes the isolation from the store; the one that made it is another."""
    here, policy = make_process()
    there, twin = make_process()
    release = policy.isolate("maintenance", ttl_seconds=900)
    twin.restore(policy.snapshot())
    assert twin.state == "isolated"

    release()
    apply_facts(there, facts_in(here))

    assert twin.state == "half_open"


def test_a_reset_closes_the_others_once(clock: ManualClock) -> None:
    here, policy = make_process()
    there, twin = make_process()
    fail(twin)
    policy.reset("the dependency is back")

    apply_facts(there, facts_in(here))
    assert twin.state == "closed"

    fail(twin)
    apply_facts(there, facts_in(here))
    assert twin.state == "open"


def test_a_reset_is_told_for_ten_minutes(clock: ManualClock) -> None:
    here, policy = make_process()
    policy.reset("the dependency is back")

    clock.sleep_blocking(599)
    assert ["reset"] == [fact["kind"] for fact in facts_in(here)]
    clock.sleep_blocking(1)
    assert [] == facts_in(here)


def test_a_cooldown_is_kept_by_all_and_never_grows_by_being_told(clock: ManualClock) -> None:
    here, policy = make_process()
    there, twin = make_process()
    limit(policy, 60)

    for _ in range(10):
        apply_facts(there, facts_in(here))
        apply_facts(here, facts_in(there))

    for one in (policy, twin):
        assert one.machines.cooldown.until - clock.monotonic() == pytest.approx(60, abs=0.001)


def test_a_cooldown_is_heard_up_to_the_own_maximum(clock: ManualClock) -> None:
    here, policy = make_process()
    there, twin = make_process()
    limit(policy, 60)
    [fact] = facts_in(here)

    apply_facts(there, [fact | {"at": fact["at"] + 10_000}])

    assert twin.machines.cooldown.until - clock.monotonic() == 300


def test_a_cooldown_is_told_by_a_policy_without_a_breaker(clock: ManualClock) -> None:
    registry = Registry(environ={})
    policy = Policy("plain", Retry(1), registry=registry)
    limit(policy, 60)

    [fact] = facts_in(registry)

    assert ("cooldown", "plain", clock.now().timestamp() + 60) == (fact["kind"], fact["policy"], fact["at"])


@pytest.mark.parametrize(
    ("kind", "age"), [("isolation", 0), ("isolation", 60), ("cooldown", 0), ("reset", 600)], ids=str
)
def test_a_fact_that_is_over_changes_nothing(clock: ManualClock, kind: str, age: float) -> None:
    """One that was long on its way: its time ended by itself."""
    there, twin = make_process()
    fail(twin)

    apply_facts(there, [GOOD | {"kind": kind, "at": clock.now().timestamp() - age}])

    assert ("open", 0.0, None) == (twin.state, twin.machines.cooldown.until, twin.machines.last_reset)


@pytest.mark.parametrize(
    ("kind", "told", "known", "expected"),
    [
        ("isolation", {}, {}, False),
        ("isolation", {"is_released": True}, {}, True),
        ("isolation", {"is_released": True}, {"is_released": True}, False),
        ("isolation", {}, {"is_released": True}, False),
        ("isolation", {"at": 99.0}, {}, False),
        ("reset", {}, {}, False),
        ("reset", {"at": 5.1}, {}, True),
        ("reset", {"id": "2"}, {}, True),
        ("reset", {"id": "0"}, {}, False),
        ("cooldown", {"at": 6.0}, {}, False),
        ("cooldown", {"at": 6.1}, {}, True),
    ],
)
def test_a_fact_is_news_if_it_says_more(kind: str, told: Any, known: Any, expected: bool) -> None:
    """Two processes that have told each other everything must come to rest."""
    usual = GOOD | {"kind": kind, "at": 5.0}
    fact = read_fact(usual | told)

    assert expected is fact.is_news_to(read_fact(usual | known))
    assert fact.is_news_to(None)


def test_a_key_is_told_of_by_itself(clock: ManualClock) -> None:
    here, policy = make_process()
    there, twin = make_process()
    policy.for_key("berlin").isolate("maintenance")

    apply_facts(there, facts_in(here))

    assert (twin.state, twin.for_key("berlin").state, twin.for_key("paris").state) == ("closed", "isolated", "closed")


def test_verdicts_are_not_told(clock: ManualClock) -> None:
    """One bad node must not open everyone's breaker."""
    here, policy = make_process()
    fail(policy)

    assert policy.state == "open"
    assert [] == facts_in(here)


GOOD = {"kind": "isolation", "policy": "psp", "key": None, "id": "1", "reason": "no", "at": 0.0, "is_released": False}


@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        (None, "TypeError: it is not a mapping"),
        ({}, "ValueError: it lacks at, id, is_released, key, kind, policy, reason"),
        (GOOD | {"kind": "verdict"}, "ValueError: kind 'verdict'"),
        (GOOD | {"policy": 1}, "TypeError: 1 is not text"),
        (GOOD | {"key": 1}, "TypeError: 1 is not text"),
        (GOOD | {"id": None}, "TypeError: None is not text"),
        (GOOD | {"reason": None}, "TypeError: None is not text"),
        (GOOD | {"at": "soon"}, "ValueError: 'soon' is not a time"),
        (GOOD | {"at": float("nan")}, "ValueError: nan is not a time"),
        (GOOD | {"at": True}, "ValueError: True is not a time"),
        (GOOD | {"is_released": 0}, "TypeError: is_released 0"),
    ],
)
def test_what_cannot_be_read_is_ignored_with_an_event(
    clock: ManualClock, told: list[events.Event], fact: Any, reason: str
) -> None:
    there, twin = make_process()

    apply_facts(there, [fact, GOOD | {"at": clock.now().timestamp() + 60}])

    assert [reason] == [one.reason for one in told if isinstance(one, events.RestoreIgnored)]
    assert twin.state == "isolated"


@pytest.mark.parametrize(("kind", "seconds"), [("isolation", 86_461), ("reset", 61), ("cooldown", 86_461)])
def test_what_nobody_can_have_said_yet_is_passed_over(clock: ManualClock, kind: str, seconds: float) -> None:
    """A wrong clock or a damaged row: it would isolate again and again, or keep every later reset from being heard."""
    there, twin = make_process()
    fail(twin)
    fact = GOOD | {"kind": kind, "at": clock.now().timestamp() + seconds}

    apply_facts(there, [fact])

    assert twin.state == "open"
    assert twin.machines.cooldown.until == 0
    assert [] == facts_in(there)


@pytest.mark.parametrize("kind", ["isolation", "reset", "cooldown"])
def test_a_fact_of_a_policy_that_is_not_here_or_has_no_breaker_changes_nothing(clock: ManualClock, kind: str) -> None:
    there = Registry(environ={})
    policy = Policy("plain", Retry(1), registry=there)
    fact = GOOD | {"kind": kind, "at": clock.now().timestamp() + 60}

    apply_facts(there, [fact, fact | {"policy": "plain"}])

    assert policy.state == "closed"
    assert (policy.machines.cooldown.until > 0) == (kind == "cooldown")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["isolate", "release", "reset", "wait", "tell"]),
            st.integers(0, REGISTRIES - 1),
            st.integers(0, REGISTRIES - 1),
        ),
        max_size=25,
    )
)
def test_processes_that_have_heard_each_other_agree_on_who_is_isolated(steps: list[tuple[str, int, int]]) -> None:
    clock = ManualClock()
    with clock.active():
        processes = [make_process() for _ in range(REGISTRIES)]
        handles: list[Any] = []
        for what, one, other in steps:
            registry, policy = processes[one]
            if what == "isolate":
                handles.append(policy.isolate("by hand", ttl_seconds=60))
            elif what == "release" and handles:
                handles.pop(other % len(handles))()
            elif what == "reset":
                policy.reset("by hand")
            elif what == "wait":
                clock.sleep_blocking(17)
            else:
                apply_facts(processes[other][0], facts_in(registry))

        for _ in range(REGISTRIES):
            told = [fact for registry, _ in processes for fact in facts_in(registry)]
            for registry, _ in processes:
                apply_facts(registry, told)

        assert len({policy.state == "isolated" for _, policy in processes}) == 1
        active = [{one.id for one in policy.machines.circuit.isolations.active} for _, policy in processes]
        assert active[0] == active[1] == active[2]
        assert len({policy.machines.last_reset for _, policy in processes}) == 1


def fail(policy: Policy) -> None:
    def refuse() -> None:
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        policy.call_sync(refuse)


def limit(policy: Policy, seconds: int) -> None:
    def ask_to_wait() -> None:
        raise RateLimitedError(seconds)

    with pytest.raises((RateLimitedError, PolicyError)):
        policy.call_sync(ask_to_wait)
