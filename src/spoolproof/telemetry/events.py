"""Everything worth telling, each a frozen class with its log line in plain words, its metric and its labels.

A feature declares its events in an `events.py` of its own and tells them with `emit(X(…))`. There is no other way to a
log line of the product or to a counter: what is not declared cannot be written, and the declaration is what the
reference and the dashboard's rules are made from.

```python
@dataclass(frozen=True, kw_only=True)
class RelayNacked(Event, name="relay.nacked", level=WARNING, counter="relay_nacked_total", labels=("destination",),
                  line="{destination} took no more: the broker declined a publish; it rests {seconds:g} s"):
    destination: str
    seconds: float
```

Nothing is told on the success path: what succeeds is counted where it happens and read when somebody asks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from string import Formatter
from typing import Any, ClassVar

from spoolproof.errors import InvariantViolated
from spoolproof.telemetry import metrics
from spoolproof.telemetry.metrics import METER, Metric

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

CATALOGUE: dict[str, type[Event]] = {}
"""Every event there is, by name."""


class Event:
    """One thing that happened. Subclass it with the keywords below and `@dataclass(frozen=True, kw_only=True)`."""

    name: ClassVar[str] = ""
    level: ClassVar[int] = INFO
    line: ClassVar[str] = ""
    counter: ClassVar[Metric | None] = None
    logger: ClassVar[logging.Logger]

    def __init_subclass__(
        cls,
        *,
        name: str,
        line: str,
        level: int = INFO,
        counter: str | None = None,
        labels: tuple[str, ...] = (),
        **rest: Any,
    ) -> None:
        """name: `part.happened`, past tense. line: the sentence an operator reads, with fields in braces.
        counter: the metric that counts it, with these fields as labels."""
        super().__init_subclass__(**rest)
        fields = set(cls.__annotations__)
        unknown = {field for _, field, _, _ in Formatter().parse(line) if field} | set(labels)
        if not unknown <= fields or name in CATALOGUE:
            raise InvariantViolated(
                f"event {name!r}: declared twice, or {sorted(unknown - fields)} are no fields of it"
            )
        cls.name, cls.line, cls.level = name, line, level
        cls.logger = logging.getLogger("spoolproof." + name.partition(".")[0])
        cls.counter = None if counter is None else metrics.counter(counter, cls.__doc__ or line, *labels)
        CATALOGUE[name] = cls

    def text(self) -> str:
        """Return the line."""
        return self.line.format_map(vars(self))


Sink = Callable[[Event], None]
_sinks: list[Sink] = []


def emit(event: Event, *, error: BaseException | None = None) -> None:
    """Tell of an event: one log line, one count, and whoever listens. Never raises, never waits.

    error: shown with its traceback; give it for what nobody expected and when a message is given up.
    """
    if event.counter is not None:
        METER.add(event.counter, tuple(str(getattr(event, label)) for label in event.counter.labels))
    if event.logger.isEnabledFor(event.level):
        event.logger.log(event.level, event.text(), exc_info=error, extra={"event": event})
    for sink in list(_sinks):
        try:
            sink(event)
        except Exception:
            SINK_FAILURES[0] += 1


SINK_FAILURES = [0]
"""How often a listener raised."""


@contextmanager
def listening(sink: Sink) -> Iterator[None]:
    """Give every event to `sink` inside the block, on the thread where it happened; it must not block."""
    _sinks.append(sink)
    try:
        yield
    finally:
        _sinks.remove(sink)
