"""How a request ends without an answer; in the tree of `spoolproof.errors`."""

from __future__ import annotations

from spoolproof.errors import LimitReached, SpoolproofError


class RequestsFull(LimitReached):
    """Too many requests of this process wait for their answer."""

    what = "requests waiting for their answer"


class RequestTimeout(SpoolproofError, TimeoutError):
    """No answer came in time. place: where the request was kept when it was sent. A handler that had begun it may still
    end, with its effects; none begins it any more, for it has expired."""

    code = "timeout"
    failure_kind = "transient"
    is_unknown = True

    def __init__(self, type: str, id: str, seconds: float, place: str, ending: str | None = None) -> None:
        self.type = type
        self.id = id
        self.seconds = seconds
        self.place = place
        why = ending or f"no answer within {seconds:g} s"
        super().__init__(
            f"{type} ({id}): {why}. It was {place}, and its outcome is unknown: a handler that has begun it may still "
            "be under way, and its answer will be logged as late; none begins it any more, for it has expired"
        )
