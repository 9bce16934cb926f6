"""Matching confirms and returns to publishes: pika numbers nothing and matches nothing."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from spoolproof.brokers.rabbitmq.unanswered import Entry, Unanswered, answer_of, by_sink
from spoolproof.message import Message, Outgoing
from spoolproof.ports.broker import CONFIRMED, NACKED, PublishOutcome, Returned


def ignore(results: object) -> None: ...


def entry(id: str, since: float = 0.0, body: bytes = b"12345") -> Entry:
    message = Message(id=id, type="t", source="s", time=datetime(2026, 1, 1, tzinfo=UTC), body=body)
    return Entry(Outgoing(message=message), id, ignore, since)


def filled(count: int) -> Unanswered:
    unanswered = Unanswered()
    for number in range(1, count + 1):
        unanswered.add(entry(str(number), since=float(number)))
    return unanswered


def ids(entries: list[Entry]) -> list[str]:
    return [one.id for one in entries]


def test_multiple_settles_every_open_tag_up_to_its_own() -> None:
    """Ten publishes are often answered by one ack."""
    unanswered = filled(5)

    assert ["2"] == ids(unanswered.settle(2, multiple=False))
    assert ["1", "3", "4"] == ids(unanswered.settle(4, multiple=True))
    assert [] == ids(unanswered.settle(4, multiple=True))
    assert ["5"] == ids(unanswered.settle(5, multiple=False))
    assert (0, 0) == (len(unanswered), unanswered.size_bytes)


def test_a_confirm_for_a_tag_nobody_sent_settles_nothing() -> None:
    """It can only be a mistake; it must not become somebody's confirm."""
    unanswered = filled(1)

    assert [] == unanswered.settle(9, multiple=False)
    assert 1 == len(unanswered)


def test_a_return_beats_the_ack_that_follows_it() -> None:
    """L2: the broker acks what it returned; counted as confirmed, it would be a loss."""
    unanswered = filled(3)

    assert unanswered.mark_returned("2", "312 NO_ROUTE")
    answers: list[PublishOutcome] = [answer_of(one, is_ack=True) for one in unanswered.settle(3, multiple=True)]

    assert [CONFIRMED, Returned("312 NO_ROUTE"), CONFIRMED] == answers


def test_a_return_nobody_waits_for_is_told() -> None:
    """L24: then a message came back that we would take for delivered."""
    assert not filled(2).mark_returned("7", "312 NO_ROUTE")


def test_a_nack_is_not_the_messages_fault() -> None:
    """A full queue: the row stays and costs no attempt."""
    (one,) = filled(1).settle(1, multiple=False)

    assert NACKED == answer_of(one, is_ack=False)


def test_late_entries_keep_their_id_and_take_no_room() -> None:
    """Their confirm may still come, so no second publish of the id may overtake it; but others go on."""
    unanswered = filled(3)

    late = unanswered.older_than(2.5)
    unanswered.make_late(late)
    again = unanswered.older_than(2.5)

    assert (["1", "2"], []) == (ids(late), again)
    assert (1, 2, 5) == (len(unanswered), unanswered.late, unanswered.size_bytes)
    assert "1" in unanswered
    assert ["3"] == ids(unanswered.unanswered())
    assert 3.0 == unanswered.oldest_since()
    settled = unanswered.settle(3, multiple=True)
    assert [True, True, False] == [one.is_late for one in settled]
    assert (0, 0, 0) == (len(unanswered), unanswered.late, unanswered.size_bytes)
    assert "1" not in unanswered


def test_time_in_which_the_broker_was_blocked_does_not_count() -> None:
    """L28: it confirms on unblock what it has read; giving up before would make duplicates."""
    unanswered = filled(3)

    unanswered.restart_timers(100.0)

    assert [] == unanswered.older_than(99.0)
    assert 100.0 == unanswered.oldest_since()


def test_each_sink_is_called_once_for_a_frame() -> None:
    """One call per frame, not per message: that is what makes the relay fast."""
    first, second, third = entry("1"), entry("2"), entry("3")
    second.sink = print

    groups = by_sink([(first, CONFIRMED), (second, NACKED), (third, CONFIRMED)])

    assert {ignore: [("1", CONFIRMED), ("3", CONFIRMED)], print: [("2", NACKED)]} == groups


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=60), st.integers(1, 40))
def test_every_publish_is_settled_at_most_once_and_in_order(frames: list[tuple[int, bool]], count: int) -> None:
    """Whatever the broker sends, in whatever order."""
    unanswered = filled(count)
    seen: list[str] = []

    for tag, multiple in frames:
        settled = ids(unanswered.settle(tag, multiple))
        assert settled == sorted(settled, key=int)
        assert all(int(id) <= tag for id in settled)
        seen += settled

    assert len(set(seen)) == len(seen)
    assert {str(number) for number in range(1, count + 1)} == {*seen, *ids(unanswered.unanswered())}
