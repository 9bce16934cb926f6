"""What is told of SQLite files."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, Event


class JobFailed(Event, name="sqlite.job_failed", level=ERROR, line="thread={thread}"):
    """A job of a writer or reader thread raised: a bug of ours; the thread goes on."""

    thread: str


class DoesNotAnswer(Event, name="sqlite.does_not_answer", level=ERROR, line="path={path}"):
    """The disk answers nothing while the file is closed; whoever waits is told, and the exit goes on."""

    path: str
