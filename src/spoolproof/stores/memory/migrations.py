"""The memory store's migrations."""

from __future__ import annotations


class MemoryMigrations:
    """There is no schema to bring up to date."""

    needed = 0

    async def found(self) -> int:
        return self.needed

    async def apply(self) -> list[str]:
        return []

    def sql(self, above: int = 0) -> str:
        return ""
