"""Ids sort by time and never repeat."""

from __future__ import annotations

from datetime import timedelta

from spoolproof.ids import Ids, derived_id, is_uuid
from spoolproof.testing.clock import ManualClock


class SteppingClock(ManualClock):
    """A wall clock somebody sets back."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = timedelta()

    def now(self):  # type: ignore[no-untyped-def]
        return super().now() + self.shift


def test_ids_rise_within_a_millisecond_and_past_its_counter() -> None:
    """10 000 in one millisecond overflow the 12-bit counter; order must survive it."""
    ids = Ids(ManualClock())

    made = [ids.uuid7() for _ in range(10_000)]

    assert sorted(set(made)) == made


def test_ids_rise_when_the_wall_clock_steps_back() -> None:
    """Outbox order per key must not depend on NTP."""
    clock = SteppingClock()
    ids = Ids(clock)
    before = ids.uuid7()

    clock.shift = timedelta(hours=-1)

    assert before < ids.uuid7()


def test_an_id_is_a_version_7_uuid() -> None:
    """Other systems sort and partition by it."""
    made = Ids(ManualClock()).uuid7()

    assert (7, "specified in RFC 4122") == (made.version, made.variant)
    assert is_uuid(str(made))


def test_derived_ids_depend_on_every_part_and_its_place() -> None:
    """Two foreign producers that both count from 1 must not look like one."""
    made = {derived_id("a", "b", "1"), derived_id("b", "a", "1"), derived_id("a", "b1"), derived_id("ab", "1")}

    assert 4 == len(made)
    assert derived_id("a", "b") == derived_id("a", "b")


def test_only_the_36_character_form_counts_as_a_uuid() -> None:
    """`uuid.UUID` accepts braces and urn: prefixes; an inbox key must have one spelling."""
    assert not is_uuid("{00000000-0000-0000-0000-000000000000}")
    assert not is_uuid("0" * 32)
    assert not is_uuid("z" * 36)
