"""Work is refused by its criticality, and comes back uncounted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from spoolproof import Delivery, RegistrationError, Service, Settings
from spoolproof.degradation import offer as rows
from spoolproof.degradation.errors import DegradationError, DegradedError
from spoolproof.degradation.levels import CRITICALITIES
from spoolproof.degradation.loop import Degradation
from spoolproof.degradation.shed import Offer, Shedding
from spoolproof.errors import StoreUnavailable
from spoolproof.health.body import _DOCUMENTS
from spoolproof.health.endpoint import is_ours
from spoolproof.ids import Ids
from spoolproof.policies import Registry
from spoolproof.ports.health import PROBE_PATHS, Dependency, Need, Status
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock

WAIT = 60.0


class Answer:
    """What an ASGI application sends."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message["body"]


async def receive() -> MutableMapping[str, Any]:
    return {"type": "http.request"}


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/degraded":
        raise DegradedError("page", [("primary", "away")])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


async def asked(shedding: Shedding, path: str) -> Answer:
    answer = Answer()
    await shedding({"type": "http", "path": path}, receive, answer.send)
    return answer


TABLE = {"/": "critical_plus", "/reports": "sheddable", "/reports/tax": "sheddable_plus", "/orders": "critical"}


@pytest.mark.parametrize(
    ("level", "refused"),
    [
        (0, []),
        (1, ["/reports", "/reports/q3"]),
        (2, ["/reports", "/reports/q3", "/reports/tax"]),
        (3, ["/reports", "/reports/q3", "/reports/tax", "/orders"]),
    ],
)
async def test_requests_are_refused_by_the_criticality_of_their_path(level: int, refused: list[str]) -> None:
    offer = Offer()
    shedding = Shedding(application, offer, TABLE, None, Random(1))
    offer.change(level, "trouble")
    paths = ["/reports", "/reports/q3", "/reports/tax", "/orders", "/anything", "/reportsnot"]

    assert refused == [path for path in paths if (await asked(shedding, path)).status == 503]


async def test_a_refusal_says_when_to_come_again() -> None:
    """Spread, so that those refused together do not return together."""
    offer = Offer()
    shedding = Shedding(application, offer, "sheddable", None, Random(1))
    offer.change(1, "trouble")

    answers = [await asked(shedding, "/") for _ in range(40)]

    assert {"4", "5", "6"} == {one.headers["retry-after"] for one in answers}
    assert {"status": "unavailable", "reason": "shed"} == json.loads(answers[0].body)


@pytest.mark.parametrize("path", [*_DOCUMENTS, "/metrics"])
async def test_probes_always_pass(path: str) -> None:
    """A liveness probe that is refused for the sake of load restarts a process that has too much to do."""
    offer = Offer()
    offer.change(3, "trouble")

    assert 200 == (await asked(Shedding(application, offer, "critical", None), path)).status


def test_every_path_of_health_is_a_probe() -> None:
    assert all(any(path.startswith(probe) for probe in PROBE_PATHS) for path in _DOCUMENTS)
    assert is_ours("/livez")


async def test_an_answer_that_no_rung_has_is_a_503() -> None:
    answer = await asked(Shedding(application, Offer(), "critical", None), "/degraded")

    assert (503, "degraded") == (answer.status, json.loads(answer.body)["reason"])


