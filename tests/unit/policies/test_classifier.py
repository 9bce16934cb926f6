"""The classifier's order and its own promises. What each library's errors mean is in `test_foreign`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from spoolproof.clock import SYSTEM
from spoolproof.errors import (
    Action,
    AttemptTimeout,
    BreakerOpen,
    BrokerUnavailable,
    BulkheadFull,
    DeadlineExceeded,
    InvariantViolated,
    OutboxFull,
    PolicyConfigError,
    PolicyUsageError,
    RateLimited,
    StoreUnavailable,
    ThreadsExhausted,
)
from spoolproof.policies import (
    Breaker,
    Bulkhead,
    Classifier,
    Consecutive,
    Kind,
    Policy,
    Retry,
    Timeout,
    Verdict,
    report,
)
from spoolproof.policies.judging.classifier import DEFAULT, redact
from spoolproof.policies.judging.foreign import retry_after_seconds
from spoolproof.policies.judging.verdict import Status, verdict_of
from spoolproof.testing.clock import ManualClock

OPTIONAL = ["httpx", "aiohttp", "requests", "urllib3", "redis", "asyncpg", "pika", "botocore", "grpc", "sqlalchemy"]


def test_nothing_optional_is_imported() -> None:
    """The table works by names: an error cannot come from a library that is not installed."""
    program = (
        f"import sys\nfor name in {OPTIONAL!r}: sys.modules[name] = None\n"
        "from spoolproof.policies.judging.classifier import DEFAULT\n"
        "print(DEFAULT.of_error(ConnectionRefusedError()).kind)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)

    assert ("transient", "", 0) == (done.stdout.strip(), done.stderr, done.returncode)


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        SystemExit(),
        GeneratorExit(),
        BaseExceptionGroup("", [SystemExit()]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("has_started", [True, False])
def test_no_rule_changes_what_a_cancellation_means(error: BaseException, has_started: bool) -> None:
    """Q1, and unknown once the function has started."""
    classify = Classifier().transient(lambda error: True)

    verdict = classify.of_error(error, has_started=has_started)

    assert (Status.NEUTRAL, Kind.CANCELLED, has_started) == (verdict.status, verdict.kind, verdict.is_unknown)


def test_what_was_missing_on_this_side_says_nothing_of_the_dependency() -> None:
    verdict = Classifier().local(LookupError).of_error(KeyError("no licence"))

    assert (Status.NEUTRAL, Kind.LOCAL, False) == (verdict.status, verdict.kind, verdict.is_unknown)


def test_a_result_rule_that_is_no_function_is_refused() -> None:
    with pytest.raises(PolicyConfigError) as raised:
        Classifier().result("bad")  # type: ignore[arg-type]

    assert ("result('bad'): a function of the returned value",) == raised.value.faults


def test_no_rule_changes_what_a_rejection_or_a_deadline_means() -> None:
    """Q18: neither says anything of the dependency."""
    classify = Classifier().transient(Exception)
    rejection = BreakerOpen(policy="other", state="open", reason="", retry_after_seconds=3)
    deadline = DeadlineExceeded(policy="a", has_started=True)

    verdicts = [classify.of_error(error) for error in (rejection, deadline)]

    assert [(Kind.LOCAL, False), (Kind.DEADLINE, True)] == [(one.kind, one.is_unknown) for one in verdicts]
    assert 3 == verdicts[0].retry_after_seconds


_OWN_ERRORS: list[tuple[Exception, Kind, bool]] = [
    (AttemptTimeout(policy="a", timeout_seconds=1), Kind.TIMEOUT, True),
    (DeadlineExceeded(policy="a", has_started=True), Kind.DEADLINE, True),
    (DeadlineExceeded(policy="a", has_started=False), Kind.DEADLINE, False),
    (BreakerOpen(policy="a", state="open", reason="", retry_after_seconds=3), Kind.LOCAL, False),
    (BulkheadFull(policy="a", running=1, queued=0), Kind.LOCAL, False),
    (RateLimited(policy="a", retry_after_seconds=1), Kind.LOCAL, False),
    (ThreadsExhausted(policy="a", abandoned=64), Kind.LOCAL, False),
    (PolicyUsageError("a"), Kind.BUG, False),
    (PolicyConfigError(["a"]), Kind.BUG, False),
    (OutboxFull(1, 1), Kind.LOCAL, False),
    (StoreUnavailable("a"), Kind.TRANSIENT, True),
    (BrokerUnavailable("a"), Kind.TRANSIENT, False),
]


@pytest.mark.parametrize(("error", "kind", "unknown"), _OWN_ERRORS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a group"])
def test_a_rule_for_a_wide_class_does_not_reach_our_own_errors(
    error: Exception, kind: Kind, unknown: bool, grouped: bool
) -> None:
    """An attempt that timed out is an OSError too: a rule that calls those harmless would charge three times."""
    asked: list[BaseException] = []
    classify = Classifier().permanent(lambda one: bool(asked.append(one))).transient(OSError, Exception, unknown=False)

    verdict = classify.of_error(ExceptionGroup("calls", [ExceptionGroup("", [error])]) if grouped else error)

    assert (kind, unknown, []) == (verdict.kind, verdict.is_unknown, asked)


def test_an_error_of_ours_has_its_verdict_and_no_rule_may_name_it() -> None:
    """It would never be asked."""
    for error, _, _ in _OWN_ERRORS:
        with pytest.raises(PolicyConfigError, match="E5"):
            Classifier().permanent(type(error))


@pytest.mark.parametrize("wide", [OSError, Exception, lambda _: True], ids=["OSError", "Exception", "predicate"])
async def test_a_call_that_timed_out_is_made_once_whatever_the_rules_say(
    make: Callable[..., Policy], clock: ManualClock, wide: Any
) -> None:
    """Its effect may have happened; only whoever says `idempotent` may have it made again."""
    policy = make(Retry(3), Timeout(1), classify=Classifier().transient(wide, unknown=False), idempotent=False)
    charges: list[int] = []

    async def charge() -> None:
        charges.append(1)
        await clock.sleep(60)

    async with clock.auto_advance():
        result = await policy.result(charge)

    told = report(result.error)  # type: ignore[arg-type]
    assert ([1], Kind.TIMEOUT, Action.PARK) == (charges, result.verdict.kind, told.disposition.action)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("build", "kind", "unknown"),
    [
        (Classifier().transient, Kind.TRANSIENT, True),
        (Classifier().overloaded, Kind.OVERLOADED, False),
        (Classifier().timeout, Kind.TIMEOUT, True),
        (Classifier().rate_limited, Kind.RATE_LIMITED, False),
        (Classifier().permanent, Kind.PERMANENT, False),
        (Classifier().bug, Kind.BUG, True),
        (Classifier().local, Kind.LOCAL, False),
    ],
)
def test_each_kind_of_rule_gives_its_verdict(build: Callable[..., Classifier], kind: Kind, unknown: bool) -> None:
    verdict = build(KeyError).of_error(KeyError("a"))

    assert (kind, unknown) == (verdict.kind, verdict.is_unknown)


@pytest.mark.parametrize(
    ("errors", "kind", "unknown"),
    [
        ([ConnectionRefusedError()], Kind.TRANSIENT, False),
        ([ConnectionRefusedError(), ConnectionResetError()], Kind.TRANSIENT, True),
        ([ConnectionRefusedError(), TimeoutError()], Kind.TIMEOUT, True),
        ([ConnectionRefusedError(), TypeError()], Kind.BUG, False),
        ([ExceptionGroup("", [OSError(28, "")])], Kind.LOCAL, False),
        ([KeyError(), ConnectionRefusedError()], Kind.PERMANENT, False),
    ],
)
def test_a_group_means_its_weightiest_error(errors: list[Exception], kind: Kind, unknown: bool) -> None:
    """A task group around two calls must not turn an outage into a bug, nor a lost answer into a known one."""
    verdict = Classifier().permanent(KeyError).of_error(ExceptionGroup("two calls", errors))

    assert (kind, unknown) == (verdict.kind, verdict.is_unknown)


def test_a_rule_may_name_groups() -> None:
    verdict = Classifier().permanent(ExceptionGroup).of_error(ExceptionGroup("", [ConnectionRefusedError()]))

    assert Kind.PERMANENT is verdict.kind


@pytest.mark.parametrize("build", [Classifier().transient, Classifier().local], ids=["transient", "local"])
def test_a_kind_without_rules_is_refused(build: Callable[..., Classifier]) -> None:
    with pytest.raises(PolicyConfigError, match="at least one"):
        build()


def test_every_fault_of_the_rules_is_reported_at_once() -> None:
    with pytest.raises(PolicyConfigError) as raised:
        Classifier().transient(asyncio.CancelledError, 3, BreakerOpen)  # type: ignore[arg-type]

    assert 3 == len(raised.value.faults)
    assert 2 == sum("(E5)" in fault for fault in raised.value.faults)


def test_only_a_classifier_with_result_rules_judges_results() -> None:
    """Whoever has none pays nothing: the pipeline never asks."""
    assert not DEFAULT.judges_results
    assert not Classifier().transient(KeyError).judges_results
    assert Classifier().result(lambda value: None).transient(KeyError).judges_results
    assert Classifier().http_results().judges_results


def test_a_verdict_of_a_result_rule_is_taken_as_it_is() -> None:
    verdict = verdict_of(Kind.TRANSIENT, is_unknown=True, retry_after_seconds=2, reason="busy")

    assert verdict is Classifier().result(lambda value: verdict).of_result("busy")


def _raises(value: object) -> Kind:
    raise ConnectionRefusedError("the rule's own")


def _says_false(value: object) -> Any:
    return False


@pytest.mark.parametrize(("rule", "raises"), [(_raises, ConnectionRefusedError), (_says_false, PolicyUsageError)])
async def test_a_result_rule_that_fails_does_not_have_the_work_done_again(
    rule: Callable[[object], Kind | Verdict | None], raises: type[Exception], make: Callable[..., Policy]
) -> None:
    """The function has returned: an error of its rule says nothing of the dependency, and the effect is there."""
    classify = Classifier().transient(raises, unknown=False) if raises is not PolicyUsageError else Classifier()
    policy = make(Retry(3), Bulkhead(1, queue_max=0), classify=classify.result(rule))
    done = []

    async def pay() -> str:
        done.append(1)
        return "paid"

    with pytest.raises(raises) as raised:
        await policy.call(pay)

    told = report(raised.value)
    assert [1] == done
    assert (Kind.BUG, True) == (told.verdict.kind, told.verdict.is_unknown)
    assert told.disposition is not None
    assert Action.PARK is told.disposition.action


@pytest.mark.parametrize(
    "holder",
    [
        SimpleNamespace(headers={"Retry-After": "5"}),
        SimpleNamespace(headers={"retry-after": b" 5 "}),
        SimpleNamespace(retry_after_seconds=5),
        {"ResponseMetadata": {"HTTPHeaders": {"retry-after": "5"}}},
    ],
)
def test_retry_after_is_read_wherever_it_is(holder: object) -> None:
    assert 5.0 == retry_after_seconds(holder, SYSTEM.now())


@pytest.mark.parametrize("value", [True, float("nan"), float("inf"), -1, "-1", "٣", "1.5", "Fri, 99 Foo", object()])
def test_garbage_in_retry_after_is_ignored(value: object) -> None:
    """Q12."""
    assert retry_after_seconds(SimpleNamespace(headers={"Retry-After": value}), SYSTEM.now()) is None


def test_the_header_on_the_exception_counts_where_the_response_has_none() -> None:
    class Limited(Exception):
        response = SimpleNamespace(status_code=429, headers={})
        headers = {"Retry-After": "5"}  # noqa: RUF012

    assert 5.0 == DEFAULT.of_error(Limited()).retry_after_seconds


def test_a_status_that_is_no_failure_does_not_hide_what_the_class_says() -> None:
    class Cut(ConnectionResetError):
        status = 200

    verdict = DEFAULT.of_error(Cut())

    assert (Kind.TRANSIENT, True) == (verdict.kind, verdict.is_unknown)


def test_an_error_that_cannot_be_printed_has_a_verdict() -> None:
    class Mute(OSError):
        def __str__(self) -> str:
            raise RuntimeError

    assert Kind.TRANSIENT is DEFAULT.of_error(Mute()).kind


# --- classes that nobody knows ---------------------------------------------------------------------------------------


def _library(name: str, base: type[Exception] = Exception) -> type[Exception]:
    """A class as a library that no table knows would define it."""
    return type(name, (base,), {"__module__": "driver.errors"})


Unheard = _library("Unheard")
WithStatus = type("ServerBusy", (Exception,), {"status": 503, "headers": {"retry-after": "7"}})


def _raised(error: Exception, cause: Exception | None = None, handled: Exception | None = None) -> Exception:
    """The error as it looks when it was raised `from cause`, or while `handled` was."""
    error.__context__ = cause or handled
    if cause is not None:
        error.__cause__ = cause
    return error


_CAUSED: list[tuple[str, Exception, Kind, bool]] = [
    ("nothing", Unheard(), Kind.TRANSIENT, True),
    ("refused", _raised(Unheard(), ConnectionRefusedError()), Kind.TRANSIENT, True),
    ("timed out", _raised(Unheard(), TimeoutError()), Kind.TIMEOUT, True),
    ("deep", _raised(Unheard(), _raised(Unheard(), _raised(KeyError(), TimeoutError()))), Kind.TIMEOUT, True),
    ("while timing out", _raised(Unheard(), handled=TimeoutError()), Kind.TIMEOUT, True),
    ("from a status", _raised(Unheard(), WithStatus()), Kind.OVERLOADED, True),
    ("from our timeout", _raised(Unheard(), AttemptTimeout(policy="b", timeout_seconds=1)), Kind.TIMEOUT, True),
    ("from a rejection", _raised(Unheard(), BulkheadFull(policy="b", running=1, queued=0)), Kind.LOCAL, True),
    (
        "while handling a rejection",
        _raised(Unheard(), handled=BulkheadFull(policy="b", running=1, queued=0)),
        Kind.TRANSIENT,
        True,
    ),
    ("from a rule's", _raised(Unheard(), EOFError()), Kind.PERMANENT, True),
    ("while handling a rule's", _raised(Unheard(), handled=EOFError()), Kind.TRANSIENT, True),
    ("from a lookup", _raised(Unheard(), KeyError()), Kind.TRANSIENT, True),
    ("a library's KeyError", _library("NotFound", KeyError)(), Kind.BUG, True),
    ("a library's RuntimeError", _library("NoBrokers", RuntimeError)(), Kind.TRANSIENT, True),
    ("a library's OSError", _library("Disconnected", OSError)(), Kind.TRANSIENT, True),
    ("an Exception", Exception(), Kind.TRANSIENT, True),
    ("a mistake", UnboundLocalError(), Kind.BUG, False),
    ("a mistake after an outage", _raised(AttributeError(), handled=ConnectionRefusedError()), Kind.BUG, False),
    ("ours", InvariantViolated(), Kind.BUG, True),
]


@pytest.mark.parametrize(
    ("error", "kind", "unknown"), [case[1:] for case in _CAUSED], ids=[case[0] for case in _CAUSED]
)
def test_a_class_that_nobody_knows_is_judged_by_its_cause_and_else_blamed_on_the_dependency(
    error: Exception, kind: Kind, unknown: bool
) -> None:
    """An outage of a driver in no table must open its breaker; what may have happened is never called known."""
    verdict = Classifier().permanent(EOFError).of_error(error)

    assert (kind, unknown) == (verdict.kind, verdict.is_unknown)


def test_an_error_without_its_context_is_not_judged_by_it() -> None:
    """`raise … from None` says that the two have nothing to do with each other."""
    error = _raised(Unheard(), handled=TimeoutError())
    error.__suppress_context__ = True

    assert Kind.TRANSIENT is DEFAULT.of_error(error).kind


@pytest.mark.parametrize("idempotent", [True, False])
async def test_an_outage_in_a_class_that_nobody_knows_opens_the_breaker(
    make: Callable[..., Policy], idempotent: bool
) -> None:
    """And is tried again only where that does no harm."""
    policy = make(Retry(3, delay_seconds=0), Breaker(Consecutive(3)), idempotent=idempotent, lint_ignore={"W1"})
    tries: list[int] = []

    async def ask() -> None:
        tries.append(1)
        raise Unheard

    await policy.result(ask)

    assert (3 if idempotent else 1, "open" if idempotent else "closed") == (len(tries), policy.state)
    await policy.result(ask)
    await policy.result(ask)
    assert ("open", 3) == (policy.state, len(tries))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no URL", "no URL"),
        ("amqp://user:secret@host:5672/v?token=secret", "amqp://host:5672/v"),
        ("a=amqp://u:secret@h\nb=redis://:secret@h2/0?x=secret", "a=amqp://h\nb=redis://h2/0"),
        ("postgresql://user:se/secret@host/db", "postgresql://host/db"),
        ("postgresql://user:se?secret@host/db", "postgresql://host/db"),
        ("see https://a.b/c?key=secret now", "see https://a.b/c now"),
        ("https://a.b?key=secret", "https://a.b"),
        ("https://a.b/@someone", "https://a.b/@someone"),
        ("exceeded with url: /v1?api_key=secret (Caused by", "exceeded with url: /v1 (Caused by"),
        ("amqp://u:secret@h1/,amqp://u:secret@h2/ are down", "amqp://h1/,amqp://h2/ are down"),
        ("['http://u:secret@h/x?y=secret','http://h2']", "['http://h/x','http://h2']"),
        ("what? why?", "what? why?"),
    ],
)
def test_no_credentials_and_no_query_survive(text: str, shown: str) -> None:
    assert shown == redact(text)
