"""Every Python block of the policy pages runs and prints what the page says; every default is the code's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spoolproof.policies import events
from spoolproof.policies.parts.ranges import SETTINGS, Setting

PAGES = Path(__file__).parents[2] / "docs" / "policies"
NAMES = sorted(path.name for path in PAGES.glob("*.md"))
SECTIONS = ["What it does", "Use", "Defaults", "Telemetry", "States", "Mistakes to avoid"]
BLOCK = re.compile(r"```python\n(?P<code>.*?)```(?:\n\n```text\n(?P<output>.*?)```)?", re.DOTALL)
SETTING_ROW = re.compile(
    r"^\| `(?P<name>[a-z_]+)` \| (?P<default>[^|]+) \| (?P<legal>[^|]+) \| [^|]+ \|$", re.MULTILINE
)
DERIVED = {
    "open_seconds_max": "60, or `open_seconds` if longer",
    "probe_lease_seconds": "30, or the timeout if longer",
    "queue_max": "2 × `running_max`",
    "burst": "= `rate`, at least 1",
    "rate": "none",
}
RUN = """
import pathlib, sys
for path in map(pathlib.Path, sys.argv[1:]):
    print("---", flush=True)
    exec(compile(path.read_text(), str(path), "exec"), {"__name__": "__main__"})
"""


def _text(name: str) -> str:
    return (PAGES / name).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_every_block_of_a_page_runs_and_prints_what_the_page_says(name: str, tmp_path: Path) -> None:
    """An example that no longer works costs its reader more than a missing one."""
    blocks = list(BLOCK.finditer(_text(name)))
    assert blocks, f"{name} has no example"
    paths = []
    for number, block in enumerate(blocks):
        paths.append(tmp_path / f"block_{number}.py")
        paths[-1].write_text(block["code"])
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SPOOLPROOF", "CB_"))}

    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, paths)], env=environment, capture_output=True, text=True, timeout=30
    )

    assert 0 == done.returncode, done.stderr
    printed = done.stdout.split("---\n")[1:]
    assert [block["output"] or "" for block in blocks] == printed


@pytest.mark.parametrize("name", NAMES)
def test_every_page_has_the_same_sections(name: str) -> None:
    """Whoever has read one page knows where to look in the next."""
    assert SECTIONS == re.findall(r"^## (.+)$", _text(name), re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_every_default_and_range_in_a_table_is_the_one_of_the_code(name: str) -> None:
    """People copy numbers from tables into their decisions."""
    rows = [(row["name"], row["default"], row["legal"]) for row in SETTING_ROW.finditer(_text(name))]

    assert [(row, _default(SETTINGS[row]), _legal(SETTINGS[row])) for row, _, _ in rows] == rows


@pytest.mark.parametrize("name", NAMES)
def test_every_link_of_a_page_leads_somewhere(name: str) -> None:
    """A reader in a hurry follows them."""
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", _text(name)) if "://" not in target]

    assert [] == [target for target in linked if not (PAGES / target).exists()]


def test_every_setting_is_in_the_table_of_some_page() -> None:
    """A setting nobody is told of is found by accident."""
    found = {row["name"] for name in NAMES for row in SETTING_ROW.finditer(_text(name))}

    assert set() == SETTINGS.keys() - found


def test_every_event_is_told_of_on_some_page() -> None:
    """What a dashboard can show is a contract."""
    told = {event for name in NAMES for event in re.findall(r"^\| `([A-Z][a-z]\w+)` \|", _text(name), re.MULTILINE)}
    known = {event.__name__ for event in events.Event.__subclasses__()}

    assert known == told


def _default(setting: Setting) -> str:
    if setting.default is None:
        return DERIVED.get(setting.name, "off")
    return setting.default if isinstance(setting.default, str) else f"{setting.default:,g}"


def _legal(setting: Setting) -> str:
    if setting.choices:
        return ", ".join(setting.choices)
    return f"{_number(setting.low)} to {_number(setting.high)}"


def _number(value: float) -> str:
    return f"{value:,.6f}".rstrip("0").rstrip(".")