async def test_requests_that_run_are_counted_where_a_most_is_given() -> None:
    offer, held = Offer(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await held.wait()

    shedding = Shedding(slow, offer, "critical", 4)
    running = [asyncio.create_task(asked(shedding, "/")) for _ in range(3)]
    await asyncio.sleep(0)
    assert 0.75 == offer.in_flight

    held.set()
    await asyncio.gather(*running)
    assert 0.0 == offer.in_flight


@pytest.mark.parametrize("given", ["vital", {"/x": "vital"}])
def test_a_wrong_criticality_is_refused_where_it_is_written(given: str | Mapping[str, str]) -> None:
    service = Service("shop", settings=Settings(store="memory://", broker="memory://"))
    with pytest.raises(DegradationError, match="criticality='vital'"):
        service.degradation.middleware(application, criticality=given)
    with pytest.raises(DegradationError, match="in_flight_max=0"):
        service.degradation.middleware(application, in_flight_max=0)
    with pytest.raises(RegistrationError, match="criticality='vital'"):

        @service.on("shop.order", criticality="vital")
        async def handle(order: dict[str, Any]) -> None: ...


async def test_a_level_pauses_intake_and_no_attempt_is_counted(tmp_path: Path) -> None:
    """On a real broker: what is shed waits in its queue, what was taken in goes back, and all of it runs later as if
    nothing had been."""
    settings = Settings(store=f"sqlite:///{tmp_path / 's.db'}", broker=f"embedded:///{tmp_path / 'b.db'}")
    service = Service("shop", settings=settings, policies=Registry({}))
    reports: list[tuple[int, int]] = []
    orders: list[int] = []
    begun, may_end, changed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @service.on("shop.report", criticality="sheddable", concurrency=1, prefetch=8)
    async def report(payload: dict[str, Any], delivery: Delivery) -> None:
        begun.set()
        await may_end.wait()
        reports.append((payload["n"], delivery.attempt))
        changed.set()

    @service.on("shop.order")
    async def order(payload: dict[str, Any]) -> None:
        orders.append(payload["n"])
        changed.set()

    async def until(condition: Any) -> None:
        async with asyncio.timeout(WAIT):
            while not condition():
                changed.clear()
                try:
                    async with asyncio.timeout(0.1):
                        await changed.wait()
                except TimeoutError:
                    continue

    await service.start()
    try:
        for number in range(4):
            await service.publish({"n": number}, type="shop.report")
        async with asyncio.timeout(WAIT):
            await begun.wait()  # one runs, others were taken in and wait behind it
        await service.degradation.set(1, reason="trouble")
        gate = service.runtime.monitor
        await until(lambda: any("nothing is taken in" in one for one in gate.snapshot().local.issues))
        may_end.set()
        await until(lambda: reports)
        await service.publish({"n": 9}, type="shop.report")
        await service.publish({"n": 1}, type="shop.order")
        await until(lambda: orders)
        assert [0] == [number for number, _ in reports]  # the one that ran has ended, no other has begun
        assert 1 == gate.snapshot().local.level

        assert await service.degradation.clear()
        await until(lambda: len(reports) == 5)
    finally:
        await service.drain()
        await service.stop()

    assert {0, 1, 2, 3, 9} == {number for number, _ in reports}
    assert {1} == {attempt for _, attempt in reports}


# --- by hand ---------------------------------------------------------------------------------------------------------


class View:
    """What health says."""

    lag_seconds = fullness = 0.0

    def __init__(self) -> None:
        self.dependencies: tuple[Dependency, ...] = ()

    def status_of(self, dependency: str) -> Status:
        return Status.UNKNOWN

    def known(self) -> tuple[Dependency, ...]:
        return self.dependencies


class Process:
    """One process of a service, as far as levels go."""

    def __init__(self, store: MemoryStore, clock: ManualClock) -> None:
        self.offer, self.view, self.id = Offer(), View(), uuid4()
        self.loop = Degradation(*("shop", self.offer, self.view, store.state), clock=clock, process_id=lambda: self.id)
        self.loop.is_store_reached = True


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(clock: ManualClock) -> MemoryStore:
    store = MemoryStore(clock=clock, ids=Ids(clock), outbox_rows_max=10)
    await store.start()
    await store.migrations.apply()
    return store


async def turn(clock: ManualClock, *processes: Process, times: int = 1) -> None:
    """Let each process decide so often."""
    for _ in range(times):
        async with clock.auto_advance():
            await asyncio.gather(*(one.loop.run_once() for one in processes))


async def test_a_level_that_is_set_reaches_all_processes_and_ends_by_itself(
    clock: ManualClock, store: MemoryStore
) -> None:
    """Nobody has to remember at six in the morning what was set at three."""
    one, other = Process(store, clock), Process(store, clock)
    await rows.set_level(store.state, "shop", 2, reason="sale", actor="ann", seconds=60, clock=clock)
    await turn(clock, one, other)
    assert (2, 2, "set by ann: sale") == (one.offer.level, other.offer.level, other.offer.reason)

    await clock.advance(60)
    await turn(clock, one, other)

    assert (0, 0) == (one.offer.level, other.offer.level)
    assert {} == await store.state.all("degradation/shop")


async def test_a_level_holds_while_the_store_is_away(
    clock: ManualClock, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(store, clock)
    await rows.set_level(store.state, "shop", 1, reason="sale", actor="ann", seconds=60, clock=clock)
    await turn(clock, process)

    async def away(kind: str) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr(store.state, "all", away)
    await turn(clock, process)
    assert 1 == process.offer.level
    await clock.advance(60)
    await turn(clock, process)
    assert 0 == process.offer.level


async def test_operators_see_which_processes_leave_something_out(clock: ManualClock, store: MemoryStore) -> None:
    """One process in trouble looks like a healthy service from outside."""
    one, other = Process(store, clock), Process(store, clock)
    one.view.dependencies = (
        Dependency(key="products", need=Need.IMPORTANT, status=Status.UNHEALTHY, state="disconnected", url="",
                   since=clock.now()),
    )  # fmt: skip
    await turn(clock, one, other, times=3)
    known = await rows.known(store.state, "shop", clock)
    assert (1, 0) == (one.offer.level, other.offer.level)
    assert {str(one.id): "products unhealthy"} == {name: told.reason for name, told in known.processes.items()}

    one.view.dependencies = ()
    await turn(clock, one, other, times=20)
    assert 0 == one.offer.level
    assert {} == (await rows.known(store.state, "shop", clock)).processes


async def test_a_process_that_died_is_forgotten(clock: ManualClock, store: MemoryStore) -> None:
    told = rows.Told(level=1, reason="x", actor="me", until=clock.now().timestamp() + 120, at=0)
    await rows.put(store.state, "shop", "gone", told)
    await store.state.put("degradation/shop", "nonsense", b"{")

    await clock.advance(121)
    assert rows.Known() == await rows.known(store.state, "shop", clock)
    assert {} == await store.state.all("degradation/shop")


@pytest.mark.parametrize(
    ("level", "reason", "seconds", "told"),
    [
        (4, "x", 60, "level=4: 0 (normal) to 3 (emergency)"),
        (True, "x", 60, "level=True"),
        (1, " ", 60, "reason=' '"),
        (1, "x", 90_000, "at most 86400"),
    ],
)
async def test_what_nobody_can_set_is_refused(
    clock: ManualClock, store: MemoryStore, level: int, reason: str, seconds: float, told: str
) -> None:
    with pytest.raises(DegradationError) as raised:
        await rows.set_level(store.state, "shop", level, reason=reason, actor="a", seconds=seconds, clock=clock)

    assert told in str(raised.value)
    assert set(CRITICALITIES) >= {"critical"}
