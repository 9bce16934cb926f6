"""Every Python block of the README runs, as the file its marker names, and prints what the text says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_relative_link_and_named_file_exists(name: str) -> None:
    """A newcomer follows them file by file."""
    text = (ROOT / name).read_text()
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    named = [path for path in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", text)]

    missing = [target for target in linked if not (ROOT / target).exists()]
    missing += [
        path for path in named if not any((base / path).exists() for base in (ROOT, ROOT / "src" / "spoolproof"))
    ]

    assert [] == missing
