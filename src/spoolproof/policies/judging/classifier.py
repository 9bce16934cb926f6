"""Gives every end of an attempt its one verdict. First match wins, and cancellation is always first.

Built from rules: exception types, or predicates on an exception or a result. A classifier is a value: each method
returns a new one, so a shared default cannot be changed under somebody's feet."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias
from weakref import WeakSet

from spoolproof.clock import AMBIENT
from spoolproof.errors import (
    AttemptTimeout,
    CallRejected,
    DeadlineExceeded,
    PolicyConfigError,
    PolicyError,
    PolicyUsageError,
    SpoolproofError,
)
from spoolproof.policies.judging.foreign import (
    ask,
    http_status,
    retry_after_seconds,
    verdict_of_foreign,
    verdict_of_status,
)
from spoolproof.policies.judging.verdict import SUCCESS, Kind, Verdict, verdict_of

logger = logging.getLogger("spoolproof.policies")
Rule: TypeAlias = type[BaseException] | Callable[[BaseException], bool]
ResultRule: TypeAlias = Callable[[Any], "Kind | Verdict | None"]
_TEXT_MAX = 200
_READ_MAX = 2000  #: an error may quote a whole document, and looking for credentials in it takes time
_OF_RESULT_RULE = "__spoolproof_of_result_rule__"
_CREDENTIALS = re.compile(r"(?<=://)(?:[^\s'\"<>/@?]*|(?:(?!://)[^\s'\"<>])*:(?:(?!://)[^\s'\"<>])*)@")
_QUERY = re.compile(r"\?[^\s'\"<>)\]]+")

#: What a group of errors means: the first of these that is among them.
_WEIGHTIEST = (
    Kind.BUG,
    Kind.PERMANENT,
    Kind.TIMEOUT,
    Kind.OVERLOADED,
    Kind.TRANSIENT,
    Kind.RATE_LIMITED,
    Kind.DEADLINE,
    Kind.LOCAL,
)
_OUTAGES = frozenset({Kind.TRANSIENT, Kind.OVERLOADED, Kind.TIMEOUT})
_CAUSES_MAX = 5  #: how deep to look

#: Mistakes in code, wherever they are raised, and whatever derives from them; and our own errors that say nothing else.
_BUGS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    NotImplementedError,
    RecursionError,
    SpoolproofError,
    SyntaxError,
    TypeError,
    ValueError,
)
_told: WeakSet[type[BaseException]] = WeakSet()  #: classes that nobody knows and that were logged


class Classifier:
    """What errors and results mean to one policy.

    `Classifier().transient(Busy).permanent(UnknownProduct)`: exception types or predicates, asked in the order given,
    before the built-in rules and after cancellation and our own errors: an AttemptTimeout is an OSError too, and no
    rule for those may call its outcome known. unknown: whether the effect may have happened all the same; say so where
    a retry is not known to be harmless. Raises PolicyConfigError for a rule that names a cancellation or an error of
    ours that has its verdict already."""

    __slots__ = ("_result_rules", "_rules")

    def __init__(self) -> None:
        self._rules: tuple[tuple[Rule, Kind, bool], ...] = ()
        self._result_rules: tuple[ResultRule, ...] = ()

    def transient(self, *rules: Rule, unknown: bool = True) -> Classifier:
        """These pass by themselves; retried, and count against the dependency."""
        return self._with(Kind.TRANSIENT, rules, unknown)

    def overloaded(self, *rules: Rule, unknown: bool = False) -> Classifier:
        """The dependency has too much to do."""
        return self._with(Kind.OVERLOADED, rules, unknown)

    def timeout(self, *rules: Rule, unknown: bool = True) -> Classifier:
        """No answer in time."""
        return self._with(Kind.TIMEOUT, rules, unknown)

    def rate_limited(self, *rules: Rule) -> Classifier:
        """The dependency asks for less; retried, and says nothing against it."""
        return self._with(Kind.RATE_LIMITED, rules, False)

    def permanent(self, *rules: Rule, unknown: bool = False) -> Classifier:
        """The dependency has answered, and will answer the same again."""
        return self._with(Kind.PERMANENT, rules, unknown)

    def bug(self, *rules: Rule, unknown: bool = True) -> Classifier:
        """Our own mistake."""
        return self._with(Kind.BUG, rules, unknown)

    def local(self, *rules: Rule) -> Classifier:
        """Something on this side was missing; nothing was sent."""
        return self._with(Kind.LOCAL, rules, False)

    def result(self, rule: ResultRule) -> Classifier:
        """Judge returned values: `rule` returns a Kind or Verdict for one that is a failure, None for one that is
        not."""
        if not callable(rule):
            raise PolicyConfigError([f"result({rule!r}): a function of the returned value"], policy="classifier")
        copy = Classifier()
        copy._rules, copy._result_rules = self._rules, (*self._result_rules, rule)
        return copy

    def http_results(self) -> Classifier:
        """Judge returned responses by their HTTP status (`status` or `status_code`) and Retry-After."""
        return self.result(_http_result)

    def _with(self, kind: Kind, rules: tuple[Rule, ...], unknown: bool) -> Classifier:
        faults = [fault for rule in rules if (fault := _fault_of(rule, kind))]
        if not rules:
            faults.append(f"{kind}(): name at least one exception type or predicate")
        if faults:
            raise PolicyConfigError(faults, policy="classifier")
        copy = Classifier()
        copy._rules = (*self._rules, *((rule, kind, unknown) for rule in rules))
        copy._result_rules = self._result_rules
        return copy

    @property
    def rules(self) -> tuple[Any, ...]:
        """What it was told, in order: rules with their meaning, then those of results."""
        return (*self._rules, *self._result_rules)

    # --- judge -------------------------------------------------------------------------------------------------------

    @property
    def judges_results(self) -> bool:
        """Whether returned values have to be looked at."""
        return bool(self._result_rules)

    def of_result(self, value: object) -> Verdict:
        """Return what a returned value means: success unless a rule says otherwise.

        Raises what a rule raises, and PolicyUsageError for a rule that says anything but a Kind, a Verdict or None.
        Both are marked: the work is done, so an error of the rule must not pass for one of the dependency."""
        for rule in self._result_rules:
            try:
                said = rule(value)
                if isinstance(said, Verdict):
                    return said
                if said is not None:
                    return verdict_of(_kind_of(said, rule), reason=f"result of type {type(value).__name__}")
            except Exception as mistake:
                with suppress(AttributeError, TypeError):  # a class that allows no attributes
                    setattr(mistake, _OF_RESULT_RULE, True)
                raise
        return SUCCESS

    def of_error(
        self,
        error: BaseException,
        *,
        has_started: bool = True,
        elapsed_seconds: float = 0.0,
        blame_seconds: float | None = None,
    ) -> Verdict:
        """Return what an exception means.

        has_started: whether the function ran at all. elapsed_seconds: for how long. blame_seconds: from when on a
        caller who gives up has waited long enough to blame the dependency; None never does."""
        verdict = self._judged(error, has_started, elapsed_seconds, blame_seconds)
        if verdict is None and isinstance(error, Exception):
            verdict = self._of_cause(error)
        return _unclassified(error) if verdict is None else verdict

    def _judged(
        self, error: BaseException, has_started: bool, elapsed_seconds: float, blame_seconds: float | None
    ) -> Verdict | None:
        """Return what the error itself says; None for a class that nobody knows."""
        if isinstance(error, asyncio.CancelledError) or not isinstance(error, Exception):
            return verdict_of(Kind.CANCELLED, is_unknown=has_started, reason="cancelled")
        if isinstance(error, CallRejected):
            return verdict_of(Kind.LOCAL, retry_after_seconds=error.retry_after_seconds, reason=text_of(error))
        if isinstance(error, DeadlineExceeded):
            return _of_deadline(error, has_started, elapsed_seconds, blame_seconds)
        if ask(error, _OF_RESULT_RULE) is True:
            return verdict_of(Kind.BUG, is_unknown=True, reason=f"a result rule failed: {text_of(error)}"[:_TEXT_MAX])
        own = _of_own(error)
        if own is not None:
            return own
        if isinstance(error, ExceptionGroup) and error.subgroup(_is_own) is not None:
            return self._of_members(error, has_started, elapsed_seconds, blame_seconds)
        for rule, kind, unknown in self._rules:
            if isinstance(error, rule) if isinstance(rule, type) else rule(error):
                asked = retry_after_seconds(error, AMBIENT.now())
                return verdict_of(kind, is_unknown=unknown, retry_after_seconds=asked, reason=text_of(error))
        if isinstance(error, ExceptionGroup):
            return self._of_members(error, has_started, elapsed_seconds, blame_seconds)
        return _known(error)

    def _of_cause(self, error: Exception) -> Verdict | None:
        """Return what the error means that this one was raised for, as far as that is known.

        A cause that was named counts whatever it is. One that was only being handled may be another call's: a rejection
        or a 404 of the cache must not excuse the database that was asked instead. A bug says nothing: drivers look
        things up on their way."""
        is_named = True
        carried: object = error
        for _ in range(_CAUSES_MAX):
            cause = ask(carried, "__cause__")
            if cause is None and not ask(carried, "__suppress_context__"):
                cause, is_named = ask(carried, "__context__"), False
            if not isinstance(cause, Exception):
                return None
            verdict = self._judged(cause, True, 0.0, None)
            if verdict is not None and verdict.kind is not Kind.BUG and (is_named or verdict.kind in _OUTAGES):
                return replace(verdict, is_unknown=True, reason=text_of(error))
            carried = cause
        return None

    def _of_members(
        self, group: ExceptionGroup[Exception], has_started: bool, elapsed_seconds: float, blame_seconds: float | None
    ) -> Verdict:
        verdicts = [
            self.of_error(one, has_started=has_started, elapsed_seconds=elapsed_seconds, blame_seconds=blame_seconds)
            for one in group.exceptions
        ]
        return _of_group(group, verdicts)


def _kind_of(said: object, rule: ResultRule) -> Kind:
    try:
        return Kind(said)  # type: ignore[arg-type]
    except ValueError:
        raise PolicyUsageError(
            f"result({rule!r}) returned {said!r}; return a Kind or a Verdict for a failure, None for a success"
        ) from None


def _of_group(group: ExceptionGroup[Exception], verdicts: list[Verdict]) -> Verdict:
    """Return the weightiest of the verdicts. It is unknown if any is; the longest Retry-After counts."""
    asked = [verdict.retry_after_seconds for verdict in verdicts if verdict.retry_after_seconds is not None]
    return verdict_of(
        next(kind for kind in _WEIGHTIEST if any(verdict.kind is kind for verdict in verdicts)),
        is_unknown=any(verdict.is_unknown for verdict in verdicts),
        retry_after_seconds=max(asked, default=None),
        reason=text_of(group),
    )


def _of_deadline(
    error: DeadlineExceeded, has_started: bool, elapsed_seconds: float, blame_seconds: float | None
) -> Verdict:
    if not has_started or not error.has_started:
        return verdict_of(Kind.DEADLINE, reason=text_of(error))
    if blame_seconds is None or elapsed_seconds < blame_seconds:
        return verdict_of(Kind.DEADLINE, is_unknown=True, reason=text_of(error))
    return verdict_of(Kind.TIMEOUT, is_unknown=True, reason=text_of(error))


def _of_own(error: Exception) -> Verdict | None:
    """Return what an error of ours means; None for others', and for those that are nothing but a class."""
    if isinstance(error, AttemptTimeout):
        return verdict_of(Kind.TIMEOUT, is_unknown=True, reason=text_of(error))
    if isinstance(error, PolicyUsageError | PolicyConfigError):
        return verdict_of(Kind.BUG, reason=text_of(error))
    return _declared(error) if isinstance(error, SpoolproofError) else None


