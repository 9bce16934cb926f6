"""Every error Spoolproof raises on purpose.

::

    SpoolproofError
    ├── SettingsError            one or more settings are wrong; `faults` lists all of them
    ├── RegistrationError        a handler or event type cannot be served as declared
    ├── MissingExtra             an optional dependency is not installed
    ├── InvalidMessage           a message field breaks a rule of the wire
    │   ├── MessageTooLarge      body or headers are over their limit
    │   └── InvalidSchedule      a time that no message can be scheduled for
    ├── CodecError               a payload and its bytes do not fit each other
    │   └── UnknownType          no model is registered for this class or wire name
    ├── TransactionError         publish(transaction=…) cannot join that transaction
    │   ├── UnsupportedTransaction   not a handle we can write through
    │   ├── NotInTransaction     the handle has no open transaction
    │   ├── WrongDatabase        the handle belongs to another database than the store
    │   └── OutboxMissing        the database has no outbox table
    ├── TransactionTooLong       a user transaction held the SQLite writer over its limit
    ├── SchemaOutdated           the store's schema is not the one this release needs
    ├── LimitReached             a bounded thing is full; `current` and `maximum` say how
    │   ├── OutboxFull           rows waiting in the outbox
    │   ├── ScheduleFull         messages that are not due yet
    │   ├── SpoolFull            what waits in the spool while the store is away
    │   ├── StoreBusy            requests waiting for the SQLite writer
    │   ├── WindowFull           publishes waiting for their confirm
    │   └── RequestsFull         requests waiting for their answer
    ├── Unavailable              infrastructure is away; burns no attempt
    │   ├── StoreUnavailable     the database
    │   ├── CacheUnavailable     an invalidation neither reached the shared cache nor could be kept for it
    │   └── BrokerUnavailable    the broker
    │       ├── BrokerBlocked    the broker is connected and has stopped reading publishes
    │       └── BrokerTooOld     the broker's version is under the supported one
    ├── RequestTimeout           a request had no answer in time; its outcome is unknown; also a TimeoutError
    ├── EncodeError              a message the broker's protocol cannot carry
    ├── PolicyError              a policy refused, cut or cannot serve a call; `disposition` says what next
    │   ├── PolicyConfigError    a policy is configured wrongly; `faults` lists all of them; also a ValueError
    │   ├── PolicyUsageError     a policy is used in a way it cannot protect
    │   ├── CallRejected         the call was not made; `retry_after_seconds` says when to try again
    │   │   ├── BreakerOpen      the dependency is known to fail, or an operator isolated it
    │   │   ├── BulkheadFull     as many calls as may run do, and the queue is full or the wait was over
    │   │   ├── RateLimited      the rate is used up, or the dependency asked for less
    │   │   └── ThreadsExhausted too many sync attempts hang in abandoned threads
    │   ├── AttemptTimeout       one attempt took longer than its limit; its outcome is unknown; also a TimeoutError
    │   └── DeadlineExceeded     the caller's time is over; also a TimeoutError
    ├── NotStarted               the service is used before its start or after its end
    ├── NotFound                 no such dead letter or other thing
    ├── Conflict                 the thing is in a state that refuses this verb
    ├── InvalidEndpoint          a webhook's endpoint cannot be used as given
    │   └── BlockedAddress       its URL leads where no webhook may go
    ├── CacheError               a cache is declared or used in a way it cannot serve
    │   ├── CacheConfigError     declared wrongly; `faults` lists all of them
    │   ├── CacheKeyInvalid      not a key: empty, too long, with control characters, no text
    │   ├── CacheValueInvalid    a value that is too large, or does not come back from its bytes as it is
    │   └── CacheRecursion       a loader that loads its own key
    ├── InvalidSignature         what came as a webhook is not by who it should be
    └── InvariantViolated        a promise of ours is broken; always a bug

What a handler raises to steer its delivery is in `outcome`, not here. `failure_kind` and `is_unknown`, where an error
has them, tell the policies what it means: the first is a value of `policies.verdict.Kind`, the second whether the
effect may have happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class SpoolproofError(Exception):
    """Base of every error raised by Spoolproof on purpose. code: one word for machines. hint: what to do about it."""

    code: str = "failed"
    hint: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        # by default an error is made again from its message, which is not what most of these are made from: a worker
        # process that raised one would take its whole pool with it
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[SpoolproofError], args: tuple[object, ...], values: dict[str, Any]) -> SpoolproofError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(values)
    return error


class SettingsError(SpoolproofError):
    """One or more settings are wrong."""

    code = "settings"
    hint = "correct them in the environment or in .env"

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("wrong settings:\n" + "\n".join(f"  - {fault}" for fault in self.faults))


class RegistrationError(SpoolproofError):
    """A handler or event type cannot be served as declared."""

    code = "registration"
    hint = "correct the service's handlers"


class MissingExtra(SpoolproofError):
    """An optional dependency is not installed."""

    code = "missing_extra"

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        self.hint = f"pip install 'spoolproof[{extra}]'"
        super().__init__(f"{package} is not installed; install it with: pip install 'spoolproof[{extra}]'")


class InvalidMessage(SpoolproofError):
    """A message field breaks a rule of the wire."""

    code = "usage"
    hint = "spoolproof COMMAND --help shows the options"

    def __init__(self, field: str, value: object, reason: str) -> None:
        self.field = field
        self.value = value
        shown = repr(value)
        super().__init__(f"{field}={shown if len(shown) <= 80 else shown[:77] + '...'}: {reason}")


class MessageTooLarge(InvalidMessage):
    """Body or headers are over their limit."""


class InvalidSchedule(InvalidMessage):
    """A time that no message can be scheduled for; `field` says which argument named it."""


class CodecError(SpoolproofError):
    """A payload and its bytes do not fit each other."""


class UnknownType(CodecError):
    """No model is registered for this class or wire name."""


class TransactionError(SpoolproofError):
    """`publish(transaction=…)` cannot join that transaction."""


class UnsupportedTransaction(TransactionError):
    """The object is not a transaction handle Spoolproof can write through."""

    def __init__(self, handle: object, supported: Sequence[str]) -> None:
        self.supported = tuple(supported)
        kind = f"{type(handle).__module__}.{type(handle).__qualname__}"
        super().__init__(f"transaction={kind} is not supported here; pass one of: {', '.join(self.supported)}")


class NotInTransaction(TransactionError):
    """The handle has no open transaction."""


class WrongDatabase(TransactionError):
    """The handle belongs to another database than the service's store."""


