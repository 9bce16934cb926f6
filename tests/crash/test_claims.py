"""A handler that calls the world is killed after the call: nobody knows whether it arrived, and nobody guesses."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.crash.test_crash_loop import run_until_it_lives

NODE = Path(__file__).with_name("claim_node.py")

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]


@pytest.fixture(params=["sqlite", "postgres"])
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "sqlite":
        return {}
    return {"SPOOLPROOF_STORE": request.getfixturevalue("postgres_url"), "SPOOLPROOF_MIGRATE": "auto"}


@pytest.mark.servers
def test_an_unknown_outcome_is_asked_about_and_not_run_again(tmp_path: Path, environment: dict[str, str]) -> None:
    deaths, report = run_until_it_lives(tmp_path, "park", environment, NODE)

    assert (1, ["park"]) == (deaths, report["reasons"])
    assert 1 == len(report["effects"])


@pytest.mark.servers
def test_an_unknown_outcome_runs_again_under_the_same_idempotency_key(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    deaths, report = run_until_it_lives(tmp_path, "retry", environment, NODE)

    assert (1, []) == (deaths, report["reasons"])
    assert 2 == len(report["effects"])
    assert 1 == len(set(report["effects"]))
