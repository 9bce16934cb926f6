"""Faults to try at run time, for the README and the tests; not for your service."""

from __future__ import annotations

import asyncio
import threading


class Faults:
    def __init__(self) -> None:
        self.database_seconds = 0.0
        self.is_database_away = False
        self._export_may_run = threading.Event()
        self._export_may_run.set()

    def put(self, *, database: str | None = None, export: str | None = None) -> None:
        if database is not None:  # well, away, or how many seconds a query takes
            self.is_database_away = database == "away"
            self.database_seconds = 0.0 if database in ("well", "away") else float(database)
        if export is not None:
            (self._export_may_run.clear if export == "hangs" else self._export_may_run.set)()

    async def database(self) -> None:
        if self.is_database_away:
            raise ConnectionRefusedError("the database is away")
        await asyncio.sleep(self.database_seconds)

    def export(self) -> None:
        self._export_may_run.wait(3600)


FAULTS = Faults()
