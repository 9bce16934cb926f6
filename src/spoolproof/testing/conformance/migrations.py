"""The contract of `ports.store.Migrations`."""

from __future__ import annotations

import asyncio

import pytest

from spoolproof.ports.store import Store
from spoolproof.testing.conformance._store import StoreSuite
from spoolproof.testing.conformance._wait import within


@pytest.mark.asyncio
class MigrationsConformance(StoreSuite):
    """Needs the fixture `store`; `blank_store` (started, never migrated) adds the way from nothing."""

    @pytest.fixture
    async def blank_store(self) -> Store:
        """A started store on a database without our schema."""
        pytest.skip("no blank_store fixture: the first migration is not tested here")

    async def test_a_migrated_store_has_the_version_it_needs(self, store: Store) -> None:
        """The start compares the two."""
        assert store.migrations.needed == await store.migrations.found()

    async def test_applying_again_runs_nothing(self, store: Store) -> None:
        """Every start of every process may call it."""
        assert [] == await store.migrations.apply()

    async def test_a_database_without_schema_is_at_version_0_until_applied(self, blank_store: Store) -> None:
        """Then it is at the newest."""
        before = await blank_store.migrations.found()
        steps = await blank_store.migrations.apply()

        assert 0 == before
        assert steps
        assert blank_store.migrations.needed == await blank_store.migrations.found()

    async def test_concurrent_applies_run_each_step_once(self, blank_store: Store) -> None:
        """All processes of a deploy start at once."""
        runs = await within(asyncio.gather(*(blank_store.migrations.apply() for _ in range(3))), seconds=20.0)

        steps = [step for run in runs for step in run]
        assert sorted(set(steps)) == sorted(steps)
        assert blank_store.migrations.needed == await blank_store.migrations.found()

    async def test_the_statements_can_be_had_as_text(self, store: Store) -> None:
        """For those whose database is changed by another tool."""
        self.needs_sql()

        assert "outbox" in store.migrations.sql()
        assert "outbox" not in store.migrations.sql(above=store.migrations.needed)
