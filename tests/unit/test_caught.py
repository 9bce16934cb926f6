"""What exceptions of other people's code look like to us, however they are made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from spoolproof.caught import before, class_name, error_line, error_text, is_failure, stack_of, tame
from spoolproof.dead_letters.fingerprint import fingerprint_of
from spoolproof.failpoints import InjectedFault


class NoText(Exception):
    def __str__(self) -> str:
        return self.response["message"]  # type: ignore[attr-defined, no-any-return]


class TextExits(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class NoNotes(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        raise RuntimeError("no notes")


class NoAttributes(Exception):
    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(f"no {name}")


class NotText(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]


HOSTILE: dict[str, Callable[[], BaseException]] = {
    "no text": NoText,
    "exits": TextExits,
    "no notes": lambda: NoNotes("n"),
    "no attributes": NoAttributes,  # never a parameter itself: pytest looks at those
    "text that is none": NotText,
    "ten megabytes": lambda: Exception("x" * 10_000_000),
    "what no store keeps": lambda: Exception("\0\ud800"),
}


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("name", HOSTILE)
def test_any_exception_can_be_shown_in_bounded_length(name: str) -> None:
    """A failure whose books cannot be kept is run again at once, without end."""
    caught = raised(HOSTILE[name]())

    assert 0 < len(error_text(caught)) <= 500
    assert 0 < len(error_text(caught, 20)) <= 20
    assert class_name(caught) in error_line(caught)
    assert 1 == len(error_line(caught).splitlines())
    assert 0 < len(stack_of(caught).encode()) <= 9000
    assert 16 == len(fingerprint_of("handler", tame(caught)))
    error_text(caught).encode()


def test_the_text_says_why_there_is_none() -> None:
    """The author of the class has to learn of it."""
    assert "NoText, whose text cannot be had: its __str__ raises AttributeError" in error_line(NoText())


def test_an_exception_that_can_be_looked_at_is_left_as_it_is() -> None:
    """Its class decides what happens to the message."""
    error = ValueError("plain")

    assert error is tame(error)
    assert isinstance(tame(NoAttributes()), RuntimeError)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError(), True),
        (SystemExit(1), True),
        (BaseExceptionGroup("g", [SystemExit(1)]), True),
        (KeyboardInterrupt(), False),
        (GeneratorExit(), True),
        (InjectedFault(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_a_failure_of_the_code_that_raised_it(error: BaseException, expected: bool) -> None:
    """Only what ends the process or the task on purpose passes through."""
    assert expected is is_failure(error)


async def test_a_generator_exit_is_a_failure_unless_the_coroutine_is_closed() -> None:
    """A coroutine that is thrown away must end at once; a handler that raises the same must not end its lane."""
    caught: list[bool] = []

    async def guards(foreign: Awaitable[object]) -> None:
        then = before()
        try:
            await foreign
        except GeneratorExit as error:
            caught.append(is_failure(error, then))

    async def raises() -> None:
        raise GeneratorExit

    await guards(raises())
    thrown_away = guards(asyncio.Event().wait())
    thrown_away.send(None)

    async def throws_it_away() -> None:
        thrown_away.close()

    await asyncio.create_task(throws_it_away())

    assert [True, False] == caught


async def test_a_cancellation_is_a_failure_unless_somebody_asked_for_it() -> None:
    """A drain must end what runs; a cancelled future that a handler awaits must not."""
    caught: list[bool] = []

    async def waits_for_a_cancelled_future() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        try:
            await future
        except asyncio.CancelledError as error:
            caught.append(is_failure(error))

    async def is_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            caught.append(is_failure(error))

    await waits_for_a_cancelled_future()
    task = asyncio.ensure_future(is_cancelled())
    await asyncio.sleep(0)
    task.cancel()
    await task

    assert [True, False] == caught
