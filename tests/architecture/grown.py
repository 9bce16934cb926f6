"""The package with one part more: the files of `toy/`, a line in `parts.py`, one in `wiring.py`, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2] / "src" / "spoolproof"
TOY = Path(__file__).parent / "toy"
TRIAL = Path(__file__).parent / "toy_trial.py"
LINES = {
    "parts.py": (
        "FEATURES = (\n",
        '    Feature("toy.part:TOY", role="toy", facet="toys", settings="toy.settings:ToySettings"),\n',
    ),
    "wiring.py": ("PORTS: tuple[str, ...] = (\n", '    "toys.Toys",\n'),
}


def grow(folder: Path) -> Path:
    """Make a copy of the package with the toy part in it; returns the copy. No file but two is changed."""
    package = folder / "spoolproof"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__", "_examples"))
    for file in files_of_the_toy():
        place = package / file.relative_to(TOY)
        if file.suffix == ".sql" and file.parent.name == "migrations":
            newest = max(int(one.name[:4]) for one in place.parent.glob("*.sql"))
            place = place.with_name(file.name.replace("next", f"{newest + 1:04d}"))
        assert not place.exists(), f"{place} is there already: a part brings its own files"
        place.parent.mkdir(exist_ok=True)
        shutil.copy(file, place)
    for name, (before, line) in LINES.items():
        text = (package / name).read_text()
        assert 1 == text.count(before), f"{name} has no list to add a line to: {before!r}"
        (package / name).write_text(text.replace(before, before + line))
    return package


def files_of_the_toy() -> list[Path]:
    """Return every file that the toy part brings."""
    return [one for one in sorted(TOY.rglob("*")) if one.is_file() and "__pycache__" not in one.parts]


def try_out(package: Path, store_url: str) -> dict[str, Any]:
    """Start a service of a copy on a store, in a process of its own; returns what it says of its toy part."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SPOOLPROOF_")}
    done = subprocess.run(
        [sys.executable, str(TRIAL), store_url],
        env={**clean, "PYTHONPATH": str(package.parent)},
        cwd=package.parent,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert 0 == done.returncode, re.sub(r"\n\s*\n", "\n", done.stderr)
    said: dict[str, Any] = json.loads(done.stdout)
    assert Path(said.pop("package")) == package
    return said


def expected(*, has_command: bool) -> dict[str, Any]:
    """Return what a service with toys says; a store in memory has no command line."""
    return {
        "role": True,
        "contract": ["test_a_toy_that_nobody_plays_with_goes", "test_what_breaks_stays_broken"],
        "lease": True,
        "issues": ["toy train: broken"],
        "event": "toy.wound toys=2: every toy was wound up",
        "metrics": {"spoolproof_toys": 2.0, "spoolproof_toys_wound_total": True},
        "settings": [0.05, 86400.0],
        "fault": "SPOOLPROOF_TOY_KEPT_SECONDS=-1: Input should be greater than 0",
        "command": {"bear": False, "train": True} if has_command else None,
    }
