"""`spoolproof cache` as an operator types it: look at an entry, take it away, also while the shared cache is away."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spoolproof import Service, Settings

pytestmark = pytest.mark.acceptance


def run(folder: Path, *words: str, exit_code: int = 0, **environment: str) -> dict[str, Any]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "REDIS"))}
    done = subprocess.run(
        [sys.executable, "-m", "spoolproof", "cache", *words, "--json"],
        cwd=folder,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert exit_code == done.returncode, done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[0]))


def fill(folder: Path) -> None:
    async def put() -> None:
        service = Service("shop", settings=Settings(data_dir=folder / ".spoolproof"))
        products = service.cache("products")
        await service.start(only=())
        await products.set_many({"a": {"price": 1}, "b": {"price": 2}}, tags=["catalog"])
        await products.within("tenant-7").set("a", "x" * 5000)
        await service.stop()

    asyncio.run(put())


def test_what_an_operator_sees_and_takes_away(tmp_path: Path) -> None:
    assert "not_found" == run(tmp_path, "show", "shop", "products", "a", exit_code=1)["error"]["code"]
    fill(tmp_path)

    shown = run(tmp_path, "show", "shop", "products", "a")
    assert ("spoolproof.cache.show/1", "fresh", ["catalog"]) == (shown["schema"], shown["state"], shown["tags"])
    assert 1000 > run(tmp_path, "show", "shop", "products/tenant-7", "a")["bytes"]
    assert "done" == run(tmp_path, "expire", "shop", "products", "a")["state"]
    assert "stale" == run(tmp_path, "show", "shop", "products", "a")["state"]
    assert 1 == run(tmp_path, "remove", "shop", "products", "--tag", "catalog")["invalidations"]
    assert "removed" == run(tmp_path, "show", "shop", "products", "b")["state"]
    assert "fresh" == run(tmp_path, "show", "shop", "products/tenant-7", "a")["state"]
    run(tmp_path, "clear", "shop", "products/tenant-7")
    assert "removed" == run(tmp_path, "show", "shop", "products/tenant-7", "a")["state"]
    assert "refused" == run(tmp_path, "remove", "shop", "products", exit_code=4)["error"]["code"]
    assert "refused" == run(tmp_path, "clear", "shop", "x", exit_code=4, SPOOLPROOF_CACHE="memory")["error"]["code"]
    assert "usage" == run(tmp_path, "remove", "shop", "products", "a\x07", exit_code=2)["error"]["code"]
    assert "usage" == run(tmp_path, "clear", "shop", "products:a", exit_code=2)["error"]["code"]


def test_what_is_taken_away_while_redis_is_away_is_kept(tmp_path: Path) -> None:
    fill(tmp_path)
    away = {"SPOOLPROOF_CACHE": "redis://127.0.0.1:1/0"}

    assert "kept" == run(tmp_path, "remove", "shop", "products", "a", **away)["state"]

    assert "not_reachable" == run(tmp_path, "show", "shop", "products", exit_code=3, **away)["error"]["code"]
    assert 1 == run(tmp_path, "show", "shop", "products")["waiting"]
