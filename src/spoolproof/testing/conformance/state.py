"""The contract of `ports.state.State`."""

from __future__ import annotations

import asyncio

import pytest

from spoolproof import limits
from spoolproof.ports.store import Store
from spoolproof.testing.conformance._messages import CLOCK
from spoolproof.testing.conformance._store import StoreSuite
from spoolproof.testing.conformance._wait import within

KIND = "breaker/shop"


@pytest.mark.asyncio
class StateConformance(StoreSuite):
    """Needs the fixture `store`."""

    async def test_what_was_put_is_found_as_it_was(self, store: Store) -> None:
        """Bytes are bytes: a store that reads them would one day write them differently."""
        value = b'{"state": "open", "note": "\xc3\xa4 \x00"}'

        await store.state.put(KIND, "psp", value)

        found = await store.state.get(KIND, "psp")
        assert found is not None
        assert value == found.value
        assert 1 == found.version
        assert found.updated_at.utcoffset() is not None
        assert abs((found.updated_at - CLOCK.now()).total_seconds()) < 10

    async def test_nothing_is_found_where_nothing_was_put(self, store: Store) -> None:
        """The first start of a service is not a fault."""
        await store.state.put(KIND, "psp", b"{}")

        assert await store.state.get(KIND, "PSP") is None
        assert await store.state.get("breaker/other", "psp") is None
        assert {} == await store.state.all("breaker/other")

    async def test_a_later_value_replaces_the_earlier_and_raises_the_version(self, store: Store) -> None:
        """The version shows that somebody wrote in between."""
        versions = [await store.state.put(KIND, "psp", value) for value in (b"1", b"2", b"2")]

        found = await store.state.get(KIND, "psp")
        assert [1, 2, 3] == versions
        assert found is not None
        assert (b"2", 3) == (found.value, found.version)

    async def test_all_of_a_kind_come_sorted_by_name(self, store: Store) -> None:
        """A start reads everything of its service at once, and nothing of another's."""
        for name in ("psp", "catalogue", "Stock"):
            await store.state.put(KIND, name, name.encode())
        await store.state.put("breaker/other", "psp", b"other")

        found = await store.state.all(KIND)

        assert [("Stock", b"Stock"), ("catalogue", b"catalogue"), ("psp", b"psp")] == [
            (name, record.value) for name, record in found.items()
        ]

    async def test_a_removed_value_is_gone_and_begins_anew(self, store: Store) -> None:
        """What is over must not come back at the next start."""
        await store.state.put(KIND, "psp", b"1")
        await store.state.put(KIND, "psp", b"2")

        assert await store.state.remove(KIND, "psp")
        assert not await store.state.remove(KIND, "psp")
        assert await store.state.get(KIND, "psp") is None
        assert 1 == await store.state.put(KIND, "psp", b"3")

    async def test_a_value_may_have_64_kib_and_not_a_byte_more(self, store: Store) -> None:
        """Everything has a limit; refused, the old value stays."""
        largest = b"x" * limits.STATE_BYTES_MAX
        await store.state.put(KIND, "psp", largest)

        with pytest.raises(ValueError, match=rf"{limits.STATE_BYTES_MAX + 1} bytes, at most {limits.STATE_BYTES_MAX}"):
            await store.state.put(KIND, "psp", largest + b"x")

        found = await store.state.get(KIND, "psp")
        assert found is not None
        assert largest == found.value

    async def test_concurrent_puts_all_count(self, store: Store) -> None:
        """Several processes of a service save the same breaker."""
        versions = await within(asyncio.gather(*(store.state.put(KIND, "psp", b"%d" % one) for one in range(5))))

        assert [1, 2, 3, 4, 5] == sorted(versions)
