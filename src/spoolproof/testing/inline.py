"""Runs the jobs of a SQLite database where they are given, on the event loop: no threads, so a manual clock sees all of
a test's time, and a debugger all of its work."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

logger = logging.getLogger("spoolproof.sqlite")


class InlineRunner:
    """Implements `spoolproof.sqlite.threads.Runner`. A job given by a job runs after it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[Callable[[], None]] = deque()
        self._is_running = False

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)
        if self._is_running:
            return
        self._is_running = True
        try:
            while self._jobs:
                self._run(self._jobs.popleft())
        finally:
            self._is_running = False

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        self._jobs.clear()

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:
            logger.exception("sqlite.job_failed runner=%s", self._name)