class OutboxMissing(TransactionError):
    """The database has no outbox table; run `spoolproof migrate`."""


class TransactionTooLong(SpoolproofError):
    """A transaction held the SQLite writer over its limit and was rolled back."""


class SchemaOutdated(SpoolproofError):
    """The store's schema is not the one this release needs."""

    code = "schema_outdated"
    hint = "spoolproof migrate"

    def __init__(self, found: int, needed: int, store: str) -> None:
        self.found = found
        self.needed = needed
        remedy = "spoolproof migrate" if found < needed else "a release of spoolproof that knows this schema"
        super().__init__(f"the schema of {store} is at version {found}, this release needs {needed}; run: {remedy}")


class LimitReached(SpoolproofError):
    """A bounded thing is full; nothing was written."""

    failure_kind = "local"
    is_unknown = False
    what = "limit"
    remedy = "slow down and try again"

    def __init__(self, current: int, maximum: int, remedy: str | None = None) -> None:
        self.current = current
        self.maximum = maximum
        super().__init__(f"{self.what}: {current} of at most {maximum}; {remedy or self.remedy}")


class OutboxFull(LimitReached):
    """Too many rows wait in the outbox."""

    what = "rows waiting in the outbox"
    remedy = "let the relay catch up, or raise SPOOLPROOF_OUTBOX_ROWS_MAX"


class ScheduleFull(LimitReached):
    """Too many messages of the service are scheduled for later."""

    what = "scheduled messages of this service"
    remedy = "cancel what is not needed, or keep rows of your own and publish them when they are due"


class SpoolFull(LimitReached):
    """The store is away, and the spool may not grow: nothing was kept."""

    def __init__(self, what: str, current: int, maximum: int, remedy: str) -> None:
        self.what = what
        super().__init__(current, maximum, remedy)


