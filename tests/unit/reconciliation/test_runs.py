"""A run never overwrites what changed after it was seen, stops at the brake, and accounts for every key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spoolproof import InvalidMessage, RegistrationError, Service, Transaction, limits
from spoolproof.errors import Conflict
from spoolproof.policies import events
from spoolproof.ports.reconciliations import Difference
from spoolproof.reconciliation.part import ReconciliationPart
from spoolproof.reconciliation.reconciler import Reconciler
from spoolproof.testing.app import App

OURS = ("pending", "shipped", "delivered", "cancelled")
MAPPING = {"CREATED": "pending", "MOVING": "shipped", "DONE": "delivered"}
TRANSITIONS = {"pending": {"shipped", "delivered"}, "shipped": {"delivered"}}
KEYS = [f"o-{n:02d}" for n in range(12)]


class World:
    """Two systems: ours in the store, theirs beside it; what others do meanwhile, by the moment it happens at."""

    def __init__(self, theirs: dict[str, str], **options: Any) -> None:
        self.theirs = theirs
        self.meanwhile: dict[str, list[tuple[str, str]]] = {}
        self.happened: list[tuple[str, str]] = []
        self.changed: list[tuple[str, str, str]] = []
        self.service = Service("shop")
        self.app: App
        self._make(
            self.service.reconciliation.reconciler("orders", mapping=MAPPING, transitions=TRANSITIONS, **options)
        )

    def _make(self, orders: Reconciler) -> None:
        @orders.candidates
        async def candidates(after: str | None) -> AsyncIterator[str]:
            for key in sorted({*(await self.ours()), *self.theirs}):
                if after is None or key > after:
                    yield key

        @orders.ours
        async def ours(keys: Sequence[str]) -> AsyncIterator[tuple[str, str]]:
            known = await self.ours()
            for key in keys:
                if key in known:
                    yield key, known[key]
            await self.happen("between")

        @orders.theirs
        async def theirs(keys: Sequence[str]) -> AsyncIterator[tuple[str, str]]:
            for key in keys:
                if key in self.theirs:
                    yield key, self.theirs[key]
            await self.happen("after")

        @orders.repair
        async def repair(difference: Difference, tx: Transaction) -> bool:
            rows: dict[str, str] = tx.raw  # type: ignore[assignment]
            if rows.get(difference.key) != difference.ours:
                return False
            self.changed.append((difference.key, rows[difference.key], str(difference.to)))
            rows[difference.key] = str(difference.to)
            await tx.publish({"key": difference.key}, type="shop.order.repaired")
            return True

    async def ours(self) -> dict[str, str]:
        async with self.app.transaction() as tx:
            return dict(tx.raw)  # type: ignore[call-overload, no-any-return]

    async def put(self, rows: Sequence[tuple[str, str]]) -> None:
        async with self.app.transaction() as tx:
            tx.raw.update(rows)  # type: ignore[attr-defined]

    async def happen(self, moment: str) -> None:
        rows = self.meanwhile.pop(moment, [])
        self.happened += rows
        await self.put(rows)


def accounted(run: dict[str, Any]) -> int:
    return int(run["equal"] + run["repaired"] + run["reviewed"] + sum(run["skipped"].values()))


SIDE = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(OURS))
THEIRS = st.dictionaries(st.sampled_from(KEYS), st.sampled_from([*MAPPING, "LOST"]))
EVENTS = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(OURS)), max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SIDE, THEIRS, EVENTS, EVENTS, st.integers(1, 12), st.integers(1, 5))
def test_a_run_against_the_model(
    ours: dict[str, str],
    theirs: dict[str, str],
    between: list[tuple[str, str]],
    after: list[tuple[str, str]],
    changes_max: int,
    page: int,
) -> None:
    """Whatever both sides say and whatever happens meanwhile."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(limits, "RECONCILIATION_PAGE", page)
        asyncio.run(_model(ours, theirs, {"between": between, "after": after}, changes_max))


