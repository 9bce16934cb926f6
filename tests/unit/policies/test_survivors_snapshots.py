"""What once survived `tests/mutation.py` of the snapshots: what is read of them, and what is said of damaged ones."""

from __future__ import annotations

from typing import Any

import pytest

from spoolproof.backoff import seeded_random
from spoolproof.policies import Breaker, events
from spoolproof.policies.machines.circuit import Circuit
from spoolproof.policies.machines.isolation import ID_MAX, cooldown_left, read_snapshot

from .breakers import circuit, resolve

KEPT = {"version": 1, "saved_at": 1_000.0, "state": "open", "round": 0, "open_until": 1_005.0, "isolations": []}


def test_a_snapshot_of_a_closed_breaker_says_no_time() -> None:
    expected = {"state": "closed", "round": 0, "open_until": None, "isolations": []}

    assert expected == circuit().snapshot(1.0, 1_000.0)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"version": 2}, "ValueError: version 2, this release reads 1"),
        ({"saved_at": -90_000}, "ValueError: saved 91000 s ago"),
        ({"saved_at": None}, "ValueError: None is not a time"),
        ({"state": "ajar"}, "ValueError: state 'ajar'"),
        ({"round": -1}, "ValueError: round -1"),
        ({"round": True}, "ValueError: round True"),
        ({"open_until": "soon"}, "ValueError: 'soon' is not a time"),
        ({"open_until": True}, "ValueError: True is not a time"),
        ({"open_until": 1e12}, "ValueError: 1000000000000.0 is not a time"),
        ({"open_until": -1e12}, "ValueError: -1000000000000.0 is not a time"),
        ({"isolations": [{"reason": "maintenance"}]}, "KeyError: 'until'"),
    ],
)
def test_an_event_tells_what_is_wrong_with_a_snapshot(
    damage: dict[str, Any], reason: str, told: list[events.Event]
) -> None:
    """The breaker starts closed, in an outage it was to remember: somebody will ask why."""
    machine = Circuit("psp", "eu", random=seeded_random(1), **resolve(Breaker()))

    assert machine.restore(KEPT | damage, 1.0, 1_000.0) is False

    assert "closed" == machine.state(1.0)
    assert [events.RestoreIgnored(policy="psp", key="eu", reason=reason)] == told


def test_an_isolation_with_no_time_left_is_over() -> None:
    kept = KEPT | {"isolations": [{"reason": "over", "until": 1_000.0}, {"reason": "still", "until": 1_000.5}]}

    left = [(reason, seconds) for reason, seconds, *_ in read_snapshot(kept, 1_000.0).isolations]
    assert [("still", 0.5)] == left


def test_an_isolation_is_the_same_one_after_a_restart() -> None:
    """Else other processes would go on telling of it when it has been released here."""
    before, after = circuit(), circuit()
    isolation = before.isolate("maintenance", 60, 1.0)

    after.restore(KEPT | before.snapshot(1.0, 1_000.0), 1.0, 1_000.0)

    assert [isolation.id] == [one.id for one in after.isolations_known(1.0)]


@pytest.mark.parametrize(
    ("given", "expected"), [("a", "a"), ("x" * 9_999, "x" * ID_MAX), ("", None), (7, None), (None, None)]
)
def test_an_isolation_whose_id_is_none_gets_a_new_one(given: object, expected: str | None) -> None:
    kept = KEPT | {"isolations": [{"id": given, "reason": "maintenance", "until": 1_060.0}]}

    assert [("maintenance", 60.0, expected)] == list(read_snapshot(kept, 1_000.0).isolations)


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ({"cooldown_until": 1_010.0}, 10.0),
        ({"cooldown_until": 1_000.5}, 0.5),
        ({"cooldown_until": 990.0}, 0.0),
        ({"cooldown_until": None}, 0.0),
        ({}, 0.0),
    ],
)
def test_what_is_left_of_a_cooldown_is_counted_from_now(kept: dict[str, Any], expected: float) -> None:
    assert expected == cooldown_left(KEPT | kept, 1_000.0)


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        ([], "it is not a mapping"),
        (None, "it is not a mapping"),
        (KEPT | {"version": 2}, "version 2, this release reads 1"),
        (KEPT | {"saved_at": 1_061.0}, "saved -61 s ago"),
        (KEPT | {"cooldown_until": "soon"}, "'soon' is not a time"),
    ],
)
def test_a_damaged_snapshot_has_no_cooldown(kept: Any, reason: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        cooldown_left(kept, 1_000.0)

    assert reason == str(caught.value)
