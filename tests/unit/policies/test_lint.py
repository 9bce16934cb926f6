"""What is impossible, doubtful or worth knowing about a policy, and the policy as text."""

from __future__ import annotations

from typing import Any

import pytest

from spoolproof.policies import (
    Adaptive,
    Breaker,
    Bulkhead,
    Chaos,
    Consecutive,
    Deadline,
    Fallback,
    Hedge,
    Rate,
    RateLimit,
    Retry,
    Slow,
    Timeout,
)
from spoolproof.policies.settings import config, lint


def resolved(*parts: Any, environ: dict[str, str] | None = None, preset: str | None = None) -> config.Resolved:
    sources, faults = config.load(environ or {}, None)
    assert [] == faults
    return config.resolve("psp", parts, sources, preset=preset)


def codes(*parts: Any, idempotent: bool | None = True, sync: str = "thread") -> list[str]:
    found = lint.findings(parts, resolved(*parts).values, idempotent=idempotent, sync=sync)
    return [finding.code for finding in found]


STANDARD = (Deadline(), Retry(), Breaker(), Bulkhead(), Timeout())


def test_the_recommended_policy_has_no_findings() -> None:
    """A warning nobody can act on teaches people to ignore warnings."""
    assert [] == codes(*STANDARD)


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        ("E1", (Deadline(5), Timeout(5))),
        ("E2", (Breaker(Rate(window_calls=10, calls_min=11)), Timeout())),
        ("E6", (Retry(2), Retry(2))),
        ("E6", (Timeout(2), Timeout(2))),
        ("E6", (Retry(2), Timeout(2), Timeout(2))),
        ("W1", (Breaker(),)),
        ("W2", (Bulkhead(), Retry())),
        ("W2", (RateLimit(5), Retry())),
        ("W3", (Breaker(), Retry(), Timeout())),
        ("W6", (Deadline(19), Retry(2), Timeout(10))),
        ("W7", (Breaker(probe_lease_seconds=5), Timeout(6))),
        ("N1", (Breaker(mode="observe"), Timeout())),
        ("N1", (Breaker(mode="off"), Timeout())),
        ("N1", (Chaos(hang=True), Retry())),
        ("N1", (Retry(nested="allow"),)),
    ],
)
def test_a_mistake_has_its_code(code: str, parts: Any) -> None:
    assert [code] == codes(*parts)


@pytest.mark.parametrize(
    "parts",
    [
        (Deadline(5), Timeout(4.9)),
        (Breaker(Rate(window_calls=10, calls_min=10)), Timeout()),
        (Timeout(9), Retry(2), Timeout(9)),
        (Breaker(), Deadline()),
        (Retry(), Bulkhead(), RateLimit(5)),
        (Retry(), Breaker(), Timeout()),
        (Bulkhead(), Breaker(), Timeout()),
        (Deadline(20), Retry(2), Timeout(10)),
        (Breaker(probe_lease_seconds=6), Timeout(6)),
    ],
)
def test_what_is_just_right_is_not_found_wanting(parts: Any) -> None:
    assert [] == codes(*parts)


def test_a_retry_asks_whether_the_call_is_idempotent() -> None:
    assert [["W4"], [], []] == [codes(Retry(), idempotent=one) for one in (None, True, False)]


@pytest.mark.parametrize("fallback", [Fallback("empty"), Fallback.constant(len), Fallback.last_good(age_seconds_max=9)])
def test_a_made_up_answer_to_a_call_with_effects_is_doubtful(fallback: Fallback) -> None:
    """ "Paid", said by a constant, is the most expensive answer there is."""
    assert (["W5"], []) == (codes(fallback, idempotent=False), codes(fallback, idempotent=True))


def test_a_fallback_that_does_something_is_no_made_up_answer() -> None:
    assert [] == codes(Fallback(lambda error: "queued"), idempotent=False)


def test_cooperative_calls_are_noted() -> None:
    assert ["N1"] == codes(Timeout(), sync="cooperative")


def test_errors_come_before_warnings_and_notes() -> None:
    parts = (Breaker(mode="off"), Deadline(5), Retry(9), Timeout(9))

    assert ["E1", "W3", "W4", "W6", "N1"] == codes(*parts, idempotent=None)


def test_a_hedge_needs_an_async_function() -> None:
    def function() -> None: ...

    found = [lint.function_findings([Hedge()], function, is_async=one) for one in (False, True)]

    assert [["E3"], []] == [[finding.code for finding in one] for one in found]


