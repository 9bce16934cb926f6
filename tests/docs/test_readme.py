"""Every Python block of the README runs, as the file its marker names, and prints what the text says."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:<!-- test: (?P<name>\S+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)


def test_every_python_block_of_the_readme_runs(tmp_path: Path) -> None:
    """A README that lies costs a user their first five minutes, and us the user."""
    blocks = list(BLOCK.finditer((ROOT / "README.md").read_text()))
    assert blocks
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}

    outputs = {}
    for block in blocks:
        assert block["name"], f"this block has no `<!-- test: FILE -->` marker:\n{block['code']}"
        path = tmp_path / block["name"]
        path.write_text(block["code"])
        done = subprocess.run(
            [sys.executable, path.name], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50
        )
        assert done.returncode == 0, done.stderr
        outputs[block["name"]] = done.stdout

    assert {"shop.py": "", "publish.py": "stored\n", "policies.py": "1250\nlive 1 closed\n"} == outputs


@pytest.mark.servers
async def test_the_five_minutes_run_on_postgresql_without_a_failure(tmp_path: Path, postgres_url: str) -> None:
    """ "Same code" by one setting: whoever tries it must not begin with a stack trace."""
    blocks = {block["name"]: block["code"] for block in BLOCK.finditer((ROOT / "README.md").read_text())}
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
    environment = {**own, "SPOOLPROOF_STORE": postgres_url, "SPOOLPROOF_MIGRATE": "auto", "PYTHONPATH": str(tmp_path)}
    for name in ("shop.py", "publish.py"):
        (tmp_path / name).write_text(blocks[name])

    published = await asyncio.to_thread(_run, [sys.executable, "publish.py"], tmp_path, environment)
    running = subprocess.Popen(
        [sys.executable, "-m", "spoolproof", "run", "shop:service"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        payments = await _payments(postgres_url)
    finally:
        running.terminate()
        log = (await asyncio.to_thread(running.communicate, timeout=30))[0]

    assert [("o-1", 1250), ("o-2", 990)] == payments
    assert [] == [line for line in (published + log).splitlines() if "failed" in line or "Error" in line]


async def _payments(url: str) -> list[tuple[str, int]]:
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(40):
            while True:
                rows = await connection.fetch("select order_id, cents from payment order by order_id")
                if len(rows) == 2:
                    return [tuple(row) for row in rows]
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


def _run(command: list[str], directory: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_relative_link_and_named_file_exists(name: str) -> None:
    """A newcomer follows them file by file."""
    text = (ROOT / name).read_text()
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    named = [path for path in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", text)]

    missing = [target for target in linked if not (ROOT / target).exists()]
    bases = (ROOT, ROOT / "src" / "spoolproof", ROOT / "tests" / "architecture" / "toy")
    missing += [path for path in named if not any((base / path).exists() for base in bases)]

    assert [] == missing