async def _model(
    ours: dict[str, str], theirs: dict[str, str], meanwhile: dict[str, list[tuple[str, str]]], changes_max: int
) -> None:
    world = World(theirs, changes_max=changes_max, share_max=1.0)
    async with world.service.test() as world.app:
        await world.put(list(ours.items()))
        world.meanwhile = {moment: list(rows) for moment, rows in meanwhile.items()}
        run = await world.service.reconciliation.run("orders")
        now = await world.ours()
        items = (await world.service.reviews.ls())["items"]

    events = {key: [state for one, state in world.happened if one == key] for key in KEYS}
    assert run["seen"] == accounted(run)
    assert run["seen_ours"] <= run["seen"]
    if run["phase"] == "braked":
        assert run["repaired"] == run["reviewed"] == 0 == len(world.changed)
        assert ["reconciliation.brake"] == [item["kind"] for item in items]
        assert run["differs"] > changes_max
    else:
        assert run["differs"] <= changes_max
        assert run["repaired"] == len(world.changed)
        assert run["reviewed"] == len(items)
    changed = {key: (seen, to) for key, seen, to in world.changed}
    for key in KEYS:
        states = [one for one in (ours.get(key), *events[key]) if one is not None]
        if key in changed:
            seen, to = changed[key]
            assert seen in states, "only a state that was there is moved"
            assert to == MAPPING[theirs[key]] == now[key]
            assert to in TRANSITIONS[seen], "only by a declared move"
            assert seen == states[-1], "and none that changed after it was seen"
        else:
            assert now.get(key) == (states[-1] if states else None), "what nobody repaired is as it was left"


async def test_a_process_that_goes_on_with_an_old_run_undoes_itself() -> None:
    """It stood still, its lease is gone, and another has taken the steps."""
    world = World({"o-01": "MOVING", "o-02": "MOVING"})
    async with world.service.test() as world.app:
        await world.put([("o-01", "pending"), ("o-02", "pending")])
        runner = world.service.runtime.part(ReconciliationPart).runner
        orders = world.service.reconciliation._declared.reconcilers["orders"]
        run = await runner.start("orders")
        for _ in range(2):
            run = await runner.step(orders, run)
        over = await runner.run_to_end(orders, run)
        await world.put([("o-01", "pending")])
        with pytest.raises(Conflict, match="another process goes on"):
            await runner.step(orders, run)

        assert ((2, 2), "pending") == ((over.seen, over.repaired), (await world.ours())["o-01"])


async def test_a_dry_run_changes_nothing_and_tells_all() -> None:
    world = World({"o-01": "MOVING", "o-02": "LOST", "o-03": "CREATED"})
    async with world.service.test() as world.app:
        await world.put([("o-01", "pending"), ("o-02", "pending"), ("o-03", "pending"), ("o-04", "pending")])
        run = await world.service.reconciliation.run("orders", dry_run=True)

        assert (4, 4, 3, 1, {"dry_run": 3}) == tuple(
            run[name] for name in ("seen", "seen_ours", "seen_theirs", "equal", "skipped")
        )
        assert [("o-01", "repair", "shipped"), ("o-02", "unmapped", None), ("o-04", "missing_there", None)] == [
            (one["key"], one["verdict"], one["to"]) for one in run["differences"]
        ]
        assert [] == (await world.service.reviews.ls())["items"]
        assert [run["id"]] == [one["id"] for one in (await world.service.reconciliation.ls())["runs"]]


