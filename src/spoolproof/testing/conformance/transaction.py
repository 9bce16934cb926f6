"""The contract of `ports.transaction.StoreTransaction` and of `Store.transaction`, `adopt`, `ping` and `stop`."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from spoolproof.errors import SpoolproofError, StoreUnavailable, UnsupportedTransaction
from spoolproof.ports.dead_letters import DeadLetterState
from spoolproof.ports.store import Store
from spoolproof.testing.conformance._messages import make_dead_letter, make_outgoing
from spoolproof.testing.conformance._store import StoreSuite, Undo, ready_ids, rolled_back


@pytest.mark.asyncio
class TransactionConformance(StoreSuite):
    """Needs the fixture `store`. Override `user_transaction` to run the contract of `adopt`."""

    def user_transaction(self, store: Store) -> AbstractAsyncContextManager[object]:
        """Return a transaction of the user's own on the store's database: the block gets a handle that `adopt` takes;
        committed at its end, rolled back when it raises."""
        pytest.skip("no user_transaction: adopt is not tested here")

    async def test_inbox_outbox_and_dead_letters_commit_together(self, store: Store) -> None:
        """Effect, follow-up event and end of the failure are one fact."""
        record, outgoing = make_dead_letter(), make_outgoing()
        await store.dead_letters.add(record)

        async with store.transaction() as tx:
            await store.inbox.record(tx, "orders", "m1")
            await store.outbox.append([outgoing], tx)
            await store.dead_letters.resolve(tx, record.consumer, record.message)

        details = await store.dead_letters.get(record.id)
        assert details is not None
        assert DeadLetterState.RESOLVED == details.record.state
        assert await store.inbox.contains("orders", "m1")
        assert [outgoing.message.id] == await ready_ids(store)

    @pytest.mark.parametrize("error", [Undo, asyncio.CancelledError, KeyboardInterrupt])
    async def test_whatever_ends_the_block_early_undoes_all_of_it(
        self, store: Store, error: type[BaseException]
    ) -> None:
        """And passes as it is."""
        record = make_dead_letter()
        await store.dead_letters.add(record)

        async with rolled_back(store, error) as tx:
            await store.inbox.record(tx, "orders", "m1")
            await store.outbox.append([make_outgoing()], tx)
            await store.dead_letters.resolve(tx, record.consumer, record.message)

        details = await store.dead_letters.get(record.id)
        assert details is not None
        assert DeadLetterState.OPEN == details.record.state
        assert not await store.inbox.contains("orders", "m1")
        assert [] == await ready_ids(store)

    async def test_transactions_follow_each_other_after_an_error(self, store: Store) -> None:
        """A rolled back one leaves no lock behind."""
        for _ in range(3):
            async with rolled_back(store) as tx:
                await store.inbox.record(tx, "orders", "m1")

        async with store.transaction() as tx:
            assert await store.inbox.record(tx, "orders", "m1")

    async def test_statements_take_numbered_parameters_and_answer_in_rows(self, store: Store) -> None:
        """`$1`, `$2` in any order and more than once, on every store."""
        self.needs_sql()

        async with store.transaction() as tx:
            await tx.execute("create table conformance_item (name text primary key, price integer, note text)")
            inserted = await tx.execute("insert into conformance_item (price, name) values ($2, $1)", "a", 3)
            await tx.execute("insert into conformance_item (name, price, note) values ($1, $2, $1)", "b", 5)
            updated = await tx.execute("update conformance_item set price = price + $1", 1)
            rows = await tx.fetch("select name, price, note from conformance_item where price > $1 order by name", 0)
            nothing = await tx.fetch("select name from conformance_item where name = $1", "$1")
            await tx.execute("drop table conformance_item")

        assert (1, 2) == (inserted, updated)
        assert [{"name": "a", "price": 4, "note": None}, {"name": "b", "price": 6, "note": "b"}] == [
            dict(row) for row in rows
        ]
        assert [] == list(nothing)

    async def test_business_rows_and_outbox_rows_share_one_fate(self, store: Store) -> None:
        """The promise of the outbox."""
        self.needs_sql()
        async with store.transaction() as tx:
            await tx.execute("create table conformance_order (id text primary key)")

        async with rolled_back(store) as tx:
            await tx.execute("insert into conformance_order (id) values ($1)", "undone")
            await store.outbox.append([make_outgoing()], tx)
        outgoing = make_outgoing()
        async with store.transaction() as tx:
            await tx.execute("insert into conformance_order (id) values ($1)", "done")
            await store.outbox.append([outgoing], tx)

        async with store.transaction() as tx:
            rows = await tx.fetch("select id from conformance_order")
            await tx.execute("drop table conformance_order")
        assert ["done"] == [row["id"] for row in rows]
        assert [outgoing.message.id] == await ready_ids(store)

    async def test_the_users_own_mistakes_pass_as_they_are(self, store: Store) -> None:
        """A handler's IntegrityError is the handler's; wrapped, nobody could catch it."""
        self.needs_sql()

        with pytest.raises(Exception, match="conformance_missing") as raised:
            async with store.transaction() as tx:
                await tx.execute("insert into conformance_missing values ($1)", 1)

        assert not isinstance(raised.value, SpoolproofError)
        await store.ping()

    async def test_an_object_that_is_no_transaction_is_refused_by_name(self, store: Store) -> None:
        """The message says what would do."""
        with pytest.raises(UnsupportedTransaction) as raised:
            await store.adopt(object())

        assert "builtins.object" in str(raised.value)
        assert raised.value.supported

    async def test_an_adopted_transaction_commits_with_its_owner(self, store: Store) -> None:
        """Never before: whoever opened it ends it."""
        outgoing = make_outgoing()

        async with self.user_transaction(store) as handle:
            await store.outbox.append([outgoing], await store.adopt(handle))
            while_open = await ready_ids(store)

        assert [] == while_open
        assert [outgoing.message.id] == await ready_ids(store)

    async def test_an_adopted_transaction_rolls_back_with_its_owner(self, store: Store) -> None:
        """The row exists if and only if the business change does."""

        async def publish_and_undo() -> None:
            async with self.user_transaction(store) as handle:
                await store.outbox.append([make_outgoing()], await store.adopt(handle))
                raise Undo

        with pytest.raises(Undo):
            await publish_and_undo()

        assert [] == await ready_ids(store)

    async def test_a_started_store_answers_a_ping(self, store: Store) -> None:
        """Health asks it."""
        await store.ping()

        assert store.name

    async def test_a_stopped_store_is_unavailable_and_may_be_stopped_again(self, store: Store) -> None:
        """Whatever is still running then meets one known error."""
        await store.stop()
        await store.stop()

        with pytest.raises(StoreUnavailable):
            await store.ping()
        with pytest.raises(StoreUnavailable):
            async with store.transaction():
                pass
        with pytest.raises(StoreUnavailable):
            await store.outbox.append([make_outgoing()], None)
