"""What is declared: which declarations are the same, which are impossible, and where settings come from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spoolproof.policies import (
    Adaptive,
    Breaker,
    Bulkhead,
    Classifier,
    Consecutive,
    Fallback,
    Hedge,
    Policy,
    PolicyConfigError,
    Rate,
    RateLimit,
    Registry,
    Retry,
    Timeout,
    events,
)
from spoolproof.policies.settings import config


def _handle(error: Exception) -> str:
    return "handled"


_ONE = lambda error: 1  # noqa: E731
_TWO = lambda error: 2  # noqa: E731


def _discard(result: object) -> None:
    return None


# --- the same name ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda: {"parts": [Fallback("a")]}, lambda: {"parts": [Fallback("b")]}),
        (lambda: {"parts": [Fallback(_handle)]}, lambda: {"parts": [Fallback(_discard)]}),
        (lambda: {"parts": [Fallback(lambda error: 1)]}, lambda: {"parts": [Fallback(_ONE, 2)]}),
        (lambda: {"parts": [Fallback(_ONE)]}, lambda: {"parts": [Fallback(_TWO)]}),
        (
            lambda: {"parts": [Fallback.last_good(age_seconds_max=5)]},
            lambda: {"parts": [Fallback.last_good(age_seconds_max=50)]},
        ),
        (lambda: {"parts": [Retry(3)]}, lambda: {"parts": [Retry(3, nested="allow")]}),
        (
            lambda: {"parts": [Breaker(Rate() | Consecutive())]},
            lambda: {"parts": [Breaker(Rate() & Consecutive())]},
        ),
        (lambda: {"parts": [Hedge()]}, lambda: {"parts": [Hedge(on_discard=_discard)]}),
        (lambda: {"parts": [Bulkhead()]}, lambda: {"parts": [Bulkhead(Adaptive())]}),
        (
            lambda: {"parts": [Retry(3)]},
            lambda: {"parts": [Retry(3)], "classify": Classifier().permanent(LookupError)},
        ),
        (
            lambda: {"parts": [Retry(3)], "classify": Classifier().transient(LookupError)},
            lambda: {"parts": [Retry(3)], "classify": Classifier().transient(LookupError, unknown=False)},
        ),
    ],
    ids=[
        "value",
        "function",
        "length",
        "lambda",
        "age",
        "nested",
        "rule",
        "discard",
        "adaptive",
        "classifier",
        "unknown",
    ],
)
def test_another_policy_under_a_taken_name_is_refused(
    registry: Registry, first: Callable[[], Any], second: Callable[[], Any]
) -> None:
    """The second would get the first one's answers, rules or limits, without a word."""

    def declare(parts: list[Any], **settings: Any) -> Policy:
        return Policy("psp", *parts, registry=registry, **settings)

    declare(**first())
    declare(**first())
    with pytest.raises(PolicyConfigError, match="taken"):
        declare(**second())


# --- what is impossible ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declare", "fault"),
    [
        (lambda registry: Policy("psp", Retry(), classify=LookupError, registry=registry), "classify="),  # type: ignore[arg-type]
        (lambda registry: Policy("psp", Retry(), idempotent="no", registry=registry), "idempotent='no'"),  # type: ignore[arg-type]
        (lambda registry: Policy("psp", Retry(), preset=["a"], registry=registry), "preset="),  # type: ignore[arg-type]
        (lambda registry: Policy("psp", Retry(), sync="threads", registry=registry), "sync='threads': 'thread' or"),
        (lambda registry: Policy.standard("psp", 5, registry=registry), "parts=(5,)"),  # type: ignore[arg-type]
        (lambda registry: Policy.standard("psp", attemps=5, registry=registry), "attemps=5"),
        (lambda registry: Retry(10**5000), "attempts=<int>: a whole number from 1 to 10"),
        (lambda registry: Retry("x" * 5000), "attempts='xxx"),  # type: ignore[arg-type]
        (lambda registry: Fallback.last_good(age_seconds_max=0), "age_seconds_max=0: a finite number of seconds above"),
    ],
    ids=["classify", "idempotent", "preset", "sync", "part", "misspelt", "huge number", "long text", "age"],
)
def test_a_wrong_argument_is_a_fault_that_names_it(
    registry: Registry, declare: Callable[[Registry], object], fault: str
) -> None:
    with pytest.raises(PolicyConfigError) as raised:
        declare(registry)

    assert any(one.startswith(fault) and len(one) < 400 for one in raised.value.faults), raised.value.faults


def test_a_burst_below_one_is_a_fault() -> None:
    """A call costs 1: none would ever be granted."""
    with pytest.raises(PolicyConfigError, match=r"burst=0\.5: a number from 1 to 1,000,000"):
        RateLimit(5, burst=0.5)


# --- where settings come from ----------------------------------------------------------------------------------------


