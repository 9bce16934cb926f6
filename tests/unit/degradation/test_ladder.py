"""Which rung answers, why, and how long that takes at most; on a clock that moves when told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoolproof import RegistrationError, Service, Settings
from spoolproof.cache.cache import Cache
from spoolproof.degradation.errors import DegradationError, DegradedError
from spoolproof.degradation.ladder import Context, Ladder
from spoolproof.degradation.shed import Offer
from spoolproof.errors import Action, BreakerOpen, NotStarted
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.policies import Breaker, Classifier, Consecutive, Policy, Registry, deadline, report
from spoolproof.ports.cache import Served
from spoolproof.ports.health import Dependency, Status
from spoolproof.telemetry.folding import Folded
from spoolproof.testing.clock import ManualClock


class View:
    """What health says."""

    lag_seconds = fullness = 0.0

    def __init__(self) -> None:
        self.statuses: dict[str, Status] = {}

    def status_of(self, dependency: str) -> Status:
        return self.statuses.get(dependency, Status.UNKNOWN)

    def known(self) -> tuple[Dependency, ...]:
        return ()


class Bench:
    """A ladder and what it goes by; its primary does what it is told."""

    def __init__(self, clock: ManualClock, **options: Any) -> None:
        self.clock, self.view, self.offer = clock, View(), Offer()
        self.random = Random(3)
        self.ladder = Ladder("page", **{"deadline": 2.0, "write": False, **options})
        self.error: Exception | None = None
        self.seconds = 0.0
        self.calls = 0
        self.saw_seconds: float | None = None

    def run(self) -> None:
        assert [] == self.ladder.declared.check()
        spawn = Supervisor(self.clock, self.random).spawn
        self.ladder.context = Context(self.view, self.offer, self.clock, self.random, spawn, Folded(self.clock))

    async def primary(self, sku: str) -> str:
        self.calls += 1
        self.saw_seconds = deadline.remaining(self.clock)
        await self.clock.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return f"live {sku}"

    def usual(self) -> None:
        """Declare a primary, a default and a partial one."""
        self.ladder.primary(dependency="products", timeout=0.8)(self.primary)
        self.ladder.default(priority=10)(lambda sku: f"default {sku}")
        self.ladder.partial(parts=("price", "reviews"))(self.less)
        self.run()

    async def less(self, sku: str, missing: set[str]) -> str:
        missing.discard("price")
        return f"less of {sku}"

    async def serve(self) -> Served[Any]:
        async with self.clock.auto_advance():
            return await self.ladder.serve("pen")


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    with ManualClock().active() as clock:
        yield clock


@pytest.fixture
def bench(clock: ManualClock) -> Bench:
    return Bench(clock)


async def test_the_best_answer_is_served_while_there_is_one(bench: Bench) -> None:
    bench.usual()

    served = await bench.serve()

    assert ("live pen", True, "primary", None) == (served.value, served.fresh, served.rung, served.reason)
    assert 2.0 == bench.saw_seconds  # what is called sees the deadline


@pytest.mark.parametrize(
    ("error", "seconds", "reason"),
    [
        (ConnectionError("away"), 0.0, "error"),
        (None, 5.0, "timeout"),
        (BreakerOpen("products", "open", "away", 5.0), 0.0, "breaker_open"),
    ],
)
async def test_the_first_rung_that_answers_says_why_it_is_not_the_best(
    bench: Bench, error: Exception | None, seconds: float, reason: str
) -> None:
    bench.error, bench.seconds = error, seconds
    bench.usual()

    served = await bench.serve()

    assert ("default pen", False, "default", reason) == (served.value, served.fresh, served.rung, served.reason)
    assert {"Age": "0", "Spoolproof-Rung": "default"}.items() <= served.headers().items()


async def test_a_partial_answer_says_what_it_lacks(bench: Bench) -> None:
    bench.error = ConnectionError()
    bench.ladder.primary()(bench.primary)
    bench.ladder.partial(parts=("price", "reviews"))(bench.less)
    bench.run()

    served = await bench.serve()

    assert ("less of pen", "partial", ("reviews",)) == (served.value, served.rung, served.missing)


class Sold(Exception):
    """A definite no."""

    failure_kind = "permanent"


@pytest.mark.parametrize("error", [Sold(), KeyError("a bug")])
async def test_a_refusal_and_a_bug_pass_through(bench: Bench, error: Exception) -> None:
    """A default in the place of "sold out", or of a mistake in the code, would be a lie."""
    bench.error = error
    bench.usual()

    with pytest.raises(type(error)):
        await bench.serve()


async def test_a_cancellation_passes_through(bench: Bench) -> None:
    bench.seconds = 0.5
    bench.usual()
    serving = asyncio.create_task(bench.ladder.serve("pen"))
    await asyncio.sleep(0)

    serving.cancel()

    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_without_any_answer_every_rung_says_why(bench: Bench) -> None:
    async def fails(sku: str) -> str:
        raise ValueError("no template")

    bench.error = ConnectionError("away")
    bench.ladder.primary(dependency="products")(bench.primary)
    bench.ladder.default()(fails)
    bench.ladder.default(dependency="products")(fails)
    bench.run()
    bench.view.statuses["products"] = Status.UNHEALTHY

    with pytest.raises(DegradedError) as raised:
        await bench.serve()

    assert ["primary", "default", "default"] == [rung for rung, _ in raised.value.reasons]
    assert raised.value.__cause__ is bench.error
    assert "no template" in str(raised.value)
    assert "products is unhealthy" in str(raised.value)
    assert {"none": 1} == bench.ladder.served


async def test_a_message_whose_primary_was_not_even_called_is_deferred(bench: Bench) -> None:
    """An outage burns no attempt of a message, also through a ladder."""
    bench.error = ConnectionError("away")

    async def fails(sku: str) -> str:
        raise ValueError

    bench.ladder.primary(dependency="products")(bench.primary)
    bench.ladder.default()(fails)
    bench.run()
    bench.view.statuses["products"] = Status.UNHEALTHY
    found = []
    for _ in range(2):
        with pytest.raises(DegradedError) as raised:
            await bench.serve()
        found.append(report(raised.value).disposition)

    # the first was called, and may have had its effect; the second came within the same second
    assert [Action.PARK, Action.DEFER] == [one.action for one in found if one is not None]
    assert 1 == bench.calls


async def test_an_unhealthy_primary_is_tried_once_a_second(bench: Bench) -> None:
    """Its return waits for its breaker, and never for health."""
    bench.usual()
    bench.view.statuses["products"] = Status.UNHEALTHY
    bench.error = ConnectionError()
    reasons = []
    for _ in range(30):
        reasons.append((await bench.serve()).reason)
        await bench.clock.advance(0.1)

    assert (3, {"error", "unhealthy"}) == (bench.calls, set(reasons))

    bench.error = None
    await bench.clock.advance(1.0)
    assert "primary" == (await bench.serve()).rung


async def test_the_primary_is_used_on_the_first_call_that_its_breaker_permits(clock: ManualClock) -> None:
    """With real health and a real breaker: five seconds open, then the next call that is permitted is served by it."""
    registry = Registry({})
    policy = Policy("products", Breaker(Consecutive(1), open_seconds=5), registry=registry, lint_ignore={"W1"})
    service = Service("shop", settings=Settings(store="memory://", broker="memory://"), policies=registry)
    page, is_away = service.degradation.ladder("page"), True

    @page.primary(dependency=policy)
    @policy
    async def live(sku: str) -> str:
        if is_away:
            raise ConnectionError
        return "live"

    page.default()(lambda sku: "default")
    async with service.test(clock=clock):
        assert "error" == (await page.serve("pen")).reason
        await clock.rest()
        assert Status.UNHEALTHY is service.runtime.monitor.status_of("products")
        assert {"breaker_open", "unhealthy"} >= {(await page.serve("pen")).reason for _ in range(5)}
        is_away = False
        waited = 0.0
        while (await page.serve("pen")).rung != "primary":
            await clock.advance(0.25)
            waited += 0.25

        assert policy.open_until_seconds == 0
        assert waited <= 7.0  # five and a fifth as the breaker says, and at most a second


async def test_a_degraded_primary_has_half_its_time_when_a_value_is_at_hand(bench: Bench) -> None:
    class Shelf:
        """A cache with one value."""

        async def last_good(self, key: str) -> Served[Any] | None:
            return Served(value=f"old {key}", fresh=False, age_seconds=90.0, source="memory")

        async def keeping(self, key: str) -> None:
            return None

        def key_maker(self, template: str, function: Any) -> Any:
            return lambda args, kwargs: args[0]

    bench.ladder.primary(dependency="products", timeout=0.8)(bench.primary)
    bench.ladder.cached(Shelf(), "{sku}")
    bench.run()
    bench.seconds = 0.5
    assert "primary" == (await bench.serve()).rung

    bench.view.statuses["products"] = Status.DEGRADED
    began = bench.clock.monotonic()
    served = await bench.serve()

    assert ("old pen", "cached", "timeout", 90.0) == (served.value, served.rung, served.reason, served.age_seconds)
    assert 0.4 == pytest.approx(bench.clock.monotonic() - began)


async def test_ten_fallbacks_run_at_once(bench: Bench) -> None:
    """They must not become the next overload."""

    async def slow(sku: str) -> str:
        await bench.clock.sleep(0.1)
        return "default"

    bench.error = ConnectionError()
    bench.ladder.primary()(bench.primary)
    bench.ladder.default()(slow)
    bench.run()

    async with bench.clock.auto_advance():
        found = await asyncio.gather(*(bench.ladder.serve("pen") for _ in range(12)), return_exceptions=True)

    assert (10, 2) == (
        sum(isinstance(one, Served) for one in found),
        sum(isinstance(one, DegradedError) for one in found),
    )


outcome = st.tuples(st.sampled_from(["answers", "fails", "hangs"]), st.floats(0, 3))


@settings(max_examples=60, deadline=None)
@given(outcome, st.lists(outcome, min_size=1, max_size=4), st.floats(0.05, 3), st.sampled_from(list(Status)))
def test_a_ladder_never_exceeds_its_deadline(
    primary: tuple[str, float], fallbacks: list[tuple[str, float]], seconds: float, status: Status
) -> None:
    """And what it serves is the first rung that had an answer in its time."""

    async def hold() -> None:
        with ManualClock().active() as clock:
            bench = Bench(clock, deadline=seconds)

            def rung(told: tuple[str, float], value: str) -> Any:
                async def answer() -> str:
                    await clock.sleep(1e6 if told[0] == "hangs" else told[1])
                    if told[0] == "fails":
                        raise ConnectionError
                    return value

                return answer

            bench.ladder.primary(dependency="products")(rung(primary, "primary"))
            for number, one in enumerate(fallbacks):
                bench.ladder.default(timeout=min(0.2, seconds))(rung(one, str(number)))
            bench.run()
            bench.view.statuses["products"] = status
            for _ in range(2):
                began, served = clock.monotonic(), None
                try:
                    async with clock.auto_advance():
                        served = await bench.ladder.serve()
                except DegradedError:
                    served = None
                assert clock.monotonic() - began <= seconds + 1e-9
                if served is not None and served.rung == "default":
                    told, took = fallbacks[int(served.value)]
                    assert ("answers", True) == (told, took <= 0.2)

    asyncio.run(hold())


async def test_level_two_prefers_what_is_cached_and_a_drill_begins_where_it_says(clock: ManualClock) -> None:
    service = Service("shop", settings=Settings(store="memory://", broker="memory://"), policies=Registry({}))
    pages: Cache[str] = service.cache("pages", of=str)
    page, calls = service.degradation.ladder("page"), 0

    @page.primary()
    async def live(sku: str) -> str:
        nonlocal calls
        calls += 1
        return f"live {calls}"

    page.cached(pages, "{sku}", age_seconds_max=3600)
    page.default()(lambda sku: "default")
    async with service.test(clock=clock):
        assert "primary" == (await page.serve("pen")).rung
        await clock.rest()

        await service.degradation.set(2, reason="the disk is slow")
        served = await page.serve("pen")
        assert ("live 1", "cached", "level") == (served.value, served.rung, served.reason)
        assert "primary" == (await page.serve("ink")).rung  # of which nothing is cached

        await service.degradation.clear()
        end = service.degradation.drill("page", "default", share=1.0)
        assert ("default", "drill") == ((served := await page.serve("pen")).rung, served.reason)
        end()
        assert "primary" == (await page.serve("pen")).rung
        end = service.degradation.drill("page", "cached", seconds=60)
        await clock.advance(61)
        assert "primary" == (await page.serve("pen")).rung
        with pytest.raises(DegradationError, match=r"rung='partial': cached, default"):
            service.degradation.drill("page", "partial")


async def test_what_is_removed_while_the_primary_runs_stays_removed(clock: ManualClock) -> None:
    """The primary has read the old price; somebody removes it; the ladder must not keep it."""
    service = Service("shop", settings=Settings(store="memory://", broker="memory://"), policies=Registry({}))
    pages: Cache[str] = service.cache("pages", of=str)
    page, is_down = service.degradation.ladder("page"), False

    @page.primary()
    async def live(sku: str) -> str:
        if is_down:
            raise ConnectionError
        await pages.remove(sku)
        return "old price"

    page.cached(pages, "{sku}")
    async with service.test(clock=clock):
        assert "old price" == (await page.serve("pen")).value
        await clock.rest()
        is_down = True

        with pytest.raises(DegradedError, match="nothing is cached"):
            await page.serve("pen")


async def test_an_unused_fallback_is_tried_now_and_then_and_its_failure_is_an_issue(clock: ManualClock) -> None:
    """One that is never needed may not work on the day it is."""
    service = Service("shop", settings=Settings(store="memory://", broker="memory://"), policies=Registry({}))
    page = service.degradation.ladder("page")
    page.primary()(lambda: "live")

    @page.default()
    async def broken() -> str:
        raise LookupError("no template")

    async with service.test(clock=clock):
        for _ in range(20_000):
            await page.serve()
            if page.exercises:
                break
            await clock.advance(0.01) if page.served["primary"] % 100 == 0 else None
        await clock.rest()

        assert {"failed": 1} == page.exercises
        assert any("its first fallback failed" in one for one in service.runtime.monitor.snapshot().local.issues)
        assert {"primary": page.served["primary"]} == page.served  # what nobody was served is not counted


async def test_a_write_is_kept_durably_or_refused(bench: Bench) -> None:
    class Kept:
        place = "spooled"

    writing = Bench(bench.clock, write=True)
    writing.error = ConnectionError()
    writing.ladder.primary()(writing.primary)
    writing.ladder.spooled()(lambda sku: Kept() if sku == "pen" else "done, honestly")
    writing.run()

    assert "spooled" == (await writing.serve()).rung
    with pytest.raises(DegradedError, match="not the Receipt of a publish"):
        async with writing.clock.auto_advance():
            await writing.ladder.serve("ink")


def test_all_faults_of_a_ladder_are_told_at_once() -> None:
    """Whoever declares one mends it once, and at the start, not in the outage."""
    service = Service("shop", settings=Settings(store="memory://", broker="memory://"))
    page = service.degradation.ladder("Page!", deadline=1.0)
    page.primary(dependency="products", timeout=3)(lambda sku: sku)
    page.default(dependency="search", timeout=0)(lambda sku: sku)
    page.partial(parts=())(lambda sku, missing: sku)
    page.cached(service.cache("pages"), "{nothing}")
    write = service.degradation.ladder("write", write=True)
    write.default()(lambda: None)

    faults = "\n".join(service._registrations.faults())

    for part in (
        "ladder 'Page!': its name must be",
        "timeout=3: above 0 and below the deadline",
        "timeout=0: above 0",
        "dependency='search' is loaded harder when 'products' is away",
        "parts=() names",
        "{nothing} is no parameter",
        "ladder 'write': it has no primary",
        "only spooled",
    ):
        assert part in faults, faults
    with pytest.raises(RegistrationError, match="declared already"):
        service.degradation.ladder("write")


async def test_a_dependency_that_no_policy_has_is_found_at_the_start() -> None:
    """A typo would make a ladder that never skips."""
    service = Service("shop", settings=Settings(store="memory://", broker="memory://"), policies=Registry({}))
    page = service.degradation.ladder("page")
    page.primary(dependency="prodcts")(lambda: 1)
    page.default()(lambda: 2)
    with pytest.raises(NotStarted):
        await page.serve()

    with pytest.raises(RegistrationError, match="dependency='prodcts': no policy has this name"):
        async with service.test():
            pass


def test_the_classifier_of_the_primary_decides(clock: ManualClock) -> None:
    """A policy knows what an error means; the ladder goes by that."""
    registry = Registry({})

    class Busy(Exception):
        pass

    policy = Policy("products", Breaker(), registry=registry, classify=Classifier().transient(Busy), lint_ignore={"W1"})

    async def hold() -> None:
        bench = Bench(clock)

        @bench.ladder.primary()
        @policy
        async def live(sku: str) -> str:
            raise Busy

        bench.ladder.default()(lambda sku: "default")
        bench.run()
        assert "default" == (await bench.serve()).rung

    asyncio.run(hold())
