"""Run with a package that has the toy part: starts a service with it on a store and prints what came of it, as JSON.

Not a test by itself: it imports what only a grown copy of the package has.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import spoolproof
from spoolproof import Service, Settings, SettingsError
from spoolproof.cli.app import invoke
from spoolproof.health.endpoint import Request, respond
from spoolproof.parts import ROLES
from spoolproof.ports.store import Store
from spoolproof.telemetry.events import Event, listening
from spoolproof.testing.conformance.toys import ToysConformance
from spoolproof.toy.settings import ToySettings


async def run(store_url: str) -> dict[str, Any]:
    """Start a process that has the role of toys, and ask everything that a part may reach."""
    settings = Settings(store=store_url, broker="memory://", migrate="auto", toy_wind_seconds=0.05, lease_seconds=1)
    service = Service("shop", settings=settings)
    events: list[Event] = []
    with listening(events.append):
        await service.start(only=("toy",))
        try:
            store = service.runtime.store
            contract = [await keeps(store, name) for name in sorted(dir(ToysConformance)) if name.startswith("test_")]
            await service.toys.play("bear")
            await service.toys.play("train", breaks=True)
            await until(lambda: bool(issues(service)) and any(getattr(one, "toys", 0) == 2 for one in events))
            return {
                "package": str(Path(spoolproof.__file__).parent),
                "role": "toy" in ROLES,
                "contract": contract,
                "lease": [lease.owner for lease in await store.leases.status("toy")]
                == [process.id for process in await store.leases.processes()],
                "issues": issues(service),
                "event": next(one.text() for one in events if getattr(one, "toys", 0) == 2),
                "metrics": {
                    "spoolproof_toys": metric(service, "spoolproof_toys"),
                    "spoolproof_toys_wound_total": metric(service, "spoolproof_toys_wound_total") > 0,
                },
                "settings": [settings.of(ToySettings).wind_seconds, settings.named("toy_kept_seconds")],
                "fault": fault(),
            }
        finally:
            await service.stop()


async def keeps(store: Store, name: str) -> str:
    """Run one test of the contract on an empty box; returns its name."""
    await store.retention.prune(lambda rule: -1.0 if rule.table == "toy" else 86_400.0, limit=100)
    await getattr(ToysConformance(), name)(store)
    return name


def get(service: Service, path: str) -> bytes:
    request = Request(method="GET", path=path, client="127.0.0.1")
    return respond(request, service.runtime.monitor.snapshot()).body


def issues(service: Service) -> list[str]:
    found: list[str] = json.loads(get(service, "/health")).get("issues", [])
    return [one for one in found if one.startswith("toy")]


def metric(service: Service, name: str) -> float:
    lines = get(service, "/metrics").decode().splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")))


def fault() -> str:
    try:
        Settings(toy_kept_seconds=-1)
    except SettingsError as error:
        return error.faults[0]
    return ""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


def command(store_url: str) -> Any:
    """Return what `spoolproof toys list --json` prints; None on a store that no command can reach."""
    os.environ["SPOOLPROOF_STORE"] = store_url
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = invoke(["toys", "list", "--json"])
    return None if code else json.loads(out.getvalue())["toys"]


if __name__ == "__main__":
    url = sys.argv[1]
    said = asyncio.run(run(url))
    sys.stdout.write(json.dumps(said | {"command": command(url)}))
