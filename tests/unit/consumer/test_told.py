"""What the log says of a message that fails: in plain words, and its traceback twice at most."""

from __future__ import annotations

import asyncio
import logging
import re

import msgspec
import pytest

from spoolproof import DeadLetter, Defer, Service, event
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.settings import Settings
from spoolproof.testing.clock import ManualClock

ID = "0190a0b0-0000-7000-8000-000000000001"


@event("told.order.placed")
class Placed(msgspec.Struct):
    n: int


async def told(caplog: pytest.LogCaptureFixture, answers: list[object], id: str = ID) -> list[tuple[str, bool]]:
    """Return the lines about a message whose handler gives these answers, and whether each has a traceback."""
    caplog.set_level(logging.INFO, "spoolproof.consumer")
    clock = ManualClock()
    service = Service("told", settings=Settings(store="memory://", broker="memory://"), clock=clock)
    left = list(answers)

    @service.on(Placed, queue="payments.take", attempts=4, delays=(5,))
    async def take_payment(placed: Placed) -> object:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with clock.auto_advance():
        await service.start()
        try:
            await service.publish(Placed(1), id=id)
            async with asyncio.timeout(10):
                while left or not (
                    service.runtime.store.table("inbox")  # type: ignore[attr-defined]
                    or await service.runtime.store.dead_letters.search(DeadLetterFilter())
                ):
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.01)
        finally:
            await service.stop()
    lines = [(record.getMessage(), bool(record.exc_info)) for record in caplog.records if ID in record.getMessage()]
    return [(re.sub(r"handler \S+take_payment", "handler take_payment", text), traced) for text, traced in lines]


ABOUT = f"type told.order.placed, queue payments.take, id {ID}"


async def test_each_failure_is_one_line_and_the_first_and_the_last_show_where(caplog: pytest.LogCaptureFixture) -> None:
    """Who is woken by it must know what failed, of what, how often, and what happens next."""
    lines = await told(caplog, [ConnectionError("refused"), KeyError("n"), KeyError("n"), ValueError("at last")])

    assert re.fullmatch(
        rf"consumer\.failed handler take_payment failed: ConnectionError: refused \({ABOUT}, attempt 1 of 4\); "
        r"runs again in 0\.1 s",
        lines[0][0],
    )
    key_error = "consumer.failed handler take_payment failed: KeyError: 'n'"
    assert f"{key_error} ({ABOUT}, attempt 2 of 4); runs again in 5 s" == lines[1][0]
    assert f"{key_error} ({ABOUT}, attempt 3 of 4); runs again in 5 s" == lines[2][0]
    expected = (
        f"consumer.given_up handler take_payment failed: ValueError: at last ({ABOUT}, attempt 4 of 4); "
        "given up, handler: it is a dead letter now"
    )
    assert expected == lines[3][0]
    assert [True, False, False, True] == [traced for _, traced in lines]


async def test_what_a_handler_says_itself_has_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """There is nothing to find in it."""
    lines = await told(caplog, [Defer(10, "bank is closed"), DeadLetter("no such account")])

    assert [
        (
            f"consumer.deferred handler take_payment asked to wait: bank is closed ({ABOUT}, not counted); "
            "runs again in 15 s",
            False,
        ),
        (
            "consumer.given_up handler take_payment refused the message: no such account "
            f"({ABOUT}, attempt 1 of 4); given up, handler: it is a dead letter now",
            False,
        ),
    ] == lines


async def test_a_message_of_many_lines_stays_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Logs are read line by line."""
    lines = await told(caplog, [ValueError("one\ntwo"), None])

    assert 1 == len(lines[0][0].splitlines())
