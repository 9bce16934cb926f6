"""Changes the state machines of the policies in a thousand small ways, and counts the changes that no test notices.

Run by `make proof`, from the root: `python tests/mutation.py [FILE …]`, files such as `circuit` of [tool.mutmut]
`only_mutate`, all unless given. Works on a copy. Prints every survivor as a difference; fails under 90 % killed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KILLED_MIN = 0.9
SURVIVED, UNTESTED = 0, 33  #: exit codes by which mutmut notes a mutant; whatever else it notes is a killed one
COPIED = ("src", "tests", "pyproject.toml")


def main(names: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        _mutmut(copy, "run", *(f"spoolproof.policies.machines.{name}.*" for name in names))
        return _report(copy)


def _report(copy: Path) -> int:
    noticed: dict[str, bool] = {}
    for path in sorted((copy / "mutants").rglob("*.meta")):
        codes = json.loads(path.read_text())["exit_code_by_key"]
        # None: not run, because other files were asked for
        noticed |= {key: code not in (SURVIVED, UNTESTED) for key, code in codes.items() if code is not None}
    survivors = [key for key, is_noticed in noticed.items() if not is_noticed]
    for key in survivors:
        print(_mutmut(copy, "show", key, capture=True), flush=True)
    share = 1 - len(survivors) / len(noticed) if noticed else 0.0
    print(f"{len(noticed)} mutants, {len(survivors)} survived: {share:.1%} killed, at least {KILLED_MIN:.0%} wanted")
    return 0 if share >= KILLED_MIN else 1


def _mutmut(copy: Path, *arguments: str, capture: bool = False) -> str:
    environment = os.environ | {"SPOOLPROOF_DOSE": "mutation"}  # each of the tests runs a thousand times
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments], cwd=copy, env=environment, capture_output=capture, text=True
    )
    if done.returncode != 0 and capture:
        return f"{' '.join(arguments)}: {done.stderr}"
    return done.stdout or ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
