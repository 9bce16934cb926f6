"""The span around one attempt: what the handler calls and publishes is under it, in the trace of the message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from spoolproof.consumer.work import Work
from spoolproof.message import REPLAY_OF
from spoolproof.outcome import Outcome
from spoolproof.telemetry import tracing

_NOBODY = nullcontext()


def around_attempt(work: Work) -> Any:
    """Return the context to run a handler in; costs one look where nobody traces."""
    return _NOBODY if tracing.tracer() is None else _traced(work)


@contextmanager
def _traced(work: Work) -> Iterator[None]:
    message = work.message
    span = tracing.processing(
        *(work.queue, message.id, (message.traceparent, message.tracestate)),
        attempt=work.failed + 1,
        is_replay=REPLAY_OF in message.headers,
    )
    if span is None:
        yield
        return
    failure: BaseException | None = None
    try:
        with tracing.current(span):
            yield
    except Outcome:
        raise
    except BaseException as error:
        failure = error
        raise
    finally:
        tracing.end(span, failure)
