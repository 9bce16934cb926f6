"""A handler is renamed: a rolling deploy loses and doubles nothing, and its old queue can be retired."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from spoolproof import Service, Transaction
from spoolproof.backoff import system_random
from spoolproof.clock import SystemClock
from spoolproof.consumer.queues import stranded_queues
from spoolproof.consumer.retire import Retired, retire
from spoolproof.errors import Conflict
from spoolproof.failpoints import InjectedFault, arm, parse_plan
from spoolproof.ids import Ids
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.settings import Settings, load_settings
from spoolproof.wiring import build_broker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]
OLD, NEW = "shop.book", "shop.enter"


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.servers)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "embedded":
        return load_settings(store=f"sqlite:///{tmp_path}/store.db", broker=f"embedded:///{tmp_path}/broker.db")
    urls = [request.getfixturevalue(name) for name in ("postgres_url", "rabbitmq_url")]
    return load_settings(store=urls[0], broker=urls[1], migrate="auto")


def release(settings: Settings, queue: str, *, formerly: tuple[str, ...] = ()) -> Service:
    service = Service("shop", settings=settings)

    @service.on("order", queue=queue, formerly=formerly)
    async def book(payload: dict[str, int], tx: Transaction) -> None:
        await tx.execute("insert into effect (n) values ($1)", payload["n"])

    return service


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.1)


async def effects(service: Service) -> Counter[int]:
    async with service.transaction() as tx:
        return Counter(row["n"] for row in await tx.fetch("select n from effect"))


async def retired(service: Service, settings: Settings, to: str | None) -> Retired:
    clock = SystemClock()
    supervisor, ids = Supervisor(clock, system_random()), Ids(clock)
    broker = build_broker(settings, clock=clock, ids=ids, random=system_random(), spawn=supervisor.spawn)
    options = {"service": "shop", "exchange": settings.exchange, "queue": OLD, "to": to}
    try:
        return await retire(service.runtime.store, broker, **options, clock=clock, ids=ids)  # type: ignore[arg-type]
    finally:
        await broker.stop()
        await supervisor.stop()


async def test_a_rolling_rename_handles_every_event_once(settings: Settings) -> None:
    """Both releases are bound for a while, each to a queue of its own, and each event is in both."""
    before, after = release(settings, OLD), release(settings, NEW, formerly=(OLD,))
    await before.start()
    async with before.transaction() as tx:
        await tx.execute("create table effect (n integer)")
    for n in range(40):
        await before.publish({"n": n}, type="order")
    await after.start()
    for n in range(40, 80):
        await before.publish({"n": n}, type="order")
    await until(lambda: _has(before, 80))
    await before.drain(10)
    await before.stop()
    try:
        broker = after.runtime.broker
        for n in range(80, 100):  # addressed by name, as the old release's retries and an operator's replays are
            await after.publish({"n": n}, type="order", destination=f"queue:{OLD}")
        for n in range(100, 120):
            await after.publish({"n": n}, type="order")
        await until(lambda: _has(after, 120))

        assert dict.fromkeys(range(120), 1) == await effects(after)
        await until(lambda: _is_empty(after, OLD))
        with pytest.raises(Conflict, match="is read by a process"):
            await retired(after, settings, None)
        assert await broker.depth(OLD) == 0
    finally:
        await after.stop()


@pytest.mark.parametrize("point", ["queue.after_move=raise@5", "queue.before_remove=raise"])
async def test_a_retirement_that_was_cut_off_is_given_again(tmp_path: Path, point: str) -> None:
    settings = load_settings(store=f"sqlite:///{tmp_path}/store.db", broker=f"embedded:///{tmp_path}/broker.db")
    before, after = release(settings, OLD), release(settings, NEW)
    await before.start()
    await until(lambda: _is_known(before))
    await before.drain(5)
    await before.stop()
    await after.start()
    try:
        for n in range(20):
            await after.publish({"n": n}, type="order", destination=f"queue:{OLD}")
        await until(lambda: _is_stranded(after))
        arm(parse_plan(point, str(tmp_path / "failpoints.log")))
        with pytest.raises(InjectedFault):
            await retired(after, settings, None)
        arm(None)

        await retired(after, settings, None)

        letters = await after.runtime.store.dead_letters.search(DeadLetterFilter())
        assert set(range(20)) == {json.loads(letter.message.body)["n"] for letter in letters}
        assert 20 == len(letters)
    finally:
        arm(None)
        await after.stop()


@pytest.mark.parametrize("to", [None, NEW])
async def test_a_retired_queue_leaves_its_messages_elsewhere(settings: Settings, to: str | None) -> None:
    before, after = release(settings, OLD), release(settings, NEW)
    await before.start()
    async with before.transaction() as tx:
        await tx.execute("create table effect (n integer)")
    await until(lambda: _is_known(before))
    await before.drain(5)
    await before.stop()
    await after.start()
    try:
        for n in range(30):
            await after.publish({"n": n}, type="order", destination=f"queue:{OLD}")
        await until(lambda: _is_stranded(after))

        done = await retired(after, settings, to)

        assert Retired(queue=OLD, moved=30, destroyed=0) == done
        assert await after.runtime.broker.depth(OLD) is None
        if to is None:
            letters = await after.runtime.store.dead_letters.search(DeadLetterFilter())
            assert Counter({"retired": 30}) == Counter(letter.reason for letter in letters)
        else:
            await until(lambda: _has(after, 30))
            assert dict.fromkeys(range(30), 1) == await effects(after)
        await after.publish({"n": 99}, type="order")
        await until(lambda: _has(after, 1 if to is None else 31))
    finally:
        await after.stop()


async def test_a_dead_letter_of_the_old_name_stays_one_until_its_replay_succeeds(settings: Settings) -> None:
    is_mended = False

    def failing(queue: str, formerly: tuple[str, ...] = ()) -> Service:
        service = Service("shop", settings=settings)

        @service.on("order", queue=queue, formerly=formerly, attempts=1)
        async def book(payload: dict[str, int], tx: Transaction) -> None:
            if not is_mended:
                raise ValueError("not yet")

        return service

    before, after = failing(OLD), failing(NEW, (OLD,))
    await before.start()
    await before.publish({"n": 1}, type="order")
    await until(lambda: _is(before, open=1))
    await before.drain(5)
    await before.stop()
    await after.start()
    try:
        letters = after.runtime.store.dead_letters
        (letter,) = await letters.search(DeadLetterFilter())
        for expected in ({"open": 1}, {"resolved": 1}):
            await after.dead_letters.replay(letter.id, actor="ada", reason="it is mended")
            await until(lambda expected=expected: _is(after, **expected))
            is_mended = True

        assert 2 == (await letters.get(letter.id)).record.replays
    finally:
        await after.stop()


async def _is(service: Service, **expected: int) -> bool:
    counts = await service.runtime.store.dead_letters.counts()
    return expected == {str(state): count for state, count in counts.items() if count}


async def _has(service: Service, count: int) -> bool:
    return len(await effects(service)) >= count


async def _is_empty(service: Service, queue: str) -> bool:
    return await service.runtime.broker.depth(queue) == 0


async def _is_known(service: Service) -> bool:
    return OLD in await service.runtime.store.state.all("queue/shop")


async def _is_stranded(service: Service) -> bool:
    return OLD in await stranded_queues(service.runtime.store.state, "shop")
