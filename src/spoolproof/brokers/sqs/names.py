"""Our names as SQS and SNS can have them: letters, digits, `-` and `_`; a dot becomes `-`. Pure.

What does not fit, by its characters or its length, is cut and gets a mark of its own, so that two names stay two.
A queue whose name ends in `.fifo` is a FIFO queue, and so is its `.dead`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from spoolproof.errors import SettingsError

_QUEUE_CHARACTERS_MAX, _TOPIC_CHARACTERS_MAX = 80, 256
_MARK_CHARACTERS = 10
_FIFO, _DEAD = ".fifo", ".dead"


def is_fifo(queue: str) -> bool:
    """Whether a queue keeps the order of a key."""
    return queue.removesuffix(_DEAD).endswith(_FIFO)


@dataclass(frozen=True, slots=True)
class Names:
    """prefix: before every name."""

    prefix: str

    def queue(self, name: str) -> str:
        """Return the name of a queue in SQS: `shop.orders.fifo.dead` is `shop-orders-dead.fifo`."""
        if not is_fifo(name):
            return self._fitted(name, _QUEUE_CHARACTERS_MAX)
        dead = _DEAD if name.endswith(_DEAD) else ""
        base = name.removesuffix(_DEAD).removesuffix(_FIFO)
        return self._fitted(base + dead, _QUEUE_CHARACTERS_MAX - len(_FIFO)) + _FIFO

    def topic(self, exchange: str, key: str, *, is_fifo: bool) -> str:
        """Return the name of the topic of an exchange for one routing key; of the exchange alone when it is empty."""
        suffix = _FIFO if is_fifo else ""
        return self._fitted(f"{exchange}.{key}" if key else exchange, _TOPIC_CHARACTERS_MAX - len(_FIFO)) + suffix

    def topics(self, exchange: str) -> str:
        """Return the pattern of every topic of an exchange, for the policy of a queue."""
        return self._plain(exchange) + "*"

    def check(self, queues: list[str]) -> None:
        """Refuse a topology in which two queues would be one. Raises SettingsError."""
        taken: dict[str, str] = {}
        for queue in queues:
            other = taken.setdefault(self.queue(queue), queue)
            if other != queue:
                text = f"queues {other!r} and {queue!r} are both {self.queue(queue)!r} in SQS; rename one (queue=)"
                raise SettingsError([text])

    def check_ordered(self, queues: list[str]) -> None:
        """Refuse standard queues, which keep no order, for handlers that ask for it. Raises SettingsError."""
        faults = [
            f"queue {queue!r} is declared with ordered=True and would be a standard SQS queue, which keeps no order; "
            f"name it queue={queue + _FIFO!r}"
            for queue in queues
            if not is_fifo(queue)
        ]
        if faults:
            raise SettingsError(faults)

    def _plain(self, name: str) -> str:
        return self.prefix + re.sub("[^A-Za-z0-9_-]", "-", name)

    def _fitted(self, name: str, characters_max: int) -> str:
        plain = self._plain(name)
        if len(plain) <= characters_max and re.fullmatch("[A-Za-z0-9_.-]+", name):
            return plain
        return (
            f"{plain[: characters_max - _MARK_CHARACTERS - 1]}-{sha256(name.encode()).hexdigest()[:_MARK_CHARACTERS]}"
        )
