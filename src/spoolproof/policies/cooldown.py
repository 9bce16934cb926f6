"""A dependency that answered "too many requests" is left alone for as long as it asked."""

from __future__ import annotations

import threading

from spoolproof.errors import RateLimited
from spoolproof.policies import events


class Cooldown:
    """One per policy and key. until: monotonic seconds, 0 when there is none; read it without the lock."""

    __slots__ = ("_key", "_lock", "_name", "_seconds", "cooldown_seconds_max", "until")

    def __init__(
        self, name: str, key: str | None, *, cooldown_seconds: float = 1.0, cooldown_seconds_max: float = 300.0
    ) -> None:
        self._name = name
        self._key = key
        self._lock = threading.RLock()
        self._seconds = cooldown_seconds
        self.cooldown_seconds_max = cooldown_seconds_max
        self.until = 0.0

    def configure(self, *, cooldown_seconds: float, cooldown_seconds_max: float) -> None:
        """Change the bounds; a cooldown that runs goes on."""
        self._seconds = cooldown_seconds
        self.cooldown_seconds_max = cooldown_seconds_max

    def start(self, now: float, retry_after_seconds: float | None) -> None:
        """Refuse attempts for what was asked, or for the default; never beyond the maximum, never shortened."""
        seconds = min(self._seconds if retry_after_seconds is None else retry_after_seconds, self.cooldown_seconds_max)
        with self._lock:
            is_new = now + seconds > self.until
            if is_new:
                self.until = now + seconds
        if is_new and events.listeners:
            events.emit(events.CooldownStarted(policy=self._name, key=self._key, seconds=seconds))

    def check(self, now: float) -> None:
        """Raise RateLimited while it lasts."""
        left = self.until - now
        if left > 0:
            raise RateLimited(policy=self._name, retry_after_seconds=left, by="cooldown")
