"""The contract of `ports.audit.Audit`."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from spoolproof.ports.audit import Audit, AuditRecord
from spoolproof.ports.store import Store
from spoolproof.testing.conformance._messages import CLOCK, IDS
from spoolproof.testing.conformance._store import StoreSuite


@pytest.mark.asyncio
class AuditConformance(StoreSuite):
    """Needs the fixture `store`, made with the ports of `wiring`."""

    async def test_an_act_is_there_before_it_is_done_and_with_its_result_after(self, store: Store) -> None:
        """Who acted is known even of an act that nobody saw the end of; newest first, page by page."""
        port, now = store.port(Audit), CLOCK.now()
        acts = [
            AuditRecord(id=IDS.message_id(), at=now, actor="ann\x00\ud800", action="queue:pause", target=f"q-{n}")
            for n in range(3)
        ]
        acts = [replace(act, actor="ann ☃") for act in acts]
        for act in acts:
            await port.begin(act)
        done = replace(acts[1], result="paused", is_ok=True, ended_at=now)
        await port.end(done)
        await port.end(replace(done, id=IDS.message_id()))

        assert [acts[2], done] == list(await port.search(None, 2))
        assert [acts[0]] == list(await port.search(done.id, 2))
        assert [] == list(await port.search(acts[0].id, 2))