class StoreBusy(LimitReached):
    """Too many requests wait for the SQLite writer."""

    what = "requests waiting for the SQLite writer"


class WindowFull(LimitReached):
    """Too many publishes wait for their confirm."""

    what = "publishes waiting for their confirm"


class Unavailable(SpoolproofError):
    """Infrastructure is away. Never counts as an attempt of the message that met it."""

    code = "not_reachable"
    hint = "spoolproof doctor shows what can be reached"

    failure_kind = "transient"
    is_unknown = False


class StoreUnavailable(Unavailable):
    """The database cannot be reached or refused to work. If a COMMIT met it, its outcome is unknown."""

    is_unknown = True


class BrokerUnavailable(Unavailable):
    """The broker cannot be reached; nothing was sent."""


class BrokerBlocked(BrokerUnavailable):
    """The broker is connected and has stopped reading publishes (resource alarm)."""


class BrokerTooOld(BrokerUnavailable):
    """The broker's version is under the supported one."""


class EncodeError(SpoolproofError):
    """The broker's protocol cannot carry this message."""


class NotStarted(SpoolproofError):
    """The service was used before `start` or after `stop`."""


class NotFound(SpoolproofError):
    """There is no such thing."""

    code = "not_found"
    hint = "spoolproof dlq ls --json lists ids in full"


class Conflict(SpoolproofError):
    """The thing is in a state that refuses this verb."""

    code = "refused"
    hint = "spoolproof dlq show ID tells what was done to it"


class InvalidEndpoint(SpoolproofError):
    """An endpoint of webhooks cannot be used as given: its name, URL, secrets or types."""

    code = "usage"
    hint = "spoolproof webhook --help shows the options"

    def __init__(self, field: str, value: object, reason: str) -> None:
        self.field = field
        self.value = value
        super().__init__(f"{field}={value!r}: {reason}")


class BlockedAddress(InvalidEndpoint):
    """A webhook's URL leads where none may go: into a private network, to this machine, to another port."""


class InvalidSignature(SpoolproofError):
    """What came as a webhook was not signed with any of these secrets, or not lately."""


class CacheError(SpoolproofError):
    """A cache is declared or used in a way it cannot serve."""

    code = "usage"


class CacheConfigError(CacheError):
    """A cache is declared wrongly; `faults` lists every fault."""

    def __init__(self, name: str, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(f"cache {name!r}:\n" + "\n".join(f"  - {fault}" for fault in self.faults))


class CacheKeyInvalid(CacheError):
    """Not a key: empty, over 1,024 characters, with control characters, or no text."""


class CacheValueInvalid(CacheError):
    """A value that is too large for the cache, or would not come back from its bytes as it is."""


class CacheRecursion(CacheError):
    """A loader asked for the key it is loading."""


class CacheUnavailable(Unavailable):
    """An invalidation reached neither the shared cache nor the store, which would have kept it: do it again."""


class InvariantViolated(SpoolproofError):
    """A promise of ours is broken. Always a bug; please report it with its text."""


# --- policies --------------------------------------------------------------------------------------------------------


class Action(StrEnum):
    """What becomes of the work behind a call that failed for good. There is no "drop"."""

    DEFER = "defer"
    RETRY = "retry"
    DEAD_LETTER = "dead_letter"
    PARK = "park"


@dataclass(frozen=True, slots=True)
class Disposition:
    """What to do with the work behind a failed call, and why.

    after_seconds: not before this many seconds; None leaves the wait to whoever acts. Only `retry` counts as an attempt
    of the message; `defer` is an outage; `park` asks a person, because the effect may have happened.
    """

    action: Action
    reason: str
    after_seconds: float | None = None


class PolicyError(SpoolproofError):
    """A policy refused, cut or cannot serve a call. policy: its name. disposition: None until the call has ended."""

    policy: str = ""
    disposition: Disposition | None = None


class PolicyConfigError(PolicyError, ValueError):
    """A policy is configured wrongly; `faults` lists every fault as field, value and legal range."""

    def __init__(self, faults: Sequence[str], *, policy: str = "") -> None:
        self.faults = tuple(faults)
        self.policy = policy
        where = f"policy {policy!r}" if policy else "policy"
        super().__init__(f"{where} is configured wrongly:\n" + "\n".join(f"  - {fault}" for fault in self.faults))


class PolicyUsageError(PolicyError):
    """A policy is used in a way it cannot protect; the message says which use is right."""


class CallRejected(PolicyError):
    """The call was not made: nothing happened, and it may be tried again after `retry_after_seconds` (above 0)."""

    by: str = ""  #: the part that rejected
    _disposition: Disposition | None = None

    def __init__(self, message: str, *, policy: str, retry_after_seconds: float) -> None:
        self.policy = policy
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)

    @property
    def disposition(self) -> Disposition | None:
        """What to do with the work behind the call: DEFER, unless an earlier attempt of it says otherwise."""
        return self._disposition or Disposition(Action.DEFER, str(self), self.retry_after_seconds)

    @disposition.setter
    def disposition(self, value: Disposition | None) -> None:
        self._disposition = value