def _is_own(error: BaseException) -> bool:
    return isinstance(error, PolicyError) or (isinstance(error, SpoolproofError) and _declared(error) is not None)


def _declared(error: Exception) -> Verdict | None:
    """Return what an error says of itself by `failure_kind` and `is_unknown`."""
    declared = ask(error, "failure_kind")
    if not isinstance(declared, str) or declared not in set(Kind):
        return None
    is_unknown = bool(ask(error, "is_unknown"))
    asked = retry_after_seconds(error, AMBIENT.now())
    return verdict_of(Kind(declared), is_unknown=is_unknown, retry_after_seconds=asked, reason=text_of(error))


def _known(error: Exception) -> Verdict | None:
    """Return what is known of a class without any rule; None if nothing is."""
    declared = _declared(error)
    if declared is not None:
        return declared
    foreign = verdict_of_foreign(error, AMBIENT.now())
    if foreign is not None:
        return replace(foreign, reason=text_of(error))
    if isinstance(error, _BUGS):
        return verdict_of(Kind.BUG, is_unknown=type(error).__module__ != "builtins", reason=text_of(error))
    return None


def _unclassified(error: BaseException) -> Verdict:
    """Take an error that nobody knows for one of the dependency: an outage of a driver that no table has must open the
    breaker. Its effect may have happened, so only an idempotent call is made again."""
    kind = type(error)
    if kind not in _told:
        _told.add(kind)
        logger.warning(
            "policies.unclassified class=%s.%s: taken for a failure of the dependency whose effect may have happened; "
            "classify it with classify=Classifier()",
            kind.__module__,
            kind.__qualname__,
        )
    return verdict_of(Kind.TRANSIENT, is_unknown=True, reason=text_of(error))


