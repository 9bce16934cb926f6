"""The catalogue: what is told, how it is counted, and what cannot be declared."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from spoolproof.brokers.rabbitmq.events import ConnectionAttempted
from spoolproof.errors import InvariantViolated
from spoolproof.telemetry import events
from spoolproof.telemetry.events import CATALOGUE, WARNING, Event, emit, listening
from spoolproof.telemetry.metrics import METER, METRICS


@pytest.fixture
def dropped() -> Iterator[type[Event]]:
    """An event as a feature declares it, for one test."""

    class PlateDropped(
        Event,
        name="kitchen.plate_dropped",
        level=WARNING,
        line="{cook} dropped {plates} plates",
        counter="kitchen_plates_total",
        labels=("cook",),
    ):
        """A plate fell."""

        cook: str
        plates: int

    yield PlateDropped
    del CATALOGUE["kitchen.plate_dropped"], METRICS["kitchen_plates_total"]


def test_an_event_is_one_line_one_count_and_told_to_who_listens(
    dropped: type[Event], caplog: pytest.LogCaptureFixture
) -> None:
    """One door: what happened is written and counted by the same call, so that no two accounts of it differ."""
    heard: list[Event] = []
    happened = dropped(cook="anna", plates=3)  # type: ignore[call-arg]

    with listening(heard.append), caplog.at_level(logging.INFO, logger="spoolproof"):
        emit(happened)

    assert [
        ("spoolproof.kitchen", logging.WARNING, "kitchen.plate_dropped anna dropped 3 plates")
    ] == caplog.record_tuples
    assert [happened] == heard
    found = [sample.value for sample in METER.samples() if sample.metric.name == "kitchen_plates_total"]
    assert [1.0] == found


def test_an_event_is_what_it_was_made_with(dropped: type[Event]) -> None:
    """Listeners keep them: what one changed, or was never there, another would read."""
    happened = dropped(cook="anna", plates=3)  # type: ignore[call-arg]

    assert happened == dropped(cook="anna", plates=3)  # type: ignore[call-arg]
    assert happened != dropped(cook="anna", plates=4)  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="plates"):
        happened.plates = 4  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="plates"):
        dropped(cook="anna")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="cups"):
        dropped(cook="anna", plates=3, cups=1)  # type: ignore[call-arg]


def test_a_field_may_have_a_default() -> None:
    """As a connection that was opened has no error."""
    opened = ConnectionAttempted(connection="a", url="amqp://a", attempt=1, round=1, outcome="opened")

    assert "broker.connection.attempt connection=a url=amqp://a attempt=1 round=1 outcome=opened" == opened.text()


def test_a_listener_that_raises_breaks_nothing(dropped: type[Event]) -> None:
    """Whoever emits has work to finish."""
    heard: list[Event] = []
    before = events.SINK_FAILURES[0]

    def broken(event: Event) -> None:
        raise RuntimeError("no")

    with listening(broken), listening(heard.append):
        emit(dropped(cook="anna", plates=1))  # type: ignore[call-arg]

    assert 1 == len(heard)
    assert before + 1 == events.SINK_FAILURES[0]


@pytest.mark.parametrize(
    ("name", "line", "labels"),
    [("kitchen.new", "{cook} fell over {chair}", ()), ("kitchen.new", "{cook} fell", ("room",))],
)
def test_a_line_or_label_without_its_field_cannot_be_declared(name: str, line: str, labels: tuple[str, ...]) -> None:
    """It would fail when it happens, at night, instead of at import."""
    with pytest.raises(InvariantViolated, match=r"chair|room"):

        class Wrong(Event, name=name, line=line, labels=labels):
            cook: str


def test_a_name_means_one_event(dropped: type[Event]) -> None:
    """Dashboards and alerts find it by its name."""
    with pytest.raises(InvariantViolated, match="kitchen"):

        class Again(Event, name="kitchen.plate_dropped", line="again"):
            pass


def test_a_log_handler_that_raises_breaks_nothing(dropped: type[Event]) -> None:
    """A handler of the user's may; what was about to be done when the event was told still has to be done."""
    before = events.SINK_FAILURES[0]

    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("no")

    handler = Broken()
    logging.getLogger("spoolproof.kitchen").addHandler(handler)
    try:
        emit(dropped(cook="anna", plates=1))  # type: ignore[call-arg]
    finally:
        logging.getLogger("spoolproof.kitchen").removeHandler(handler)

    assert before + 1 == events.SINK_FAILURES[0]


def test_a_text_with_percent_signs_is_written_as_it_is(dropped: type[Event], caplog: pytest.LogCaptureFixture) -> None:
    """URLs and error texts hold them; `logging` would take them for placeholders."""
    emit(dropped(cook="100%s", plates=1))  # type: ignore[call-arg]

    assert ["kitchen.plate_dropped 100%s dropped 1 plates"] == caplog.messages
