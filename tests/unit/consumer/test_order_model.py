"""Order of each key, whatever fails, is killed or loses its connection: a model on the manual clock."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from random import Random

import msgspec
import pytest

from spoolproof import Defer, Service, Transaction, event
from spoolproof.backoff import system_random
from spoolproof.brokers.memory import MemoryBroker, MemoryBrokerServer
from spoolproof.consumer.lanes import lane_of
from spoolproof.ids import Ids
from spoolproof.policies import Registry
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.runtime import Runtime
from spoolproof.settings import Settings
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock
from spoolproof.wiring import PORTS

SETTINGS = Settings(store="memory://", broker="memory://", consumer_timeout_seconds=30)
QUEUE = "order.steps"
MESSAGES = 60
HOPELESS = 1_000_000


@event("order.step")
class Step(msgspec.Struct):
    key: str | None
    n: int


class World:
    """Processes of one service on one store and one broker, and a plan of what fails how often."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.clock = ManualClock()
        self.ids = Ids(self.clock)
        self.server = MemoryBrokerServer()
        self.store = MemoryStore(clock=self.clock, ids=self.ids, outbox_rows_max=10_000, ports=PORTS)
        self.failures = {n: self.random.choice((0, 0, 0, 0, 1, 1, 2, 3)) for n in range(MESSAGES)}
        for n in self.random.sample(range(MESSAGES), 3):
            self.failures[n] = HOPELESS
        self.runs = 0
        self.running: dict[str, int] = defaultdict(int)
        self.overlaps: list[str] = []
        self.processes: list[Runtime] = []

    def service(self) -> Service:
        service = Service("order", settings=SETTINGS, clock=self.clock, policies=Registry(environ={}))

        @service.on(
            Step,
            queue=QUEUE,
            ordered=True,
            concurrency=4,
            attempts=6,  # three planned, and a cancellation counts as one
            delays=(0.5, 1),
            timeout=10,
            prefetch=self.random.choice((5, 40)),
        )
        async def step(step: Step, tx: Transaction) -> Defer | None:
            self.runs += 1
            await self.clock.sleep(self.random.choice((0, 0.01, 0.3)))
            if self.failures[step.n] > 0:
                self.failures[step.n] -= 1
                if self.random.random() < 0.1:
                    return Defer(self.random.choice((1, 5, 15)))  # the last is longer than a delivery may be held
                if self.random.random() < 0.2:
                    return Defer(self.random.choice((1, 5, 60)))  # the last is longer than a delivery may be held
                raise ValueError(f"step {step.n} fails")
            if self.random.random() < 0.02:
                raise asyncio.CancelledError  # what a handler may do to its lane
            if self.random.random() < 0.02:
                raise asyncio.CancelledError  # what a handler may do to its lane
            tx.raw.setdefault("effects", []).append((step.key, step.n))
            return None

        return service

    async def start(self) -> Runtime:
        service = self.service()
        runtime = Runtime(
            service.name,
            SETTINGS,
            service._registrations,
            Registry(environ={}),
            roles=("relay", "consumer"),
            health=None,
            clock=self.clock,
            ids=self.ids,
            random=system_random(),
            make_store=lambda *_, **__: self.store,
            make_broker=lambda *_, spawn, **__: MemoryBroker(clock=self.clock, spawn=spawn, server=self.server),
        )
        await runtime.start()
        self.processes.append(runtime)
        return runtime

    async def kill(self, runtime: Runtime) -> None:
        """End a process as SIGKILL does: nothing of it is asked to do anything."""
        self.processes.remove(runtime)
        runtime.supervisor._loops.clear()  # or each would be turned on again
        while tasks := [task for task in runtime.supervisor._tasks if not task.done()]:
            for task in tasks:
                task.cancel()
            await asyncio.sleep(0)
        runtime.broker.inner.lose_connection()  # type: ignore[attr-defined]

    def effects(self) -> list[tuple[str | None, int]]:
        return list(self.store.committed().business.get("effects", []))

    async def given_up(self, reason: str | None = None) -> set[int]:
        letters = await self.store.dead_letters.search(DeadLetterFilter(reason=reason))
        return {msgspec.json.decode(letter.message.body)["n"] for letter in letters}


@pytest.mark.parametrize("seed", range(6))
async def test_effects_of_a_key_are_in_the_order_of_its_publishes(seed: int) -> None:
    """S6: with failures, kills of the active process, and connections lost at any time; nothing lost, nothing twice."""
    world = World(seed)
    keys = [*(f"key-{n}" for n in range(6)), None]
    plan = [Step(world.random.choice(keys), n) for n in range(MESSAGES)]
    async with world.clock.auto_advance():
        for _ in range(2):
            await world.start()
        publisher = (await world.start()).publisher
        for step in plan:
            options = {} if step.key is None else {"key": step.key}
            await publisher.store([publisher.outgoing(step, options)])  # type: ignore[arg-type]
        for _ in range(6):
            runs = world.runs + world.random.randint(1, 12)
            while world.runs < runs and not await is_over(world):
                await asyncio.sleep(0)
            victim = world.random.choice(world.processes)
            match world.random.choice(("kill", "kill", "connection", "drain")):
                case "kill":
                    await world.kill(victim)
                    await world.start()
                case "connection":
                    victim.broker.inner.lose_connection()  # type: ignore[attr-defined]
                    await world.clock.sleep(world.random.random())
                    victim.broker.inner.restore_connection()  # type: ignore[attr-defined]
                case "drain":
                    await drain(world, victim)
                    await world.start()
        async with asyncio.timeout(60):
            while not await is_over(world):
                await asyncio.sleep(0)
        while world.processes:
            await world.kill(world.processes[-1])

    given_up = await world.given_up()
    hopeless = {n for n, left in world.failures.items() if left > HOPELESS / 2}
    assert hopeless == given_up - await world.given_up("crash_loop")  # three kills may meet the same message
    done = world.effects()
    for key in keys:
        expected = [step.n for step in plan if step.key == key and step.n not in given_up]
        found = [n for of, n in done if of == key]
        assert (expected if key else sorted(expected)) == (found if key else sorted(found)), key


async def drain(world: World, runtime: Runtime) -> None:
    """Stop a process as SIGTERM does, but leave the store to the others."""
    world.processes.remove(runtime)
    start, stop = world.store.start, world.store.stop
    world.store.stop = start  # type: ignore[method-assign]
    try:
        await runtime.stop()
    finally:
        world.store.stop = stop  # type: ignore[method-assign]


async def is_over(world: World) -> bool:
    return len(world.effects()) + len(await world.given_up()) >= MESSAGES


def test_lanes_are_used() -> None:
    """The keys of the model must not share one lane, or nothing would run beside anything."""
    assert len({lane_of(f"key-{n}") for n in range(6)}) > 3