def test_last_good_needs_a_key_where_questions_differ() -> None:
    """Without one the answer for one customer is given to another."""

    def with_argument(customer: str) -> None: ...

    def without() -> None: ...

    bare, keyed = Fallback.last_good(age_seconds_max=9), Fallback.last_good(age_seconds_max=9, key=str)
    cases = [(bare, with_argument), (bare, without), (keyed, with_argument)]

    found = [lint.function_findings([part], function, is_async=False) for part, function in cases]

    assert [["E4"], [], []] == [[finding.code for finding in one] for one in found]


def test_a_function_that_hides_its_parameters_is_taken_to_have_some() -> None:
    """Some of those written in C do: it would be answered with the answer to another question."""
    findings = lint.function_findings([Fallback.last_good(age_seconds_max=5)], max, is_async=False)

    assert ["E4"] == [finding.code for finding in findings]


def test_a_message_names_value_setting_and_remedy() -> None:
    parts = (Deadline(5), Timeout(7))

    (finding,) = lint.findings(parts, resolved(*parts).values, idempotent=True)

    assert "timeout_seconds=7: below deadline_seconds=5, or no attempt ever times out" == finding.message


# --- explain ---------------------------------------------------------------------------------------------------------


def explained(*parts: Any, idempotent: bool | None = True, **sources: Any) -> list[str]:
    found = resolved(*parts, **sources)
    return lint.explain("psp", parts, found, lint.findings(parts, found.values, idempotent=idempotent)).splitlines()


def test_a_policy_is_told_a_line_a_part_with_every_setting_and_its_source() -> None:
    """People keep this text in a test, so that a changed default is seen before it is shipped."""
    environ = {"CB_RESET_TIMEOUT": "7000", "SPOOLPROOF_POLICY_PSP_TIMEOUT_SECONDS": "2.5"}

    text = explained(
        Deadline(20), Retry(2), Breaker(Consecutive(4)), Bulkhead(), Timeout(), idempotent=None, environ=environ
    )

    expected = [
        "policy psp",
        "  deadline deadline_seconds=20 (code)",
        "  retry attempts=2 (code) delay_seconds=0.1 (built-in) delay_factor=2 (built-in) "
        "delay_seconds_max=20 (built-in) retry_after_seconds_max=60 (built-in) inline_seconds_max=2 (built-in) "
        "budget_ratio=0.2 (built-in) budget_per_second_min=1 (built-in)",
        "  breaker rule=consecutive consecutive=4 (code) open_seconds=7 (CB_RESET_TIMEOUT) "
        "open_factor=1 (CB_RESET_TIMEOUT) open_seconds_max=60 (built-in) open_jitter=0 (CB_RESET_TIMEOUT) "
        "probes_max=1 (built-in) probe_successes=3 (built-in) probe_lease_seconds=30 (built-in) "
        "ramp_seconds=0 (built-in) isolate_seconds=3600 (built-in) mode=enforce (built-in)",
        "  bulkhead running_max=32 (built-in) queue_max=64 (built-in) wait_seconds_max=1 (built-in)",
        "  timeout timeout_seconds=2.5 (SPOOLPROOF_POLICY_PSP_TIMEOUT_SECONDS)",
        "  W4: Retry with idempotent unstated: unknown outcomes are not retried; say True or False",
    ]
    assert expected == text


def test_the_first_line_names_the_preset_and_what_belongs_to_no_part() -> None:
    head = explained(Breaker(), preset="database", environ={"SPOOLPROOF_POLICY_PSP_KEYS_MAX": "3"})[0]

    assert "policy psp (preset database) keys_max=3 (SPOOLPROOF_POLICY_PSP_KEYS_MAX)" == head


@pytest.mark.parametrize(
    ("part", "shown", "absent"),
    [
        (Breaker(Rate(0.4, window_calls=40)), "window_calls=40 (code)", "window_seconds"),
        (Breaker(Rate()), "rule=rate", "consecutive"),
        (Breaker(Slow(0.5, slow_seconds=2)), "slow_window_seconds=30", "failure_rate"),
        (Bulkhead(Adaptive()), "limit_max=200", "running_max"),
        (Bulkhead(), "running_max=32", "limit_max"),
    ],
)
def test_only_what_has_an_effect_is_told(part: Any, shown: str, absent: str) -> None:
    line = explained(part)[1]

    assert shown in line
    assert absent not in line


def test_the_same_policy_is_told_the_same_way() -> None:
    assert explained(*STANDARD) == explained(*STANDARD)
