"""What is told of sagas."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, INFO, WARNING, Event
from spoolproof.telemetry.metrics import Kind, counter, declare, gauge, histogram

SAGAS = gauge(
    "sagas", "Sagas that are not over, by what they are; counted every 30 s by who leads.", *("saga", "state")
)
OLDEST = gauge("saga_oldest_timestamp_seconds", "When the oldest of these was started, in Unix time.", "saga", "state")
LATE = gauge(
    "saga_late_seconds", "For how long the first saga that is due has been, with nobody to take it up.", "saga"
)
STRANDED = gauge("saga_stranded", "Sagas that are due and that no live process has the code of.", *("saga", "version"))
CLAIMED = gauge("sagas_claimed", "Sagas that this process works on.")
RESCUED = counter("saga_rescued_total", "Sagas that were taken from processes that had died.")
ATTEMPT_SECONDS = histogram(
    "saga_attempt_seconds", "How long an attempt of a step or an undo took.", *("saga", "step", "phase", "outcome")
)
DURATION_SECONDS = declare(
    "saga_duration_seconds",
    Kind.HISTOGRAM,
    "From the start of a saga to its end.",
    ("saga", "outcome"),
    (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0, 604_800.0),
)
STARTED = counter("saga_started_total", "Sagas that were started here.", *("saga",))


class SagaFinished(
    Event,
    name="saga.finished",
    level=INFO,
    line="saga={saga} outcome={outcome} id={id} key={key} cause={cause}",
    counter="saga_finished_total",
    labels=("saga", "outcome"),
):
    """Sagas that are over: completed or compensated."""

    saga: str
    outcome: str
    id: str
    key: str
    cause: str


class StepFailed(
    Event,
    name="saga.attempted",
    level=WARNING,
    line="saga={saga} step={step} phase={phase} outcome={outcome} id={id} attempt={attempt} error={error}",
    counter="saga_failed_attempts_total",
    labels=("saga", "step", "phase", "outcome"),
    folds=("saga", "step", "outcome"),
):
    """Attempts of steps that did not succeed: refused, unavailable or unknown."""

    saga: str
    step: str
    phase: str
    outcome: str
    id: str
    attempt: int
    error: str


class Compensating(Event, name="saga.compensating", level=WARNING, line="saga={saga} id={id} key={key} cause={cause}"):
    """A saga is undone from here on."""

    saga: str
    id: str
    key: str
    cause: str


class InReview(
    Event,
    name="saga.in_review",
    level=ERROR,
    line="saga={saga} kind={kind} id={id} key={key} question={question}; spoolproof saga show {id}",
    counter="saga_reviews_total",
    labels=("saga", "kind"),
):
    """Sagas that wait for a person."""

    saga: str
    kind: str
    id: str
    key: str
    question: str


class StepStrange(
    Event,
    name="saga.step_strange",
    level=WARNING,
    line="saga={saga} step={step} id={id}: this code has no such step; left to a newer release, looked at again in 5 s",
    counter="saga_step_strange_total",
    labels=("saga",),
    folds=("saga", "step"),
):
    """Sagas that were taken up and let go, since a release that this code is older than has worked on them."""

    saga: str
    step: str
    id: str


class Rescued(
    Event,
    name="saga.rescued",
    level=WARNING,
    line="sagas={sagas} crashes_max={crashes_max}: their process has died; they go on here or elsewhere",
):
    """Sagas were taken from a process whose lease ran out."""

    sagas: int
    crashes_max: int


class WasFenced(
    Event,
    name="saga.fenced",
    level=WARNING,
    line="saga={saga} id={id}: another process or a person has it now; nothing more is done for it here",
    counter="saga_fenced_total",
    labels=("saga",),
    folds=("saga",),
):
    """Sagas that this process found taken."""

    saga: str
    id: str


class ArgumentsChanged(
    Event,
    name="saga.arguments_changed",
    level=WARNING,
    line="saga={saga} step={step} id={id}: it is called with other arguments than those it ended with; its record "
    "counts",
    folds=("saga", "step"),
):
    """A replay called a step that has ended otherwise than before."""

    saga: str
    step: str
    id: str


class RunFailed(
    Event,
    name="saga.run_failed",
    level=ERROR,
    line="saga={saga} id={id} error={error}: it is taken up again in a minute",
    folds=("saga",),
):
    """A saga's run failed outside its steps and its flow."""

    saga: str
    id: str
    error: str


class Decided(Event, name="saga.decided", level=WARNING, line="action={action} actor={actor} id={id} reason={reason}"):
    """A person, or whoever acts for one, has changed the course of a saga."""

    action: str
    actor: str
    id: str
    reason: str
