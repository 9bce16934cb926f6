"""What was caught from code that is not ours: whether it is a failure of that code, and what it says.

Whoever keeps books on a failure must not fail over how it looks: `__str__`, `__notes__` or any attribute of an error
may raise, and a text may be a megabyte long. Nothing here raises.
"""

from __future__ import annotations

import asyncio
import traceback
from typing import Any, NamedTuple

from spoolproof import limits
from spoolproof.failpoints import InjectedFault


class Before(NamedTuple):
    """task: the running one, before foreign code was awaited in it. asked: how often it had been asked to end."""

    task: asyncio.Task[Any] | None
    asked: int


def before() -> Before:
    """Return what `is_failure` needs to know from before foreign code is awaited."""
    task = asyncio.current_task()
    return Before(task, 0 if task is None else task.cancelling())


def is_failure(error: BaseException, then: Before | None = None) -> bool:
    """Whether an exception is a failure of the code that raised it, SystemExit and a CancelledError that nobody asked
    for included. False for what ends the task or the process, and has to be raised again. then: None where nothing was
    awaited."""
    if isinstance(error, asyncio.CancelledError):
        return before().asked <= (0 if then is None else then.asked)
    if isinstance(error, GeneratorExit):  # a coroutine that is closed for good is not closed from within its task
        return then is None or (then.task is not None and before().task is then.task)
    return not isinstance(error, KeyboardInterrupt | InjectedFault)


def tame(error: BaseException) -> BaseException:
    """Return the exception, or, for one that cannot even be looked at, another in its place that names its class."""
    try:
        isinstance(error, _Nothing)  # asks for __class__, as every `match` does
        _ = error.__traceback__, error.__cause__, error.__context__
    except BaseException:
        return RuntimeError(f"{class_name(error)}, an exception whose attributes raise")
    return error


class _Nothing:
    """What no exception is."""


def class_name(error: BaseException) -> str:
    """Return the class of an exception as `module.Name`, without the module for built-in ones."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def error_text(error: BaseException, characters_max: int = 500) -> str:
    """Return what an exception says in at most `characters_max` characters; its class if it says nothing."""
    try:
        text = storable_text(str(error)[: characters_max + 1])
    except BaseException as fault:
        text = f"{class_name(error)}, whose text cannot be had: its __str__ raises {class_name(fault)}"
    text = text or class_name(error)
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"


def error_line(error: BaseException, characters_max: int = 500) -> str:
    """Return class and text in one line."""
    name, text = class_name(error), error_text(error, characters_max)
    return name if text == name else f"{name}: {' '.join(text.split())}"


def stack_of(error: BaseException) -> str:
    """Return the traceback as text, its start cut to 8 KiB and marked `…`; the innermost frames are kept."""
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # of notes, a cause or a text that raise
        text = "".join(traceback.format_tb(tame(error).__traceback__)) + error_line(error)
    encoded = text.encode(errors="replace")
    if len(encoded) <= limits.STACK_BYTES_MAX:
        return storable_text(text)
    return storable_text("…" + encoded[-limits.STACK_BYTES_MAX :].decode(errors="ignore"))


def storable_text(text: str) -> str:
    """Return the text with what no store can keep replaced: NUL (PostgreSQL) and lone surrogates (UTF-8)."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode(errors="replace").decode()
