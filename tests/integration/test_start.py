"""What a start does with a schema it did not make."""

from __future__ import annotations

import pytest

from spoolproof import SchemaOutdated, Service
from spoolproof.settings import Settings


@pytest.mark.integration
@pytest.mark.servers
async def test_postgresql_without_a_schema_refuses_the_start_and_names_the_command(postgres_url: str) -> None:
    """Two releases may share it, so a start never migrates it unasked."""
    service = Service("shop", settings=Settings(store=postgres_url, broker="memory://"))

    with pytest.raises(SchemaOutdated, match="spoolproof migrate") as caught:
        await service.start()

    assert 0 == caught.value.found