def test_a_default_preset_is_for_policies_that_name_none() -> None:
    registry = Registry(environ={"SPOOLPROOF_POLICY_DEFAULT_PRESET": "database"})

    unnamed = Policy("psp", Breaker(), Timeout(5), registry=registry)
    named = Policy("erp", Breaker(), Timeout(5), preset="classic", registry=registry)
    without = Policy("mail", Retry(2), registry=registry, idempotent=True)

    assert ["open_seconds=20 (preset database)", "open_seconds=30 (preset classic)", ""] == [
        _open_seconds(policy) for policy in (unnamed, named, without)
    ]
    assert [] == registry.check()


def _open_seconds(policy: Policy) -> str:
    _, found, rest = policy.explain().partition("open_seconds=")
    return f"{found}{rest.partition(')')[0]})" if found else ""


def test_an_unknown_default_preset_is_one_fault() -> None:
    _, faults = config.load({"SPOOLPROOF_POLICY_DEFAULT_PRESET": "databse"}, None)

    assert [
        "SPOOLPROOF_POLICY_DEFAULT_PRESET='databse': one of classic, database, delivery-service, product-service"
    ] == faults


@pytest.mark.parametrize(
    "text", [f"[policies.psp]\nattempts = {'9' * 5000}", "a = " + "[" * 5000], ids=["digits", "deep"]
)
def test_a_file_that_breaks_its_reader_is_a_fault(tmp_path: Path, text: str) -> None:
    """The import of the service must not fail with an error that names no file."""
    file = tmp_path / "policies.toml"
    file.write_text(text)

    _, faults = config.load({}, file)

    assert [True] == [fault.startswith(f"SPOOLPROOF_POLICIES_FILE='{file}'") for fault in faults]


@pytest.mark.parametrize(
    ("breaker", "rule"),
    [
        (lambda: Breaker(consecutive=5), "consecutive"),
        (lambda: Breaker(failure_rate=0.4), "rate"),
        (lambda: Breaker(consecutive=5, failure_rate=0.4), ("any", "rate", "consecutive")),
    ],
)
def test_a_threshold_in_code_says_which_rule_it_is(registry: Registry, breaker: Callable[[], Any], rule: Any) -> None:
    """As in a preset and in CB_FAILURE_THRESHOLD; any other number belongs to the rule there is."""
    policy = Policy("psp", breaker(), Timeout(5), registry=registry)

    assert rule == policy._definition.resolved.rule


def test_a_gate_shows_the_ramp_it_has(registry: Registry) -> None:
    policy = Policy("psp", Breaker(), Timeout(5), registry=registry)
    told: list[events.Event] = []
    unsubscribe = events.subscribe(told.append)

    policy.gating()
    registry.reload({})
    unsubscribe()

    compiled = policy.machines.pipeline
    policy.gating()  # a second consumer depends on it

    assert compiled is policy.machines.pipeline
    assert "ramp_seconds=10 (gate)" in policy.explain()
    assert 10.0 == policy._definition.values.ramp_seconds
    assert [] == told


def test_an_alias_that_code_hides_is_told(told: list[events.Event]) -> None:
    """Whoever set it for the whole process has to learn that it does nothing here."""
    registry = Registry(environ={"CB_RESET_TIMEOUT": "7000"})

    Policy("psp", Breaker(open_seconds=9), registry=registry)
    Policy("erp", Breaker(), registry=registry)

    assert [events.SettingShadowed(policy="psp", setting="open_seconds", hidden="CB_RESET_TIMEOUT", by="code")] == told


def test_a_function_that_a_policy_cannot_protect_is_refused_when_it_is_decorated(registry: Registry) -> None:
    """At import, not at the first call."""
    policy = Policy("psp", Hedge(), Timeout(5), idempotent=True, registry=registry)

    with pytest.raises(PolicyConfigError) as raised:
        policy(_handle)

    assert "psp" == raised.value.policy
    assert ["E3"] == [fault[:2] for fault in raised.value.faults]


def test_listeners_are_called_under_no_lock() -> None:
    """One that waits for another thread, which asks for a policy, would wait for ever."""
    registry = Registry(environ={})
    policy = Policy("psp", Breaker(), Timeout(5), registry=registry)
    registry.reload({"SPOOLPROOF_POLICY_PSP_KEYS_MAX": "1"})
    policy.for_key("a").isolate("maintenance")
    free: list[tuple[str, bool]] = []

    def listener(event: events.Event) -> None:
        thread = threading.Thread(target=lambda: (policy.for_key("a"), registry.names()), daemon=True)
        thread.start()
        thread.join(5)
        free.append((type(event).__name__, not thread.is_alive()))

    unsubscribe = events.subscribe(listener)
    policy.for_key("b")
    registry.reload({"SPOOLPROOF_POLICY_PSP_KEYS_MAX": "2"})
    unsubscribe()

    assert [("KeysExhausted", True), ("SettingsReloaded", True)] == free
