"""What is told of degradation."""

from __future__ import annotations

from spoolproof.telemetry.events import WARNING, Event
from spoolproof.telemetry.metrics import counter, gauge

SERVED = counter("ladder_served_total", "Answers by ladder and rung; `none`: no rung had one.", "ladder", "rung")
EXERCISES = counter(
    "fallback_exercises_total",
    "Fallbacks that were run beside a primary that answered, by outcome (done, empty, failed).",
    *("ladder", "outcome"),
)
LEVEL = gauge("degradation_level", "How much is left out: 0 nothing, 3 all but what is critical_plus.")
SHED = counter("shed_total", "HTTP requests refused because of the level.", "criticality")


class LevelChanged(
    Event,
    name="degradation.level_changed",
    level=WARNING,
    line="old={old} new={new} reason={reason}",
    counter="degradation_level_changes_total",
    labels=("new",),
):
    """More or less work is taken in than before."""

    old: int
    new: int
    reason: str


class FallbackFailed(
    Event,
    name="degradation.fallback_failed",
    level=WARNING,
    line="ladder={ladder} rung={rung} exercise={exercise} error={error}",
    folds=("ladder", "rung"),
):
    """A fallback raised, or took too long; as an exercise while nobody needed it."""

    ladder: str
    rung: str
    exercise: bool
    error: str


class DrillStarted(
    Event,
    name="degradation.drill_started",
    level=WARNING,
    line="ladder={ladder} rung={rung} share={share:g} seconds={seconds:g}",
):
    """Some calls of a ladder begin at a fallback, on purpose."""

    ladder: str
    rung: str
    share: float
    seconds: float


class OverrideUnreadable(Event, name="degradation.override_unreadable", level=WARNING, line="row={row} error={error}"):
    """A row of the store that says which level is set, or where a process is, makes no sense."""

    row: str
    error: str
