"""Every block of a page that names its file is written there and runs: tests by pytest, other modules as programs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(
    r"<!-- file: (?P<name>\S+) -->\n```\w+\n(?P<code>.*?)```(?:\n\n```text\n(?P<output>.*?)```)?", re.DOTALL
)
PAGES = [
    "alerts.md",
    "batches.md",
    "cache.md",
    "dashboard.md",
    "dead-letters.md",
    "degradation.md",
    "dependency-health.md",
    "foreign.md",
    "handling.md",
    "logging-and-metrics.md",
    "order.md",
    "publishing.md",
    "rabbitmq.md",
    "reconciliation.md",
    "review.md",
    "sagas.md",
    "schedules.md",
    "spool.md",
    "sqs.md",
    "testing-sagas.md",
    "testing.md",
    "tutorial-order.md",
    "webhooks.md",
    "which-effect.md",
]


@pytest.mark.timeout(240)  # each program has its own limit
@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_runs(page: str, tmp_path: Path) -> None:
    """An example that no longer works costs its reader more than a missing one."""
    text = (DOCS / page).read_text()
    blocks = list(BLOCK.finditer(text))
    assert text.count("```python") == sum(block["name"].endswith(".py") for block in blocks), "one has no file"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
    for block in blocks:
        (tmp_path / block["name"]).write_text(block["code"])

    for name in [block["name"] for block in blocks if block["name"].endswith(".py")]:
        command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", name] if name.startswith("test_") else [name]
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50
        )
        assert 0 == done.returncode, done.stdout + done.stderr
        told = next(block["output"] for block in blocks if block["name"] == name)
        assert told is None or told == done.stdout, done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    linked = [one for one in re.findall(r"\]\(([^)#]+)\)", (DOCS / page).read_text()) if "://" not in one]

    assert [] == [target for target in linked if not (DOCS / target).exists()]
