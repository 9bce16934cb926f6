"""Everything worth telling, each a frozen class with its log line in plain words, its metric and its labels.

A feature declares its events in an `events.py` of its own and tells them with `emit(X(…))`. There is no other way to a
log line of the product or to a counter: what is not declared cannot be written, and the declaration is what the
reference and the dashboard's rules are made from.

```python
class LeaseLost(
    Event,
    name="lease.lost",
    level=WARNING,
    line="kind={kind} lost={lost} kept={kept}",
    counter="lease_lost_total",
    labels=("kind",),
):
    kind: str
    lost: int
    kept: int
```

A subclass has its annotations as keywords and cannot be changed. Nothing is told on the success path: what succeeds is
counted where it happens and read when somebody asks. What may come several times a second goes through
`telemetry.folding`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from string import Formatter
from typing import ClassVar, dataclass_transform

from spoolproof.errors import InvariantViolated
from spoolproof.telemetry import metrics
from spoolproof.telemetry.metrics import METER, Metric
from spoolproof.telemetry.redaction import masked_text

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

CATALOGUE: dict[str, type[Event]] = {}
"""Every event there is, by name."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Event:
    """One thing that happened. Subclass it with the keywords below."""

    name: ClassVar[str] = ""
    level: ClassVar[int] = INFO
    line: ClassVar[str] = ""
    counter: ClassVar[Metric | None] = None
    labels: ClassVar[tuple[str, ...]] = ()
    folds: ClassVar[tuple[str, ...]] = ()
    logger: ClassVar[logging.Logger]
    _fields: ClassVar[frozenset[str]] = frozenset()
    _defaults: ClassVar[dict[str, object]] = {}

    def __init_subclass__(
        cls,
        *,
        name: str,
        line: str,
        level: int = INFO,
        counter: str | None = None,
        labels: tuple[str, ...] = (),
        folds: tuple[str, ...] = (),
    ) -> None:
        """name: `part.happened`, past tense. line: what an operator reads after the name, with fields in braces.
        counter: the metric that counts it. labels: the fields that are its labels, `label=field` under another name.
        folds: the fields that make two of them the same news, where it goes through `Folded`; never an id or a number
        that differs each time."""
        super().__init_subclass__()
        cls._fields = fields = frozenset(cls.__annotations__)
        cls._defaults = {field: vars(cls)[field] for field in fields if field in vars(cls)}
        counted = {label.partition("=")[0]: label.rpartition("=")[2] for label in labels}
        unknown = {field for _, field, _, _ in Formatter().parse(line) if field} | {*counted.values(), *folds}
        if not unknown <= fields or name in CATALOGUE:
            raise InvariantViolated(
                f"event {name!r}: declared twice, or {sorted(unknown - fields)} are no fields of it"
            )
        cls.name, cls.line, cls.level, cls.folds = name, line, level, folds
        cls.logger = logging.getLogger("spoolproof." + name.partition(".")[0])
        cls.counter = None if counter is None else metrics.counter(counter, cls.__doc__ or line, *counted)
        cls.labels = tuple(counted.values())
        CATALOGUE[name] = cls

    # not a dataclass: making a hundred of them is a tenth of a second in the start of every process
    def __init__(self, **values: object) -> None:
        """Raises TypeError for a field that is missing, or is none."""
        values = {**self._defaults, **values}
        if values.keys() != self._fields:
            raise TypeError(f"{type(self).__name__} has the fields {sorted(self._fields)}, not {sorted(values)}")
        vars(self).update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name}: an event does not change")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.name, *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def text(self) -> str:
        """Return the name and the line."""
        return f"{self.name} {self.line.format_map(vars(self))}".rstrip()


Sink = Callable[[Event], None]
_sinks: list[Sink] = []


def emit(event: Event, *, error: BaseException | None = None, level: int | None = None) -> None:
    """Tell of an event: one count, whoever listens, and one log line. Never raises, never waits.

    error: shown with its traceback; give it for what nobody expected and when a message is given up. level: where
    this one is louder or quieter than its kind.
    """
    count(event)
    write(event, error, level)


def count(event: Event) -> None:
    """The half of `emit` that is done for every event, also where its line is not written."""
    if event.counter is not None:
        METER.add(event.counter, tuple(str(getattr(event, label)) for label in event.labels))
    for sink in list(_sinks):
        try:
            sink(event)
        except Exception:
            SINK_FAILURES[0] += 1


def write(event: Event, error: BaseException | None, level: int | None, suppressed: int = 0) -> None:
    """The half of `emit` that writes the line. suppressed: how many like it were not written since the last."""
    level = event.level if level is None else level
    if not event.logger.isEnabledFor(level):
        return
    try:
        text = masked_text(event.text()) + (f" suppressed={suppressed}" if suppressed else "")
        extra = {"event": event, "suppressed": suppressed}
        # passed as an argument: a text may hold what looks like a placeholder
        event.logger.log(level, "%s", text, exc_info=error, extra=extra, stacklevel=3)
    except Exception:  # a text that cannot be made, a handler of the user's that raises
        SINK_FAILURES[0] += 1


SINK_FAILURES = [0]
"""How often a listener or a log handler raised."""


@contextmanager
def listening(sink: Sink) -> Iterator[None]:
    """Give every event to `sink` inside the block, on the thread where it happened; it must not block."""
    _sinks.append(sink)
    try:
        yield
    finally:
        _sinks.remove(sink)
