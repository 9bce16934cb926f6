"""The fixtures, as a project that has spoolproof installed finds them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

USES_THEM = """
import asyncio

import pytest

from spoolproof.policies import Breaker, BreakerOpen, Consecutive, Policy, Timeout
from spoolproof.policies.registry import default_registry

psp = Policy("psp", Breaker(Consecutive(1), open_seconds=60, open_jitter=0))


async def away():
    raise ConnectionRefusedError


async def fine():
    return "fine"


def test_the_clock_moves_only_when_told(manual_clock, policies_isolated):
    async def main():
        await psp.result(away)
        assert psp.state == "open"
        await manual_clock.advance(60)
        assert psp.state == "half_open"

    asyncio.run(main())


@pytest.mark.parametrize("run", [1, 2])
def test_the_clock_alone_will_do(manual_clock, run):
    async def main():
        assert await psp.call(fine) == "fine"
        await psp.result(away)
        await manual_clock.advance(3600)
        assert psp.state == "half_open"

    asyncio.run(main())


def test_events_are_kept(policy_events, policies_isolated):
    asyncio.run(psp.result(away))
    assert [type(event).__name__ for event in policy_events] == ["BreakerChanged", "AttemptEnded", "CallEnded"]
    Policy("made-inside", Timeout(1))


def test_what_tests_did_is_forgotten(policies_isolated):
    assert policies_isolated is default_registry()
    assert policies_isolated.names() == ["psp"]
    assert asyncio.run(psp.call(fine)) == "fine"


def test_without_isolation_it_is_what_it_was_before_them():
    assert default_registry().names() == ["psp"]
    assert psp.state == "closed"
"""
IMPORTS_NOTHING = """
import sys


def test_nothing_of_it_is_imported_for_tests_that_do_not_use_it():
    loaded = {name for name in sys.modules if name.startswith("spoolproof.")}
    assert loaded <= {"spoolproof.testing", "spoolproof.testing.pytest_plugin"}
"""


def _pytest(folder: Path, source: str, *arguments: str) -> str:
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (folder / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", *arguments, "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def test_the_fixtures_are_there_and_leave_nothing_behind(tmp_path: Path) -> None:
    """Installed is enough: no conftest, no plugin option."""
    assert "6 passed" in _pytest(tmp_path, USES_THEM)


def test_a_run_that_uses_none_of_them_imports_none_of_the_package(tmp_path: Path) -> None:
    """The plugin is loaded in every project of the environment, also those that measure their coverage."""
    assert "1 passed" in _pytest(tmp_path, IMPORTS_NOTHING)


def test_the_fixtures_are_listed_with_what_they_do(tmp_path: Path) -> None:
    """`pytest --fixtures` is their documentation."""
    listed = _pytest(tmp_path, IMPORTS_NOTHING, "--fixtures")

    for name in ("manual_clock", "policy_events", "policies_isolated"):
        assert f"{name} -- " in listed