async def test_it_runs_by_the_clock_and_people_settle_the_rest() -> None:
    """What no declared move leads to is a person's; a repair of theirs is guarded like any other."""
    world = World({"o-01": "MOVING", "o-02": "CREATED"}, every="5m")
    async with world.service.test() as world.app:
        await world.put([("o-01", "pending"), ("o-02", "delivered")])
        await world.app.advance(30)

        assert {"o-01": "shipped", "o-02": "delivered"} == await world.ours()
        assert [{"key": "o-01"}] == world.app.published("shop.order.repaired")
        reviews = world.service.reviews
        (item,) = (await reviews.ls())["items"]
        assert ("reconciliation.difference", "orders/o-02", ("repair", "accept")) == (
            *(item["kind"], item["subject"], item["actions"]),
        )
        await world.put([("o-02", "cancelled")])
        with pytest.raises(Conflict, match="is no longer 'delivered'"):
            await reviews.resolve(item["id"], "repair", actor="ann", reason="they are right")
        await world.put([("o-02", "delivered")])
        await reviews.resolve(item["id"], "repair", actor="ann", reason="they are right")
        assert "pending" == (await world.ours())["o-02"]
        await world.app.advance(300)
        (newest, *_) = (await world.service.reconciliation.ls())["runs"]
        assert (2, 2) == (newest["seen"], newest["equal"])


async def test_the_brake_lets_go_when_a_person_says_so() -> None:
    world = World({key: "MOVING" for key in KEYS}, every="5m", changes_max=3)
    async with world.service.test() as world.app:
        await world.put([(key, "pending") for key in KEYS])
        await world.app.advance(30)

        assert {"pending"} == set((await world.ours()).values())
        assert any(
            "stopped at the brake" in one for part in world.service.runtime.parts for one in part.report().issues
        )
        (item,) = (await world.service.reviews.ls())["items"]
        await world.service.reviews.resolve(item["id"], "run_anyway", actor="ann", reason="they moved house")
        await world.app.advance(30)

        assert {"shipped"} == set((await world.ours()).values())


async def test_a_share_of_many_is_too_many_as_well() -> None:
    keys = [f"k-{n:03d}" for n in range(60)]
    world = World(dict.fromkeys(keys[:20], "MOVING") | dict.fromkeys(keys[20:], "CREATED"))
    async with world.service.test() as world.app:
        await world.put([(key, "pending") for key in keys])
        run = await world.service.reconciliation.run("orders")

        assert ("braked", 60, 40, {"brake": 20}) == (run["phase"], run["seen"], run["equal"], run["skipped"])


async def test_readers_that_talk_nonsense_stop_the_run_and_it_goes_on_later() -> None:
    """Not from the start: from the page that failed."""
    world = World({}, every="5m")
    world.theirs = {"o-01": 1.5}  # type: ignore[dict-item]
    async with world.service.test() as world.app:
        await world.put([("o-01", "pending")])
        with pytest.raises(InvalidMessage, match="a text, a whole number"):
            await world.service.reconciliation.run("orders")
        with pytest.raises(Conflict, match="unfinished"):
            await world.service.reconciliation.run("orders")
        world.theirs = {"o-01": "MOVING"}
        await world.app.advance(90)

        assert {"o-01": "shipped"} == await world.ours()


async def test_a_marked_key_is_checked_until_it_is_settled() -> None:
    """Its mark commits with the business row; failures back off; a second mark has it checked at once."""
    service, asked, answers = Service("shop"), list[str](), list[Any]([RuntimeError("down"), False, True, True])

    @service.reconciliation.check("availability", retry="1m")
    async def check(key: str) -> bool:
        asked.append(key)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    async with service.test() as app:
        async with app.transaction() as tx:
            await service.reconciliation.mark("availability", "o-1", transaction=tx)
        await app.advance(10)
        assert 2 == len(asked), "again a second after the failure"
        assert [{"service": "shop", "reconciler": "availability", "marks": 1}] == (await service.reconciliation.ls())[
            "marks"
        ]
        await app.advance(90)
        assert 3 == len(asked)
        assert [] == (await service.reconciliation.ls())["marks"]
        await service.reconciliation.mark("availability", "o-1")
        await app.advance(5)
        assert 4 == len(asked)
        with pytest.raises(RegistrationError, match="above its check"):
            await service.reconciliation.mark("unknown", "o-1")