class BreakerOpen(CallRejected):
    """The dependency is known to fail, or an operator isolated it. state: open, half_open, isolated, or closed while
    its share of calls grows after an outage."""

    by = "breaker"

    def __init__(
        self, policy: str, state: str, reason: str, retry_after_seconds: float, last_error_text: str = ""
    ) -> None:
        # the text is made when somebody reads it: an outage raises thousands of these a second
        self.policy = policy
        self.state = state
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.last_error_text = last_error_text

    def __str__(self) -> str:
        last = f"; last error: {self.last_error_text}" if self.last_error_text else ""
        return (
            f"policy {self.policy!r}: breaker {self.state} ({self.reason}), try again in "
            f"{self.retry_after_seconds:.3g} s{last}"
        )


class BulkheadFull(CallRejected):
    """As many calls as may run do, and the queue is full or the wait was over."""

    by = "bulkhead"

    def __init__(self, *, policy: str, running: int, queued: int, retry_after_seconds: float = 1.0) -> None:
        self.running = running
        self.queued = queued
        super().__init__(
            f"policy {policy!r}: {running} calls running, {queued} waiting; try again later or raise running_max",
            policy=policy,
            retry_after_seconds=retry_after_seconds,
        )


class RateLimited(CallRejected):
    """The rate is used up (by: rate_limit), or the dependency asked for less (by: cooldown)."""

    by = "rate_limit"

    def __init__(self, *, policy: str, retry_after_seconds: float, by: str = "rate_limit") -> None:
        self.by = by
        super().__init__(
            f"policy {policy!r}: {by}, try again in {retry_after_seconds:.3g} s",
            policy=policy,
            retry_after_seconds=retry_after_seconds,
        )


class ThreadsExhausted(CallRejected):
    """Too many sync attempts hang in abandoned threads; this one was not started."""

    by = "threads"

    def __init__(self, *, policy: str, abandoned: int, retry_after_seconds: float = 1.0) -> None:
        self.abandoned = abandoned
        super().__init__(
            f"policy {policy!r}: {abandoned} abandoned threads still hang in earlier attempts; give the function a "
            'time limit of its own, or use sync="cooperative"',
            policy=policy,
            retry_after_seconds=retry_after_seconds,
        )


class AttemptTimeout(PolicyError, TimeoutError):
    """One attempt took longer than `timeout_seconds`; whether its effect happened is unknown."""

    def __init__(self, *, policy: str, timeout_seconds: float) -> None:
        self.policy = policy
        self.timeout_seconds = timeout_seconds
        super().__init__(f"policy {policy!r}: an attempt took longer than timeout_seconds={timeout_seconds:.6g}")


class DeadlineExceeded(PolicyError, TimeoutError):
    """The caller's time is over. has_started: whether the function was running, so that its effect may have come."""

    def __init__(self, *, policy: str, has_started: bool) -> None:
        self.policy = policy
        self.has_started = has_started
        how = "while the function ran" if has_started else "before the function started"
        super().__init__(f"policy {policy!r}: the deadline passed {how}")