def text_of(error: BaseException) -> str:
    """Return class and message in at most 200 characters, without passwords and query strings of URLs."""
    try:
        message = str(error)
    except Exception:  # another library's __str__: what it cannot say must not hide what happened
        message = ""
    return redact(f"{type(error).__name__}: {message}"[:_READ_MAX])[:_TEXT_MAX]


def redact(text: str) -> str:
    """Return the text without the credentials of the URLs in it, and without query strings, also those of bare paths.

    Rather too little is shown than a password with a slash or a question mark in it.
    """
    if "://" in text:
        text = _CREDENTIALS.sub("", text)
    return _QUERY.sub("", text) if "?" in text else text


def _http_result(value: Any) -> Verdict | None:
    status = http_status(value)
    return None if status is None else verdict_of_status(status, retry_after_seconds(value, AMBIENT.now()))


def _fault_of(rule: object, kind: Kind) -> str | None:
    if isinstance(rule, type):
        if not issubclass(rule, BaseException):
            return f"{kind}({rule.__name__}): not an exception class"
        if not issubclass(rule, Exception) or issubclass(rule, asyncio.CancelledError):
            return f"{kind}({rule.__name__}): a cancellation says nothing of the dependency and is never a failure (E5)"
        if issubclass(rule, PolicyError) or (issubclass(rule, SpoolproofError) and hasattr(rule, "failure_kind")):
            return f"{kind}({rule.__name__}): our own errors have their verdict already (E5)"
        return None
    return None if callable(rule) else f"{kind}({rule!r}): an exception type, or a function of the exception"


DEFAULT = Classifier()
