"""Failpoints: off unless armed, and armed only by a plan that names what exists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from spoolproof.errors import SettingsError
from spoolproof.failpoints import FAILPOINTS, InjectedFault, arm, failpoint, parse_plan


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    arm(None)


def test_the_named_hit_acts_and_no_other() -> None:
    """`@3` is how a crash test reaches the third batch."""
    arm(parse_plan("relay.after_confirm=raise@3"))
    failpoint("relay.after_confirm")
    failpoint("relay.before_delete")
    failpoint("relay.after_confirm")

    with pytest.raises(InjectedFault):
        failpoint("relay.after_confirm")

    failpoint("relay.after_confirm")


def test_hits_and_actions_are_logged_for_the_coverage_report(tmp_path: Path) -> None:
    """A failpoint nobody reached proves nothing; the report must be able to say so."""
    log = tmp_path / "hits"
    arm(parse_plan("relay.after_fetch=raise", str(log)))

    failpoint("relay.after_write")
    with pytest.raises(InjectedFault):
        failpoint("relay.after_fetch")

    lines = [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
    assert ["hit relay.after_write", "hit relay.after_fetch", "raise relay.after_fetch"] == lines


def test_a_wrong_plan_names_every_wrong_entry() -> None:
    """A plan with a typo would inject nothing and prove nothing."""
    with pytest.raises(SettingsError) as caught:
        parse_plan("relay.after_lunch=kill; relay.after_fetch=explode; relay.after_write=kill@0")

    assert 3 == len(caught.value.faults)


def test_every_failpoint_says_what_is_durable_there() -> None:
    """The sentence is what a reader of the crash report needs."""
    assert all(text.endswith(".") and len(text) > 20 for text in FAILPOINTS.values())