@pytest.mark.parametrize(("old", "new"), [("half_open", "closed"), ("open", "half_open")])
async def test_keys_that_wait_for_a_dependency_are_checked_when_it_is_back(old: str, new: str) -> None:
    """An hour's wait ends with the outage; a breaker that only wants a probe gets it here."""
    service, asked = Service("shop"), list[str]()

    @service.reconciliation.check("availability", retry="1h", waits_for="products")
    async def check(key: str) -> bool:
        asked.append(key)
        return len(asked) > 1

    async with service.test() as app:
        await service.reconciliation.mark("availability", "o-1")
        await app.advance(60)
        events.emit(events.BreakerChanged("other", old="half_open", new="closed", reason="probes"))
        await app.advance(60)
        assert 1 == len(asked)
        events.emit(events.BreakerChanged("products", old=old, new=new, reason="probes"))
        await app.advance(5)

        assert 2 == len(asked)


async def test_nobody_is_asked_about_a_state_that_has_moved_on() -> None:
    """What happened between the two reads made the difference; there is nothing to decide."""
    world = World({"o-01": "MOVING", "o-02": "MOVING"})
    async with world.service.test() as world.app:
        await world.put([("o-01", "cancelled"), ("o-02", "cancelled")])  # neither may become shipped
        world.meanwhile["after"] = [("o-01", "shipped")]
        run = await world.service.reconciliation.run("orders")

        items = (await world.service.reviews.ls())["items"]
        assert [1, {"changed": 1}] == [run["reviewed"], run["skipped"]]
        assert ["orders/o-02"] == [item["subject"] for item in items]


def test_what_is_declared_wrongly_is_refused() -> None:
    service = Service("shop")
    made = service.reconciliation.reconciler("orders", transitions={})
    with pytest.raises(RegistrationError, match="is there already"):
        service.reconciliation.reconciler("orders", transitions={})
    with pytest.raises(RegistrationError, match="every='soon'"):
        service.reconciliation.reconciler("other", every="soon", transitions={})
    with pytest.raises(RegistrationError, match="`async def` that yields"):
        made.ours(lambda keys: keys)
    assert 4 == len(made.check())


async def test_a_reconciler_that_finishes_no_run_for_two_periods_is_late() -> None:
    """It may fail, or hang, or nobody leads long enough: what differs stays so, and somebody must know."""
    world = World({"o-00": "MOVING"}, every="5m")
    async with world.service.test() as app:
        world.app = app
        part = app.service.runtime.part(ReconciliationPart)
        await app.advance(400)
        told = {metric.name: value for metric, _, value in part.measures()}
        early = part.report().issues
        part.declared.reconcilers["orders"].functions["candidates"] = _never
        await app.advance(1300)
        late = part.report().issues

    assert () == early
    assert told["reconciliation_last_success_timestamp_seconds"] > 0
    assert any("no run has finished for" in one and "due every 300 s" in one for one in late)


async def _never(after: str | None) -> AsyncIterator[str]:
    raise ConnectionRefusedError("their API is away")
    yield ""


async def test_what_was_asked_is_closed_when_both_sides_agree() -> None:
    """Somebody put it right by hand; nobody has to answer any more."""
    world = World({"o-00": "CREATED"})
    async with world.service.test() as app:
        world.app = app
        await world.put([("o-00", "cancelled")])
        reconciliation, reviews = app.service.reconciliation, app.service.reviews
        await reconciliation.run("orders")
        (asked,) = (await reviews.ls())["items"]
        await reconciliation.run("orders", dry_run=True)
        await world.put([("o-00", "pending")])
        await reconciliation.run("orders")

        shown = await reviews.show(asked["id"])
        assert ("settled", "spoolproof", []) == (shown["action"], shown["resolved_by"], (await reviews.ls())["items"])
